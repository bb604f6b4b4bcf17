//! Figures of the link between a node and the edge, counted from its readings.

use super::window::Series;
use crate::cacc::expr::{LinkField, Window, eval};
use crate::twin::{Action, Event};

/// Window of a link's figures, ms.
const WINDOW_MS: u64 = 60_000;

/// What is known of the link between a node and the edge.
#[derive(Debug, Default)]
pub struct Link {
    /// When a message of any sort last came, microseconds since 1970.
    pub last_seen_us: Option<i64>,
    /// Readings that never came.
    pub gaps: u64,
    /// Boot and last sequence number.
    stamp: Option<(Option<u64>, u64)>,
    /// Lost readings, one value a reading; kept if a rule asks for it.
    window: Option<Series>,
}

impl Link {
    /// Counts a reading, and what is missing in front of it.
    pub(super) fn count(&mut self, event: &Event, now_us: i64) {
        let mut missing = 0;
        if let Some(stamp) = event.stamp.filter(|_| event.action == Action::Read) {
            if let Some((boot, seq)) = self.stamp
                && boot == stamp.boot
                && stamp.seq > seq
            {
                missing = stamp.seq - seq - 1;
            }
            self.stamp = Some((stamp.boot, stamp.seq));
        } else if event.action == Action::ReadLate {
            self.gaps = self.gaps.saturating_sub(1);
        }
        self.gaps += missing;
        if let Some(window) = &mut self.window {
            window.push(now_us, missing as f64);
        }
    }

    /// Keeps the window from here on.
    pub(super) fn track(&mut self) {
        self.window.get_or_insert_with(|| Series::new(WINDOW_MS));
    }

    /// When the next value leaves the window, microseconds since 1970.
    pub(super) fn due(&self) -> Option<i64> {
        self.window.as_ref()?.due()
    }

    /// Forgets what has left the window.
    pub(super) fn forget(&mut self, now_us: i64) {
        if let Some(window) = &mut self.window {
            window.forget(now_us);
        }
    }

    /// A figure of the link.
    pub(super) fn value(&self, field: LinkField) -> eval::Value {
        let number = |value: Option<f64>| value.map_or(eval::Value::Unknown, eval::Value::Number);
        let value = |function| self.window.as_ref().and_then(|window| window.value(function));
        match field {
            LinkField::Rate => {
                number(value(Window::Count).map(|count| count * 1000.0 / WINDOW_MS as f64))
            }
            // So many are missing for each that came.
            LinkField::Loss => number(value(Window::Avg).map(|missing| missing / (1.0 + missing))),
            LinkField::State | LinkField::Load | LinkField::Delay => eval::Value::Unknown,
        }
    }
}
