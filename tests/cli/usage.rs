//! What all verbs share: usage errors, help, version, errors as JSON.

use expect_test::expect;

use crate::support::process::edgetwin;
use crate::support::snapshot::snapshot;

#[test]
fn a_usage_error_is_64_and_help_is_0() {
    let run = edgetwin(&["frobnicate"]);
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert!(
        run.stderr.starts_with("error: unrecognized subcommand 'frobnicate'\n"),
        "{}",
        run.stderr
    );
    let run = edgetwin(&["--help"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(edgetwin(&[]).code, 64);
}

#[test]
fn version_says_what_is_read() {
    snapshot(
        &edgetwin(&["version"]),
        expect![[r#"
        exit 0
        --- stdout
        edgetwin [VERSION]
    "#]],
    );
    snapshot(
        &edgetwin(&["--version"]),
        expect![[r#"
        exit 0
        --- stdout
        edgetwin [VERSION]
    "#]],
    );
}

#[test]
fn errors_are_json_if_data_is() {
    snapshot(
        &edgetwin(&["explain", "Twn", "-o", "json"]),
        expect![[r#"
        exit 1
        --- stderr
        {
          "error": {
            "causes": [],
            "hints": [
              "`edgetwin explain` lists the kinds"
            ],
            "kind": "failed",
            "message": "there is no kind `Twn`; did you mean `Twin`?"
          }
        }
    "#]],
    );
    let run = edgetwin(&["explain", "--nonsense", "--output=json"]);
    assert_eq!(run.code, 64);
    assert!(run.stderr.contains("\"kind\": \"usage\""), "{}", run.stderr);
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = edgetwin(&["completion", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{shell}");
        assert!(run.stdout.contains("validate"), "{shell}");
    }
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let file = "tests/data/invalid/unknown-program.yaml";
    let plain = edgetwin(&["validate", file]);
    assert!(!plain.stderr.contains('\x1b'), "{}", plain.stderr);
    let coloured = edgetwin(&["validate", file, "--color", "always"]);
    assert!(
        coloured.stderr.contains("\x1b[1;31merror\x1b[0m")
            || coloured.stderr.contains("\x1b[1;31merror[")
    );
    // The words are the same without colour.
    let mut words = coloured.stderr;
    while let Some(start) = words.find('\x1b') {
        let end = start + words[start..].find('m').unwrap() + 1;
        words.replace_range(start..end, "");
    }
    assert_eq!(words, plain.stderr);
}
