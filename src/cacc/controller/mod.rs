//! The controller: what goes in is passed on to the part that owns it, and what comes out is
//! collected. Pure.
//!
//! ```text
//!  twin changed ──► Facts ── what changed ──► Rules ── which moved ─┐
//!  node sent ─────► Session ── its status ──► Facts                 ▼
//!  time passed ───► Rules, Session                          decide (once a change)
//!                                                                   │
//!  Effects ◄── edits, documents, commands ── Session ◄── decision ──┘
//! ```
//!
//! | part | owns | returns |
//! |---|---|---|
//! | [`Facts`] | twins, windows, ages, links | what changed |
//! | [`Rules`] | members, truth, timers | which rules changed their state |
//! | [`decide`](crate::cacc::decide) | nothing: a pure function | a node's decision, and who is behind it |
//! | [`Session`] | one node: presence, transmission, actuators, commands | effects and events |
//! | [`explain`] | nothing | sentences |
//!
//! From a verdict to a command: [`Controller::observe`] records it in the facts and has the rules
//! look at it; [`Controller::follow`] marks the nodes of those that moved; [`Controller::settle`] decides
//! for these nodes and lets their sessions deliver. Inputs carry their time, and the same inputs give
//! the same effects, whatever the order of twins, nodes and rules.
//!
//! Not here: clocks, the log, MQTT (`cacc::driver`); YAML (`manifest`, `reconcile`).

mod settle;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "one test measures")]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use serde_json::Value;

use super::cause::Source;
use super::decide::NodeSpec;
use super::effects::{self, Pending};
use super::explain::{self, Explained};
use super::facts::{Facts, HistoryRequest, Slot};
use super::rule::Rule;
use super::rules::{RuleRecord, Rules};
use super::session::overrides::{FeatureOverride, is_transmission, overrides};
use super::session::presence::Presence;
use super::session::{Session, SessionRecord, Turn};
use crate::twin::{Event, ThingId, Twin};
use crate::wire::Uplink;
use crate::writer::Origin;

/// Nodes and their commands, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: usize,
    /// Those that are online.
    pub online: usize,
    /// Commands that are not finished.
    pub commands: usize,
}

/// What happened to a twin.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Which.
    pub id: &'a ThingId,
    /// What; `None` when it is only met for the first time, as after a start.
    pub event: Option<&'a Event>,
    /// As it is now; `None` if it is gone.
    pub twin: Option<Arc<Twin>>,
    /// Who did it.
    pub origin: Origin,
    /// Its revision now.
    pub revision: u64,
    /// When, microseconds since 1970.
    pub time_us: i64,
}

impl Observed<'_> {
    fn source(&self) -> Source {
        // A verdict belongs to the reading that it is about.
        let of = self.event.and_then(|event| match &self.origin {
            Origin::Service(_) => event.value.as_ref()?.get("ofRevision")?.as_u64(),
            _ => None,
        });
        let revision = of.unwrap_or(self.revision);
        Source { thing: self.id.clone(), revision, time_us: self.time_us }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Controller {
    facts: Facts,
    rules: Rules,
    /// By slot.
    sessions: Vec<Option<Box<Session>>>,
    /// What manifests declare of nodes, whether their twins are known or not.
    declared: BTreeMap<ThingId, Arc<NodeSpec>>,
    /// What was stored of sessions before the start.
    records: BTreeMap<String, SessionRecord>,
    pending: Pending,
    /// Nodes to be settled because of an actuator, and all others.
    urgent: BTreeSet<Slot>,
    others: BTreeSet<Slot>,
    /// When nodes are to be looked at again.
    timers: BinaryHeap<Reverse<(i64, Slot)>>,
    last_us: i64,
}

impl Controller {
    /// Takes what was stored before the start; to be called before anything else. Returns how
    /// many documents could not be read.
    pub fn restore<'a>(
        &mut self,
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> usize {
        let mut unreadable = 0;
        for (key, text) in documents {
            let read = if effects::is_node_key(key) {
                serde_json::from_str::<SessionRecord>(text).map(|mut record| {
                    for (rule, state) in std::mem::take(&mut record.rules) {
                        self.rules.restore_member(rule, record.thing.clone(), state);
                    }
                    self.records.insert(record.thing.clone(), record);
                })
            } else {
                serde_json::from_str::<RuleRecord>(text).map(|record| {
                    self.rules.restore_group(record);
                })
            };
            unreadable += usize::from(read.is_err());
        }
        unreadable
    }

    /// Something happened to a twin.
    pub fn observe(&mut self, observed: &Observed<'_>) {
        let now_us = self.now(observed.time_us);
        let Some(twin) = &observed.twin else { return self.forget(observed.id, now_us) };
        let slot = self.facts.add(observed.id);
        let change = self.facts.set_twin(slot, twin);
        if change.labels {
            self.rules.regroup(slot, &mut self.facts, now_us);
        }
        if change.is_new {
            self.rules.meet_aggregate(slot, &mut self.facts, now_us);
            self.open_session(slot, None);
        }
        if let Some(event) = observed.event {
            self.facts.record(slot, event, now_us);
            self.observe_session(slot, observed, event, now_us);
            let source = observed.source();
            let of_node = observed.origin == Origin::Node;
            self.rules.look(slot, Some(event), of_node, &source, &self.facts, now_us);
            self.rules.look_at_aggregate(observed.id, event, &source, &self.facts, now_us);
        }
        self.follow(now_us);
    }

    /// What an event of its twin means for a session.
    fn observe_session(&mut self, slot: Slot, of: &Observed<'_>, event: &Event, now_us: i64) {
        if of.origin == Origin::Node {
            self.facts.count_reading(slot, event, now_us);
            self.with_session(slot, now_us, |session, turn| {
                session.seen(turn);
                session.reading(event, turn)
            });
        }
        if let Some(Some(session)) = self.sessions.get_mut(slot.index()) {
            session.actuators.shown(event);
        }
        if of.origin == Origin::Client {
            self.override_by_client(slot, event, now_us);
        }
    }

    /// What clients write into `desiredProperties` applies until it is taken back.
    fn override_by_client(&mut self, slot: Slot, event: &Event, now_us: i64) {
        let Some(twin) = self.facts.of(slot).twin.clone() else { return };
        let session = self.sessions.get(slot.index()).and_then(Option::as_ref);
        let known = session.iter().flat_map(|session| session.actuators.features());
        let written = overrides(event, &twin, known);
        for (feature, change) in written {
            if !self.has_session(slot) {
                if matches!(change, FeatureOverride::Removed) {
                    continue;
                }
                self.open_session(slot, Some(Arc::default()));
            }
            if !is_transmission(&feature) {
                self.urgent.insert(slot);
            }
            self.with_session(slot, now_us, |session, _| {
                session.set_override(&feature, change);
                true
            });
        }
    }

    /// A node sent something beside its readings.
    pub fn uplink(&mut self, id: &ThingId, uplink: &Uplink, now_us: i64) {
        let now_us = self.now(now_us);
        let slot = match self.facts.slot(id) {
            Some(slot) => slot,
            None if self.declared.contains_key(id) => self.facts.add(id),
            None => return,
        };
        self.facts.seen(slot, now_us);
        if !self.has_session(slot) {
            // A node that no manifest knows is as it reports.
            let of_state = |state: &crate::wire::State| {
                let asked = state.tx.as_ref().map(|tx| super::decide::asked_of(tx, None));
                let default = asked.unwrap_or_default();
                Arc::new(NodeSpec { default, ..NodeSpec::default() })
            };
            match uplink {
                Uplink::State(state) => self.open_session(slot, Some(of_state(state))),
                _ => self.open_session(slot, None),
            }
        }
        self.with_session(slot, now_us, |session, turn| {
            session.receive(uplink, turn);
            true
        });
        let source = Source { thing: id.clone(), revision: 0, time_us: now_us };
        self.rules.look(slot, None, true, &source, &self.facts, now_us);
        self.follow(now_us);
    }

    /// Time passed.
    pub fn tick(&mut self, now_us: i64) {
        let now_us = self.now(now_us);
        self.rules.tick(&mut self.facts, now_us);
        self.follow(now_us);
        while let Some(Reverse((due_us, slot))) = self.timers.peek().copied()
            && due_us <= now_us
        {
            self.timers.pop();
            if let Some(Some(session)) = self.sessions.get_mut(slot.index()) {
                session.due_us = i64::MAX;
                session.undecided |= session.waits(now_us);
                self.mark(slot);
            }
        }
    }

    /// Looks at everything for what no input reports, such as a clock that was set.
    pub fn reconsider(&mut self, now_us: i64) {
        let now_us = self.now(now_us);
        self.rules.reconsider(&self.facts, now_us);
        self.follow(now_us);
        for at in 0..self.sessions.len() {
            let Some(session) = &mut self.sessions[at] else { continue };
            if session.waits(now_us) {
                session.undecided = true;
                self.mark(Slot::at(at));
            }
        }
    }

    /// The rules that there are from now on.
    pub fn set_rules(&mut self, rules: Vec<Rule>, now_us: i64) {
        let now_us = self.now(now_us);
        self.rules.set(rules, &mut self.facts, now_us);
        for name in self.rules.take_removed() {
            self.pending.store(effects::rule_key(&name), None);
        }
        self.follow(now_us);
    }

    /// Members of an aggregate that a rule names.
    pub fn set_aggregate(&mut self, id: &ThingId, members: BTreeSet<ThingId>, now_us: i64) {
        let now_us = self.now(now_us);
        self.rules.set_aggregate(id, members, &mut self.facts, now_us);
        self.follow(now_us);
    }

    /// What a node is by its manifest; `None` if it is none any more. It does not matter whether its
    /// twin is known yet.
    pub fn set_node(&mut self, id: &ThingId, spec: Option<Arc<NodeSpec>>, now_us: i64) {
        let now_us = self.now(now_us);
        match spec {
            Some(spec) => {
                self.declared.insert(id.clone(), spec.clone());
                let slot = self.facts.add(id);
                self.open_session(slot, Some(spec));
                self.sync(slot, now_us);
                self.follow(now_us);
            }
            // What follows from a client or the node itself is not the manifest's to remove.
            None if self.declared.remove(id).is_some() => {
                if let Some(slot) = self.facts.slot(id) {
                    self.close_session(slot);
                    self.sync(slot, now_us);
                    self.follow(now_us);
                }
            }
            None => {}
        }
    }

    /// Takes what was read of an [`Effects::history`](effects::Effects::history), and judges the
    /// rules that waited for it.
    pub fn fill(&mut self, history: HistoryRequest, now_us: i64) {
        let now_us = self.now(now_us);
        let filled = self.facts.fill(history, now_us);
        self.rules.windows_filled(&filled, &self.facts, now_us);
        self.follow(now_us);
    }

    /// The aggregates whose members the rules name.
    pub fn aggregates(&self) -> BTreeSet<ThingId> {
        self.rules.aggregates()
    }

    /// How many twins each rule is about.
    pub fn rule_members(&self) -> BTreeMap<String, usize> {
        self.rules.member_counts()
    }

    /// How many rules are active, over all twins.
    pub fn active_rules(&self) -> usize {
        self.rules.active_count()
    }

    /// Why a node transmits as it does; `None` if there is no such node.
    pub fn explain(&self, id: &ThingId, now_us: i64) -> Option<Value> {
        explain::explain(self.explained(self.facts.slot(id)?, now_us)?)
    }

    /// How many nodes there are, are online, and have commands under way.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for session in self.sessions.iter().flatten() {
            counts.nodes += 1;
            counts.online += usize::from(session.presence == Presence::Online);
            counts.commands += session.commands.open().count();
        }
        counts
    }

    /// All commands that are remembered, by node and id.
    pub fn commands(&self) -> Vec<Value> {
        let mut sessions: Vec<&Session> =
            self.sessions.iter().flatten().map(|one| &**one).collect();
        sessions.sort_by(|a, b| a.id.cmp(&b.id));
        let commands = |session: &&Session| {
            let id = session.id.clone();
            let all: Vec<Value> =
                session.commands.all().iter().map(|command| command.to_json(&id)).collect();
            all
        };
        sessions.iter().flat_map(commands).collect()
    }

    /// The time of an input is the time of all that follows from it.
    fn now(&mut self, now_us: i64) -> i64 {
        self.last_us = now_us;
        now_us
    }

    fn explained(&self, slot: Slot, now_us: i64) -> Option<Explained<'_>> {
        let session = self.sessions.get(slot.index())?.as_ref()?;
        let Self { facts, rules, .. } = self;
        Some(Explained { facts, rules, session, slot, now_us })
    }

    fn has_session(&self, slot: Slot) -> bool {
        self.sessions.get(slot.index()).is_some_and(Option::is_some)
    }

    /// Opens the session of a node, or updates it to what the manifest declares now.
    ///
    /// * `spec`: `None`: only if a manifest knows the node, or something is stored of it.
    fn open_session(&mut self, slot: Slot, spec: Option<Arc<NodeSpec>>) {
        let known = self.facts.of(slot);
        let (id, twin) = (known.id.clone(), known.twin.clone());
        let last_seen_us = known.link.last_seen_us;
        let spec = spec.or_else(|| self.declared.get(&id).cloned());
        let stored = self.records.remove(id.as_str());
        if self.sessions.len() <= slot.index() {
            self.sessions.resize_with(slot.index() + 1, || None);
        }
        let place = &mut self.sessions[slot.index()];
        match (place, spec, stored) {
            (Some(session), spec, _) => {
                if let Some(spec) = spec {
                    session.set_spec(spec);
                }
            }
            (_, None, None) => return,
            (place, spec, stored) => {
                let mut session = Session::new(id, spec.unwrap_or_default());
                if let Some(record) = stored {
                    session.restore(record);
                }
                if let Some(last_seen_us) = last_seen_us {
                    session.was_seen(last_seen_us);
                }
                *place = Some(Box::new(session));
            }
        }
        if let (Some(session), Some(twin)) = (&mut self.sessions[slot.index()], twin) {
            session.set_twin(&twin);
            if session.presence != Presence::NeverSeen {
                // It was seen before its twin was.
                let (now_us, pending) = (self.last_us, &mut self.pending);
                session.show_reported(&mut Turn { now_us, twin: Some(&twin), pending });
            }
        }
        self.mark(slot);
    }

    fn close_session(&mut self, slot: Slot) {
        let Some(session) = self.sessions.get_mut(slot.index()).and_then(Option::take) else {
            return;
        };
        self.unmark(slot);
        self.pending.store(effects::node_key(session.id.as_str()), None);
        // Nothing is desired of it any more: an empty message removes the retained one.
        self.pending.retain(&session.id, String::new());
        if self.facts.of(slot).twin.is_none() {
            self.facts.remove(slot);
        }
    }

    /// A twin is gone, and with it all that was to be sent to its node.
    fn forget(&mut self, id: &ThingId, now_us: i64) {
        let Some(slot) = self.facts.slot(id) else { return };
        self.rules.forget(slot, &self.facts, now_us);
        self.close_session(slot);
        self.facts.remove(slot);
        self.follow(now_us);
        self.unmark(slot);
    }

    /// Lets a session do something, and the facts know what it reports.
    ///
    /// * `work`: returns whether the node is to be settled.
    fn with_session(
        &mut self,
        slot: Slot,
        now_us: i64,
        work: impl FnOnce(&mut Session, &mut Turn<'_>) -> bool,
    ) {
        let Some(Some(session)) = self.sessions.get_mut(slot.index()) else { return };
        let twin = self.facts.of(slot).twin.clone();
        let mut turn = Turn { now_us, twin: twin.as_deref(), pending: &mut self.pending };
        if work(session, &mut turn) {
            self.mark(slot);
        }
        self.sync(slot, now_us);
    }
}
