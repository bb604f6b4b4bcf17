//! The values of one property over a window of time, kept in buckets.
//!
//! A window of length *w* is kept in buckets of *w* / [`BUCKETS`]: memory is bounded whatever the
//! rate, and its result covers between *w* and *w* · (1 + 1/[`BUCKETS`]): a value
//! leaves with its whole bucket, at most 3.2 % late. Nothing else is approximated, and the same
//! values at the same times give the same answer.

use std::collections::VecDeque;

use crate::cacc::expr::Window;

/// Buckets of a window. 32 of 72 bytes are 2.3 KB for a busy property.
pub const BUCKETS: i64 = 32;

/// The values of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    bucket_us: i64,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    number: i64,
    count: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    spread: f64,
    min: f64,
    max: f64,
    first: (i64, f64),
    last: (i64, f64),
}

impl Bucket {
    fn of(number: i64, time_us: i64, value: f64) -> Self {
        let at = (time_us, value);
        Self {
            number,
            count: 1,
            mean: value,
            spread: 0.0,
            min: value,
            max: value,
            first: at,
            last: at,
        }
    }

    /// Adds what came later.
    fn add(&mut self, later: &Self) {
        let (n, m) = (self.count as f64, later.count as f64);
        let apart = later.mean - self.mean;
        self.count += later.count;
        self.mean += apart * m / (n + m);
        self.spread += later.spread + apart * apart * n * m / (n + m);
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.last = later.last;
    }
}

impl Series {
    /// An empty window.
    ///
    /// * `window_ms`: its length.
    pub fn new(window_ms: u64) -> Self {
        let window_us = i64::try_from(window_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
        Self { bucket_us: (window_us / BUCKETS).max(1), buckets: VecDeque::new() }
    }

    /// Adds a value. One that is no number is left out; one from before the newest counts as of
    /// its time, so a clock that is set back loses nothing.
    pub fn push(&mut self, time_us: i64, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.forget(time_us);
        let number = time_us.div_euclid(self.bucket_us);
        match self.buckets.back_mut() {
            Some(newest) if newest.number >= number => {
                newest.add(&Bucket::of(newest.number, time_us.max(newest.last.0), value));
            }
            _ => self.buckets.push_back(Bucket::of(number, time_us, value)),
        }
    }

    /// Forgets what has left the window.
    pub fn forget(&mut self, now_us: i64) {
        let oldest = now_us.div_euclid(self.bucket_us) - BUCKETS;
        while self.buckets.front().is_some_and(|bucket| bucket.number < oldest) {
            self.buckets.pop_front();
        }
    }

    /// Adds the values of a window of the same length that begins where this one ends.
    pub fn extend(&mut self, later: &Self) {
        for bucket in &later.buckets {
            match self.buckets.back_mut() {
                Some(newest) if newest.number >= bucket.number => newest.add(bucket),
                _ => self.buckets.push_back(*bucket),
            }
        }
    }

    /// The time from which on values count, microseconds since 1970.
    pub fn since(&self, now_us: i64) -> i64 {
        (now_us.div_euclid(self.bucket_us) - BUCKETS).saturating_mul(self.bucket_us)
    }

    /// When the next values leave, microseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        let oldest = self.buckets.front()?;
        Some((oldest.number + BUCKETS + 1).saturating_mul(self.bucket_us))
    }

    /// What the function makes of the window; `None` where it has too few values.
    pub fn value(&self, function: Window) -> Option<f64> {
        let Some(first) = self.buckets.front() else {
            return (function == Window::Count).then_some(0.0);
        };
        let mut all = *first;
        self.buckets.iter().skip(1).for_each(|bucket| all.add(bucket));
        match function {
            Window::Avg => Some(all.mean),
            Window::Min => Some(all.min),
            Window::Max => Some(all.max),
            Window::Count => Some(all.count as f64),
            Window::Stddev => (all.count > 1).then(|| (all.spread / all.count as f64).sqrt()),
            Window::Rate => {
                let span_s = (all.last.0 - all.first.0) as f64 / 1e6;
                (span_s > 0.0).then(|| (all.last.1 - all.first.1) / span_s)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_window_only_counts() {
        let series = Series::new(1000);
        assert_eq!(series.value(Window::Count), Some(0.0));
        for function in [Window::Avg, Window::Min, Window::Max, Window::Stddev, Window::Rate] {
            assert_eq!(series.value(function), None);
        }
        let mut one = series;
        one.push(5, f64::NAN);
        one.push(5, 3.0);
        assert_eq!(one.value(Window::Count), Some(1.0));
        assert_eq!((one.value(Window::Stddev), one.value(Window::Rate)), (None, None));
    }

    #[test]
    fn values_leave_when_they_are_due_and_not_before() {
        let mut series = Series::new(10_000);
        series.push(1_000_000, 4.0);
        let due = series.due().unwrap();
        assert!((11_000_000..=11_312_500).contains(&due), "{due}");
        series.forget(due - 1);
        assert_eq!(series.value(Window::Count), Some(1.0));
        series.forget(due);
        assert_eq!(series.value(Window::Count), Some(0.0));
    }

    proptest! {
        /// Against the values themselves, of the window and of the window and one bucket.
        #[test]
        fn the_answer_lies_between_the_window_and_one_bucket_more(
            steps in prop::collection::vec((0_i64..700_000, -100.0_f64..100.0), 1..200),
        ) {
            let mut series = Series::new(3200);
            let (mut now, mut values) = (1_000_000_000, Vec::new());
            for (step, value) in steps {
                now += step;
                values.push((now, value));
                series.push(now, value);
                prop_assert!(series.buckets.len() <= BUCKETS as usize + 1);
            }
            let within = |us: i64| values.iter().filter(|(at, _)| *at > now - us).count() as f64;
            let count = series.value(Window::Count).unwrap();
            prop_assert!(within(3_200_000) <= count && count <= within(3_300_000));
            let kept = &values[values.len() - count as usize..];
            let mean = kept.iter().map(|(_, v)| v).sum::<f64>() / count;
            prop_assert!((series.value(Window::Avg).unwrap() - mean).abs() < 1e-9);
            let variance = kept.iter().map(|(_, v)| (v - mean).powi(2)).sum::<f64>() / count;
            if count > 1.0 {
                let stddev = series.value(Window::Stddev).unwrap();
                prop_assert!((stddev - variance.sqrt()).abs() < 1e-6);
            }
            let max = kept.iter().map(|(_, v)| *v).fold(f64::MIN, f64::max);
            prop_assert_eq!(series.value(Window::Max), Some(max));
            let (first, last) = (kept[0], kept[kept.len() - 1]);
            if last.0 > first.0 {
                let rate = (last.1 - first.1) / ((last.0 - first.0) as f64 / 1e6);
                prop_assert!((series.value(Window::Rate).unwrap() - rate).abs() < 1e-9);
            }
        }
    }
}
