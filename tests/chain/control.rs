//! The way back up: a verdict makes a rule change how a node talks, over real sockets. The node
//! here is a plain MQTT client that speaks the protocol.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use edgetwin::wire::{Command, Op};
use rumqttc::{Client, Event, LastWill, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::{PATIENCE, Runtime, edgetwin, judge_inside, model};

/// A node that keeps to the protocol: it answers an id it had with the answer of the first time.
struct Board {
    client: Client,
    messages: Receiver<(String, String)>,
    boot: u32,
    seq: u32,
    tx: Value,
    version: u64,
    answers: HashMap<u32, Value>,
    /// How often each command was carried out.
    done: HashMap<u32, u32>,
    power: Arc<AtomicBool>,
}

impl Board {
    fn connect(broker: SocketAddr, boot: u32) -> Self {
        let mut options = MqttOptions::new("board-1", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(30));
        let will = json!({"up": 0, "boot": boot}).to_string();
        options.set_last_will(LastWill::new("et/v1/lab/n-1/state", will, QoS::AtLeastOnce, true));
        let (client, mut connection) = Client::new(options, 1000);
        for leaf in ["cmd", "desired"] {
            client.subscribe(format!("et/v1/lab/n-1/{leaf}"), QoS::AtLeastOnce).unwrap();
        }
        let (tell, messages) = channel();
        let (ready, subscribed) = channel();
        let power = Arc::new(AtomicBool::new(true));
        let on = power.clone();
        std::thread::spawn(move || {
            while on.load(Ordering::Relaxed) {
                let Ok(event) = connection.recv_timeout(Duration::from_millis(20)) else {
                    continue;
                };
                // Whoever does not listen any more does not miss it.
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let text = String::from_utf8(message.payload.to_vec()).unwrap();
                        let leaf = message.topic.rsplit('/').next().unwrap().to_owned();
                        drop(tell.send((leaf, text)));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        (0..2).for_each(|_| subscribed.recv_timeout(PATIENCE).unwrap());
        let tx = json!({"program": "interval", "pmin": 1000, "pmax": 1000, "kept": 1});
        let (answers, done) = (HashMap::new(), HashMap::new());
        Self { client, messages, boot, seq: 0, tx, version: 0, answers, done, power }
    }

    fn publish(&self, leaf: &str, payload: &Value) {
        let topic = format!("et/v1/lab/n-1/{leaf}");
        let retain = leaf == "state";
        // Nobody need be there to hear it.
        drop(self.client.publish(topic, QoS::AtLeastOnce, retain, payload.to_string()));
    }

    fn state(&self) {
        self.publish(
            "state",
            &json!({"k": "b", "up": 1, "boot": self.boot, "ms": 10, "lease": 60, "lost": 0,
                "tx": self.tx, "version": self.version}),
        );
    }

    fn read(&mut self, x: u32) {
        self.seq += 1;
        self.publish(
            "data",
            &json!({"k": "s", "boot": self.boot, "seq": self.seq, "ms": 20, "program": "interval",
                "environment": {"x": x}}),
        );
    }

    /// The next command, heartbeats left out; it is not answered yet.
    fn command(&self) -> (String, Command) {
        self.command_within(PATIENCE).unwrap()
    }

    fn command_within(&self, patience: Duration) -> Option<(String, Command)> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (leaf, text) = self.messages.recv_timeout(left).ok()?;
            if leaf != "cmd" {
                continue;
            }
            let command = Command::parse(&text).unwrap();
            if command.op != Op::Heartbeat {
                return Some((text, command));
            }
        }
    }

    /// The next command of which this is true; others are carried out and answered.
    fn command_like(&mut self, wanted: impl Fn(&Op) -> bool) -> (String, Command) {
        loop {
            let (text, command) = self.command();
            if wanted(&command.op) {
                return (text, command);
            }
            self.obey(&command);
        }
    }

    /// Carries a command out, once, and answers.
    fn obey(&mut self, command: &Command) {
        if let Some(answer) = self.answers.get(&command.id) {
            let mut again = answer.clone();
            again["dup"] = 1.into();
            return self.publish("ack", &again);
        }
        *self.done.entry(command.id).or_default() += 1;
        let mut answer = json!({"k": "a", "boot": self.boot, "ms": 30, "id": command.id,
            "st": "ok", "lease": 60});
        match &command.op {
            Op::Prog(prog) => {
                self.tx = json!({"program": prog.program, "pmin": prog.pmin, "pmax": prog.pmax,
                    "kept": u8::from(prog.trial.is_none())});
                answer["tx"] = self.tx.clone();
            }
            Op::Keep => {
                self.tx["kept"] = 1.into();
                answer["tx"] = self.tx.clone();
            }
            Op::Act { property, value } => answer["act"] = json!({ property.as_str(): value }),
            _ => {}
        }
        self.answers.insert(command.id, answer.clone());
        self.publish("ack", &answer);
    }

    fn refuse(&mut self, command: &Command, why: &str) {
        let answer = json!({"k": "a", "boot": self.boot, "ms": 30, "id": command.id,
            "st": "range", "why": why});
        self.answers.insert(command.id, answer.clone());
        self.publish("ack", &answer);
    }
}

impl Runtime {
    fn told(&self, arguments: &[&str]) -> String {
        let server = format!("http://{}", self.http);
        let run = edgetwin()
            .args(arguments)
            .args(["--server", &server])
            .stdout(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8(run.stdout).unwrap();
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        said
    }

    /// Why the node talks as it does, once `wanted` holds for it.
    fn explained(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, told) = self.request("GET", "/edgetwin/v1/explain/node/lab/n-1", None);
            if status == 200 && wanted(&told) {
                return told;
            }
            assert!(Instant::now() < deadline, "{told:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the twin says of how its node talks, once `wanted` holds for it.
    fn reported(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let thing = self.thing("lab:n-1");
            let reported = &thing["features"]["transmission"]["properties"];
            if wanted(reported) {
                return reported.clone();
            }
            assert!(Instant::now() < deadline, "{thing:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn commands(&self) -> Vec<Value> {
        let list = self.request("GET", "/edgetwin/v1/commands?namespace=lab", None).1;
        list["items"].as_array().unwrap().clone()
    }
}

fn is_interval(ms: u32) -> impl Fn(&Op) -> bool {
    move |op| matches!(op, Op::Prog(prog) if prog.pmin == Some(ms))
}

/// A node whose readings of 20 and more are `high`, and a rule about it.
fn start(directory: &Path, times: &Value) -> Runtime {
    let runtime = Runtime::start(directory);
    let mut objects = judge_inside(&model(directory));
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
    runtime.apply(directory, &objects);
    // What is applied becomes a twin and a node a moment later; who is not known yet is not heard.
    let server = format!("http://{}", runtime.http);
    let wait = ["wait", "all", "-A", "--server", &server];
    assert!(edgetwin().args(wait).status().unwrap().success());
    runtime.explained(|_| true);
    runtime
}

#[test]
fn a_verdict_makes_a_node_talk_faster_and_after_hold_slower_again() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = start(directory.path(), &json!({"for": "300ms", "hold": "2s"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    runtime.explained(|told| told["satisfied"] == true);
    board.read(33);
    let read = Instant::now();
    let (_, faster) = board.command_like(is_interval(200));
    assert!(read.elapsed() >= Duration::from_millis(300), "not before `for` is over");
    let told = runtime.explained(|told| told["command"]["status"]["state"] == "Sent");
    assert!(told["sentence"].as_str().unwrap().contains("because `look-closer` holds"), "{told:#}");
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["transmission"]["desiredProperties"]["pmin"], 200);
    assert_eq!(thing["features"]["transmission"]["properties"]["pmin"], 1000);
    board.obey(&faster);
    runtime.explained(|told| told["satisfied"] == true);
    let reported = runtime.reported(|reported| reported["pmin"] == 200);
    assert_eq!(reported["command"], faster.id);
    // One trace from the reading to what the node reports.
    assert_eq!(reported["trace"], told["trace"]);
    let commands = runtime.commands();
    let mine = commands.iter().find(|one| one["spec"]["id"] == faster.id).unwrap();
    assert_eq!(mine["spec"]["trace"], told["trace"]);
    let events = runtime.told(&["events", "-n", "lab"]);
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
    let table = runtime.told(&["get", "commands", "-n", "lab", "-o", "wide"]);
    assert!(table.contains("look-closer") && table.contains("Applied"), "{table}");
    let words = runtime.told(&["explain", "node", "lab/n-1"]);
    assert!(words.starts_with("n-1 sends every 1 s since "), "{words}");
    let described = runtime.told(&["describe", "cr", "look-closer"]);
    assert!(described.contains("Ready True") && described.contains("InForce"), "{described}");
}

#[test]
fn a_command_survives_kill_nine_under_its_id_and_is_carried_out_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut runtime = start(directory.path(), &json!({"hold": "1m"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(33);
    let (_, faster) = board.command_like(is_interval(200));
    // Carried out, and the answer is lost with the runtime.
    runtime.process.kill();
    board.obey(&faster);
    let runtime = Runtime::start(directory.path());
    let (tx, answers, done) = (board.tx.clone(), board.answers.clone(), board.done.clone());
    board.power.store(false, Ordering::Relaxed);
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
    let commands = runtime.commands();
    let found: Vec<&Value> = commands.iter().filter(of_id).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["status"]["state"], "Applied");
}

#[test]
fn what_a_node_refuses_is_shown_and_not_said_again() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = start(directory.path(), &json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(33);
    let (_, faster) = board.command_like(is_interval(200));
    board.refuse(&faster, "pmin");
    let told = runtime.explained(|told| told["command"]["status"]["state"] == "Rejected");
    let why = "the node says that a value is out of its range: pmin";
    assert_eq!(told["command"]["status"]["reason"], why);
    assert!(told["sentence"].as_str().unwrap().contains(why), "{told:#}");
    board.read(34);
    assert!(board.command_within(Duration::from_millis(1500)).is_none());
    assert!(runtime.told(&["events", "-n", "lab"]).contains("CommandRejected"));
}

#[test]
fn a_node_that_was_away_gets_the_newest_once() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = start(directory.path(), &json!({}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    board.read(3);
    runtime.explained(|told| told["satisfied"] == true);
    // Gone without a word: the will says so.
    board.power.store(false, Ordering::Relaxed);
    let path = "/api/2/things/lab:n-1/features/transmission/desiredProperties";
    runtime.explained(|told| told["presence"]["state"] == "away");
    for ms in [300, 400, 500] {
        assert_eq!(runtime.put(path, &json!({"program": "interval", "interval": ms})), 204);
        runtime.explained(|told| told["desired"]["pmin"] == ms);
    }
    let mut board = Board::connect(runtime.mqtt, 2);
    // On a busy machine the last may still be on its way when the node is back.
    let retained = loop {
        let (leaf, text) = board.messages.recv_timeout(PATIENCE).unwrap();
        assert_eq!(leaf, "desired", "nothing is said to a node that is away: {text}");
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
    let directory = tempfile::tempdir().unwrap();
    let runtime = start(directory.path(), &json!({}));
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
    let deadline = Instant::now() + PATIENCE;
    while runtime.thing("lab:n-1")["features"]["cooling"]["properties"]["fan"] != true {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
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
    let directory = tempfile::tempdir().unwrap();
    let runtime = start(directory.path(), &json!({"hold": "1m"}));
    runtime.apply(
        directory.path(),
        &[json!({"kind": "ContextRule", "metadata": {"name": "liar"},
        "spec": {"nodes": {"matchLabels": {"room": "north"}}, "each": true, "when": "x > 90.0",
        "then": {"quarantine": true}, "priority": 1000}})],
    );
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
    runtime.reported(|reported| reported["quarantined"] == true);
    // Its values are kept.
    assert_eq!(runtime.thing("lab:n-1")["features"]["environment"]["properties"]["x"], 91);
    let words = runtime.told(&["explain", "node", "lab/n-1"]);
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
    let directory = tempfile::tempdir().unwrap();
    let mut runtime = start(directory.path(), &json!({"when": "count(x, 10m) >= 4"}));
    let mut board = Board::connect(runtime.mqtt, 1);
    board.state();
    (0..3).for_each(|x| board.read(x));
    counted(&runtime, "count(environment/x, 10m)", 3);
    runtime.process.kill();
    let runtime = Runtime::start(directory.path());
    board.power.store(false, Ordering::Relaxed);
    let seq = board.seq;
    let mut board = Board { seq, ..Board::connect(runtime.mqtt, 1) };
    board.state();
    let told = counted(&runtime, "count(environment/x, 10m)", 3);
    assert_eq!(told["rules"][0]["state"], "does not hold", "{told:#}");
    board.read(3);
    let (_, faster) = board.command_like(is_interval(200));
    board.obey(&faster);
    let rule = json!({"kind": "ContextRule", "metadata": {"name": "new"}, "spec": {
        "nodes": {"matchLabels": {"room": "north"}}, "each": true,
        "when": "count(x, 20m) >= 4 && avg(x, 20m) == 1.5",
        "then": {"program": "interval", "interval": "500ms"}, "priority": 20}});
    runtime.apply(directory.path(), &[rule]);
    let told = counted(&runtime, "count(environment/x, 20m)", 4);
    let (_, newer) = board.command_like(is_interval(500));
    board.obey(&newer);
    assert!(told["rules"].as_array().unwrap().iter().all(|rule| rule["when"] == true), "{told:#}");
}
