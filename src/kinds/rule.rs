//! ContextRule: when what is so, and what changes then.
//!
//! Not here: what its expressions mean (`cacc::expr`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::default::is_false;
use super::{Duration, LabelExpression, Transmission};

/// When something is so for some time, then these nodes talk differently, or something acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextRuleSpec {
    /// Which nodes the rule is about.
    pub nodes: NodeSelector,
    /// Judge `when` for each node by itself; the same as `nodes.each`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub each: bool,
    /// The condition, a CEL expression over the twins' properties, verdicts, windows, links and
    /// node health, such as `verdict("data-anomaly").label == "anomalous"`.
    pub when: String,
    /// The condition that ends it; without one it ends when `when` no longer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How long `when` must hold before the rule acts.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Duration>,
    /// How long the rule stays in force at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// How long the rule rests after it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// What changes.
    pub then: RuleEffect,
    /// Of rules that set the same field, the greatest priority wins; then the more specific
    /// target; then the name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i64,
}

impl ContextRuleSpec {
    /// Whether `when` is judged for each node by itself; it can be written in two places.
    pub fn judges_each(&self) -> bool {
        self.each || self.nodes.each
    }
}

/// Which nodes a rule is about: by name, by label, or the members of an aggregate. A selector of
/// a rule in namespace `default` reaches the twins of all namespaces, any other those of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Nodes by the names of their twins, in the rule's namespace; `NAMESPACE/NAME` reaches
    /// another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels that the twins have, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels, all of which hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
    /// The members of this TwinAggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<String>,
    /// Judge `when` for each node by itself instead of for all together.
    #[serde(default, skip_serializing_if = "is_false")]
    pub each: bool,
}

/// What a rule changes: how the nodes talk, what they get of the budget, or what they do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuleEffect {
    /// How the nodes talk, for all their properties.
    #[serde(flatten)]
    pub transmission: Transmission,
    /// Share of the channel's budget against others of the class; 1 is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: Option<f64>,
    /// Which class degrades last when the budget is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<TrafficClass>,
    /// How single properties are sent, where they differ. A name is a property, a feature, or
    /// `feature/property`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Transmission>,
    /// Actuator properties to set, by `feature/property`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// Properties to ask for once, now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull: Vec<String>,
    /// Isolate the nodes: their values are kept and `features/transmission` says `quarantined`, they
    /// send by their default, no other rule is heard about them, and they have no share of a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<bool>,
}

/// Which traffic degrades last when the budget is short.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TrafficClass {
    /// Gives way first.
    Low,
    /// The usual class.
    Normal,
    /// Gives way after all usual traffic.
    High,
    /// Never gives way.
    Safety,
}
