//! Rollout: a new model or firmware in waves.
//!
//! Not here: the models and profiles themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::{is_false, yes};
use super::pending::{KindSpec, Pending};
use super::{Duration, Percent};

/// Introduces a new model or firmware in waves, with gates between them and a rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSpec {
    /// The Service that receives a new model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The new Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The NodeProfile whose nodes receive new firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The waves, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub waves: Vec<Wave>,
    /// Call both models and use only the verdicts of the old one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// The conditions for the next wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gates: Vec<Gate>,
    /// Roll back automatically when a gate fails.
    #[serde(default = "yes")]
    pub rollback: bool,
}

impl KindSpec for RolloutSpec {
    const PENDING: &'static [Pending] = &[Pending::Kind("no rollout acts on it yet")];
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wave {
    /// The share of nodes or calls that this wave reaches.
    pub share: Percent,
    /// How long to observe before the next wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
}

/// A condition for the next wave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// The metric: `disagreement`, `latency-p99-ms`, `error-rate` or `lost-nodes`.
    pub metric: GateMetric,
    /// The greatest value that passes.
    pub maximum: f64,
}

/// A metric of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateMetric {
    /// Share of verdicts that differ between the old and the new model.
    Disagreement,
    /// 99th percentile of the latency of calls, in milliseconds.
    LatencyP99Ms,
    /// Share of calls that fail.
    ErrorRate,
    /// Number of nodes that did not reconnect.
    LostNodes,
}
