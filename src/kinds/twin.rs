//! Twin and TwinSet: one twin, and many that are alike.
//!
//! Not here: twins at work (`crate::twin`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::default::yes;
use super::pending::{KindSpec, Pending, Values};
use super::{Duration, PropertyPath, Transmission, Transport};

/// Most twins that one TwinSet may make: more is a typing mistake, and the store's budget
/// (`ARCHITECTURE.md`) is drawn up for 100,000. A larger `count` is an error at `validate`.
pub const TWIN_SET_LEN_MAX: u32 = 100_000;

/// The digital twin of one physical object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TwinSpec {
    /// The TwinModel that defines the twin's properties. Without one, any reading is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Static metadata that does not come from the node, such as a place or a serial number. The
    /// attribute `services` is written by the field `services`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// The services that a change of this twin calls: a list of names, or a map from name to
    /// options.
    #[serde(default, skip_serializing_if = "ServiceNames::is_empty")]
    pub services: ServiceNames,
    /// The microcontroller of this twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeSpec>,
    /// Desired property values of the node, by feature.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub desired: BTreeMap<String, BTreeMap<String, Value>>,
    /// How the node transmits while no rule applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmission: Option<Transmission>,
}

impl KindSpec for TwinSpec {
    const PENDING: &'static [Pending] = &[
        Pending::Inside("services", ServiceNames::PENDING),
        Pending::field("node.transport", "the board of its profile decides how it is connected"),
        Pending::field("node.credentials", "nodes do not log in"),
        Pending::Field("desired", Values::Without("node"), "without a `node` nothing is sent"),
        Pending::Field("transmission", Values::Without("node"), "without a `node` nothing is sent"),
        Pending::Inside("transmission", Transmission::PENDING),
    ];
}

/// Names of services, with or without options for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ServiceNames {
    /// Just the names.
    List(Vec<String>),
    /// Names with options.
    Map(BTreeMap<String, ServiceOptions>),
}

impl Default for ServiceNames {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl ServiceNames {
    /// What of a twin's use of its services is not acted on yet.
    pub(super) const PENDING: &'static [Pending] =
        &[Pending::field("*.every", "every change calls the service")];

    /// Whether no service is named.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(names) => names.is_empty(),
            Self::Map(names) => names.is_empty(),
        }
    }

    /// The names, in the order written (a map's in the order of the names).
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::List(names) => names.iter().map(String::as_str).collect(),
            Self::Map(names) => names.keys().map(String::as_str).collect(),
        }
    }
}

/// How one twin uses one service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServiceOptions {
    /// Inputs for this twin instead of the service's own, in the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<PropertyPath>>,
    /// The least time between two calls for this twin; changes in between are classified together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// False keeps the service in the list without calling it.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// The microcontroller of a twin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeSpec {
    /// The NodeProfile: board, sensors and pins. A twin with a profile can be simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How the node is connected, if it differs from the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The name of the credentials that this node logs in with; the secret itself is never in
    /// a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// Many twins that are alike: a template, and their number or names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinSetSpec {
    /// The number of twins. They are named `NAME-1`, `NAME-2` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
    /// The names of the twins, instead of a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100_000))]
    pub names: Option<Vec<String>>,
    /// The template of each twin.
    pub template: TwinTemplate,
}

impl KindSpec for TwinSetSpec {
    const PENDING: &'static [Pending] = &[Pending::Inside("template.spec", TwinSpec::PENDING)];
}

/// The template of each twin of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinTemplate {
    /// Labels and annotations of each twin.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// The spec of each twin.
    pub spec: TwinSpec,
}

/// Labels and annotations of each twin of a set, in addition to those of the set itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMetadata {
    /// Key-value pairs that selectors match, such as `room: north`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TwinSetSpec {
    /// The names of the set's twins: as listed, else `SET-1` to `SET-count`.
    pub fn twin_names(&self, set: &str) -> Vec<String> {
        match (&self.names, self.count) {
            (Some(names), _) => names.clone(),
            (None, count) => (1..=count.unwrap_or(0).min(TWIN_SET_LEN_MAX))
                .map(|i| format!("{set}-{i}"))
                .collect(),
        }
    }
}
