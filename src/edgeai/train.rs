//! Training: rows and a recipe in, a model and a report out.
//!
//! [`run`] is what `edgetwin train` does; [`fit`] is its middle, without a test. Everything that
//! is random comes from the recipe's seed.
//!
//! Not here: files and clocks (the command line), ONNX models (trained elsewhere).

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use super::dataset::{DataError, Dataset};
pub use super::parameters::{ForestParameters, MlpParameters, Parameters, SvmParameters};
pub use super::report::{Evaluation, TrainingReport};
use super::{Body, Classifier, Meta, Model, dataset, forest, mlp, svm};

/// All that decides which model comes out of which rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Seed of everything random: the split, the bootstrap, the first weights.
    pub seed: u64,
    /// Share of the rows kept aside to test on; 0 (no test) to 0.9.
    pub test: f64,
    /// Threads that may be used, at least 1; no influence on the model.
    pub threads: usize,
    /// The classifier and its parameters.
    pub parameters: Parameters,
}

/// A parameter that the recipe does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeError {
    /// The classifier has no parameter of this name; the ones it has.
    Unknown {
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// The value is not one that this parameter takes; what it takes.
    Value {
        /// The name given.
        name: String,
        /// The value given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, known } => {
                write!(f, "there is no parameter `{name}`; there are {}", known.join(", "))
            }
            Self::Value { name, value, expected } => {
                write!(f, "parameter `{name}` cannot be `{value}`: {expected}")
            }
        }
    }
}

impl std::error::Error for RecipeError {}

/// Why no model came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainError {
    /// The rows are at fault.
    Data(DataError),
    /// The recipe is at fault.
    Recipe(RecipeError),
    /// The solver gave up; its words.
    Solver(String),
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(e) => e.fmt(f),
            Self::Recipe(e) => e.fmt(f),
            Self::Solver(e) => write!(f, "the model could not be fitted: {e}"),
        }
    }
}

impl std::error::Error for TrainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Data(e) => Some(e),
            Self::Recipe(e) => Some(e),
            Self::Solver(_) => None,
        }
    }
}

impl From<DataError> for TrainError {
    fn from(e: DataError) -> Self {
        Self::Data(e)
    }
}

impl From<RecipeError> for TrainError {
    fn from(e: RecipeError) -> Self {
        Self::Recipe(e)
    }
}

impl Recipe {
    /// The default recipe of a classifier: seed 0, a quarter of the rows to test on, one thread.
    #[must_use]
    pub fn new(classifier: Classifier) -> Self {
        let parameters = match classifier {
            Classifier::Forest => Parameters::Forest(ForestParameters {
                trees: 60,
                depth: 12,
                min_leaf: 8,
                features: None,
            }),
            Classifier::Svm => Parameters::Svm(SvmParameters {
                c: 10.0,
                gamma: None,
                rows: 16_000,
                tolerance: 1e-3,
            }),
            Classifier::Mlp => Parameters::Mlp(MlpParameters {
                hidden: vec![32, 16],
                rate: 1e-3,
                l2: 1e-3,
                batch: 200,
                epochs: 200,
                patience: 15,
                tolerance: 1e-4,
            }),
        };
        Self { seed: 0, test: 0.25, threads: 1, parameters }
    }

    /// The classifier that the parameters are of.
    #[must_use]
    pub fn classifier(&self) -> Classifier {
        match self.parameters {
            Parameters::Forest(_) => Classifier::Forest,
            Parameters::Svm(_) => Classifier::Svm,
            Parameters::Mlp(_) => Classifier::Mlp,
        }
    }

    /// Sets the share of rows to test on.
    ///
    /// # Errors
    /// [`RecipeError::Value`] outside 0 to 0.9.
    pub fn set_test(&mut self, share: f64) -> Result<(), RecipeError> {
        if (0.0..=0.9).contains(&share) {
            self.test = share;
            Ok(())
        } else {
            Err(RecipeError::Value {
                name: "test".to_owned(),
                value: share.to_string(),
                expected: "a share from 0 to 0.9",
            })
        }
    }

    /// Sets one parameter by its name, as in `-p trees=60`.
    ///
    /// # Errors
    /// [`RecipeError`]; the recipe is then unchanged.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), RecipeError> {
        let done = match &mut self.parameters {
            Parameters::Forest(p) => match name {
                "trees" => whole(value, 1, 1_000, &mut p.trees),
                "depth" => whole(value, 1, 30, &mut p.depth),
                "min-leaf" => whole(value, 1, usize::MAX, &mut p.min_leaf),
                "features" if value == "sqrt" => {
                    p.features = None;
                    Ok(())
                }
                "features" => {
                    let mut n = 0;
                    whole(value, 1, usize::MAX, &mut n).map(|()| p.features = Some(n))
                }
                _ => return Err(self.unknown(name)),
            },
            Parameters::Svm(p) => match name {
                "c" => number(value, f64::MIN_POSITIVE, &mut p.c),
                "gamma" if value == "scale" => {
                    p.gamma = None;
                    Ok(())
                }
                "gamma" => {
                    let mut gamma = 0.0;
                    number(value, 1e-30, &mut gamma).map(|()| p.gamma = Some(gamma))
                }
                "rows" => whole(value, 10, svm::ROWS_MAX, &mut p.rows),
                "tolerance" => number(value, 1e-12, &mut p.tolerance),
                _ => return Err(self.unknown(name)),
            },
            Parameters::Mlp(p) => match name {
                "hidden" => hidden(value, &mut p.hidden),
                "rate" => number(value, f64::MIN_POSITIVE, &mut p.rate),
                "l2" => number(value, 0.0, &mut p.l2),
                "batch" => whole(value, 1, usize::MAX, &mut p.batch),
                "epochs" => whole(value, 1, 10_000, &mut p.epochs),
                "patience" => whole(value, 1, usize::MAX, &mut p.patience),
                "tolerance" => number(value, 0.0, &mut p.tolerance),
                _ => return Err(self.unknown(name)),
            },
        };
        done.map_err(|expected| RecipeError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        })
    }

    fn unknown(&self, name: &str) -> RecipeError {
        RecipeError::Unknown {
            name: name.to_owned(),
            known: self.named().into_iter().map(|(n, _)| n).collect(),
        }
    }

    /// Every parameter by its name; [`Recipe::set`] takes each value back.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, String)> {
        match &self.parameters {
            Parameters::Forest(p) => vec![
                ("trees", p.trees.to_string()),
                ("depth", p.depth.to_string()),
                ("min-leaf", p.min_leaf.to_string()),
                ("features", p.features.map_or("sqrt".to_owned(), |n| n.to_string())),
            ],
            Parameters::Svm(p) => vec![
                ("c", p.c.to_string()),
                ("gamma", p.gamma.map_or("scale".to_owned(), |g| g.to_string())),
                ("rows", p.rows.to_string()),
                ("tolerance", p.tolerance.to_string()),
            ],
            Parameters::Mlp(p) => vec![
                (
                    "hidden",
                    if p.hidden.is_empty() {
                        "0".to_owned()
                    } else {
                        let units: Vec<String> = p.hidden.iter().map(usize::to_string).collect();
                        units.join("-")
                    },
                ),
                ("rate", p.rate.to_string()),
                ("l2", p.l2.to_string()),
                ("batch", p.batch.to_string()),
                ("epochs", p.epochs.to_string()),
                ("patience", p.patience.to_string()),
                ("tolerance", p.tolerance.to_string()),
            ],
        }
    }
}

fn whole(value: &str, min: usize, max: usize, to: &mut usize) -> Result<(), &'static str> {
    match value.parse() {
        Ok(n) if (min..=max).contains(&n) => {
            *to = n;
            Ok(())
        }
        _ => Err(match (min, max) {
            (1, 30) => "a whole number from 1 to 30",
            (1, 1_000) => "a whole number from 1 to 1000",
            (1, 10_000) => "a whole number from 1 to 10000",
            (10, _) => "a whole number from 10 to 64000",
            _ => "a whole number, at least 1",
        }),
    }
}

fn number(value: &str, min: f64, to: &mut f64) -> Result<(), &'static str> {
    match value.parse::<f64>() {
        Ok(x) if x.is_finite() && x >= min => {
            *to = x;
            Ok(())
        }
        _ if min == 0.0 => Err("a number, 0 or more"),
        _ => Err("a number above 0"),
    }
}

fn hidden(value: &str, to: &mut Vec<usize>) -> Result<(), &'static str> {
    const EXPECTED: &str = "units of each hidden layer, as 32-16 (at most 8 layers of 1024), or 0";
    if value == "0" {
        to.clear();
        return Ok(());
    }
    let units: Vec<usize> =
        value.split('-').map(|n| n.parse().map_err(|_| EXPECTED)).collect::<Result<_, _>>()?;
    if units.len() > mlp::HIDDEN_LAYERS_MAX
        || !units.iter().all(|n| (1..=mlp::HIDDEN_UNITS_MAX).contains(n))
    {
        return Err(EXPECTED);
    }
    *to = units;
    Ok(())
}

/// What [`run`] reads and by which recipe it learns.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// Column that holds the label.
    pub target: String,
    /// Columns to learn from, in the order of the model's rows; empty means all others.
    pub inputs: Vec<String>,
    /// How to learn.
    pub recipe: Recipe,
}

/// Reads CSV, keeps a share of the rows aside, fits a model to the others and tests it.
///
/// # Errors
/// [`TrainError`]: the data, the recipe or the solver, in words for the user.
pub fn run(
    csv: impl Read,
    options: &TrainingOptions,
) -> Result<(Model, TrainingReport), TrainError> {
    let data = Dataset::from_csv(csv, &options.target, &options.inputs)?;
    fit_and_test(&data, &options.recipe)
}

/// As [`run`], on rows in memory.
///
/// # Errors
/// [`TrainError`].
pub fn fit_and_test(
    data: &Dataset,
    recipe: &Recipe,
) -> Result<(Model, TrainingReport), TrainError> {
    let mut random = ChaCha8Rng::seed_from_u64(recipe.seed);
    // A stream of its own: the same rows are tested on whatever the classifier draws.
    random.set_stream(u64::MAX);
    let all: Vec<usize> = (0..data.len()).collect();
    let (train, test) = dataset::stratified_split(data, &all, recipe.test, &mut random);
    let model = fit(&data.select(&train), recipe)?;
    let test = if test.is_empty() {
        None
    } else {
        Some(
            Evaluation::of(&model, &data.select(&test))
                .map_err(|e| TrainError::Solver(e.to_string()))?,
        )
    };
    let report = TrainingReport {
        classifier: recipe.classifier(),
        version: model.version().to_owned(),
        inputs: data.inputs().to_vec(),
        labels: data.labels().to_vec(),
        seed: recipe.seed,
        parameters: model.meta().parameters.clone(),
        rows_skipped: data.skipped(),
        rows_train: train.len(),
        model_bytes: model.to_bytes().len(),
        seconds: 0.0,
        test,
    };
    Ok((model, report))
}

/// Fits a model to every row of `data`; the recipe's test share is not used.
///
/// # Errors
/// [`TrainError::Solver`]: the solver gave up, or the model outgrew the file format.
pub fn fit(data: &Dataset, recipe: &Recipe) -> Result<Model, TrainError> {
    let body = match &recipe.parameters {
        Parameters::Forest(p) => {
            Body::Forest(forest::Forest::fit(data, recipe.seed, p, recipe.threads.max(1)))
        }
        Parameters::Svm(p) => {
            Body::Svm(svm::Svm::fit(data, recipe.seed, p).map_err(TrainError::Solver)?)
        }
        Parameters::Mlp(p) => Body::Mlp(mlp::Mlp::fit(data, recipe.seed, p)),
    };
    let parameters: BTreeMap<String, String> =
        recipe.named().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let meta = Meta {
        classifier: recipe.classifier(),
        inputs: data.inputs().to_vec(),
        labels: data.labels().to_vec(),
        seed: recipe.seed,
        rows: data.len() as u64,
        parameters,
    };
    let model = Model::new(meta, body);
    // What cannot be read back (too large, a weight that is not finite) is no model.
    Model::from_bytes(&model.to_bytes()).map_err(|e| TrainError::Solver(e.to_string()))
}
