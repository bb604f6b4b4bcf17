//! What every module may use: units, text, times, metrics and events by name, HTTP plumbing.

#[expect(clippy::disallowed_methods, reason = "I/O boundary: reads the wall clock for everybody")]
pub mod clock;
pub mod http;
pub mod telemetry;
pub mod text;
pub mod time;
mod ucum;
pub mod units;
