//! What nodes say: that they are there, how they talk, what they answer.
//!
//! Not here: what is said to them (`say`), what readings mean to rules (`facts`).

use std::sync::Arc;

use serde_json::{Value, json};

use super::say::{heartbeat_us, lease_us};
use super::{Change, Controller, GRACE_US, Node, Note, Presence, Source, Stage};
use crate::cacc::command::{self, Purpose, State, next_op};
use crate::cacc::decide::{self, NodeSpec};
use crate::twin::{Action, Event};
use crate::wire::{self, Ack, AckStatus, ActValue, EventKind, Uplink};

impl Controller {
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

    pub(super) fn went(&mut self, at: usize, why: &str, now_us: i64) {
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
    pub(super) fn applied(&mut self, at: usize, place: usize, now_us: i64) {
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
    pub(super) fn concluded(&mut self, at: usize, now_us: i64) {
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

    pub(super) fn watch_silence(&mut self, at: usize, now_us: i64) {
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
}

fn node_came_now(node: Option<&Node>, now_us: i64) -> bool {
    // `seen` has just put the grace there.
    node.is_some_and(|node| node.grace_us > now_us)
}
