//! How verbs end that do not fail, and how the program was called.

/// How a verb ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is done: exit code 0.
    Done,
    /// There are changes, and `--detailed-exitcode` asked to say so: exit code 2.
    ChangesPresent,
}

/// How this program was called, for hints that can be copied: `edgetwin` where it is on the PATH.
pub(super) fn program() -> String {
    match std::env::args_os().next() {
        Some(name) if !name.is_empty() => name.to_string_lossy().into_owned(),
        _ => "edgetwin".to_owned(),
    }
}
