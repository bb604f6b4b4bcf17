//! The parameters of each classifier.

/// How a forest is grown. Defaults: 60 trees, depth 12, 8 rows a leaf, square root of the inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestParameters {
    /// `trees`: number of trees, 1 to 1,000.
    pub trees: usize,
    /// `depth`: longest path from root to leaf, 1 to 30.
    pub depth: usize,
    /// `min-leaf`: fewest (distinct) rows in a leaf, at least 1.
    pub min_leaf: usize,
    /// `features`: inputs drawn for each split; `sqrt` (none here) is the square root of all.
    pub features: Option<usize>,
}

impl ForestParameters {
    /// Inputs drawn for a split, of `inputs` in all: at least one.
    pub(super) fn features_of(&self, inputs: usize) -> usize {
        let drawn = self.features.unwrap_or_else(|| inputs.isqrt());
        drawn.clamp(1, inputs)
    }
}

/// How a support vector machine is fitted. Defaults: C 10, gamma `scale`, 16,000 rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SvmParameters {
    /// `c`: cost of a row on the wrong side; above 0.
    pub c: f64,
    /// `gamma`: of the kernel; `scale` (none here) is 1 / (inputs × variance).
    pub gamma: Option<f64>,
    /// `rows`: most rows given to the solver, 10 to 64,000; time grows with their square.
    pub rows: usize,
    /// `tolerance`: of the solver's stopping rule; above 0.
    pub tolerance: f64,
}

/// How a perceptron is fitted. Defaults: hidden layers 32-16, rate 0.001, penalty 0.001, batches
/// of 200 rows, at most 200 epochs, patience 15.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpParameters {
    /// `hidden`: units of each hidden layer, as `32-16`; none (`0`) is a linear model.
    pub hidden: Vec<usize>,
    /// `rate`: Adam's step size; above 0.
    pub rate: f64,
    /// `l2`: penalty on squared weights; 0 or more.
    pub l2: f64,
    /// `batch`: rows a step, at least 1.
    pub batch: usize,
    /// `epochs`: most passes over the rows, 1 to 10,000.
    pub epochs: usize,
    /// `patience`: epochs without a better likelihood of the rows kept aside before it stops.
    pub patience: usize,
    /// `tolerance`: gain in mean log-likelihood (nats a row) that counts as better.
    pub tolerance: f64,
}

/// Parameters of one classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameters {
    /// Of a random forest.
    Forest(ForestParameters),
    /// Of a support vector machine.
    Svm(SvmParameters),
    /// Of a perceptron.
    Mlp(MlpParameters),
}
