//! Commands from the edge to a node: one line of text, parsed and written.
//!
//! Not here: the frame around it on a serial line (`line`), the answer to it ([`super::Ack`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AckStatus, Decimal, Program};

/// Longest command, bytes: what the receive buffer of a board with 2 KB of RAM holds. A longer one
/// is refused as `range` by nodes and as [`BodyError`] here.
pub const BODY_LEN_MAX: usize = 160;

/// Properties that one command may name, in `on=` and in each list of thresholds.
pub const PROPERTIES_MAX: usize = 16;

/// A command to a node: one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Repeating it is harmless: the node repeats its answer, not the action. Never 0, except in
    /// the retained desired transmission.
    pub id: u32,
    /// What to do.
    pub op: Op,
    /// Until when it may be done.
    pub ttl: Option<Ttl>,
}

/// Time to live of a command on the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// For how long, ms.
    pub ms: u32,
    /// From when on, the node's uptime, ms.
    pub from_ms: u32,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Change the transmission of all or some properties.
    Prog(Prog),
    /// Make the current transmission the one that the node starts with.
    Keep,
    /// Renew the lease, nothing else.
    Heartbeat,
    /// Change the lease.
    Lease {
        /// Seconds.
        s: u32,
    },
    /// Send a sample now.
    Get {
        /// Of this property; `None`: of all.
        property: Option<String>,
    },
    /// Run the safe program.
    Safe,
    /// Send samples again, as far as the node still has them.
    Resend {
        /// First sequence number of this boot.
        from: u32,
        /// Last sequence number, included.
        to: u32,
    },
    /// Set the node's clock.
    Time {
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// Send the state.
    Info,
    /// Restart.
    Reset,
    /// Set an actuator.
    Act {
        /// Property.
        property: String,
        /// Value.
        value: ActValue,
    },
    /// Change the period of all properties and nothing else: `pmin` and `pmax`.
    Period {
        /// Milliseconds.
        ms: u32,
    },
    /// Change one `st` threshold.
    Threshold {
        /// Property.
        property: String,
        /// In the property's unit.
        value: Decimal,
    },
    /// Join another network that the node knows.
    Radio {
        /// Its name.
        ssid: String,
    },
}

/// What an actuator is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ActValue {
    /// On or off.
    Bool(bool),
    /// A number in the property's unit.
    Number(Decimal),
}

/// A new transmission: all of it is taken, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prog {
    /// The program.
    pub program: Program,
    /// The properties that it is for; empty: all. Those that are named form a group.
    pub on: Vec<String>,
    /// Least time between messages, ms; `None`: the profile's.
    pub pmin: Option<u32>,
    /// Longest silence, ms; `None`: the profile's.
    pub pmax: Option<u32>,
    /// Thresholds of change by property.
    pub st: Vec<(String, Decimal)>,
    /// Thresholds of crossing by property.
    pub gt: Vec<(String, Decimal)>,
    /// Thresholds of crossing by property.
    pub lt: Vec<(String, Decimal)>,
    /// Seconds after which it is reverted unless `keep` comes.
    pub trial: Option<u32>,
}

impl Prog {
    /// A program for all properties with the profile's periods.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            on: Vec::new(),
            pmin: None,
            pmax: None,
            st: Vec::new(),
            gt: Vec::new(),
            lt: Vec::new(),
            trial: None,
        }
    }
}

impl fmt::Display for ActValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(on) => write!(f, "{on}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prog(prog) => write!(f, "{prog}"),
            Self::Keep => f.write_str("keep"),
            Self::Heartbeat => f.write_str("hb"),
            Self::Lease { s } => write!(f, "lease {s}"),
            Self::Get { property: None } => f.write_str("get"),
            Self::Get { property: Some(property) } => write!(f, "get {property}"),
            Self::Safe => f.write_str("safe"),
            Self::Resend { from, to } => write!(f, "resend {from} {to}"),
            Self::Time { unix_ms } => write!(f, "time {unix_ms}"),
            Self::Info => f.write_str("info"),
            Self::Reset => f.write_str("reset"),
            Self::Act { property, value } => write!(f, "act {property} {value}"),
            Self::Period { ms } => write!(f, "period {ms}"),
            Self::Threshold { property, value } => write!(f, "thr {property} {value}"),
            Self::Radio { ssid } => {
                f.write_str("radio ")?;
                for byte in ssid.bytes() {
                    match byte {
                        b'!'..=b'~' if byte != b'%' => write!(f, "{}", char::from(byte))?,
                        _ => write!(f, "%{byte:02X}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Prog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prog {}", self.program)?;
        if !self.on.is_empty() {
            write!(f, " on={}", self.on.join(","))?;
        }
        match (self.pmin, self.pmax) {
            (Some(pmin), Some(pmax)) if pmin == pmax => write!(f, " period={pmin}")?,
            (pmin, pmax) => {
                if let Some(pmin) = pmin {
                    write!(f, " pmin={pmin}")?;
                }
                if let Some(pmax) = pmax {
                    write!(f, " pmax={pmax}")?;
                }
            }
        }
        for (name, list) in [("st", &self.st), ("gt", &self.gt), ("lt", &self.lt)] {
            for (at, (property, value)) in list.iter().enumerate() {
                let lead = if at == 0 { format!(" {name}=") } else { ",".to_owned() };
                write!(f, "{lead}{property}:{value}")?;
            }
        }
        match self.trial {
            Some(trial) => write!(f, " trial={trial}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Command {
    /// The body; the caller sees to it that it is no longer than [`BODY_LEN_MAX`], or uses
    /// [`Command::encode`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.op)?;
        match self.ttl {
            Some(Ttl { ms, from_ms }) => write!(f, " ttl={ms}@{from_ms}"),
            None => Ok(()),
        }
    }
}

/// Why a text is no command, with the node's answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyError {
    /// The command's id, if that could be read; without one a node does not answer.
    pub id: Option<u32>,
    /// `op` or `range`.
    pub status: AckStatus,
    /// The argument that is wrong, as in the acknowledgement's `why`.
    pub why: &'static str,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            AckStatus::Op => f.write_str("the operation is not known"),
            _ => write!(f, "`{}` is malformed or out of range", self.why),
        }
    }
}

impl std::error::Error for BodyError {}

impl Command {
    /// A command without a time to live.
    pub fn new(id: u32, op: Op) -> Self {
        Self { id, op, ttl: None }
    }

    /// The body to send.
    ///
    /// # Errors
    /// Why a node would not take it: too long, names or values that have no spelling.
    pub fn encode(&self) -> Result<String, BodyError> {
        let body = self.to_string();
        match Self::parse(&body) {
            Ok(parsed) if parsed == *self => Ok(body),
            Ok(_) => Err(BodyError { id: Some(self.id), status: AckStatus::Range, why: "args" }),
            Err(error) => Err(error),
        }
    }

    /// Parses a body.
    ///
    /// # Errors
    /// What a node answers to it; see [`BodyError`].
    pub fn parse(body: &str) -> Result<Self, BodyError> {
        let wrong = |id, why| BodyError { id, status: AckStatus::Range, why };
        let mut words = body.split(' ').filter(|word| !word.is_empty());
        let id = words.next().and_then(number::<u32>).ok_or_else(|| wrong(None, "id"))?;
        if body.len() > BODY_LEN_MAX || !body.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(wrong(Some(id), "length"));
        }
        let name =
            words.next().ok_or(BodyError { id: Some(id), status: AckStatus::Op, why: "op" })?;
        let mut rest: Vec<&str> = words.collect();
        let ttl = match rest.last().and_then(|last| last.strip_prefix("ttl=")) {
            Some(text) => {
                let ttl = text
                    .split_once('@')
                    .and_then(|(ms, from)| Some(Ttl { ms: number(ms)?, from_ms: number(from)? }));
                rest.pop();
                Some(ttl.ok_or_else(|| wrong(Some(id), "ttl"))?)
            }
            None => None,
        };
        let op = parse_op(name, &rest).map_err(|(status, why)| BodyError {
            id: Some(id),
            status,
            why,
        })?;
        Ok(Self { id, op, ttl })
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    // No sign and no blanks, which `parse` would take.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

type Misfit = (AckStatus, &'static str);

fn parse_op(name: &str, rest: &[&str]) -> Result<Op, Misfit> {
    let range = |why| (AckStatus::Range, why);
    let plain = |op| if rest.is_empty() { Ok(op) } else { Err(range("args")) };
    let one = || match rest {
        [one] => Ok(*one),
        _ => Err(range("args")),
    };
    let two = || match rest {
        [first, second] => Ok((*first, *second)),
        _ => Err(range("args")),
    };
    match name {
        "prog" => parse_prog(rest).map(Op::Prog).map_err(range),
        "keep" => plain(Op::Keep),
        "hb" => plain(Op::Heartbeat),
        "lease" => Ok(Op::Lease { s: number(one()?).ok_or(range("lease"))? }),
        "get" if rest.is_empty() => Ok(Op::Get { property: None }),
        "get" => Ok(Op::Get { property: Some(property(one()?).ok_or(range("prop"))?) }),
        "safe" => plain(Op::Safe),
        "resend" => {
            let (from, to) = two()?;
            match (number(from), number(to)) {
                (Some(from), Some(to)) if from <= to => Ok(Op::Resend { from, to }),
                _ => Err(range("resend")),
            }
        }
        "time" => Ok(Op::Time { unix_ms: number(one()?).ok_or(range("time"))? }),
        "info" => plain(Op::Info),
        "reset" => plain(Op::Reset),
        "act" => {
            let (name, value) = two()?;
            let value = match value {
                "true" => ActValue::Bool(true),
                "false" => ActValue::Bool(false),
                number => ActValue::Number(number.parse().map_err(|()| range("value"))?),
            };
            Ok(Op::Act { property: property(name).ok_or(range("prop"))?, value })
        }
        "period" => Ok(Op::Period { ms: number(one()?).ok_or(range("period"))? }),
        "thr" => {
            let (name, value) = two()?;
            let value = value.parse().map_err(|()| range("st"))?;
            Ok(Op::Threshold { property: property(name).ok_or(range("prop"))?, value })
        }
        "radio" => {
            let ssid = percent_encoding::percent_decode_str(one()?).decode_utf8();
            match ssid {
                Ok(ssid) if ssid.len() <= 32 => Ok(Op::Radio { ssid: ssid.into_owned() }),
                _ => Err(range("radio")),
            }
        }
        _ => Err((AckStatus::Op, "op")),
    }
}

/// A property's name: its own, or `feature/property`.
fn property(text: &str) -> Option<String> {
    let fits = |c: u8| {
        (b'!'..=b'~').contains(&c) && !matches!(c, b',' | b':' | b'=' | b'*' | b'"' | b'\\')
    };
    (!text.is_empty() && text.bytes().all(fits)).then(|| text.to_owned())
}

fn parse_prog(rest: &[&str]) -> Result<Prog, &'static str> {
    let (program, settings) = rest.split_first().ok_or("program")?;
    if program.contains('=') {
        return Err("program");
    }
    let mut prog = Prog::new(Program::from(*program));
    for (at, setting) in settings.iter().enumerate() {
        let (key, value) = setting.split_once('=').ok_or("args")?;
        let known = ["on", "period", "pmin", "pmax", "st", "gt", "lt", "trial"];
        let key = *known.iter().find(|name| **name == key).ok_or("args")?;
        let again =
            |key: &str| settings[..at].iter().any(|other| other.split('=').next() == Some(key));
        let clash = match key {
            "period" => again("pmin") || again("pmax"),
            "pmin" | "pmax" => again("period"),
            _ => false,
        };
        if again(key) || clash {
            return Err("args");
        }
        match key {
            "on" => {
                prog.on = value.split(',').map(property).collect::<Option<_>>().ok_or("on")?;
                if prog.on.len() > PROPERTIES_MAX {
                    return Err("on");
                }
            }
            "period" => {
                let ms = Some(number(value).ok_or("period")?);
                (prog.pmin, prog.pmax) = (ms, ms);
            }
            "pmin" => prog.pmin = Some(number(value).ok_or("pmin")?),
            "pmax" => prog.pmax = Some(number(value).ok_or("pmax")?),
            "st" => prog.st = thresholds(value).ok_or("st")?,
            "gt" => prog.gt = thresholds(value).ok_or("gt")?,
            "lt" => prog.lt = thresholds(value).ok_or("lt")?,
            _ => prog.trial = Some(number(value).ok_or("trial")?),
        }
    }
    Ok(prog)
}

fn thresholds(text: &str) -> Option<Vec<(String, Decimal)>> {
    let one = |text: &str| {
        let (name, value) = text.split_once(':')?;
        Some((property(name)?, value.parse().ok()?))
    };
    let all: Vec<_> = text.split(',').map(one).collect::<Option<_>>()?;
    (all.len() <= PROPERTIES_MAX).then_some(all)
}

/// The retained desired transmission on `…/desired`, for a node that was offline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with each change; a node applies one that is newer than the last it applied.
    pub version: u32,
    /// A command's body with id 0.
    pub cmd: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{decimal, name, program, vectors};
    use super::*;

    #[test]
    fn a_command_is_one_line() {
        let command = Command::parse("17 lease 30 ttl=2000@512345").unwrap();
        assert_eq!((command.id, &command.op), (17, &Op::Lease { s: 30 }));
        assert_eq!(command.to_string(), "17 lease 30 ttl=2000@512345");
    }

    #[test]
    fn commands_are_those_of_the_vectors() {
        for vector in vectors("commands") {
            let body = vector["body"].as_str().unwrap();
            match (vector["canonical"].as_str(), Command::parse(body)) {
                (Some(canonical), Ok(command)) => {
                    assert_eq!(command.encode().unwrap(), canonical, "{body}");
                }
                (None, Err(error)) => {
                    assert_eq!(vector["id"].as_u64(), error.id.map(u64::from), "{body}");
                    assert_eq!(vector["st"], error.status.as_str(), "{body}");
                    assert_eq!(vector["why"], error.why, "{body}");
                }
                (_, read) => panic!("{body}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_command_that_has_no_spelling_is_not_encoded() {
        let get = |name: &str| Command::new(1, Op::Get { property: Some(name.to_owned()) });
        assert!(get("a b").encode().is_err());
        assert!(get("").encode().is_err());
        assert_eq!(get(&"x".repeat(200)).encode().unwrap_err().why, "length");
        assert!(get("soil/temperature").encode().is_ok());
    }

    fn op() -> impl Strategy<Value = Op> {
        let list = || proptest::collection::vec((name(), decimal()), 0..2);
        let prog = (
            program(),
            proptest::collection::vec(name(), 0..3),
            proptest::option::of(any::<u32>()),
            proptest::option::of(any::<u32>()),
            list(),
            list(),
            proptest::option::of(any::<u32>()),
        )
            .prop_map(|(program, on, pmin, pmax, st, gt, trial)| {
                Op::Prog(Prog { program, on, pmin, pmax, st, gt, lt: Vec::new(), trial })
            });
        prop_oneof![
            prog,
            Just(Op::Keep),
            Just(Op::Heartbeat),
            any::<u32>().prop_map(|s| Op::Lease { s }),
            proptest::option::of(name()).prop_map(|property| Op::Get { property }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(a, b)| Op::Resend { from: a.min(b), to: a.max(b) }),
            any::<u64>().prop_map(|unix_ms| Op::Time { unix_ms }),
            (name(), any::<bool>())
                .prop_map(|(property, on)| Op::Act { property, value: ActValue::Bool(on) }),
            (name(), decimal())
                .prop_map(|(property, value)| Op::Act { property, value: ActValue::Number(value) }),
            (name(), decimal()).prop_map(|(property, value)| Op::Threshold { property, value }),
            "[ -~ä]{1,20}".prop_map(|ssid| Op::Radio { ssid }),
        ]
    }

    proptest! {
        #[test]
        fn a_command_is_read_back(
            id in any::<u32>(),
            op in op(),
            ttl in proptest::option::of((any::<u32>(), any::<u32>())),
        ) {
            let ttl = ttl.map(|(ms, from_ms)| Ttl { ms, from_ms });
            let command = Command { id, op, ttl };
            if command.to_string().len() <= BODY_LEN_MAX {
                prop_assert_eq!(Command::parse(&command.encode().unwrap()), Ok(command));
            }
        }

        #[test]
        fn no_body_makes_parsing_panic(body in "[ -~]{0,170}") {
            drop(Command::parse(&body));
        }
    }
}
