//! What is said to nodes: what is desired of those that are away, commands, questions, heartbeats; and
//! what becomes of a command that nobody answers.
//!
//! Not here: what is to be said (`nodes`), answers (`hear`).

use serde_json::Value;

use super::{Controller, Message, Node, Note, Presence, Source, Stage, Timer};
use crate::cacc::command::{
    self, ACT_DEADLINE_US, Cause, Command, DEADLINE_US, Purpose, State, act_value, next_op, trial_s,
};
use crate::cacc::decide::safety::Safety;
use crate::wire::{self, Desired, Op};

/// Values that wait to be asked for; more are the newest state anyway.
const ASKS_MAX: usize = 16;

impl Controller {
    pub(super) fn note_end(&mut self, at: usize, place: usize) {
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

    /// Says what is desired, or that nothing is, although it may have been said before.
    pub(super) fn say_desired_again(&mut self, at: usize) {
        if let Some(node) = self.subjects[at].node.as_mut().filter(|node| node.decision.is_some()) {
            // Something may be retained for it.
            node.said = node.said.max(1);
            self.say_desired(at);
        }
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
    pub(super) fn pump(&mut self, at: usize, now_us: i64) {
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
    pub(super) fn held_since(&self, at: usize, rule: &str) -> i64 {
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
        let asks = self.subjects[at].node.as_mut().map(|node| {
            let safety = node.decision.as_ref().and_then(|decision| decision.safety);
            if matches!(safety, Some(Safety::Quarantined | Safety::Held)) {
                // No rule is heard about it.
                node.asks.clear();
            }
            std::mem::take(&mut node.asks)
        });
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
}

pub(super) fn lease_us(lease_s: u32) -> i64 {
    i64::from(lease_s) * 1_000_000
}

pub(super) fn heartbeat_us(lease_s: u32) -> i64 {
    lease_us(lease_s) / 3
}
