//! Scenario: a simulated environment, and the faults in it.
//!
//! Not here: the simulation itself (`simulate`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::seed_default;
use super::pending::{KindSpec, Pending};
use super::{Duration, Generator, MemberSelector, Percent, PropertyPath};

/// A simulated physical environment: nodes, what they measure, channels, and faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpec {
    /// The random seed.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How long the scenario lasts.
    pub duration: Duration,
    /// The nodes that are simulated, and what they measure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub nodes: Vec<ScenarioNodes>,
    /// The Channels that the nodes use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// The faults, and when they occur.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub faults: Vec<Fault>,
}

impl KindSpec for ScenarioSpec {
    const PENDING: &'static [Pending] = &[Pending::Kind(
        "`simulate --live` acts on its nodes, seed and duration; channels, faults and traces come later",
    )];
}

/// A group of simulated nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioNodes {
    /// The twins whose nodes are simulated.
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
    /// The property of each column.
    pub columns: BTreeMap<String, PropertyPath>,
    /// The column with the time. By default the rows are `period` apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The time between rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
}

/// A fault in a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// The kind of fault.
    #[serde(rename = "type")]
    pub fault: FaultType,
    /// When it starts.
    pub at: Duration,
    /// How long it lasts.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Duration>,
    /// The Channel that is affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The twins whose nodes are affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twins: Option<MemberSelector>,
    /// Loss: the share of messages that is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Percent>,
    /// Delay: by how much messages are delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Surge: by which factor the rate of readings rises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub factor: Option<f64>,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultType {
    /// No message is delivered.
    Outage,
    /// Messages are lost.
    Loss,
    /// Messages are delayed.
    Delay,
    /// A jammer: loss without load.
    Jamming,
    /// The rate of readings rises.
    Surge,
    /// Nodes restart.
    Restart,
    /// Nodes send false values.
    Lie,
}
