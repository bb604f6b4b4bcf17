//! Nodes: what is decided for each, what of it the twin shows, and what is kept.
//!
//! Not here: what nodes say (`hear`), what is said to them (`say`), what people ask (`wishes`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Act, Change, Controller, Health, LEASE_DEFAULT_S, Message, Node, Note, Presence, Record,
    Source, TRANSMISSION, node_key,
};
use crate::cacc::command::{Cause, Command, KEPT_MAX, Purpose, State, satisfies};
use crate::cacc::decide::safety::{Safety, Standing, is_low};
use crate::cacc::decide::{self, Decision, Layer, NodeSpec, Reasons, SCHEDULE, Winner};
use crate::cacc::rule::Asked;
use crate::wire::{self, Ack, Tx};

/// Ids that a start leaves out: heartbeats take ids without a record of their own.
const ID_LEAP: u32 = 64;

impl Node {
    fn new(spec: Arc<NodeSpec>) -> Self {
        Self {
            lease_s: if spec.lease_s > 0 { spec.lease_s } else { LEASE_DEFAULT_S },
            spec,
            declared: false,
            user: Asked::default(),
            standing: Standing::default(),
            acts: BTreeMap::new(),
            decision: None,
            cause: Cause { by: "default".to_owned(), trace: String::new() },
            source: None,
            presence: Presence::Unheard,
            speaks: false,
            boot: None,
            health: Health::default(),
            reported: None,
            version: 0,
            said: 0,
            settled: None,
            given_up: None,
            grace_us: 0,
            heartbeat_us: 0,
            beat: None,
            pull_us: None,
            reading_seen: false,
            applied_us: None,
            asks: VecDeque::new(),
            commands: VecDeque::new(),
            last_id: 0,
            due_us: i64::MAX,
            unsaved: false,
        }
    }

    /// Takes up what was stored.
    fn resume(&mut self, record: Record) {
        self.decision = record.decision;
        self.cause = record.cause;
        self.user = record.user;
        self.standing = record.standing;
        self.acts = record.acts.into_iter().map(|(f, p, act)| ((f, p), act)).collect();
        self.version = record.version;
        self.said = record.said;
        self.settled = record.settled;
        self.given_up = record.given_up;
        self.commands = record.commands.into();
        self.last_id = record.last_id.saturating_add(ID_LEAP);
    }

    /// The next command's id: it grows over restarts, and over the loss of all that was stored,
    /// so that a node never takes a new command for one that it had.
    pub(super) fn next_id(&mut self, now_us: i64) -> u32 {
        let seconds = u32::try_from(now_us / 1_000_000).unwrap_or(1);
        self.last_id = self.last_id.wrapping_add(1).max(seconds).max(1);
        self.last_id
    }

    /// Whether the node talks as was decided.
    pub(super) fn is_satisfied(&self) -> bool {
        let (Some(decision), Some(reported)) = (&self.decision, &self.reported) else {
            return false;
        };
        satisfies(reported, &decision.tx)
            || self
                .settled
                .as_ref()
                .is_some_and(|(asked, is)| *asked == decision.tx && same_way(is, reported))
    }

    /// Whether it may be a plain client that sends readings and hears nothing.
    pub(super) fn is_mute(&self) -> bool {
        !self.speaks && self.reported.is_none()
    }

    /// The transmission's command under way.
    pub(super) fn open_transmission(&self) -> Option<&Command> {
        self.commands.iter().rev().find(|one| {
            one.state.is_open() && matches!(one.purpose, Purpose::Transmission | Purpose::Keep)
        })
    }

    /// Takes what it says of itself.
    pub(super) fn note_health(&mut self, says_battery: Option<u8>, says_rssi: Option<i16>) {
        let Health { battery, rssi, .. } = &mut self.health;
        *battery = says_battery.or(*battery);
        *rssi = says_rssi.or(*rssi);
        self.judge_battery();
    }

    pub(super) fn judge_battery(&mut self) {
        let low = is_low(self.standing.low, self.health.battery, self.spec.battery_low);
        self.unsaved |= std::mem::replace(&mut self.standing.low, low) != low;
    }

    /// Takes the node's clock from its answer to what was said to it just once: it did it no earlier
    /// than that, so what is reckoned from it is never too early for the node.
    pub(super) fn note_clock(&mut self, ack: &Ack) {
        let of_command = || {
            let mut commands = self.commands.iter();
            commands.find(|one| one.id == ack.id && one.tries == 1).map(|one| one.issued_us)
        };
        let said_us = match self.beat {
            Some((id, said_us)) if id == ack.id => Some(said_us),
            _ => of_command(),
        };
        if let Some(said_us) = said_us.filter(|_| !ack.dup) {
            self.health.clock = Some((ack.ms, said_us));
            self.beat = self.beat.filter(|(id, _)| *id != ack.id);
        }
    }

    /// Its actuators are where it puts them by itself, and have to be told again.
    pub(super) fn acts_fell_back(&mut self, which: impl Fn(&Act) -> bool) {
        for act in self.acts.values_mut().filter(|act| act.boot.is_some() && which(act)) {
            (act.fell_back, act.answered) = (true, None);
        }
    }

    /// A command as it goes out: with how long it may be carried out by the node's own clock, so
    /// that one which was held up on the way surprises nobody.
    pub(super) fn body(&self, command: &Command, now_us: i64) -> String {
        let body = format!("{} {}", command.id, command.op);
        let Some((ms, said_us)) = self.health.clock else { return body };
        let passed_ms = u32::try_from((now_us - said_us) / 1000).unwrap_or(0);
        // Counted from the same moment, so that what is said again is to be done no later.
        let whole_ms = u32::try_from((command.deadline_us - said_us) / 1000).unwrap_or(0);
        let left_ms = whole_ms.saturating_sub(passed_ms);
        let ttl = format!(" ttl={left_ms}@{}", ms.wrapping_add(passed_ms));
        if body.len() + ttl.len() > wire::BODY_LEN_MAX { body } else { body + &ttl }
    }

    pub(super) fn remember(&mut self, command: Command) {
        while self.commands.len() >= KEPT_MAX {
            // The oldest that is over; if none is, the oldest.
            let over = self.commands.iter().position(|one| !one.state.is_open()).unwrap_or(0);
            self.commands.remove(over);
        }
        self.commands.push_back(command);
        self.unsaved = true;
    }
}

/// Whether two reports say the same, whether kept or not.
fn same_way(a: &Tx, b: &Tx) -> bool {
    Tx { kept: None, ..a.clone() } == Tx { kept: None, ..b.clone() }
}

/// A transmission as `features/transmission` shows it.
pub(super) fn tx_json(tx: &Tx, schedule: Option<u32>) -> Map<String, Value> {
    // Plain data: it always has a JSON form.
    let mut map = match serde_json::to_value(tx) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    if let Some(ms) = schedule {
        map.insert("program".to_owned(), SCHEDULE.into());
        map.insert("interval".to_owned(), ms.into());
    }
    map
}

impl Controller {
    pub(super) fn make_node(&mut self, at: usize, spec: Arc<NodeSpec>) {
        let subject = &mut self.subjects[at];
        if let Some(node) = &mut subject.node {
            if node.spec != spec {
                node.lease_s = if spec.lease_s > 0 { spec.lease_s } else { node.lease_s };
                node.spec = spec;
                node.judge_battery();
            }
            return;
        }
        let mut node = Node::new(spec);
        if let Some(record) = self.records.remove(subject.id.as_str()) {
            node.resume(record);
        }
        // What it reported last is in the twin.
        let properties = subject.twin.as_deref().and_then(|twin| {
            twin.features.get(TRANSMISSION)?.properties.clone().map(Value::Object)
        });
        node.reported = properties.and_then(|value| serde_json::from_value(value).ok());
        subject.node = Some(Box::new(node));
        self.say_desired(at);
    }

    /// A twin that a person steers, or that was steered before the start, has a node.
    pub(super) fn adopt(&mut self, at: usize) {
        let subject = &self.subjects[at];
        if subject.node.is_some() {
            return;
        }
        let stored = self.records.contains_key(subject.id.as_str());
        if stored {
            self.make_node(at, Arc::default());
            self.dirty.insert(at);
        }
    }

    /// A twin was met for the first time.
    pub(super) fn meet(&mut self, at: usize, _now_us: i64) {
        let subject = &mut self.subjects[at];
        if let (Some(node), Some(twin)) = (&mut subject.node, &subject.twin)
            && node.reported.is_none()
        {
            let properties = twin.features.get(TRANSMISSION).and_then(|f| f.properties.clone());
            node.reported = properties.and_then(|map| serde_json::from_value(map.into()).ok());
        }
        if subject.node.is_some() {
            self.dirty.insert(at);
        }
    }

    pub(super) fn drop_node(&mut self, at: usize, _now_us: i64) {
        let subject = &mut self.subjects[at];
        if subject.node.take().is_none() {
            return;
        }
        let id = subject.id.clone();
        self.effects.documents.push((node_key(id.as_str()), None));
        // Nothing is desired of it any more: an empty message takes the retained one away.
        self.effects.messages.push(Message {
            thing: id,
            desired: true,
            text: String::new(),
            urgent: false,
        });
    }

    /// The rules in force for a node.
    pub(super) fn layers(&self, at: usize) -> Vec<Layer<'_>> {
        let subject = &self.subjects[at];
        let each = subject.active.iter().filter_map(|rule| {
            let watched = &self.rules[*rule];
            let state = if watched.rule.each {
                watched.states[subject.place(*rule)?]
            } else {
                watched.group
            };
            Some(Layer {
                since_us: state.active_since()?,
                name: &watched.rule.name,
                priority: watched.rule.priority,
                specificity: watched.rule.target.specificity(),
                effect: &watched.rule.effect,
            })
        });
        each.collect()
    }

    /// Decides for nodes; `None` where the last decision stands.
    pub(super) fn decisions(&self, dirty: &[usize], now_us: i64) -> Vec<(usize, Option<Decision>)> {
        let mut nodes = Vec::with_capacity(dirty.len());
        let mut inputs: Vec<decide::Input<'_>> = Vec::with_capacity(dirty.len());
        for at in dirty {
            let subject = &self.subjects[*at];
            let Some(node) = subject.node.as_ref().filter(|_| subject.twin.is_some()) else {
                continue;
            };
            nodes.push(*at);
            inputs.push(decide::Input {
                spec: &node.spec,
                user: &node.user,
                active: self.layers(*at),
                standing: node.standing,
                previous: node.decision.as_ref(),
            });
        }
        nodes.into_iter().zip(decide::decide(&mut inputs, now_us)).collect()
    }

    /// Takes a decision for a node, and says what there is to be said.
    pub(super) fn conclude(&mut self, at: usize, decided: Option<Decision>, now_us: i64) {
        let Some(node) = &self.subjects[at].node else { return };
        let previous = node.decision.as_ref();
        let Some(decided) = decided.or_else(|| previous.cloned()) else { return };
        let layers = self.layers(at);
        let changed = previous.map(|d| d.generation) != Some(decided.generation)
            || previous.is_some_and(|previous| previous.schedule != decided.schedule);
        let cause = changed.then(|| self.cause_of(at, &layers, &decided, now_us));
        let acts = self.decide_acts(at, &layers);
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let kept = node.decision.as_ref().is_some_and(|before| {
            Decision { target: None, ..before.clone() }
                == Decision { target: None, ..decided.clone() }
        });
        node.unsaved |= !kept;
        if let Some((by, source)) = cause {
            let trace = source.as_ref().map_or_else(|| node.cause.trace.clone(), Source::trace);
            node.cause = Cause { by, trace };
            node.source = source;
            node.pull_us = None;
            node.given_up = None;
        }
        let mut value = tx_json(&decided.tx, decided.schedule);
        value.insert("generation".to_owned(), decided.generation.into());
        if node.standing.held {
            value.insert("hold".to_owned(), true.into());
        }
        let shown = |feature: &str| {
            let twin = subject.twin.as_deref();
            twin.and_then(|twin| twin.features.get(feature)?.desired.as_ref())
        };
        let id = &subject.id;
        // Only what stands there now counts; what was to be written before does not.
        self.effects.changes.retain(|one| !one.desired || one.thing != *id);
        if shown(TRANSMISSION) != Some(&value) {
            self.effects.changes.push(Change {
                thing: id.clone(),
                feature: TRANSMISSION.to_owned(),
                desired: true,
                value: value.into(),
                merge: false,
            });
        }
        let safety = decided.safety;
        let moved = node.decision.as_ref().and_then(|before| before.safety) != safety;
        node.decision = Some(decided);
        for (key, act) in acts {
            let before = node.acts.get(&key).and_then(|act| act.wanted.as_ref());
            node.unsaved |= before != act.wanted.as_ref();
            let stands = shown(&key.0).and_then(|desired| desired.get(&key.1));
            if stands != act.wanted.as_ref() && (before.is_some() || act.wanted.is_some()) {
                self.effects.changes.push(Change {
                    thing: id.clone(),
                    feature: key.0.clone(),
                    desired: true,
                    value: json!({ key.1.as_str(): act.wanted }),
                    merge: true,
                });
            }
            if act.user.is_none() && act.wanted.is_none() {
                node.acts.remove(&key);
            } else {
                node.acts.insert(key, act);
            }
        }
        if changed {
            self.say_desired(at);
        }
        if moved {
            self.note_safety(at, safety, now_us);
        }
        self.pump(at, now_us);
        self.save(at);
    }

    /// A node's transmission is fixed from now on, or no more.
    fn note_safety(&mut self, at: usize, safety: Option<Safety>, now_us: i64) {
        let sentence = self.sentence(at, now_us).unwrap_or_default();
        let (reason, warning) = match safety {
            Some(safety) => (safety.reason(), safety != Safety::Held),
            None => ("RulesHeard", false),
        };
        let message = match safety {
            Some(safety) => format!("{}: {sentence}", safety.unheard()),
            None => format!("rules are heard about this node again: {sentence}"),
        };
        let object = Self::object(&self.subjects[at].id);
        self.effects.notes.push(Note { warning, reason, object, message, show: true });
        self.show_reported(at);
    }

    /// Who is behind a decision, and what led to it.
    fn cause_of(
        &self,
        at: usize,
        layers: &[Layer<'_>],
        decided: &Decision,
        now_us: i64,
    ) -> (String, Option<Source>) {
        let Some(node) = &self.subjects[at].node else { return (String::new(), None) };
        let mut reasons = Reasons::default();
        let previous = Some(decided);
        let active = layers.to_vec();
        let (spec, user, standing) = (&node.spec, &node.user, node.standing);
        let input = decide::Input { spec, user, active, standing, previous };
        decide::decide_node(&input, now_us, Some(&mut reasons));
        let fields = reasons.winners.iter().filter(|(field, _)| !decide::is_share(field));
        let strongest = fields.map(|(_, winner)| winner).min_by_key(|winner| match winner {
            Winner::User => (0, None),
            Winner::Rule(name) => {
                let mut order = layers.to_vec();
                decide::order(&mut order);
                (1, order.iter().position(|layer| **layer.name == **name))
            }
            Winner::Hold => (2, None),
            Winner::Default => (3, None),
        });
        let isolates = reasons.winners.get("quarantine");
        let winner = match (decided.safety, strongest) {
            // A rule that isolates the node is why it is as nobody asks.
            (Some(Safety::Quarantined), None | Some(Winner::Default)) => isolates.cloned(),
            (_, strongest) => strongest.cloned(),
        };
        let winner = winner.unwrap_or(Winner::Default);
        let source = match &winner {
            Winner::Rule(name) => {
                let found = self.subjects[at].memberships.iter().find_map(|(rule, _)| {
                    let watched = &self.rules[*rule];
                    (*watched.rule.name == **name).then(|| watched.source(at).cloned())
                });
                found.flatten()
            }
            Winner::User => {
                let twin = self.subjects[at].twin.as_deref();
                twin.map(|twin| Source {
                    thing: twin.id.clone(),
                    revision: twin.revision,
                    time_us: twin.modified_us,
                })
            }
            Winner::Hold | Winner::Default => None,
        };
        (Cause::words(&winner), source)
    }

    /// What each actuator is to be: a person's word, a rule's, the manifest's, or after a rule
    /// the safe value.
    fn decide_acts(&self, at: usize, layers: &[Layer<'_>]) -> Vec<((String, String), Act)> {
        let Some(node) = &self.subjects[at].node else { return Vec::new() };
        let mut order = layers.to_vec();
        decide::order(&mut order);
        let rules = order.iter().flat_map(|layer| layer.effect.set.keys());
        let mut keys: Vec<&(String, String)> =
            node.spec.actuators.keys().chain(rules).chain(node.acts.keys()).collect();
        keys.sort();
        keys.dedup();
        let decide = |key: &(String, String)| {
            let known = node.spec.actuators.get(key);
            let before = node.acts.get(key).cloned().unwrap_or_default();
            let rule = order.iter().find_map(|layer| {
                Some((layer.name.to_string(), layer.effect.set.get(key)?.clone()))
            });
            let desired = known.and_then(|actuator| actuator.desired.clone());
            let safe = known.and_then(|actuator| actuator.safe.clone());
            let (by, wanted) = match (&before.user, rule, desired) {
                (Some(value), _, _) => ("user".to_owned(), Some(value.clone())),
                (None, Some((name, value)), _) => (name, Some(value)),
                (None, None, Some(value)) => ("manifest".to_owned(), Some(value)),
                // Somebody moved it and says nothing any more.
                (None, None, None) if before.wanted.is_some() => ("safe".to_owned(), safe),
                (None, None, None) => (String::new(), None),
            };
            let given_up = before.given_up.clone().filter(|value| Some(value) == wanted.as_ref());
            (key.clone(), Act { wanted, by, given_up, ..before })
        };
        keys.into_iter().map(decide).collect()
    }

    /// Shows in the twin how the node talks, and whether it is there.
    pub(super) fn show_reported(&mut self, at: usize) {
        let subject = &self.subjects[at];
        let (Some(node), Some(twin)) = (&subject.node, &subject.twin) else { return };
        let mut map = node.reported.as_ref().map_or_else(Map::new, |tx| tx_json(tx, None));
        map.insert("online".to_owned(), (node.presence == Presence::Up).into());
        if node.decision.as_ref().is_some_and(|d| d.safety == Some(Safety::Quarantined)) {
            // Its values are kept; whoever reads them is to know.
            map.insert("quarantined".to_owned(), true.into());
        }
        if let Some(boot) = node.boot {
            map.insert("boot".to_owned(), boot.into());
        }
        if node.speaks {
            map.insert("lease".to_owned(), node.lease_s.into());
            map.insert("version".to_owned(), node.version.into());
        }
        let applied = node
            .commands
            .iter()
            .rev()
            .find(|one| one.purpose == Purpose::Transmission && one.state == State::Applied);
        if let Some(command) = applied {
            map.insert("command".to_owned(), command.id.into());
            map.insert("trace".to_owned(), command.cause.trace.as_str().into());
        }
        let shown = twin.features.get(TRANSMISSION).and_then(|f| f.properties.as_ref());
        let thing = subject.id.clone();
        self.effects
            .changes
            .retain(|one| one.desired || one.thing != thing || one.feature != TRANSMISSION);
        if shown == Some(&map) {
            return;
        }
        self.effects.changes.push(Change {
            thing,
            feature: TRANSMISSION.to_owned(),
            desired: false,
            value: map.into(),
            merge: false,
        });
    }

    /// Stores what is to outlive a restart, if it changed.
    fn save(&mut self, at: usize) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        if !std::mem::take(&mut node.unsaved) {
            return;
        }
        let rules = subject.memberships.iter().filter_map(|(rule, place)| {
            let watched = &self.rules[*rule];
            let state = watched.states[*place];
            (watched.rule.each && state.is_kept()).then(|| (watched.rule.name.to_string(), state))
        });
        let record = Record {
            thing: subject.id.to_string(),
            decision: node.decision.clone(),
            cause: node.cause.clone(),
            user: node.user.clone(),
            standing: node.standing,
            acts: node
                .acts
                .iter()
                .map(|((feature, name), act)| (feature.clone(), name.clone(), act.clone()))
                .collect(),
            last_id: node.last_id,
            version: node.version,
            said: node.said,
            settled: node.settled.clone(),
            given_up: node.given_up.clone(),
            commands: node.commands.iter().cloned().collect(),
            rules: rules.collect(),
        };
        // Plain data: it always has a JSON form.
        let text = serde_json::to_string(&record).unwrap_or_default();
        let key = node_key(subject.id.as_str());
        self.effects.documents.retain(|(other, _)| *other != key);
        self.effects.documents.push((key, Some(text)));
    }
}
