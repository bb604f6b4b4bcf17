//! All rules, which of them are about a twin and active for it, and their timers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::RuleEntry;
use crate::cacc::cause::Source;
use crate::cacc::decide::Layer;
use crate::cacc::expr::PropertyRef;
use crate::cacc::facts::Slot;
use crate::cacc::rule::RuleState;
use crate::twin::ThingId;

/// A rule that is in another state now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleChange {
    /// Which.
    pub rule: usize,
    /// For which member; `None`: for all of them together.
    pub member: Option<Slot>,
    /// The state before.
    pub from: RuleState,
    /// The state now.
    pub to: RuleState,
}

impl RuleChange {
    /// Whether the rule became active.
    pub fn became_active(&self) -> bool {
        self.from.active_since().is_none() && self.to.active_since().is_some()
    }

    /// Whether the rule ended.
    pub fn ended(&self) -> bool {
        self.from.active_since().is_some() && self.to.active_since().is_none()
    }

    /// Whether a state that outlives a restart changed.
    pub fn is_kept(&self) -> bool {
        self.from.is_kept() || self.to.is_kept()
    }
}

/// What is stored of a rule that judges all of its members together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Its name.
    pub rule: String,
    /// Its state.
    pub group: RuleState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RuleTimer {
    Member(usize, Slot),
    Group(usize),
}

/// The rules about one twin.
#[derive(Debug, Default)]
pub(super) struct SlotRules {
    /// Rules, in their order, and the twin's place in their lists.
    pub(super) memberships: Vec<(usize, usize)>,
    /// The active rules, the strongest first, and since when.
    pub(super) active: Vec<(usize, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rules {
    /// In the order of their names.
    pub(super) entries: Vec<RuleEntry>,
    /// Each rule's place among all, the strongest first.
    pub(super) ranks: Vec<usize>,
    pub(super) slots: Vec<SlotRules>,
    /// The members of the aggregates that rules name.
    pub(super) aggregates: BTreeMap<ThingId, BTreeSet<ThingId>>,
    /// The rules that name an aggregate.
    pub(super) over: BTreeMap<ThingId, Vec<usize>>,
    /// Every property that a rule reads, and for each rule the properties among them.
    pub(super) properties: Vec<PropertyRef>,
    pub(super) reads: Vec<Vec<usize>>,
    pub(super) timers: BinaryHeap<Reverse<(i64, RuleTimer)>>,
    /// States of rules that judge all members together, as they were stored.
    pub(super) stored_groups: BTreeMap<String, RuleState>,
    /// States for single twins, as they were stored, until the twin is a member again.
    pub(super) stored_members: HashMap<(String, String), RuleState>,
    /// Rules are being set: members join one by one, and nothing is judged for all of them.
    pub(super) gathering: bool,
    pub(super) changes: Vec<RuleChange>,
    pub(super) touched: BTreeSet<Slot>,
    pub(super) removed: Vec<String>,
}

impl Rules {
    /// Takes a stored state of a rule for one twin.
    pub fn restore_member(&mut self, rule: String, thing: String, state: RuleState) {
        self.stored_members.insert((rule, thing), state);
    }

    /// Takes a stored state of a rule that judges all of its members together.
    pub fn restore_group(&mut self, record: RuleRecord) {
        self.stored_groups.insert(record.rule, record.group);
    }

    /// The rules whose state changed since this was last called.
    pub fn take_changes(&mut self) -> Vec<RuleChange> {
        std::mem::take(&mut self.changes)
    }

    /// The twins that became or are no longer members of a rule since this was last called.
    pub fn take_touched(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.touched)
    }

    /// The rules whose [`RuleRecord`] is out of date for good, since this was last called.
    pub fn take_removed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.removed)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A rule.
    pub fn entry(&self, rule: usize) -> &RuleEntry {
        &self.entries[rule]
    }

    /// How many twins each rule is about.
    pub fn member_counts(&self) -> BTreeMap<String, usize> {
        self.entries.iter().map(|one| (one.rule.name.to_string(), one.members.len())).collect()
    }

    /// How many rules are active, over all twins.
    pub fn active_count(&self) -> usize {
        self.slots.iter().map(|slot| slot.active.len()).sum()
    }

    /// The aggregates that the rules name.
    pub fn aggregates(&self) -> BTreeSet<ThingId> {
        self.over.keys().cloned().collect()
    }

    /// The rules about a twin, in the order of their names, and its place in each.
    pub fn memberships(&self, slot: Slot) -> &[(usize, usize)] {
        self.slots.get(slot.index()).map_or(&[], |slot| &slot.memberships)
    }

    /// The active rules of a twin, the strongest first.
    pub fn layers(&self, slot: Slot) -> Vec<Layer<'_>> {
        let active = self.slots.get(slot.index()).map_or(&[][..], |slot| &slot.active);
        let layer = |(rule, since_us): &(usize, i64)| {
            let rule = &*self.entries[*rule].rule;
            Layer {
                name: &rule.name,
                priority: rule.priority,
                specificity: rule.target.specificity(),
                since_us: *since_us,
                effect: &rule.effect,
            }
        };
        active.iter().map(layer).collect()
    }

    /// The rule of this name, if it is about a twin, and the twin's place in it.
    pub fn find(&self, slot: Slot, name: &str) -> Option<(&RuleEntry, usize)> {
        let mut all = self.memberships(slot).iter();
        let found = all.find(|(rule, _)| *self.entries[*rule].rule.name == *name)?;
        Some((&self.entries[found.0], found.1))
    }

    /// What led to the state of the rule of this name for a twin.
    pub fn source(&self, slot: Slot, name: &str) -> Option<Source> {
        self.find(slot, name)?.0.source(slot).cloned()
    }

    /// The states for a twin that outlive a restart, of rules that judge it by itself.
    pub fn states_of(&self, slot: Slot) -> BTreeMap<String, RuleState> {
        let state = |(rule, place): &(usize, usize)| {
            let entry = &self.entries[*rule];
            let state = entry.states[*place];
            (entry.rule.each && state.is_kept()).then(|| (entry.rule.name.to_string(), state))
        };
        self.memberships(slot).iter().filter_map(state).collect()
    }

    /// When the next timer is due, microseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((due_us, _))| *due_us)
    }

    pub(super) fn place(&self, rule: usize, slot: Slot) -> Option<usize> {
        let memberships = self.memberships(slot);
        let found = memberships.binary_search_by_key(&rule, |(rule, _)| *rule).ok()?;
        Some(memberships[found].1)
    }

    /// Keeps the list of a twin's active rules.
    pub(super) fn set_active(&mut self, rule: usize, slot: Slot, since_us: Option<i64>) {
        let (rank, ranks) = (self.ranks[rule], &self.ranks);
        let active = &mut self.slots[slot.index()].active;
        let at = active.partition_point(|(other, _)| ranks[*other] < rank);
        let present = active.get(at).is_some_and(|(other, _)| *other == rule);
        match since_us {
            Some(since_us) if present => active[at].1 = since_us,
            Some(since_us) => active.insert(at, (rule, since_us)),
            None if present => drop(active.remove(at)),
            None => {}
        }
    }

    /// Arms the timer of a member, or of all of them, if it is due earlier than before.
    pub(super) fn arm(&mut self, timer: RuleTimer, due_us: i64) {
        let due = match timer {
            RuleTimer::Group(rule) => &mut self.entries[rule].group_due,
            RuleTimer::Member(rule, slot) => match self.place(rule, slot) {
                Some(place) => &mut self.entries[rule].due[place],
                None => return,
            },
        };
        if due_us < *due {
            *due = due_us;
            self.timers.push(Reverse((due_us, timer)));
        }
    }

    /// What is to be stored of a rule, if it judges all of its members together.
    pub fn record(&self, rule: usize) -> Option<RuleRecord> {
        let entry = &self.entries[rule];
        (!entry.rule.each)
            .then(|| RuleRecord { rule: entry.rule.name.to_string(), group: entry.group })
    }

    pub(super) fn rule_name(&self, rule: usize) -> Arc<str> {
        self.entries[rule].rule.name.clone()
    }
}
