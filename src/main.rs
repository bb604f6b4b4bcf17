//! Parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgetwin::cli::run(std::env::args_os())
}
