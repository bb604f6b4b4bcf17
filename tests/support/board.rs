//! A node that keeps to the protocol, as a plain MQTT client: `lab:n-1`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edgetwin::testing::{Command, Op};
use rumqttc::{LastWill, QoS};
use serde_json::{Value, json};

use super::PATIENCE;
use super::mqtt::Client;

/// It answers an id that it had with the answer of the first time.
pub(crate) struct Board {
    pub(crate) mqtt: Client,
    pub(crate) boot: u32,
    pub(crate) seq: u32,
    pub(crate) tx: Value,
    pub(crate) version: u64,
    pub(crate) answers: HashMap<u32, Value>,
    /// How often each command was carried out.
    pub(crate) done: HashMap<u32, u32>,
}

impl Board {
    pub(crate) fn connect(broker: SocketAddr, boot: u32) -> Self {
        let will = json!({"up": 0, "boot": boot}).to_string();
        let will = LastWill::new("et/v1/lab/n-1/state", will, QoS::AtLeastOnce, true);
        let topics = ["et/v1/lab/n-1/cmd", "et/v1/lab/n-1/desired"];
        let mqtt = Client::connect(broker, "board-1", Some(will), &topics);
        let tx = json!({"program": "interval", "pmin": 1000, "pmax": 1000, "kept": 1});
        let (answers, done) = (HashMap::new(), HashMap::new());
        Self { mqtt, boot, seq: 0, tx, version: 0, answers, done }
    }

    fn publish(&self, leaf: &str, payload: &Value) {
        self.mqtt.publish(&format!("et/v1/lab/n-1/{leaf}"), leaf == "state", payload);
    }

    /// Sends its retained state.
    pub(crate) fn state(&self) {
        self.publish(
            "state",
            &json!({"k": "b", "up": 1, "boot": self.boot, "ms": 10, "lease": 60, "lost": 0,
                "tx": self.tx, "version": self.version}),
        );
    }

    /// Sends a reading.
    pub(crate) fn read(&mut self, x: u32) {
        self.seq += 1;
        self.publish(
            "data",
            &json!({"k": "s", "boot": self.boot, "seq": self.seq, "ms": 20, "program": "interval",
                "environment": {"x": x}}),
        );
    }

    /// The next message: the topic's last level and the payload.
    #[track_caller]
    pub(crate) fn message(&self) -> (String, String) {
        let (topic, text) = self.mqtt.messages.recv_timeout(PATIENCE).unwrap();
        (topic.rsplit('/').next().unwrap().to_owned(), text)
    }

    /// The next command, heartbeats left out; it is not answered yet.
    #[track_caller]
    pub(crate) fn command(&self) -> (String, Command) {
        self.command_within(PATIENCE).unwrap()
    }

    /// The same, or nothing if none comes in time.
    pub(crate) fn command_within(&self, patience: Duration) -> Option<(String, Command)> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (topic, text) = self.mqtt.messages.recv_timeout(left).ok()?;
            if !topic.ends_with("/cmd") {
                continue;
            }
            let command = Command::parse(&text).unwrap();
            if command.op != Op::Heartbeat {
                return Some((text, command));
            }
        }
    }

    /// The next command of which this is true; others are carried out and answered.
    #[track_caller]
    pub(crate) fn command_like(&mut self, wanted: impl Fn(&Op) -> bool) -> (String, Command) {
        loop {
            let (text, command) = self.command();
            if wanted(&command.op) {
                return (text, command);
            }
            self.obey(&command);
        }
    }

    /// Carries a command out, once, and answers.
    pub(crate) fn obey(&mut self, command: &Command) {
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

    /// Answers that a value is out of its range.
    pub(crate) fn refuse(&mut self, command: &Command, why: &str) {
        let answer = json!({"k": "a", "boot": self.boot, "ms": 30, "id": command.id,
            "st": "range", "why": why});
        self.answers.insert(command.id, answer.clone());
        self.publish("ack", &answer);
    }
}

/// Whether it is a program that sends every so many milliseconds.
pub(crate) fn is_interval(ms: u32) -> impl Fn(&Op) -> bool {
    move |op| matches!(op, Op::Prog(prog) if prog.pmin == Some(ms))
}
