//! What all benchmarks share: errors, progress, histograms, rounding.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Why a benchmark has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It was asked to stop.
    Interrupted,
    /// Something failed or was not as it has to be.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

pub(super) fn failed(why: impl Into<String>) -> Error {
    Error::Failed(why.into())
}

/// Follows a benchmark and may stop it.
pub trait Watch {
    /// Something else begins: its name.
    fn step(&self, what: &str);
    /// So much of it is done, from 0 to 1.
    fn tick(&self, share: f64);
    /// Whether to stop.
    fn stopped(&self) -> bool;
}

/// Percentiles, microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One in ten is above.
    pub p90: f64,
    /// One in a hundred is above.
    pub p99: f64,
    /// One in a thousand is above.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| tenth(histogram.value_at_quantile(quantile) as f64 / 1e3);
        let max = tenth(histogram.max() as f64 / 1e3);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

pub(super) fn histogram() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram accepts.
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds"))
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(super) fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
