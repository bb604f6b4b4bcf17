//! `edgetwin train`: report, model file, faults of the data and the recipe.

use expect_test::expect;
use serde_json::Value;

use crate::support::process::{Run, edgetwin_in};
use crate::support::snapshot::snapshot;

/// Readings whose label is plain: hot is more than 30.
fn csv() -> String {
    let rows = (0..200).map(|i| {
        let (t, h) = (f64::from(i % 50) + 0.5, 40 + i % 7);
        format!("{t},{h},{}\n", if t > 30.0 { "hot" } else { "cool" })
    });
    "temperature,humidity,label\n".to_owned() + &rows.collect::<String>()
}

fn train(directory: &std::path::Path, more: &[&str]) -> Run {
    let mut arguments = vec!["train", "-", "--target", "label"];
    arguments.extend(more);
    edgetwin_in(directory, &arguments, &csv())
}

#[test]
fn the_same_recipe_writes_the_same_file_twice_for_every_classifier() {
    let directory = tempfile::tempdir().unwrap();
    for classifier in ["forest", "svm", "mlp"] {
        let mut files = Vec::new();
        for name in ["a.etm", "b.etm"] {
            let run = train(
                directory.path(),
                &["--classifier", classifier, "--seed", "7", "-o", name, "--output", "json"],
            );
            assert_eq!(run.code, 0, "{}", run.stderr);
            let report: Value = serde_json::from_str(&run.stdout).unwrap();
            assert_eq!(report["classifier"], classifier);
            assert_eq!(report["file"], name);
            assert_eq!(report["rows_train"], 150);
            assert!(report["test"]["macro_f1"].as_f64().unwrap() > 0.9, "{}", run.stdout);
            files.push(std::fs::read(directory.path().join(name)).unwrap());
        }
        assert_eq!(files[0], files[1]);
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 2, "no partial file is left");
}

#[test]
fn report_for_people_has_the_confusion_matrix() {
    let directory = tempfile::tempdir().unwrap();
    let run = train(directory.path(), &["--seed", "7", "--inputs", "temperature"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, "not written: -o FILE keeps the model\n"));
    for part in
        ["fitted to 150 rows", "actual \\ predicted", "precision  recall     F1    rows\ncool "]
    {
        assert!(run.stdout.contains(part), "{part} is not in\n{}", run.stdout);
    }
}

#[test]
fn slips_are_usage_errors_with_a_guess() {
    let directory = tempfile::tempdir().unwrap();
    snapshot(
        &train(directory.path(), &["-p", "tress=3"]),
        expect![[r#"
        exit 64
        --- stderr
        error: there is no parameter `tress`; there are trees, depth, min-leaf, features

        hint: did you mean `trees`?
    "#]],
    );
    snapshot(
        &train(directory.path(), &["-p", "trees=0"]),
        expect![[r#"
        exit 64
        --- stderr
        error: parameter `trees` cannot be `0`: a whole number from 1 to 1000
    "#]],
    );
    snapshot(
        &train(directory.path(), &["--inputs", "temperatur"]),
        expect![[r#"
        exit 64
        --- stderr
        error: standard input: there is no column `temperatur`; the columns are temperature, humidity, label

        hint: did you mean `temperature`?
    "#]],
    );
}

#[test]
fn faults_of_the_data_name_their_line_and_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let run = edgetwin_in(
        directory.path(),
        &["train", "-", "--target", "l", "-o", "m.etm"],
        "a,l\n1,x\nwarm,y\n",
    );
    snapshot(
        &run,
        expect![[r#"
        exit 1
        --- stderr
        error: standard input: line 3, column `a`: `warm` is not a number

        hint: name the columns to learn from with --inputs
    "#]],
    );
    assert!(!directory.path().join("m.etm").exists());
}

#[test]
fn a_format_after_o_is_a_mistake_and_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let run =
        edgetwin_in(directory.path(), &["train", "-", "--target", "y", "-o", "json"], "x,y\n1,a\n");
    assert_eq!(run.code, 64, "{}", run.stderr);
    assert!(run.stderr.contains("write --output json"), "{}", run.stderr);
    assert!(!directory.path().join("json").exists());
}
