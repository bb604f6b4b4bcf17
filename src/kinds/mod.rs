//! One typed struct a kind: what a manifest means once its text has been checked.
//!
//! The doc comments here are the only text about fields. The JSON Schema carries them as
//! descriptions, `edgetwin explain KIND.path` prints them, editors show them, and the
//! validator's answers are built from the same schema. Write them for somebody who has never
//! seen these files.
//!
//! This file holds names, metadata and the table of kinds. Each kind has a file of its name; `twin`
//! holds TwinSets too.
//!
//! Not here: positions and text (`yaml`), rules between documents (`check`), behaviour.

mod aggregate;
mod channel;
mod cloud;
mod default;
mod hardware;
mod model;
mod node;
mod pending;
mod policy;
mod rollout;
mod rule;
mod scenario;
mod service;
mod transmission;
mod twin;
mod twin_model;

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::base::units::{DataRate, Deadband, Duration, Percent, PropertyPath, Size, Unit};
pub use crate::edgeai::service::{Balancing, Overload};
pub use crate::twin::aggregate::DeriveFunction;
pub use crate::twin::selector::{LabelExpression, LabelOperator, labels_match};
pub use aggregate::{MemberSelector, TwinAggregateSpec};
pub use channel::ChannelSpec;
pub use cloud::CloudSinkSpec;
pub(crate) use hardware::{BOARDS, read};
pub use hardware::{BoardName, Connection, Conversion, Cost, Part, Quantity, Setting};
pub use model::{
    Classifier, DATA_ANNOTATION, Generator, ModelSpec, TrainingParameters, TrainingRecipe,
};
pub use node::{ActuatorSpec, BatterySpec, NodeProfileSpec, Pin, SensorSpec, Transport};
pub use policy::PolicySpec;
pub use rollout::RolloutSpec;
pub use rule::{ContextRuleSpec, NodeSelector, RuleEffect, TrafficClass};
pub use scenario::ScenarioSpec;
pub use service::ServiceSpec;
pub use transmission::Transmission;
pub use twin::{ServiceNames, TwinSetSpec, TwinSpec};
pub use twin_model::{FeatureModel, PropertyModel, TwinModelSpec, ValueType};

/// The API version that this program reads and writes.
pub const API_VERSION: &str = "edgetwin.dev/v1alpha1";

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Declares [`Kind`], [`Spec`] and the tables between names, schemas and types.
macro_rules! kinds {
    ($($kind:ident($spec:ident) { $plural:literal, $short:literal })*) => {
        /// The kinds of object that a manifest can hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(
                #[doc = concat!("`", stringify!($kind), "`: see [`", stringify!($spec), "`].")]
                $kind,
            )*
        }

        impl Kind {
            /// All kinds, in the order of the documentation.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// As written in `kind:`.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind)),* }
            }

            /// Lower-case plural, as in `edgetwin get twins`.
            pub const fn plural(self) -> &'static str {
                match self { $(Kind::$kind => $plural),* }
            }

            /// Short name, as in `edgetwin get tw`.
            pub const fn short(self) -> &'static str {
                match self { $(Kind::$kind => $short),* }
            }

            /// What of this kind is checked and stored, and not acted on yet.
            #[cfg(test)]
            pub const fn pending(self) -> &'static [pending::Pending] {
                match self { $(Kind::$kind => <$spec as pending::KindSpec>::PENDING),* }
            }

            /// The JSON Schema of this kind's `spec`.
            pub(super) fn spec_schema(self, generator: &mut SchemaGenerator) -> Schema {
                match self { $(Kind::$kind => generator.subschema_for::<$spec>()),* }
            }
        }

        /// What an object asks for, one variant a kind.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Spec {
            $(
                #[doc = concat!("The spec of a `", stringify!($kind), "`.")]
                $kind(Box<$spec>),
            )*
        }

        impl Spec {
            /// Reads the spec of a kind from JSON.
            ///
            /// # Errors
            /// serde's own words; a value that passed the schema and still fails here is a gap
            /// in the schema.
            pub fn from_value(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
                Ok(match kind {
                    $(Kind::$kind => Spec::$kind(serde_json::from_value(value)?),)*
                })
            }

            /// What of this spec is checked and stored but not acted on yet, one sentence each.
            ///
            /// * `object`: the object in the user's words, for a sentence about all of it.
            /// * `written`: the spec as it was written, without defaults.
            pub fn not_acted_on(&self, object: &str, written: &Value) -> Vec<String> {
                match self { $(Spec::$kind(spec) => pending::sentences(object, &**spec, written)),* }
            }

            /// The kind that this spec belongs to.
            pub const fn kind(&self) -> Kind {
                match self { $(Spec::$kind(_) => Kind::$kind),* }
            }
        }
    };
}

kinds! {
    TwinModel(TwinModelSpec) { "twinmodels", "tm" }
    Twin(TwinSpec) { "twins", "tw" }
    TwinSet(TwinSetSpec) { "twinsets", "ts" }
    TwinAggregate(TwinAggregateSpec) { "twinaggregates", "ta" }
    Service(ServiceSpec) { "services", "svc" }
    Model(ModelSpec) { "models", "mdl" }
    NodeProfile(NodeProfileSpec) { "nodeprofiles", "np" }
    Channel(ChannelSpec) { "channels", "ch" }
    ContextRule(ContextRuleSpec) { "contextrules", "cr" }
    Rollout(RolloutSpec) { "rollouts", "ro" }
    CloudSink(CloudSinkSpec) { "cloudsinks", "cs" }
    Policy(PolicySpec) { "policies", "pol" }
    Scenario(ScenarioSpec) { "scenarios", "sc" }
}

impl Kind {
    /// Finds a kind by name, singular, plural or short name, in any letter case.
    pub fn find(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        Self::ALL.iter().copied().find(|kind| {
            kind.name().to_lowercase() == word || kind.plural() == word || kind.short() == word
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Identifies an object: its name and namespace, labels and annotations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// The object's name, unique for its kind and namespace. Letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The namespace in which the name is unique. The twin of `{namespace: farm, name: node-17}` is the thing
    /// `farm:node-17`. References look in the object's own namespace first, then in `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Key-value pairs that selectors match, such as `room: north`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools; nothing selects by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}
