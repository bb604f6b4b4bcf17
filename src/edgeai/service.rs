//! What a service is to those who call it: a name, its inputs, where it runs, and how many of its
//! instances are there. The reconciler says what should be ([`Services`]); `trigger` makes it so.
//!
//! Not here: how instances are found and picked (`registry`), when a service is called
//! (`trigger`), what a manifest says (`manifest`).

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Model;

/// How the next instance is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// The better of two at random, by recent latency times calls in flight.
    #[default]
    PeakEwma,
    /// The better of two at random, by calls in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// What happens to calls that come faster than they can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overload {
    /// Which calls wait and which are dropped.
    #[serde(default)]
    pub policy: OverloadPolicy,
    /// How many calls may wait, for all twins together.
    #[serde(default = "overload_limit_default")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: u32,
}

impl Default for Overload {
    fn default() -> Self {
        Self { policy: OverloadPolicy::default(), limit: overload_limit_default() }
    }
}

const fn overload_limit_default() -> u32 {
    1024
}

/// Which calls wait and which are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverloadPolicy {
    /// All wait, up to the limit; beyond it the newest is dropped and counted.
    #[default]
    Queue,
    /// One waits for each twin: the newest.
    Latest,
    /// A share is judged, evenly over the twins.
    Sample,
}

/// A model and the name of its object.
#[derive(Debug, Clone)]
pub struct NamedModel {
    /// As verdicts name it.
    pub name: Arc<str>,
    /// The model.
    pub model: Arc<Model>,
}

/// A service as it should run: everything resolved.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// The name that twins and the registry know it by.
    pub name: Arc<str>,
    /// Feature and property of each input, in the order in which the model takes them.
    pub inputs: Vec<(String, String)>,
    /// The model of its instances in this process; `None` for one that runs elsewhere.
    pub model: Option<NamedModel>,
    /// How many instances to keep in this process.
    pub replicas: u32,
    /// How long a call may take, retries included.
    pub timeout: Duration,
    /// How the next instance is picked.
    pub balancing: Balancing,
    /// What happens to calls that come too fast.
    pub overload: Overload,
}

/// The instances of a service, now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Registered.
    pub instances: usize,
    /// Those of them that take calls.
    pub healthy: usize,
}

/// Runs services as they should be.
pub trait Services: Send + Sync {
    /// Makes a service run as `service` says: starts it, or replaces one of the same name without
    /// losing a call. Safe to repeat. Does not wait for instances.
    fn deploy(&self, service: ServiceConfig);
    /// Drains and ends a service; nothing happens where there is none.
    fn remove(&self, name: &str);
    /// The instances of a service; none for one that nobody knows.
    fn status(&self, name: &str) -> ServiceStatus;
}
