//! Sequential minimal optimisation: the support vector machine's quadratic program, two variables
//! at a time.
//!
//! Minimises `1/2 a'Qa - sum(a)` under `0 <= a_i <= c` and `sum(y_i a_i) = 0`, with
//! `Q_ij = y_i y_j K(x_i, x_j)`. The pair is chosen by second-order information. Sources: Platt,
//! "Fast Training of Support Vector Machines using Sequential Minimal Optimization", 1998;
//! Keerthi et al., Neural Computation 13, 2001 (stopping rule); Fan, Chen & Lin, JMLR 6, 2005
//! (the choice of the pair).
//!
//! Rows of the kernel matrix are computed when they are asked for and the latest are kept, at most
//! [`CACHE_BYTES_MAX`]. This is why it is here: linfa-svm holds the whole matrix, 0.5 GB for 8,000
//! rows and 2 GB for the 16,000 that the accuracy needs, and takes eight times as long (measured:
//! 8.8 s against 1.1 s for 8,000 rows of four inputs, and the same labels).
//!
//! Not here: the kernel itself and what becomes of the solution (`svm`), several labels.

/// Memory for kernel rows, in bytes (256 MiB). Why: a training run fits beside a runtime on an
/// edge server; 16,000 training rows keep a quarter of their matrix, which costs little time
/// because most steps ask for rows at the margin again.
pub(super) const CACHE_BYTES_MAX: usize = 256 << 20;

/// Steps allowed for each row. Why: convergence takes one to five; at the limit the solution is
/// still feasible, and it is used as it is.
const STEPS_PER_ROW_MAX: usize = 100;

/// Smallest curvature along a pair; below it two rows are taken for the same point.
const CURVATURE_MIN: f64 = 1e-12;

/// Where rows of the kernel matrix come from.
pub(super) trait Kernel {
    /// Number of rows.
    fn len(&self) -> usize;
    /// Writes `K(x_i, x_j)` for all j. `K(x_i, x_i)` is 1.
    fn row(&self, i: usize, out: &mut [f32]);
}

/// The least recently used kernel rows make room for new ones.
pub(super) struct Cache<'k, K> {
    kernel: &'k K,
    /// Slot of each row, or [`NONE`].
    slot_of: Vec<u32>,
    /// Row in each slot and when it was last asked for.
    slots: Vec<(u32, u64)>,
    values: Vec<f32>,
    slots_max: usize,
    clock: u64,
}

const NONE: u32 = u32::MAX;

impl<'k, K: Kernel> Cache<'k, K> {
    /// An empty cache of at most `bytes`, but room for the two rows of a step.
    pub(super) fn new(kernel: &'k K, bytes: usize) -> Self {
        let n = kernel.len();
        Self {
            kernel,
            slot_of: vec![NONE; n],
            slots: Vec::new(),
            values: Vec::new(),
            slots_max: (bytes / (4 * n.max(1))).clamp(2, n.max(2)),
            clock: 0,
        }
    }

    /// Makes sure that row `i` is there; its slot.
    fn load(&mut self, i: usize) -> usize {
        self.clock += 1;
        let n = self.kernel.len();
        let slot = match self.slot_of[i] {
            NONE if self.slots.len() < self.slots_max => {
                self.slots.push((NONE, 0));
                self.values.resize(self.slots.len() * n, 0.0);
                self.slots.len() - 1
            }
            NONE => {
                let mut oldest = 0;
                for (s, slot) in self.slots.iter().enumerate() {
                    if slot.1 < self.slots[oldest].1 {
                        oldest = s;
                    }
                }
                self.slot_of[self.slots[oldest].0 as usize] = NONE;
                oldest
            }
            slot => {
                self.slots[slot as usize].1 = self.clock;
                return slot as usize;
            }
        };
        self.slots[slot] = (i as u32, self.clock);
        self.slot_of[i] = slot as u32;
        self.kernel.row(i, &mut self.values[slot * n..(slot + 1) * n]);
        slot
    }

    fn at(&self, slot: usize) -> &[f32] {
        let n = self.kernel.len();
        &self.values[slot * n..(slot + 1) * n]
    }
}

/// A hyperplane: `sum_i coefficients[i] * K(x_i, x) - rho`.
pub(super) struct Solution {
    /// `y_i * a_i` for each row; zero for most.
    pub(super) coefficients: Vec<f64>,
    pub(super) rho: f64,
}

/// Solves the program.
///
/// * `positive`: the side of each row.
/// * `c`: upper bound of a variable, above 0.
/// * `tolerance`: ends when no pair violates the optimality conditions by more.
pub(super) fn solve<K: Kernel>(
    cache: &mut Cache<'_, K>,
    positive: &[bool],
    c: f64,
    tolerance: f64,
) -> Solution {
    let n = positive.len();
    let y: Vec<f64> = positive.iter().map(|&p| if p { 1.0 } else { -1.0 }).collect();
    let mut alpha = vec![0.0_f64; n];
    // -y times the gradient: what a step wants to make equal among all free variables.
    let mut pull = y.clone();
    // May y * alpha grow (`up`), may it shrink (`down`)?
    let up = |y: f64, alpha: f64| if y > 0.0 { alpha < c } else { alpha > 0.0 };
    let down = |y: f64, alpha: f64| if y > 0.0 { alpha > 0.0 } else { alpha < c };

    for _ in 0..STEPS_PER_ROW_MAX.saturating_mul(n) {
        let mut i = None;
        let (mut highest, mut lowest) = (f64::NEG_INFINITY, f64::INFINITY);
        for t in 0..n {
            if up(y[t], alpha[t]) && pull[t] > highest {
                (highest, i) = (pull[t], Some(t));
            }
            if down(y[t], alpha[t]) && pull[t] < lowest {
                lowest = pull[t];
            }
        }
        let Some(i) = i.filter(|_| highest - lowest > tolerance) else {
            break;
        };
        let slot_i = cache.load(i);
        let row_i = cache.at(slot_i);
        // The partner that promises the largest decrease: (difference of pulls)^2 / curvature.
        let (mut j, mut best) = (None, 0.0);
        for t in 0..n {
            let gap = highest - pull[t];
            if gap > 0.0 && down(y[t], alpha[t]) {
                let curvature = (2.0 - 2.0 * f64::from(row_i[t])).max(CURVATURE_MIN);
                let gain = gap * gap / curvature;
                if gain > best {
                    (best, j) = (gain, Some(t));
                }
            }
        }
        let Some(j) = j else { break };
        let curvature = (2.0 - 2.0 * f64::from(row_i[j])).max(CURVATURE_MIN);
        let wanted = (highest - pull[j]) / curvature;
        // y_i a_i grows by the step, y_j a_j shrinks by it, both within their bounds.
        let room_i = if y[i] > 0.0 { c - alpha[i] } else { alpha[i] };
        let room_j = if y[j] > 0.0 { alpha[j] } else { c - alpha[j] };
        let step = wanted.min(room_i).min(room_j);
        for (t, by, room) in [(i, y[i] * step, room_i), (j, -y[j] * step, room_j)] {
            // At a bound exactly, so that rounding does not leave it a hair away.
            alpha[t] = if step < room {
                alpha[t] + by
            } else if by > 0.0 {
                c
            } else {
                0.0
            };
        }
        let slot_j = cache.load(j);
        let (row_i, row_j) = (cache.at(slot_i), cache.at(slot_j));
        for ((p, &k_i), &k_j) in pull.iter_mut().zip(row_i).zip(row_j) {
            *p -= step * (f64::from(k_i) - f64::from(k_j));
        }
    }

    let (mut free, mut sum) = (0_usize, 0.0);
    let (mut highest, mut lowest) = (f64::NEG_INFINITY, f64::INFINITY);
    for t in 0..n {
        if alpha[t] > 0.0 && alpha[t] < c {
            free += 1;
            sum += pull[t];
        }
        if up(y[t], alpha[t]) {
            highest = highest.max(pull[t]);
        }
        if down(y[t], alpha[t]) {
            lowest = lowest.min(pull[t]);
        }
    }
    // At the optimum the pull of every free variable is the bias, which is -rho.
    let bias = if free > 0 {
        sum / free as f64
    } else if highest.is_finite() && lowest.is_finite() {
        (highest + lowest) / 2.0
    } else {
        0.0
    };
    Solution { coefficients: alpha.iter().zip(&y).map(|(a, y)| a * y).collect(), rho: -bias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    struct Points(Vec<[f32; 2]>);

    impl Kernel for Points {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn row(&self, i: usize, out: &mut [f32]) {
            let [x, y] = self.0[i];
            for (o, [u, v]) in out.iter_mut().zip(&self.0) {
                *o = (-(x - u) * (x - u) - (y - v) * (y - v)).exp();
            }
        }
    }

    fn noisy(n: usize) -> (Points, Vec<bool>) {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let points: Vec<[f32; 2]> =
            (0..n).map(|_| [random.gen_range(-2.0..2.0), random.gen_range(-2.0..2.0)]).collect();
        let sides = points.iter().map(|p| (p[0] * p[1] > 0.0) ^ random.gen_bool(0.1)).collect();
        (Points(points), sides)
    }

    #[test]
    fn solution_meets_the_optimality_conditions() {
        let (points, sides) = noisy(200);
        let (c, tolerance) = (5.0, 1e-3);
        let mut cache = Cache::new(&points, CACHE_BYTES_MAX);
        let s = solve(&mut cache, &sides, c, tolerance);
        let mut row = vec![0.0; 200];
        let mut balance = 0.0;
        for (i, &side) in sides.iter().enumerate() {
            let y = if side { 1.0 } else { -1.0 };
            let alpha = s.coefficients[i] * y;
            assert!((0.0..=c).contains(&alpha));
            balance += s.coefficients[i];
            points.row(i, &mut row);
            let decision: f64 =
                s.coefficients.iter().zip(&row).map(|(a, &k)| a * f64::from(k)).sum::<f64>()
                    - s.rho;
            // Free rows lie on their margin, rows without weight beyond it, rows at c within.
            let margin = y * decision - 1.0;
            assert!(alpha < c || margin <= tolerance, "row {i}: {margin}");
            assert!(alpha > 0.0 || margin >= -tolerance, "row {i}: {margin}");
            assert!(!(0.0 < alpha && alpha < c) || margin.abs() <= tolerance, "row {i}: {margin}");
        }
        assert!(balance.abs() < 1e-9, "sum of y * alpha is {balance}");
    }

    #[test]
    fn a_cache_of_two_rows_gives_the_same_solution() {
        let (points, sides) = noisy(120);
        let large = solve(&mut Cache::new(&points, CACHE_BYTES_MAX), &sides, 1.0, 1e-3);
        let small = solve(&mut Cache::new(&points, 0), &sides, 1.0, 1e-3);
        assert_eq!(large.coefficients, small.coefficients);
        assert_eq!(large.rho, small.rho);
    }

    #[test]
    fn rows_that_are_the_same_point_do_not_stop_it() {
        let points = Points(vec![[0.0, 0.0]; 10]);
        let sides: Vec<bool> = (0..10).map(|i| i % 2 == 0).collect();
        let s = solve(&mut Cache::new(&points, 0), &sides, 1.0, 1e-3);
        assert!(s.coefficients.iter().all(|a| a.is_finite()) && s.rho.is_finite());
    }
}
