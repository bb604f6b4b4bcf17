//! Nodes: what is decided for each, and what is said to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Act, Change, Controller, GRACE_US, Health, LEASE_DEFAULT_S, Message, Node, Note, Presence,
    Record, Source, Stage, TRANSMISSION, Timer, node_key,
};
use crate::cacc::command::{
    self, ACT_DEADLINE_US, Cause, Command, DEADLINE_US, KEPT_MAX, Purpose, State, act_value,
    next_op, satisfies, trial_s,
};
use crate::cacc::decide::{self, Decision, Layer, NodeSpec, Reasons, SCHEDULE, Winner};
use crate::cacc::rule::{Asked, Settings, Threshold};
use crate::cacc::safety::{Safety, Standing, is_low};
use crate::node::wire::{
    self, Ack, AckStatus, ActValue, Desired, EventKind, Op, Program, Tx, Uplink,
};
use crate::twin::path::Path;
use crate::twin::{Action, Event, Twin};

/// Ids that a start leaves out: heartbeats take ids without a record of their own.
const ID_LEAP: u32 = 64;
/// Values that wait to be asked for; more are the newest state anyway.
const ASKS_MAX: usize = 16;

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
    fn next_id(&mut self, now_us: i64) -> u32 {
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
    fn note_health(&mut self, says_battery: Option<u8>, says_rssi: Option<i16>) {
        let Health { battery, rssi, .. } = &mut self.health;
        *battery = says_battery.or(*battery);
        *rssi = says_rssi.or(*rssi);
        self.judge_battery();
    }

    fn judge_battery(&mut self) {
        let low = is_low(self.standing.low, self.health.battery, self.spec.battery_low);
        self.unsaved |= std::mem::replace(&mut self.standing.low, low) != low;
    }

    /// Takes the node's clock from its answer to what was said to it just once: it did it no earlier
    /// than that, so what is reckoned from it is never too early for the node.
    fn note_clock(&mut self, ack: &Ack) {
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
    fn acts_fell_back(&mut self, which: impl Fn(&Act) -> bool) {
        for act in self.acts.values_mut().filter(|act| act.boot.is_some() && which(act)) {
            (act.fell_back, act.answered) = (true, None);
        }
    }

    /// A command as it goes out: with how long it may be carried out by the node's own clock, so
    /// that one which was held up on the way surprises nobody.
    fn body(&self, command: &Command, now_us: i64) -> String {
        let body = format!("{} {}", command.id, command.op);
        let Some((ms, said_us)) = self.health.clock else { return body };
        let passed_ms = u32::try_from((now_us - said_us) / 1000).unwrap_or(0);
        // Counted from the same moment, so that what is said again is to be done no later.
        let whole_ms = u32::try_from((command.deadline_us - said_us) / 1000).unwrap_or(0);
        let left_ms = whole_ms.saturating_sub(passed_ms);
        let ttl = format!(" ttl={left_ms}@{}", ms.wrapping_add(passed_ms));
        if body.len() + ttl.len() > wire::BODY_LEN_MAX { body } else { body + &ttl }
    }

    fn remember(&mut self, command: Command) {
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

/// Milliseconds as a number, or as a duration with its unit.
fn millis(value: &Value) -> Option<u32> {
    let ms = match value {
        Value::String(text) => text.parse::<crate::scalar::Duration>().ok()?.as_ms(),
        value => value.as_u64()?,
    };
    u32::try_from(ms).ok()
}

/// Reads what a person writes into `desiredProperties`. Returns the fields that mean nothing.
pub(super) fn read_wishes(map: &Map<String, Value>, into: &mut Asked) -> Vec<String> {
    let mut strange = Vec::new();
    for (key, value) in map {
        let understood = match (key.as_str(), value) {
            // What the edge itself writes beside it.
            ("generation" | "kept" | "cause", _) => true,
            ("groups" | "properties", Value::Object(groups)) => {
                for (names, group) in groups {
                    for name in names.split(',') {
                        let settings = into.properties.entry(name.to_owned()).or_default();
                        match group {
                            Value::Object(group) => {
                                group.iter().for_each(|(key, value)| {
                                    if !setting(settings, key, value) {
                                        strange.push(format!("{names}/{key}"));
                                    }
                                });
                            }
                            _ => *settings = Settings::default(),
                        }
                    }
                }
                true
            }
            ("groups" | "properties", Value::Null) => {
                into.properties.clear();
                true
            }
            ("st" | "gt" | "lt", Value::Object(each)) => each.iter().all(|(name, value)| {
                setting(into.properties.entry(name.clone()).or_default(), key, value)
            }),
            (key, value) => setting(&mut into.all, key, value),
        };
        if !understood {
            strange.push(key.clone());
        }
    }
    into.properties.retain(|_, settings| !settings.is_empty());
    strange
}

/// Sets one field; whether it means something.
fn setting(settings: &mut Settings, key: &str, value: &Value) -> bool {
    let gone = value.is_null();
    match key {
        "program" => settings.program = value.as_str().map(Program::from),
        "interval" => {
            settings.pmin = millis(value);
            settings.pmax = settings.pmin;
            return gone || settings.pmin.is_some();
        }
        "pmin" => settings.pmin = millis(value),
        "pmax" => settings.pmax = millis(value),
        "st" => settings.st = value.as_f64().map(Threshold::Absolute),
        "gt" => settings.gt = value.as_f64(),
        "lt" => settings.lt = value.as_f64(),
        _ => return false,
    }
    gone || match key {
        "program" => settings.program.is_some(),
        "pmin" => settings.pmin.is_some(),
        "pmax" => settings.pmax.is_some(),
        "st" => settings.st.is_some(),
        "gt" => settings.gt.is_some(),
        _ => settings.lt.is_some(),
    }
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

    // ---- what nodes and people say --------------------------------------------------------

    /// A message of any sort came from the node.
    pub(super) fn seen(&mut self, at: usize, now_us: i64) {
        let subject = &mut self.subjects[at];
        subject.link.last_seen_us = Some(now_us);
        if let Some(node) = &mut subject.node
            && node.presence != Presence::Up
        {
            let back = node.presence != Presence::Unheard;
            node.presence = Presence::Up;
            self.came(at, back, now_us);
        }
    }

    fn came(&mut self, at: usize, back: bool, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        node.given_up = None;
        node.acts.values_mut().for_each(|act| act.given_up = None);
        // It may just be applying what is retained for it.
        let finds = node.said > node.version;
        node.grace_us = if back && finds { now_us + GRACE_US } else { 0 };
        node.heartbeat_us = now_us + heartbeat_us(node.lease_s);
        for command in node.commands.iter_mut().filter(|one| one.state.is_open()) {
            // Said again at once, under the same id.
            command.next_us = node.grace_us;
        }
        if back {
            let message = format!("{} is back", subject.id);
            let object = Self::object(&subject.id);
            let (reason, warning) = ("NodeBack", false);
            self.effects.notes.push(Note { warning, reason, object, message, show: false });
        }
        self.changed_presence(at, now_us);
    }

    fn went(&mut self, at: usize, why: &str, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        if matches!(node.presence, Presence::Away(_)) {
            return;
        }
        node.presence = Presence::Away(now_us);
        let message = format!("{} is away: {why}", subject.id);
        let object = Self::object(&subject.id);
        let (reason, warning) = ("NodeAway", true);
        self.effects.notes.push(Note { warning, reason, object, message, show: false });
        self.changed_presence(at, now_us);
        self.say_desired(at);
    }

    fn changed_presence(&mut self, at: usize, now_us: i64) {
        let thing = self.subjects[at].id.clone();
        let source = Source { thing, revision: 0, time_us: now_us };
        self.look_at_all(at, &source, now_us);
        self.show_reported(at);
        self.dirty.insert(at);
    }

    pub(super) fn note_reading(&mut self, at: usize, event: &Event, now_us: i64) {
        self.seen(at, now_us);
        let subject = &mut self.subjects[at];
        let link = &mut subject.link;
        let mut missing = 0;
        if let Some(stamp) = event.stamp.filter(|_| event.action == Action::Read) {
            if let Some((boot, seq)) = link.stamp
                && boot == stamp.boot
                && stamp.seq > seq
            {
                missing = stamp.seq - seq - 1;
            }
            link.stamp = Some((stamp.boot, stamp.seq));
        } else if event.action == Action::ReadLate {
            link.gaps = link.gaps.saturating_sub(1);
        }
        link.gaps += missing;
        if let Some(window) = &mut link.window {
            window.push(now_us, missing as f64);
        }
        if let Some(node) = &mut subject.node
            && event.action == Action::Read
        {
            node.reading_seen = true;
            if let Some(applied_us) = node.applied_us.take() {
                let issued = node.commands.iter().rev().find(|one| {
                    one.purpose == Purpose::Transmission && one.state == State::Applied
                });
                let since = issued.map_or(applied_us, |one| one.issued_us);
                self.effects.timings.push((Stage::Reading, since, Some(now_us)));
                self.dirty.insert(at);
            }
        }
    }

    /// The twin shows an actuator: from here on that is how it is.
    pub(super) fn note_acts(&mut self, at: usize, event: &Event) {
        let node = self.subjects[at].node.as_mut();
        for ((feature, name), act) in node.into_iter().flat_map(|node| &mut node.acts) {
            if act.answered.is_some() && event.touches(feature, name) {
                act.answered = None;
            }
        }
    }

    /// What a client wrote into `desiredProperties` is a person's word until it is taken back.
    pub(super) fn note_wishes(&mut self, at: usize, event: &Event) {
        let Some(twin) = self.subjects[at].twin.clone() else { return };
        let written: Vec<String> = match event.path.feature() {
            Some(feature) => vec![feature.to_owned()],
            None if matches!(event.path, Path::Thing | Path::Features) => {
                let known = self.subjects[at].node.as_ref().map(|node| node.acts.keys());
                let acts = known.into_iter().flatten().map(|(feature, _)| feature.clone());
                let mut all: Vec<String> = twin.features.keys().map(|id| id.to_string()).collect();
                all.extend(acts);
                all.sort();
                all.dedup();
                all
            }
            None => return,
        };
        for feature in written {
            if let Some(wish) = wish(event, &twin, &feature) {
                self.wished(at, &feature, wish);
            }
        }
    }

    fn wished(&mut self, at: usize, feature: &str, wish: Wish) {
        if self.subjects[at].node.is_none() {
            if matches!(wish, Wish::Nothing) {
                return;
            }
            self.make_node(at, Arc::default());
        }
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let (mut map, whole) = match wish {
            Wish::Nothing => (Map::new(), true),
            Wish::All(map) => (map, true),
            Wish::Some(map) => (map, false),
        };
        node.unsaved = true;
        self.dirty.insert(at);
        if feature == TRANSMISSION {
            let mut strange = Vec::new();
            let hold = map.remove("hold");
            if whole {
                node.user = Asked::default();
                node.standing.held = false;
            }
            match hold {
                Some(Value::Bool(held)) => node.standing.held = held,
                Some(Value::Null) => node.standing.held = false,
                Some(_) => strange.push("hold".to_owned()),
                None => {}
            }
            strange.extend(read_wishes(&map, &mut node.user));
            if let Some(decision) = &node.decision {
                // Heard once: what is written the second time is asked for again.
                if node.given_up.as_ref().is_some_and(|(of, _)| *of == decision.generation) {
                    node.given_up = None;
                }
            }
            if !strange.is_empty() {
                let message = format!(
                    "`desiredProperties` of the transmission hold what means nothing: {}",
                    strange.join(", ")
                );
                let object = Self::object(&subject.id);
                let (reason, warning) = ("DesiredNotUnderstood", true);
                self.effects.notes.push(Note { warning, reason, object, message, show: false });
            }
            return;
        }
        for ((of, name), act) in &mut node.acts {
            if of == feature && (whole || map.contains_key(name)) {
                act.user = map.remove(name).filter(|value| !value.is_null());
                act.given_up = None;
            }
        }
        for (name, value) in map {
            if !value.is_null() {
                let act = Act { user: Some(value), ..Act::default() };
                node.acts.insert((feature.to_owned(), name), act);
            }
        }
    }

    pub(super) fn hear(&mut self, at: usize, uplink: &Uplink, now_us: i64) {
        if self.subjects[at].node.is_none() {
            // A node that no manifest knows: it is as it says.
            let Uplink::State(state) = uplink else { return };
            let asked = state.tx.as_ref().map(|tx| decide::asked_of(tx, None));
            let default = asked.unwrap_or_default();
            self.make_node(at, Arc::new(NodeSpec { default, ..NodeSpec::default() }));
            if let Some(node) = &mut self.subjects[at].node {
                node.presence = Presence::Up;
            }
        }
        match uplink {
            Uplink::Ack(ack) => self.hear_ack(at, ack, now_us),
            Uplink::State(state) => self.hear_state(at, state, now_us),
            Uplink::Event(event) => self.hear_event(at, event, now_us),
            Uplink::Sample(_) | Uplink::Features(_) => {}
        }
    }

    fn hear_state(&mut self, at: usize, state: &wire::State, now_us: i64) {
        let Some(node) = &mut self.subjects[at].node else { return };
        if !state.up {
            // The will of an earlier life says nothing about this one.
            if node.boot.is_none_or(|boot| state.boot >= boot) {
                self.went(at, "its connection ended", now_us);
            }
            return;
        }
        let reborn = node.boot != Some(state.boot);
        node.boot = Some(state.boot);
        node.speaks = true;
        if let Some(lease) = state.lease.filter(|lease| *lease > 0) {
            node.lease_s = lease;
        }
        if let Some(tx) = &state.tx {
            node.reported = Some(tx.clone());
        }
        if let Some(version) = state.version {
            node.version = version;
        }
        if reborn {
            node.settled = None;
            node.health.clock = None;
            node.acts_fell_back(|act| act.boot != Some(state.boot));
        }
        node.unsaved = true;
        node.note_health(state.battery, state.rssi);
        if let Some(ms) = state.ms {
            self.subjects[at].link.started_us = Some(now_us - i64::from(ms) * 1000);
        }
        if reborn || node_came_now(self.subjects[at].node.as_deref(), now_us) {
            self.came_with_state(at, now_us);
        }
        self.concluded(at, now_us);
        self.show_reported(at);
    }

    /// The state is what a node says when it connects: what is retained for it may follow.
    fn came_with_state(&mut self, at: usize, now_us: i64) {
        let Some(node) = &mut self.subjects[at].node else { return };
        node.given_up = None;
        node.acts.values_mut().for_each(|act| act.given_up = None);
        let finds = node.said > node.version;
        let open = node.open_transmission().is_some();
        node.grace_us = if finds && !open && !node.is_satisfied() { now_us + GRACE_US } else { 0 };
        for command in node.commands.iter_mut().filter(|one| one.state.is_open()) {
            command.next_us = now_us;
        }
    }

    fn hear_event(&mut self, at: usize, event: &wire::Event, _now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        node.speaks = true;
        if let Some(tx) = &event.tx {
            node.reported = Some(tx.clone());
            node.unsaved = true;
        }
        if matches!(event.ev, EventKind::Lease | EventKind::Safe) {
            node.acts_fell_back(|_| true);
        }
        let (warning, reason, message) = match &event.ev {
            EventKind::Lease => {
                (true, "LeaseExpired", "heard nothing for a whole lease and runs its safe program")
            }
            EventKind::Overflow => (true, "ReadingsOverwritten", "overwrote readings unsent"),
            EventKind::Fault => (true, "SensorFault", "has a sensor that does not answer"),
            EventKind::Reverted => (true, "TrialReverted", "went back after a trial"),
            EventKind::Safe => (true, "SafeProgram", "runs its safe program"),
            EventKind::Updating => (false, "Updating", "takes new firmware"),
            EventKind::Other(_) => (false, "NodeEvent", "said something that is not understood"),
        };
        let why = event.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let lost = event.lost.map(|lost| format!(" ({lost} lost)")).unwrap_or_default();
        let message = format!("{} {message}{why}{lost}", subject.id);
        let object = Self::object(&subject.id);
        self.effects.notes.push(Note { warning, reason, object, message, show: false });
        self.show_reported(at);
    }

    fn hear_ack(&mut self, at: usize, ack: &Ack, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        node.speaks = true;
        node.note_health(ack.battery, ack.rssi);
        node.note_clock(ack);
        if let Some(lease) = ack.lease.filter(|lease| *lease > 0) {
            node.lease_s = lease;
        }
        if let Some(tx) = &ack.tx {
            node.reported = Some(tx.clone());
        }
        let Some(place) = node.commands.iter().position(|one| one.id == ack.id) else {
            return self.show_reported(at);
        };
        let command = &mut node.commands[place];
        if !command.state.is_open() || command.tries == 0 {
            return self.show_reported(at);
        }
        node.unsaved = true;
        let purpose = command.purpose.clone();
        let is_act = matches!(purpose, Purpose::Act(..));
        let stage = if is_act { Stage::ActAnswer } else { Stage::Answer };
        match &ack.st {
            AckStatus::Ok => {
                if command.state != State::Acked && !matches!(purpose, Purpose::Get | Purpose::Keep)
                {
                    self.effects.timings.push((stage, command.issued_us, Some(now_us)));
                }
                match &purpose {
                    Purpose::Transmission => {
                        node.applied_us = Some(now_us);
                        node.reading_seen = false;
                        if ack.tx.is_some() {
                            self.applied(at, place, now_us);
                        } else {
                            let reason = "CommandAcked";
                            let (warning, show) = (false, false);
                            let message = format!(
                                "{} took `{}` (command {})",
                                subject.id, command.op, ack.id
                            );
                            let object = Self::object(&subject.id);
                            self.effects.notes.push(Note {
                                warning,
                                reason,
                                object,
                                message,
                                show,
                            });
                            command.state = State::Acked;
                            self.concluded(at, now_us);
                        }
                    }
                    Purpose::Keep => {
                        if let Some(tx) = &mut node.reported {
                            tx.kept = Some(true);
                        }
                        node.commands[place].end(State::Applied, "", now_us);
                    }
                    Purpose::Act(feature, name) => {
                        let said = ack.act.as_ref().and_then(|act| act.get(name).copied());
                        let asked = node.acts.get(&(feature.clone(), name.clone()));
                        let value = match said {
                            Some(ActValue::Bool(on)) => Some(Value::Bool(on)),
                            Some(ActValue::Number(number)) => serde_json::to_value(number).ok(),
                            None => asked.and_then(|act| act.wanted.clone()),
                        };
                        // The node may settle on another value; it is not told again.
                        if let Some(act) = node.acts.get_mut(&(feature.clone(), name.clone())) {
                            if act.wanted != value {
                                act.given_up = act.wanted.clone();
                            }
                            act.answered = value.clone();
                            (act.boot, act.fell_back) = (Some(ack.boot), false);
                        }
                        node.commands[place].end(State::Applied, "", now_us);
                        if let Some(value) = value {
                            self.effects.changes.push(Change {
                                thing: subject.id.clone(),
                                feature: feature.clone(),
                                desired: false,
                                value: json!({ name.as_str(): value }),
                                merge: true,
                            });
                        }
                        self.note_end(at, place);
                    }
                    Purpose::Get => node.commands[place].end(State::Applied, "", now_us),
                }
            }
            AckStatus::Busy | AckStatus::Crc => {
                // Said again in its turn.
            }
            AckStatus::Late if now_us < command.deadline_us => {
                // Its clock is not as was thought. What is still wanted is said anew, and without it.
                let why = command::refusal(&ack.st, None);
                node.commands[place].end(State::Expired, why, now_us);
                node.health.clock = None;
                self.note_end(at, place);
            }
            status => {
                let why = command::refusal(status, ack.why.as_deref());
                node.commands[place].end(State::Rejected, why.clone(), now_us);
                match purpose {
                    Purpose::Transmission => {
                        let generation = node.decision.as_ref().map_or(0, |d| d.generation);
                        node.given_up = Some((generation, why));
                    }
                    Purpose::Act(feature, name) => {
                        if let Some(act) = node.acts.get_mut(&(feature, name)) {
                            act.given_up = act.wanted.clone();
                        }
                    }
                    Purpose::Keep | Purpose::Get => {}
                }
                self.note_end(at, place);
            }
        }
        self.show_reported(at);
    }

    /// The node took a transmission and says how it talks now.
    fn applied(&mut self, at: usize, place: usize, now_us: i64) {
        let Some(node) = &mut self.subjects[at].node else { return };
        let Some(decision) = &node.decision else { return };
        if let Some(reported) = &node.reported {
            // Still the same difference: the node settled on something near.
            let next = next_op(Some(reported), &decision.tx, None).map(|op| op.to_string());
            let said = node.commands[place].op.split(" trial=").next().unwrap_or_default();
            if next.as_deref() == Some(said) {
                node.settled = Some((decision.tx.clone(), reported.clone()));
            }
        }
        let done = node.is_satisfied();
        if done {
            // So that it is not told the same again when it comes back.
            node.version = node.version.max(decision.generation);
        }
        node.commands[place].end(State::Applied, "", now_us);
        self.note_end(at, place);
    }

    /// A transmission that was taken, or that is so by other means, is over.
    fn concluded(&mut self, at: usize, now_us: i64) {
        let Some(node) = &mut self.subjects[at].node else { return };
        if !node.is_satisfied() {
            return;
        }
        let open = node.commands.iter().position(|one| {
            one.state.is_open() && one.purpose == Purpose::Transmission && one.tries > 0
        });
        if let Some(place) = open {
            self.applied(at, place, now_us);
        }
    }

    fn note_end(&mut self, at: usize, place: usize) {
        let sentence = self.sentence(at, self.last_us);
        let subject = &self.subjects[at];
        let Some(command) = subject.node.as_ref().and_then(|node| node.commands.get(place)) else {
            return;
        };
        let (warning, reason) = match command.state {
            State::Applied => (false, "CommandApplied"),
            State::Rejected => (true, "CommandRejected"),
            State::Expired => (true, "CommandExpired"),
            _ => (false, "CommandSuperseded"),
        };
        let why = match command.reason.as_str() {
            "" => String::new(),
            why => format!(", {why}"),
        };
        let what = match command.state {
            State::Applied => "did",
            State::Rejected => "refused",
            State::Expired => "did not answer to",
            _ => "is no longer to do",
        };
        let trace = match command.cause.trace.as_str() {
            "" => String::new(),
            trace => format!(", trace {trace}"),
        };
        let transmission = command.purpose == Purpose::Transmission;
        let message = match sentence {
            Some(sentence) if transmission && command.state == State::Applied => {
                format!("{sentence} (command {}{trace})", command.id)
            }
            _ => format!(
                "{} {what} `{}`{why} (command {}, cause {}{trace})",
                subject.id, command.op, command.id, command.cause.by
            ),
        };
        let show = command.state != State::Superseded;
        let object = Self::object(&subject.id);
        self.effects.notes.push(Note { warning, reason, object, message, show });
    }

    // ---- what is decided and said ---------------------------------------------------------

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

    /// Says what is desired of a node where it finds that when it comes; of one that is there, or
    /// that talks so already, what was said before is taken away, so that it never finds what is
    /// out of date.
    pub(super) fn say_desired(&mut self, at: usize) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let Some(decision) = &node.decision else { return };
        let needed = node.presence != Presence::Up && !node.is_satisfied();
        let op = next_op(None, &decision.tx, None).filter(|_| needed);
        let cmd = op.and_then(|op| wire::Command::new(0, op).encode().ok());
        let version = decision.generation;
        let text = match cmd {
            // Plain data: it always has a JSON form.
            Some(cmd) => serde_json::to_string(&Desired { version, cmd }).unwrap_or_default(),
            None if node.said == 0 => return,
            None => String::new(),
        };
        node.said = if text.is_empty() { 0 } else { version };
        node.unsaved = true;
        let thing = subject.id.clone();
        self.effects.messages.retain(|one| !one.desired || one.thing != thing);
        self.effects.messages.push(Message { thing, desired: true, text, urgent: false });
    }

    /// Properties to ask a node for once.
    pub(super) fn ask(&mut self, at: usize, properties: &[String]) {
        if let Some(node) = &mut self.subjects[at].node {
            for property in properties {
                if node.asks.len() < ASKS_MAX && !node.asks.contains(property) {
                    node.asks.push_back(property.clone());
                }
            }
        }
    }

    /// Says what is to be said to a node now, and when to look at it again.
    fn pump(&mut self, at: usize, now_us: i64) {
        self.end_what_is_over(at, now_us);
        self.watch_silence(at, now_us);
        let up = self.subjects[at].node.as_ref().is_some_and(|n| n.presence == Presence::Up);
        if up {
            self.say_again(at, now_us);
            self.say_transmission(at, now_us);
            self.say_acts(at, now_us);
            self.say_small(at, now_us);
        }
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let open = node.commands.iter().filter(|one| one.state.is_open());
        let mut due: Vec<i64> = open
            .flat_map(|one| [Some(one.deadline_us), up.then_some(one.next_us)])
            .flatten()
            .collect();
        if let Some((_, due_us)) = node.decision.as_ref().and_then(|d| d.target.as_ref()) {
            due.push(*due_us);
        }
        if up {
            due.push(node.grace_us);
            due.extend(node.pull_us);
            if node.speaks {
                due.push(node.heartbeat_us);
                due.extend(subject.link.last_seen_us.map(|seen| seen + lease_us(node.lease_s)));
            }
        }
        if let Some(due_us) = due.into_iter().filter(|due| *due > now_us).min() {
            Self::arm(&mut self.timers, &mut node.due_us, due_us, Timer::Node(at));
        }
    }

    fn end_what_is_over(&mut self, at: usize, now_us: i64) {
        let Some(node) = &mut self.subjects[at].node else { return };
        let (generation, satisfied) = match &node.decision {
            Some(decision) => (decision.generation, node.is_satisfied()),
            None => return,
        };
        let mut ended = Vec::new();
        for (place, command) in node.commands.iter_mut().enumerate() {
            if !command.state.is_open() {
                continue;
            }
            let newer = match &command.purpose {
                Purpose::Transmission => command.generation != generation,
                Purpose::Keep => command.generation != generation || !satisfied,
                Purpose::Act(feature, name) => {
                    let act = node.acts.get(&(feature.clone(), name.clone()));
                    let wanted = act.and_then(|act| act_value(act.wanted.as_ref()?));
                    let op =
                        wanted.map(|value| Op::Act { property: name.clone(), value }.to_string());
                    op.as_deref() != Some(&command.op)
                }
                Purpose::Get => false,
            };
            if newer {
                command.end(State::Superseded, "something newer is wanted", now_us);
            } else if now_us >= command.deadline_us {
                let why = match command.tries {
                    0 => "the node was away all the time".to_owned(),
                    1 => "no answer to one try".to_owned(),
                    tries => format!("no answer to {tries} tries"),
                };
                command.end(State::Expired, why.clone(), now_us);
                match &command.purpose {
                    Purpose::Transmission => node.given_up = Some((generation, why)),
                    Purpose::Act(feature, name) => {
                        let act = node.acts.get_mut(&(feature.clone(), name.clone()));
                        if let Some(act) = act {
                            act.given_up = act.wanted.clone();
                        }
                    }
                    Purpose::Keep | Purpose::Get => {}
                }
            } else {
                continue;
            }
            ended.push(place);
        }
        if !ended.is_empty() {
            node.unsaved = true;
        }
        for place in ended {
            self.note_end(at, place);
        }
    }

    fn watch_silence(&mut self, at: usize, now_us: i64) {
        let subject = &self.subjects[at];
        let (Some(node), Some(seen_us)) = (&subject.node, subject.link.last_seen_us) else {
            return;
        };
        // A clock that was set back: it was not heard in the future.
        let silent_us = now_us - seen_us.min(now_us);
        if node.speaks && node.presence == Presence::Up && silent_us >= lease_us(node.lease_s) {
            self.went(at, "nothing was heard of it for a whole lease", now_us);
        }
    }

    fn say_again(&mut self, at: usize, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        for place in 0..node.commands.len() {
            let command = &node.commands[place];
            if command.state.is_open() && command.next_us <= now_us {
                let text = node.body(command, now_us);
                let command = &mut node.commands[place];
                command.sent(now_us);
                node.heartbeat_us = now_us + heartbeat_us(node.lease_s);
                let urgent = matches!(command.purpose, Purpose::Act(..));
                let message = Message { thing: subject.id.clone(), desired: false, text, urgent };
                self.effects.messages.push(message);
            }
        }
    }

    fn say_transmission(&mut self, at: usize, now_us: i64) {
        let Some(node) = &self.subjects[at].node else { return };
        let Some(decision) = &node.decision else { return };
        if node.open_transmission().is_some() || now_us < node.grace_us {
            return;
        }
        let generation = decision.generation;
        let given_up = node.given_up.as_ref().is_some_and(|(of, _)| *of == generation);
        if node.is_satisfied() {
            let on_trial = node.reported.as_ref().is_some_and(|tx| tx.kept == Some(false));
            let kept_asked = node
                .commands
                .iter()
                .any(|one| one.purpose == Purpose::Keep && one.generation == generation);
            let silent = node.reported.as_ref().is_some_and(|tx| trial_s(tx).is_none());
            if on_trial && !kept_asked && (node.reading_seen || silent) {
                self.issue(at, Op::Keep, Purpose::Keep, generation, now_us);
                self.note_sent(at);
            }
            return;
        }
        // A plain client need not be told what it does anyway.
        if given_up || node.is_mute() && node.cause.by == "default" {
            return;
        }
        let op = next_op(node.reported.as_ref(), &decision.tx, trial_s(&decision.tx));
        if let Some(op) = op {
            if let Some(source) = node.source.as_ref() {
                let since_us = source.time_us.max(self.held_since(at, &node.cause.by));
                self.effects.timings.push((Stage::Command, since_us, None));
            }
            self.issue(at, op, Purpose::Transmission, generation, now_us);
            self.note_sent(at);
        }
    }

    fn say_acts(&mut self, at: usize, now_us: i64) {
        let subject = &self.subjects[at];
        let (Some(node), Some(twin)) = (&subject.node, &subject.twin) else { return };
        let mut due = Vec::new();
        for ((feature, name), act) in &node.acts {
            let Some(wanted) = &act.wanted else { continue };
            let shown = || twin.property_named(feature, name).filter(|_| !act.fell_back);
            let is = act.answered.as_ref().or_else(shown);
            let open = node.commands.iter().any(|one| {
                one.state.is_open()
                    && matches!(&one.purpose, Purpose::Act(f, n) if f == feature && n == name)
            });
            let same = is == Some(wanted)
                || is.and_then(Value::as_f64).is_some_and(|is| wanted.as_f64() == Some(is));
            if open || same || act.given_up.as_ref() == Some(wanted) {
                continue;
            }
            let value = act_value(wanted);
            due.push((feature.clone(), name.clone(), value, act.by.clone()));
        }
        for (feature, name, value, by) in due {
            let purpose = Purpose::Act(feature.clone(), name.clone());
            match value {
                Some(value) => {
                    let op = Op::Act { property: name.clone(), value };
                    self.issue(at, op, purpose, 0, now_us);
                    self.blame(at, &by);
                    self.note_sent(at);
                }
                None => {
                    let Some(node) = &mut self.subjects[at].node else { return };
                    if let Some(act) = node.acts.get_mut(&(feature, name)) {
                        act.given_up = act.wanted.clone();
                    }
                }
            }
        }
    }

    /// Since when a rule of this name is in force for a node; 0 if it is not.
    fn held_since(&self, at: usize, rule: &str) -> i64 {
        let layers = self.layers(at);
        layers.iter().find(|layer| **layer.name == *rule).map_or(0, |layer| layer.since_us)
    }

    /// The newest command's cause is the rule of this name, or a person.
    fn blame(&mut self, at: usize, by: &str) {
        let subject = &self.subjects[at];
        let source = subject.memberships.iter().find_map(|(rule, _)| {
            let watched = &self.rules[*rule];
            (&*watched.rule.name == by).then(|| watched.source(at).cloned())
        });
        let source = source.flatten().or_else(|| {
            let twin = subject.twin.as_deref().filter(|_| by == "user")?;
            let (thing, revision) = (twin.id.clone(), twin.revision);
            Some(Source { thing, revision, time_us: twin.modified_us })
        });
        let Some(node) = &mut self.subjects[at].node else { return };
        if let Some(newest) = node.commands.back_mut() {
            let trace = source.as_ref().map_or(String::new(), Source::trace);
            newest.cause = Cause { by: by.to_owned(), trace };
        }
        if let Some(source) = source {
            let since_us = source.time_us.max(self.held_since(at, by));
            self.effects.timings.push((Stage::ActCommand, since_us, None));
        }
    }

    /// Values that are asked for, and the word that the edge is there.
    fn say_small(&mut self, at: usize, now_us: i64) {
        let asks = self.subjects[at].node.as_mut().map(|node| std::mem::take(&mut node.asks));
        for property in asks.into_iter().flatten() {
            let property = Some(property.rsplit('/').next().unwrap_or_default().to_owned());
            self.issue(at, Op::Get { property }, Purpose::Get, 0, now_us);
        }
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let mut say = |node: &mut Node, op: Op| {
            let id = node.next_id(now_us);
            let text = format!("{id} {op}");
            if op == Op::Heartbeat {
                node.beat = Some((id, now_us));
            }
            node.heartbeat_us = now_us + heartbeat_us(node.lease_s);
            let thing = subject.id.clone();
            let message = Message { thing, desired: false, text, urgent: false };
            self.effects.messages.push(message);
        };
        match node.decision.as_ref().and_then(|decision| decision.schedule) {
            None => node.pull_us = None,
            Some(ms) => {
                let period_us = i64::from(ms.max(1)) * 1000;
                match node.pull_us {
                    Some(at_us) if at_us > now_us => {}
                    _ if node.is_satisfied() => {
                        say(node, Op::Get { property: None });
                        node.pull_us = Some(now_us + period_us);
                    }
                    _ => node.pull_us = None,
                }
            }
        }
        if node.speaks && node.heartbeat_us <= now_us {
            say(node, Op::Heartbeat);
        }
    }

    /// The newest command is on its way.
    fn note_sent(&mut self, at: usize) {
        let subject = &self.subjects[at];
        let newest = subject.node.as_ref().and_then(|node| node.commands.back());
        let Some(command) = newest.filter(|command| command.state == State::Sent) else { return };
        let message = format!(
            "{} is told `{}` (command {}, cause {})",
            subject.id, command.op, command.id, command.cause.by
        );
        let (reason, object) = ("CommandSent", Self::object(&subject.id));
        self.effects.notes.push(Note { warning: false, reason, object, message, show: false });
    }

    fn issue(&mut self, at: usize, op: Op, purpose: Purpose, generation: u32, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let id = node.next_id(now_us);
        let wait_us =
            if matches!(purpose, Purpose::Act(..)) { ACT_DEADLINE_US } else { DEADLINE_US };
        let mut command = Command {
            id,
            generation,
            cause: node.cause.clone(),
            issued_us: now_us,
            deadline_us: now_us.saturating_add(wait_us),
            lease_s: node.lease_s,
            op: op.to_string(),
            purpose,
            state: State::Pending,
            tries: 0,
            next_us: now_us,
            ended_us: None,
            reason: String::new(),
        };
        match wire::Command::new(id, op).encode() {
            Ok(_) => {
                let text = node.body(&command, now_us);
                command.sent(now_us);
                node.heartbeat_us = now_us + heartbeat_us(node.lease_s);
                let urgent = matches!(command.purpose, Purpose::Act(..));
                let message = Message { thing: subject.id.clone(), desired: false, text, urgent };
                self.effects.messages.push(message);
                node.remember(command);
            }
            Err(error) => {
                let why = command::unsayable(&error);
                command.end(State::Rejected, why.clone(), now_us);
                if command.purpose == Purpose::Transmission {
                    node.given_up = Some((generation, why));
                }
                node.remember(command);
                let place = node.commands.len() - 1;
                self.note_end(at, place);
            }
        }
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

fn node_came_now(node: Option<&Node>, now_us: i64) -> bool {
    // `seen` has just put the grace there.
    node.is_some_and(|node| node.grace_us > now_us)
}

fn lease_us(lease_s: u32) -> i64 {
    i64::from(lease_s) * 1_000_000
}

fn heartbeat_us(lease_s: u32) -> i64 {
    lease_us(lease_s) / 3
}

/// What a client wrote of a feature's `desiredProperties`.
enum Wish {
    /// They are gone.
    Nothing,
    /// They are these.
    All(Map<String, Value>),
    /// These of them changed; null is gone.
    Some(Map<String, Value>),
}

fn wish(event: &Event, twin: &Twin, feature: &str) -> Option<Wish> {
    let now = || {
        let desired = twin.features.get(feature).and_then(|feature| feature.desired.clone());
        desired.map_or(Wish::Nothing, Wish::All)
    };
    let merged = event.action == Action::Merged;
    let some = |value: &Value| match value {
        Value::Object(map) => Wish::Some(map.clone()),
        _ => Wish::Nothing,
    };
    let value = event.value.as_ref();
    match &event.path {
        Path::DesiredProperties(_) if merged => value.map(some),
        Path::DesiredProperties(_) => Some(now()),
        Path::DesiredProperty(_, pointer) => {
            let name = pointer.first()?;
            let value = twin.features.get(feature).and_then(|f| f.desired.as_ref()?.get(name));
            let value = value.cloned().unwrap_or(Value::Null);
            Some(Wish::Some(Map::from_iter([(name.clone(), value)])))
        }
        Path::Feature(_) if merged => value?.get("desiredProperties").map(some),
        Path::Feature(_) => Some(now()),
        Path::Features if merged => value?.get(feature)?.get("desiredProperties").map(some),
        Path::Thing if merged => {
            value?.get("features")?.get(feature)?.get("desiredProperties").map(some)
        }
        Path::Features | Path::Thing => Some(now()),
        _ => None,
    }
}
