//! Scenario: a simulated environment, and what goes wrong in it.
//!
//! Not here: the simulation itself (`simulate`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::seed_default;
use super::{Duration, Generator, MemberSelector, Percent, PropertyPath};

/// A simulated physical environment: nodes, what they measure, channels, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpec {
    /// Where all chance comes from.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How much time is simulated.
    pub duration: Duration,
    /// The nodes that take part, and what they measure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub nodes: Vec<ScenarioNodes>,
    /// The Channels that the nodes talk on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What goes wrong, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub faults: Vec<Fault>,
}

/// A group of simulated nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioNodes {
    /// Which twins' nodes.
    pub twins: MemberSelector,
    /// Replay these columns of a CSV file, relative to this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Generate values instead of replaying a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// The Channel of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// A recorded trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trace {
    /// The CSV file, relative to this manifest.
    pub file: String,
    /// Which column is which property.
    pub columns: BTreeMap<String, PropertyPath>,
    /// The column with the time; without one the rows are `period` apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Time between rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
}

/// Something that goes wrong in a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// What happens.
    #[serde(rename = "type")]
    pub fault: FaultType,
    /// When it starts.
    pub at: Duration,
    /// How long it lasts.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Duration>,
    /// The Channel that it happens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The twins whose nodes it happens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twins: Option<MemberSelector>,
    /// Loss: the share of messages that are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Percent>,
    /// Delay: how late messages come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Surge: how many times the usual readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub factor: Option<f64>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultType {
    /// Nothing gets through.
    Outage,
    /// Messages are lost.
    Loss,
    /// Messages come late.
    Delay,
    /// A jammer: loss without load.
    Jamming,
    /// Many times the usual readings.
    Surge,
    /// Nodes restart.
    Restart,
    /// Nodes send false values.
    Lie,
}
