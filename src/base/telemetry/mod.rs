//! Metrics, events and the log: what a person who runs the twins can know of them.
//!
//! Every metric and every event has its name here, so `/metrics`, `edgetwin events` and the log use
//! the same words. A warning is an event and a line of the log, with its remedy.

pub mod events;
pub mod fold;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: stamps and folds lines")]
pub mod log;
pub mod metrics;

pub use events::{Event, Severity};
pub use metrics::{Telemetry, head, line};
