//! Whole outputs against snapshots in the test's source. `UPDATE_EXPECT=1 cargo test` rewrites
//! them; read the diff before it is committed.

use expect_test::Expect;
use regex_lite::Regex;

use super::process::Run;

/// What differs from run to run, and what stands for it.
const FILTERS: [(&str, &str); 6] = [
    (r"\b[0-9a-f]{64}\b", "[SHA256]"),
    (r"\b[0-9a-f]{32}\b", "[TRACE]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "[TIME]"),
    (r"\b\d\d:\d\d:\d\d\b", "[TIME]"),
    (r"\bedgetwin \d+\.\d+\.\d+\b", "edgetwin [VERSION]"),
    // Ports that the system chose; such as are written in tests are lower.
    (r"\b127\.0\.0\.1:[3-6]\d{4}\b", "127.0.0.1:[PORT]"),
];

/// Compares exit code and both outputs, so that a failure shows all of them.
#[track_caller]
pub(crate) fn snapshot(run: &Run, expected: Expect) {
    snapshot_with(run, &[], expected);
}

/// The same with more filters, which are applied first.
#[track_caller]
pub(crate) fn snapshot_with(run: &Run, filters: &[(&str, &str)], expected: Expect) {
    let mut text = format!("exit {}\n", run.code);
    for (name, output) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
        if !output.is_empty() {
            text += &format!("--- {name}\n{output}");
            if !output.ends_with('\n') {
                text += "[no newline]\n";
            }
        }
    }
    for (pattern, replacement) in filters.iter().chain(&FILTERS) {
        text = Regex::new(pattern).unwrap().replace_all(&text, *replacement).into_owned();
    }
    expected.assert_eq(&text);
}
