//! Rollout: a new model or firmware in waves.
//!
//! Not here: the models and profiles themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::{is_false, yes};
use super::{Duration, Percent};

/// A new model or firmware in waves, with gates between them and a way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSpec {
    /// The Service that gets a new model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The Model that it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The NodeProfile whose nodes get new firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The waves, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub waves: Vec<Wave>,
    /// Judge with both models and use only the old one's verdicts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// What must be true before the next wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gates: Vec<Gate>,
    /// Go back by itself when a gate fails.
    #[serde(default = "yes")]
    pub rollback: bool,
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wave {
    /// The share of nodes or calls that this wave reaches.
    pub share: Percent,
    /// How long to watch before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
}

/// What must be true before the next wave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// What is measured: `disagreement`, `latency-p99-ms`, `error-rate`, `lost-nodes`.
    pub metric: GateMetric,
    /// The greatest value that passes.
    pub maximum: f64,
}

/// What a gate measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateMetric {
    /// Share of verdicts that differ between the old and the new model.
    Disagreement,
    /// 99th percentile of the call's time, ms.
    LatencyP99Ms,
    /// Share of calls that fail.
    ErrorRate,
    /// Nodes that did not come back.
    LostNodes,
}
