//! What is known of a node before anything is decided: its profile, what it measures and can set.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cacc::rule::Asked;
use crate::wire::Program;

/// The period of a node for which nobody sets one, ms: a reading every ten seconds.
pub const PERIOD_DEFAULT_MS: u32 = 10_000;

/// The program by which the edge asks at intervals: the node runs `on-request`.
pub const SCHEDULE: &str = "schedule";

/// What is known of a node by its twin and its profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeSpec {
    /// A profile describes the node. One without may be a plain client that knows no commands.
    pub has_profile: bool,
    /// How it transmits by itself: the twin's transmission over the profile's.
    pub default: Asked,
    /// Its programs; empty: all.
    pub programs: Vec<Program>,
    /// Least time between messages that the profile allows, ms.
    pub pmin_least: u32,
    /// Longest silence that the profile allows, ms; 0: any.
    pub pmax_most: u32,
    /// How long it goes without a message before it falls back, s.
    pub lease_s: u32,
    /// Its battery is low below this, percent; `None`: it has none.
    pub battery_low: Option<u8>,
    /// What it measures, in the order of feature and name.
    pub properties: Vec<Measured>,
    /// What it can do, by feature and name.
    pub actuators: BTreeMap<(String, String), Actuator>,
}

/// A property that a node measures.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The feature's id.
    pub feature: String,
    /// The property's name.
    pub name: String,
    /// Whether it is a number, which thresholds are for.
    pub number: bool,
    /// Greatest less least value, if the model has both.
    pub range: Option<f64>,
}

/// Something that a node can do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Actuator {
    /// What the twin's manifest asks for.
    pub desired: Option<Value>,
    /// What it is when nobody asks for anything.
    pub safe: Option<Value>,
}
