//! Who a rule is about: rules are set, twins and labels come and go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::entry::RuleEntry;
use super::table::{RuleTimer, Rules, SlotRules};
use crate::cacc::cause::Source;
use crate::cacc::facts::{Facts, Slot};
use crate::cacc::rule::{Rule, RuleState};
use crate::twin::ThingId;

/// The states of a rule that was replaced, and what led to them.
type Carried = HashMap<Slot, (RuleState, Option<Source>)>;

impl Rules {
    /// The rules that there are from now on. One that stays as it is goes on undisturbed; one that
    /// was replaced by another of its name goes on in its state.
    pub fn set(&mut self, mut rules: Vec<Rule>, facts: &mut Facts, now_us: i64) {
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        rules.dedup_by(|a, b| a.name == b.name);
        let before = std::mem::take(&mut self.entries);
        for entry in before.iter().filter(|entry| !entry.rule.each) {
            self.stored_groups.insert(entry.rule.name.to_string(), entry.group);
        }
        let mut before: BTreeMap<Arc<str>, (usize, RuleEntry)> = before
            .into_iter()
            .enumerate()
            .map(|(at, entry)| (entry.rule.name.clone(), (at, entry)))
            .collect();
        let mut moves: BTreeMap<usize, usize> = BTreeMap::new();
        let mut new: Vec<(usize, Carried)> = Vec::new();
        let mut entries = Vec::with_capacity(rules.len());
        for (at, rule) in rules.into_iter().enumerate() {
            match before.remove(&rule.name) {
                Some((was, entry)) if *entry.rule == rule => {
                    moves.insert(was, at);
                    entries.push(entry);
                }
                replaced => {
                    new.push((at, replaced.map(|(_, entry)| carry(&entry)).unwrap_or_default()));
                    let mut entry = RuleEntry::new(Arc::new(rule));
                    entry.group =
                        self.stored_groups.get(&*entry.rule.name).copied().unwrap_or_default();
                    entries.push(entry);
                }
            }
        }
        self.entries = entries;
        self.forget_groups();
        self.index_rules();
        self.move_slots(&moves);
        let named = self.aggregates();
        self.aggregates.retain(|id, _| named.contains(id));
        let asked: BTreeSet<_> = self.entries.iter().flat_map(|entry| &entry.facts).collect();
        facts.keep_only(&asked);
        self.gathering = true;
        for slot in facts.slots() {
            if facts.of(slot).twin.is_none() {
                continue;
            }
            for (rule, carried) in &mut new {
                if self.selects(*rule, slot, facts) {
                    self.join(*rule, slot, carried.remove(&slot), facts, now_us);
                }
            }
        }
        self.gathering = false;
        for (rule, _) in new {
            self.judge_gathered(rule, facts, now_us);
        }
    }

    /// What is known of a rule that is gone, or judges its members one by one now, is forgotten.
    fn forget_groups(&mut self) {
        let groups = self.entries.iter().filter(|entry| !entry.rule.each);
        let groups: BTreeSet<&str> = groups.map(|entry| &*entry.rule.name).collect();
        let removed = &mut self.removed;
        self.stored_groups.retain(|name, _| {
            let stays = groups.contains(name.as_str());
            if !stays {
                removed.push(name.clone());
            }
            stays
        });
    }

    fn index_rules(&mut self) {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|at| {
            let rule = &self.entries[*at].rule;
            (Reverse(rule.priority), Reverse(rule.target.specificity()), *at)
        });
        self.ranks = vec![0; order.len()];
        order.into_iter().enumerate().for_each(|(rank, at)| self.ranks[at] = rank);
        self.over.clear();
        let all: BTreeSet<_> =
            self.entries.iter().flat_map(|entry| entry.reads.iter().flatten()).collect();
        self.properties = all.into_iter().cloned().collect();
        self.reads.clear();
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(aggregate) = &entry.rule.target.aggregate {
                self.over.entry(aggregate.clone()).or_default().push(at);
            }
            let reads = entry.reads.iter().flatten();
            let mut reads: Vec<usize> =
                reads.filter_map(|of| self.properties.binary_search(of).ok()).collect();
            reads.sort_unstable();
            reads.dedup();
            self.reads.push(reads);
        }
    }

    /// Rules are in other places of the table now; those that are in none have no members.
    fn move_slots(&mut self, moves: &BTreeMap<usize, usize>) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let many = slot.memberships.len();
            slot.memberships.retain_mut(|(rule, _)| match moves.get(rule) {
                Some(to) => {
                    *rule = *to;
                    true
                }
                None => false,
            });
            slot.active.retain_mut(|(rule, _)| match moves.get(rule) {
                Some(to) => {
                    *rule = *to;
                    true
                }
                None => false,
            });
            slot.active.sort_by_key(|(rule, _)| self.ranks[*rule]);
            if slot.memberships.len() != many {
                self.touched.insert(Slot::at(at));
            }
        }
        let moved = self.timers.drain().filter_map(|Reverse((due_us, timer))| {
            let timer = match timer {
                RuleTimer::Member(rule, slot) => RuleTimer::Member(*moves.get(&rule)?, slot),
                RuleTimer::Group(rule) => RuleTimer::Group(*moves.get(&rule)?),
            };
            Some(Reverse((due_us, timer)))
        });
        self.timers = moved.collect();
    }

    fn selects(&self, rule: usize, slot: Slot, facts: &Facts) -> bool {
        let Some(twin) = &facts.of(slot).twin else { return false };
        let target = &self.entries[rule].rule.target;
        let members = target.aggregate.as_ref().and_then(|id| self.aggregates.get(id));
        members.is_some_and(|members| members.contains(&twin.id)) || target.selects(twin)
    }

    /// Members of an aggregate that a rule names.
    pub fn set_aggregate(
        &mut self,
        id: &ThingId,
        members: BTreeSet<ThingId>,
        facts: &mut Facts,
        now_us: i64,
    ) {
        if self.aggregates.get(id) == Some(&members) {
            return;
        }
        let before = self.aggregates.insert(id.clone(), members.clone()).unwrap_or_default();
        self.gathering = true;
        for id in before.symmetric_difference(&members) {
            if let Some(slot) = facts.slot(id) {
                self.regroup(slot, facts, now_us);
            }
        }
        self.gathering = false;
        for rule in self.over(id) {
            self.judge_gathered(rule, facts, now_us);
        }
    }

    /// The rules that name an aggregate.
    pub(super) fn over(&self, id: &ThingId) -> Vec<usize> {
        self.over.get(id).cloned().unwrap_or_default()
    }

    /// A twin's labels or the members of an aggregate changed.
    pub fn regroup(&mut self, slot: Slot, facts: &mut Facts, now_us: i64) {
        for rule in 0..self.entries.len() {
            let (wanted, place) = (self.selects(rule, slot, facts), self.place(rule, slot));
            match (wanted, place) {
                (true, None) => self.join(rule, slot, None, facts, now_us),
                (false, Some(_)) => self.leave(rule, slot, facts, now_us),
                _ => {}
            }
        }
    }

    /// A twin is gone.
    pub fn forget(&mut self, slot: Slot, facts: &Facts, now_us: i64) {
        while let Some((rule, _)) = self.memberships(slot).first().copied() {
            self.leave(rule, slot, facts, now_us);
        }
    }

    fn join(
        &mut self,
        rule: usize,
        slot: Slot,
        state: Option<(RuleState, Option<Source>)>,
        facts: &mut Facts,
        now_us: i64,
    ) {
        let state = state.or_else(|| {
            if self.stored_members.is_empty() {
                return None;
            }
            let key = (self.rule_name(rule).to_string(), facts.of(slot).id.to_string());
            self.stored_members.remove(&key).map(|state| (state, None))
        });
        let (state, source) = state.unwrap_or_default();
        let place = self.entries[rule].push(slot, state, source);
        if self.slots.len() <= slot.index() {
            self.slots.resize_with(slot.index() + 1, SlotRules::default);
        }
        let memberships = &mut self.slots[slot.index()].memberships;
        let position = memberships.partition_point(|(other, _)| *other < rule);
        memberships.insert(position, (rule, place));
        if let Some(since_us) = self.entries[rule].state(place).active_since() {
            self.set_active(rule, slot, Some(since_us));
        }
        for of in self.read_of(rule, slot, facts) {
            facts.track(of, &self.entries[rule].facts, now_us);
        }
        self.refresh(rule, place, None, facts, now_us);
        let shares = !self.entries[rule].quantifiers.is_empty();
        if !(self.gathering && shares) {
            self.share(rule, None, facts, now_us);
            self.judge(rule, place, None, facts, now_us);
        }
        self.touched.insert(slot);
    }

    fn leave(&mut self, rule: usize, slot: Slot, facts: &Facts, now_us: i64) {
        let Some(place) = self.place(rule, slot) else { return };
        self.set_active(rule, slot, None);
        self.slots[slot.index()].memberships.retain(|(other, _)| *other != rule);
        if let Some(moved) = self.entries[rule].swap_remove(place) {
            let moved = self.slots[moved.index()].memberships.iter_mut();
            moved.filter(|(other, _)| *other == rule).for_each(|(_, at)| *at = place);
        }
        self.touched.insert(slot);
        self.share(rule, None, facts, now_us);
        self.judge_group(rule, None, facts, now_us);
    }
}

/// The states of a rule that are worth keeping.
fn carry(entry: &RuleEntry) -> Carried {
    let each = entry.members.iter().zip(&entry.states);
    each.filter(|(_, state)| **state != RuleState::Idle)
        .map(|(slot, state)| (*slot, (*state, entry.sources.get(slot).cloned())))
        .collect()
}
