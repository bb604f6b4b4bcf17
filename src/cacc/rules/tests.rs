//! Rules over facts: no node, no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cacc::cause::Source;
use crate::cacc::expr::{Scope, check};
use crate::cacc::facts::{Facts, Slot};
use crate::cacc::rule::{Effect, Rule, RuleState, Target, Times};
use crate::twin::path::Path;
use crate::twin::{self, Change, ThingId, Twin};

const S: i64 = 1_000_000;

fn id(name: &str) -> ThingId {
    ThingId::parse(&format!("lab:{name}")).unwrap()
}

fn rule(name: &str, each: bool, when: &str) -> Rule {
    Rule {
        name: name.into(),
        target: Target {
            match_labels: BTreeMap::from([("room".to_owned(), "north".to_owned())]),
            ..Target::default()
        },
        each,
        when: check(when, &Scope { open: true, ..Scope::default() }).unwrap(),
        until: None,
        times: Times::default(),
        effect: Effect::default(),
        priority: 0,
    }
}

/// Twins in the room `north`, with a number and a flag.
#[derive(Default)]
struct Room {
    facts: Facts,
    rules: Rules,
    twins: BTreeMap<String, Arc<Twin>>,
    now_us: i64,
}

impl Room {
    fn of(names: &[&str]) -> Self {
        let mut room = Self { now_us: 100 * S, ..Self::default() };
        for name in names {
            room.set(name, 0, false);
        }
        room
    }

    fn set(&mut self, name: &str, x: i64, on: bool) -> Slot {
        let thing = json!({"attributes": {"labels": {"room": "north"}},
            "features": {"environment": {"properties": {"x": x, "on": on}}}});
        self.change(name, Change::Modify(Path::Thing, thing))
    }

    fn change(&mut self, name: &str, change: Change) -> Slot {
        let before = self.twins.get(name).cloned();
        let event = twin::decide(&id(name), before.as_deref(), change).unwrap();
        let after = twin::apply(&id(name), before.as_deref(), &event, self.now_us).map(Arc::new);
        let after = after.unwrap();
        let slot = self.facts.add(&id(name));
        let change = self.facts.set_twin(slot, &after);
        if change.labels {
            self.rules.regroup(slot, &mut self.facts, self.now_us);
        }
        self.facts.record(slot, &event, self.now_us);
        let source = Source { thing: id(name), revision: after.revision, time_us: self.now_us };
        self.rules.look(slot, Some(&event), false, &source, &self.facts, self.now_us);
        self.twins.insert(name.to_owned(), after);
        slot
    }

    fn set_rules(&mut self, rules: &[Rule]) {
        self.rules.set(rules.to_vec(), &mut self.facts, self.now_us);
    }

    /// Which rules changed to which state, for whom.
    fn changes(&mut self) -> Vec<(String, Option<Slot>, bool)> {
        let changes = self.rules.take_changes();
        let name = |rule: usize| self.rules.entry(rule).rule.name.to_string();
        changes
            .into_iter()
            .map(|one| (name(one.rule), one.member, one.to.active_since().is_some()))
            .collect()
    }

    fn active(&self, name: &str) -> Vec<String> {
        let slot = self.facts.slot(&id(name)).unwrap();
        self.rules.layers(slot).iter().map(|layer| layer.name.to_string()).collect()
    }
}

#[test]
fn a_change_moves_the_rules_that_read_it_and_no_others() {
    let mut room = Room::of(&["a", "b"]);
    room.set_rules(&[rule("each", true, "x > 5"), rule("other", true, "y > 5")]);
    assert_eq!(room.changes(), []);
    assert_eq!(room.rules.take_touched().len(), 2);
    let a = room.set("a", 9, false);
    assert_eq!(room.changes(), [("each".to_owned(), Some(a), true)]);
    assert_eq!((room.active("a"), room.active("b")), (vec!["each".to_owned()], vec![]));
    let source = room.rules.source(a, "each").unwrap();
    assert_eq!((source.thing, source.revision), (id("a"), 2));
    room.set("a", 0, false);
    assert_eq!(room.changes(), [("each".to_owned(), Some(a), false)]);
    assert_eq!(room.active("a"), [""; 0]);
}

#[test]
fn a_rule_over_all_moves_once_for_all_members() {
    let mut room = Room::of(&["a", "b", "c"]);
    room.set_rules(&[rule("all", false, "x > 5")]);
    room.set("b", 9, false);
    assert_eq!(room.changes(), [("all".to_owned(), None, true)]);
    assert!(["a", "b", "c"].iter().all(|name| room.active(name) == ["all"]));
    // It goes on while the condition holds for one of them.
    room.set("c", 9, false);
    room.set("b", 0, false);
    assert_eq!(room.changes(), []);
    let record = room.rules.record(0).unwrap();
    assert!(record.group.active_since().is_some());
    room.set("c", 0, false);
    assert_eq!(room.changes(), [("all".to_owned(), None, false)]);
}

#[test]
fn a_member_that_leaves_takes_its_part_of_the_truth_with_it() {
    let mut room = Room::of(&["a", "b"]);
    room.set_rules(&[rule("all", false, "x > 5"), rule("any", false, "any(on)")]);
    room.set("a", 9, true);
    assert_eq!(room.changes().len(), 2);
    let path = Path::Attribute(vec!["labels".to_owned(), "room".to_owned()]);
    room.change("a", Change::Modify(path, json!("south")));
    let ended = room.changes();
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(ended.iter().all(|(_, member, active)| member.is_none() && !active));
    assert_eq!(
        room.rules.member_counts(),
        BTreeMap::from([("all".to_owned(), 1), ("any".to_owned(), 1)])
    );
}

#[test]
fn a_rule_that_stays_goes_on_while_others_come_and_go() {
    let mut room = Room::of(&["a"]);
    let held =
        Rule { times: Times { hold_us: 60 * S, ..Times::default() }, ..rule("m", true, "x > 5") };
    room.set_rules(std::slice::from_ref(&held));
    let a = room.set("a", 9, false);
    let since = room.rules.layers(a)[0].since_us;
    room.set("a", 0, false);
    room.now_us += S;
    // Its place among the rules is another one now, in front and behind.
    room.set_rules(&[rule("a", true, "x > 5"), held.clone(), rule("z", true, "x < 5")]);
    assert_eq!(room.active("a"), ["m", "z"]);
    assert_eq!(room.rules.layers(a)[0].since_us, since);
    // One that is replaced goes on, too.
    let changed = Rule { priority: 7, ..held };
    room.set_rules(&[changed]);
    assert_eq!((room.rules.layers(a)[0].priority, room.rules.layers(a)[0].since_us), (7, since));
    room.rules.take_changes();
    // And ends in its time.
    room.now_us += 60 * S;
    let now_us = room.now_us;
    room.rules.tick(&mut room.facts, now_us);
    assert_eq!(room.changes(), [("m".to_owned(), Some(a), false)]);
    room.set_rules(&[]);
    assert!(room.rules.memberships(a).is_empty() && room.rules.due().is_none());
}

#[test]
fn members_of_an_aggregate_are_members_of_its_rules() {
    let mut room = Room::of(&["a", "b", "whole"]);
    let mut over = rule("over", false, "x > 5");
    over.target = Target { aggregate: Some(id("whole")), ..Target::default() };
    room.rules.set_aggregate(&id("whole"), BTreeSet::from([id("a"), id("b")]), &mut room.facts, S);
    room.set_rules(&[over]);
    assert_eq!(room.rules.aggregates(), BTreeSet::from([id("whole")]));
    assert_eq!(room.rules.member_counts()["over"], 2);
    room.rules.set_aggregate(&id("whole"), BTreeSet::from([id("b")]), &mut room.facts, S);
    assert_eq!(room.rules.member_counts()["over"], 1);
}

#[test]
fn stored_states_go_on() {
    let mut room = Room::of(&["a"]);
    let active = RuleState::Active { since_us: 90 * S };
    let times = Times { hold_us: 60 * S, ..Times::default() };
    room.rules.restore_member("each".to_owned(), "lab:a".to_owned(), active);
    room.rules.restore_group(RuleRecord { rule: "all".to_owned(), group: active });
    room.rules.restore_group(RuleRecord { rule: "gone".to_owned(), group: active });
    let each = Rule { times, ..rule("each", true, "x > 5") };
    let all = Rule { times, ..rule("all", false, "x > 5") };
    room.set_rules(&[each, all]);
    assert_eq!(room.active("a"), ["all", "each"]);
    assert_eq!(room.changes(), []);
    assert_eq!(room.rules.take_removed(), ["gone"]);
    let slot = room.facts.slot(&id("a")).unwrap();
    assert_eq!(room.rules.states_of(slot), BTreeMap::from([("each".to_owned(), active)]));
}

proptest! {
    /// Whatever changes in whatever order, the counts are what counting anew gives: rules that saw all
    /// of it and rules that are set in the end hold for the same twins.
    #[test]
    fn rules_that_saw_all_of_it_agree_with_rules_that_are_new(
        steps in prop::collection::vec((0_usize..4, 0_i64..10, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let names = ["a", "b", "c", "d"];
        let rules = [
            rule("all", false, "x > 5"),
            rule("any", false, "any(on)"),
            rule("each", true, "x > 5 && all(on)"),
        ];
        let mut room = Room::of(&names);
        room.set_rules(&rules);
        for (at, x, on, leaves) in steps {
            room.set(names[at], x, on);
            if leaves {
                let path = Path::Attribute(vec!["labels".to_owned(), "room".to_owned()]);
                room.change(names[at], Change::Modify(path, json!("south")));
            }
        }
        let lasting: Vec<Vec<String>> = names.iter().map(|name| room.active(name)).collect();
        room.set_rules(&[]);
        room.set_rules(&rules);
        let new: Vec<Vec<String>> = names.iter().map(|name| room.active(name)).collect();
        prop_assert_eq!(lasting, new);
    }
}
