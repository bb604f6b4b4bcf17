//! Real Eureka clients against the registry alone: PyPI's py-eureka-client, npm's eureka-js-client.
//!
//! `tests/run` installs both and says where they are (`EDGETWIN_PYTHON`, `EDGETWIN_NODE`); there a
//! missing one is a failure. Elsewhere the test says what it left out and passes. The same scripts
//! run against a whole runtime in `tests/interop/all.py`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests assert by panicking, and a test that did not run says so"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use edgetwin::registry::Registry;
use edgetwin::registry::http::{Clock, expire_forever, router};

/// A registry that listens, for as long as the process lives.
fn eureka() -> String {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let registry = Arc::new(Registry::new(1));
            let clock = Clock::default();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("http://{}/eureka", listener.local_addr().unwrap())).unwrap();
            let served = router(Arc::clone(&registry), clock);
            tokio::spawn(expire_forever(registry, clock, |_| {}));
            axum::serve(listener, served).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn check(script: &str, mut command: Command) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let done = command.arg(path).arg("--eureka").arg(eureka()).output().unwrap();
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
