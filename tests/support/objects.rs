//! The objects that most tests of the chain use: the service `judge` and its twins.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::process::{Process, edgetwin_in};
use super::runtime::Runtime;

/// Trains a model that says `low` below 20 and `high` from there, as `m.etm` in the
/// directory.
pub(crate) fn model(directory: &Path) -> Vec<u8> {
    let rows = (0..40).map(|i| format!("{i},{}\n", if i < 20 { "low" } else { "high" }));
    let csv = "x,label\n".to_owned() + &rows.collect::<String>();
    let run = edgetwin_in(directory, &["train", "-", "--target", "label", "-o", "m.etm"], &csv);
    assert_eq!(run.code, 0, "{}", run.stderr);
    std::fs::read(directory.join("m.etm")).unwrap()
}

/// The service `judge` in the runtime itself.
pub(crate) fn judge_inside(model: &[u8]) -> Vec<Value> {
    let digest: String = Sha256::digest(model).iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        json!({"kind": "Model", "metadata": {"name": "m"}, "spec": {
            "classifier": "forest", "file": "m.etm", "digest": format!("sha256:{digest}")}}),
        json!({"kind": "Service", "metadata": {"name": "judge"}, "spec": {
            "inputs": ["environment/x"], "model": "m"}}),
    ]
}

/// The service `judge` that registers from outside.
pub(crate) fn judge_outside() -> Vec<Value> {
    vec![json!({"kind": "Service", "metadata": {"name": "judge"}, "spec": {
        "inputs": ["environment/x"], "external": true}})]
}

/// An instance of `judge` in a process of its own, registered; [`model`] must have been called.
pub(crate) fn serve(runtime: &Runtime) -> Process {
    let file = runtime.path().join("m.etm");
    let name = ["--name", "judge", "--eureka", &runtime.eureka, "--lease", "3s"];
    let mut process = Process::start(&[&["serve", file.to_str().unwrap()], &name[..]].concat());
    process.line("registered judge");
    process
}

/// Twins `lab:n-1`… that name the service.
pub(crate) fn twins(count: u32) -> Value {
    json!({"kind": "TwinSet", "metadata": {"name": "n", "namespace": "lab"}, "spec": {
        "count": count, "template": {"spec": {"services": ["judge"]}}}})
}
