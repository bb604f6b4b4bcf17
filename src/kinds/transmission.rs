//! How a node talks, as twins, profiles and rules ask for it.
//!
//! Not here: the commands that bring it about (`cacc`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Deadband, Duration};

/// How a node talks: which program, how often, and on what change. The same words as LwM2M's
/// and CoAP's conditional attributes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Transmission {
    /// The program in the node's firmware: `interval`, `on-change`, `burst`, `features`,
    /// `raw`, `aggregate`, `predict`, `on-request`, `schedule`, or one that a NodeProfile lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Time between messages; the same as `pmin` and `pmax` with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Least time between messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmin: Option<Duration>,
    /// Longest silence: a message goes out after it even if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmax: Option<Duration>,
    /// Least time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmin: Option<Duration>,
    /// Longest time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmax: Option<Duration>,
    /// Send when the value differs by this much from the last one sent: in the property's unit,
    /// or a share of its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub st: Option<Deadband>,
    /// Send when the value crosses this one upwards or downwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gt: Option<f64>,
    /// Send when the value crosses this one downwards or upwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
    /// For true-or-false properties: which change is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// Whether the edge acknowledges each message, and the node repeats it until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<bool>,
    /// How many readings the node keeps while it is cut off, to send later as historical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub buffer: Option<u32>,
    /// Program `burst`: how much of the time before the trigger is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Duration>,
    /// Program `burst`: how long it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Duration>,
    /// The Channel to talk on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// Which change of a true-or-false property is sent.
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
