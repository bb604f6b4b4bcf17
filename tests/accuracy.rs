//! Forest, SVM and perceptron against scikit-learn on recorded sensor data.
//!
//! The data is not part of the project: it is looked for in `EDGETWIN_DATA`, then in
//! `../shared/data` beside the checkout. `tests/accuracy/prepare.py` lays it out with a Python that
//! has numpy (`EDGETWIN_PYTHON`, else `python3`; `tests/run` installs it). Where one of them is
//! missing the test says so and passes, but `EDGETWIN_TEST_FULL` demands the Python.
//!
//! `cargo test --release --test accuracy`: fitting 100,000 rows six times takes a minute; a debug
//! build would take half an hour, so there it only says that it did not run.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(clippy::print_stderr, reason = "a test that did not run says so")]

use std::path::{Path, PathBuf};
use std::process::Command;

use edgetwin::testing::Classifier;
use edgetwin::testing::{Dataset, Evaluation, Recipe, fit};

/// F1 of `anomalous` on the test rows, as recorded with the reference models.
const REFERENCE: [(&str, [(Classifier, f64); 3]); 2] = [
    ("raw4", [(Classifier::Forest, 0.393), (Classifier::Svm, 0.381), (Classifier::Mlp, 0.513)]),
    ("win16", [(Classifier::Forest, 0.421), (Classifier::Svm, 0.500), (Classifier::Mlp, 0.530)]),
];

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = std::env::var_os("EDGETWIN_DATA").map_or(beside, PathBuf::from);
    path.join("make_anomalies.py").is_file().then_some(path)
}

fn python() -> Option<String> {
    let python = std::env::var("EDGETWIN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let numpy = Command::new(&python).args(["-c", "import numpy"]).output();
    numpy.is_ok_and(|o| o.status.success()).then_some(python)
}

fn left_out(why: &str) {
    eprintln!("NOT RUN: accuracy against the reference: {why}");
}

#[test]
fn f1_is_within_a_point_of_the_reference() {
    if cfg!(debug_assertions) {
        return left_out("a debug build is too slow for it");
    }
    let Some(data) = data() else {
        return left_out("no recorded data (set EDGETWIN_DATA to its directory)");
    };
    let Some(python) = python() else {
        assert!(std::env::var_os("EDGETWIN_TEST_FULL").is_none(), "no Python with numpy");
        return left_out("no Python with numpy (set EDGETWIN_PYTHON)");
    };
    let out = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/prepare.py");
    let prepared = Command::new(python).arg(script).arg(data).arg(out.path()).output().unwrap();
    assert!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));
    let read = |name: String| {
        let file = std::fs::File::open(out.path().join(name)).unwrap();
        Dataset::from_csv(file, "label", &[]).unwrap()
    };
    let mut short = Vec::new();
    for (features, rows) in REFERENCE {
        let train = read(format!("{features}.train.csv"));
        let test = read(format!("{features}.test.csv"));
        for (classifier, reference) in rows {
            let mut recipe = Recipe::new(classifier);
            recipe.seed = 7;
            recipe.threads = 2;
            let model = fit(&train, &recipe).unwrap();
            let evaluation = Evaluation::of(&model, &test).unwrap();
            let f1 = evaluation.f1("anomalous");
            eprintln!("{features} {classifier}: F1 {f1:.3}, reference {reference:.3}");
            if f1 < reference - 0.01 {
                short.push(format!("{features} {classifier}: {f1:.3} of {reference:.3}"));
            }
        }
    }
    assert!(short.is_empty(), "{short:?}");
}
