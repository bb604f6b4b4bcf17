//! The messages of a node: all of them by kind, and acknowledgements, events and states in full.
//!
//! Not here: the values of samples and features (`sample`), the frame around a message on a serial
//! line (`line`).

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::{AckStatus, ActValue, Cause, EventKind, Features, Pairs, Sample, Tx};
use crate::wire::Leaf;

/// Received signals that a node may report, dBm: from below the sensitivity of LoRa receivers.
pub const RSSI: RangeInclusive<i64> = -200..=-1;

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

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Boot counter.
    pub boot: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// The command's.
    pub id: u32,
    /// The result.
    pub st: AckStatus,
    /// The command was repeated; this repeats the first answer, with the current values.
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
    /// The received signal, dBm; see [`RSSI`]. Firmware reports it in answers to `hb` and
    /// `info` only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "dbm")]
    pub rssi: Option<i16>,
    /// Remaining charge of the battery, percent, 0 to 100. Reported like the signal.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "percent")]
    pub battery: Option<u8>,
    /// The current transmission of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
    /// The current value of an actuator.
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
    /// A detail, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The transmission, if the event changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
}

/// What a node is; retained. The last will is `{"up":0,"boot":…}`.
///
/// Any MQTT client may publish one for itself: `up` and `boot` are all that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether it is online.
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
    /// Its transmission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Tx>,
    /// The version of the desired transmission that it applied; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The gateway through which it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
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

/// Why a message of a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkError {
    /// Not JSON, or not of the form of its kind; the parser's message.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Decimal;
    use super::super::tests::{name, program, vectors};
    use super::*;
    use crate::wire::Topic;

    #[test]
    fn any_client_may_publish_a_state_with_signal_and_charge() {
        let read = |payload: &str| Uplink::decode_as(&Leaf::State, payload.as_bytes());
        let Ok(Some(Uplink::State(state))) = read(r#"{"up":1,"boot":4,"rssi":-61,"battery":83}"#)
        else {
            panic!("it is a state");
        };
        assert_eq!((state.rssi, state.battery), (Some(-61), Some(83)));
        assert!(read(r#"{"up":1,"boot":4,"rssi":61}"#).is_err(), "it is negative");
        assert!(read(r#"{"up":1,"boot":4,"battery":101}"#).is_err(), "it is a share");
    }

    #[test]
    fn messages_are_those_of_the_vectors() {
        for vector in vectors("uplinks") {
            let line = vector["line"].as_str().unwrap();
            let read = Uplink::decode(line).unwrap();
            assert_eq!(read.encode(), line);
            let topic = format!("et/v1/lab/n-1/{}", vector["leaf"].as_str().unwrap());
            let topic = Topic::parse(&topic).unwrap().unwrap();
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
    }
}
