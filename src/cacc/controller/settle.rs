//! Settling: nodes are decided and their sessions deliver, those with an actuator first, some at a
//! time.

use std::cmp::Reverse;

use super::Controller;
use crate::cacc::cause::Source;
use crate::cacc::decide::{self, Decided};
use crate::cacc::effects::{self, Effects, Pending};
use crate::cacc::explain;
use crate::cacc::facts::{NodeStatus, Slot};
use crate::cacc::rules::RuleChange;
use crate::cacc::session::{SessionEvent, Turn};

/// Nodes that one settling decides: what follows for an actuator in the next input waits for no
/// more than these.
pub(super) const SETTLE_MAX: usize = 500;

impl Controller {
    /// Decides for nodes about which something new is known, and gives what is to be done. While
    /// [`Controller::has_work`] there are more of them.
    pub fn settle(&mut self, now_us: i64) -> Effects {
        let now_us = self.now(now_us);
        let mut slots = Vec::new();
        while slots.len() < SETTLE_MAX
            && let Some(slot) = self.urgent.pop_first().or_else(|| self.others.pop_first())
        {
            self.others.remove(&slot);
            slots.push(slot);
        }
        for (slot, decided) in self.decide(&slots, now_us) {
            self.deliver(slot, decided, now_us);
        }
        let pending = std::mem::take(&mut self.pending);
        pending.into_effects(self.facts.take_history())
    }

    /// Whether there are nodes to settle.
    pub fn has_work(&self) -> bool {
        !self.urgent.is_empty() || !self.others.is_empty()
    }

    /// When there is something to be done without an input, microseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        if self.has_work() {
            return Some(self.last_us);
        }
        let node = self.timers.peek().map(|Reverse((due_us, _))| *due_us);
        [self.rules.due(), node].into_iter().flatten().min()
    }

    /// What was to be stored was not: all of it is to be stored at the next settling. Commands that
    /// were not sent are sent again as any that is not answered.
    pub fn not_stored(&mut self) {
        for at in 0..self.sessions.len() {
            let slot = Slot::at(at);
            let twin = match &self.sessions[at] {
                Some(_) => self.facts.of(slot).twin.clone(),
                None => continue,
            };
            let (now_us, pending) = (self.last_us, &mut self.pending);
            if let Some(session) = &mut self.sessions[at] {
                session.not_stored(&mut Turn { now_us, twin: twin.as_deref(), pending });
                session.undecided = true;
            }
            self.mark(slot);
        }
        for rule in 0..self.rules.len() {
            self.store_rule(rule);
        }
    }

    /// Decides for those nodes of which something changed that a decision starts from.
    fn decide(&mut self, slots: &[Slot], now_us: i64) -> Vec<(Slot, Option<Decided>)> {
        let mut decided: Vec<(Slot, Option<Decided>)> = Vec::with_capacity(slots.len());
        let mut inputs = Vec::with_capacity(slots.len());
        let mut places = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(Some(session)) = self.sessions.get(slot.index()) else { continue };
            if self.facts.of(*slot).twin.is_none() {
                continue;
            }
            decided.push((*slot, None));
            if session.undecided {
                places.push(decided.len() - 1);
                inputs.push(session.input(self.rules.layers(*slot)));
            }
        }
        let results = decide::decide(&mut inputs, now_us);
        for (place, one) in places.into_iter().zip(results) {
            decided[place].1 = one;
            if let Some(session) = &mut self.sessions[decided[place].0.index()] {
                session.undecided = false;
            }
        }
        decided
    }

    /// A session takes its decision and sends what there is to be sent.
    fn deliver(&mut self, slot: Slot, decided: Option<Decided>, now_us: i64) {
        let Self { facts, rules, sessions, pending, .. } = self;
        let Some(Some(session)) = sessions.get_mut(slot.index()) else { return };
        if session.undecided {
            // Delivering to a node before this one changed what its decision starts from.
            return self.mark(slot);
        }
        let layers = rules.layers(slot);
        let source = |rule: &str| rules.source(slot, rule);
        let since = |rule: &str| -> i64 {
            layers.iter().find(|layer| **layer.name == *rule).map_or(0, |layer| layer.since_us)
        };
        let mut turn = Turn { now_us, twin: facts.of(slot).twin.as_deref(), pending };
        session.decide(decided, &layers, source, &mut turn);
        session.deliver(source, since, &mut turn);
        if let Some(due_us) = session.next_due(now_us)
            && due_us < session.due_us
        {
            session.due_us = due_us;
            self.timers.push(Reverse((due_us, slot)));
        }
        self.sync(slot, now_us);
        self.follow(now_us);
        self.store(slot);
    }

    /// Lets the facts know what a node reports of itself, rules look at that, and people know what
    /// happened.
    pub(super) fn sync(&mut self, slot: Slot, now_us: i64) {
        let session = self.sessions.get_mut(slot.index()).and_then(Option::as_mut);
        let (status, events) = match session {
            Some(session) => (session.status(), session.take_events()),
            None => (NodeStatus::default(), Vec::new()),
        };
        let came_or_went = self.facts.set_status(slot, status);
        self.note_events(slot, &events, now_us);
        if came_or_went {
            let thing = self.facts.of(slot).id.clone();
            let source = Source { thing, revision: 0, time_us: now_us };
            self.rules.look_at_all(slot, &source, &self.facts, now_us);
            self.mark(slot);
        }
    }

    fn note_events(&mut self, slot: Slot, events: &[SessionEvent], now_us: i64) {
        for event in events {
            let of = self.explained(slot, now_us);
            let sentence = || of.and_then(|of| of.sentence()).unwrap_or_default();
            let note = explain::session_note(&self.facts.of(slot).id, event, sentence);
            self.pending.note(note);
        }
    }

    /// Follows the rules whose state changed: their nodes are to be settled, and people are to know.
    pub(super) fn follow(&mut self, now_us: i64) {
        for slot in self.rules.take_touched() {
            self.mark_undecided(slot, false);
        }
        for change in self.rules.take_changes() {
            if let Some(note) = explain::rule_note(&change, &self.rules, &self.facts) {
                self.pending.note(note);
            }
            if change.member.is_none() && change.is_kept() {
                self.store_rule(change.rule);
            }
            self.follow_change(&change);
        }
        self.last_us = now_us;
    }

    fn follow_change(&mut self, change: &RuleChange) {
        if !change.is_kept() {
            return;
        }
        let entry = self.rules.entry(change.rule);
        let slots = match change.member {
            Some(slot) => vec![slot],
            None => entry.members().to_vec(),
        };
        let rule = entry.rule.clone();
        for slot in slots {
            let Some(Some(session)) = self.sessions.get_mut(slot.index()) else { continue };
            if rule.each {
                session.mark_unsaved();
            }
            if change.became_active() {
                session.read_once(&rule.effect.pull);
            }
            self.mark_undecided(slot, !rule.effect.set.is_empty());
        }
    }

    fn mark_undecided(&mut self, slot: Slot, urgent: bool) {
        if let Some(Some(session)) = self.sessions.get_mut(slot.index()) {
            session.undecided = true;
            if urgent {
                self.urgent.insert(slot);
            }
            self.mark(slot);
        }
    }

    /// A node is to be settled. One with a command to an actuator waits for no other.
    pub(super) fn mark(&mut self, slot: Slot) {
        if let Some(Some(session)) = self.sessions.get(slot.index()) {
            if session.is_urgent(self.facts.of(slot).twin.as_deref(), self.last_us) {
                self.urgent.insert(slot);
            } else {
                self.others.insert(slot);
            }
        }
    }

    pub(super) fn unmark(&mut self, slot: Slot) {
        self.urgent.remove(&slot);
        self.others.remove(&slot);
    }

    /// Stores what is to outlive a restart, if it changed.
    fn store(&mut self, slot: Slot) {
        let Self { rules, sessions, pending, .. } = self;
        let Some(Some(session)) = sessions.get_mut(slot.index()) else { return };
        if let Some(record) = session.take_record(|| rules.states_of(slot)) {
            // Plain data: it always has a JSON form.
            let text = serde_json::to_string(&record).unwrap_or_default();
            pending.store(effects::node_key(&record.thing), Some(text));
        }
    }

    fn store_rule(&mut self, rule: usize) {
        let Some(record) = self.rules.record(rule) else { return };
        // Plain data: it always has a JSON form.
        let text = serde_json::to_string(&record).unwrap_or_default();
        let pending: &mut Pending = &mut self.pending;
        pending.store(effects::rule_key(&record.rule), Some(text));
    }
}
