//! What firmware and the edge say to each other, byte for byte. Pure.
//!
//! Uplink: one JSON object a message, its kind in `k`: `s` sample (`…/data`), `f` features
//! (`…/feat`), `a` acknowledgement (`…/ack`), `x` event (`…/event`), `b` boot or state
//! (`…/state`). Downlink: a [`Command`], one line of at most [`BODY_LEN_MAX`] ASCII bytes,
//! `17 prog interval period=200 trial=8`. On a serial line both are framed with a checksum:
//! `{…}*CCCC` up, `!body*CCCC` down.
//!
//! Members are written in one order, so that both sides make the same bytes of the same message;
//! `tests/firmware/vectors/` holds examples that this module and the C++ of the firmware replay.
//! Reading is lenient: any order, unknown members ignored, since newer firmware may say more.
//!
//! Not here: what a model takes (`node::decode`), when to send what (`cacc`).

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use super::Leaf;

/// Longest command, bytes: what the receive buffer of a board with 2 KB of RAM holds. A longer one
/// is refused as `range` by nodes and as [`BodyError`] here.
pub const BODY_LEN_MAX: usize = 160;
/// Longest framed line, bytes, that the edge takes from a serial node. Firmware computes its own,
/// shorter, worst case.
pub const LINE_LEN_MAX: usize = 4096;
/// Members of a data message that are no properties; a model cannot name a property so.
pub const RESERVED: [&str; 7] = ["k", "boot", "seq", "ms", "program", "old", "time"];
/// Properties that one command may name, in `on=` and in each list of thresholds.
pub const PROPERTIES_MAX: usize = 16;
/// Received signals that a node may report, dBm: from below what LoRa still hears.
pub const RSSI: RangeInclusive<i64> = -200..=-1;

// ---------------------------------------------------------------------------------------------
// Scalars

/// A decimal number with at most six places, exact: thresholds and actuator values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal {
    millionths: i64,
}

/// Greatest magnitude of a [`Decimal`]: what a node's 32-bit fixed point holds without places.
pub const DECIMAL_MAX: i64 = 2_147_483_647;

impl Decimal {
    /// The nearest decimal; `None` for what is no number or beyond [`DECIMAL_MAX`].
    pub fn from_f64(number: f64) -> Option<Self> {
        let scaled = (number * 1e6).round();
        // NaN fails the comparison too.
        (scaled.abs() <= DECIMAL_MAX as f64 * 1e6).then_some(Self { millionths: scaled as i64 })
    }

    /// The nearest floating-point number.
    pub fn as_f64(self) -> f64 {
        self.millionths as f64 / 1e6
    }

    /// The number times 10^`places` (0 to 6), rounded half away from zero: a node's fixed point.
    pub fn scaled(self, places: u8) -> i64 {
        let unit = 10_i64.pow(u32::from(6 - places.min(6)));
        let half = if self.millionths < 0 { -unit / 2 } else { unit / 2 };
        (self.millionths + half) / unit
    }

    /// `units` / 10^`places` (0 to 6).
    pub fn from_scaled(units: i64, places: u8) -> Self {
        Self { millionths: units * 10_i64.pow(u32::from(6 - places.min(6))) }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.millionths < 0 { "-" } else { "" };
        let (whole, part) = (
            self.millionths.unsigned_abs() / 1_000_000,
            self.millionths.unsigned_abs() % 1_000_000,
        );
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let places = format!("{part:06}");
        write!(f, "{sign}{whole}.{}", places.trim_end_matches('0'))
    }
}

impl FromStr for Decimal {
    type Err = ();

    /// `-?DIGITS[.DIGITS]`, one to six places.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(part) || part.len() > 6 || whole.len() > 10 {
            return Err(());
        }
        let whole: i64 = whole.parse().map_err(drop)?;
        let part: i64 = format!("{part:0<6}").parse().map_err(drop)?;
        let millionths = whole * 1_000_000 + part;
        if millionths > DECIMAL_MAX * 1_000_000 {
            return Err(());
        }
        Ok(Self { millionths: if negative { -millionths } else { millionths } })
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.millionths % 1_000_000 == 0 {
            serializer.serialize_i64(self.millionths / 1_000_000)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::from_f64(number).ok_or_else(|| D::Error::custom("the number is too large"))
    }
}

/// Named values in the order in which they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs<T>(pub Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pairs<T> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<T: Serialize> Serialize for Pairs<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

/// A flag is 0 or 1 on the wire.
mod flag {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(*flag))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        Ok(u64::deserialize(from)? != 0)
    }
}

/// A flag that may be missing.
mod maybe_flag {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        flag: &Option<bool>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(*flag == Some(true)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<bool>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(|flag| flag != 0))
    }
}

fn within<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    from: D,
    range: RangeInclusive<i64>,
) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<i64>::deserialize(from)? else { return Ok(None) };
    let fits = Some(number).filter(|number| range.contains(number));
    let fits = fits.and_then(|number| T::try_from(number).ok()).map(Some);
    fits.ok_or_else(|| {
        D::Error::custom(format!("{number} is not from {} to {}", range.start(), range.end()))
    })
}

fn dbm<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i16>, D::Error> {
    within(from, RSSI)
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    within(from, 0..=100)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Declares an enum of wire words with `as_str`, `FromStr` and serde; a word that is not known is
/// kept as it is.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// As written on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(String::deserialize(deserializer)?.as_str().into())
            }
        }
    };
}

words! {
    /// A data-transmission program in a node's firmware.
    Program {
        /// A sample every period.
        Interval = "interval",
        /// A sample when a value changed by a threshold or crossed one.
        OnChange = "on-change",
        /// A sample when asked.
        OnRequest = "on-request",
        /// Minimum, maximum, mean and variance over each period.
        Features = "features",
    }
}

words! {
    /// What a node answers to a command.
    AckStatus {
        /// Done.
        Ok = "ok",
        /// A value is outside what the node can do, or malformed; nothing was changed.
        Range = "range",
        /// No such operation here.
        Op = "op",
        /// The checksum was wrong.
        Crc = "crc",
        /// Not now.
        Busy = "busy",
        /// Past its time to live.
        Late = "late",
        /// Not permitted.
        Denied = "denied",
    }
}

words! {
    /// What a node reports by itself.
    EventKind {
        /// Nothing came from the edge for a whole lease: the safe program runs.
        Lease = "lease",
        /// Samples were overwritten before they were sent; `lost` counts them since boot.
        Overflow = "overflow",
        /// A sensor does not answer; `why` names its property.
        Fault = "fault",
        /// A trial ended without `keep`.
        Reverted = "reverted",
        /// The safe program runs, for the reason in `why`.
        Safe = "safe",
        /// New firmware is being taken; sampling stops.
        Updating = "updating",
    }
}

words! {
    /// Why a node started.
    Cause {
        /// Power came.
        Power = "power",
        /// The reset pin, or the `reset` command.
        External = "ext",
        /// The watchdog.
        Watchdog = "wdt",
        /// The supply fell too low.
        Brownout = "brown",
    }
}

// ---------------------------------------------------------------------------------------------
// Transmission

/// How a node talks, as it reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tx {
    /// The program of all properties that are in no group of their own.
    pub program: Program,
    /// Least time between messages, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmin: Option<u32>,
    /// Longest silence, ms; 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmax: Option<u32>,
    /// Send on a change by this much since the last value sent, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub st: Pairs<Decimal>,
    /// Send on crossing this value, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub gt: Pairs<Decimal>,
    /// Send on crossing this value, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub lt: Pairs<Decimal>,
    /// Whether this is what the node starts with.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_flag")]
    pub kept: Option<bool>,
    /// Properties with a transmission of their own: the names joined by commas, as in `on=`.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub groups: Pairs<Tx>,
}

impl Tx {
    /// A transmission of all properties with no thresholds.
    pub fn new(program: Program, pmin: Option<u32>, pmax: Option<u32>) -> Self {
        let (st, gt, lt) = Default::default();
        Self { program, pmin, pmax, st, gt, lt, kept: None, groups: Pairs::default() }
    }
}

// ---------------------------------------------------------------------------------------------
// Commands

/// A command to a node: one line.
///
/// ```
/// use edgetwin::node::wire::{Command, Op};
/// let command = Command::parse("17 lease 30 ttl=2000@512345").unwrap();
/// assert_eq!((command.id, &command.op), (17, &Op::Lease { s: 30 }));
/// assert_eq!(command.to_string(), "17 lease 30 ttl=2000@512345");
/// ```
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
    /// Make the present transmission the one that the node starts with.
    Keep,
    /// Nothing but a renewed lease.
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
    /// Tell the time.
    Time {
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// Send the state.
    Info,
    /// Start anew.
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

/// The retained desired transmission on `…/desired`, for a node that was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with each change; a node applies one that is newer than the last it applied.
    pub version: u32,
    /// A command's body with id 0.
    pub cmd: String,
}

// ---------------------------------------------------------------------------------------------
// Uplink

/// A message of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Uplink {
    /// `…/data`.
    Sample(Sample),
    /// `…/feat`.
    Features(Features),
    /// `…/ack`.
    Ack(Ack),
    /// `…/event`.
    Event(Event),
    /// `…/state`.
    State(State),
}

/// Values of one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Boot counter.
    pub boot: u32,
    /// Counts samples and features of this boot.
    pub seq: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// The program that sent it.
    pub program: String,
    /// Sent later than measured.
    pub old: bool,
    /// When it was measured, milliseconds since 1970: of an old one, if the node was told the time.
    pub time: Option<u64>,
    /// The values.
    pub values: Vec<Measured>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The feature, where the property's name alone is ambiguous.
    pub feature: Option<String>,
    /// The property.
    pub property: String,
    /// The value.
    pub value: Value,
}

/// What a node computed over a period.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Boot counter.
    pub boot: u32,
    /// Counts samples and features of this boot.
    pub seq: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// The program that sent it.
    pub program: String,
    /// Sent later than measured.
    pub old: bool,
    /// When it was measured, milliseconds since 1970: of an old one, if the node was told the time.
    pub time: Option<u64>,
    /// How many samples it is made of.
    pub n: u32,
    /// By property.
    pub values: Vec<PropertyStats>,
}

/// What a node computed of one property.
#[derive(Debug, Clone, PartialEq)]
pub struct PropertyStats {
    /// The feature, where the property's name alone is ambiguous.
    pub feature: Option<String>,
    /// The property.
    pub property: String,
    /// The numbers.
    pub stats: Stats,
}

/// Minimum, maximum, mean and variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Least value.
    pub min: Number,
    /// Greatest value.
    pub max: Number,
    /// Mean.
    pub mean: Number,
    /// Variance of the values (of the population), in the unit squared.
    pub var: Number,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Boot counter.
    pub boot: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// The command's.
    pub id: u32,
    /// What became of it.
    pub st: AckStatus,
    /// The command came again; this is the answer of the first time, with the present values.
    #[serde(default, skip_serializing_if = "is_false", with = "flag")]
    pub dup: bool,
    /// The argument that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The lease, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u32>,
    /// Seconds until the transmission is reverted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<u32>,
    /// The received signal, dBm; see [`RSSI`]. Firmware says it in answers to `hb` and
    /// `info` only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "dbm")]
    pub rssi: Option<i16>,
    /// What is left in the battery, percent, 0 to 100. Said as the signal is.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "percent")]
    pub battery: Option<u8>,
    /// The transmission that the node has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
    /// What an actuator is set to now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Pairs<ActValue>>,
}

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Boot counter.
    pub boot: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// What happened.
    pub ev: EventKind,
    /// Samples overwritten before they were sent, since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u32>,
    /// More about it, a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The transmission, if the event changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
}

/// What a node is; retained. The last will is `{"up":0,"boot":…}`.
///
/// Any MQTT client may publish one for itself: `up` and `boot` are all that it needs.
///
/// ```
/// use edgetwin::node::{Leaf, wire::Uplink};
/// let read = |payload: &str| Uplink::decode_as(&Leaf::State, payload.as_bytes());
/// let Ok(Some(Uplink::State(state))) = read(r#"{"up":1,"boot":4,"rssi":-61,"battery":83}"#) else {
///     panic!("it is a state");
/// };
/// assert_eq!((state.rssi, state.battery), (Some(-61), Some(83)));
/// assert!(read(r#"{"up":1,"boot":4,"rssi":61}"#).is_err(), "it is negative");
/// assert!(read(r#"{"up":1,"boot":4,"battery":101}"#).is_err(), "it is a share");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether it is there.
    #[serde(with = "flag")]
    pub up: bool,
    /// Boot counter. A will can arrive after the next boot: compare these, not the order.
    pub boot: u32,
    /// The node's uptime, ms; wraps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u32>,
    /// What the firmware was generated from, a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The NodeProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// Why it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Samples overwritten before they were sent, since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u32>,
    /// The lease, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u32>,
    /// The received signal, dBm; see [`RSSI`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "dbm")]
    pub rssi: Option<i16>,
    /// What is left in the battery, percent, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "percent")]
    pub battery: Option<u8>,
    /// How it talks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
    /// The version of the desired transmission that it applied; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The gateway that speaks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// Why a message of a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkError {
    /// Not JSON, or not of the shape that its kind has; what the parser says.
    Malformed(String),
    /// `k` is none of `s`, `f`, `a`, `x`, `b`.
    Kind(String),
}

impl fmt::Display for UplinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "not a node's message: {why}"),
            Self::Kind(kind) => write!(f, "no message is of the kind `{kind}`"),
        }
    }
}

impl std::error::Error for UplinkError {}

fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, UplinkError> {
    serde_json::from_slice(text).map_err(|error| UplinkError::Malformed(error.to_string()))
}

#[derive(Deserialize)]
struct KindOf {
    k: Option<String>,
}

impl Uplink {
    /// The topic's leaf.
    pub fn leaf(&self) -> Leaf {
        match self {
            Self::Sample(_) => Leaf::Data,
            Self::Features(_) => Leaf::Features,
            Self::Ack(_) => Leaf::Ack,
            Self::Event(_) => Leaf::Event,
            Self::State(_) => Leaf::State,
        }
    }

    /// The leaf of a line by its `k`, without reading the rest.
    ///
    /// # Errors
    /// [`UplinkError`].
    pub fn leaf_of(line: &str) -> Result<Leaf, UplinkError> {
        let kind = from_json::<KindOf>(line.as_bytes())?.k.unwrap_or_default();
        match kind.as_str() {
            "s" => Ok(Leaf::Data),
            "f" => Ok(Leaf::Features),
            "a" => Ok(Leaf::Ack),
            "x" => Ok(Leaf::Event),
            "b" => Ok(Leaf::State),
            _ => Err(UplinkError::Kind(kind.chars().take(20).collect())),
        }
    }

    /// Reads a line whose `k` says what it is.
    ///
    /// # Errors
    /// [`UplinkError`].
    pub fn decode(line: &str) -> Result<Self, UplinkError> {
        let leaf = Self::leaf_of(line)?;
        let read = Self::decode_as(&leaf, line.as_bytes())?;
        read.ok_or_else(|| UplinkError::Kind(String::new()))
    }

    /// Reads a payload by its topic's leaf; `None` for a leaf that nodes do not publish.
    ///
    /// # Errors
    /// [`UplinkError`].
    pub fn decode_as(leaf: &Leaf, payload: &[u8]) -> Result<Option<Self>, UplinkError> {
        Ok(Some(match leaf {
            Leaf::Data => Self::Sample(from_json(payload)?),
            Leaf::Features => Self::Features(from_json(payload)?),
            Leaf::Ack => Self::Ack(from_json(payload)?),
            Leaf::Event => Self::Event(from_json(payload)?),
            Leaf::State => Self::State(from_json(payload)?),
            _ => return Ok(None),
        }))
    }

    /// The line, as firmware writes it.
    pub fn encode(&self) -> String {
        let (kind, body) = match self {
            Self::Sample(sample) => ("s", serde_json::to_string(sample)),
            Self::Features(features) => ("f", serde_json::to_string(features)),
            Self::Ack(ack) => ("a", serde_json::to_string(ack)),
            Self::Event(event) => ("x", serde_json::to_string(event)),
            Self::State(state) => ("b", serde_json::to_string(state)),
        };
        // Names and numbers only: there is nothing in it that JSON has no spelling for.
        let body = body.unwrap_or_else(|_| unreachable!("a message has a JSON form"));
        format!("{{\"k\":\"{kind}\",{}", &body[1..])
    }
}

/// Calls `put` for each value, grouped below its feature where it names one.
fn nest<M: SerializeMap, T: Serialize>(
    map: &mut M,
    values: &[(Option<&str>, &str, T)],
) -> Result<(), M::Error> {
    struct Group<'a, T>(&'a [(Option<&'a str>, &'a str, T)]);
    impl<T: Serialize> Serialize for Group<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.0.len()))?;
            for (_, property, value) in self.0 {
                map.serialize_entry(property, value)?;
            }
            map.end()
        }
    }
    for group in values.chunk_by(|a, b| a.0.is_some() && a.0 == b.0) {
        match group[0].0 {
            Some(feature) => map.serialize_entry(feature, &Group(group))?,
            None => {
                for (_, property, value) in group {
                    map.serialize_entry(property, value)?;
                }
            }
        }
    }
    Ok(())
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("boot", &self.boot)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("ms", &self.ms)?;
        map.serialize_entry("program", &self.program)?;
        if self.old {
            map.serialize_entry("old", &1)?;
        }
        if let Some(time) = self.time {
            map.serialize_entry("time", &time)?;
        }
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| (value.feature.as_deref(), value.property.as_str(), &value.value))
            .collect();
        nest(&mut map, &values)?;
        map.end()
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("boot", &self.boot)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("ms", &self.ms)?;
        map.serialize_entry("program", &self.program)?;
        if self.old {
            map.serialize_entry("old", &1)?;
        }
        if let Some(time) = self.time {
            map.serialize_entry("time", &time)?;
        }
        map.serialize_entry("n", &self.n)?;
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| (value.feature.as_deref(), value.property.as_str(), &value.stats))
            .collect();
        nest(&mut map, &values)?;
        map.end()
    }
}

/// The common members of samples and features.
#[derive(Default)]
struct Head {
    boot: u32,
    seq: u32,
    ms: u32,
    program: String,
    old: bool,
    time: Option<u64>,
}

impl Head {
    /// Takes a member that is no value; gives back one that is.
    fn take<E: serde::de::Error>(&mut self, key: &str, value: Value) -> Result<Option<Value>, E> {
        let count = |value: &Value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| E::custom(format!("`{key}` is not a 32-bit number")))
        };
        match key {
            "k" => {}
            "time" => self.time = value.as_u64(),
            "boot" => self.boot = count(&value)?,
            "seq" => self.seq = count(&value)?,
            "ms" => self.ms = count(&value)?,
            "old" => self.old = count(&value)? != 0,
            "program" => match value {
                Value::String(program) => self.program = program,
                _ => return Err(E::custom("`program` is not a string")),
            },
            _ => return Ok(Some(value)),
        }
        Ok(None)
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut head = Head::default();
        let mut values = Vec::new();
        for (key, value) in Pairs::<Value>::deserialize(deserializer)?.0 {
            match head.take::<D::Error>(&key, value)? {
                None => {}
                Some(Value::Object(properties)) => {
                    for (property, value) in properties {
                        values.push(Measured { feature: Some(key.clone()), property, value });
                    }
                }
                Some(value) => values.push(Measured { feature: None, property: key, value }),
            }
        }
        let Head { boot, seq, ms, program, old, time } = head;
        Ok(Self { boot, seq, ms, program, old, time, values })
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut head = Head::default();
        let mut values = Vec::new();
        let mut n = 0;
        let stats = |value| serde_json::from_value::<Stats>(value).map_err(D::Error::custom);
        for (key, value) in Pairs::<Value>::deserialize(deserializer)?.0 {
            match head.take::<D::Error>(&key, value)? {
                None => {}
                Some(Value::Number(count)) if key == "n" => {
                    let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
                    n = count.ok_or_else(|| D::Error::custom("`n` is not a 32-bit number"))?;
                }
                Some(Value::Object(members)) if members.values().all(Value::is_object) => {
                    for (property, value) in members {
                        let (feature, stats) = (Some(key.clone()), stats(value)?);
                        values.push(PropertyStats { feature, property, stats });
                    }
                }
                Some(value) => {
                    let stats = stats(value)?;
                    values.push(PropertyStats { feature: None, property: key, stats });
                }
            }
        }
        let Head { boot, seq, ms, program, old, time } = head;
        Ok(Self { boot, seq, ms, program, old, time, n, values })
    }
}

// ---------------------------------------------------------------------------------------------
// Serial frames

/// CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, not reflected.
///
/// ```
/// assert_eq!(edgetwin::node::wire::crc16(b"123456789"), 0x29B1);
/// ```
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |mut crc: u16, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
        crc
    })
}

/// A line for the edge: `{…}*CCCC`, without its end.
pub fn frame_up(json: &str) -> String {
    format!("{json}*{:04X}", crc16(json.as_bytes()))
}

/// A line for a node: `!body*CCCC`, without its end.
pub fn frame_down(body: &str) -> String {
    format!("!{body}*{:04X}", crc16(body.as_bytes()))
}

/// What a line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A message of a node: JSON.
    Up(&'a str),
    /// A command's body.
    Down(&'a str),
}

/// Why a line is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Longer than [`LINE_LEN_MAX`].
    TooLong,
    /// Not text.
    NotText,
    /// Neither `{…}*CCCC` nor `!…*CCCC`.
    Shape,
    /// The checksum is another's.
    Crc,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the line is too long",
            Self::NotText => "the line is not text",
            Self::Shape => "the line is no frame",
            Self::Crc => "the checksum of the line is wrong",
        })
    }
}

impl std::error::Error for FrameError {}

/// Checks a line and takes its frame off; a carriage return at its end is ignored.
///
/// # Errors
/// [`FrameError`].
pub fn unframe(line: &[u8]) -> Result<Line<'_>, FrameError> {
    if line.len() > LINE_LEN_MAX {
        return Err(FrameError::TooLong);
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| FrameError::NotText)?;
    let (content, crc) = text.rsplit_once('*').ok_or(FrameError::Shape)?;
    let hex =
        crc.len() == 4 && crc.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    let down = content.strip_prefix('!');
    if !hex || (down.is_none() && !(content.starts_with('{') && content.ends_with('}'))) {
        return Err(FrameError::Shape);
    }
    let checked = down.unwrap_or(content);
    if u16::from_str_radix(crc, 16) != Ok(crc16(checked.as_bytes())) {
        return Err(FrameError::Crc);
    }
    Ok(match down {
        Some(body) => Line::Down(body),
        None => Line::Up(content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors(name: &str) -> Vec<Value> {
        let path = format!("{}/tests/firmware/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn frames_are_those_of_the_vectors() {
        for vector in vectors("frames") {
            let line = vector["line"].as_str().unwrap();
            let read = unframe(line.as_bytes());
            match (vector["up"].as_str(), vector["down"].as_str()) {
                (Some(json), None) => {
                    assert_eq!(read, Ok(Line::Up(json)));
                    assert_eq!(frame_up(json), line);
                }
                (None, Some(body)) => {
                    assert_eq!(read, Ok(Line::Down(body)));
                    assert_eq!(frame_down(body), line);
                }
                _ => {
                    let error = match vector["error"].as_str().unwrap() {
                        "crc" => FrameError::Crc,
                        _ => FrameError::Shape,
                    };
                    assert_eq!(read, Err(error), "{line}");
                }
            }
        }
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
    fn messages_are_those_of_the_vectors() {
        for vector in vectors("uplinks") {
            let line = vector["line"].as_str().unwrap();
            let read = Uplink::decode(line).unwrap();
            assert_eq!(read.encode(), line);
            let topic = format!("et/v1/lab/n-1/{}", vector["leaf"].as_str().unwrap());
            let topic = super::super::Topic::parse(&topic).unwrap().unwrap();
            assert_eq!(read.leaf(), topic.leaf);
            assert_eq!(Uplink::decode_as(&topic.leaf, line.as_bytes()).unwrap(), Some(read));
        }
    }

    #[test]
    fn a_message_of_no_kind_is_refused() {
        for (line, kind) in [("{\"k\":\"q\"}", true), ("{}", true), ("{", false), ("[1]", false)] {
            let error = Uplink::decode(line).unwrap_err();
            assert_eq!(matches!(error, UplinkError::Kind(_)), kind, "{line}: {error}");
        }
    }

    #[test]
    fn the_last_will_is_a_state() {
        let will = Uplink::decode_as(&Leaf::State, br#"{"up":0,"boot":3}"#).unwrap();
        let Some(Uplink::State(state)) = will else { panic!("{will:?}") };
        assert_eq!((state.up, state.boot, state.tx), (false, 3, None));
    }

    #[test]
    fn a_command_that_has_no_spelling_is_not_encoded() {
        let get = |name: &str| Command::new(1, Op::Get { property: Some(name.to_owned()) });
        assert!(get("a b").encode().is_err());
        assert!(get("").encode().is_err());
        assert_eq!(get(&"x".repeat(200)).encode().unwrap_err().why, "length");
        assert!(get("soil/temperature").encode().is_ok());
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-z][a-zA-Z0-9_-]{0,7}(/[a-z]{1,4})?"
    }

    fn decimal() -> impl Strategy<Value = Decimal> {
        (-DECIMAL_MAX * 1_000_000..=DECIMAL_MAX * 1_000_000)
            .prop_flat_map(|m| (Just(m), 0_u32..=6))
            .prop_map(|(m, cut)| Decimal { millionths: m / 10_i64.pow(cut) * 10_i64.pow(cut) })
    }

    fn program() -> impl Strategy<Value = Program> {
        prop_oneof![
            Just(Program::Interval),
            Just(Program::OnChange),
            Just(Program::OnRequest),
            Just(Program::Features),
        ]
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

    fn tx() -> impl Strategy<Value = Tx> {
        (
            program(),
            proptest::option::of(any::<u32>()),
            proptest::option::of(any::<bool>()),
            // Numbers of the size that nodes have: larger ones are not exact in floating point.
            proptest::collection::vec((name(), -2_000_000_i64..2_000_000), 0..3),
        )
            .prop_map(|(program, pmin, kept, st)| {
                let st = st.into_iter().map(|(n, m)| (n, Decimal::from_scaled(m, 3))).collect();
                Tx { st: Pairs(st), kept, ..Tx::new(program, pmin, None) }
            })
    }

    fn health() -> impl Strategy<Value = (Option<i16>, Option<u8>)> {
        (proptest::option::of(-200_i16..=-1), proptest::option::of(0_u8..=100))
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

        #[test]
        fn an_acknowledgement_is_read_back(
            ids in any::<(u32, u32, u32)>(),
            dup in any::<bool>(),
            base in tx(),
            group in tx(),
            health in health(),
        ) {
            let (boot, ms, id) = ids;
            let groups = Pairs(vec![("a,b".to_owned(), Tx { kept: None, ..group })]);
            let tx = Some(Tx { groups, ..base });
            let (rssi, battery) = health;
            let ack = Ack {
                boot, ms, id, st: AckStatus::Ok, dup, why: None, lease: Some(60), trial: None, rssi,
                battery, tx, act: None,
            };
            let uplink = Uplink::Ack(ack);
            prop_assert_eq!(Uplink::decode(&uplink.encode()), Ok(uplink));
        }

        #[test]
        fn health_is_read_within_its_range_only(rssi in -400_i64..200, battery in -100_i64..300) {
            let good = RSSI.contains(&rssi) && (0..=100).contains(&battery);
            let text = format!("{{\"up\":1,\"boot\":1,\"rssi\":{rssi},\"battery\":{battery}}}");
            match Uplink::decode_as(&Leaf::State, text.as_bytes()) {
                Ok(Some(Uplink::State(state))) => {
                    prop_assert!(good);
                    prop_assert_eq!(state.rssi.map(i64::from), Some(rssi));
                    prop_assert_eq!(state.battery.map(i64::from), Some(battery));
                    prop_assert_eq!(Uplink::State(state).encode(), text.replace("{\"up\"", "{\"k\":\"b\",\"up\""));
                }
                Ok(read) => prop_assert!(false, "{:?}", read),
                Err(_) => prop_assert!(!good),
            }
        }

        #[test]
        fn a_line_is_unframed(json in "\\{[ -~]{0,80}\\}") {
            let line = frame_up(&json);
            prop_assert_eq!(unframe(line.as_bytes()), Ok(Line::Up(&json)));
        }

        #[test]
        fn one_wrong_byte_is_noticed(body in "[ -~]{1,80}", at in 0_usize..80, flip in 1_u8..32) {
            let mut line = frame_down(&body).into_bytes();
            let at = 1 + at % (line.len() - 1);
            line[at] ^= flip;
            prop_assert!(unframe(&line) != Ok(Line::Down(&body)) );
        }

        #[test]
        fn a_decimal_is_read_back(decimal in decimal()) {
            prop_assert_eq!(decimal.to_string().parse(), Ok(decimal));
        }
    }
}
