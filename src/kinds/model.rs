//! Model: a file, or the recipe that trains it.
//!
//! Not here: TwinModel (`twin_model`), training itself (`edgeai::train`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Percent;
use super::default::seed_default;
use super::pending::{KindSpec, Pending, Values};

/// The annotation that names the training data of a Model by digest.
pub const DATA_ANNOTATION: &str = "edgetwin.dev/data-digest";

/// A trained model: a file with its digest, or the recipe by which the runtime trains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSpec {
    /// The kind of model.
    pub classifier: Classifier,
    /// The model file, relative to this manifest. Needs `digest`.
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
    /// The names of the model's inputs, in its order: columns of the training data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub inputs: Vec<String>,
    /// The labels that it can predict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl KindSpec for ModelSpec {
    const PENDING: &'static [Pending] =
        &[Pending::Field("classifier", Values::Only(&["onnx"]), "such models are not loaded")];
}

/// The kind of model.
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

/// How to train a model. The same recipe always gives the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingRecipe {
    /// A CSV file with a header line, relative to this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// A generator of synthetic data, instead of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<Generator>,
    /// The number of rows to generate, or the most to read from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1_000_000))]
    pub rows: Option<u32>,
    /// The column that holds the label.
    #[serde(default = "target_default")]
    pub target: String,
    /// The random seed.
    #[serde(default = "seed_default")]
    pub seed: u64,
    /// The share of rows that is held out to evaluate the model.
    #[serde(default = "test_default")]
    pub test: Percent,
    /// Parameters of the classifier. Each classifier has its own; others are ignored with a
    /// warning.
    #[serde(default)]
    pub parameters: TrainingParameters,
}

/// A generator of synthetic data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// Rooms with temperature, humidity, loudness and light over the day, some readings
    /// anomalous. Columns `temperature`, `humidity`, `loudness`, `light`, `label`.
    Environment,
}

/// Parameters of a classifier. A parameter that is left out has the trainer's default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrainingParameters {
    /// Forest: number of trees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub trees: Option<u32>,
    /// Forest: maximum depth of a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub depth: Option<u32>,
    /// Forest: minimum number of rows in a leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min_leaf: Option<u32>,
    /// Forest: the share of inputs that each split considers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Percent>,
    /// SVM: cost of a row on the wrong side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub c: Option<f64>,
    /// SVM: width of the kernel. By default it is derived from the data's variance.
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
    /// MLP: learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub learning_rate: Option<f64>,
    /// MLP: rows in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch: Option<u32>,
}

const fn test_default() -> Percent {
    Percent::new(25.0)
}

fn target_default() -> String {
    "label".to_owned()
}
