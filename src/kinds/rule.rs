//! ContextRule: a condition, and what changes while it holds.
//!
//! Not here: what its expressions mean (`cacc::expr`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::default::is_false;
use super::pending::{KindSpec, Pending, Values};
use super::{Duration, LabelExpression, Transmission};

/// When a condition has held for a given time, changes how the selected nodes transmit, or sets
/// actuators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextRuleSpec {
    /// The nodes that the rule applies to.
    pub nodes: NodeSelector,
    /// Evaluate `when` for each node separately; the same as `nodes.each`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub each: bool,
    /// The condition: a CEL expression over the twins' properties, verdicts, windows, links and
    /// node health, such as `verdict("data-anomaly").label == "anomalous"`.
    pub when: String,
    /// The condition that ends the rule. By default it ends when `when` is no longer true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How long `when` must be true before the rule becomes active.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Duration>,
    /// The least time for which the rule stays active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
    /// How long the rule stays inactive after it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Duration>,
    /// What changes while the rule is active.
    pub then: RuleEffect,
    /// If several active rules set the same field, the one with the highest priority wins; then the
    /// one with the more specific target; then the first by name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i64,
}

impl KindSpec for ContextRuleSpec {
    const PENDING: &'static [Pending] = &[
        Pending::Inside("then", Transmission::PENDING),
        Pending::Inside("then.properties.*", Transmission::PENDING),
        Pending::field("then.weight", BUDGET),
        Pending::Field("then.class", Values::Except(&["safety"]), BUDGET),
    ];

    fn pending_within(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (field, text) in [("when", Some(&self.when)), ("until", self.until.as_ref())] {
            for fact in ["channel(", "link.load", "link.delay"] {
                if text.is_some_and(|text| text.contains(fact)) {
                    let fact = fact.trim_end_matches('(');
                    notes.push(format!(
                        "`{field}` reads `{fact}`, which nothing measures yet: it is unknown, and so is not true"
                    ));
                }
            }
        }
        notes
    }
}

/// Why shares are decided and shown, and change nothing.
const BUDGET: &str = "`explain node` shows it, and there is no link budget yet to share out by it";

impl ContextRuleSpec {
    /// Whether `when` is evaluated for each node separately; it can be written in two places.
    pub fn judges_each(&self) -> bool {
        self.each || self.nodes.each
    }
}

/// Selects nodes by name, by label, or as the members of an aggregate. A selector of a rule in
/// namespace `default` reaches the twins of all namespaces, any other those of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Nodes by the names of their twins, in the rule's namespace; `NAMESPACE/NAME` reaches
    /// another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels that the twins must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels; all must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
    /// The members of this TwinAggregate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<String>,
    /// Evaluate `when` for each node separately instead of once for all of them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub each: bool,
}

/// What a rule changes: how the nodes transmit, their share of the budget, or their actuators.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuleEffect {
    /// The transmission of all properties of the nodes.
    #[serde(flatten)]
    pub transmission: Transmission,
    /// The weight of a node's share of the channel's budget within its class; the default is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: Option<f64>,
    /// The traffic class, which determines what degrades last when the budget is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<TrafficClass>,
    /// The transmission of single properties, if it differs. A name is a property, a feature, or
    /// `feature/property`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Transmission>,
    /// Actuator properties to set, by `feature/property`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
    /// Properties to request once, when the rule becomes active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull: Vec<String>,
    /// Isolate the nodes: their values are kept, `features/transmission` shows `quarantined`, they
    /// use their default transmission, no other rule applies to them, and they have no share of a
    /// budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<bool>,
}

/// A traffic class, which determines what degrades last when the budget is short.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TrafficClass {
    /// Degrades first.
    Low,
    /// The default.
    Normal,
    /// Degrades after all normal traffic.
    High,
    /// Never degrades.
    Safety,
}
