//! Multi-layer perceptron: fully connected layers, ReLU between them, softmax at the end.
//!
//! Trained on the cross-entropy with Adam, a penalty on squared weights and early stopping on
//! rows kept aside; the weights that did best on those rows are kept. Inputs are standardised
//! inside the model. Sources: Kingma & Ba, "Adam", ICLR 2015; Glorot & Bengio, AISTATS 2010
//! (first weights); batch size, penalty and stopping rule as in scikit-learn's `MLPClassifier`.
//!
//! One thread and `f32` sums in a fixed order, so a seed gives the same weights again.
//!
//! Not here: convolution, recurrence, regression.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dataset::{Dataset, stratified_split};
use super::format::{ModelError, Reader, Writer};
use super::parameters::MlpParameters;
use super::scaler::Scaler;

/// Most hidden layers, and most units in one. Why: a verdict has microseconds; a thousand units
/// after a thousand take one already. More is refused by the recipe and when reading a file.
pub(super) const HIDDEN_LAYERS_MAX: usize = 8;
/// See [`HIDDEN_LAYERS_MAX`].
pub(super) const HIDDEN_UNITS_MAX: usize = 1024;

/// Share of the rows kept aside to decide when to stop.
const VALIDATION: f64 = 0.1;

/// One layer: `out[o] = bias[o] + sum over i of x[i] * weights[i * outputs + o]`.
///
/// Input-major, so that the inner loop runs over outputs without a reduction: it vectorises and
/// still sums in a fixed order.
#[derive(Debug, Clone, PartialEq)]
struct Layer {
    inputs: usize,
    outputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    #[inline]
    fn forward(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(&self.bias);
        for (&x, weights) in x.iter().zip(self.weights.chunks_exact(self.outputs)) {
            for (o, &w) in out.iter_mut().zip(weights) {
                *o += x * w;
            }
        }
    }
}

/// A fitted perceptron.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mlp {
    scaler: Scaler,
    /// At least one; the last has an output for each label.
    layers: Vec<Layer>,
}

impl Mlp {
    /// Writes the probability of each label.
    pub(super) fn predict(&self, row: &[f32], out: &mut [f32], scratch: &mut Vec<f32>) {
        let width = self.width();
        scratch.clear();
        scratch.resize(2 * width, 0.0);
        let (mut x, mut y) = scratch.split_at_mut(width);
        self.scaler.apply(row, &mut x[..row.len()]);
        let (last, hidden) = self.split_last();
        for layer in hidden {
            let y_used = &mut y[..layer.outputs];
            layer.forward(&x[..layer.inputs], y_used);
            y_used.iter_mut().for_each(|v| *v = v.max(0.0));
            std::mem::swap(&mut x, &mut y);
        }
        last.forward(&x[..last.inputs], out);
        softmax(out);
    }

    /// Widest layer, inputs included.
    fn width(&self) -> usize {
        let outputs = self.layers.iter().map(|l| l.outputs);
        outputs.fold(self.scaler.inputs(), usize::max)
    }

    fn split_last(&self) -> (&Layer, &[Layer]) {
        self.layers
            .split_last()
            .expect("a perceptron has a last layer: `fit` makes one and `read` requires one")
    }

    /// Arrays, in this order: scaler, outputs of each layer, then weights and bias of each.
    pub(super) fn write(&self, w: &mut Writer) {
        self.scaler.write(w);
        let outputs: Vec<u16> = self.layers.iter().map(|l| l.outputs as u16).collect();
        w.u16s(&outputs);
        for layer in &self.layers {
            w.f32s(&layer.weights);
            w.f32s(&layer.bias);
        }
    }

    pub(super) fn read(
        r: &mut Reader<'_>,
        inputs: usize,
        labels: usize,
    ) -> Result<Self, ModelError> {
        let scaler = Scaler::read(r, inputs)?;
        let sizes = r.u16s()?;
        if sizes.len() > HIDDEN_LAYERS_MAX + 1 || sizes.last() != Some(&(labels as u16)) {
            return Err(ModelError::Invalid("layers of a perceptron"));
        }
        let mut layers = Vec::with_capacity(sizes.len());
        let mut before = inputs;
        for outputs in sizes.into_iter().map(usize::from) {
            let (weights, bias) = (r.f32s()?, r.f32s()?);
            if !(1..=HIDDEN_UNITS_MAX).contains(&outputs)
                || weights.len() != before * outputs
                || bias.len() != outputs
            {
                return Err(ModelError::Invalid("a layer of a perceptron"));
            }
            layers.push(Layer { inputs: before, outputs, weights, bias });
            before = outputs;
        }
        Ok(Self { scaler, layers })
    }

    /// Fits to every row of `data`, a tenth of which only decides when to stop.
    pub(super) fn fit(data: &Dataset, seed: u64, parameters: &MlpParameters) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let all: Vec<usize> = (0..data.len()).collect();
        let (fit, watch) = stratified_split(data, &all, VALIDATION, &mut random);
        let k = data.inputs().len();
        let labels =
            |rows: &[usize]| -> Vec<usize> { rows.iter().map(|&i| data.label(i)).collect() };
        let scaler = Scaler::fit(&data.gather(&fit), k);
        let (x, y) = (scaler.apply_all(&data.gather(&fit)), labels(&fit));
        let watched = (scaler.apply_all(&data.gather(&watch)), labels(&watch));

        let mut sizes = vec![k];
        sizes.extend(&parameters.hidden);
        sizes.push(data.labels().len());
        let layers: Vec<Layer> =
            sizes.windows(2).map(|w| first_weights(w[0], w[1], &mut random)).collect();
        let mut net = Self { scaler, layers };
        let mut trainer = Trainer::new(&net);
        let mut order: Vec<usize> = (0..y.len()).collect();
        let mut best = (f64::NEG_INFINITY, net.layers.clone());
        let mut waited = 0;
        for _ in 0..parameters.epochs {
            order.shuffle(&mut random);
            for batch in order.chunks(parameters.batch) {
                trainer.batch(&net.layers, batch, &x, &y, k);
                trainer.update(&mut net.layers, batch.len(), parameters);
            }
            let score = if watched.1.is_empty() {
                // Too few rows to keep any aside: train for all epochs.
                f64::NEG_INFINITY
            } else {
                trainer.log_likelihood(&net.layers, &watched.0, &watched.1, k)
            };
            if score > best.0 + parameters.tolerance {
                waited = 0;
            } else {
                waited += 1;
            }
            if score > best.0 {
                best = (score, net.layers.clone());
            }
            if waited >= parameters.patience && !watched.1.is_empty() {
                break;
            }
        }
        if best.0 > f64::NEG_INFINITY {
            net.layers = best.1;
        }
        net
    }
}

/// Uniform within ± sqrt(6 / (inputs + outputs)) (Glorot & Bengio).
fn first_weights(inputs: usize, outputs: usize, random: &mut ChaCha8Rng) -> Layer {
    let bound = (6.0 / (inputs + outputs) as f32).sqrt();
    let mut draw = |n: usize| (0..n).map(|_| random.gen_range(-bound..=bound)).collect();
    Layer { inputs, outputs, weights: draw(inputs * outputs), bias: draw(outputs) }
}

/// Turns logits into probabilities, in place.
fn softmax(z: &mut [f32]) {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in z.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    z.iter_mut().for_each(|v| *v /= sum);
}

/// Gradients, moments and activations: all that training needs beside the weights.
struct Trainer {
    /// Weights then bias of each layer, end to end.
    gradient: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    steps: i32,
    /// Outputs of each layer for one row, and the error that flows back.
    outputs: Vec<Vec<f32>>,
    errors: Vec<Vec<f32>>,
}

impl Trainer {
    fn new(net: &Mlp) -> Self {
        let zeros = || -> Vec<Vec<f32>> {
            net.layers.iter().map(|l| vec![0.0; l.weights.len() + l.bias.len()]).collect()
        };
        let outputs: Vec<Vec<f32>> = net.layers.iter().map(|l| vec![0.0; l.outputs]).collect();
        Self {
            gradient: zeros(),
            first: zeros(),
            second: zeros(),
            steps: 0,
            errors: outputs.clone(),
            outputs,
        }
    }

    fn forward(&mut self, layers: &[Layer], x: &[f32]) {
        let last = layers.len() - 1;
        for (l, layer) in layers.iter().enumerate() {
            let (before, rest) = self.outputs.split_at_mut(l);
            let x = before.last().map_or(x, Vec::as_slice);
            layer.forward(x, &mut rest[0]);
            if l == last {
                softmax(&mut rest[0]);
            } else {
                rest[0].iter_mut().for_each(|v| *v = v.max(0.0));
            }
        }
    }

    /// Sums the gradient of the cross-entropy over a batch.
    fn batch(&mut self, layers: &[Layer], batch: &[usize], x: &[f32], y: &[usize], k: usize) {
        self.gradient.iter_mut().for_each(|g| g.fill(0.0));
        for &i in batch {
            let x = &x[i * k..(i + 1) * k];
            self.forward(layers, x);
            let last = layers.len() - 1;
            self.errors[last].copy_from_slice(&self.outputs[last]);
            self.errors[last][y[i]] -= 1.0;
            for l in (0..layers.len()).rev() {
                let layer = &layers[l];
                let input = if l == 0 { x } else { &self.outputs[l - 1] };
                let (before, rest) = self.errors.split_at_mut(l);
                let error = &rest[0];
                let (weights, bias) = self.gradient[l].split_at_mut(layer.weights.len());
                for (b, e) in bias.iter_mut().zip(error) {
                    *b += e;
                }
                for (&x, row) in input.iter().zip(weights.chunks_exact_mut(layer.outputs)) {
                    for (g, &e) in row.iter_mut().zip(error) {
                        *g += x * e;
                    }
                }
                if let Some(before) = before.last_mut() {
                    for ((b, &x), row) in
                        before.iter_mut().zip(input).zip(layer.weights.chunks_exact(layer.outputs))
                    {
                        // ReLU passes an error back only where it was open.
                        *b = if x > 0.0 { dot(row, error) } else { 0.0 };
                    }
                }
            }
        }
    }

    /// One step of Adam (Kingma & Ba, algorithm 1, with their defaults for the moments).
    fn update(&mut self, layers: &mut [Layer], batch: usize, parameters: &MlpParameters) {
        const BETA1: f32 = 0.9;
        const BETA2: f32 = 0.999;
        self.steps = self.steps.saturating_add(1);
        let t = self.steps;
        let rate = (parameters.rate * (1.0 - f64::from(BETA2).powi(t)).sqrt()
            / (1.0 - f64::from(BETA1).powi(t))) as f32;
        let share = 1.0 / batch as f32;
        let decay = parameters.l2 as f32;
        for (l, layer) in layers.iter_mut().enumerate() {
            let n = layer.weights.len();
            let weights = layer.weights.iter_mut().chain(&mut layer.bias);
            let moments = self.first[l].iter_mut().zip(&mut self.second[l]);
            for (i, ((w, (m, v)), &g)) in weights.zip(moments).zip(&self.gradient[l]).enumerate() {
                // The penalty is on weights, not on bias.
                let g = if i < n { (g + decay * *w) * share } else { g * share };
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                *w -= rate * *m / (v.sqrt() + 1e-8);
            }
        }
    }

    /// Mean log-probability of the truth: unlike accuracy it also rewards being rightly unsure,
    /// and it sees progress on a rare label.
    fn log_likelihood(&mut self, layers: &[Layer], x: &[f32], y: &[usize], k: usize) -> f64 {
        let mut sum = 0.0;
        for (x, &y) in x.chunks_exact(k).zip(y) {
            self.forward(layers, x);
            let p = self.outputs[layers.len() - 1][y];
            sum += f64::from(p.max(f32::MIN_POSITIVE)).ln();
        }
        sum / y.len() as f64
    }
}

/// Sum of products in eight running sums, so that it vectorises in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
