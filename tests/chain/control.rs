//! The way back up: a verdict makes a rule change how a node talks, over real sockets. The node
//! here is a plain MQTT client that speaks the protocol.

use std::time::{Duration, Instant};

use edgetwin::testing::Op;
use serde_json::{Value, json};

use crate::support::board::{Board, is_interval};
use crate::support::objects::{judge_inside, model};
use crate::support::runtime::Runtime;

/// What the twin says of how its node talks, once `wanted` holds for it.
fn reported(runtime: &Runtime, wanted: impl Fn(&Value) -> bool) -> Value {
    runtime.properties("lab:n-1", "transmission", wanted)
}

fn commands(runtime: &Runtime) -> Vec<Value> {
    let list = runtime.get("/edgetwin/v1/commands?namespace=lab");
    list["items"].as_array().unwrap().clone()
}

/// A node whose readings of 20 and more are `high`, and a rule about it.
fn start(times: &Value) -> Runtime {
    let runtime = Runtime::start();
    let mut objects = judge_inside(&model(runtime.path()));
    objects.push(json!({"kind": "TwinModel", "metadata": {"name": "m"}, "spec": {"features": {
        "environment": {"properties": {"x": {"type": "number"}}},
        "cooling": {"properties": {"fan": {"type": "boolean", "readOnly": false}}}}}}));
    objects.push(json!({"kind": "Twin", "metadata": {"name": "n-1", "namespace": "lab",
        "labels": {"room": "north"}}, "spec": {"model": "m", "services": ["judge"], "node": {},
        "transmission": {"program": "interval", "interval": "1s"}}}));
    let mut rule = json!({"kind": "ContextRule", "metadata": {"name": "look-closer"}, "spec": {
        "nodes": {"matchLabels": {"room": "north"}}, "each": true,
        "when": "verdict(\"judge\").label == \"high\"",
        "then": {"program": "interval", "interval": "200ms"}, "priority": 10}});
    for (key, value) in times.as_object().unwrap() {
        rule["spec"][key] = value.clone();
    }
    objects.push(rule);
    runtime.apply(&objects);
    // What is applied becomes a twin and a node a moment later; who is not known yet is not heard.
    runtime.printed(&["wait", "all", "-A"]);
    runtime.explained(|_| true);
    runtime
}

#[test]
fn a_verdict_makes_a_node_talk_faster_and_after_hold_slower_again() {
    let runtime = start(&json!({"for": "300ms", "hold": "2s"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    runtime.explained(|told| told["satisfied"] == true);
    board.read(33);
    let read = Instant::now();
    let (_, faster) = board.command_like(is_interval(200));
    assert!(read.elapsed() >= Duration::from_millis(300), "not before `for` is over");
    let told = runtime.explained(|told| told["command"]["status"]["state"] == "Sent");
    assert!(told["sentence"].as_str().unwrap().contains("(rule `look-closer`"), "{told:#}");
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["transmission"]["desiredProperties"]["pmin"], 200);
    assert_eq!(thing["features"]["transmission"]["properties"]["pmin"], 1000);
    board.obey(&faster);
    runtime.explained(|told| told["satisfied"] == true);
    let reported = reported(&runtime, |reported| reported["pmin"] == 200);
    assert_eq!(reported["command"], faster.id);
    // One trace from the reading to what the node reports.
    assert_eq!(reported["trace"], told["trace"]);
    let commands = commands(&runtime);
    let mine = commands.iter().find(|one| one["spec"]["id"] == faster.id).unwrap();
    assert_eq!(mine["spec"]["trace"], told["trace"]);
    let events = runtime.printed(&["events", "-n", "lab"]);
    assert!(events.contains(told["trace"].as_str().unwrap()), "{events}");
    // It stays once a reading shows that it works.
    board.read(33);
    let (_, keep) = board.command_like(|op| *op == Op::Keep);
    board.obey(&keep);
    board.read(3);
    let (_, back) = board.command_like(is_interval(1000));
    assert!(read.elapsed() >= Duration::from_millis(2300), "not before `hold` is over");
    board.obey(&back);
    runtime.explained(|told| told["satisfied"] == true && told["desired"]["pmin"] == 1000);
    let table = runtime.printed(&["get", "commands", "-n", "lab", "-o", "wide"]);
    assert!(table.contains("look-closer") && table.contains("Applied"), "{table}");
    let words = runtime.printed(&["explain", "node", "lab/n-1"]);
    assert!(words.starts_with("n-1 has been sending every 1 s since "), "{words}");
    let described = runtime.printed(&["describe", "cr", "look-closer"]);
    assert!(described.contains("Ready True") && described.contains("InForce"), "{described}");
}

#[test]
fn a_command_survives_kill_nine_under_its_id_and_is_carried_out_once() {
    let mut runtime = start(&json!({"hold": "1m"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(33);
    let (_, faster) = board.command_like(is_interval(200));
    // Carried out, and the answer is lost with the runtime.
    runtime.process.kill();
    board.obey(&faster);
    let runtime = runtime.restart();
    let (tx, answers, done) = (board.tx.clone(), board.answers.clone(), board.done.clone());
    board.mqtt.power_off();
    let mut board = Board { answers, done, ..Board::connect(runtime.mqtt, 1) };
    board.seq = 100;
    // It comes back before it says how it talks, so the edge has only its own word.
    board.read(33);
    let (_, same) = board.command();
    assert_eq!((same.id, &same.op), (faster.id, &faster.op));
    board.tx = tx;
    board.obey(&same);
    assert_eq!(board.done[&faster.id], 1);
    let told = runtime.explained(|told| told["satisfied"] == true);
    assert_eq!((&told["desired"]["pmin"], &told["generation"]), (&json!(200), &json!(2)));
    let of_id = |one: &&Value| one["spec"]["id"] == faster.id;
    let commands = commands(&runtime);
    let found: Vec<&Value> = commands.iter().filter(of_id).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["status"]["state"], "Applied");
}

#[test]
fn what_a_node_refuses_is_shown_and_not_said_again() {
    let runtime = start(&json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(33);
    let (_, faster) = board.command_like(is_interval(200));
    board.refuse(&faster, "pmin");
    let told = runtime.explained(|told| told["command"]["status"]["state"] == "Rejected");
    let why = "the node reports that a value is out of its range: pmin";
    assert_eq!(told["command"]["status"]["reason"], why);
    assert!(told["sentence"].as_str().unwrap().contains(why), "{told:#}");
    board.read(34);
    assert!(board.command_within(Duration::from_millis(1500)).is_none());
    assert!(runtime.printed(&["events", "-n", "lab"]).contains("CommandRejected"));
}

#[test]
fn a_node_that_was_away_gets_the_newest_once() {
    let runtime = start(&json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(3);
    runtime.explained(|told| told["satisfied"] == true);
    // Gone without a word: the will says so.
    board.mqtt.power_off();
    let path = "/api/2/things/lab:n-1/features/transmission/desiredProperties";
    runtime.explained(|told| told["presence"]["state"] == "offline");
    for ms in [300, 400, 500] {
        assert_eq!(runtime.put(path, &json!({"program": "interval", "interval": ms})), 204);
        runtime.explained(|told| told["desired"]["pmin"] == ms);
    }
    let mut board = Board::connect(runtime.mqtt, 2);
    // On a busy machine the last may still be on its way when the node is back.
    let retained = loop {
        let (leaf, text) = board.message();
        assert_eq!(leaf, "desired", "nothing is sent to a node that is offline: {text}");
        let retained: Value = serde_json::from_str(&text).unwrap();
        if retained["cmd"] == "0 prog interval period=500" {
            break retained;
        }
    };
    // It applies what it found and says so.
    board.tx = json!({"program": "interval", "pmin": 500, "pmax": 500, "kept": 1});
    board.version = retained["version"].as_u64().unwrap();
    board.state();
    runtime.explained(|told| told["satisfied"] == true);
    assert!(board.command_within(Duration::from_millis(1500)).is_none());
}

#[test]
fn whoever_writes_desired_properties_steers_the_node() {
    let runtime = start(&json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    runtime.explained(|told| told["satisfied"] == true);
    let path = "/api/2/things/lab:n-1/features/transmission/desiredProperties";
    assert_eq!(runtime.put(path, &json!({"program": "interval", "interval": "700ms"})), 204);
    let (_, steered) = board.command_like(is_interval(700));
    board.obey(&steered);
    let told = runtime.explained(|told| told["satisfied"] == true);
    assert_eq!((&told["cause"], &told["fields"]["pmin"]), (&json!("user"), &json!("user")));
    // An actuator goes its own way, whatever the transmission does.
    let fan = "/api/2/things/lab:n-1/features/cooling";
    assert_eq!(runtime.put(fan, &json!({"desiredProperties": {"fan": true}})), 201);
    let (_, act) = board.command_like(|op| matches!(op, Op::Act { .. }));
    assert_eq!(act.op.to_string(), "act fan true");
    board.obey(&act);
    runtime.properties("lab:n-1", "cooling", |cooling| cooling["fan"] == true);
    // The word is taken back.
    assert_eq!(runtime.request("DELETE", path, None).0, 204);
    let (_, home) = board.command_like(is_interval(1000));
    board.obey(&home);
    runtime.explained(|told| told["satisfied"] == true && told["cause"] == "default");
    let metrics = runtime.metrics();
    let line = |name: &str| metrics.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(!line("edgetwin_stage_actuator_answer_seconds_count").ends_with(" 0"), "{metrics}");
    assert!(!line("edgetwin_stage_command_seconds_count").ends_with(" 0"), "{metrics}");
}

#[test]
fn about_what_is_held_or_isolated_no_rule_is_heard() {
    let runtime = start(&json!({"hold": "1m"}));
    runtime.apply(&[json!({"kind": "ContextRule", "metadata": {"name": "liar"},
        "spec": {"nodes": {"matchLabels": {"room": "north"}}, "each": true, "when": "x > 90.0",
        "then": {"quarantine": true}, "priority": 1000}})]);
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    runtime.explained(|told| told["satisfied"] == true);
    let hold = "/api/2/things/lab:n-1/features/transmission/desiredProperties/hold";
    assert_eq!(runtime.put(hold, &json!(true)), 201);
    runtime.explained(|told| told["safety"] == "Held");
    board.read(33);
    let refused = |told: &Value, reason: &str| {
        let refused = told["refusals"].as_array().unwrap();
        refused.iter().any(|one| one["reason"] == reason && one["by"] == "look-closer")
    };
    let told = runtime.explained(|told| refused(told, "Held"));
    assert_eq!(told["desired"]["pmin"], 1000);
    // Heard again, the rule raises at once.
    assert_eq!(runtime.request("DELETE", hold, None).0, 204);
    let (_, faster) = board.command_like(is_interval(200));
    board.obey(&faster);
    board.read(91);
    let (_, slower) = board.command_like(is_interval(1000));
    board.obey(&slower);
    let told = runtime.explained(|told| told["safety"] == "Quarantined");
    assert!(refused(&told, "Quarantined"), "{told:#}");
    reported(&runtime, |reported| reported["quarantined"] == true);
    // Its values are kept.
    assert_eq!(runtime.thing("lab:n-1")["features"]["environment"]["properties"]["x"], 91);
    let words = runtime.printed(&["explain", "node", "lab/n-1"]);
    assert!(words.contains("Safety:      Quarantined"), "{words}");
}

/// What the node's rules make of a fact, once it is this.
fn counted(runtime: &Runtime, fact: &str, value: u64) -> Value {
    runtime.explained(|told| {
        let facts = told["facts"].as_array().into_iter().flatten();
        facts
            .into_iter()
            .any(|one| one["fact"] == fact && one["value"].as_f64() == Some(value as f64))
    })
}

#[test]
fn a_window_goes_on_over_kill_nine_and_a_new_rule_finds_what_was_before() {
    let runtime = start(&json!({"when": "count(x, 10m) >= 4"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    (0..3).for_each(|x| board.read(x));
    counted(&runtime, "count(environment/x, 10m)", 3);
    let runtime = runtime.restart();
    board.mqtt.power_off();
    let seq = board.seq;
    let mut board = Board { seq, ..Board::connect(runtime.mqtt, 1) };
    board.state();
    let told = counted(&runtime, "count(environment/x, 10m)", 3);
    assert_eq!(told["rules"][0]["state"], "inactive", "{told:#}");
    board.read(3);
    let (_, faster) = board.command_like(is_interval(200));
    board.obey(&faster);
    let rule = json!({"kind": "ContextRule", "metadata": {"name": "new"}, "spec": {
        "nodes": {"matchLabels": {"room": "north"}}, "each": true,
        "when": "count(x, 20m) >= 4 && avg(x, 20m) == 1.5",
        "then": {"program": "interval", "interval": "500ms"}, "priority": 20}});
    runtime.apply(&[rule]);
    let told = counted(&runtime, "count(environment/x, 20m)", 4);
    let (_, newer) = board.command_like(is_interval(500));
    board.obey(&newer);
    assert!(told["rules"].as_array().unwrap().iter().all(|rule| rule["when"] == true), "{told:#}");
}

/// Whether a twin or what its manifest says of its node is known first must not matter.
#[test]
fn every_node_of_a_set_is_decided_after_apply_wait() {
    let runtime = Runtime::start();
    runtime.write(
        "set.yaml",
        "\
kind: TwinModel
metadata: {name: m}
spec: {features: {environment: {properties: {temperature: {type: number, unit: Cel}}}}}
---
kind: NodeProfile
metadata: {name: p}
spec:
  board: uno
  sensors: [{type: lm35, pin: A0, property: environment/temperature}]
---
kind: TwinSet
metadata: {name: set, namespace: lab}
spec: {count: 100, template: {spec: {model: m, node: {profile: p}}}}
",
    );
    runtime.printed(&["apply", "-f", "set.yaml", "--wait"]);
    let path = "/api/2/things?namespaces=lab&fields=thingId,features/transmission";
    crate::support::eventually(|| {
        let things = runtime.get(path);
        let decided = |thing: &&Value| {
            thing["features"]["transmission"]["desiredProperties"]["generation"] == 1
        };
        let things = things.as_array().cloned().unwrap_or_default();
        let many = things.iter().filter(decided).count();
        if things.len() == 100 && many == 100 { Ok(()) } else { Err(json!([things.len(), many])) }
    });
    let told = runtime.get("/edgetwin/v1/explain/node/lab/set-77");
    assert!(told["sentence"].as_str().unwrap().contains("has not connected yet"), "{told:#}");
}

/// A plain MQTT client that has no profile and never reported its state knows no commands.
#[test]
fn a_plain_client_without_a_profile_gets_no_commands() {
    let runtime = start(&json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.read(33);
    let told = runtime.explained(|told| told["desired"]["pmin"] == 200);
    assert_eq!(told["takesCommands"], false);
    let sentence = told["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("n-1 has no node profile, so no commands are sent to it"),
        "{told:#}"
    );
    assert!(board.command_within(Duration::from_millis(300)).is_none());
    // Once it reports its state it is known to understand them.
    board.state();
    let (_, faster) = board.command_like(is_interval(200));
    board.obey(&faster);
    runtime.explained(|told| told["satisfied"] == true);
}
