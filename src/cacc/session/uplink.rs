//! What a node sends: readings, answers, its state, events.

use serde_json::{Map, Value};

use super::delivery::heartbeat_period_us;
use super::event::SessionEvent;
use super::presence::{Presence, PresenceReason};
use super::state::{Session, Turn};
use super::transmission::GRACE_US;
use crate::cacc::command::{self, Command, CommandState, Purpose};
use crate::cacc::effects::{FeatureEdit, Stage};
use crate::twin::{Action, Event};
use crate::wire::{self, Ack, AckStatus, ActValue, EventKind, Uplink};

impl Session {
    /// A message of any sort came from the node. Returns whether it just came back, and may be applying
    /// what is retained for it.
    pub fn seen(&mut self, turn: &mut Turn<'_>) -> bool {
        self.last_seen_us = Some(turn.now_us);
        let returned = self.presence != Presence::NeverSeen;
        self.step_presence(PresenceReason::Message, turn.now_us) && self.came(returned, turn)
    }

    /// It was seen before there was a session.
    pub fn was_seen(&mut self, last_seen_us: i64) {
        self.last_seen_us = Some(last_seen_us);
        self.heartbeat_us = last_seen_us + heartbeat_period_us(self.lease_s);
        self.presence = Presence::Online;
    }

    fn came(&mut self, returned: bool, turn: &mut Turn<'_>) -> bool {
        let waits = returned && self.transmission.is_behind();
        self.transmission.returned(waits, turn.now_us);
        self.actuators.returned();
        self.heartbeat_us = turn.now_us + heartbeat_period_us(self.lease_s);
        // Sent again at once, or after that time, under the same id.
        let next_us = if waits { turn.now_us + GRACE_US } else { 0 };
        self.commands.open_mut().for_each(|command| command.next_us = next_us);
        self.show_reported(turn);
        waits
    }

    /// A reading came. Returns whether there is something to be sent.
    pub fn reading(&mut self, event: &Event, turn: &mut Turn<'_>) -> bool {
        if event.action != Action::Read {
            return false;
        }
        let before = self.transmission.delivery.clone();
        if let Some(applied_us) = self.transmission.reading() {
            let issued = self.commands.applied_transmission();
            let since_us = issued.map_or(applied_us, |one| one.issued_us);
            turn.pending.time(Stage::Reading, since_us, Some(turn.now_us));
        }
        before != self.transmission.delivery
    }

    /// The node sent something beside readings.
    pub fn receive(&mut self, uplink: &Uplink, turn: &mut Turn<'_>) {
        let came_back = self.seen(turn);
        match uplink {
            Uplink::Ack(ack) => {
                self.receive_ack(ack, turn);
                self.show_reported(turn);
            }
            Uplink::State(state) => self.receive_state(state, came_back, turn),
            Uplink::Event(event) => {
                self.receive_event(event);
                self.show_reported(turn);
            }
            Uplink::Sample(_) | Uplink::Features(_) => {}
        }
    }

    fn receive_state(&mut self, state: &wire::State, came_back: bool, turn: &mut Turn<'_>) {
        if !state.up {
            // The will of an earlier boot does not apply to this one.
            if self.boot.is_none_or(|boot| state.boot >= boot)
                && self.step_presence(PresenceReason::ConnectionEnded, turn.now_us)
            {
                self.show_reported(turn);
                self.retain(turn);
            }
            return;
        }
        let restarted = self.boot != Some(state.boot);
        self.boot = Some(state.boot);
        self.speaks = true;
        if let Some(lease) = state.lease.filter(|lease| *lease > 0) {
            self.lease_s = lease;
        }
        if let Some(tx) = &state.tx {
            self.transmission.reported = Some(tx.clone());
        }
        if let Some(version) = state.version {
            self.transmission.version = version;
        }
        if restarted {
            self.transmission.accepted = None;
            self.clock.forget();
            self.actuators.fell_back(self.boot);
        }
        self.unsaved = true;
        self.set_health(state.battery, state.rssi);
        if let Some(ms) = state.ms {
            self.health.started_us = Some(turn.now_us - i64::from(ms) * 1000);
        }
        if restarted || came_back {
            // It sends its state when it connects: what is retained for it may follow.
            let waits = self.transmission.is_behind() && !self.transmission.is_satisfied();
            self.transmission.returned(waits, turn.now_us);
            self.commands.open_mut().for_each(|command| command.next_us = turn.now_us);
            self.actuators.returned();
        }
        self.finish_applied(turn);
        self.show_reported(turn);
    }

    fn receive_event(&mut self, event: &wire::Event) {
        self.speaks = true;
        if let Some(tx) = &event.tx {
            self.transmission.reported = Some(tx.clone());
            self.unsaved = true;
        }
        if matches!(event.ev, EventKind::Lease | EventKind::Safe) {
            self.actuators.fell_back(None);
        }
        self.events.push(SessionEvent::Reported(event.clone()));
    }

    fn receive_ack(&mut self, ack: &Ack, turn: &mut Turn<'_>) {
        self.speaks = true;
        self.set_health(ack.battery, ack.rssi);
        self.clock.answered(ack, self.commands.sent_once_us(ack.id));
        if let Some(lease) = ack.lease.filter(|lease| *lease > 0) {
            self.lease_s = lease;
        }
        if let Some(tx) = &ack.tx {
            self.transmission.reported = Some(tx.clone());
        }
        let Some(command) = self.commands.get_mut(ack.id) else { return };
        if !command.state.is_open() || command.tries == 0 {
            return;
        }
        self.unsaved = true;
        match &ack.st {
            AckStatus::Ok => self.receive_ok(ack, turn),
            // Sent again in its turn.
            AckStatus::Busy | AckStatus::Crc => {}
            AckStatus::Late if turn.now_us < command.deadline_us => {
                // Its clock is not as was thought. What is still wanted is sent anew, without it.
                let reason = command::refusal(&ack.st, None);
                self.clock.forget();
                self.end(ack.id, CommandState::Expired, &reason, turn.now_us);
                self.superseded(ack.id);
            }
            status => {
                let reason = command::refusal(status, ack.why.as_deref());
                self.end(ack.id, CommandState::Rejected, &reason, turn.now_us);
                self.failed(ack.id, reason);
            }
        }
    }

    fn receive_ok(&mut self, ack: &Ack, turn: &mut Turn<'_>) {
        let Some(command) = self.commands.get_mut(ack.id) else { return };
        let purpose = command.purpose.clone();
        let stage = match purpose {
            Purpose::Act(..) => Some(Stage::ActAnswer),
            Purpose::Transmission if command.state != CommandState::Acked => Some(Stage::Answer),
            _ => None,
        };
        if let Some(stage) = stage {
            turn.pending.time(stage, command.issued_us, Some(turn.now_us));
        }
        match purpose {
            Purpose::Transmission if ack.tx.is_some() => self.applied(ack.id, turn.now_us),
            Purpose::Transmission => {
                command.state = CommandState::Acked;
                let acked = command.clone();
                self.events.push(SessionEvent::CommandAcked(acked));
                self.finish_applied(turn);
            }
            Purpose::Keep => {
                if let Some(tx) = &mut self.transmission.reported {
                    tx.kept = Some(true);
                }
                self.end_quietly(ack.id, turn.now_us);
            }
            Purpose::Get => self.end_quietly(ack.id, turn.now_us),
            Purpose::Act(feature, name) => {
                let reported = ack.act.as_ref().and_then(|act| act.get(&name).copied());
                let reported = reported.and_then(|value| match value {
                    ActValue::Bool(on) => Some(Value::Bool(on)),
                    ActValue::Number(number) => serde_json::to_value(number).ok(),
                });
                let key = (feature, name);
                let value = self.actuators.answered(&key, reported, ack.boot);
                self.end(ack.id, CommandState::Applied, "", turn.now_us);
                if let Some(value) = value {
                    turn.pending.edit(FeatureEdit {
                        thing: self.id.clone(),
                        feature: key.0,
                        desired: false,
                        value: Map::from_iter([(key.1, value)]),
                        merge: true,
                    });
                }
            }
        }
    }

    /// The node applied a transmission and reports how it transmits now.
    fn applied(&mut self, id: u32, now_us: i64) {
        let Some(command) = self.commands.get_mut(id) else { return };
        let op = command.op.clone();
        self.transmission.applied(&op, now_us);
        self.end(id, CommandState::Applied, "", now_us);
    }

    /// A transmission that was taken, or that is so by other means, is over.
    fn finish_applied(&mut self, turn: &mut Turn<'_>) {
        if !self.transmission.is_satisfied() {
            return;
        }
        let is_sent = |one: &&Command| one.purpose == Purpose::Transmission && one.tries > 0;
        let open = self.commands.open().find(is_sent).map(|command| command.id);
        if let Some(id) = open {
            self.applied(id, turn.now_us);
        }
    }

    /// A command ends, and people are to know.
    pub(super) fn end(&mut self, id: u32, state: CommandState, reason: &str, now_us: i64) {
        self.unsaved = true;
        if let Some(command) = self.commands.get_mut(id) {
            command.end(state, reason, now_us);
            self.events.push(SessionEvent::CommandEnded(command.clone()));
        }
    }

    fn end_quietly(&mut self, id: u32, now_us: i64) {
        if let Some(command) = self.commands.get_mut(id) {
            command.end(CommandState::Applied, "", now_us);
        }
        self.superseded(id);
    }
}
