//! What every module may use: units, text, times, metrics and events by name, HTTP plumbing.

pub mod clock;
pub mod http;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod units;
