//! Service: what classifies twins, and the process that may run it.
//!
//! Not here: the model in it (`model`), calls (`edgeai`, `registry`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::is_false;
use super::pending::{KindSpec, Pending};
use super::{Balancing, Duration, Overload, PropertyPath};

/// A named EdgeAI service: what it reads, where it runs, and how calls are balanced over its
/// instances. Twins refer to it by name; nothing names an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceSpec {
    /// The twin properties that it reads, in the order of the model's inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub inputs: Vec<PropertyPath>,
    /// The Model, if the service runs inside the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// True for a service that registers itself over the Eureka API.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// A process that the runtime starts, supervises and restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSpec>,
    /// How many instances to keep running.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 256))]
    pub replicas: u32,
    /// How long a registration lasts without a heartbeat.
    #[serde(default = "lease_default")]
    pub lease: Duration,
    /// How long a call may take, retries included.
    #[serde(default = "timeout_default")]
    pub timeout: Duration,
    /// How the instance for a call is chosen.
    #[serde(default)]
    pub balancing: Balancing,
    /// What happens to calls that arrive faster than they can be answered.
    #[serde(default)]
    pub overload: Overload,
}

impl KindSpec for ServiceSpec {
    const PENDING: &'static [Pending] = &[
        Pending::field("process", "it is not started: the service must register itself"),
        Pending::field("lease", "an instance brings its own lease when it registers"),
    ];
}

/// A process that the runtime starts, supervises and restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSpec {
    /// The program and its arguments; no shell is involved. `{port}` and `{name}` are replaced.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Environment variables, in addition to a minimal environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working directory, relative to the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The first port of its instances. By default a free port is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How long it may take until it reports that it is ready.
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
