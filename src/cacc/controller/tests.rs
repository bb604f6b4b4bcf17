//! The controller with twins, a clock and nodes that are all made up.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cacc::cause::trace_id;
use crate::cacc::decide::Actuator;
use crate::cacc::effects::{Effects, Stage};
use crate::cacc::expr::{Property, Scope, Service, Type, check};
use crate::cacc::facts::TRANSMISSION;
use crate::cacc::rule::{self, Asked, Effect, Settings, Target, Times};
use crate::cacc::session::transmission::GRACE_US;
use crate::twin::path::Path;
use crate::twin::sequence::Stamp;
use crate::twin::{self, Change as TwinChange};
use crate::wire::{Command as Body, Op, Program};

const S: i64 = 1_000_000;

/// A world of twins around a controller; effects are carried out at once.
struct World {
    controller: Controller,
    twins: HashMap<ThingId, Arc<Twin>>,
    documents: BTreeMap<String, String>,
    now_us: i64,
    sent: Vec<(String, String)>,
    desired: BTreeMap<String, String>,
    notes: Vec<(&'static str, String)>,
    timings: Vec<Stage>,
    /// All that happened to twins: which, the revision, when, what.
    log: Vec<(ThingId, u64, i64, Event)>,
    /// What is wanted of the past waits here.
    slow: bool,
    history: HistoryRequest,
}

fn id(name: &str) -> ThingId {
    ThingId::parse(&format!("lab:{name}")).unwrap()
}

fn every(ms: u32) -> Settings {
    Settings {
        program: Some(Program::Interval),
        pmin: Some(ms),
        pmax: Some(ms),
        ..Settings::default()
    }
}

fn spec() -> NodeSpec {
    NodeSpec {
        default: Asked { all: every(1000), ..Asked::default() },
        has_profile: true,
        pmin_least: 100,
        ..NodeSpec::default()
    }
}

fn rule(name: &str, when: &str) -> Rule {
    let property = |feature: &str, name: &str, value| Property {
        feature: feature.to_owned(),
        name: name.to_owned(),
        value,
    };
    let scope = Scope {
        properties: vec![
            property("environment", "x", Type::Number(None)),
            property("pir", "motion", Type::Bool),
        ],
        services: vec![Service { name: "judge".to_owned(), labels: None }],
        ..Scope::default()
    };
    Rule {
        name: name.into(),
        target: Target {
            match_labels: BTreeMap::from([("room".to_owned(), "north".to_owned())]),
            ..Target::default()
        },
        each: true,
        when: check(when, &scope).unwrap(),
        until: None,
        times: Times { for_us: 2 * S, hold_us: 10 * S, cooldown_us: 0 },
        effect: Effect {
            asked: Asked { all: every(200), ..Asked::default() },
            ..Effect::default()
        },
        priority: 0,
    }
}

impl World {
    fn new(rules: Vec<Rule>, nodes: &[&str]) -> Self {
        let mut world = Self {
            controller: Controller::default(),
            twins: HashMap::new(),
            documents: BTreeMap::new(),
            now_us: 1_700_000_000 * S,
            sent: Vec::new(),
            desired: BTreeMap::new(),
            notes: Vec::new(),
            timings: Vec::new(),
            log: Vec::new(),
            slow: false,
            history: HistoryRequest::default(),
        };
        world.controller.set_rules(rules, world.now_us);
        for name in nodes {
            world.controller.set_node(&id(name), Some(Arc::new(spec())), world.now_us);
            let thing = json!({"attributes": {"labels": {"room": "north"}}});
            world.change(name, TwinChange::Modify(Path::Thing, thing), Origin::Runtime);
        }
        world
    }

    fn change(&mut self, name: &str, change: TwinChange, origin: Origin) {
        self.submit(&id(name), change, origin);
        self.settle();
    }

    fn submit(&mut self, id: &ThingId, change: TwinChange, origin: Origin) {
        let before = self.twins.get(id).cloned();
        let event = twin::decide(id, before.as_deref(), change).unwrap();
        let after = twin::apply(id, before.as_deref(), &event, self.now_us).map(Arc::new);
        let revision = before.map_or(0, |twin| twin.revision) + 1;
        self.log.push((id.clone(), revision, self.now_us, event.clone()));
        match &after {
            Some(twin) => self.twins.insert(id.clone(), twin.clone()),
            None => self.twins.remove(id),
        };
        self.controller.observe(&Observed {
            id,
            event: Some(&event),
            revision: after.as_ref().map_or(0, |twin| twin.revision),
            twin: after,
            origin,
            time_us: self.now_us,
        });
    }

    fn settle(&mut self) {
        loop {
            let effects = self.controller.settle(self.now_us);
            if effects == Effects::default() && !self.controller.has_work() {
                return;
            }
            self.history.extend(effects.history);
            if !self.slow {
                self.read_back();
            }
            for (key, text) in effects.documents {
                match text {
                    Some(text) => self.documents.insert(key, text),
                    None => self.documents.remove(&key),
                };
            }
            self.notes.extend(effects.notes.into_iter().map(|note| (note.reason, note.message)));
            self.timings.extend(effects.timings.iter().map(|(stage, ..)| *stage));
            for message in effects.messages {
                let name = message.thing.name().to_owned();
                if message.desired {
                    self.desired.insert(name, message.text);
                } else {
                    self.sent.push((name, message.text));
                }
            }
            for change in effects.edits {
                let twin = self.twins.get(&change.thing).unwrap();
                let exists = twin.features.contains_key(change.feature.as_str());
                let (desired, value) = (change.desired, change.value);
                let path = match desired {
                    true => Path::DesiredProperties(change.feature),
                    false => Path::Properties(change.feature),
                };
                let change_of_twin = match exists && !change.merge {
                    true => TwinChange::Modify(path, value.into()),
                    false => TwinChange::Merge(path, value.into()),
                };
                self.submit(&change.thing.clone(), change_of_twin, Origin::Runtime);
            }
        }
    }

    /// Reads what is wanted of the past.
    fn read_back(&mut self) {
        let mut past = std::mem::take(&mut self.history);
        for (id, revision, time_us, event) in &self.log {
            past.take(id.as_str(), *revision, *time_us, || Some(event.clone()));
        }
        self.controller.fill(past, self.now_us);
    }

    /// Time passes, and each timer is heard when it is due.
    fn pass(&mut self, us: i64) {
        let end = self.now_us + us;
        while let Some(due_us) = self.controller.due().filter(|due| *due <= end) {
            self.now_us = due_us.max(self.now_us);
            self.controller.tick(self.now_us);
            self.settle();
        }
        self.now_us = end;
        self.controller.tick(end);
        self.settle();
    }

    fn read(&mut self, name: &str, x: i64, seq: u64) {
        let values = json!({"environment": {"x": x}});
        let stamp = Some(Stamp { seq, boot: Some(1) });
        let values = values.as_object().unwrap().clone();
        self.change(name, TwinChange::Reading { values, stamp }, Origin::Node);
    }

    fn verdict(&mut self, name: &str, label: &str) {
        let revision = self.twins[&id(name)].revision;
        let verdict = json!({"label": label, "ofRevision": revision});
        let change = TwinChange::Merge(Path::Properties("judge".to_owned()), verdict);
        self.change(name, change, Origin::Service("judge".into()));
    }

    fn uplink(&mut self, name: &str, line: &Value) {
        let uplink = Uplink::decode(&line.to_string()).unwrap();
        self.controller.uplink(&id(name), &uplink, self.now_us);
        self.settle();
    }

    fn state(&mut self, name: &str, boot: u32, ms: u32, version: u32) {
        let tx = json!({"program": "interval", "pmin": ms, "pmax": ms});
        self.uplink(
            name,
            &json!({"k": "b", "up": 1, "boot": boot, "ms": 5, "lease": 60, "tx": tx, "version": version}),
        );
    }

    /// Answers a command with what it asked for.
    fn obey(&mut self, name: &str, body: &str) {
        let command = Body::parse(body).unwrap();
        let mut ack =
            json!({"k": "a", "boot": 1, "ms": 9, "id": command.id, "st": "ok", "lease": 60});
        match &command.op {
            Op::Prog(prog) => {
                ack["tx"] = json!({"program": prog.program, "pmin": prog.pmin, "pmax": prog.pmax});
                if prog.trial.is_some() {
                    ack["tx"]["kept"] = 0.into();
                }
            }
            Op::Act { property, value } => ack["act"] = json!({ property.as_str(): value }),
            _ => {}
        }
        self.uplink(name, &ack);
    }

    /// What was sent to a node since the last look, without heartbeats and times to live.
    fn take(&mut self, name: &str) -> Vec<String> {
        let all = std::mem::take(&mut self.sent);
        let mine = all.into_iter().filter(|(to, text)| to == name && !text.ends_with(" hb"));
        mine.map(|(_, text)| text.split(" ttl=").next().unwrap().to_owned()).collect()
    }

    fn one(&mut self, name: &str) -> String {
        let mut all = self.take(name);
        assert_eq!(all.len(), 1, "{all:?}\n{:#}", self.explain(name));
        all.remove(0)
    }

    fn explain(&self, name: &str) -> Value {
        self.controller.explain(&id(name), self.now_us).unwrap()
    }

    fn states(&self) -> Vec<String> {
        let all = self.controller.commands();
        all.iter().map(|one| one["status"]["state"].as_str().unwrap().to_owned()).collect()
    }

    fn feature(&self, name: &str) -> Value {
        self.twins[&id(name)].features[TRANSMISSION].to_json()
    }

    /// The same state in a new process: what was stored, and the twins.
    fn restart(self, rules: Vec<Rule>) -> Self {
        let mut world = Self {
            controller: Controller::default(),
            sent: Vec::new(),
            desired: BTreeMap::new(),
            ..self
        };
        let documents = world.documents.iter().map(|(key, text)| (key.as_str(), text.as_str()));
        assert_eq!(world.controller.restore(documents), 0);
        let mut twins: Vec<Arc<Twin>> = world.twins.values().cloned().collect();
        twins.sort_by(|a, b| a.id.cmp(&b.id));
        for twin in twins {
            world.controller.observe(&Observed {
                id: &twin.id,
                event: None,
                revision: twin.revision,
                twin: Some(twin.clone()),
                origin: Origin::Runtime,
                time_us: world.now_us,
            });
            world.controller.set_node(&twin.id, Some(Arc::new(spec())), world.now_us);
        }
        world.controller.set_rules(rules, world.now_us);
        world.settle();
        world
    }
}

const ANOMALOUS: &str = "verdict(\"judge\").label == \"anomalous\"";

#[test]
fn a_verdict_makes_a_node_send_faster_and_the_end_of_hold_slower_again() {
    let mut world = World::new(vec![rule("look-closer", ANOMALOUS)], &["n"]);
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 1000);
    world.state("n", 1, 1000, 0);
    assert_eq!(world.take("n"), [""; 0]);
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    assert_eq!(world.take("n"), [""; 0], "not before `for` is over");
    world.pass(2 * S);
    let body = world.one("n");
    assert!(body.ends_with("prog interval period=200 trial=10"), "{body}");
    assert_eq!(world.states(), ["Sent"]);
    let told = world.explain("n");
    assert_eq!(
        told["sentence"],
        "n is being set to send every 200 ms (rule `look-closer`, 10 s left)"
    );
    let trace = trace_id(&id("n"), told["facts"][0]["revision"].as_u64().unwrap() - 1);
    assert_eq!(told["trace"], trace, "the trace is of the reading that the verdict is about");
    world.pass(100_000);
    world.obey("n", &body);
    assert_eq!(world.states(), ["Applied"]);
    assert_eq!(world.feature("n")["properties"]["pmin"], 200);
    assert_eq!(world.feature("n")["properties"]["trace"], trace);
    assert_eq!(world.take("n"), [""; 0], "it stays only once a reading shows that it works");
    world.read("n", 5, 2);
    let keep = world.one("n");
    assert!(keep.ends_with(" keep"), "{keep}");
    world.obey("n", &keep);
    world.verdict("n", "normal");
    world.pass(7 * S);
    assert_eq!(world.take("n"), [""; 0], "not before `hold` is over");
    let rule = &world.explain("n")["rules"][0];
    assert_eq!((&rule["state"], &rule["when"]), (&json!("holding 3 s"), &json!(false)));
    world.pass(3 * S);
    let back = world.one("n");
    assert!(back.contains("prog interval period=1000"), "{back}");
    world.obey("n", &back);
    assert_eq!(world.feature("n")["properties"]["pmin"], 1000);
    for stage in [Stage::Command, Stage::Answer, Stage::Reading] {
        assert!(world.timings.contains(&stage), "{stage:?}");
    }
    let reasons: Vec<&str> = world.notes.iter().map(|(reason, _)| *reason).collect();
    let (sent, applied) = ("CommandSent", "CommandApplied");
    let expected = ["RuleActive", sent, applied, sent, "RuleEnded", sent, applied];
    assert_eq!(reasons, expected);
}

#[test]
fn a_command_says_until_when_by_the_clock_of_the_node() {
    let mut world = World::new(vec![rule("look-closer", ANOMALOUS)], &["n"]);
    // What it says of its uptime by itself may be a broker's old copy.
    world.state("n", 1, 1000, 0);
    world.pass(20 * S);
    let (_, beat) = world.sent.pop().unwrap();
    world.pass(3 * S);
    let id = Body::parse(&beat).unwrap().id;
    let answer = json!({"k": "a", "boot": 1, "ms": 20_005, "id": id, "st": "ok"});
    world.uplink("n", &answer);
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    world.pass(2 * S);
    let lives = |world: &World| {
        let (_, text) = world.sent.iter().rev().find(|(_, text)| !text.ends_with(" hb")).unwrap();
        let ttl = Body::parse(text).unwrap().ttl.unwrap();
        u64::from(ttl.from_ms) + u64::from(ttl.ms)
    };
    let first = lives(&world);
    assert_eq!(first, 20_005 + 5000 + 30_000, "reckoned from when the node was asked");
    world.pass(5 * S);
    assert_eq!(lives(&world), first, "said again, it is to be done no later");
    // Nothing is known of the clock of a node that never said what it is.
    let mut mute = World::new(vec![rule("look-closer", ANOMALOUS)], &["n"]);
    mute.read("n", 5, 1);
    mute.verdict("n", "anomalous");
    mute.pass(2 * S);
    assert_eq!(Body::parse(&mute.sent[0].1).unwrap().ttl, None);
    // An answer that waited on the way for a minute says nothing of now.
    world.state("n", 2, 1000, 0);
    world.uplink("n", &answer);
    world.pass(5 * S);
    assert_eq!(Body::parse(&world.sent.last().unwrap().1).unwrap().ttl, None);
}

#[test]
fn a_node_that_speaks_before_its_twin_is_seen_is_shown() {
    let mut world = World::new(Vec::new(), &[]);
    world.controller.set_node(&id("n"), Some(Arc::new(spec())), world.now_us);
    world.state("n", 1, 1000, 0);
    let thing = json!({"attributes": {"labels": {"room": "north"}}});
    world.change("n", TwinChange::Modify(Path::Thing, thing), Origin::Runtime);
    let shown = &world.feature("n")["properties"];
    assert_eq!((&shown["pmin"], &shown["online"]), (&1000.into(), &true.into()));
}

/// How a node is to send, ms, and what `explain` says of safety.
fn standing(world: &World) -> (Value, Value) {
    let told = world.explain("n");
    (told["desired"]["pmin"].clone(), told.get("safety").cloned().unwrap_or_default())
}

#[test]
fn who_is_isolated_sends_by_default_and_is_flagged() {
    let fast = rule("look-closer", ANOMALOUS);
    let mut liar = rule("liar", "environment.x > 100.0");
    liar.effect = Effect { quarantine: Some(true), ..Effect::default() };
    (liar.priority, liar.times) = (1000, Times::default());
    let mut world = World::new(vec![fast, liar], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    world.pass(2 * S);
    assert_eq!(standing(&world), (200.into(), Value::Null));
    world.read("n", 101, 2);
    assert_eq!(standing(&world), (1000.into(), "Quarantined".into()));
    let told = world.explain("n");
    assert_eq!(told["share"]["weight"], 0.0);
    assert_eq!((&told["cause"], &told["fields"]["quarantine"]), (&json!("liar"), &json!("liar")));
    assert!(told["sentence"].as_str().unwrap().ends_with("(quarantined by rule `liar`)"));
    let refused = json!({"reason": "Quarantined", "by": "look-closer",
        "message": "rules do not apply to this node now"});
    assert_eq!(told["refusals"], json!([refused]));
    assert_eq!(told["rules"][1]["state"], "suspended");
    assert_eq!(world.feature("n")["properties"]["quarantined"], true);
    assert_eq!(world.twins[&id("n")].property_named("environment", "x"), Some(&101.into()));
    // It is believed again: what still holds is heard at once.
    world.read("n", 5, 3);
    assert_eq!(standing(&world), (200.into(), Value::Null));
    assert_eq!(world.feature("n")["properties"].get("quarantined"), None);
}

#[test]
fn who_steers_a_node_in_quarantine_is_named() {
    let mut liar = rule("liar", "environment.x > 100.0");
    liar.effect = Effect { quarantine: Some(true), ..Effect::default() };
    liar.times.for_us = 0;
    let mut world = World::new(vec![liar], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 101, 1);
    let path = Path::DesiredProperties(TRANSMISSION.to_owned());
    let wish = json!({"interval": "500ms"});
    world.change("n", TwinChange::Modify(path, wish), Origin::Client);
    assert_eq!(standing(&world), (500.into(), "Quarantined".into()));
    let told = world.explain("n");
    let sentence = told["sentence"].as_str().unwrap();
    assert!(sentence.ends_with("(set in `desiredProperties`)"), "{sentence}");
}

#[test]
fn a_battery_that_a_profile_does_not_have_any_more_is_not_low() {
    let mut world = World::new(Vec::new(), &["n"]);
    let with = |low: Option<u8>| Some(Arc::new(NodeSpec { battery_low: low, ..spec() }));
    world.controller.set_node(&id("n"), with(Some(15)), world.now_us);
    let answer = json!({"k": "a", "boot": 1, "ms": 9, "id": 1, "st": "ok", "battery": 10});
    world.uplink("n", &answer);
    assert_eq!(standing(&world).1, "LowBattery");
    for (low, is) in [(Some(5), Value::Null), (Some(30), "LowBattery".into()), (None, Value::Null)]
    {
        world.controller.set_node(&id("n"), with(low), world.now_us);
        world.settle();
        assert_eq!(standing(&world).1, is, "{low:?}");
    }
}

#[test]
fn what_is_retained_for_a_node_is_said_again_if_it_was_not_stored() {
    let mut world = World::new(vec![rule("look-closer", ANOMALOUS)], &["n"]);
    world.state("n", 1, 1000, 0);
    world.uplink("n", &json!({"k": "b", "up": 0, "boot": 1}));
    let desired = Path::DesiredProperties(TRANSMISSION.to_owned());
    world.submit(&id("n"), TwinChange::Modify(desired, json!({"pmin": 400})), Origin::Client);
    let lost = world.controller.settle(world.now_us);
    assert!(lost.messages.iter().any(|message| message.desired));
    world.controller.not_stored();
    world.settle();
    assert!(world.desired["n"].contains("period=400"), "{:?}", world.desired);
}

#[test]
fn what_is_held_stays_as_it_is_over_a_restart() {
    let rules = || vec![rule("look-closer", ANOMALOUS)];
    let mut world = World::new(rules(), &["n"]);
    world.state("n", 1, 1000, 0);
    let path = || Path::DesiredProperty(TRANSMISSION.to_owned(), vec!["hold".to_owned()]);
    world.change("n", TwinChange::Modify(path(), true.into()), Origin::Client);
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    world.pass(3 * S);
    assert_eq!(standing(&world), (1000.into(), "Held".into()));
    assert_eq!(world.feature("n")["desiredProperties"]["hold"], true);
    assert_eq!(world.take("n"), [""; 0]);
    let mut world = world.restart(rules());
    assert_eq!(standing(&world), (1000.into(), "Held".into()));
    world.change("n", TwinChange::Delete(path()), Origin::Client);
    assert_eq!(standing(&world), (200.into(), Value::Null));
    assert_eq!(world.feature("n")["desiredProperties"].get("hold"), None);
}

#[test]
fn a_low_battery_is_a_fact_and_fixes_the_transmission() {
    let mut spared = rule("spare", "node.battery < 40 && node.rssi < -50");
    spared.effect.asked.all = every(5000);
    spared.times = Times::default();
    let mut alarm = rule("alarm", ANOMALOUS);
    (alarm.effect.class, alarm.effect.asked.all) = (Some(rule::Class::Safety), every(500));
    alarm.times = Times::default();
    let mut world = World::new(vec![spared, alarm], &["n"]);
    let with_battery = NodeSpec { battery_low: Some(15), ..spec() };
    world.controller.set_node(&id("n"), Some(Arc::new(with_battery)), world.now_us);
    let says = |world: &mut World, battery: u8| {
        let answer = json!({"k": "a", "boot": 1, "ms": 9, "id": 1, "st": "ok", "rssi": -60,
            "battery": battery});
        world.uplink("n", &answer);
    };
    world.state("n", 1, 1000, 0);
    assert_eq!(world.explain("n")["facts"][0]["value"], "unknown");
    says(&mut world, 39);
    assert_eq!(standing(&world), (5000.into(), Value::Null));
    assert_eq!(world.explain("n")["health"], json!({"battery": 39, "rssi": -60, "lost": 0}));
    world.pass(40 * S);
    says(&mut world, 14);
    assert_eq!(standing(&world), (1000.into(), "LowBattery".into()));
    // A rule of class `safety` is heard all the same.
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    assert_eq!(standing(&world), (500.into(), "LowBattery".into()));
    says(&mut world, 20);
    assert_eq!(standing(&world).1, Value::Null);
}

#[test]
fn a_command_is_repeated_until_it_expires_and_then_left_alone() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.pass(2 * S);
    let first = world.one("n");
    world.pass(29 * S);
    let again = world.take("n");
    assert_eq!(again.len(), 4, "{again:?}");
    assert!(again.iter().all(|body| *body == first));
    world.pass(5 * S);
    assert_eq!(world.states(), ["Expired"]);
    world.read("n", 5, 2);
    world.pass(20 * S);
    assert_eq!(world.take("n"), [""; 0]);
    assert_eq!(
        world.explain("n")["sentence"],
        "n is to send every 200 ms (rule `r`) and does not: no answer to 5 tries; it still sends every 1 s"
    );
    // A node that starts anew is told anew.
    world.state("n", 2, 1000, 0);
    assert_ne!(world.one("n"), first);
}

#[test]
fn a_refusal_is_shown_and_not_repeated() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.pass(2 * S);
    let id = Body::parse(&world.one("n")).unwrap().id;
    world.uplink(
        "n",
        &json!({"k": "a", "boot": 1, "ms": 1, "id": id, "st": "range", "why": "pmin"}),
    );
    assert_eq!(world.states(), ["Rejected"]);
    world.pass(20 * S);
    assert_eq!(world.take("n"), [""; 0]);
    let told = world.explain("n");
    assert_eq!(
        told["command"]["status"]["reason"],
        "the node reports that a value is out of its range: pmin"
    );
}

#[test]
fn a_plain_client_is_told_only_what_a_rule_or_a_person_asks() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.read("n", 0, 1);
    world.pass(5 * S);
    assert_eq!(world.take("n"), [""; 0]);
    let sentence = world.explain("n")["sentence"].clone();
    assert!(
        sentence.as_str().unwrap().starts_with("n has not reported how it transmits"),
        "{sentence}"
    );
    world.read("n", 5, 2);
    world.pass(2 * S);
    assert!(world.one("n").contains("period=200"));
}

#[test]
fn what_is_newer_supersedes() {
    let mut slow = rule("slow", "x > 5");
    slow.priority = 9;
    slow.effect.asked.all = every(5000);
    let mut world = World::new(vec![rule("fast", "x > 1"), slow], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 3, 1);
    world.pass(2 * S);
    world.one("n");
    world.read("n", 9, 2);
    world.pass(2 * S);
    let newer = world.take("n");
    assert!(newer.last().unwrap().contains("period=5000"), "{newer:?}");
    assert_eq!(world.states(), ["Superseded", "Sent"]);
    let fast = &world.explain("n")["rules"][1];
    assert_eq!((&fast["rule"], &fast["state"]), (&json!("fast"), &json!("overridden by slow")));
}

#[test]
fn a_restart_in_the_middle_says_the_same_again_and_a_rule_goes_on() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.pass(2 * S);
    let body = world.one("n");
    let mut world = world.restart(vec![rule("r", "x > 1")]);
    world.pass(S);
    assert_eq!(world.take("n"), [""; 0], "nobody is there yet");
    assert_eq!(world.states(), ["Sent"]);
    world.state("n", 1, 1000, 0);
    assert_eq!(world.one("n"), body);
    world.obey("n", &body);
    assert_eq!(world.states(), ["Applied"]);
    assert_eq!(world.explain("n")["rules"][0]["state"], "active for at least 9 s");
    world.read("n", 0, 2);
    let keep = world.one("n");
    assert!(Body::parse(&keep).unwrap().id > Body::parse(&body).unwrap().id);
    world.obey("n", &keep);
    world.pass(9 * S);
    assert!(world.one("n").contains("period=1000"));
}

#[test]
fn a_node_that_was_away_gets_the_newest_once() {
    let group = Rule { each: false, ..rule("r", "x > 1") };
    let mut world = World::new(vec![group], &["away", "here"]);
    for name in ["away", "here"] {
        world.state(name, 1, 1000, 1);
    }
    world.uplink("away", &json!({"k": "b", "up": 0, "boot": 1}));
    assert_eq!(world.feature("away")["properties"]["online"], false);
    world.read("here", 5, 1);
    world.pass(2 * S);
    let fast = world.one("here");
    world.obey("here", &fast);
    world.read("here", 0, 2);
    world.pass(10 * S);
    // The rule came and went while it was away: it talks as it should, so nothing is retained.
    assert_eq!(world.desired["away"], "");
    world.read("here", 7, 3);
    world.pass(3 * S);
    world.take("here");
    let retained: Value = serde_json::from_str(&world.desired["away"]).unwrap();
    assert_eq!(retained, json!({"version": 4, "cmd": "0 prog interval period=200"}));
    // The will of an earlier life changes nothing.
    world.state("away", 2, 1000, 1);
    world.uplink("away", &json!({"k": "b", "up": 0, "boot": 1}));
    assert_eq!(world.explain("away")["presence"]["state"], "online");
    // It finds what is retained and applies that by itself.
    world.pass(GRACE_US / 2);
    world.state("away", 2, 200, 4);
    world.pass(5 * S);
    assert_eq!(world.take("away"), [""; 0]);
    assert!(world.explain("away")["satisfied"].as_bool().unwrap());
    // One that does not know what is retained is told, once.
    world.uplink("away", &json!({"k": "b", "up": 0, "boot": 2}));
    world.state("away", 3, 1000, 0);
    world.pass(GRACE_US);
    let told = world.one("away");
    world.obey("away", &told);
    world.pass(5 * S);
    assert_eq!(world.take("away"), [""; 0]);
}

#[test]
fn a_silent_node_is_away_after_a_lease_and_its_values_are_unknown() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.pass(59 * S);
    assert_eq!(world.explain("n")["presence"]["state"], "online");
    let heartbeats = world.sent.iter().filter(|(_, text)| text.ends_with(" hb")).count();
    assert!(heartbeats >= 1, "{:?}", world.sent);
    world.pass(2 * S);
    let told = world.explain("n");
    assert_eq!(told["presence"]["state"], "offline");
    assert_eq!(told["rules"][0]["missing"], "environment/x");
    assert_eq!(
        told["facts"][0]["why"],
        "the node is offline, so its last value may be out of date"
    );
}

#[test]
fn a_person_steers_a_node_until_the_word_is_taken_back() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["n"]);
    world.state("n", 1, 1000, 0);
    let path = Path::DesiredProperties(TRANSMISSION.to_owned());
    let wish = json!({"program": "interval", "interval": "500ms", "colour": 1});
    world.change("n", TwinChange::Modify(path.clone(), wish), Origin::Client);
    let body = world.one("n");
    assert!(body.contains("period=500"), "{body}");
    world.obey("n", &body);
    assert!(
        world.notes.iter().any(|(reason, words)| {
            *reason == "DesiredNotUnderstood" && words.ends_with("colour")
        })
    );
    // A rule does not override a person.
    world.read("n", 5, 1);
    let keep = world.one("n");
    world.obey("n", &keep);
    world.pass(3 * S);
    assert_eq!(world.take("n"), [""; 0]);
    let told = world.explain("n");
    assert_eq!(told["rules"][0]["state"], "overridden by user");
    assert_eq!(told["fields"]["pmin"], "user");
    world.change("n", TwinChange::Delete(path.clone()), Origin::Client);
    assert!(world.one("n").contains("period=200"));
    // It is written anew, so that whoever looks sees what is desired.
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 200);
}

/// A rule sets the fan of a node whose `x` is over 1.
fn cooled() -> World {
    let mut alarm = rule("alarm", "x > 1");
    alarm.times.for_us = 0;
    alarm.effect.set =
        BTreeMap::from([(("cooling".to_owned(), "fan".to_owned()), Value::Bool(true))]);
    let mut world = World::new(Vec::new(), &[]);
    world.controller.set_rules(vec![alarm], world.now_us);
    let actuator = Actuator { desired: None, safe: Some(false.into()) };
    let actuators = BTreeMap::from([(("cooling".to_owned(), "fan".to_owned()), actuator)]);
    let spec = NodeSpec { actuators, ..spec() };
    world.controller.set_node(&id("n"), Some(Arc::new(spec)), world.now_us);
    let thing = json!({"attributes": {"labels": {"room": "north"}}});
    world.change("n", TwinChange::Modify(Path::Thing, thing), Origin::Runtime);
    world
}

#[test]
fn an_actuator_is_told_once_and_again_when_the_node_fell_back() {
    let mut world = cooled();
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    let acts = |world: &mut World| {
        world.take("n").into_iter().filter(|body| body.contains(" act ")).collect::<Vec<_>>()
    };
    let told = acts(&mut world);
    assert_eq!(told.len(), 1, "{told:?}");
    world.obey("n", &told[0]);
    assert_eq!(acts(&mut world), [""; 0], "the twin may not show yet what the node answered");
    assert_eq!(world.twins[&id("n")].property_named("cooling", "fan"), Some(&true.into()));
    world.pass(S);
    assert_eq!(acts(&mut world), [""; 0]);
    // The same life once more: it has not moved.
    world.state("n", 1, 1000, 0);
    assert_eq!(acts(&mut world), [""; 0]);
    // A node that starts anew, or whose lease is over, puts its actuators to their safe values.
    world.state("n", 2, 1000, 0);
    let told = acts(&mut world);
    assert_eq!(told.len(), 1, "{told:?}");
    let answer = |world: &mut World, body: &str| {
        let id = Body::parse(body).unwrap().id;
        let answer =
            json!({"k": "a", "boot": 2, "ms": 9, "id": id, "st": "ok", "act": {"fan": true}});
        world.uplink("n", &answer);
    };
    answer(&mut world, &told[0]);
    assert_eq!(acts(&mut world), [""; 0]);
    world.uplink("n", &json!({"k": "x", "boot": 2, "ms": 70_000, "ev": "lease"}));
    let told = acts(&mut world);
    assert_eq!(told.len(), 1, "{told:?}");
    answer(&mut world, &told[0]);
    assert_eq!(acts(&mut world), [""; 0]);
}

#[test]
fn a_command_that_came_too_late_by_a_wrong_clock_is_said_again() {
    let mut world = cooled();
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    let told = world.take("n");
    assert_eq!(told.len(), 2, "{told:?}");
    for body in &told {
        let id = Body::parse(body).unwrap().id;
        world.uplink("n", &json!({"k": "a", "boot": 1, "ms": 3_600_000, "id": id, "st": "late"}));
    }
    assert!(world.sent.iter().any(|(_, text)| !text.contains(" ttl=")), "{:?}", world.sent);
    let again = world.take("n");
    let op = |body: &String| Body::parse(body).unwrap().op;
    let ops = |all: &[String]| all.iter().map(op).collect::<Vec<_>>();
    assert_eq!(ops(&again).len(), 2, "{again:?}");
    assert!(again.iter().zip(&told).all(|(new, old)| op(new) == op(old)), "{again:?}");
    again.iter().for_each(|body| world.obey("n", body));
    world.pass(S);
    assert_eq!(world.explain("n")["satisfied"], true);
    assert_eq!(world.twins[&id("n")].property_named("cooling", "fan"), Some(&true.into()));
}

#[test]
fn an_actuator_has_its_own_lane_and_comes_back_to_safe() {
    let mut world = cooled();
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    let both = world.take("n");
    assert!(both[0].ends_with("act fan true") && both[1].contains("prog "), "{both:?}");
    // The transmission is not answered; the actuator is.
    world.obey("n", &both[0]);
    let twin = world.twins[&id("n")].clone();
    assert_eq!(twin.property_named("cooling", "fan"), Some(&true.into()));
    let states = world.controller.commands();
    let act = states.iter().find(|one| one["spec"]["set"] == "act fan true").unwrap();
    assert_eq!(
        (&act["status"]["state"], &act["spec"]["cause"]),
        (&json!("Applied"), &json!("alarm"))
    );
    world.read("n", 0, 2);
    world.take("n");
    world.pass(10 * S);
    let back = world.take("n");
    assert!(back.iter().any(|body| body.ends_with("act fan false")), "{back:?}");
    assert!(world.timings.contains(&Stage::ActCommand));
}

#[test]
fn a_schedule_pulls_and_a_rule_asks_once() {
    let mut pull = rule("pull", "x > 1");
    pull.times.for_us = 0;
    pull.effect.asked.all = Settings {
        program: Some(Program::Other("schedule".to_owned())),
        pmin: Some(5000),
        ..Settings::default()
    };
    pull.effect.pull = vec!["environment/x".to_owned()];
    let mut world = World::new(vec![pull], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    let said = world.take("n");
    assert!(said[0].ends_with("prog on-request"), "{said:?}");
    assert!(said[1].ends_with("get x"), "{said:?}");
    world.obey("n", &said[0]);
    world.obey("n", &said[1]);
    world.take("n");
    world.pass(11 * S);
    let gets = world.take("n");
    assert_eq!(gets.len(), 2, "{gets:?}");
    assert!(gets.iter().all(|body| body.ends_with(" get")));
}

#[test]
fn any_of_the_nodes_moves_all_of_them() {
    let mut unrest = Rule { each: false, ..rule("unrest", "any(motion)") };
    unrest.times = Times::default();
    let mut world = World::new(vec![unrest], &["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        world.state(name, 1, 1000, 0);
    }
    let motion = |world: &mut World, name: &str, on: bool| {
        let values = json!({"pir": {"motion": on}}).as_object().unwrap().clone();
        world.change(name, TwinChange::Reading { values, stamp: None }, Origin::Node);
    };
    motion(&mut world, "b", false);
    assert_eq!(world.sent, []);
    motion(&mut world, "c", true);
    let mut names: Vec<String> = world.sent.drain(..).map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    motion(&mut world, "c", false);
    assert_eq!(world.explain("a")["desired"]["pmin"], 1000);
}

#[test]
fn a_value_of_an_aggregate_moves_its_members() {
    let mut warm = Rule { each: false, ..rule("warm", "x > 1") };
    warm.times = Times::default();
    warm.target = Target { aggregate: Some(id("room")), ..Target::default() };
    let mut world = World::new(vec![warm], &["a", "b", "c"]);
    world.controller.set_aggregate(&id("room"), [id("a"), id("b")].into(), world.now_us);
    let values = |x: i64| json!({"features": {"environment": {"properties": {"x": x}}}});
    world.change("room", TwinChange::Modify(Path::Thing, values(0)), Origin::Runtime);
    for name in ["a", "b", "c"] {
        world.state(name, 1, 1000, 0);
        // The aggregate's value counts, not the member's.
        world.read(name, 9, 1);
    }
    assert_eq!(world.sent, []);
    world.change("room", TwinChange::Merge(Path::Thing, values(5)), Origin::Runtime);
    let names: Vec<String> = world.sent.drain(..).map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
    world.controller.set_aggregate(&id("room"), [id("c")].into(), world.now_us);
    world.settle();
    assert_eq!(world.explain("a")["desired"]["pmin"], 1000);
    assert_eq!(world.explain("c")["desired"]["pmin"], 200);
}

#[test]
fn windows_and_ages_of_an_aggregate_are_known() {
    for (each, when) in [(false, "avg(x, 1m) > 1"), (true, "age(x) < 1m")] {
        let mut warm = Rule { each, ..rule("warm", when) };
        warm.times = Times::default();
        warm.target = Target { aggregate: Some(id("room")), ..Target::default() };
        let rules = vec![warm];
        let mut world = World::new(rules.clone(), &["a", "b"]);
        world.controller.set_aggregate(&id("room"), [id("a"), id("b")].into(), world.now_us);
        let values = |x: i64| json!({"features": {"environment": {"properties": {"x": x}}}});
        world.change("room", TwinChange::Modify(Path::Thing, values(0)), Origin::Runtime);
        let truth = |world: &World| world.explain("a")["rules"][0]["when"].clone();
        assert_eq!(truth(&world), each, "{when}");
        world.pass(50 * S);
        world.change("room", TwinChange::Merge(Path::Thing, values(8)), Origin::Runtime);
        assert_eq!(truth(&world), true, "{when}");
        assert_eq!(world.explain("b")["desired"]["pmin"], 200);
        // Who has just come to look knows the past.
        let mut world = world.restart(Vec::new());
        world.controller.set_rules(rules, world.now_us);
        world.settle();
        world.controller.set_aggregate(&id("room"), [id("a"), id("b")].into(), world.now_us);
        world.settle();
        assert_eq!(truth(&world), true, "{when}, after a restart");
        // Nothing more comes: the window empties by itself, and the age grows.
        world.pass(70 * S);
        assert_ne!(truth(&world), true, "{when}");
        assert_eq!(world.explain("a")["desired"]["pmin"], 1000);
    }
}

#[test]
fn a_node_that_no_manifest_knows_is_as_it_says_and_stays() {
    let mut world = World::new(Vec::new(), &[]);
    world.change("n", TwinChange::Modify(Path::Thing, json!({})), Origin::Client);
    world.state("n", 1, 3000, 0);
    assert_eq!(world.feature("n")["properties"]["pmin"], 3000);
    world.controller.set_node(&id("n"), None, world.now_us);
    world.settle();
    assert_eq!(world.explain("n")["desired"]["pmin"], 3000);
    assert_eq!(world.take("n"), [""; 0]);
}

#[test]
fn members_come_and_go_with_their_labels() {
    let mut world = World::new(vec![rule("r", "x > 1")], &["a", "b"]);
    world.read("b", 5, 1);
    world.pass(2 * S);
    assert_eq!(world.explain("b")["desired"]["pmin"], 200);
    let path = Path::Attribute(vec!["labels".to_owned(), "room".to_owned()]);
    world.change("b", TwinChange::Modify(path.clone(), json!("south")), Origin::Client);
    assert_eq!(world.explain("b")["rules"], json!([]));
    assert_eq!(world.explain("b")["desired"]["pmin"], 1000);
    world.change("a", TwinChange::Delete(Path::Thing), Origin::Client);
    assert!(world.controller.explain(&id("a"), world.now_us).is_none());
    assert_eq!(world.desired["a"], "");
    assert!(!world.documents.keys().any(|key| key.ends_with("lab:a")));
    assert_eq!(world.controller.rule_members()["r"], 0);
}

#[test]
fn windows_and_ages_are_looked_at_when_they_are_due() {
    let quiet = Rule { times: Times::default(), ..rule("quiet", "max(x, 10s) < 3") };
    let stale = Rule { times: Times::default(), ..rule("stale", "age(x) > 30s") };
    let mut world = World::new(vec![quiet, stale], &["n"]);
    world.read("n", 9, 1);
    world.pass(5 * S);
    world.read("n", 1, 2);
    let state = |world: &World, at: usize| world.explain("n")["rules"][at]["state"].clone();
    assert_eq!(state(&world, 0), "inactive");
    world.pass(6 * S);
    assert_eq!(state(&world, 0), "active");
    world.pass(10 * S);
    assert_eq!(world.explain("n")["rules"][0]["missing"], "max(environment/x, 10s)");
    assert_eq!(state(&world, 1), "inactive");
    world.pass(15 * S);
    assert_eq!(state(&world, 1), "active");
}

#[test]
fn a_rule_stands_as_it_stood_while_its_window_is_read() {
    let times = Times::default();
    let each = Rule { times, ..rule("each", "avg(x, 20s) > 5") };
    let group = Rule { each: false, times, ..rule("group", "avg(x, 20s) > 5") };
    let mut world = World::new(vec![each.clone(), group.clone()], &["n"]);
    world.state("n", 1, 1000, 0);
    for seq in 1..4 {
        world.read("n", 8, seq);
        world.pass(S);
        world.take("n").iter().for_each(|body| world.obey("n", body));
    }
    world.slow = true;
    let mut world = world.restart(vec![each, group]);
    let notes = world.notes.len();
    let hold = |world: &World| {
        let rules = world.explain("n")["rules"].clone();
        [0, 1].map(|at| rules[at]["state"] != "inactive")
    };
    world.read("n", 2, 4);
    world.pass(S);
    assert_eq!(world.explain("n")["rules"][0]["missing"], "avg(environment/x, 20s)");
    let why = "the window is being read from the twin's history";
    assert_eq!(world.explain("n")["facts"][0]["why"], why);
    assert_eq!(hold(&world), [true, true]);
    world.read_back();
    world.settle();
    // 8, 8, 8 and 2.
    assert_eq!(world.explain("n")["facts"][0]["value"], 6.5);
    assert_eq!(hold(&world), [true, true]);
    assert_eq!((world.take("n"), world.notes.len()), (Vec::new(), notes));
    world.read("n", -20, 5);
    assert_eq!(hold(&world), [false, false]);
}

#[test]
fn a_change_that_a_window_was_filled_with_does_not_count_again() {
    let rules = || vec![rule("r", "count(x, 20s) > 0")];
    let mut world = World::new(rules(), &[]);
    let thing = json!({"attributes": {"labels": {"room": "north"}},
        "features": {"environment": {"properties": {"x": 1}}}});
    world.change("n", TwinChange::Modify(Path::Thing, thing), Origin::Runtime);
    let count = |world: &World| windows(world)[0].1[5];
    assert_eq!(count(&world), Some(1.0), "with what it was made with");
    world.read("n", 2, 1);
    assert_eq!(count(&world), Some(2.0));
    let mut world = world.restart(rules());
    assert_eq!(count(&world), Some(2.0));
    // It was in the queue when its twin was met.
    let (id, revision, time_us, event) = world.log.last().unwrap();
    let twin = world.twins.get(id).cloned();
    let (event, origin) = (Some(event), Origin::Node);
    let (revision, time_us) = (*revision, *time_us);
    world.controller.observe(&Observed { id, event, twin, origin, revision, time_us });
    assert_eq!(count(&world), Some(2.0));
    world.read("n", 3, 2);
    assert_eq!(count(&world), Some(3.0));
}

/// Nodes of the test below, and readings of each.
const MANY: (usize, u64) = (10_000, 4);

#[test]
fn windows_of_ten_thousand_nodes_are_filled_by_one_pass_of_the_log() {
    use crate::store::{StoreOptions, disk::Directory};
    use crate::writer::{Precondition, Request, Writer};
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Directory::open(directory.path()).unwrap());
    let (writer, _) = Writer::open(disk, StoreOptions::default(), Vec::new()).unwrap();
    let start = 1_700_000_000 * S;
    let thing = json!({"attributes": {"labels": {"room": "north"}}});
    let submit = |n: usize, change: TwinChange, time_us: i64| {
        let (id, only_if) = (id(&format!("n-{n}")), Precondition::Always);
        writer
            .submit(Request { id, change, only_if, origin: Origin::Node, depth: 0 }, time_us)
            .unwrap();
    };
    for n in 0..MANY.0 {
        submit(n, TwinChange::Modify(Path::Thing, thing.clone()), start);
    }
    for seq in 1..=MANY.1 {
        for n in 0..MANY.0 {
            let values = json!({"environment": {"x": seq}}).as_object().unwrap().clone();
            let stamp = Some(Stamp { seq, boot: Some(1) });
            submit(n, TwinChange::Reading { values, stamp }, start + seq as i64 * S);
        }
        writer.commit();
    }
    let now = start + (MANY.1 as i64 + 1) * S;
    let mut controller = Controller::default();
    for twin in writer.twins() {
        controller.observe(&Observed {
            id: &twin.id.clone(),
            event: None,
            revision: twin.revision,
            twin: Some(twin),
            origin: Origin::Runtime,
            time_us: now,
        });
    }
    let before = std::time::Instant::now();
    controller.set_rules(vec![rule("r", "avg(x, 1h) > 0 && count(x, 10m) > 1")], now);
    let mut past = controller.settle(now).history;
    let asked = before.elapsed();
    assert_eq!(past.len(), 2 * MANY.0);
    let mut events = 0;
    let whole = writer.events_since(past.since(now).unwrap(), u64::MAX, |logged| {
        events += 1;
        past.take(logged.id(), logged.revision(), logged.time_us(), || logged.event());
        true
    });
    let read = before.elapsed();
    assert_eq!((whole.unwrap(), events), (true, MANY.0 * (1 + MANY.1 as usize)));
    controller.fill(past, now);
    println!(
        "asked in {asked:?}, {events} events read in {read:?}, filled in {:?}",
        before.elapsed()
    );
    for slot in controller.facts.slots() {
        let known = controller.facts.of(slot);
        for (_, series, awaited) in known.windows() {
            let count = series.value(crate::cacc::expr::Window::Count);
            assert_eq!((awaited, count), (false, Some(MANY.1 as f64)), "{}", known.id);
        }
    }
}

#[test]
fn the_same_input_explains_to_the_same_bytes() {
    let run = || {
        let mut world = World::new(vec![rule("r", ANOMALOUS), rule("s", "x > 1")], &["n", "m"]);
        world.state("n", 1, 1000, 0);
        world.read("n", 5, 1);
        world.verdict("n", "anomalous");
        world.pass(3 * S);
        (world.explain("n").to_string(), world.sent, world.documents)
    };
    assert_eq!(run(), run());
}

#[derive(Debug, Clone)]
enum Step {
    Read(usize, i64),
    Verdict(usize, bool),
    Pass(i64),
    Answer(usize),
    Lose(usize),
    State(usize, u32),
    Will(usize),
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3, -2_i64..8).prop_map(|(n, x)| Step::Read(n, x)),
        2 => (0_usize..3, any::<bool>()).prop_map(|(n, bad)| Step::Verdict(n, bad)),
        4 => (0_i64..20_000_000).prop_map(Step::Pass),
        4 => (0_usize..3).prop_map(Step::Answer),
        1 => (0_usize..3).prop_map(Step::Lose),
        1 => (0_usize..3, 1_u32..4).prop_map(|(n, boot)| Step::State(n, boot)),
        1 => (0_usize..3).prop_map(Step::Will),
        1 => (-100_000_000_i64..100_000_000).prop_map(Step::Clock),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn rules() -> Vec<Rule> {
    let group = Rule { each: false, priority: 5, ..rule("group", "x > 6") };
    let mut slow = rule("slow", "avg(x, 20s) < 0");
    slow.effect.asked.all = every(4000);
    slow.priority = 7;
    vec![rule("each", ANOMALOUS), group, slow]
}

/// Carries steps out; the nodes in this order, the rules in this order.
fn play(steps: &[Step], rules: Vec<Rule>, names: &[&str]) -> World {
    let mut world = World::new(rules, names);
    let mut inbox: HashMap<usize, Vec<String>> = HashMap::new();
    for (seq, step) in steps.iter().enumerate() {
        match step {
            Step::Read(n, x) => world.read(NAMES[*n], *x, seq as u64 + 1),
            Step::Verdict(n, bad) => {
                world.verdict(NAMES[*n], if *bad { "anomalous" } else { "normal" });
            }
            Step::Pass(us) => world.pass(*us),
            Step::State(n, boot) => world.state(NAMES[*n], *boot, 1000, 0),
            Step::Will(n) => world.uplink(NAMES[*n], &json!({"k": "b", "up": 0, "boot": 9})),
            Step::Clock(us) => world.now_us += us,
            Step::Answer(n) | Step::Lose(n) => {
                for (name, body) in std::mem::take(&mut world.sent) {
                    let at = NAMES.iter().position(|other| *other == name).unwrap();
                    inbox.entry(at).or_default().push(body);
                }
                let mine = inbox.remove(n).unwrap_or_default();
                if matches!(step, Step::Answer(_)) {
                    mine.iter().for_each(|body| world.obey(NAMES[*n], body));
                }
            }
        }
        world.settle();
    }
    world
}

/// Delivering to one node may move a rule about nodes that were decided in the same settling.
#[test]
fn a_decision_that_an_earlier_delivery_outdated_is_made_again() {
    use Step::{Answer, Clock, Pass, Read};
    let steps = [Read(2, 0), Read(1, 7), Pass(2 * S), Answer(1), Clock(60 * S), Pass(0)];
    let one = play(&steps, rules(), &NAMES);
    let other = play(&steps, rules(), &["c", "a", "b"]);
    for name in NAMES {
        assert_eq!(one.explain(name)["desired"], other.explain(name)["desired"], "{name}");
    }
}

/// A full disk: what could not be stored is not said, and is stored and said when there is space.
#[test]
fn what_could_not_be_stored_is_stored_and_said_later() {
    let mut world = World::new(vec![rule("look-closer", ANOMALOUS)], &["n"]);
    world.state("n", 1, 1000, 0);
    world.read("n", 5, 1);
    world.verdict("n", "anomalous");
    world.now_us += 2 * S;
    world.controller.tick(world.now_us);
    // There is no space for what follows from the rule: all of it is lost.
    let lost = world.controller.settle(world.now_us);
    assert!(!lost.documents.is_empty() && !lost.edits.is_empty() && !lost.messages.is_empty());
    world.settle();
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 1000);

    world.controller.not_stored();
    world.settle();
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 200);
    assert_eq!(world.desired["n"], "", "nothing is retained for a node that is there");
    for (key, _) in lost.documents {
        assert!(world.documents.contains_key(&key), "{key} is not stored");
    }
    // As one that nobody answered, the command is said again.
    assert_eq!(world.take("n"), [""; 0]);
    world.pass(2 * S);
    let body = world.one("n");
    let said = lost.messages.iter().find(|message| !message.desired).unwrap();
    assert_eq!(Some(&*body), said.text.split(" ttl=").next());
    world.obey("n", &body);
    assert_eq!(world.states(), ["Applied"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// I4, I9: neither the order of rules nor of nodes changes anything, and whatever nodes,
    /// people and clocks do, nothing panics and no period leaves the profile's bounds.
    #[test]
    fn the_order_of_rules_and_nodes_changes_nothing(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let one = play(&steps, rules(), &NAMES);
        let mut turned = rules();
        turned.reverse();
        let other = play(&steps, turned, &["c", "a", "b"]);
        for name in NAMES {
            let (one, other) = (one.explain(name), other.explain(name));
            prop_assert_eq!(&one["desired"], &other["desired"]);
            prop_assert_eq!(&one["sentence"], &other["sentence"]);
            prop_assert_eq!(&one["rules"], &other["rules"]);
            prop_assert!(one["desired"]["pmin"].as_u64().unwrap() >= 100);
        }
        prop_assert_eq!(one.sent.len(), other.sent.len());
    }

    /// I5: a value that crosses its limit back and forth faster than `for` moves nothing.
    #[test]
    fn a_value_that_swings_faster_than_for_moves_nothing(
        waits in prop::collection::vec(1_i64..2_000_000, 1..80),
    ) {
        let mut world = World::new(vec![rule("r", "x > 5")], &["n"]);
        world.state("n", 1, 1000, 0);
        for (at, wait) in waits.iter().enumerate() {
            world.read("n", if at % 2 == 0 { 9 } else { 1 }, at as u64 + 1);
            world.pass(*wait);
        }
        world.read("n", 0, 1000);
        world.pass(60 * S);
        prop_assert_eq!(world.take("n"), [""; 0]);
        prop_assert_eq!(&world.explain("n")["generation"], 1);
    }

    /// I8: settling again, or being told the time again, says and changes nothing.
    #[test]
    fn settling_again_changes_nothing(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = play(&steps, rules(), &NAMES);
        let again = |world: &mut World| {
            world.controller.reconsider(world.now_us);
            world.pass(0);
        };
        again(&mut world);
        world.sent.clear();
        let before: Vec<Value> = NAMES.iter().map(|name| world.explain(name)).collect();
        again(&mut world);
        let after: Vec<Value> = NAMES.iter().map(|name| world.explain(name)).collect();
        prop_assert_eq!(before, after);
        prop_assert_eq!(world.sent, []);
    }

    /// I12: without rules every node comes back to its default, and if commands arrive it says
    /// so (I6).
    #[test]
    fn without_rules_every_node_comes_home(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = play(&steps, rules(), &NAMES);
        world.controller.set_rules(Vec::new(), world.now_us);
        world.settle();
        for name in NAMES {
            world.state(name, 50, 777, 0);
        }
        for _ in 0..80 {
            world.pass(S);
            for (name, body) in std::mem::take(&mut world.sent) {
                world.obey(&name, &body);
            }
        }
        for name in NAMES {
            let told = world.explain(name);
            prop_assert_eq!(&told["desired"]["pmin"], 1000, "{:#}", told);
            prop_assert_eq!(&told["reported"]["pmin"], 1000, "{:#}", told);
        }
    }

    /// A restart anywhere leaves what is desired as it was, and sends nothing twice under
    /// another id.
    #[test]
    fn a_restart_anywhere_changes_nothing(steps in prop::collection::vec(step(), 0..40)) {
        // What lies in a window is by the clock: one that was set says something else of the past.
        let steady = !steps.iter().any(|step| matches!(step, Step::Clock(_)));
        let rules = || -> Vec<Rule> {
            rules().into_iter().filter(|rule| steady || &*rule.name != "slow").collect()
        };
        let mut world = play(&steps, rules(), &NAMES);
        world.pass(0);
        let before: Vec<Value> = NAMES.iter().map(|name| world.explain(name)).collect();
        let open: Vec<Value> = world.controller.commands();
        let world = world.restart(rules());
        for (name, before) in NAMES.iter().zip(before) {
            let after = world.explain(name);
            prop_assert_eq!(&after["desired"], &before["desired"]);
            prop_assert_eq!(&after["generation"], &before["generation"]);
        }
        let ids = |all: &[Value]| -> Vec<Value> {
            all.iter().map(|one| one["spec"]["id"].clone()).collect()
        };
        prop_assert_eq!(ids(&world.controller.commands()), ids(&open));
    }

    /// Whether a rule was there from the start or is new, or the controller is, while changes go on:
    /// its windows say the same.
    #[test]
    fn a_window_filled_from_history_says_what_one_kept_all_along_says(
        before in prop::collection::vec(happening(), 0..60),
        meanwhile in prop::collection::vec(happening(), 0..12),
        after in prop::collection::vec(happening(), 0..12),
        restarts in any::<bool>(),
    ) {
        let rules = || vec![rule("r", "avg(x, 20s) > 0 && count(x, 3s) > 1 && x > 0")];
        let mut live = World::new(rules(), &["n"]);
        let mut filled = World::new(if restarts { rules() } else { Vec::new() }, &["n"]);
        (live.slow, filled.slow) = (true, true);
        let mut seq = 0;
        for (step, what, x) in &before {
            let both = [&mut live, &mut filled];
            seq = happen(both, *step, *what, *x, seq);
        }
        if restarts {
            filled = filled.restart(rules());
        } else {
            filled.controller.set_rules(rules(), filled.now_us);
            filled.settle();
        }
        for (step, what, x) in &meanwhile {
            seq = happen([&mut live, &mut filled], *step, *what, *x, seq);
        }
        // Windows of a twin that is all new have nothing to wait for.
        prop_assert_eq!(live.history.len(), 0);
        let open = windows(&filled).iter().filter(|(.., awaited)| *awaited).count();
        prop_assert!(open <= filled.history.len());
        filled.read_back();
        filled.settle();
        for (step, what, x) in &after {
            seq = happen([&mut live, &mut filled], *step, *what, *x, seq);
        }
        let (kept, read) = (windows(&live), windows(&filled));
        prop_assert_eq!(kept.len(), read.len());
        for ((ms, values, _), (other, read, awaited)) in kept.into_iter().zip(read) {
            prop_assert_eq!((ms, false), (other, awaited));
            for (value, read) in values.iter().zip(&read) {
                let same = match (value, read) {
                    (Some(value), Some(read)) => (value - read).abs() < 1e-9,
                    (value, read) => value == read,
                };
                prop_assert!(same, "of {} ms: {:?} and {:?}", ms, values, read);
            }
        }
    }
}

/// Time that passes, what happens then, and a number.
fn happening() -> impl Strategy<Value = (i64, u8, i64)> {
    (0_i64..3_000_000, 0_u8..10, -50_i64..50)
}

/// Has the same happen in both worlds; gives the last sequence number.
fn happen(worlds: [&mut World; 2], step: i64, what: u8, x: i64, seq: u64) -> u64 {
    for world in worlds {
        world.pass(step);
        let path = || Path::Property("environment".to_owned(), vec!["x".to_owned()]);
        let there = world.twins[&id("n")].property_named("environment", "x").is_some();
        let client = match what {
            0..4 => {
                world.read("n", x, seq + 1);
                continue;
            }
            4 => {
                // One comes late.
                world.read("n", x, seq + 1);
                world.read("n", x, seq + 3);
                world.read("n", 1000, seq + 2);
                continue;
            }
            5 if there => TwinChange::Modify(path(), json!(x)),
            6 if there => TwinChange::Delete(path()),
            7 => {
                let thing = json!({"features": {"environment": {"properties": {"y": x}}}});
                TwinChange::Merge(Path::Thing, thing)
            }
            8 => TwinChange::Modify(
                Path::Features,
                json!({"a": {"properties": {"y": 1}}, "environment": {"properties": {"x": x > 0}}}),
            ),
            _ if x > 40 => {
                world.change("n", TwinChange::Delete(Path::Thing), Origin::Client);
                TwinChange::Modify(
                    Path::Thing,
                    json!({"attributes": {"labels": {"room": "north"}}, "features": {
                        "environment": {"properties": {"x": x}}}}),
                )
            }
            _ => continue,
        };
        world.change("n", client, Origin::Client);
    }
    seq + 3
}

/// Each window of the twin: its length, what each function says, and whether it is still open.
fn windows(world: &World) -> Vec<(u64, Vec<Option<f64>>, bool)> {
    use crate::cacc::expr::Window::{Avg, Count, Max, Min, Rate, Stddev};
    let facts = &world.controller.facts;
    let each = facts.of(facts.slot(&id("n")).unwrap()).windows().map(|(ms, series, awaited)| {
        let mut series = series.clone();
        series.forget(world.now_us);
        let values = [Avg, Min, Max, Stddev, Rate, Count].map(|function| series.value(function));
        (ms, values.to_vec(), awaited)
    });
    each.collect()
}

/// A node without a profile, which never reported its state, is no subject of commands.
#[test]
fn a_plain_client_without_a_profile_gets_no_commands() {
    let mut alarm = rule("r", "x > 1");
    alarm.times.for_us = 0;
    alarm.effect.set =
        BTreeMap::from([(("cooling".to_owned(), "fan".to_owned()), Value::Bool(true))]);
    alarm.effect.pull = vec!["environment/x".to_owned()];
    let mut world = World::new(vec![alarm], &["n"]);
    let plain = NodeSpec { has_profile: false, ..spec() };
    world.controller.set_node(&id("n"), Some(Arc::new(plain)), world.now_us);
    world.read("n", 5, 1);
    world.pass(60 * S);
    assert_eq!(world.sent, []);
    assert!(world.desired.get("n").is_none_or(String::is_empty));
    let told = world.explain("n");
    assert_eq!((&told["takesCommands"], &told["desired"]["pmin"]), (&json!(false), &json!(200)));
    assert_eq!(
        told["sentence"],
        "n has no node profile, so no commands are sent to it; it is to send every 200 ms (rule `r`)"
    );
    // Once it reports its state it is known to understand them.
    world.state("n", 1, 1000, 0);
    let sent = world.take("n");
    assert!(sent.iter().any(|body| body.contains("period=200")), "{sent:?}");
    assert!(sent.iter().any(|body| body.ends_with("act fan true")), "{sent:?}");
}

#[test]
fn a_node_that_is_declared_before_its_twin_is_created_is_decided() {
    let mut world = World::new(Vec::new(), &[]);
    world.controller.set_node(&id("n"), Some(Arc::new(spec())), world.now_us);
    world.settle();
    world.change("n", TwinChange::Modify(Path::Thing, json!({})), Origin::Runtime);
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 1000);
    assert!(world.explain("n")["sentence"].as_str().unwrap().contains("has not connected yet"));
    // And again if the twin is made anew, without another word of the manifest.
    world.change("n", TwinChange::Delete(Path::Thing), Origin::Client);
    assert!(world.controller.explain(&id("n"), world.now_us).is_none());
    world.change("n", TwinChange::Modify(Path::Thing, json!({})), Origin::Runtime);
    assert_eq!(world.feature("n")["desiredProperties"]["pmin"], 1000);
}

/// Many nodes, of which the last has a fan that a rule sets, and a rule over all of them.
fn crowd(many: usize) -> World {
    let all = Rule { each: false, times: Times::default(), ..rule("all", "any(motion)") };
    let mut fan = rule("fan", "x > 1");
    fan.times = Times::default();
    fan.effect.asked = Asked::default();
    fan.effect.set =
        BTreeMap::from([(("cooling".to_owned(), "fan".to_owned()), Value::Bool(true))]);
    let names: Vec<String> = (0..many).map(|n| format!("n-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(vec![all, fan], &names);
    for name in names {
        world.state(name, 1, 1000, 0);
    }
    world.sent.clear();
    world
}

/// A command to an actuator is in the very next settling, and that decides few nodes, however many
/// wait for a transmission.
#[test]
fn an_actuator_waits_for_no_transmission() {
    let many = 3 * settle::SETTLE_MAX;
    let mut world = crowd(many);
    let reading = |world: &mut World, name: &str, values: Value| {
        let values = values.as_object().unwrap().clone();
        let change = TwinChange::Reading { values, stamp: None };
        world.submit(&id(name), change, Origin::Node);
    };
    reading(&mut world, "n-00000", json!({"pir": {"motion": true}}));
    reading(&mut world, &format!("n-{:05}", many - 1), json!({"environment": {"x": 5}}));
    let first = world.controller.settle(world.now_us);
    assert!(first.messages[0].text.contains(" act fan true"), "{:?}", first.messages[0]);
    // One act, and a transmission for each node.
    let commands = |effects: &Effects| effects.messages.iter().filter(|one| !one.desired).count();
    assert!(commands(&first) <= settle::SETTLE_MAX + 1, "{}", commands(&first));
    assert!(first.documents.len() <= settle::SETTLE_MAX + 1, "{}", first.documents.len());
    let mut sent = commands(&first);
    let mut settlings = 1;
    while world.controller.has_work() {
        assert_eq!(world.controller.due(), Some(world.now_us), "the rest is not forgotten");
        sent += commands(&world.controller.settle(world.now_us));
        settlings += 1;
    }
    assert_eq!((sent, settlings), (many + 1, 3));
}

/// Something that the controller is given, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Given {
    Declared,
    Rules,
    Created,
    Read,
    State,
}

fn order() -> impl Strategy<Value = Vec<Given>> {
    let all = vec![Given::Declared, Given::Rules, Given::Created, Given::Read, Given::State];
    // A reading or a state reaches the controller only after the twin was made.
    Just(all).prop_shuffle().prop_map(|mut all| {
        let twin = |given: &Given| *given >= Given::Created;
        let places: Vec<usize> = (0..all.len()).filter(|at| twin(&all[*at])).collect();
        let created = all.iter().position(|given| *given == Given::Created);
        all.swap(places[0], created.unwrap());
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In whatever order a node is declared, its twin is created, it sends, and rules are set: what
    /// is known and desired in the end is the same.
    #[test]
    fn the_order_of_inputs_does_not_matter(order in order(), settles in any::<[bool; 5]>()) {
        let play = |order: &[Given], settles: &[bool]| {
            let mut world = World::new(Vec::new(), &[]);
            let mut fast = rule("fast", "x > 1 && node.online");
            fast.times = Times::default();
            for (given, settles) in order.iter().zip(settles) {
                let thing = json!({"attributes": {"labels": {"room": "north"}}});
                match given {
                    Given::Declared => {
                        let spec = Some(Arc::new(spec()));
                        world.controller.set_node(&id("n"), spec, world.now_us);
                    }
                    Given::Rules => world.controller.set_rules(vec![fast.clone()], world.now_us),
                    Given::Created => {
                        let change = TwinChange::Modify(Path::Thing, thing);
                        world.submit(&id("n"), change, Origin::Runtime);
                    }
                    Given::Read => {
                        let values = json!({"environment": {"x": 5}}).as_object().unwrap().clone();
                        let change = TwinChange::Reading { values, stamp: None };
                        world.submit(&id("n"), change, Origin::Node);
                    }
                    Given::State => {
                        let tx = json!({"program": "interval", "pmin": 1000, "pmax": 1000});
                        let state = json!({"k": "b", "up": 1, "boot": 1, "lease": 60, "tx": tx});
                        let uplink = Uplink::decode(&state.to_string()).unwrap();
                        world.controller.uplink(&id("n"), &uplink, world.now_us);
                    }
                }
                if *settles {
                    world.settle();
                }
            }
            world.settle();
            let told = world.explain("n");
            let shown = world.feature("n");
            let of = |key: &str| told[key].clone();
            let reported = shown["properties"].clone();
            let pmin = shown["desiredProperties"]["pmin"].clone();
            let sent = world.take("n").iter().any(|body| body.contains("period=200"));
            (of("desired"), of("presence"), of("fields"), reported, pmin, sent)
        };
        let natural = [Given::Declared, Given::Rules, Given::Created, Given::State, Given::Read];
        let expected = play(&natural, &[true; 5]);
        prop_assert_eq!(&expected.4, &json!(200));
        prop_assert!(expected.5);
        prop_assert_eq!(play(&order, &settles), expected);
    }
}
