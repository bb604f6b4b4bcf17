//! One typed struct a kind: what a manifest means once its text has been checked.
//!
//! The doc comments here are the only text about fields. The JSON Schema carries them as
//! descriptions, `edgetwin explain KIND.path` prints them, editors show them, and the
//! validator's answers are built from the same schema. Write them for somebody who has never
//! seen this file.
//!
//! Not here: positions and text (`yaml`), rules between documents (`check`), behaviour.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::edgeai::service::{Balancing, Overload, OverloadPolicy};
pub use crate::scalar::{DataRate, Deadband, Duration, Percent, PropertyPath, Size, Unit};
pub use crate::twin::aggregate::DeriveFunction;
pub use crate::twin::selector::{LabelExpression, LabelOperator, labels_match};

/// The API version that this program reads and writes.
pub const API_VERSION: &str = "edgetwin.dev/v1alpha1";

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most twins that one TwinSet may make: more is a slip of a digit, and the store's budget
/// (`ARCHITECTURE.md`) is drawn up for 100,000. A larger `count` is an error at `validate`.
pub const TWIN_SET_LEN_MAX: u32 = 100_000;

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

/// Who an object is: its name and namespace, and what people and selectors know it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// The object's name, unique for its kind and namespace. Letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Where the name is unique. The twin of `{namespace: farm, name: node-17}` is the thing
    /// `farm:node-17`. References look in the object's own namespace first, then in `default`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Words that selectors match, such as `room: north`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools; nothing selects by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

// ---------------------------------------------------------------------------------------------
// Twins

/// What twins of one sort have: features, their properties, types, units and ranges. A subset
/// of a W3C WoT Thing Model. Readings are checked against it, and firmware takes its C++ types
/// from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinModelSpec {
    /// What these twins are, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The features by id.
    pub features: BTreeMap<String, FeatureModel>,
}

/// One feature: a group of properties that belong together, such as `environment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeatureModel {
    /// What this feature is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The properties by name.
    pub properties: BTreeMap<String, PropertyModel>,
}

/// One property: its type, its unit and the values that it can have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PropertyModel {
    /// The JSON type of the value.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// The unit of a number: a UCUM code or SenML name, such as `Cel`, `%RH`, `dB`, `lx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// The least value; a reading below it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// The greatest value; a reading above it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// The words that a string may be.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// True for a sensor; false for an actuator that a rule or a client may set.
    #[serde(default = "yes")]
    pub read_only: bool,
    /// Whether the node can send it by itself; false means that it has to be asked.
    #[serde(default = "yes")]
    pub observable: bool,
    /// What this property is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl PropertyModel {
    /// Why a value does not fit, as words that follow the property's name; none if it fits.
    pub fn misfit(&self, value: &Value) -> Option<String> {
        let fits = match self.value_type {
            ValueType::Number => value.is_number(),
            ValueType::Integer => value.is_i64() || value.is_u64(),
            ValueType::Boolean => value.is_boolean(),
            ValueType::String => value.is_string(),
            ValueType::Object => value.is_object(),
            ValueType::Array => value.is_array(),
        };
        if !fits {
            return Some(format!("is {} in its model, not `{value}`", self.value_type.name()));
        }
        if let Some(number) = value.as_f64() {
            if self.minimum.is_some_and(|minimum| number < minimum) {
                return Some(format!(
                    "is at least {}, not {value}",
                    self.minimum.unwrap_or_default()
                ));
            }
            if self.maximum.is_some_and(|maximum| number > maximum) {
                return Some(format!(
                    "is at most {}, not {value}",
                    self.maximum.unwrap_or_default()
                ));
            }
        }
        match (&self.values, value.as_str()) {
            (Some(words), Some(word)) if !words.iter().any(|known| known == word) => Some(format!(
                "is one of {}, not `{word}`",
                super::schema::list_words(words.iter().map(String::as_str))
            )),
            _ => None,
        }
    }
}

impl TwinModelSpec {
    /// A property by feature and name.
    pub fn property(&self, feature: &str, name: &str) -> Option<&PropertyModel> {
        self.features.get(feature)?.properties.get(name)
    }

    /// The feature of a property that only one feature has; none if no feature or several have it.
    pub fn feature_of(&self, name: &str) -> Option<&str> {
        let mut found = self.features.iter().filter(|(_, of)| of.properties.contains_key(name));
        let (feature, _) = found.next()?;
        found.next().is_none().then_some(feature)
    }
}

/// The JSON type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// A decimal number.
    Number,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// Text.
    String,
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
}

impl ValueType {
    /// As written in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}

/// One twin: the digital counterpart of one physical object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TwinSpec {
    /// The TwinModel that says what this twin has. Without one, any reading is taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Static metadata: facts that do not come from the node, such as a place or a serial
    /// number. `services` is written there by `services` below.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// The services that a change of this twin calls: a list of names, or a map from name to
    /// options.
    #[serde(default, skip_serializing_if = "ServiceNames::is_empty")]
    pub services: ServiceNames,
    /// The microcontroller behind this twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeSpec>,
    /// Property values that the twin asks of its node, by feature.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub desired: BTreeMap<String, BTreeMap<String, Value>>,
    /// How the node talks as long as no rule says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmission: Option<Transmission>,
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
    /// Inputs for this twin in place of the service's own, in the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<PropertyPath>>,
    /// Least time between two calls for this twin; changes in between are judged together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// False leaves the service named but not called.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// The microcontroller behind a twin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeSpec {
    /// The NodeProfile: board, sensors and pins. A twin with a profile can be simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How the node is connected, where it differs from the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The name of the credentials that this node logs in with; the secret itself is never in
    /// a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// How a node reaches the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// MQTT over TCP, as WiFi boards do.
    Mqtt,
    /// Lines over a serial port, through the gateway.
    Serial,
}

/// Like twins by the hundred: a template, and how many or which names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinSetSpec {
    /// How many twins; they are called `NAME-1`, `NAME-2` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
    /// The names of the twins, instead of a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100_000))]
    pub names: Option<Vec<String>>,
    /// What each twin is.
    pub template: TwinTemplate,
}

/// What each twin of a set is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinTemplate {
    /// Labels and annotations of each twin.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// The spec of each twin.
    pub spec: TwinSpec,
}

/// Labels and annotations of each twin of a set, beside those of the set itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMetadata {
    /// Words that selectors match, such as `room: north`.
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

/// A twin derived from member twins, such as a room from its nodes. It is a full twin: services
/// can judge it, and it can be a member of another aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinAggregateSpec {
    /// Which twins it is made of. A selector is live: twins join and leave as their labels do.
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

/// Which twins: by name, by label, or both. Names always belong; labels and expressions that are
/// given must all hold. A selector of an object in namespace `default` reaches the twins of all
/// namespaces, any other those of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberSelector {
    /// Members by name, in the aggregate's namespace; `NAMESPACE/NAME` reaches another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels that a member has, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels, all of which hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// How one property of an aggregate comes from its members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Derivation {
    /// The function over the members' values.
    #[serde(rename = "fn")]
    pub function: DeriveFunction,
    /// The members' property. `count` may leave it out and then counts members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<PropertyPath>,
    /// Over the values of this long instead of the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// Which quantile, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub q: Option<f64>,
}

// ---------------------------------------------------------------------------------------------
// Services and models

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

/// A trained artefact: a file with its digest, or the recipe that makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSpec {
    /// What sort of model it is.
    pub classifier: Classifier,
    /// The model file, relative to this manifest. Goes with `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The file's SHA-256, as `sha256:` and 64 hexadecimal digits; a file that differs is never
    /// loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), extend("x-scalar" = "digest"))]
    pub digest: Option<String>,
    /// How to train it, instead of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainingRecipe>,
    /// What the model's inputs are called, in its order: columns of the training data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub inputs: Vec<String>,
    /// The answers that it can give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// What sort of model it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Classifier {
    /// A random forest.
    Forest,
    /// A support vector machine with an RBF kernel.
    Svm,
    /// A multi-layer perceptron.
    Mlp,
    /// An ONNX graph, trained elsewhere.
    Onnx,
}

impl Classifier {
    /// As written in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forest => "forest",
            Self::Svm => "svm",
            Self::Mlp => "mlp",
            Self::Onnx => "onnx",
        }
    }
}

/// How to train a model: the same recipe always gives the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingRecipe {
    /// A CSV file with a header line, relative to this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// A generator of example data, instead of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// How many rows to generate, or the most to read from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1_000_000))]
    pub rows: Option<u32>,
    /// The column that holds the answer.
    #[serde(default = "target_default")]
    pub target: String,
    /// Where all chance comes from.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// The share of rows kept back to judge the model.
    #[serde(default = "test_default")]
    pub test: Percent,
    /// Settings of the classifier; each classifier has its own, the others are ignored with a
    /// warning.
    #[serde(default)]
    pub parameters: TrainingParameters,
}

/// A generator of example data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// Rooms with temperature, humidity, loudness and light over the day, some readings
    /// anomalous. Columns `temperature`, `humidity`, `loudness`, `light`, `label`.
    Environment,
}

/// Settings of a classifier; what is left out takes the trainer's default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingParameters {
    /// Forest: number of trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub trees: Option<u32>,
    /// Forest: greatest depth of a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub depth: Option<u32>,
    /// Forest: fewest rows in a leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_leaf: Option<u32>,
    /// Forest: the share of inputs that each split looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Percent>,
    /// SVM: cost of a row on the wrong side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub c: Option<f64>,
    /// SVM: width of the kernel; left out, it follows from the data's variance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub gamma: Option<f64>,
    /// MLP: units of each hidden layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub hidden: Option<Vec<u32>>,
    /// MLP: passes over the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub epochs: Option<u32>,
    /// MLP: step size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub learning_rate: Option<f64>,
    /// MLP: rows in a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch: Option<u32>,
}

// ---------------------------------------------------------------------------------------------
// Transmission

/// How a node talks: which program, how often, and on what change. The same words as LwM2M's
/// and CoAP's conditional attributes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Transmission {
    /// The program in the node's firmware: `interval`, `on-change`, `burst`, `features`,
    /// `raw`, `aggregate`, `predict`, `on-request`, `schedule`, or one that a NodeProfile lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Time between messages; the same as `pmin` and `pmax` with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Least time between messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmin: Option<Duration>,
    /// Longest silence: a message goes out after it even if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmax: Option<Duration>,
    /// Least time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmin: Option<Duration>,
    /// Longest time between samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epmax: Option<Duration>,
    /// Send when the value differs by this much from the last one sent: in the property's unit,
    /// or a share of its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub st: Option<Deadband>,
    /// Send when the value crosses this one upwards or downwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gt: Option<f64>,
    /// Send when the value crosses this one downwards or upwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
    /// For true-or-false properties: which change is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// Whether the edge acknowledges each message, and the node repeats it until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<bool>,
    /// How many readings the node keeps while it is cut off, to send later as historical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub buffer: Option<u32>,
    /// Program `burst`: how much of the time before the trigger is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Duration>,
    /// Program `burst`: how long it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<Duration>,
    /// The Channel to talk on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// Which change of a true-or-false property is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// From false to true.
    Rising,
    /// From true to false.
    Falling,
    /// Every change.
    Both,
}

// ---------------------------------------------------------------------------------------------
// Context rules

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

/// A shared medium with a capacity: what the sum of all transmissions must fit into.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSpec {
    /// What the medium is; it decides what a message costs.
    pub medium: Medium,
    /// What it carries.
    pub capacity: DataRate,
    /// The share kept free.
    #[serde(default = "reserve_default")]
    pub reserve: Percent,
    /// Other Channels that its nodes could move to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
    /// WiFi: the network's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssid: Option<String>,
    /// WiFi: the radio channel. LoRa: the number of the frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub number: Option<u16>,
    /// LoRa: the spreading factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 12))]
    pub spreading_factor: Option<u8>,
    /// LoRa: the share of time that a node may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duty_cycle: Option<Percent>,
    /// Most commands in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub commands_per_second: Option<f64>,
}

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// WiFi.
    Wifi,
    /// LoRa.
    Lora,
    /// A serial line.
    Serial,
    /// A wire.
    Ethernet,
}

// ---------------------------------------------------------------------------------------------
// Nodes

/// What a sort of node is made of: board, sensors and actuators with pins, programs, memory.
/// Firmware is generated from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProfileSpec {
    /// The board.
    pub board: Board,
    /// How its nodes reach the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// What it measures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub sensors: Vec<SensorSpec>,
    /// What it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub actuators: Vec<ActuatorSpec>,
    /// The battery that it runs on, if it measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery: Option<BatterySpec>,
    /// The transmission programs in its firmware; left out, all that fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// How its nodes talk by themselves, and what they fall back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmission: Option<Transmission>,
    /// How memory is shared out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
    /// How long a node goes without a word from the edge before it falls back to its own
    /// transmission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// The Channels that it can talk on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
}

/// A board that firmware can be generated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Board {
    /// Arduino Uno (ATmega328P), serial.
    Uno,
    /// Arduino Mega (ATmega2560), serial.
    Mega,
    /// Arduino Uno R4 WiFi.
    UnoR4Wifi,
    /// Arduino Nano 33 IoT.
    Nano33Iot,
    /// ESP8266 D1 mini.
    D1Mini,
    /// ESP32.
    Esp32,
    /// Raspberry Pi Pico W.
    PicoW,
    /// A process on the host, for tests and simulation.
    Host,
}

/// One sensor of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SensorSpec {
    /// The part: `lm35`, `ntc`, `ldr`, `grove-light`, `grove-loudness`, `dht11`, `dht22`,
    /// `bme280`, `digital` or `analog`.
    #[serde(rename = "type")]
    pub part: SensorPart,
    /// The pin that it is connected to, as printed on the board: `A0`, `2`, `GPIO34`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The twin property that it measures, for a part with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property: Option<PropertyPath>,
    /// The twin properties that it measures, by quantity, for a part with several:
    /// `{temperature: environment/temperature, humidity: environment/humidity}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, PropertyPath>,
    /// Time between samples, where it differs from the part's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// How a raw value becomes one in the property's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// The I2C address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 119))]
    pub address: Option<u8>,
}

/// A sensor that firmware knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SensorPart {
    /// Analog temperature, 10 mV a degree.
    Lm35,
    /// Thermistor in a divider.
    Ntc,
    /// Photoresistor in a divider.
    Ldr,
    /// Grove light sensor.
    GroveLight,
    /// Grove loudness sensor.
    GroveLoudness,
    /// Temperature and humidity, one wire, 1 s.
    Dht11,
    /// Temperature and humidity, one wire, 2 s.
    Dht22,
    /// Temperature, humidity and pressure, I2C.
    Bme280,
    /// Anything that is high or low: a contact, a PIR.
    Digital,
    /// Anything with a voltage.
    Analog,
}

/// A pin as printed on the board: a number, or a name such as `A0` or `GPIO34`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Pin {
    /// A pin by number.
    Number(u8),
    /// A pin by name.
    Name(String),
}

/// How a raw value becomes one in the property's unit: `value = raw * scale + offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// Factor.
    #[serde(default = "unit_scale")]
    pub scale: f64,
    /// Added after the factor.
    #[serde(default)]
    pub offset: f64,
    /// Thermistor: the beta coefficient, K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
}

/// One actuator of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActuatorSpec {
    /// The part.
    #[serde(rename = "type")]
    pub part: ActuatorPart,
    /// The pin that it is connected to, as printed on the board.
    pub pin: Pin,
    /// The twin property that sets it.
    pub property: PropertyPath,
    /// The value that it takes when the edge is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe: Option<Value>,
}

/// An actuator that firmware knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActuatorPart {
    /// On or off.
    Relay,
    /// On or off, or dimmed.
    Led,
    /// A duty cycle.
    Pwm,
    /// An angle.
    Servo,
    /// A tone.
    Buzzer,
}

/// A node's battery, measured at an analog pin. Its nodes report what is left as a percentage, a
/// straight line from `emptyVolts` to `fullVolts`; rules read it as `node.battery`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatterySpec {
    /// The analog pin that it is connected to, as printed on the board: `A3`, `GPIO35`.
    pub pin: Pin,
    /// Its voltage when it is empty, V: 3.3 of a lithium cell.
    #[schemars(range(min = 0, max = 100))]
    pub empty_volts: f64,
    /// Its voltage when it is full, V: 4.2 of a lithium cell.
    #[schemars(range(min = 0, max = 100))]
    pub full_volts: f64,
    /// How much less is at the pin, where there is a divider: (R1 + R2) / R2, so 2 with two equal
    /// resistors. Left out, the battery is at the pin.
    #[serde(default = "unit_scale")]
    #[schemars(range(min = 1, max = 100))]
    pub divider: f64,
    /// Below this share the node is low on battery; `15%` if left out.
    #[serde(default = "low_default")]
    pub low: Percent,
}

/// How a node's memory is shared out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySpec {
    /// How many readings the node keeps while it is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ring: Option<u32>,
    /// RAM left free for the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
}

// ---------------------------------------------------------------------------------------------
// Change, cloud, rights, simulation

/// A new model or firmware in waves, with gates between them and a way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSpec {
    /// The Service that gets a new model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The Model that it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The NodeProfile whose nodes get new firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The waves, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub waves: Vec<Wave>,
    /// Judge with both models and use only the old one's verdicts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// What must be true before the next wave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gates: Vec<Gate>,
    /// Go back by itself when a gate fails.
    #[serde(default = "yes")]
    pub rollback: bool,
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Wave {
    /// The share of nodes or calls that this wave reaches.
    pub share: Percent,
    /// How long to watch before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
}

/// What must be true before the next wave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// What is measured: `disagreement`, `latency-p99-ms`, `error-rate`, `lost-nodes`.
    pub metric: GateMetric,
    /// The greatest value that passes.
    pub maximum: f64,
}

/// What a gate measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateMetric {
    /// Share of verdicts that differ between the old and the new model.
    Disagreement,
    /// 99th percentile of the call's time, ms.
    LatencyP99Ms,
    /// Share of calls that fail.
    ErrorRate,
    /// Nodes that did not come back.
    LostNodes,
}

/// What may leave the site, to where and how often. What no CloudSink names stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudSinkSpec {
    /// Where to: `https://…` or `mqtts://…`.
    #[schemars(regex(pattern = r"^(https?|mqtts?)://[^\s]+$"), extend("x-scalar" = "url"))]
    pub url: String,
    /// What may leave.
    #[schemars(length(min = 1, max = 256))]
    pub allow: Vec<CloudAllowance>,
    /// How much is kept on disk while the uplink is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Size>,
    /// The name of the credentials to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// One thing that may leave the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudAllowance {
    /// Of which twins.
    pub twins: MemberSelector,
    /// Which properties, by `feature/property`.
    #[schemars(length(min = 1, max = 256))]
    pub properties: Vec<PropertyPath>,
    /// Least time between two values of one twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// Who may read and write what: a Ditto policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicySpec {
    /// The entries by label.
    pub entries: BTreeMap<String, PolicyEntry>,
    /// Entries taken from other policies, by policy id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub imports: BTreeMap<String, Value>,
}

/// One entry of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyEntry {
    /// Who, by subject id such as `pre:local`.
    pub subjects: BTreeMap<String, PolicySubject>,
    /// What, by resource such as `thing:/features`.
    pub resources: BTreeMap<String, PolicyResource>,
    /// Whether other policies may take this entry: `implicit`, `explicit` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importable: Option<Importable>,
}

/// Whether other policies may take an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Importable {
    /// Taken by every import.
    Implicit,
    /// Taken by imports that name it.
    Explicit,
    /// Never taken.
    Never,
}

/// Who a policy entry is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicySubject {
    /// A note on what sort of subject it is.
    #[serde(rename = "type")]
    pub subject_type: String,
    /// When the subject loses its rights, an ISO 8601 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<String>,
}

/// What a policy entry permits on a resource and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyResource {
    /// Permissions given.
    pub grant: Vec<Permission>,
    /// Permissions taken away, which wins over any grant at the same depth.
    pub revoke: Vec<Permission>,
}

/// What a subject may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Permission {
    /// Read.
    #[serde(rename = "READ")]
    Read,
    /// Write.
    #[serde(rename = "WRITE")]
    Write,
    /// Run an operation.
    #[serde(rename = "EXECUTE")]
    Execute,
}

/// A simulated physical environment: nodes, what they measure, channels, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioSpec {
    /// Where all chance comes from.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// How much time is simulated.
    pub duration: Duration,
    /// The nodes that take part, and what they measure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub nodes: Vec<ScenarioNodes>,
    /// The Channels that the nodes talk on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What goes wrong, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub faults: Vec<Fault>,
}

/// A group of simulated nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioNodes {
    /// Which twins' nodes.
    pub twins: MemberSelector,
    /// Replay these columns of a CSV file, relative to this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Generate values instead of replaying a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// The Channel of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// A recorded trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trace {
    /// The CSV file, relative to this manifest.
    pub file: String,
    /// Which column is which property.
    pub columns: BTreeMap<String, PropertyPath>,
    /// The column with the time; without one the rows are `period` apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Time between rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
}

/// Something that goes wrong in a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// What happens.
    #[serde(rename = "type")]
    pub fault: FaultType,
    /// When it starts.
    pub at: Duration,
    /// How long it lasts.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Duration>,
    /// The Channel that it happens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The twins whose nodes it happens to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twins: Option<MemberSelector>,
    /// Loss: the share of messages that are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Percent>,
    /// Delay: how late messages come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Surge: how many times the usual readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub factor: Option<f64>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultType {
    /// Nothing gets through.
    Outage,
    /// Messages are lost.
    Loss,
    /// Messages come late.
    Delay,
    /// A jammer: loss without load.
    Jamming,
    /// Many times the usual readings.
    Surge,
    /// Nodes restart.
    Restart,
    /// Nodes send false values.
    Lie,
}

// ---------------------------------------------------------------------------------------------
// Defaults

const fn yes() -> bool {
    true
}

const fn one() -> u32 {
    1
}

const fn is_false(value: &bool) -> bool {
    !*value
}

const fn unit_scale() -> f64 {
    1.0
}

const fn low_default() -> Percent {
    Percent::new(15.0)
}

const fn lease_default() -> Duration {
    Duration::from_ms(30_000)
}

const fn timeout_default() -> Duration {
    Duration::from_ms(1000)
}

const fn reserve_default() -> Percent {
    Percent::new(20.0)
}

const fn test_default() -> Percent {
    Percent::new(25.0)
}

const fn seed_default() -> u64 {
    1
}

fn target_default() -> String {
    "label".to_owned()
}
