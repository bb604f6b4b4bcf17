//! `validate`: every mistake of a run, each at its place.

use std::fs;
use std::path::Path;

use expect_test::expect;
use serde_json::Value;

use crate::support::process::{edgetwin, edgetwin_in};
use crate::support::snapshot::snapshot;

#[test]
fn every_example_is_valid() {
    for entry in fs::read_dir("manifests").unwrap() {
        let path = entry.unwrap().path();
        let run = edgetwin(&["validate", path.to_str().unwrap(), "--strict"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", path.display());
    }
}

#[test]
fn examples_do_not_clash() {
    let run = edgetwin(&["validate", "-f", "manifests"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.ends_with("are valid.\n"), "{}", run.stdout);
}

/// Every file of `tests/data/invalid` has its diagnostics beside it, in the form that
/// `--output json` prints, message and help left out. A new code needs a case here.
#[test]
fn mistakes_are_found_where_they_stand() {
    let mut seen = std::collections::BTreeSet::new();
    let mut cases = 0;
    let mut paths: Vec<_> =
        fs::read_dir("tests/data/invalid").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in
        paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
    {
        let name = path.file_name().unwrap().to_str().unwrap();
        let directory = Path::new("tests/data/invalid");
        let run = edgetwin_in(directory, &["validate", name, "--output", "json"], "");
        let printed: Value = serde_json::from_str(&run.stdout).unwrap();
        let found: Vec<Value> = printed["diagnostics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|diagnostic| {
                assert_eq!(diagnostic["file"], name);
                assert!(!diagnostic["message"].as_str().unwrap().is_empty());
                seen.insert(diagnostic["code"].as_str().unwrap().to_owned());
                let field = |key: &str| diagnostic[key].clone();
                serde_json::json!([
                    field("code"),
                    field("severity"),
                    field("line"),
                    field("column")
                ])
            })
            .collect();
        let expected = fs::read_to_string(path.with_extension("expected.json")).unwrap_or_default();
        let expected: Vec<Value> = serde_json::from_str(&expected).unwrap_or_default();
        assert_eq!(found, expected, "{}", path.display());
        let errors = found.iter().any(|diagnostic| diagnostic[1] == "error");
        assert_eq!(run.code, if errors { 78 } else { 0 }, "{}", path.display());
        cases += 1;
    }
    assert!(cases >= 25, "{cases} cases");
    // `ET0001` has no file to stand in; the last two are `gen-firmware`'s alone.
    let elsewhere = ["ET0001", "ET0504", "ET0505"];
    let all = edgetwin_codes();
    let missing: Vec<_> = all
        .iter()
        .filter(|code| !seen.contains(*code) && !elsewhere.contains(&code.as_str()))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

fn edgetwin_codes() -> Vec<String> {
    edgetwin::testing::Code::ALL.iter().map(|code| code.id().to_owned()).collect()
}

#[test]
fn a_mistake_is_shown_with_its_line_a_caret_and_the_cure() {
    snapshot(
        &edgetwin(&["validate", "tests/data/invalid/unknown-service.yaml"]),
        expect![[r#"
        exit 78
        --- stderr
        error[ET0203]: Twin `farm:node-17` names a service that nobody declares
         --> tests/data/invalid/unknown-service.yaml:8:14
          |
        8 |   services: [anomaly-forrest]
          |              ^^^^^^^^^^^^^^^ no Service `anomaly-forrest` in the file read

        hint: did you mean `anomaly-forest` (tests/data/invalid/unknown-service.yaml:2)?
        hint: a service that registers itself needs `external: true` in a Service document

        error[ET0203]: Twin `farm:node-18` names a service that nobody declares
          --> tests/data/invalid/unknown-service.yaml:15:5
           |
        15 |     nobody: {every: 1s}
           |     ^^^^^^ no Service `nobody` in the file read

        hint: a service that registers itself needs `external: true` in a Service document

        2 errors in 1 file. Nothing would be applied.
    "#]],
    );
}

#[test]
fn json_diagnostics_are_data() {
    snapshot(
        &edgetwin_in(
            Path::new("tests/data/invalid"),
            &["validate", "unknown-program.yaml", "-o", "json"],
            "",
        ),
        expect![[r#"
            exit 78
            --- stdout
            {
              "diagnostics": [
                {
                  "code": "ET0207",
                  "column": 27,
                  "file": "unknown-program.yaml",
                  "help": "did you mean `interval`?\nthe programs are `interval`, `on-change`, `burst`, `features`, `raw`, `aggregate`, `predict`, `on-request` and `schedule`; a NodeProfile can list more",
                  "line": 4,
                  "message": "Twin `default:a` names a program that no firmware has",
                  "severity": "error"
                }
              ]
            }
        "#]],
    );
}

#[test]
fn standard_input_is_a_manifest_too() {
    let root = Path::new(".");
    snapshot(
        &edgetwin_in(root, &["validate", "-"], "kind: Twin\nmetadata: {name: a}\nspec: {}\n"),
        expect![[r#"
            exit 0
            --- stdout
            1 object in 1 file is valid.
        "#]],
    );
    snapshot(
        &edgetwin_in(root, &["validate", "-"], "kind: Twin\nmetadata: {name: a}\n"),
        expect![[r#"
            exit 78
            --- stderr
            error[ET0105]: Twin `default:a` has no `spec`
             --> <stdin>:1:1
              |
            1 | kind: Twin
              | ^

            1 error in 1 file. Nothing would be applied.
        "#]],
    );
}

#[test]
fn warnings_do_not_fail_unless_asked() {
    let file = "tests/data/invalid/selects-nothing.yaml";
    assert_eq!(edgetwin(&["validate", file]).code, 0);
    assert_eq!(edgetwin(&["validate", file, "--strict"]).code, 78);
}

#[test]
fn a_path_that_cannot_be_read_is_a_mistake_like_others() {
    snapshot(
        &edgetwin(&["validate", "nowhere", "tests/data/invalid/unknown-api-version.yaml"]),
        expect![[r#"
            exit 78
            --- stderr
            error[ET0103]: `edgetwin.dev/v2` is not a value of `apiVersion` in Twin `default:a`
             --> tests/data/invalid/unknown-api-version.yaml:1:13
              |
            1 | apiVersion: edgetwin.dev/v2
              |             ^^^^^^^^^^^^^^^

            hint: write `edgetwin.dev/v1alpha1`, or leave the line out

            error[ET0001]: `nowhere` cannot be read: it does not exist
              --> nowhere

            2 errors in 2 files. Nothing would be applied.
        "#]],
    );
}

#[test]
fn names_and_yaml_of_what_was_read() {
    let run = edgetwin(&["validate", "manifests/quickstart/rules.yaml", "-o", "name"]);
    // The rule's service is in another file.
    assert_eq!(run.code, 78);
    let run = edgetwin(&["validate", "manifests/quickstart", "-o", "name"]);
    assert!(run.stdout.contains("TwinSet/lab/north\n"), "{}", run.stdout);
    let run = edgetwin(&["validate", "manifests/quickstart", "-o", "yaml"]);
    assert!(run.stdout.ends_with("kind: List\n"), "{}", run.stdout);
    let again = edgetwin_in(Path::new("."), &["validate", "-"], &run.stdout);
    snapshot(
        &again,
        expect![[r#"
        exit 0
        --- stdout
        14 objects in 1 file are valid.
    "#]],
    );
}

#[test]
fn nothing_to_validate_is_a_usage_error() {
    snapshot(
        &edgetwin(&["validate"]),
        expect![[r#"
        exit 64
        --- stderr
        error: nothing to validate

        hint: name files or directories: `edgetwin validate manifests/`
    "#]],
    );
}

#[test]
fn files_that_a_model_names_are_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let digest = "0".repeat(64);
    let text = format!(
        "kind: Model\nmetadata: {{name: a}}\nspec:\n  classifier: forest\n  train:\n    data: data/a.csv\n---\n\
         kind: Model\nmetadata: {{name: b}}\nspec:\n  classifier: forest\n  file: b.etm\n  digest: sha256:{digest}\n"
    );
    fs::write(directory.path().join("models.yaml"), text).unwrap();
    let run = edgetwin_in(directory.path(), &["validate", "models.yaml"], "");
    snapshot(
        &run,
        expect![[r#"
        exit 78
        --- stderr
        error[ET0001]: Model `a` names `data/a.csv`, which does not exist
         --> models.yaml:6:11
          |
        6 |     data: data/a.csv
          |           ^^^^^^^^^^

        hint: the path is relative to the manifest

        warning[ET0001]: Model `b` names `b.etm`, which does not exist
          --> models.yaml:12:9
           |
        12 |   file: b.etm
           |         ^^^^^

        hint: the path is relative to the manifest
        hint: a runtime that has a file with this digest already does not need it

        1 error and 1 warning in 1 file. Nothing would be applied.
    "#]],
    );
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::write(directory.path().join("data/a.csv"), "").unwrap();
    fs::write(directory.path().join("b.etm"), "").unwrap();
    let run = edgetwin_in(directory.path(), &["validate", "models.yaml", "--strict"], "");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_merge_key_is_answered_with_its_cure() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "kind: Twin\nmetadata: {name: a}\nspec:\n  <<: {model: m}\n  attributes: {floor: 1}\n";
    let run = edgetwin_in(directory.path(), &["validate", "-"], text);
    snapshot(
        &run,
        expect![[r#"
        exit 78
        --- stderr
        error[ET0006]: `<<` merge keys are not supported
         --> <stdin>:4:3
          |
        4 |   <<: {model: m}
          |   ^^

        hint: write the fields out, or give an alias to a whole value: `spec: *base`
        hint: what many twins have in common goes into a TwinSet's `template`

        1 error in 1 file. Nothing would be applied.
    "#]],
    );
}
