//! Rules over what is known: who they are about, whether they hold, and where they stand.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::facts::{self, flag, read_property};
use super::{
    Controller, Flags, Note, Rule, RuleRecord, Source, Subject, Timer, Watched, rule_key,
    rule_object,
};
use crate::cacc::expr::eval::{self, Expression, Truth, earlier};
use crate::cacc::expr::{Fact, LinkField};
use crate::cacc::rule::{self, State};
use crate::twin::path::Path;
use crate::twin::{Event, ThingId};

/// Where rules stood for subjects, and what led there.
type Before = HashMap<(Arc<str>, usize), (State, Option<Source>)>;

impl Watched {
    fn new(rule: Arc<Rule>) -> Self {
        let mut facts = Vec::new();
        let when = Expression::compile(&rule.when, &mut facts);
        let until = rule.until.as_ref().map(|until| Expression::compile(until, &mut facts));
        let flags = facts.iter().enumerate().filter_map(|(slot, fact)| {
            let (of, all) = match fact {
                Fact::AnyOf(of) => (of, false),
                Fact::AllOf(of) => (of, true),
                _ => return None,
            };
            let shared = eval::Value::Unknown;
            let (each, of) = (Vec::new(), of.clone());
            Some(Flags { slot, of, all, each, known: 0, holding: 0, shared })
        });
        Self {
            flags: flags.collect(),
            reads_node: facts.iter().any(|fact| {
                matches!(fact, Fact::Node(_) | Fact::Link(LinkField::Loss | LinkField::Rate))
            }),
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
            group: State::Idle,
            group_due: i64::MAX,
            group_source: None,
        }
    }

    /// Whether judging a member again would change nothing.
    fn stands(&self, place: usize, now_us: i64) -> bool {
        let stride = self.facts.len();
        let values = &self.values[place * stride..(place + 1) * stride];
        let when = self.when.evaluate(values, now_us);
        let until = self.until.as_ref().map(|until| until.evaluate(values, now_us));
        let at_rest = !self.rule.each
            || match self.states[place] {
                State::Idle => !when.holds() || until.is_some_and(Truth::holds),
                State::Active { since_us } => {
                    let ended = until.map_or(!when.holds(), Truth::holds);
                    since_us <= now_us && !ended
                }
                State::Waiting { .. } | State::Cooling { .. } => false,
            };
        at_rest && self.truths[place] == (when, until)
    }

    /// Where the rule stands for a member.
    pub(super) fn state(&self, place: usize) -> State {
        if self.rule.each { self.states[place] } else { self.group }
    }

    /// What led to where it stands for a member.
    pub(super) fn source(&self, at: usize) -> Option<&Source> {
        if self.rule.each { self.sources.get(&at) } else { self.group_source.as_ref() }
    }

    /// The truth of both conditions for all members: `when` holds if it does for one of them,
    /// `until` if it does for one and for none does not.
    fn together(&self) -> (Truth, Option<Truth>) {
        let mut when = Truth::False;
        let (mut until, mut lasting) = (Truth::False, false);
        for (one, other) in &self.truths {
            match (when, one) {
                (Truth::True, _) | (_, Truth::False) => {}
                (_, Truth::True) => when = Truth::True,
                (Truth::False, unknown) => when = *unknown,
                (Truth::Unknown(_), Truth::Unknown(_)) => {}
            }
            match other {
                Some(Truth::True) => until = Truth::True,
                Some(Truth::False) => lasting = true,
                _ => {}
            }
        }
        let until = if lasting { Truth::False } else { until };
        (when, self.until.as_ref().map(|_| until))
    }
}

impl Flags {
    fn set(&mut self, place: usize, to: Option<bool>) {
        let count =
            |flag: Option<bool>| (usize::from(flag.is_some()), usize::from(flag == Some(true)));
        let (was, is) = (count(self.each[place]), count(to));
        self.known = self.known + is.0 - was.0;
        self.holding = self.holding + is.1 - was.1;
        self.each[place] = to;
    }

    fn value(&self) -> eval::Value {
        match (self.all, self.holding, self.known, self.each.len()) {
            (false, 1.., _, _) => eval::Value::Bool(true),
            (true, holding, known, _) if holding < known => eval::Value::Bool(false),
            (_, _, known, all) if known < all || all == 0 => eval::Value::Unknown,
            (all, ..) => eval::Value::Bool(all),
        }
    }
}

impl Subject {
    /// Its place in a rule's lists.
    pub(super) fn place(&self, rule: usize) -> Option<usize> {
        let found = self.memberships.binary_search_by_key(&rule, |(rule, _)| *rule).ok()?;
        Some(self.memberships[found].1)
    }
}

impl Controller {
    /// Judges every rule for each of its twins, and lets every node be decided anew: for what
    /// nothing told of, such as a clock that was set. What stands as it stood costs a glance.
    pub fn reconsider(&mut self, now_us: i64) {
        let now_us = self.now(now_us);
        for rule in 0..self.rules.len() {
            for place in 0..self.rules[rule].members.len() {
                let watched = &self.rules[rule];
                if !watched.stands(place, now_us) {
                    self.judge(rule, place, None, now_us);
                }
            }
            self.judge_group(rule, None, now_us);
        }
        self.review = true;
    }

    /// The rules that there are from now on. Where one stood before and stays, it goes on.
    pub fn set_rules(&mut self, rules: Vec<Rule>, now_us: i64) {
        let now_us = self.now(now_us);
        for watched in &self.rules {
            if !watched.rule.each {
                self.groups.insert(watched.rule.name.to_string(), watched.group);
            }
        }
        let mut before: Before = HashMap::new();
        for watched in &self.rules {
            for (place, at) in watched.members.iter().enumerate() {
                let (state, source) = (watched.states[place], watched.sources.get(at).cloned());
                if state != State::Idle {
                    before.insert((watched.rule.name.clone(), *at), (state, source));
                }
            }
        }
        self.timers.retain(|Reverse((_, timer))| matches!(timer, Timer::Node(_)));
        let mut rules = rules;
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        rules.dedup_by(|a, b| a.name == b.name);
        let gone: Vec<String> = self
            .groups
            .keys()
            .filter(|name| !rules.iter().any(|rule| *rule.name == ***name && !rule.each))
            .cloned()
            .collect();
        for name in gone {
            self.groups.remove(&name);
            self.effects.documents.push((rule_key(&name), None));
        }
        self.rules = rules.into_iter().map(|rule| Watched::new(Arc::new(rule))).collect();
        for watched in &mut self.rules {
            watched.group = self.groups.get(&*watched.rule.name).copied().unwrap_or_default();
        }
        // Nobody speaks for all while some are not heard.
        self.gathering = true;
        let named: Vec<ThingId> = self.aggregates().into_iter().collect();
        self.aggregates.retain(|id, _| named.contains(id));
        for at in 0..self.subjects.len() {
            let subject = &mut self.subjects[at];
            subject.memberships.clear();
            subject.active.clear();
            // What no rule asks for any more is not kept; what one still does, is.
            let rules = &self.rules;
            let facts = || rules.iter().flat_map(|watched| &watched.facts);
            subject.series.retain(|kept| facts().any(|fact| kept.is_of(fact)));
            subject.times.retain(|(of, _)| {
                facts().any(|fact| eval::grows(fact) && read_property(fact).as_ref() == Some(of))
            });
            if subject.twin.is_some() {
                self.regroup_from(at, &mut before, now_us);
            }
            if self.subjects[at].node.is_some() {
                self.dirty.insert(at);
            }
        }
        self.gathering = false;
        for rule in 0..self.rules.len() {
            self.judge_group(rule, None, now_us);
        }
    }

    /// A twin's labels or the members of an aggregate changed.
    pub(super) fn regroup(&mut self, at: usize, now_us: i64) {
        self.regroup_from(at, &mut HashMap::new(), now_us);
    }

    fn regroup_from(&mut self, at: usize, before: &mut Before, now_us: i64) {
        let Some(twin) = self.subjects[at].twin.clone() else { return };
        for rule in 0..self.rules.len() {
            let target = &self.rules[rule].rule.target;
            let member = target.aggregate.as_ref().and_then(|id| self.aggregates.get(id));
            let wanted =
                target.selects(&twin) || member.is_some_and(|members| members.contains(&twin.id));
            let is = self.subjects[at].place(rule).is_some();
            match (wanted, is) {
                (true, false) => {
                    let name = self.rules[rule].rule.name.clone();
                    let state = before.remove(&(name.clone(), at)).or_else(|| {
                        let stored = self.states.remove(&(name.to_string(), twin.id.to_string()));
                        stored.map(|state| (state, None))
                    });
                    self.join(rule, at, state.unwrap_or_default(), now_us);
                }
                (false, true) => self.leave(rule, at, now_us),
                _ => {}
            }
        }
    }

    fn join(&mut self, rule: usize, at: usize, state: (State, Option<Source>), now_us: i64) {
        let watched = &mut self.rules[rule];
        let place = watched.members.len();
        watched.members.push(at);
        watched.values.extend(std::iter::repeat_n(eval::Value::Unknown, watched.facts.len()));
        watched.truths.push((Truth::Unknown(eval::NO_SLOT), None));
        watched.states.push(state.0);
        watched.due.push(i64::MAX);
        for flags in &mut watched.flags {
            flags.each.push(None);
            // Told to all, the new one among them.
            flags.shared = eval::Value::Number(f64::NAN);
        }
        if let Some(source) = state.1 {
            watched.sources.insert(at, source);
        }
        let memberships = &mut self.subjects[at].memberships;
        let position = memberships.partition_point(|(other, _)| *other < rule);
        memberships.insert(position, (rule, place));
        if self.rules[rule].state(place).active_since().is_some() {
            self.subjects[at].active.push(rule);
        }
        for at in self.read_of(rule, at) {
            self.track(rule, at, now_us);
        }
        self.refresh(rule, place, None, now_us);
        self.share_flags(rule, None, now_us);
        self.judge(rule, place, None, now_us);
        self.dirty.insert(at);
    }

    pub(super) fn leave(&mut self, rule: usize, at: usize, now_us: i64) {
        let Some(place) = self.subjects[at].place(rule) else { return };
        self.subjects[at].memberships.retain(|(other, _)| *other != rule);
        self.subjects[at].active.retain(|other| *other != rule);
        let watched = &mut self.rules[rule];
        for flags in &mut watched.flags {
            flags.set(place, None);
            flags.each.swap_remove(place);
        }
        let last = watched.members.len() - 1;
        let stride = watched.facts.len();
        for slot in 0..stride {
            watched.values.swap(place * stride + slot, last * stride + slot);
        }
        watched.values.truncate(last * stride);
        watched.members.swap_remove(place);
        watched.truths.swap_remove(place);
        watched.states.swap_remove(place);
        watched.due.swap_remove(place);
        watched.sources.remove(&at);
        if let Some(moved) = watched.members.get(place).copied() {
            let moved = self.subjects[moved].memberships.iter_mut();
            moved.filter(|(other, _)| *other == rule).for_each(|(_, at)| *at = place);
        }
        self.dirty.insert(at);
        self.share_flags(rule, None, now_us);
        self.judge_group(rule, None, now_us);
    }

    /// Looks at the rules of a twin that may read what changed.
    ///
    /// * `event`: what changed of the twin; `None`: nothing of it.
    /// * `of_node`: whether the node said something, so that its health changed.
    pub(super) fn look(
        &mut self,
        at: usize,
        event: Option<&Event>,
        of_node: bool,
        source: &Source,
        now_us: i64,
    ) {
        for membership in 0..self.subjects[at].memberships.len() {
            let Some((rule, place)) = self.subjects[at].memberships.get(membership).copied() else {
                return;
            };
            let watched = &self.rules[rule];
            let touched = event.is_some_and(|event| {
                let subject = &self.subjects[at];
                watched.facts.iter().zip(&watched.reads).any(|(fact, reads)| match reads {
                    Some(of) => facts::written(event, subject, of),
                    None => {
                        matches!(fact, Fact::Label(_))
                            && matches!(
                                event.path,
                                Path::Thing | Path::Attributes | Path::Attribute(_)
                            )
                    }
                })
            });
            if (touched || of_node && watched.reads_node)
                && self.refresh(rule, place, Some(source), now_us)
            {
                self.judge(rule, place, Some(source), now_us);
            }
        }
    }

    /// Looks at all rules of a twin anew, as after its node went or came.
    pub(super) fn look_at_all(&mut self, at: usize, source: &Source, now_us: i64) {
        for (rule, place) in self.subjects[at].memberships.clone() {
            if self.refresh(rule, place, Some(source), now_us) {
                self.judge(rule, place, Some(source), now_us);
            }
        }
    }

    /// Rules over an aggregate read its own values, too.
    pub(super) fn look_at_aggregate(
        &mut self,
        id: &ThingId,
        event: &Event,
        source: &Source,
        now_us: i64,
    ) {
        let Some(at) = self.index.get(id).copied() else { return };
        for rule in self.rules_over(id) {
            let subject = &self.subjects[at];
            let mut reads = self.rules[rule].reads.iter().flatten();
            if !reads.any(|of| facts::written(event, subject, of)) {
                continue;
            }
            for place in 0..self.rules[rule].members.len() {
                if self.refresh(rule, place, Some(source), now_us) {
                    self.judge(rule, place, Some(source), now_us);
                }
            }
        }
    }

    /// An aggregate is seen for the first time: what its rules ask of it is kept from here on.
    pub(super) fn meet_aggregate(&mut self, at: usize, now_us: i64) {
        let id = self.subjects[at].id.clone();
        for rule in self.rules_over(&id) {
            self.track(rule, at, now_us);
            self.judge_members(rule, now_us);
        }
    }

    /// The rules that name an aggregate.
    pub(super) fn rules_over(&self, id: &ThingId) -> Vec<usize> {
        let over = |rule: &usize| self.rules[*rule].rule.target.aggregate.as_ref() == Some(id);
        (0..self.rules.len()).filter(over).collect()
    }

    /// Judges a rule for all its members anew.
    pub(super) fn judge_members(&mut self, rule: usize, now_us: i64) {
        for place in 0..self.rules[rule].members.len() {
            self.refresh(rule, place, None, now_us);
            self.judge(rule, place, None, now_us);
        }
    }

    /// Reads the facts of a member again; whether one of its own changed.
    pub(super) fn refresh(
        &mut self,
        rule: usize,
        place: usize,
        source: Option<&Source>,
        now_us: i64,
    ) -> bool {
        let watched = &self.rules[rule];
        let (at, stride) = (watched.members[place], watched.facts.len());
        let mut changed = false;
        for slot in 0..stride {
            let watched = &self.rules[rule];
            if matches!(watched.facts[slot], Fact::AnyOf(_) | Fact::AllOf(_)) {
                continue;
            }
            let value = self.fact(watched, &watched.facts[slot], at);
            let kept = &mut self.rules[rule].values[place * stride + slot];
            if *kept != value {
                *kept = value;
                changed = true;
            }
        }
        if !self.rules[rule].flags.is_empty() {
            let subject = &self.subjects[at];
            for flags in &mut self.rules[rule].flags {
                flags.set(place, flag(subject, &flags.of));
            }
            self.share_flags(rule, source, now_us);
        }
        changed
    }

    /// What `any` and `all` say is the same for all members; they are judged if it changed.
    fn share_flags(&mut self, rule: usize, source: Option<&Source>, now_us: i64) {
        let watched = &mut self.rules[rule];
        let stride = watched.facts.len();
        let mut changed = false;
        for flags in &mut watched.flags {
            let value = flags.value();
            if flags.shared == value {
                continue;
            }
            flags.shared = value.clone();
            for place in 0..watched.members.len() {
                let kept = &mut watched.values[place * stride + flags.slot];
                if *kept == value {
                    continue;
                }
                *kept = value.clone();
                changed = true;
            }
        }
        if changed {
            for place in 0..self.rules[rule].members.len() {
                self.judge(rule, place, source, now_us);
            }
        }
    }

    /// Judges a rule for one member.
    pub(super) fn judge(
        &mut self,
        rule: usize,
        place: usize,
        source: Option<&Source>,
        now_us: i64,
    ) {
        let watched = &mut self.rules[rule];
        let stride = watched.facts.len();
        let values = &watched.values[place * stride..(place + 1) * stride];
        let when = watched.when.evaluate(values, now_us);
        let until = watched.until.as_ref().map(|until| until.evaluate(values, now_us));
        let due = earlier(
            watched.when.due(values, now_us),
            watched.until.as_ref().and_then(|until| until.due(values, now_us)),
        );
        let (at, each) = (watched.members[place], watched.rule.each);
        let changed = std::mem::replace(&mut watched.truths[place], (when, until)) != (when, until);
        if self.awaits(rule, at) {
            return;
        }
        let mut due = earlier(due, self.window_due(rule, at));
        if each {
            let watched = &mut self.rules[rule];
            let before = watched.states[place];
            let state = rule::step(watched.rule.times, before, when, until, now_us);
            due = earlier(due, rule::due(watched.rule.times, state, now_us));
            watched.states[place] = state;
            if state != before {
                if matches!(before, State::Idle)
                    && let Some(source) = source
                {
                    watched.sources.insert(at, source.clone());
                }
                self.moved(rule, Some(at), before, state);
            }
        } else if changed {
            self.judge_group(rule, source, now_us);
        }
        if let Some(due) = due {
            let timer = Timer::Member(rule, at);
            Self::arm(&mut self.timers, &mut self.rules[rule].due[place], due, timer);
        }
    }

    /// Judges a rule for all its members together.
    pub(super) fn judge_group(&mut self, rule: usize, source: Option<&Source>, now_us: i64) {
        let watched = &self.rules[rule];
        // An aggregate that nobody is a member of yet may be one that is still to be read.
        let unknown = watched.members.is_empty() && watched.rule.target.aggregate.is_some();
        let awaits = || watched.members.iter().any(|at| self.awaits(rule, *at));
        if watched.rule.each || self.gathering || unknown || awaits() {
            return;
        }
        let watched = &mut self.rules[rule];
        let (when, until) = watched.together();
        let before = watched.group;
        let state = rule::step(watched.rule.times, before, when, until, now_us);
        watched.group = state;
        if let Some(due) = rule::due(watched.rule.times, state, now_us) {
            Self::arm(&mut self.timers, &mut watched.group_due, due, Timer::Group(rule));
        }
        if state != before {
            if matches!(before, State::Idle) {
                watched.group_source = source.cloned();
            }
            if before.is_kept() || state.is_kept() {
                let record = RuleRecord { rule: watched.rule.name.to_string(), group: state };
                // Plain data: it always has a JSON form.
                let text = serde_json::to_string(&record).unwrap_or_default();
                self.effects.documents.push((rule_key(&record.rule), Some(text)));
            }
            self.moved(rule, None, before, state);
        }
    }

    pub(super) fn member_due(&mut self, rule: usize, at: usize, now_us: i64) {
        let Some(subject) = self.subjects.get(at) else { return };
        let Some(place) = subject.place(rule) else { return };
        self.rules[rule].due[place] = i64::MAX;
        self.forget_old(rule, at, now_us);
        self.refresh(rule, place, None, now_us);
        self.judge(rule, place, None, now_us);
    }

    pub(super) fn group_due(&mut self, rule: usize, now_us: i64) {
        if let Some(watched) = self.rules.get_mut(rule) {
            watched.group_due = i64::MAX;
            self.judge_group(rule, None, now_us);
        }
    }

    /// A rule stands elsewhere, for one member or for all.
    fn moved(&mut self, rule: usize, at: Option<usize>, from: State, to: State) {
        let watched = &self.rules[rule];
        let members = match at {
            Some(at) => vec![at],
            None => watched.members.clone(),
        };
        let (acts, acted) = (to.active_since().is_some(), from.active_since().is_some());
        let name = &watched.rule.name;
        let whom = match at {
            Some(at) => self.subjects[at].id.to_string(),
            None if members.len() == 1 => "1 node".to_owned(),
            None => format!("{} nodes", members.len()),
        };
        if acts != acted {
            let (reason, message) = if acts {
                let trace = match at {
                    Some(at) => watched.source(at),
                    None => watched.group_source.as_ref(),
                };
                let trace = trace.map(|source| format!(" (trace {})", source.trace()));
                let trace = trace.unwrap_or_default();
                ("RuleActive", format!("`{name}` takes hold for {whom}{trace}"))
            } else {
                ("RuleEnded", format!("`{name}` no longer holds for {whom}"))
            };
            let object = match at {
                Some(at) => Self::object(&self.subjects[at].id),
                None => rule_object(name),
            };
            self.effects.notes.push(Note { warning: false, reason, object, message, show: true });
        }
        if acts != acted {
            for at in &members {
                let active = &mut self.subjects[*at].active;
                active.retain(|other| *other != rule);
                if acts {
                    active.push(rule);
                }
            }
        }
        if acts && !acted {
            let pull = watched.rule.effect.pull.clone();
            for at in &members {
                self.ask(*at, &pull);
            }
        }
        if !from.is_kept() && !to.is_kept() {
            return;
        }
        for at in members {
            if let Some(node) = self.subjects[at].node.as_mut() {
                node.unsaved |= self.rules[rule].rule.each;
                self.dirty.insert(at);
            }
        }
    }
}
