//! The house rules that a compiler does not check: which way imports point, who may touch the
//! outside, and that every test is run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from left to right; a module imports only from its own place or further left.
const ORDER: [&[&str]; 12] = [
    &["base"],
    &["store"],
    &["twin", "writer"],
    &["wire", "ditto"],
    &["gateway", "broker"],
    &["edgeai", "registry"],
    &["kinds", "cacc", "trigger"],
    &["firmware", "manifest"],
    &["reconcile"],
    &["simulate", "runtime"],
    &["bench"],
    &["cli"],
];

/// Arrows that are allowed although they point right, each with its reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Files that may open sockets, read files or read clocks.
const RIM: [&str; 12] = [
    "http",
    "ws",
    "listener",
    "serial",
    "disk",
    "clock",
    "runtime",
    "telemetry",
    "simulate",
    "bench",
    "external",
    "client",
];

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top module of a file below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(src()).unwrap();
    below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The text without comments and without unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.file_name().unwrap() == "tests.rs"
}

#[test]
fn imports_point_left() {
    let place = |name: &str| ORDER.iter().position(|group| group.contains(&name));
    let mut wrong = BTreeSet::new();
    for path in sources(&src()) {
        let from = module(&path);
        let Some(at) = place(&from) else { continue };
        if is_test(&path) {
            continue;
        }
        for part in code(&path).split("crate::").skip(1) {
            let to: String =
                part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(target) = place(&to) else { continue };
            if target > at && !EXCEPTIONS.contains(&(from.as_str(), to.as_str())) {
                wrong.insert(format!("{} imports crate::{to}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these arrows point right:\n{wrong:#?}");
}

#[test]
fn every_module_has_its_place() {
    for path in sources(&src()) {
        let module = module(&path);
        let known = ORDER.iter().any(|group| group.contains(&module.as_str()));
        assert!(known || ["lib", "main"].contains(&module.as_str()), "{module} is not in ORDER");
    }
}

#[test]
fn only_the_rim_touches_the_outside() {
    let outside = [
        "std::net::Tcp",
        "std::fs::",
        "File::open",
        "TcpStream::",
        "TcpListener::",
        "SystemTime::now",
    ];
    let mut wrong = Vec::new();
    for path in sources(&src()) {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let allowed = RIM.contains(&stem.as_str()) || RIM.contains(&module(&path).as_str());
        if allowed || is_test(&path) || module(&path) == "cli" {
            continue;
        }
        let code = code(&path);
        wrong.extend(
            outside
                .iter()
                .filter(|what| code.contains(**what))
                .map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "only rim files touch sockets, files and clocks:\n{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no header", path.display());
    }
}

#[test]
fn no_test_is_orphaned() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for path in sources(&tests) {
        let below = path.strip_prefix(&tests).unwrap();
        let mut parts = below.iter();
        let (first, second) = (parts.next().unwrap(), parts.next());
        let Some(second) = second else { continue };
        if second == "main.rs" || second == "mod.rs" {
            continue;
        }
        let folder = tests.join(first);
        let main = fs::read_to_string(folder.join("main.rs"))
            .or_else(|_| fs::read_to_string(folder.join("mod.rs")))
            .unwrap();
        let name = second.to_str().unwrap().trim_end_matches(".rs");
        assert!(main.contains(&format!("mod {name};")), "{} is not run", path.display());
    }
}

#[test]
fn nothing_is_ignored_or_left_undone() {
    for path in sources(&src()) {
        let code = code(&path);
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[allow(", "#[ignore"] {
            assert!(!code.contains(word), "{} holds {word}", path.display());
        }
    }
}
