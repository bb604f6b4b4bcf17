//! edgetwin
pub mod node;
pub mod store;
pub mod telemetry;
pub mod twin;
pub mod writer;
