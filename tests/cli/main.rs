//! The real binary: arguments in; exit code, stdout and stderr out, whole.
//!
//! One module a command. What the modules behind it do in detail is tested beside them.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests assert by panicking; clippy only knows functions marked as tests"
)]

mod apply;
mod config;
mod control;
mod ditto;
mod explain;
mod firmware;
mod get;
mod init;
mod run;
mod schema;
mod serve;
mod simulate;
#[expect(dead_code, reason = "each test binary uses its part of it")]
#[path = "../support/mod.rs"]
mod support;
mod train;
mod usage;
mod validate;
