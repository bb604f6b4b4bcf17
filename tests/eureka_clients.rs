//! Real Eureka clients against the runtime's registry: PyPI's py-eureka-client, npm's
//! eureka-js-client.
//!
//! `tests/run` installs both and says where they are (`EDGETWIN_PYTHON`, `EDGETWIN_NODE`); there a
//! missing one is a failure. Elsewhere the test says what it left out and passes.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests assert by panicking, and a test that did not run says so"
)]

#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::path::Path;
use std::process::Command;

use support::runtime::Runtime;

fn check(script: &str, mut command: Command) {
    let runtime = Runtime::start();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let done = command.arg(path).arg("--eureka").arg(&runtime.eureka).output().unwrap();
    let (said, faults) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{script}\n{said}\n{faults}");
}

fn left_out(what: &str) {
    assert!(std::env::var_os("EDGETWIN_TEST_FULL").is_none(), "{what}");
    eprintln!("NOT RUN: {what}");
}

#[test]
fn py_eureka_client_lives_with_the_registry() {
    let python = std::env::var("EDGETWIN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import py_eureka_client"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        return left_out("no Python with py-eureka-client (EDGETWIN_PYTHON)");
    }
    check("eureka_clients.py", Command::new(python));
}

#[test]
fn eureka_js_client_lives_with_the_registry() {
    let packages = std::env::var("EDGETWIN_NODE").unwrap_or_else(|_| "target/node".to_owned());
    let package = Path::new(&packages).join("node_modules/eureka-js-client");
    if !package.is_dir() || Command::new("node").arg("--version").output().is_err() {
        return left_out("no Node.js with eureka-js-client (EDGETWIN_NODE)");
    }
    check("eureka_clients.mjs", Command::new("node"));
}
