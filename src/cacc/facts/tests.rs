//! Facts alone: no rule, no node.

use crate::cacc::facts::twins::TwinChange;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::cacc::expr::eval::Value;
use crate::cacc::expr::{Fact, LinkField, NodeField, PropertyRef, Window};
use crate::twin::path::Path;
use crate::twin::sequence::Stamp;
use crate::twin::{self, Change, Event, ThingId, Twin};

const S: i64 = 1_000_000;

fn id() -> ThingId {
    ThingId::parse("lab:n").unwrap()
}

fn x() -> PropertyRef {
    PropertyRef { feature: String::new(), name: "x".to_owned() }
}

/// Changes the twin; the event and the twin after it.
fn change(before: Option<&Twin>, change: Change, now_us: i64) -> (Event, Arc<Twin>) {
    let event = twin::decide(&id(), before, change).unwrap();
    let after = twin::apply(&id(), before, &event, now_us).unwrap();
    (event, Arc::new(after))
}

fn created(now_us: i64) -> Arc<Twin> {
    let thing = json!({"attributes": {"labels": {"room": "north"}},
        "features": {"environment": {"properties": {"x": 1}}}});
    change(None, Change::Modify(Path::Thing, thing), now_us).1
}

fn read(before: &Twin, value: i64, seq: u64, now_us: i64) -> (Event, Arc<Twin>) {
    let values = json!({"environment": {"x": value}}).as_object().unwrap().clone();
    let stamp = Some(Stamp { seq, boot: Some(1) });
    change(Some(before), Change::Reading { values, stamp }, now_us)
}

#[test]
fn a_new_state_returns_what_changed() {
    let mut facts = Facts::default();
    let slot = facts.add(&id());
    let first = created(0);
    assert_eq!(facts.set_twin(slot, &first), TwinChange { is_new: true, labels: true });
    let (_, second) = read(&first, 2, 1, S);
    assert_eq!(facts.set_twin(slot, &second), TwinChange { is_new: false, labels: false });
    let path = Path::Attribute(vec!["labels".to_owned(), "room".to_owned()]);
    let (_, third) = change(Some(&second), Change::Modify(path, json!("south")), S);
    assert_eq!(facts.set_twin(slot, &third), TwinChange { is_new: false, labels: true });
    let room = Fact::Label("room".to_owned());
    assert_eq!(facts.of(slot).value(&room), Value::Text("south".into()));
    assert_eq!(facts.of(slot).value(&Fact::Property(x())), Value::Number(2.0));
    facts.remove(slot);
    assert_eq!(facts.slot(&id()), None);
    let other = ThingId::parse("lab:other").unwrap();
    assert_eq!(facts.add(&other), slot, "its slot is used again");
    assert_eq!(facts.of(slot).value(&room), Value::Unknown);
}

#[test]
fn values_of_an_offline_node_are_unknown() {
    let mut facts = Facts::default();
    let slot = facts.add(&id());
    facts.set_twin(slot, &created(0));
    let status = |online| NodeStatus { online, battery: Some(7), ..NodeStatus::default() };
    let value = |facts: &Facts, fact: &Fact| facts.of(slot).value(fact);
    let (property, battery) = (Fact::Property(x()), Fact::Node(NodeField::Battery));
    assert!(facts.set_status(slot, status(Some(true))), "it came");
    assert!(!facts.set_status(slot, status(Some(true))));
    assert_eq!(value(&facts, &property), Value::Number(1.0));
    assert_eq!(value(&facts, &battery), Value::Number(7.0));
    assert!(facts.set_status(slot, status(Some(false))), "it went");
    assert_eq!(value(&facts, &property), Value::Unknown);
    assert_eq!(value(&facts, &battery), Value::Unknown);
    assert_eq!(value(&facts, &Fact::Node(NodeField::Online)), Value::Bool(false));
    let why = facts.of(slot).why_unknown(&property);
    assert_eq!(why, "the node is offline, so its last value may be out of date");
}

#[test]
fn windows_are_kept_while_they_are_asked_for_and_read_from_history_before() {
    let mut facts = Facts::default();
    let slot = facts.add(&id());
    let (event, twin) = read(&created(0), 5, 1, S);
    facts.set_twin(slot, &twin);
    let mean = [Fact::Window(Window::Avg, x(), 10_000)];
    facts.track(slot, &mean, 2 * S);
    // Its past is unknown until it was read.
    assert!(facts.awaits_any() && facts.awaits(slot, &mean));
    assert_eq!(facts.of(slot).value(&mean[0]), Value::Unknown);
    let mut history = facts.take_history();
    assert_eq!(history.len(), 1);
    assert_eq!(facts.take_history().len(), 0, "asked for once");
    // Meanwhile something happens.
    let (later, twin) = read(&twin, 9, 2, 3 * S);
    facts.set_twin(slot, &twin);
    facts.record(slot, &later, 3 * S);
    history.take("lab:n", 2, S, || Some(event.clone()));
    assert_eq!(facts.fill(history, 3 * S), [slot]);
    assert!(!facts.awaits_any());
    assert_eq!(facts.of(slot).value(&mean[0]), Value::Number(7.0));
    let due_us = facts.window_due(slot, &mean).unwrap();
    facts.forget_old(slot, due_us);
    assert_eq!(facts.of(slot).value(&mean[0]), Value::Number(9.0));
    facts.keep_only(&BTreeSet::new());
    assert_eq!(facts.window_due(slot, &mean), None);
}

#[test]
fn a_window_that_is_dropped_is_not_waited_for() {
    let mut facts = Facts::default();
    let slot = facts.add(&id());
    let (_, twin) = read(&created(0), 5, 1, S);
    facts.set_twin(slot, &twin);
    facts.track(slot, &[Fact::Window(Window::Max, x(), 10_000)], 2 * S);
    assert!(facts.awaits_any());
    facts.remove(slot);
    assert!(!facts.awaits_any());
}

#[test]
fn missing_readings_are_counted() {
    let mut facts = Facts::default();
    let slot = facts.add(&id());
    let lost = Fact::Node(NodeField::Lost);
    assert_eq!(facts.of(slot).value(&lost), Value::Unknown);
    facts.track(slot, &[Fact::Link(LinkField::Loss)], 0);
    let mut twin = created(0);
    for (at, seq) in [1, 2, 5].into_iter().enumerate() {
        let (event, after) = read(&twin, 1, seq, at as i64 * S);
        facts.count_reading(slot, &event, at as i64 * S);
        twin = after;
    }
    assert_eq!(facts.of(slot).value(&lost), Value::Number(2.0));
    // Two are missing, three came.
    let Value::Number(loss) = facts.of(slot).value(&Fact::Link(LinkField::Loss)) else { panic!() };
    assert!((loss - 0.4).abs() < 1e-9, "{loss}");
    // One of them comes late.
    let (event, _) = read(&twin, 1, 3, 3 * S);
    facts.count_reading(slot, &event, 3 * S);
    assert_eq!(facts.of(slot).value(&lost), Value::Number(1.0));
}
