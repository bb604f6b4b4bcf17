//! The whole chain through the real binary: nodes are MQTT clients, twins are read over HTTP,
//! services run in the runtime or in processes of their own, and processes are killed.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests assert by panicking; clippy only knows functions marked as tests"
)]

mod bench;
mod control;
mod kills;
mod mqtt;
#[expect(dead_code, reason = "each test binary uses its part of it")]
#[path = "../support/mod.rs"]
mod support;
mod verdicts;
