//! One rule with its members: the values of its facts, the truth of its conditions, its state.

use std::collections::HashMap;
use std::sync::Arc;

use super::quantifier::Quantifier;
use crate::cacc::cause::Source;
use crate::cacc::expr::eval::{self, Expression, Truth};
use crate::cacc::expr::{Fact, LinkField, PropertyRef};
use crate::cacc::facts::{Slot, read_property};
use crate::cacc::rule::{Rule, RuleState};

/// Whether `when` holds, and `until`, if there is one.
pub(super) type Truths = (Truth, Option<Truth>);

/// How many members' conditions hold, of a rule that judges all of them together.
#[derive(Debug, Default)]
struct Tally {
    when: usize,
    until: usize,
    until_false: usize,
}

/// A rule with all that it is about. The lists have one entry a member.
#[derive(Debug)]
pub struct RuleEntry {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The facts that its conditions read.
    pub facts: Vec<Fact>,
    /// The property of the twin that each fact reads.
    pub(super) reads: Vec<Option<PropertyRef>>,
    pub(super) when: Expression,
    pub(super) until: Option<Expression>,
    /// It reads something of the node or its link, which every message changes.
    pub(super) reads_node: bool,
    /// It reads an age, which grows by itself.
    reads_clock: bool,
    pub(super) members: Vec<Slot>,
    /// One a fact and member.
    values: Vec<eval::Value>,
    truths: Vec<Truths>,
    pub(super) states: Vec<RuleState>,
    /// When each member's timer is due.
    pub(super) due: Vec<i64>,
    pub(super) sources: HashMap<Slot, Source>,
    pub(super) quantifiers: Vec<Quantifier>,
    tally: Tally,
    /// The state for all members, if it does not judge each by itself.
    pub(super) group: RuleState,
    pub(super) group_due: i64,
    pub(super) group_source: Option<Source>,
}

impl RuleEntry {
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        let mut facts = Vec::new();
        let when = Expression::compile(&rule.when, &mut facts);
        let until = rule.until.as_ref().map(|until| Expression::compile(until, &mut facts));
        let quantifier = |(slot, fact)| Quantifier::of(slot, fact);
        Self {
            quantifiers: facts.iter().enumerate().filter_map(quantifier).collect(),
            reads_node: facts.iter().any(|fact| {
                matches!(fact, Fact::Node(_) | Fact::Link(LinkField::Loss | LinkField::Rate))
            }),
            reads_clock: facts.iter().any(eval::grows),
            reads: facts.iter().map(read_property).collect(),
            when,
            until,
            facts,
            rule,
            members: Vec::new(),
            values: Vec::new(),
            truths: Vec::new(),
            states: Vec::new(),
            due: Vec::new(),
            sources: HashMap::new(),
            tally: Tally::default(),
            group: RuleState::Idle,
            group_due: i64::MAX,
            group_source: None,
        }
    }

    /// The members, in no particular order.
    pub fn members(&self) -> &[Slot] {
        &self.members
    }

    /// The state for a member.
    pub fn state(&self, place: usize) -> RuleState {
        if self.rule.each { self.states[place] } else { self.group }
    }

    /// Whether the conditions hold for a member.
    pub fn truths(&self, place: usize) -> (Truth, Option<Truth>) {
        self.truths[place]
    }

    /// The values of the facts for a member.
    pub fn values(&self, place: usize) -> &[eval::Value] {
        let stride = self.facts.len();
        &self.values[place * stride..(place + 1) * stride]
    }

    /// What led to the state for all members.
    pub fn group_source(&self) -> Option<&Source> {
        self.group_source.as_ref()
    }

    /// What led to the state for a member.
    pub fn source(&self, slot: Slot) -> Option<&Source> {
        if self.rule.each { self.sources.get(&slot) } else { self.group_source.as_ref() }
    }

    /// Sets the value of a fact for a member; whether it is another.
    pub(super) fn set_value(&mut self, place: usize, fact: usize, value: eval::Value) -> bool {
        let kept = &mut self.values[place * self.facts.len() + fact];
        let changed = *kept != value;
        if changed {
            *kept = value;
        }
        changed
    }

    /// Evaluates the conditions for a member; whether their truth is another.
    pub(super) fn evaluate(&mut self, place: usize, now_us: i64) -> bool {
        let values = self.values(place);
        let when = self.when.evaluate(values, now_us);
        let until = self.until.as_ref().map(|until| until.evaluate(values, now_us));
        let before = std::mem::replace(&mut self.truths[place], (when, until));
        if before == (when, until) {
            return false;
        }
        self.count(before, false);
        self.count((when, until), true);
        true
    }

    /// When the truth for a member may change although no fact does, microseconds since 1970.
    pub(super) fn truth_due(&self, place: usize, now_us: i64) -> Option<i64> {
        let values = self.values(place);
        eval::earlier(
            self.when.due(values, now_us),
            self.until.as_ref().and_then(|until| until.due(values, now_us)),
        )
    }

    fn count(&mut self, (when, until): Truths, add: bool) {
        let step = |count: &mut usize, of: bool| {
            let by = usize::from(of);
            *count = if add { *count + by } else { *count - by };
        };
        step(&mut self.tally.when, when.holds());
        step(&mut self.tally.until, until == Some(Truth::True));
        step(&mut self.tally.until_false, until == Some(Truth::False));
    }

    /// The truth for all members: `when` holds if it does for one of them, `until` if it does for
    /// one and is false for none.
    pub(super) fn together(&self) -> Truths {
        let truth = |holds: bool| if holds { Truth::True } else { Truth::False };
        let until = self.tally.until > 0 && self.tally.until_false == 0;
        (truth(self.tally.when > 0), self.until.as_ref().map(|_| truth(until)))
    }

    /// Whether judging a member again, at this time, would change nothing. A condition that reads no
    /// age is as it was evaluated when a fact last changed.
    pub(super) fn is_settled(&self, place: usize, now_us: i64) -> bool {
        let (when, until) = self.truths[place];
        let at_rest = !self.rule.each
            || match self.states[place] {
                RuleState::Idle => !when.holds() || until.is_some_and(Truth::holds),
                RuleState::Active { since_us } => {
                    let ended = until.map_or(!when.holds(), Truth::holds);
                    since_us <= now_us && !ended
                }
                RuleState::Waiting { .. } | RuleState::Cooling { .. } => false,
            };
        if !at_rest || !self.reads_clock {
            return at_rest;
        }
        let values = self.values(place);
        self.when.evaluate(values, now_us) == when
            && self.until.as_ref().map(|until| until.evaluate(values, now_us)) == until
    }

    /// Adds a member. Returns its place.
    pub(super) fn push(&mut self, slot: Slot, state: RuleState, source: Option<Source>) -> usize {
        self.members.push(slot);
        self.values.extend(std::iter::repeat_n(eval::Value::Unknown, self.facts.len()));
        self.truths.push((Truth::Unknown(eval::NO_SLOT), None));
        self.states.push(state);
        self.due.push(i64::MAX);
        let first = self.values.len() - self.facts.len();
        for one in &mut self.quantifiers {
            one.push();
            if let Some(shared) = &one.shared {
                self.values[first + one.slot] = shared.clone();
            }
        }
        if let Some(source) = source {
            self.sources.insert(slot, source);
        }
        self.members.len() - 1
    }

    /// Removes a member. Returns the member that takes its place, if one does.
    pub(super) fn swap_remove(&mut self, place: usize) -> Option<Slot> {
        self.count(self.truths[place], false);
        let last = self.members.len() - 1;
        let stride = self.facts.len();
        for fact in 0..stride {
            self.values.swap(place * stride + fact, last * stride + fact);
        }
        self.values.truncate(last * stride);
        self.quantifiers.iter_mut().for_each(|one| one.swap_remove(place));
        let slot = self.members.swap_remove(place);
        self.truths.swap_remove(place);
        self.states.swap_remove(place);
        self.due.swap_remove(place);
        self.sources.remove(&slot);
        self.members.get(place).copied()
    }
}
