//! TwinAggregate: a twin derived from others, and the selector of its members.
//!
//! Not here: the derivation itself (`twin::aggregate`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pending::{KindSpec, Pending, Values};
use super::{DeriveFunction, Duration, LabelExpression, PropertyPath, ServiceNames};

/// A twin that is derived from member twins, such as a room from its nodes. It is a full twin:
/// services can classify it, and it can be a member of another aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinAggregateSpec {
    /// The twins that it is derived from. A selector is live: twins join and leave as their labels change.
    pub members: MemberSelector,
    /// The derived properties by `feature/property`.
    pub derive: BTreeMap<String, Derivation>,
    /// The services that a change of this aggregate calls: a list of names, or a map from name
    /// to options.
    #[serde(default, skip_serializing_if = "ServiceNames::is_empty")]
    pub services: ServiceNames,
    /// Static metadata of the aggregate's own twin.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
}

impl KindSpec for TwinAggregateSpec {
    const PENDING: &'static [Pending] = &[
        Pending::Inside("services", ServiceNames::PENDING),
        Pending::field("derive.*.q", "quantiles are not derived"),
        Pending::field("derive.*.window", "the newest values are used"),
        Pending::Field(
            "derive.*.fn",
            Values::Only(&["stddev", "quantile", "latest"]),
            "the property is not derived",
        ),
    ];
}

/// Selects twins by name, by label, or both. Named twins always belong; of labels and expressions,
/// all that are given must match. A selector of an object in namespace `default` reaches the twins of all
/// namespaces, any other those of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberSelector {
    /// Members by name, in the aggregate's namespace; `NAMESPACE/NAME` reaches another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels that a member must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels; all must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// How one property of an aggregate is computed from its members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Derivation {
    /// The function over the members' values.
    #[serde(rename = "fn")]
    pub function: DeriveFunction,
    /// The members' property. `count` may leave it out and then counts members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<PropertyPath>,
    /// Compute over all values within this time instead of the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// The quantile, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub q: Option<f64>,
}
