//! Service: what judges twins, and the process that may run it.
//!
//! Not here: the model in it (`model`), calls (`edgeai`, `registry`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::is_false;
use super::{Balancing, Duration, Overload, PropertyPath};

/// A named EdgeAI function: what it reads, where it runs, and how calls are spread over its
/// instances. Twins name it; nothing names an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceSpec {
    /// The twin properties that it judges, in the order in which the model takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub inputs: Vec<PropertyPath>,
    /// The Model that runs inside this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// True for a service that registers itself from outside.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// A process that this program starts, watches and restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSpec>,
    /// How many instances to keep running.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 256))]
    pub replicas: u32,
    /// How long a registration lives without a heartbeat.
    #[serde(default = "lease_default")]
    pub lease: Duration,
    /// How long a call may take, retries included.
    #[serde(default = "timeout_default")]
    pub timeout: Duration,
    /// How the next instance is picked.
    #[serde(default)]
    pub balancing: Balancing,
    /// What happens to calls that come faster than they can be answered.
    #[serde(default)]
    pub overload: Overload,
}

/// A process that this program starts, watches and restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSpec {
    /// The program and its arguments; no shell is involved. `{port}` and `{name}` are replaced.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Environment variables, beside a minimal environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory that it runs in, relative to the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The first port of its instances; without one a free port is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How long it may take until it answers that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
}

const fn one() -> u32 {
    1
}

const fn lease_default() -> Duration {
    Duration::from_ms(30_000)
}

const fn timeout_default() -> Duration {
    Duration::from_ms(1000)
}
