//! The controller at work: fed by the writer and by nodes, its effects carried out.
//!
//! One task has the controller. What it decides is made durable first: the commands with their ids,
//! and what is desired in the twins. Only then is anything sent to a node, so a command that a node
//! received is never forgotten. What windows held before a start, or before their rule existed, is
//! read from the log by a thread of its own, in one pass for all that are asked for at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::controller::{Controller, Counts, Observed};
use super::decide::NodeSpec;
use super::effects::{DOCUMENTS, Effects, FeatureEdit, Note, Stage};
use super::facts::{HistoryRequest, TRANSMISSION};
use super::inbox::{Inbox, Input};
use super::rule::Rule;
use crate::base::clock::now_us;
use crate::base::telemetry::{Severity, Telemetry};
use crate::base::time::rfc3339;
use crate::gateway::directory::Uplinks;
use crate::gateway::outbox::Outbox;
use crate::twin::aggregate::Aggregates;
use crate::twin::path::Path;
use crate::twin::{Change, ThingId};
use crate::wire::Uplink;
use crate::writer::{Committed, Origin, Precondition, Rejected, Request, Sink, Writer};

/// Time after which decisions that could not be stored are stored again, as on a full disk.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Bytes of the log that are read back for windows, some 1.5 million readings. Where a window
/// reaches further back it is shorter until it has filled.
const READ_BACK_MAX: u64 = 256 << 20;

/// See the module.
pub struct Control {
    controller: Mutex<Controller>,
    inbox: Mutex<Inbox>,
    rules: Mutex<BTreeMap<String, Rule>>,
    wake: Notify,
    /// There is a rule, or a node.
    needed: AtomicBool,
    writer: Arc<Writer>,
    aggregates: Arc<Aggregates>,
    telemetry: Arc<Telemetry>,
    outbox: Arc<Outbox>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks is a bug; what they guard is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// A controller that has what was stored before, and observes what the writer commits.
    pub fn new(
        writer: Arc<Writer>,
        aggregates: Arc<Aggregates>,
        telemetry: Arc<Telemetry>,
        outbox: Arc<Outbox>,
    ) -> Arc<Self> {
        let mut controller = Controller::default();
        let documents = writer.documents(DOCUMENTS);
        let stored = documents.iter().map(|(key, text)| (&**key, &**text));
        let unreadable = controller.restore(stored);
        if unreadable > 0 {
            telemetry.event(
                now_us(),
                Severity::Warning,
                "UnreadableRecords",
                "Controller",
                format!("{unreadable} records of the controller could not be understood"),
            );
        }
        let control = Arc::new(Self {
            controller: Mutex::new(controller),
            inbox: Mutex::default(),
            rules: Mutex::default(),
            wake: Notify::new(),
            // Twins that somebody steered have nodes without a manifest.
            needed: AtomicBool::new(!documents.is_empty()),
            writer,
            aggregates,
            telemetry,
            outbox,
        });
        control.writer.add_sink(Arc::new(Feed(control.clone())));
        control
    }

    /// Sets what a node is, or with `None` that a twin has none any more.
    pub fn set_node(&self, id: ThingId, spec: Option<Arc<NodeSpec>>) {
        let any = spec.is_some();
        lock(&self.inbox).nodes.insert(id, spec);
        self.need(any);
    }

    /// Adds or replaces a rule.
    pub fn set_rule(&self, rule: Rule) {
        let mut rules = lock(&self.rules);
        if rules.get(&*rule.name) == Some(&rule) {
            return;
        }
        rules.insert(rule.name.to_string(), rule);
        self.rules_changed(&rules);
    }

    /// Removes a rule.
    pub fn remove_rule(&self, name: &str) {
        let mut rules = lock(&self.rules);
        if rules.remove(name).is_some() {
            self.rules_changed(&rules);
        }
    }

    /// The members of some aggregate may have changed.
    pub fn members_changed(&self) {
        lock(&self.inbox).regroup = true;
        self.wake.notify_one();
    }

    /// How many twins a rule is about.
    pub fn rule_members(&self, name: &str) -> usize {
        lock(&self.controller).rule_members().get(name).copied().unwrap_or_default()
    }

    fn rules_changed(&self, rules: &BTreeMap<String, Rule>) {
        lock(&self.inbox).rules = Some(rules.values().cloned().collect());
        self.need(!rules.is_empty());
    }

    fn need(&self, any: bool) {
        if any && !self.needed.swap(true, Ordering::AcqRel) {
            // Nobody looked until now.
            lock(&self.inbox).overrun = true;
        }
        self.wake.notify_one();
    }

    /// Why a node transmits as it does; `None` if there is no such node.
    pub fn explain(&self, id: &ThingId) -> Option<Value> {
        lock(&self.controller).explain(id, now_us())
    }

    /// How many nodes there are, are online, and have commands under way.
    pub fn counts(&self) -> Counts {
        lock(&self.controller).counts()
    }

    /// The commands that are remembered.
    pub fn commands(&self) -> Vec<Value> {
        lock(&self.controller).commands()
    }

    fn put(&self, input: Input) {
        if lock(&self.inbox).push(input) {
            self.telemetry.context_missed.inc();
            let remedy = "have nodes send less often; the state of all twins is read again";
            tracing::warn!(remedy, "changes of twins came faster than rules could be judged");
        }
        self.wake.notify_one();
    }

    /// Works until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        // What was stored is taken up before anything is decided.
        lock(&self.inbox).overrun = true;
        let mut again = None;
        loop {
            if again.is_some_and(|at| at <= Instant::now()) {
                lock(&self.controller).not_stored();
                again = None;
            }
            let mut effects = self.round();
            self.read_back(std::mem::take(&mut effects.history), &stop);
            if !self.carry_out(effects).await {
                again = Some(Instant::now() + STORE_RETRY);
            }
            let more = again.is_none() && lock(&self.controller).has_work();
            if more || !lock(&self.inbox).is_empty() {
                tokio::task::yield_now().await;
                if *stop.borrow() {
                    return;
                }
                continue;
            }
            let due_us = lock(&self.controller).due();
            let sleep = async {
                match due_us {
                    // A clock that jumps is noticed within a second.
                    Some(due_us) => {
                        let wait = u64::try_from((due_us - now_us()).max(0)).unwrap_or(0);
                        tokio::time::sleep(Duration::from_micros(wait.min(1_000_000))).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let store = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.wake.notified() => {}
                () = sleep => {}
                () = store => {}
            }
        }
    }

    /// Takes what waits, and decides.
    fn round(&self) -> Effects {
        let (inputs, nodes, rules, read, overrun, mut joined) = {
            let mut inbox = lock(&self.inbox);
            let inputs = inbox.take_round();
            let nodes = std::mem::take(&mut inbox.nodes);
            let read = std::mem::take(&mut inbox.read);
            let (overrun, regroup) =
                (std::mem::take(&mut inbox.overrun), std::mem::take(&mut inbox.regroup));
            (inputs, nodes, inbox.rules.take(), read, overrun, regroup)
        };
        let mut controller = lock(&self.controller);
        if overrun && self.needed.load(Ordering::Acquire) {
            self.meet_all(&mut controller);
        }
        let now = now_us();
        for (id, spec) in nodes {
            controller.set_node(&id, spec, now);
        }
        let regroup = rules.is_some();
        if let Some(rules) = rules {
            self.find_members(&mut controller, rules.iter());
            controller.set_rules(rules, now);
        }
        for input in inputs {
            match input {
                Input::Changed(change, time_us) => {
                    joined |= change.before.is_none()
                        || change.after.is_none()
                        || change.event.path.feature().is_none();
                    controller.observe(&Observed {
                        id: &change.id,
                        event: Some(&change.event),
                        twin: change.after,
                        origin: change.origin,
                        revision: change.revision,
                        time_us,
                    });
                }
                Input::Received(id, uplink, time_us) => controller.uplink(&id, &uplink, time_us),
            }
        }
        if (joined || overrun) && !regroup {
            let named = controller.aggregates();
            self.members_of(&mut controller, &named);
        }
        let now = now_us();
        for history in read {
            controller.fill(history, now);
        }
        controller.tick(now);
        controller.settle(now)
    }

    /// Has what is wanted of the past read from the log, once what is being read is.
    fn read_back(self: &Arc<Self>, wanted: HistoryRequest, stop: &watch::Receiver<bool>) {
        let mut inbox = lock(&self.inbox);
        inbox.wanted.extend(wanted);
        let Some(since_us) = inbox.wanted.since(now_us()).filter(|_| !inbox.reading) else {
            return;
        };
        inbox.reading = true;
        let mut history = std::mem::take(&mut inbox.wanted);
        drop(inbox);
        let (control, stop) = (self.clone(), stop.clone());
        tokio::task::spawn_blocking(move || {
            let (started, mut reached) = (Instant::now(), None);
            let read = control.writer.events_since(since_us, READ_BACK_MAX, |logged| {
                reached.get_or_insert(logged.time_us());
                history.take(logged.id(), logged.revision(), logged.time_us(), || logged.event());
                !*stop.borrow()
            });
            let took = started.elapsed();
            tracing::debug!(windows = history.len(), ?took, "windows were filled from history");
            let shortfall = match read {
                Ok(whole) if whole || *stop.borrow() => None,
                Ok(_) => Some((
                    Severity::Normal,
                    "ShortWindows",
                    match reached {
                        Some(at) => format!("history was read back to {} only", rfc3339(at)),
                        None => "no history could be read".to_owned(),
                    },
                )),
                Err(error) => {
                    let why = format!("history could not be read to its end: {error}");
                    Some((Severity::Warning, "HistoryUnreadable", why))
                }
            };
            if let Some((severity, reason, why)) = shortfall {
                let text = format!("{why}; windows that reach further miss what was before");
                control.telemetry.event(now_us(), severity, reason, "Controller", text);
            }
            let mut inbox = lock(&control.inbox);
            inbox.read.push(history);
            inbox.reading = false;
            drop(inbox);
            control.wake.notify_one();
        });
    }

    /// Shows the controller every twin as it is.
    fn meet_all(&self, controller: &mut Controller) {
        let mut twins = self.writer.twins();
        twins.sort_by(|a, b| a.id.cmp(&b.id));
        for twin in twins {
            controller.observe(&Observed {
                id: &twin.id.clone(),
                event: None,
                revision: twin.revision,
                origin: Origin::Runtime,
                time_us: now_us(),
                twin: Some(twin),
            });
        }
    }

    fn find_members<'a>(&self, controller: &mut Controller, rules: impl Iterator<Item = &'a Rule>) {
        let named = rules.filter_map(|rule| rule.target.aggregate.clone()).collect();
        self.members_of(controller, &named);
    }

    fn members_of(&self, controller: &mut Controller, named: &BTreeSet<ThingId>) {
        for id in named {
            let members = self.aggregates.members(id).unwrap_or_default();
            controller.set_aggregate(id, members.into_iter().collect(), now_us());
        }
    }

    /// Makes durable what must be, and then sends what is to be sent; whether it could be stored.
    async fn carry_out(&self, effects: Effects) -> bool {
        let Effects { documents, edits, history: _, notes, messages, timings } = effects;
        let mut batch = None;
        if !documents.is_empty() {
            let documents =
                documents.into_iter().map(|(key, text)| (key, text.map(Arc::from))).collect();
            match self.writer.put_documents(documents, now_us()) {
                Ok(staged) => batch = Some(staged),
                // Nothing is sent that could be forgotten.
                Err(rejected) => return self.not_stored(&rejected),
            }
        }
        for edit in edits {
            match self.submit(edit) {
                Ok(staged) => batch = staged.or(batch),
                Err(rejected) => return self.not_stored(&rejected),
            }
        }
        if let Some(batch) = batch {
            self.writer.commit_or_wake();
            if self.writer.until_durable(batch).await.is_err() {
                return false;
            }
        }
        for message in messages {
            self.telemetry.commands_sent.add(u64::from(!message.desired));
            let (topic, payload, retain) = message.into_publish();
            self.outbox.publish(topic, payload, retain);
        }
        for (stage, since_us, until_us) in timings {
            let us = until_us.unwrap_or_else(now_us) - since_us;
            let took = Duration::from_micros(u64::try_from(us).unwrap_or(0));
            match stage {
                Stage::Command => &self.telemetry.stage_command,
                Stage::Answer => &self.telemetry.stage_answer,
                Stage::Reading => &self.telemetry.stage_reading,
                Stage::ActCommand => &self.telemetry.stage_act_command,
                Stage::ActAnswer => &self.telemetry.stage_act_answer,
            }
            .record(took);
        }
        for Note { warning, reason, object, message, show } in notes {
            match (warning, show) {
                (false, true) => self.telemetry.announce(now_us(), reason, object, message),
                _ => {
                    let severity = if warning { Severity::Warning } else { Severity::Normal };
                    self.telemetry.event(now_us(), severity, reason, object, message);
                }
            }
        }
        true
    }

    fn submit(&self, edit: FeatureEdit) -> Result<Option<u64>, Rejected> {
        let FeatureEdit { thing, feature, desired, value, merge } = edit;
        let Some(twin) = self.writer.newest(thing.as_str()) else { return Ok(None) };
        let there = twin.features.contains_key(feature.as_str());
        let path =
            if desired { Path::DesiredProperties(feature) } else { Path::Properties(feature) };
        let change = match there && !merge {
            true => Change::Modify(path, value.into()),
            false => Change::Merge(path, value.into()),
        };
        let only_if = Precondition::Present;
        let request = Request { id: thing, change, only_if, origin: Origin::Runtime, depth: 0 };
        match self.writer.submit(request, now_us()) {
            Ok(accepted) => Ok(Some(accepted.batch)),
            // It was deleted meanwhile, or takes nothing: its next change is looked at again.
            Err(Rejected::Refused(_)) => Ok(None),
            Err(rejected) => Err(rejected),
        }
    }

    fn not_stored(&self, rejected: &Rejected) -> bool {
        let why = match rejected {
            Rejected::Refused(refusal) => refusal.message(),
            Rejected::NotStored(error) => error.to_string(),
        };
        self.telemetry.event(
            now_us(),
            Severity::Warning,
            "NotStored",
            "Controller",
            format!("decisions could not be stored, so nothing was sent to nodes: {why}"),
        );
        false
    }
}

/// What the writer commits, on its way to the controller.
struct Feed(Arc<Control>);

impl Sink for Feed {
    fn committed(&self, changes: &[Committed]) {
        if !self.0.needed.load(Ordering::Acquire) {
            let steers = |change: &&Committed| {
                change.origin == Origin::Client && change.event.touches_desired(TRANSMISSION)
            };
            if !changes.iter().any(|change| steers(&change)) {
                return;
            }
            self.0.need(true);
        }
        for change in changes {
            self.0.put(Input::Changed(Box::new(change.clone()), change.time_us));
        }
    }
}

impl Uplinks for Control {
    fn received(&self, thing: ThingId, uplink: Uplink) {
        // A node that reports its state has a session, declared or not.
        self.need(true);
        self.put(Input::Received(thing, Box::new(uplink), now_us()));
    }
}
