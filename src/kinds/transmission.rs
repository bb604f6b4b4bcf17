//! How a node transmits, as twins, profiles and rules request it.
//!
//! Not here: the commands that apply it (`cacc`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pending::{Pending, Values};
use super::{Deadband, Duration};

/// How a node transmits: which program, how often, and on which change. The names are those of
/// LwM2M's notification attributes and CoAP's conditional attributes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Transmission {
    /// The program in the node's firmware: `interval`, `on-change`, `burst`, `features`,
    /// `raw`, `aggregate`, `predict`, `on-request`, `schedule`, or one that a NodeProfile lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The time between messages; the same as `pmin` and `pmax` with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// The least time between messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmin: Option<Duration>,
    /// The longest time between messages: a message is sent after it even if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmax: Option<Duration>,
    /// The least time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmin: Option<Duration>,
    /// The longest time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmax: Option<Duration>,
    /// Send when the value differs from the last one sent by at least this: in the property's unit,
    /// or as a percentage of its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub st: Option<Deadband>,
    /// Greater than: send when the value rises above this threshold or falls back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gt: Option<f64>,
    /// Less than: send when the value falls below this threshold or rises back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
    /// For boolean properties: which change is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// Whether the edge acknowledges each message; the node repeats it until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<bool>,
    /// The number of readings that the node keeps while it is disconnected, to be sent later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub buffer: Option<u32>,
    /// Program `burst`: how much of the history before the trigger is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Duration>,
    /// Program `burst`: how long it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Duration>,
    /// The Channel to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

impl Transmission {
    /// What of it is not acted on yet, wherever it is given.
    pub(super) const PENDING: &'static [Pending] = &[
        Pending::field("epmin", NO_COMMAND),
        Pending::field("epmax", NO_COMMAND),
        Pending::field("edge", NO_COMMAND),
        Pending::field("confirm", NO_COMMAND),
        Pending::field("buffer", NO_COMMAND),
        Pending::field("before", NO_COMMAND),
        Pending::field("length", NO_COMMAND),
        Pending::field("channel", NO_COMMAND),
        Pending::Field(
            "program",
            Values::Except(&["interval", "on-change", "on-request", "features", "schedule"]),
            "no firmware has it, so the next rule or the default counts",
        ),
    ];
}

/// Why a field of a transmission is not acted on.
const NO_COMMAND: &str = "no command carries it";

/// Which change of a boolean property is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// From false to true.
    Rising,
    /// From true to false.
    Falling,
    /// Every change.
    Both,
}
