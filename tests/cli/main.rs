//! The real binary: arguments in; exit code, stdout and stderr out, whole.
//!
//! One module a command. What the modules behind it do in detail is tested beside them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests assert by panicking; clippy only knows functions marked as tests"
)]

mod apply;
mod config;
mod control;
mod explain;
mod firmware;
mod get;
mod init;
mod runtime;
mod schema;
mod serve;
mod simulate;
mod train;
mod usage;
mod validate;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What one run of the binary gave.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the binary in the project's root, without colour and settings of the caller.
fn edgetwin(arguments: &[&str]) -> Run {
    edgetwin_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments, "")
}

fn edgetwin_in(directory: &Path, arguments: &[&str], stdin: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgetwin"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("EDGETWIN_SERVER")
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends at once does not read it.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asserts on exit code, stdout and stderr at once, so that a failure shows all of them.
#[track_caller]
fn expect(run: &Run, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(
        (run.code, run.stdout.as_str(), run.stderr.as_str()),
        (code, stdout, stderr),
        "\n--- stdout\n{}\n--- stderr\n{}",
        run.stdout,
        run.stderr
    );
}
