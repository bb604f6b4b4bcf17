//! Support vector machine with a Gaussian kernel, `exp(-gamma * |x - v|^2)`, and probabilities.
//!
//! Two labels are one machine; more are one machine a label against the rest, and their
//! probabilities are brought to a sum of 1. Fitting is `smo` on at most [`SvmParameters::rows`]
//! rows; predicting is the loop below. Inputs are standardised inside the model.
//!
//! Decision values become probabilities by a logistic curve fitted on rows that the machine has
//! not seen: on its own rows it is surer than it should be. The label is the more probable one,
//! which on unbalanced rows is not always the side of the margin. Sources: Platt,
//! "Probabilistic Outputs for Support Vector Machines", 1999; Lin, Lin & Weng, "A Note on Platt's
//! Probabilistic Outputs", Machine Learning 68, 2007; `gamma` as scikit-learn's `scale`.
//!
//! Not here: other kernels, regression, novelty detection.

use linfa::Platt;
use linfa::composing::platt_scaling::platt_newton_method;
use linfa::prelude::*;
use ndarray::Array1;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::dataset::{Dataset, stratified_split};
use super::format::{ModelError, Reader, Writer};
use super::parameters::SvmParameters;
use super::scaler::Scaler;
use super::smo;

/// Most rows that the solver may be given. Why: time grows with their square, to minutes here,
/// and predicting with the support vectors among them. The recipe refuses more.
pub(super) const ROWS_MAX: usize = 64_000;

/// Support vectors that are worked on side by side.
const LANES: usize = 16;

/// Share of the rows kept from the solver for the logistic curve.
const CALIBRATION: f64 = 0.2;

/// Coefficients below this share of the largest are rounding, not support.
const COEFFICIENT_MIN: f64 = 1e-7;

/// One hyperplane and its logistic curve.
#[derive(Debug, Clone, PartialEq)]
struct Machine {
    /// Subtracted from the weighted sum of kernels.
    rho: f32,
    /// `P(positive) = 1 / (1 + exp(a * decision + b))`.
    a: f32,
    b: f32,
    /// One for each support vector, padded with zeros to a multiple of [`LANES`].
    coefficients: Vec<f32>,
}

/// A fitted support vector machine.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Svm {
    scaler: Scaler,
    gamma: f32,
    /// Number of support vectors.
    support: usize,
    /// Scaled support vectors in blocks: block, then input, then lane. Zeros pad the last block.
    vectors: Vec<f32>,
    /// One for two labels (positive is the second), else one a label.
    machines: Vec<Machine>,
}

impl Svm {
    /// Writes the probability of each label.
    pub(super) fn predict(&self, row: &[f32], out: &mut [f32], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.resize(row.len(), 0.0);
        self.scaler.apply(row, scratch);
        if let ([machine], [negative, positive]) = (&self.machines[..], &mut *out) {
            *positive = machine.probability(self.decision(machine, scratch));
            *negative = 1.0 - *positive;
            return;
        }
        for (machine, p) in self.machines.iter().zip(out.iter_mut()) {
            *p = machine.probability(self.decision(machine, scratch));
        }
        let sum: f32 = out.iter().sum();
        if sum > f32::MIN_POSITIVE {
            out.iter_mut().for_each(|p| *p /= sum);
        } else {
            let n = out.len() as f32;
            out.fill(1.0 / n);
        }
    }

    /// Signed distance from the hyperplane (in the kernel's space, unnormalised).
    fn decision(&self, machine: &Machine, x: &[f32]) -> f64 {
        let mut sum = 0.0_f64;
        let blocks = self.vectors.chunks_exact(LANES * x.len());
        for (block, coefficients) in blocks.zip(machine.coefficients.chunks_exact(LANES)) {
            let mut kernel = gaussian(block, x, self.gamma);
            for (k, &c) in kernel.iter_mut().zip(coefficients) {
                *k *= c;
            }
            sum += f64::from(kernel.iter().sum::<f32>());
        }
        sum - f64::from(machine.rho)
    }

    /// Arrays, in this order: scaler, gamma, support vectors row by row, then for each machine
    /// `[rho, a, b]` and its coefficients.
    pub(super) fn write(&self, w: &mut Writer) {
        self.scaler.write(w);
        w.f32s(&[self.gamma]);
        let k = self.scaler.inputs();
        let mut rows = Vec::with_capacity(self.support * k);
        for v in 0..self.support {
            rows.extend((0..k).map(|i| self.vectors[place(v, i, k)]));
        }
        w.f32s(&rows);
        for machine in &self.machines {
            w.f32s(&[machine.rho, machine.a, machine.b]);
            w.f32s(&machine.coefficients[..self.support]);
        }
    }

    pub(super) fn read(
        r: &mut Reader<'_>,
        inputs: usize,
        labels: usize,
    ) -> Result<Self, ModelError> {
        let scaler = Scaler::read(r, inputs)?;
        let gamma = match r.f32s()?[..] {
            [gamma] if gamma > 0.0 => gamma,
            _ => return Err(ModelError::Invalid("gamma")),
        };
        let rows = r.f32s()?;
        if rows.len() % inputs != 0 {
            return Err(ModelError::Invalid("support vectors"));
        }
        let support = rows.len() / inputs;
        let mut machines = Vec::new();
        for _ in 0..machine_count(labels) {
            let (curve, coefficients) = (r.f32s()?, r.f32s()?);
            let [rho, a, b] = curve[..] else {
                return Err(ModelError::Invalid("logistic curve"));
            };
            if coefficients.len() != support {
                return Err(ModelError::Invalid("coefficients"));
            }
            machines.push(Machine { rho, a, b, coefficients });
        }
        Ok(Self::new(scaler, gamma, &rows, machines))
    }

    /// Lays support vectors, given row by row, out in blocks.
    fn new(scaler: Scaler, gamma: f32, rows: &[f32], mut machines: Vec<Machine>) -> Self {
        let support = rows.len() / scaler.inputs();
        for machine in &mut machines {
            machine.coefficients.resize(support.next_multiple_of(LANES), 0.0);
        }
        let vectors = in_blocks(rows, scaler.inputs());
        Self { scaler, gamma, support, vectors, machines }
    }

    /// Fits to at most [`SvmParameters::rows`] rows of `data`, drawn so that each label keeps its
    /// share, and calibrates on at most as many others.
    ///
    /// # Errors
    /// A sentence for the user, if the solver gives up.
    pub(super) fn fit(
        data: &Dataset,
        seed: u64,
        parameters: &SvmParameters,
    ) -> Result<Self, String> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let share = parameters.rows as f64 / data.len() as f64;
        let all: Vec<usize> = (0..data.len()).collect();
        let aside = (1.0 - share).max(CALIBRATION);
        let (fit, others) = stratified_split(data, &all, aside, &mut random);
        let share = (parameters.rows as f64 / others.len().max(1) as f64).min(1.0);
        let (_, mut calibrate) = stratified_split(data, &others, share, &mut random);
        if calibrate.is_empty() {
            calibrate.clone_from(&fit);
        }

        let k = data.inputs().len();
        let rows = data.gather(&fit);
        let scaler = Scaler::fit(&rows, k);
        let rows = scaler.apply_all(&rows);
        let gamma = parameters.gamma.unwrap_or_else(|| scale_gamma(&rows, k));
        let kernel = TrainingRows {
            blocks: in_blocks(&rows, k),
            rows: &rows,
            inputs: k,
            gamma: gamma as f32,
        };
        // One cache for all machines: the kernel does not know the labels.
        let mut cache = smo::Cache::new(&kernel, smo::CACHE_BYTES_MAX);
        let found: Vec<smo::Solution> = (0..machine_count(data.labels().len()))
            .map(|machine| {
                let positive = positive_label(machine, data.labels().len());
                let sides: Vec<bool> = fit.iter().map(|&i| data.label(i) == positive).collect();
                smo::solve(&mut cache, &sides, parameters.c, parameters.tolerance)
            })
            .collect();

        let largest =
            found.iter().flat_map(|s| &s.coefficients).fold(0.0_f64, |max, a| max.max(a.abs()));
        let least = largest * COEFFICIENT_MIN;
        let supports: Vec<usize> = (0..fit.len())
            .filter(|&i| found.iter().any(|s| s.coefficients[i].abs() > least))
            .collect();
        let vectors: Vec<f32> =
            supports.iter().flat_map(|&i| &rows[i * k..(i + 1) * k]).copied().collect();
        let machines = found
            .iter()
            .map(|s| Machine {
                rho: s.rho as f32,
                a: -1.0,
                b: 0.0,
                coefficients: supports.iter().map(|&i| s.coefficients[i] as f32).collect(),
            })
            .collect();
        let mut svm = Self::new(scaler, gamma as f32, &vectors, machines);

        let seen = svm.scaler.apply_all(&data.gather(&calibrate));
        for number in 0..svm.machines.len() {
            let positive = positive_label(number, data.labels().len());
            let decisions: Array1<f64> =
                seen.chunks_exact(k).map(|x| svm.decision(&svm.machines[number], x)).collect();
            let truth: Array1<bool> =
                calibrate.iter().map(|&i| data.label(i) == positive).collect();
            let params = Platt::<f64, ()>::params().check().map_err(|e| e.to_string())?;
            // A line search that ends early leaves the plain logistic curve: still monotonic.
            if let Ok((a, b)) = platt_newton_method(decisions.view(), truth.view(), &params)
                && a < 0.0
                && b.is_finite()
            {
                (svm.machines[number].a, svm.machines[number].b) = (a as f32, b as f32);
            }
        }
        Ok(svm)
    }
}

impl Machine {
    fn probability(&self, decision: f64) -> f32 {
        let z = f64::from(self.a) * decision + f64::from(self.b);
        (1.0 / (1.0 + z.exp())) as f32
    }
}

/// Where input `i` of support vector `v` lies.
fn place(v: usize, i: usize, inputs: usize) -> usize {
    (v / LANES * inputs + i) * LANES + v % LANES
}

/// Rows, given end to end, in blocks of [`LANES`]; zeros pad the last block.
fn in_blocks(rows: &[f32], inputs: usize) -> Vec<f32> {
    let padded = (rows.len() / inputs).next_multiple_of(LANES);
    let mut blocks = vec![0.0; padded * inputs];
    for (v, row) in rows.chunks_exact(inputs).enumerate() {
        for (i, &x) in row.iter().enumerate() {
            blocks[place(v, i, inputs)] = x;
        }
    }
    blocks
}

/// The kernel of `x` with each row of a block.
#[inline]
fn gaussian(block: &[f32], x: &[f32], gamma: f32) -> [f32; LANES] {
    let mut lanes = [0.0_f32; LANES];
    for (values, &x) in block.chunks_exact(LANES).zip(x) {
        for (d, &v) in lanes.iter_mut().zip(values) {
            *d += (x - v) * (x - v);
        }
    }
    lanes.map(|distance| exp_of_negative(-gamma * distance))
}

/// The kernel matrix of the training rows.
struct TrainingRows<'a> {
    rows: &'a [f32],
    blocks: Vec<f32>,
    inputs: usize,
    gamma: f32,
}

impl smo::Kernel for TrainingRows<'_> {
    fn len(&self) -> usize {
        self.rows.len() / self.inputs
    }

    fn row(&self, i: usize, out: &mut [f32]) {
        let x = &self.rows[i * self.inputs..(i + 1) * self.inputs];
        let blocks = self.blocks.chunks_exact(LANES * self.inputs);
        for (block, out) in blocks.zip(out.chunks_mut(LANES)) {
            out.copy_from_slice(&gaussian(block, x, self.gamma)[..out.len()]);
        }
    }
}

fn machine_count(labels: usize) -> usize {
    if labels == 2 { 1 } else { labels }
}

fn positive_label(machine: usize, labels: usize) -> usize {
    if labels == 2 { 1 } else { machine }
}

/// 1 / (inputs * variance of all scaled values), as scikit-learn's `scale`.
fn scale_gamma(rows: &[f32], inputs: usize) -> f64 {
    let n = rows.len().max(1) as f64;
    let mean = rows.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = rows.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    1.0 / (inputs as f64 * if variance > 0.0 { variance } else { 1.0 })
}

/// `exp(x)` for `x <= 0`, off by at most 2e-7 (absolute), without a branch or a call: it
/// vectorises, and gives the same bits on every machine.
///
/// `2^(x / ln 2)`, the whole part by the exponent, the rest by a polynomial on ± 1/2.
#[inline]
fn exp_of_negative(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let y = (x * std::f32::consts::LOG2_E).max(-126.0);
    let rounded = y + ROUND;
    let f = y - (rounded - ROUND);
    let p = 1.0
        + f * (std::f32::consts::LN_2
            + f * (0.240_226_5
                + f * (0.055_504_11
                    + f * (0.009_618_129 + f * (0.001_333_356 + f * 1.540_353e-4)))));
    let whole = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    p * f32::from_bits(whole.wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::exp_of_negative;

    #[test]
    fn fast_exponential_is_within_its_stated_error() {
        for i in 0..200_000 {
            let x = -(i as f32) * 5e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - exact).abs();
            assert!(error <= 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert!(exp_of_negative(f32::NEG_INFINITY) < 1.2e-38);
    }
}
