//! Whether rules hold: facts are read again where they changed, conditions are evaluated, and the
//! state machines step.

use std::cmp::Reverse;

use super::table::{RuleChange, RuleTimer, Rules};
use crate::cacc::cause::Source;
use crate::cacc::expr::eval::earlier;
use crate::cacc::expr::{Fact, eval};
use crate::cacc::facts::{Facts, Slot, TwinFacts};
use crate::cacc::rule::{self, RuleState};
use crate::twin::path::Path;
use crate::twin::{Event, ThingId};

impl Rules {
    /// Looks at the rules of a twin that may read what changed.
    ///
    /// * `event`: what changed of the twin; `None`: nothing of it.
    /// * `of_node`: whether a message came from the node, so that its status changed.
    pub fn look(
        &mut self,
        slot: Slot,
        event: Option<&Event>,
        of_node: bool,
        source: &Source,
        facts: &Facts,
        now_us: i64,
    ) {
        let labels = event.is_some_and(|event| {
            matches!(event.path, Path::Thing | Path::Attributes | Path::Attribute(_))
        });
        // Each property is looked for once, however many rules read it.
        let mut written: Vec<Option<bool>> = vec![None; self.properties.len()];
        for membership in 0..self.memberships(slot).len() {
            let Some((rule, place)) = self.memberships(slot).get(membership).copied() else {
                return;
            };
            let is_written = |at: &usize| {
                let of = &self.properties[*at];
                let look = || event.is_some_and(|event| facts.of(slot).is_written(event, of));
                *written[*at].get_or_insert_with(look)
            };
            let entry = &self.entries[rule];
            let touched = event.is_some() && self.reads[rule].iter().any(is_written)
                || labels && entry.facts.iter().any(|fact| matches!(fact, Fact::Label(_)));
            if touched || of_node && entry.reads_node {
                self.look_at(rule, place, Some(source), facts, now_us);
            }
        }
    }

    /// Looks at all rules of a twin, as after its node came or went.
    pub fn look_at_all(&mut self, slot: Slot, source: &Source, facts: &Facts, now_us: i64) {
        for (rule, place) in self.memberships(slot).to_vec() {
            self.look_at(rule, place, Some(source), facts, now_us);
        }
    }

    /// Rules over an aggregate read its own values, too.
    pub fn look_at_aggregate(
        &mut self,
        id: &ThingId,
        event: &Event,
        source: &Source,
        facts: &Facts,
        now_us: i64,
    ) {
        let Some(slot) = facts.slot(id) else { return };
        for rule in self.over(id) {
            let mut reads = self.entries[rule].reads.iter().flatten();
            if reads.any(|of| facts.of(slot).is_written(event, of)) {
                for place in 0..self.entries[rule].members.len() {
                    self.look_at(rule, place, Some(source), facts, now_us);
                }
            }
        }
    }

    /// An aggregate is seen for the first time: what its rules read of it is kept from here on.
    pub fn meet_aggregate(&mut self, slot: Slot, facts: &mut Facts, now_us: i64) {
        let id = facts.of(slot).id.clone();
        for rule in self.over(&id) {
            facts.track(slot, &self.entries[rule].facts, now_us);
            self.judge_members(rule, facts, now_us);
        }
    }

    /// The windows of a twin were filled from history.
    pub fn windows_filled(&mut self, slots: &[Slot], facts: &Facts, now_us: i64) {
        self.gathering = true;
        for slot in slots {
            for (rule, place) in self.memberships(*slot).to_vec() {
                self.refresh(rule, place, None, facts, now_us);
                self.judge(rule, place, None, facts, now_us);
            }
            for rule in self.over(&facts.of(*slot).id) {
                self.judge_members(rule, facts, now_us);
            }
        }
        self.gathering = false;
        for rule in 0..self.entries.len() {
            self.judge_group(rule, None, facts, now_us);
        }
    }

    /// Looks at every rule for what no input reports, such as a clock that was set.
    pub fn reconsider(&mut self, facts: &Facts, now_us: i64) {
        for rule in 0..self.entries.len() {
            for place in 0..self.entries[rule].members.len() {
                if !self.entries[rule].is_settled(place, now_us) {
                    self.judge(rule, place, None, facts, now_us);
                }
            }
            self.judge_group(rule, None, facts, now_us);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, facts: &mut Facts, now_us: i64) {
        while let Some(Reverse((due_us, timer))) = self.timers.peek().copied()
            && due_us <= now_us
        {
            self.timers.pop();
            match timer {
                RuleTimer::Member(rule, slot) => self.member_due(rule, slot, facts, now_us),
                RuleTimer::Group(rule) => {
                    self.entries[rule].group_due = i64::MAX;
                    self.judge_group(rule, None, facts, now_us);
                }
            }
        }
    }

    fn member_due(&mut self, rule: usize, slot: Slot, facts: &mut Facts, now_us: i64) {
        let Some(place) = self.place(rule, slot) else { return };
        self.entries[rule].due[place] = i64::MAX;
        for of in self.read_of(rule, slot, facts) {
            facts.forget_old(of, now_us);
        }
        self.refresh(rule, place, None, facts, now_us);
        self.judge(rule, place, None, facts, now_us);
    }

    fn look_at(
        &mut self,
        rule: usize,
        place: usize,
        source: Option<&Source>,
        facts: &Facts,
        now_us: i64,
    ) {
        if self.refresh(rule, place, source, facts, now_us) {
            self.judge(rule, place, source, facts, now_us);
        }
    }

    /// Whose facts a rule reads about a member: the member's first where each is judged, the
    /// aggregate's first where all are.
    fn readers(&self, rule: usize, slot: Slot, facts: &Facts) -> (Slot, Option<Slot>) {
        let of = &self.entries[rule].rule;
        let aggregate = of.target.aggregate.as_ref().and_then(|id| facts.slot(id));
        match aggregate {
            None => (slot, None),
            Some(aggregate) if of.each => (slot, Some(aggregate)),
            Some(aggregate) => (aggregate, Some(slot)),
        }
    }

    /// The twins whose facts a rule reads about a member.
    pub(super) fn read_of(
        &self,
        rule: usize,
        slot: Slot,
        facts: &Facts,
    ) -> impl Iterator<Item = Slot> + use<> {
        let (first, second) = self.readers(rule, slot, facts);
        [Some(first), second].into_iter().flatten()
    }

    /// The twin that a fact about a member comes from: the member, if nobody knows it.
    pub fn reporter<'f>(
        &self,
        rule: usize,
        fact: &Fact,
        slot: Slot,
        facts: &'f Facts,
    ) -> &'f TwinFacts {
        let mut all = self.read_of(rule, slot, facts);
        let known = all.find(|of| facts.of(*of).value(fact) != eval::Value::Unknown);
        facts.of(known.unwrap_or(slot))
    }

    /// Judges a rule for all its members anew.
    fn judge_members(&mut self, rule: usize, facts: &Facts, now_us: i64) {
        for place in 0..self.entries[rule].members.len() {
            self.refresh(rule, place, None, facts, now_us);
            self.judge(rule, place, None, facts, now_us);
        }
    }

    /// Judges what was left open while members joined one by one.
    pub(super) fn judge_gathered(&mut self, rule: usize, facts: &Facts, now_us: i64) {
        if !self.entries[rule].quantifiers.is_empty() {
            self.set_shared(rule);
            for place in 0..self.entries[rule].members.len() {
                self.judge(rule, place, None, facts, now_us);
            }
        }
        self.judge_group(rule, None, facts, now_us);
    }

    /// Reads the facts of a member again; whether one of its own changed.
    pub(super) fn refresh(
        &mut self,
        rule: usize,
        place: usize,
        source: Option<&Source>,
        facts: &Facts,
        now_us: i64,
    ) -> bool {
        let slot = self.entries[rule].members[place];
        let (first, second) = self.readers(rule, slot, facts);
        let mut changed = false;
        for at in 0..self.entries[rule].facts.len() {
            let fact = &self.entries[rule].facts[at];
            if matches!(fact, Fact::AnyOf(_) | Fact::AllOf(_)) {
                continue;
            }
            let mut value = facts.of(first).value(fact);
            if let (Some(second), eval::Value::Unknown) = (second, &value) {
                value = facts.of(second).value(fact);
            }
            changed |= self.entries[rule].set_value(place, at, value);
        }
        if !self.entries[rule].quantifiers.is_empty() {
            let known = facts.of(slot);
            for one in &mut self.entries[rule].quantifiers {
                one.set(place, known.flag(&one.of));
            }
            if !self.gathering {
                self.share(rule, source, facts, now_us);
            }
        }
        changed
    }

    /// `any` and `all` have the same value for all members; they are judged if it changed.
    pub(super) fn share(
        &mut self,
        rule: usize,
        source: Option<&Source>,
        facts: &Facts,
        now_us: i64,
    ) {
        if self.set_shared(rule) {
            for place in 0..self.entries[rule].members.len() {
                self.judge(rule, place, source, facts, now_us);
            }
        }
    }

    fn set_shared(&mut self, rule: usize) -> bool {
        let entry = &mut self.entries[rule];
        let mut changed = false;
        for at in 0..entry.quantifiers.len() {
            let value = entry.quantifiers[at].value();
            if entry.quantifiers[at].shared.as_ref() == Some(&value) {
                continue;
            }
            entry.quantifiers[at].shared = Some(value.clone());
            let fact = entry.quantifiers[at].slot;
            for place in 0..entry.members.len() {
                changed |= entry.set_value(place, fact, value.clone());
            }
        }
        changed
    }

    /// Judges a rule for one member.
    pub(super) fn judge(
        &mut self,
        rule: usize,
        place: usize,
        source: Option<&Source>,
        facts: &Facts,
        now_us: i64,
    ) {
        let entry = &mut self.entries[rule];
        let changed = entry.evaluate(place, now_us);
        let (slot, each) = (entry.members[place], entry.rule.each);
        let mut due = entry.truth_due(place, now_us);
        if self.awaits(rule, slot, facts) {
            return;
        }
        for of in self.read_of(rule, slot, facts) {
            due = earlier(due, facts.window_due(of, &self.entries[rule].facts));
        }
        if each {
            let entry = &mut self.entries[rule];
            let (when, until) = entry.truths(place);
            let before = entry.states[place];
            let state = rule::step(entry.rule.times, before, when, until, now_us);
            due = earlier(due, rule::due(entry.rule.times, state, now_us));
            entry.states[place] = state;
            if state != before {
                if matches!(before, RuleState::Idle)
                    && let Some(source) = source
                {
                    entry.sources.insert(slot, source.clone());
                }
                self.moved(rule, Some(slot), before, state);
            }
        } else if changed {
            self.judge_group(rule, source, facts, now_us);
        }
        if let Some(due_us) = due {
            self.arm(RuleTimer::Member(rule, slot), due_us);
        }
    }

    /// Whether a window that the rule reads of a member, or of its aggregate, is still to be read.
    fn awaits(&self, rule: usize, slot: Slot, facts: &Facts) -> bool {
        facts.awaits_any()
            && (self.read_of(rule, slot, facts))
                .any(|of| facts.awaits(of, &self.entries[rule].facts))
    }

    /// Judges a rule for all its members together.
    pub(super) fn judge_group(
        &mut self,
        rule: usize,
        source: Option<&Source>,
        facts: &Facts,
        now_us: i64,
    ) {
        let entry = &self.entries[rule];
        // An aggregate that nobody is a member of yet may be one that is still to be read.
        let unread = entry.members.is_empty() && entry.rule.target.aggregate.is_some();
        let awaits = || {
            facts.awaits_any() && entry.members.iter().any(|slot| self.awaits(rule, *slot, facts))
        };
        if entry.rule.each || self.gathering || unread || awaits() {
            return;
        }
        let entry = &mut self.entries[rule];
        let (when, until) = entry.together();
        let before = entry.group;
        let state = rule::step(entry.rule.times, before, when, until, now_us);
        entry.group = state;
        let due = rule::due(entry.rule.times, state, now_us);
        if state != before {
            if matches!(before, RuleState::Idle) {
                entry.group_source = source.cloned();
            }
            self.moved(rule, None, before, state);
        }
        if let Some(due_us) = due {
            self.arm(RuleTimer::Group(rule), due_us);
        }
    }

    /// A rule is in another state, for one member or for all.
    fn moved(&mut self, rule: usize, member: Option<Slot>, from: RuleState, to: RuleState) {
        let since_us = to.active_since();
        if since_us != from.active_since() {
            match member {
                Some(slot) => self.set_active(rule, slot, since_us),
                None => {
                    for at in 0..self.entries[rule].members.len() {
                        let slot = self.entries[rule].members[at];
                        self.set_active(rule, slot, since_us);
                    }
                }
            }
        }
        self.changes.push(RuleChange { rule, member, from, to });
    }
}
