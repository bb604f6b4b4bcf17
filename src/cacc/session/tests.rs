//! One session: no other node, no rule, no facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::actuators::{ActuatorState, Actuators};
use super::presence::Presence;
use super::transmission::Delivery;
use super::*;
use crate::cacc::command::CommandState;
use crate::cacc::decide::{self, Actuator, Layer, NodeSpec};
use crate::cacc::effects::{Effects, Pending};
use crate::cacc::facts::HistoryRequest;
use crate::cacc::rule::{Asked, Effect, Settings};
use crate::twin::path::Path;
use crate::twin::{self, Change, ThingId, Twin};
use crate::wire::{Program, Uplink};

const S: i64 = 1_000_000;

fn every(ms: u32) -> Settings {
    Settings {
        program: Some(Program::Interval),
        pmin: Some(ms),
        pmax: Some(ms),
        ..Settings::default()
    }
}

/// A session with a twin, and a rule that may be active for it.
struct Bench {
    session: Session,
    twin: Twin,
    now_us: i64,
    events: Vec<SessionEvent>,
}

fn key() -> (String, String) {
    ("cooling".to_owned(), "fan".to_owned())
}

impl Bench {
    fn new() -> Self {
        let id = ThingId::parse("lab:n").unwrap();
        let actuator = Actuator { desired: None, safe: Some(false.into()) };
        let spec = NodeSpec {
            has_profile: true,
            default: Asked { all: every(1000), ..Asked::default() },
            actuators: BTreeMap::from([(key(), actuator)]),
            ..NodeSpec::default()
        };
        let event = twin::decide(&id, None, Change::Modify(Path::Thing, json!({}))).unwrap();
        let twin = twin::apply(&id, None, &event, 0).unwrap();
        let session = Session::new(id, Arc::new(spec));
        Self { session, twin, now_us: 1_700_000_000 * S, events: Vec::new() }
    }

    /// Decides and delivers; the bodies of what is sent, without ids and times to live.
    fn settle(&mut self, effect: Option<&Effect>) -> Vec<String> {
        let name: Arc<str> = "r".into();
        let since_us = self.now_us;
        let layers: Vec<Layer<'_>> = effect
            .into_iter()
            .map(|effect| Layer { name: &name, priority: 0, specificity: 0, since_us, effect })
            .collect();
        let decided = decide::decide(&mut [self.session.input(layers.clone())], self.now_us);
        let effects = self.work(|session, turn| {
            session.decide(decided.into_iter().next().flatten(), &layers, |_| None, turn);
            session.deliver(|_| None, |_| 0, turn);
        });
        let body = |text: &String| text.split_once(' ').unwrap().1.to_owned();
        let body = |text: &String| body(text).split(" ttl=").next().unwrap().to_owned();
        let messages = effects.messages.iter().filter(|one| !one.desired).map(|one| &one.text);
        messages.map(body).filter(|body| body != "hb").collect()
    }

    fn work(&mut self, work: impl FnOnce(&mut Session, &mut Turn<'_>)) -> Effects {
        let mut pending = Pending::default();
        let mut turn = Turn { now_us: self.now_us, twin: Some(&self.twin), pending: &mut pending };
        work(&mut self.session, &mut turn);
        self.events.extend(self.session.take_events());
        pending.into_effects(HistoryRequest::default())
    }

    fn receive(&mut self, line: &Value) -> Effects {
        let uplink = Uplink::decode(&line.to_string()).unwrap();
        self.work(|session, turn| session.receive(&uplink, turn))
    }

    fn state(&mut self, boot: u32, ms: u32) -> Effects {
        let tx = json!({"program": "interval", "pmin": ms, "pmax": ms});
        self.receive(&json!({"k": "b", "up": 1, "boot": boot, "lease": 60, "tx": tx}))
    }

    /// Answers the newest command.
    fn answer(&mut self, mut more: Value) -> Effects {
        let id = self.session.commands.all().back().unwrap().id;
        for (name, value) in [("k", json!("a")), ("boot", json!(1)), ("ms", json!(9))] {
            more[name] = value;
        }
        more["id"] = id.into();
        if more.get("st").is_none() {
            more["st"] = "ok".into();
        }
        self.receive(&more)
    }

    fn delivery(&self) -> &Delivery {
        &self.session.transmission.delivery
    }

    fn fan(&self) -> &ActuatorState {
        &self.session.actuators.get(&key()).unwrap().state
    }

    fn last(&self) -> CommandState {
        self.session.commands.all().back().unwrap().state
    }
}

fn faster() -> Effect {
    Effect { asked: Asked { all: every(200), ..Asked::default() }, ..Effect::default() }
}

fn cooling() -> Effect {
    Effect { set: BTreeMap::from([(key(), Value::Bool(true))]), ..Effect::default() }
}

#[test]
fn a_transmission_is_commanded_applied_confirmed_and_kept() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    assert_eq!(bench.settle(None), [""; 0]);
    assert_eq!((bench.session.presence, bench.delivery()), (Presence::Online, &Delivery::Idle));
    assert_eq!(bench.settle(Some(&faster())), ["prog interval period=200 trial=10"]);
    assert!(matches!(bench.delivery(), Delivery::Commanded { .. }));
    let tx = json!({"program": "interval", "pmin": 200, "pmax": 200, "kept": 0});
    bench.now_us += S;
    bench.answer(json!({ "tx": tx }));
    assert_eq!(bench.delivery(), &Delivery::Applied { at_us: bench.now_us });
    assert_eq!(bench.last(), CommandState::Applied);
    assert_eq!(bench.settle(Some(&faster())), [""; 0], "nothing shows yet that it works");
    let values = json!({"environment": {"x": 1}}).as_object().unwrap().clone();
    let reading = Change::Reading { values, stamp: None };
    let event = twin::decide(&bench.session.id, Some(&bench.twin), reading).unwrap();
    bench.work(|session, turn| assert!(session.reading(&event, turn)));
    assert_eq!(bench.delivery(), &Delivery::Confirmed);
    assert_eq!(bench.settle(Some(&faster())), ["keep"]);
    bench.answer(json!({}));
    assert_eq!(bench.session.transmission.reported.as_ref().unwrap().kept, Some(true));
    assert_eq!(bench.settle(Some(&faster())), [""; 0]);
    let names: Vec<bool> =
        bench.events.iter().map(|one| matches!(one, SessionEvent::CommandSent(_))).collect();
    assert_eq!(names, [true, false, true], "sent, applied, keep");
}

#[test]
fn a_refusal_is_final_until_something_else_is_decided_or_the_node_returns() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&faster()));
    bench.answer(json!({"st": "range", "why": "pmin"}));
    let given_up = |bench: &Bench| bench.session.transmission.given_up().map(str::to_owned);
    let why = "the node reports that a value is out of its range: pmin";
    assert_eq!(given_up(&bench).as_deref(), Some(why));
    assert_eq!(bench.settle(Some(&faster())), [""; 0]);
    // It outlives a restart.
    let record = bench.session.take_record(BTreeMap::new).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    let mut other = Bench::new();
    other.session.restore(serde_json::from_str(&text).unwrap());
    assert_eq!(given_up(&other).as_deref(), Some(why));
    // The node starts again: it is tried again.
    bench.state(2, 1000);
    assert_eq!(given_up(&bench), None);
    assert_eq!(bench.settle(Some(&faster())), ["prog interval period=200 trial=10"]);
}

#[test]
fn a_command_that_nobody_answers_is_given_up() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&faster()));
    assert_eq!(bench.session.next_due(bench.now_us).map(|due| due > bench.now_us), Some(true));
    bench.now_us += 30 * S;
    bench.settle(Some(&faster()));
    assert_eq!(bench.last(), CommandState::Expired);
    assert_eq!(bench.session.transmission.given_up(), Some("no answer to one try"));
}

#[test]
fn a_node_that_returns_may_apply_what_is_retained_by_itself() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.receive(&json!({"k": "b", "up": 0, "boot": 1}));
    assert_eq!(bench.session.presence, Presence::Offline { since_us: bench.now_us });
    bench.settle(Some(&faster()));
    assert_eq!(bench.session.transmission.retained, 2);
    bench.state(2, 1000);
    let until_us = bench.now_us + transmission::GRACE_US;
    assert_eq!(bench.delivery(), &Delivery::Grace { until_us });
    assert_eq!(bench.settle(Some(&faster())), [""; 0]);
    assert_eq!(bench.session.next_due(bench.now_us), Some(until_us));
    bench.now_us = until_us;
    assert_eq!(bench.settle(Some(&faster())), ["prog interval period=200 trial=10"]);
}

#[test]
fn silence_for_a_lease_means_offline() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.now_us += 59 * S;
    bench.settle(None);
    assert_eq!(bench.session.presence, Presence::Online);
    bench.now_us += S;
    bench.settle(None);
    assert_eq!(bench.session.presence, Presence::Offline { since_us: bench.now_us });
    assert!(
        bench.events.contains(&SessionEvent::WentOffline(presence::PresenceReason::LeaseElapsed))
    );
}

#[test]
fn an_actuator_is_commanded_answered_and_shown() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    assert_eq!(bench.settle(Some(&cooling())), ["act fan true"]);
    assert!(matches!(bench.fan(), ActuatorState::Commanded { fell_back: false, .. }));
    let effects = bench.answer(json!({"act": {"fan": true}}));
    assert!(effects.edits.iter().any(|one| one.feature == "cooling" && !one.desired));
    let answered = ActuatorState::Answered { value: Some(true.into()), instead_of: None };
    assert_eq!(bench.fan(), &answered);
    assert_eq!(bench.settle(Some(&cooling())), [""; 0], "the twin does not show it yet");
    let merge = Change::Merge(Path::Properties("cooling".to_owned()), json!({"fan": true}));
    let event = twin::decide(&bench.session.id, Some(&bench.twin), merge).unwrap();
    let id = bench.session.id.clone();
    bench.twin = twin::apply(&id, Some(&bench.twin), &event, 0).unwrap();
    bench.session.actuators.shown(&event);
    assert_eq!(bench.fan(), &ActuatorState::AsShown);
    // The node sets it to its safe value by itself.
    bench.receive(&json!({"k": "x", "boot": 1, "ms": 9, "ev": "lease"}));
    assert_eq!(bench.fan(), &ActuatorState::FellBack);
    assert_eq!(bench.settle(Some(&cooling())), ["act fan true"]);
    assert!(matches!(bench.fan(), ActuatorState::Commanded { fell_back: true, .. }));
    // What is newer replaces it; that the node had fallen back is not forgotten.
    bench.settle(None);
    let before = bench.session.commands.all().iter().rev().nth(1).unwrap();
    assert_eq!(before.state, CommandState::Superseded);
    assert!(matches!(bench.fan(), ActuatorState::Commanded { fell_back: true, .. }));
}

#[test]
fn an_actuator_that_settles_on_another_value_is_not_asked_again() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&cooling()));
    bench.answer(json!({"act": {"fan": false}}));
    let instead_of = Some(true.into());
    let answered = ActuatorState::Answered { value: Some(false.into()), instead_of };
    assert_eq!(bench.fan(), &answered);
    assert_eq!(bench.settle(Some(&cooling())), [""; 0]);
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&cooling()));
    bench.answer(json!({"st": "range"}));
    assert_eq!(bench.fan(), &ActuatorState::GivenUp { value: true.into() });
    assert_eq!(bench.settle(Some(&cooling())), [""; 0]);
    // It outlives a restart.
    let records = bench.session.actuators.to_records();
    let restored = Actuators::restore(records, |_| None);
    assert_eq!(restored.get(&key()).unwrap().state, ActuatorState::GivenUp { value: true.into() });
}

#[test]
fn a_node_that_settles_on_something_near_is_not_asked_again_and_that_is_stored() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&faster()));
    let near = json!({"program": "interval", "pmin": 250, "pmax": 250, "kept": 1});
    bench.answer(json!({ "tx": near }));
    assert!(bench.session.transmission.is_satisfied());
    assert_eq!(bench.settle(Some(&faster())), [""; 0]);
    let record = bench.session.take_record(BTreeMap::new).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    let mut other = Bench::new();
    other.session.restore(serde_json::from_str(&text).unwrap());
    let accepted = |bench: &Bench| bench.session.transmission.accepted.clone();
    assert!(accepted(&bench).is_some());
    assert_eq!(accepted(&other), accepted(&bench));
}

#[test]
fn an_answer_that_could_not_be_stored_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.state(1, 1000);
    bench.settle(None);
    bench.settle(Some(&cooling()));
    bench.answer(json!({"act": {"fan": true}}));
    bench.work(|session, turn| session.not_stored(turn));
    assert_eq!(bench.fan(), &ActuatorState::AsShown);
    assert_eq!(bench.settle(Some(&cooling())), ["act fan true"]);
}

#[test]
fn a_record_of_an_earlier_version_is_read() {
    let text = r#"{"thing":"lab:n","decision":null,"cause":{"by":"r","trace":"t"},"user":{},
        "acts":[["cooling","fan",{"wanted":true,"by":"r","given_up":true,"boot":3}]],
        "lastId":7,"version":2,"said":3,"settled":null,"givenUp":[4,"no answer"],
        "commands":[],"rules":{"r":{"state":"active","sinceUs":5}}}"#;
    let record: SessionRecord = serde_json::from_str(text).unwrap();
    assert_eq!(record.rules.len(), 1);
    let mut bench = Bench::new();
    bench.session.restore(record);
    let of = &bench.session.transmission;
    assert_eq!((of.version, of.retained, of.cause.by.as_str()), (2, 3, "r"));
    let reason = "no answer".to_owned();
    assert_eq!(of.delivery, Delivery::GivenUp { generation: 4, reason });
    assert_eq!(bench.fan(), &ActuatorState::GivenUp { value: true.into() });
    assert_eq!(bench.session.commands.last_id(), 7 + 64, "ids leap over those without a record");
}
