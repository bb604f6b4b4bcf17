//! EdgeAI: models that classify a twin's state, in microseconds, without a heap allocation.
//!
//! A [`Model`] maps a row of numbers, in the order of [`Meta::inputs`], to a [`Prediction`]: a
//! probability for each of [`Meta::labels`]. Random forest (`forest`), support vector machine
//! (`svm`) and multi-layer perceptron (`mlp`) share one file format (`format`), one training
//! entry ([`train`]) and one report. [`generate`] makes synthetic data for training and
//! demonstration; [`http`] serves models and calls served ones by the Open
//! Inference Protocol; [`service`] is what callers know of a deployed one.
//!
//! Always true, and tested:
//! 1. the same recipe, seed and rows give the same model bytes, whatever the number of threads;
//! 2. any bytes that are not a model are an error: no panic, no allocation beyond their size;
//! 3. probabilities are finite, not negative and sum to 1 (within rounding), the label is the
//!    first of the largest, and the score is that label's probability;
//! 4. a row that is too short, too long or has a value that is no finite number is refused.
//!
//! Not here: which service a twin names (`trigger`), which instance answers (`registry`), files
//! (the command line).

mod dataset;
mod forest;
mod format;
pub mod generate;
pub mod http;
mod limits;
mod mlp;
mod oip;
mod parameters;
mod report;
mod scaler;
pub mod service;
mod smo;
mod svm;
pub mod train;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use format::{MODEL_BYTES_MAX, ModelError};
pub use limits::{INPUTS_MAX, LABELS_MAX, NAME_BYTES_MAX};

/// The kinds of model that [`train`] fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classifier {
    /// Random forest (Breiman 2001).
    Forest,
    /// Support vector machine with a Gaussian (RBF) kernel and calibrated probabilities.
    Svm,
    /// Multi-layer perceptron: fully connected, ReLU, softmax.
    Mlp,
}

impl Classifier {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Forest, Self::Svm, Self::Mlp];

    /// The name in recipes, manifests and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forest => "forest",
            Self::Svm => "svm",
            Self::Mlp => "mlp",
        }
    }
}

impl fmt::Display for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Classifier {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == s)
            .ok_or_else(|| format!("`{s}` is no classifier: forest, svm or mlp"))
    }
}

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Which kind of model it is.
    pub classifier: Classifier,
    /// Names of the inputs, in the order of a row; 1 to [`INPUTS_MAX`], each once.
    pub inputs: Vec<String>,
    /// Names of the labels; 2 to [`LABELS_MAX`], each once, sorted (numbers by value).
    pub labels: Vec<String>,
    /// Seed of the recipe that it was trained by.
    pub seed: u64,
    /// Rows that it was fitted to (test rows are not among them).
    pub rows: u64,
    /// The recipe's parameters as they were used, by name.
    pub parameters: BTreeMap<String, String>,
}

impl Meta {
    /// Checks counts and names.
    fn check(&self) -> Result<(), ModelError> {
        let names = |names: &[String]| {
            let mut seen = std::collections::HashSet::new();
            names.iter().all(|n| !n.is_empty() && n.len() <= NAME_BYTES_MAX && seen.insert(n))
        };
        if !(1..=INPUTS_MAX).contains(&self.inputs.len()) || !names(&self.inputs) {
            Err(ModelError::Invalid("inputs"))
        } else if !(2..=LABELS_MAX).contains(&self.labels.len()) || !names(&self.labels) {
            Err(ModelError::Invalid("labels"))
        } else {
            Ok(())
        }
    }
}

/// What a model answers for one row. Reuse it: its buffers grow once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    /// Index in [`Meta::labels`] of the most probable label; the first of equals.
    pub label: usize,
    /// Probability of `label`, between 1 / labels and 1.
    pub score: f32,
    /// Probability of each label, in the order of [`Meta::labels`]; they sum to 1.
    pub probabilities: Vec<f32>,
    /// Intermediate values; no meaning after the call.
    scratch: Vec<f32>,
}

/// Why a row got no prediction. It is the caller's fault, except for `Overflow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PredictError {
    /// The row does not have one value for each input.
    Length {
        /// Number of inputs.
        expected: usize,
        /// Number of values given.
        got: usize,
    },
    /// The value of this input (an index) is missing: NaN or infinite. Models have no rule for
    /// missing values; the caller keeps its last verdict.
    NotFinite {
        /// Index of the input.
        input: usize,
    },
    /// The model's own numbers overflowed: it was not made by [`train`].
    Overflow,
}

impl fmt::Display for PredictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, got } => {
                write!(f, "the model takes {expected} inputs, the row has {got}")
            }
            Self::NotFinite { input } => {
                write!(f, "input {input} has no value (not a finite number)")
            }
            Self::Overflow => write!(f, "the model's numbers overflow on this row"),
        }
    }
}

impl std::error::Error for PredictError {}

/// The fitted part, one variant a classifier.
#[derive(Debug, Clone, PartialEq)]
enum Body {
    Forest(forest::Forest),
    Svm(svm::Svm),
    Mlp(mlp::Mlp),
}

/// A trained classifier: immutable, cheap to share between threads (`Arc`), and identified by
/// the digest of its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    meta: Meta,
    body: Body,
    digest: String,
}

impl Model {
    /// Puts a fitted body under its description. Both come from `train`, which upholds the rules
    /// that [`Model::from_bytes`] checks.
    fn new(meta: Meta, body: Body) -> Self {
        debug_assert!(meta.check().is_ok());
        let mut model = Self { meta, body, digest: String::new() };
        model.digest = digest(&model.to_bytes());
        model
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`ModelError`], for every input that is not exactly what [`Model::to_bytes`] writes. Never
    /// panics; allocates at most a small multiple of `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        let (mut reader, meta) = format::Reader::new(bytes)?;
        let meta: Meta =
            serde_json::from_slice(meta).map_err(|_| ModelError::Invalid("description"))?;
        meta.check()?;
        let (inputs, labels) = (meta.inputs.len(), meta.labels.len());
        let body = match meta.classifier {
            Classifier::Forest => Body::Forest(forest::Forest::read(&mut reader, inputs, labels)?),
            Classifier::Svm => Body::Svm(svm::Svm::read(&mut reader, inputs, labels)?),
            Classifier::Mlp => Body::Mlp(mlp::Mlp::read(&mut reader, inputs, labels)?),
        };
        reader.finish()?;
        let model = Self { meta, body, digest: digest(bytes) };
        if model.to_bytes() != bytes {
            return Err(ModelError::NotCanonical);
        }
        Ok(model)
    }

    /// The model file. The same model always gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings and numbers alone: serialising them cannot fail.
        let meta = serde_json::to_vec(&self.meta).unwrap_or_default();
        let mut writer = format::Writer::new(&meta);
        match &self.body {
            Body::Forest(b) => b.write(&mut writer),
            Body::Svm(b) => b.write(&mut writer),
            Body::Mlp(b) => b.write(&mut writer),
        }
        writer.finish()
    }

    /// What the model says about itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// SHA-256 of the model file, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The first 12 digits of [`Model::digest`]: what verdicts call the model's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.digest[..12]
    }

    /// Name of a label by its index; empty if there is none.
    #[must_use]
    pub fn label(&self, index: usize) -> &str {
        self.meta.labels.get(index).map_or("", String::as_str)
    }

    /// Judges one row.
    ///
    /// * `row`: one finite number for each of [`Meta::inputs`], in their order and units.
    /// * `out`: overwritten. Allocates only while its buffers are smaller than this model needs.
    ///
    /// # Errors
    /// [`PredictError`]; `out` is then unspecified.
    pub fn predict(&self, row: &[f32], out: &mut Prediction) -> Result<(), PredictError> {
        let expected = self.meta.inputs.len();
        if row.len() != expected {
            return Err(PredictError::Length { expected, got: row.len() });
        }
        if let Some(input) = row.iter().position(|v| !v.is_finite()) {
            return Err(PredictError::NotFinite { input });
        }
        out.probabilities.clear();
        out.probabilities.resize(self.meta.labels.len(), 0.0);
        match &self.body {
            Body::Forest(b) => b.predict(row, &mut out.probabilities),
            Body::Svm(b) => b.predict(row, &mut out.probabilities, &mut out.scratch),
            Body::Mlp(b) => b.predict(row, &mut out.probabilities, &mut out.scratch),
        }
        if out.probabilities.iter().any(|p| !p.is_finite()) {
            return Err(PredictError::Overflow);
        }
        (out.label, out.score) = first_largest(&out.probabilities);
        Ok(())
    }
}

/// Index and value of the largest element, the first of equals.
fn first_largest(values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, &v) in values.iter().enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best
}

fn digest(bytes: &[u8]) -> String {
    let nibbles = Sha256::digest(bytes).into_iter().flat_map(|b| [b >> 4, b & 15]);
    nibbles.filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
}

#[cfg(test)]
mod tests;
