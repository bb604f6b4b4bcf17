//! Commands on their way: what is sent, sent again, and given up; and when to look again.

use super::actuators::ActuatorKey;
use super::event::SessionEvent;
use super::presence::{Presence, PresenceReason};
use super::state::{Session, Turn};
use super::transmission::Delivery;
use crate::cacc::cause::{Cause, Source};
use crate::cacc::command::{
    self, ACT_DEADLINE_US, Command, CommandState, DEADLINE_US, Purpose, act_value, next_op, trial_s,
};
use crate::cacc::effects::Stage;
use crate::wire::{self, Op};

impl Session {
    /// Sends what is to be sent now. Afterwards [`Session::next_due`] returns when to look again.
    ///
    /// * `source`: what led to the state of a rule.
    /// * `since`: since when a rule is active for the node, microseconds since 1970.
    pub fn deliver(
        &mut self,
        source: impl Fn(&str) -> Option<Source>,
        since: impl Fn(&str) -> i64,
        turn: &mut Turn<'_>,
    ) {
        self.end_what_is_over(turn);
        self.watch_silence(turn);
        if self.presence == Presence::Online && self.takes_commands() {
            self.send_again(turn);
            self.send_transmission(&since, turn);
            self.send_actuators(&source, &since, turn);
            self.send_reads(turn);
            self.send_heartbeat(turn);
        }
    }

    /// When to look again, microseconds since 1970.
    pub fn next_due(&self, now_us: i64) -> Option<i64> {
        let online = self.presence == Presence::Online;
        let open = self.commands.open();
        let mut due: Vec<i64> = open
            .flat_map(|one| [Some(one.deadline_us), online.then_some(one.next_us)])
            .flatten()
            .collect();
        let decision = self.transmission.decision.as_ref();
        due.extend(decision.and_then(|one| one.target.as_ref()).map(|(_, due_us)| *due_us));
        if online {
            due.extend(self.transmission.grace_us());
            due.extend(self.transmission.pull_us);
            if self.speaks {
                due.push(self.heartbeat_us);
                due.extend(self.last_seen_us.map(|seen_us| seen_us + lease_us(self.lease_s)));
            }
        }
        due.into_iter().filter(|due_us| *due_us > now_us).min()
    }

    /// A command was refused, or not answered in time.
    pub(super) fn failed(&mut self, id: u32, reason: String) {
        match self.commands.get_mut(id).map(|command| command.purpose.clone()) {
            Some(Purpose::Transmission) => self.transmission.failed(reason),
            Some(Purpose::Act(feature, name)) => self.actuators.failed(&(feature, name)),
            Some(Purpose::Keep | Purpose::Get) | None => self.transmission.superseded(id),
        }
    }

    /// A command is over without a result.
    pub(super) fn superseded(&mut self, id: u32) {
        self.transmission.superseded(id);
        if let Some(command) = self.commands.get_mut(id)
            && let Purpose::Act(feature, name) = &command.purpose
        {
            let key = (feature.clone(), name.clone());
            self.actuators.superseded(&key, id);
        }
    }

    /// Whether what a command asks for is no longer wanted.
    fn is_obsolete(&self, command: &Command) -> bool {
        let generation = self.transmission.generation();
        match &command.purpose {
            Purpose::Transmission => command.generation != generation,
            Purpose::Keep => command.generation != generation || !self.transmission.is_satisfied(),
            Purpose::Act(feature, name) => {
                let control = self.actuators.get(&(feature.clone(), name.clone()));
                let wanted = control.and_then(|control| act_value(control.wanted.as_ref()?));
                let op = wanted.map(|value| Op::Act { property: name.clone(), value }.to_string());
                op.as_deref() != Some(&command.op)
            }
            Purpose::Get => false,
        }
    }

    fn end_what_is_over(&mut self, turn: &mut Turn<'_>) {
        if self.transmission.decision.is_none() || self.commands.open().next().is_none() {
            return;
        }
        let open: Vec<u32> = self.commands.open().map(|command| command.id).collect();
        for id in open {
            let Some(command) = self.commands.open().find(|one| one.id == id) else { continue };
            if self.is_obsolete(command) {
                let reason = "something newer is wanted";
                self.end(id, CommandState::Superseded, reason, turn.now_us);
                self.superseded(id);
            } else if turn.now_us >= command.deadline_us {
                let reason = match command.tries {
                    0 => "the node was offline all the time".to_owned(),
                    1 => "no answer to one try".to_owned(),
                    tries => format!("no answer to {tries} tries"),
                };
                self.end(id, CommandState::Expired, &reason, turn.now_us);
                self.failed(id, reason);
            }
        }
    }

    fn watch_silence(&mut self, turn: &mut Turn<'_>) {
        let Some(seen_us) = self.last_seen_us else { return };
        // A clock that was set back: no message came in the future.
        let silent_us = turn.now_us - seen_us.min(turn.now_us);
        if self.speaks
            && silent_us >= lease_us(self.lease_s)
            && self.step_presence(PresenceReason::LeaseElapsed, turn.now_us)
        {
            self.show_reported(turn);
            self.retain(turn);
        }
    }

    fn send_again(&mut self, turn: &mut Turn<'_>) {
        let now_us = turn.now_us;
        let due = self.commands.open().filter(|command| command.next_us <= now_us);
        let due: Vec<u32> = due.map(|command| command.id).collect();
        for id in due {
            self.send(id, turn);
        }
    }

    fn send_transmission(&mut self, since: impl Fn(&str) -> i64, turn: &mut Turn<'_>) {
        let of = &self.transmission;
        let Some(decision) = &of.decision else { return };
        match of.delivery {
            Delivery::Grace { until_us } if turn.now_us < until_us => return,
            Delivery::Commanded { command } if self.commands.is_open(command) => return,
            _ => {}
        }
        if of.is_satisfied() {
            if self.is_to_be_kept() {
                self.issue(Op::Keep, Purpose::Keep, None, turn);
            }
            return;
        }
        // A plain client need not be sent what it does anyway.
        if of.given_up().is_some() || self.is_mute() && of.cause.by == "default" {
            return;
        }
        if let Some(op) = next_op(of.reported.as_ref(), &decision.tx, trial_s(&decision.tx)) {
            if let Some(source) = &of.source {
                let since_us = source.time_us.max(since(&of.cause.by));
                turn.pending.time(Stage::Command, since_us, None);
            }
            self.issue(op, Purpose::Transmission, None, turn);
        }
    }

    /// Whether the transmission was on trial, and a reading shows that it works.
    fn is_to_be_kept(&self) -> bool {
        let of = &self.transmission;
        let generation = of.generation();
        let on_trial = of.reported.as_ref().is_some_and(|tx| tx.kept == Some(false));
        let silent = || of.reported.as_ref().is_some_and(|tx| trial_s(tx).is_none());
        let asked = || {
            let mut all = self.commands.all().iter();
            all.any(|one| one.purpose == Purpose::Keep && one.generation == generation)
        };
        on_trial && (of.delivery == Delivery::Confirmed || silent()) && !asked()
    }

    fn send_actuators(
        &mut self,
        source: impl Fn(&str) -> Option<Source>,
        since: impl Fn(&str) -> i64,
        turn: &mut Turn<'_>,
    ) {
        let Some(twin) = turn.twin.filter(|_| !self.actuators.is_empty()) else { return };
        for (key, wanted, by) in self.actuators.due(twin) {
            let Some(value) = act_value(&wanted) else {
                self.actuators.failed(&key);
                continue;
            };
            let source = source(&by).or_else(|| {
                let (thing, revision) = (twin.id.clone(), twin.revision);
                (by == "user").then_some(Source { thing, revision, time_us: twin.modified_us })
            });
            let trace = source.as_ref().map_or(String::new(), Source::trace);
            if let Some(source) = source {
                let since_us = source.time_us.max(since(&by));
                turn.pending.time(Stage::ActCommand, since_us, None);
            }
            let (feature, name) = key;
            let op = Op::Act { property: name.clone(), value };
            self.issue(op, Purpose::Act(feature, name), Some(Cause { by, trace }), turn);
        }
    }

    /// Reads values once, and on a schedule.
    fn send_reads(&mut self, turn: &mut Turn<'_>) {
        if !self.follows_rules() {
            self.reads.clear();
        }
        for property in std::mem::take(&mut self.reads) {
            let property = Some(property.rsplit('/').next().unwrap_or_default().to_owned());
            self.issue(Op::Get { property }, Purpose::Get, None, turn);
        }
        let decision = self.transmission.decision.as_ref();
        let Some(ms) = decision.and_then(|decision| decision.schedule) else {
            self.transmission.pull_us = None;
            return;
        };
        match self.transmission.pull_us {
            Some(at_us) if at_us > turn.now_us => {}
            _ if self.transmission.is_satisfied() => {
                self.send_unrecorded(&Op::Get { property: None }, turn);
                let period_us = i64::from(ms.max(1)) * 1000;
                self.transmission.pull_us = Some(turn.now_us + period_us);
            }
            _ => self.transmission.pull_us = None,
        }
    }

    fn send_heartbeat(&mut self, turn: &mut Turn<'_>) {
        if self.speaks && self.heartbeat_us <= turn.now_us {
            let id = self.send_unrecorded(&Op::Heartbeat, turn);
            self.clock.heartbeat_sent(id, turn.now_us);
        }
    }

    /// Sends what nobody waits for an answer to.
    fn send_unrecorded(&mut self, op: &Op, turn: &mut Turn<'_>) -> u32 {
        let id = self.commands.next_id(turn.now_us);
        self.heartbeat_us = turn.now_us + heartbeat_period_us(self.lease_s);
        turn.pending.send(&self.id, format!("{id} {op}"), false);
        id
    }

    /// Sends a command, for the first time or again.
    fn send(&mut self, id: u32, turn: &mut Turn<'_>) {
        let Some(command) = self.commands.get_mut(id) else { return };
        let text = self.clock.body(command, turn.now_us);
        command.sent(turn.now_us);
        self.heartbeat_us = turn.now_us + heartbeat_period_us(self.lease_s);
        let urgent = matches!(command.purpose, Purpose::Act(..));
        turn.pending.send(&self.id, text, urgent);
    }

    /// Issues a command and sends it.
    ///
    /// * `cause`: `None`: that of the transmission.
    fn issue(&mut self, op: Op, purpose: Purpose, cause: Option<Cause>, turn: &mut Turn<'_>) {
        let id = self.commands.next_id(turn.now_us);
        let of_transmission = matches!(purpose, Purpose::Transmission | Purpose::Keep);
        let wait_us =
            if matches!(purpose, Purpose::Act(..)) { ACT_DEADLINE_US } else { DEADLINE_US };
        self.commands.push(Command {
            id,
            generation: if of_transmission { self.transmission.generation() } else { 0 },
            cause: cause.unwrap_or_else(|| self.transmission.cause.clone()),
            issued_us: turn.now_us,
            deadline_us: turn.now_us.saturating_add(wait_us),
            lease_s: self.lease_s,
            op: op.to_string(),
            purpose: purpose.clone(),
            state: CommandState::Pending,
            tries: 0,
            next_us: turn.now_us,
            ended_us: None,
            reason: String::new(),
        });
        self.unsaved = true;
        if let Err(error) = wire::Command::new(id, op).encode() {
            let reason = command::unsayable(&error);
            self.end(id, CommandState::Rejected, &reason, turn.now_us);
            return self.failed(id, reason);
        }
        match purpose {
            Purpose::Transmission | Purpose::Keep => self.transmission.commanded(id),
            Purpose::Act(feature, name) => {
                let key: ActuatorKey = (feature, name);
                self.actuators.commanded(&key, id);
            }
            Purpose::Get => {}
        }
        self.send(id, turn);
        if let Some(command) = self.commands.get_mut(id)
            && command.purpose != Purpose::Get
        {
            self.events.push(SessionEvent::CommandSent(command.clone()));
        }
    }
}

/// A lease, microseconds.
pub(super) fn lease_us(lease_s: u32) -> i64 {
    i64::from(lease_s) * 1_000_000
}

/// How often a node with this lease gets a message at least, microseconds.
pub(super) fn heartbeat_period_us(lease_s: u32) -> i64 {
    lease_us(lease_s) / 3
}
