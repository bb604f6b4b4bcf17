//! Parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgetwin::run(std::env::args_os())
}
