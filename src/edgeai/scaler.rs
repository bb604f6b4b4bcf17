//! Standardising inputs: what a kernel and a perceptron need and a forest does not.

use super::format::{ModelError, Reader, Writer};

/// Bound of a scaled input. Why: a reading a million standard deviations from the mean is as strange as
/// one a billion from it, and the bound keeps products finite in `f32`.
const SCALED_MAX: f32 = 1e6;

/// `(x - mean) / sd` for each input, with the population standard deviation; an input that never
/// varied is only shifted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scaler {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    /// Fits to rows laid end to end, `inputs` values each, summed in `f64` in the order given.
    pub(super) fn fit(rows: &[f32], inputs: usize) -> Self {
        let n = (rows.len() / inputs).max(1) as f64;
        let mut mean = vec![0.0_f64; inputs];
        for row in rows.chunks_exact(inputs) {
            for (m, &v) in mean.iter_mut().zip(row) {
                *m += f64::from(v);
            }
        }
        mean.iter_mut().for_each(|m| *m /= n);
        let mut variance = vec![0.0_f64; inputs];
        for row in rows.chunks_exact(inputs) {
            for ((s, &m), &v) in variance.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(v) - m) * (f64::from(v) - m);
            }
        }
        let scale = variance
            .iter()
            .map(|v| {
                let scale = 1.0 / (v / n).sqrt();
                // Rounding noise of a constant input is not a deviation.
                let scale = if scale < 1e12 { scale } else { 1.0 };
                scale.max(1e-30) as f32
            })
            .collect();
        Self { mean: mean.iter().map(|&m| m as f32).collect(), scale }
    }

    /// Number of inputs.
    pub(super) fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Writes the scaled `row` to `out` (same length).
    #[inline]
    pub(super) fn apply(&self, row: &[f32], out: &mut [f32]) {
        for (((o, &x), &m), &s) in out.iter_mut().zip(row).zip(&self.mean).zip(&self.scale) {
            *o = ((x - m) * s).clamp(-SCALED_MAX, SCALED_MAX);
        }
    }

    /// All rows, scaled.
    pub(super) fn apply_all(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; rows.len()];
        let k = self.inputs();
        for (row, out) in rows.chunks_exact(k).zip(out.chunks_exact_mut(k)) {
            self.apply(row, out);
        }
        out
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.f32s(&self.mean);
        w.f32s(&self.scale);
    }

    pub(super) fn read(r: &mut Reader<'_>, inputs: usize) -> Result<Self, ModelError> {
        let (mean, scale) = (r.f32s()?, r.f32s()?);
        if mean.len() != inputs || scale.len() != inputs {
            return Err(ModelError::Invalid("scaler length"));
        }
        Ok(Self { mean, scale })
    }
}
