//! How good a model is on rows it has not seen, for people and as JSON.
//!
//! Not here: printing (the command line), the rows (`dataset`).

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::dataset::Dataset;
use super::{Classifier, Model, PredictError, Prediction};

/// Number of bins of [`Evaluation::reliability`], of equal width over the score from 0 to 1.
pub const RELIABILITY_BINS: usize = 10;

/// The report of a training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingReport {
    /// Kind of model.
    pub classifier: Classifier,
    /// [`Model::version`] of the model that was made.
    pub version: String,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Seed of the recipe.
    pub seed: u64,
    /// The recipe's parameters, as used.
    pub parameters: BTreeMap<String, String>,
    /// Rows left out because a value was missing.
    pub rows_skipped: usize,
    /// Rows that the model was fitted to.
    pub rows_train: usize,
    /// Size of the model file in bytes.
    pub model_bytes: usize,
    /// Time that fitting took, in seconds; 0 unless the caller, who has a clock, sets it.
    pub seconds: f64,
    /// On the rows kept aside; absent if the recipe keeps none.
    pub test: Option<Evaluation>,
}

/// Predictions against the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of rows judged.
    pub rows: usize,
    /// Share of rows whose label was right.
    pub accuracy: f64,
    /// Mean of the labels' F1.
    pub macro_f1: f64,
    /// Precision, recall and F1 of each label, in the order of the labels.
    pub by_label: Vec<LabelScore>,
    /// Rows by truth (outer) and prediction (inner), in the order of the labels.
    pub confusion: Vec<Vec<u64>>,
    /// Brier score: mean over rows of the summed squared distance between the probabilities and
    /// the truth (1 for the true label, 0 else); 0 is perfect, 2 the worst. Source: Brier 1950.
    pub brier: f64,
    /// Expected calibration error: mean distance between score and accuracy over the bins,
    /// weighted by their rows.
    pub calibration_error: f64,
    /// Rows by score: a well calibrated model is right as often as its score says.
    pub reliability: Vec<Bin>,
}

/// How well one label is recognised; a quotient of nothing is 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// Name of the label.
    pub label: String,
    /// Of the rows given this label, the share that has it.
    pub precision: f64,
    /// Of the rows that have this label, the share given it.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Rows that have it.
    pub rows: u64,
}

/// Rows whose score lies in one interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    /// Lower end; the width is 1 / [`RELIABILITY_BINS`].
    pub from: f64,
    /// Number of rows.
    pub rows: u64,
    /// Their mean score.
    pub score: f64,
    /// Share of them that was right.
    pub accuracy: f64,
}

impl Evaluation {
    /// Lets a model judge every row of `data`, which has the model's inputs in its order. A label
    /// that the model does not know counts as wrong.
    ///
    /// # Errors
    /// [`PredictError::Length`] if the inputs differ in number.
    pub fn of(model: &Model, data: &Dataset) -> Result<Self, PredictError> {
        let labels = &model.meta().labels;
        // Where each label of the data is among the model's; unknown ones get rows of their own.
        let mut names = labels.clone();
        let place: Vec<usize> = data
            .labels()
            .iter()
            .map(|l| {
                names.iter().position(|n| n == l).unwrap_or_else(|| {
                    names.push(l.clone());
                    names.len() - 1
                })
            })
            .collect();
        let mut confusion = vec![vec![0_u64; names.len()]; names.len()];
        let mut brier = 0.0;
        let mut bins = vec![(0_u64, 0.0_f64, 0_u64); RELIABILITY_BINS];
        let mut out = Prediction::default();
        for i in 0..data.len() {
            model.predict(data.row(i), &mut out)?;
            let truth = place[data.label(i)];
            confusion[truth][out.label] += 1;
            for (label, &p) in out.probabilities.iter().enumerate() {
                brier += (f64::from(p) - f64::from(u8::from(label == truth))).powi(2);
            }
            if truth >= out.probabilities.len() {
                brier += 1.0;
            }
            let bin = (out.score * RELIABILITY_BINS as f32) as usize;
            let bin = &mut bins[bin.min(RELIABILITY_BINS - 1)];
            bin.0 += 1;
            bin.1 += f64::from(out.score);
            bin.2 += u64::from(out.label == truth);
        }
        let rows = data.len() as u64;
        let by_label: Vec<LabelScore> = names
            .iter()
            .enumerate()
            .map(|(l, name)| {
                let hits = confusion[l][l];
                let given = confusion.iter().map(|row| row[l]).sum();
                let have = confusion[l].iter().sum();
                LabelScore {
                    label: name.clone(),
                    precision: share(hits, given),
                    recall: share(hits, have),
                    f1: share(2 * hits, given + have),
                    rows: have,
                }
            })
            .collect();
        let right = (0..names.len()).map(|l| confusion[l][l]).sum();
        let reliability: Vec<Bin> = bins
            .iter()
            .enumerate()
            .map(|(i, &(n, scores, right))| Bin {
                from: i as f64 / RELIABILITY_BINS as f64,
                rows: n,
                score: if n == 0 { 0.0 } else { scores / n as f64 },
                accuracy: share(right, n),
            })
            .collect();
        Ok(Self {
            rows: data.len(),
            accuracy: share(right, rows),
            macro_f1: by_label.iter().map(|l| l.f1).sum::<f64>() / by_label.len() as f64,
            by_label,
            confusion,
            brier: brier / data.len().max(1) as f64,
            calibration_error: reliability
                .iter()
                .map(|b| share(b.rows, rows) * (b.score - b.accuracy).abs())
                .sum(),
            reliability,
        })
    }

    /// F1 of one label by its name; 0 if there is none.
    #[must_use]
    pub fn f1(&self, label: &str) -> f64 {
        let found = self.by_label.iter().find(|l| l.label == label);
        found.map_or(0.0, |l| l.f1)
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

impl fmt::Display for TrainingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (seed {}", self.classifier, self.version, self.seed)?;
        for (name, value) in &self.parameters {
            write!(f, ", {name} {value}")?;
        }
        writeln!(f, ")")?;
        write!(f, "fitted to {} rows", self.rows_train)?;
        if self.rows_skipped > 0 {
            write!(f, " ({} without a value left out)", self.rows_skipped)?;
        }
        if self.seconds > 0.0 {
            write!(f, " in {:.1} s", self.seconds)?;
        }
        writeln!(f, ", {} bytes", self.model_bytes)?;
        match &self.test {
            Some(test) => write!(f, "{test}"),
            None => writeln!(f, "no rows kept aside: nothing is known of its quality"),
        }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.by_label.iter().map(|l| l.label.chars().count()).fold(18, usize::max);
        writeln!(
            f,
            "on {} rows it has not seen: accuracy {:.3}, macro F1 {:.3}, Brier {:.3}, calibration \
             error {:.3}",
            self.rows, self.accuracy, self.macro_f1, self.brier, self.calibration_error
        )?;
        writeln!(f, "\n{:width$}  precision  recall     F1    rows", "label")?;
        for l in &self.by_label {
            writeln!(
                f,
                "{:width$}  {:9.3}  {:6.3}  {:5.3}  {:6}",
                l.label, l.precision, l.recall, l.f1, l.rows
            )?;
        }
        write!(f, "\n{:width$}", "actual \\ predicted")?;
        for l in &self.by_label {
            write!(f, "  {:>width$}", l.label)?;
        }
        writeln!(f)?;
        for (l, row) in self.by_label.iter().zip(&self.confusion) {
            write!(f, "{:width$}", l.label)?;
            for n in row {
                write!(f, "  {n:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
