//! Promises that hold for every classifier.

use super::dataset::DataError;
use super::train::{Dataset, Evaluation, Recipe, TrainError, fit, fit_and_test, run};
use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `n` rows of two inputs; the label says whether they lie within a ring: no line separates them.
fn rings(n: usize, seed: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<([f32; 2], &str)> = (0..n)
        .map(|_| {
            let at = [random.gen_range(-2.0..2.0), random.gen_range(-2.0..2.0_f32)];
            let inside = at[0] * at[0] + at[1] * at[1] < 1.5;
            (at, if inside { "inside" } else { "outside" })
        })
        .collect();
    Dataset::from_rows(
        &["x".to_owned(), "y".to_owned()],
        rows.iter().map(|(row, label)| (&row[..], *label)),
    )
    .unwrap()
}

/// Three labels, by the sector of a circle.
fn sectors(n: usize, seed: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<([f32; 2], &str)> = (0..n)
        .map(|_| {
            let at = [random.gen_range(-1.0..1.0), random.gen_range(-1.0..1.0_f32)];
            let label = match at[1].atan2(at[0]) {
                a if a < -1.0 => "a",
                a if a < 1.0 => "b",
                _ => "c",
            };
            (at, label)
        })
        .collect();
    Dataset::from_rows(
        &["x".to_owned(), "y".to_owned()],
        rows.iter().map(|(row, label)| (&row[..], *label)),
    )
    .unwrap()
}

fn recipe(classifier: Classifier) -> Recipe {
    let mut recipe = Recipe::new(classifier);
    recipe.seed = 7;
    let small: &[(&str, &str)] = match classifier {
        Classifier::Forest => &[("trees", "13"), ("min-leaf", "2")],
        Classifier::Svm => &[("rows", "300")],
        Classifier::Mlp => &[("epochs", "60"), ("batch", "20"), ("rate", "0.01")],
    };
    for (name, value) in small {
        recipe.set(name, value).unwrap();
    }
    recipe
}

fn small_models() -> Vec<Model> {
    Classifier::ALL
        .into_iter()
        .flat_map(|c| [fit(&rings(120, 1), &recipe(c)), fit(&sectors(120, 1), &recipe(c))])
        .map(Result::unwrap)
        .collect()
}

#[test]
fn each_classifier_learns_what_no_line_separates() {
    for classifier in Classifier::ALL {
        let (model, report) = fit_and_test(&rings(1200, 3), &recipe(classifier)).unwrap();
        let test = report.test.unwrap();
        assert!(test.macro_f1 > 0.93, "{classifier}: {test}");
        assert_eq!(report.rows_train + test.rows, 1200);
        assert!(test.rows.abs_diff(300) <= 1, "a quarter of each label");
        assert_eq!(report.version, model.version());
    }
}

#[test]
fn each_classifier_learns_three_labels() {
    for classifier in Classifier::ALL {
        let (model, report) = fit_and_test(&sectors(1200, 3), &recipe(classifier)).unwrap();
        assert_eq!(model.meta().labels, ["a", "b", "c"]);
        let test = report.test.unwrap();
        assert!(test.macro_f1 > 0.9, "{classifier}: {test}");
    }
}

#[test]
fn same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    for classifier in Classifier::ALL {
        let data = rings(400, 5);
        let mut recipe = recipe(classifier);
        let first = fit(&data, &recipe).unwrap();
        recipe.threads = 4;
        let second = fit(&data, &recipe).unwrap();
        assert_eq!(first.to_bytes(), second.to_bytes());
        assert_eq!(first.digest(), second.digest());
        recipe.seed = 8;
        assert_ne!(fit(&data, &recipe).unwrap().digest(), first.digest());
    }
}

#[test]
fn model_files_read_back_to_the_same_model() {
    for model in small_models() {
        let again = Model::from_bytes(&model.to_bytes()).unwrap();
        assert_eq!(again, model);
        assert_eq!(again.version().len(), 12);
        let (mut a, mut b) = (Prediction::default(), Prediction::default());
        for row in [[0.1, 0.2], [-1.9, 1.3], [1e30, -1e30]] {
            model.predict(&row, &mut a).unwrap();
            again.predict(&row, &mut b).unwrap();
            assert_eq!(a, b);
        }
    }
}

#[test]
fn probabilities_sum_to_one_and_the_label_is_the_likeliest() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut out = Prediction::default();
    for model in small_models() {
        for _ in 0..500 {
            let size = 10_f32.powi(random.gen_range(-3..30));
            let row = [random.gen_range(-size..size), random.gen_range(-size..size)];
            model.predict(&row, &mut out).unwrap();
            let sum: f32 = out.probabilities.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{out:?}");
            assert!(out.probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
            assert_eq!(out.score, out.probabilities[out.label]);
            assert!(out.probabilities.iter().all(|p| *p <= out.score));
            assert!(out.probabilities[..out.label].iter().all(|p| *p < out.score));
        }
    }
}

#[test]
fn missing_values_and_wrong_lengths_are_refused() {
    let mut out = Prediction::default();
    for model in small_models() {
        assert_eq!(
            model.predict(&[1.0], &mut out),
            Err(PredictError::Length { expected: 2, got: 1 })
        );
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                model.predict(&[0.0, bad], &mut out),
                Err(PredictError::NotFinite { input: 1 })
            );
        }
    }
}

#[test]
fn prediction_keeps_its_buffers_after_the_first_row() {
    for model in small_models() {
        let mut out = Prediction::default();
        model.predict(&[0.0, 0.0], &mut out).unwrap();
        let buffers = |p: &Prediction| {
            [
                (p.probabilities.as_ptr(), p.probabilities.capacity()),
                (p.scratch.as_ptr(), p.scratch.capacity()),
            ]
        };
        let before = buffers(&out);
        for i in 0..100 {
            model.predict(&[i as f32, -1.0], &mut out).unwrap();
        }
        assert_eq!(buffers(&out), before);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for model in small_models() {
        let good = model.to_bytes();
        let step = (good.len() / 400).max(1);
        for at in (0..good.len()).step_by(step).chain(0..20) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Model::from_bytes(&bad).is_err(), "bit of byte {at}");
            assert!(Model::from_bytes(&good[..at]).is_err(), "cut at {at}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(Model::from_bytes(&longer), Err(ModelError::Checksum));
    }
}

/// A file that was damaged on purpose, with a checksum that fits.
fn forged(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn forged_files_are_errors_or_models_but_never_panics() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut out = Prediction::default();
    for model in small_models() {
        let good = model.to_bytes();
        for _ in 0..1500 {
            let mut bad = good.clone();
            for _ in 0..random.gen_range(1..4) {
                let at = random.gen_range(16..bad.len());
                bad[at] = match random.gen_range(0..4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bad[at].wrapping_add(1),
                    _ => random.r#gen(),
                };
            }
            if random.gen_bool(0.2) {
                bad.truncate(random.gen_range(16..bad.len()));
            }
            if let Ok(model) = Model::from_bytes(&forged(bad)) {
                let row = vec![0.5; model.meta().inputs.len()];
                // Either outcome will do, as long as there is one.
                if model.predict(&row, &mut out).is_ok() {
                    assert!(out.label < model.meta().labels.len());
                }
            }
        }
    }
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    let model = &small_models()[0];
    let good = model.to_bytes();
    let meta_len = u32::from_le_bytes(good[16..20].try_into().unwrap()) as usize;
    let mut bad = good[..20 + meta_len].to_vec();
    bad.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        Model::from_bytes(&forged(bad)),
        Err(ModelError::Invalid("an array is longer than the file"))
    );
}

#[test]
fn other_files_and_later_versions_are_named_as_such() {
    assert_eq!(Model::from_bytes(b""), Err(ModelError::NotAModel));
    assert_eq!(
        Model::from_bytes(b"\x08\x0a\x12\x08skl2onnx and so on"),
        Err(ModelError::NotAModel)
    );
    let mut later = small_models()[0].to_bytes();
    later[8] = 2;
    assert_eq!(Model::from_bytes(&later), Err(ModelError::Version(2)));
}

#[test]
fn training_reads_named_columns_and_leaves_incomplete_rows_out() {
    let mut csv = String::from("time,b,a,label\n");
    for i in 0..40 {
        let a = if i % 2 == 0 { 1 } else { 5 };
        csv += &format!("t{i},{i},{a},{}\n", if a == 1 { "10" } else { "9" });
    }
    csv += "t,,1,10\nt,3,nan,9\nt,3,1,\n";
    let options = train::TrainingOptions {
        target: "label".to_owned(),
        inputs: vec!["a".to_owned(), "b".to_owned()],
        recipe: recipe(Classifier::Forest),
    };
    let (model, report) = run(csv.as_bytes(), &options).unwrap();
    assert_eq!(model.meta().inputs, ["a", "b"]);
    assert_eq!(model.meta().labels, ["9", "10"], "numbers sort by value");
    assert_eq!((report.rows_train, report.rows_skipped), (30, 3));
    assert_eq!(report.test.unwrap().accuracy, 1.0);
}

#[test]
fn faults_of_the_data_are_told_with_their_place() {
    let options = |target: &str, inputs: &[&str]| train::TrainingOptions {
        target: target.to_owned(),
        inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
        recipe: recipe(Classifier::Forest),
    };
    let refused = |csv: &str, options: &train::TrainingOptions| match run(csv.as_bytes(), options) {
        Err(TrainError::Data(e)) => e.to_string(),
        other => panic!("{other:?}"),
    };
    let csv = "a,b,label\n1,2,x\n1,wet,y\n";
    assert_eq!(
        refused(csv, &options("label", &["a", "b"])),
        "line 3, column `b`: `wet` is not a number"
    );
    assert_eq!(
        refused(csv, &options("lable", &["a"])),
        "there is no column `lable`; the columns are a, b, label"
    );
    assert!(refused(csv, &options("label", &["a", "a"])).contains("named twice"));
    assert!(refused("a,label\n1,x\n2,x\n", &options("label", &[])).contains("1 label(s)"));
    assert!(refused("a,label\n1,x\n2,x\n3,y\n", &options("label", &[])).contains("single row"));
    assert!(refused("a,label\n1,x,3\n", &options("label", &[])).contains("CSV"));
}

#[test]
fn recipes_take_back_what_they_say_and_refuse_nonsense() {
    for classifier in Classifier::ALL {
        let mut recipe = Recipe::new(classifier);
        for (name, value) in recipe.named() {
            recipe.set(name, &value).unwrap();
            assert!(recipe.set(name, "-1").is_err(), "{name}");
            assert!(recipe.set(name, "x").is_err(), "{name}");
        }
        assert_eq!(recipe, Recipe::new(classifier));
        let error = recipe.set("tress", "3").unwrap_err().to_string();
        assert!(error.contains("no parameter `tress`"), "{error}");
    }
}

#[test]
fn evaluation_counts_by_hand() {
    // A stump: everything above 0 is `hot`.
    let inputs = ["t".to_owned()];
    let learn: Vec<([f32; 1], &str)> =
        (-50..50).map(|i| ([i as f32 + 0.5], if i >= 0 { "hot" } else { "cold" })).collect();
    let set = |rows: &[([f32; 1], &'static str)]| {
        Dataset::from_rows(&inputs, rows.iter().map(|(r, l)| (&r[..], *l))).unwrap()
    };
    let model = fit(&set(&learn), &recipe(Classifier::Forest)).unwrap();
    let test = set(&[([40.0], "hot"), ([41.0], "hot"), ([42.0], "cold"), ([-40.0], "cold")]);
    let e = Evaluation::of(&model, &test).unwrap();
    assert_eq!(e.confusion, [[1, 1], [0, 2]]);
    assert_eq!(e.accuracy, 0.75);
    let cold = &e.by_label[0];
    assert_eq!((cold.precision, cold.recall, cold.rows), (1.0, 0.5, 2));
    assert!((e.f1("cold") - 2.0 / 3.0).abs() < 1e-12);
    assert!((e.f1("hot") - 0.8).abs() < 1e-12);
    assert!((e.brier - 0.5).abs() < 1e-6, "one of four is wholly wrong: 2 / 4");
    assert_eq!(e.reliability[9].rows, 4);
    assert_eq!(e.reliability[9].accuracy, 0.75);
}

#[test]
fn csv_is_read_as_spreadsheets_loggers_and_archives_write_it() {
    use std::io::Write;
    let inputs = ["t".to_owned(), "h".to_owned()];
    let read = |bytes: &[u8]| Dataset::from_csv(bytes, "l", &inputs).unwrap();
    let plain = read(b"t,h,l\n1.5,40,x\n2.5,41,y\n1,42,x\n2,43,y\n");
    for text in [
        "t;h;l\n1.5;40;x\n2.5;41;y\n1;42;x\n2;43;y\n",
        "t;h;l\n1,5;40,0;x\n2,5;41;y\n1;42;x\n2;43;y\n",
        "t\th\tl\n1,5\t40\tx\n2.5\t41\ty\n1\t42\tx\n2\t43\ty\n",
        "\u{feff}t,h,l\r\n1.5,40,x\r\n2.5,41,y\r\n1,42,x\r\n2,43,y\r\n",
        "\"t\",\"h\",\"l\",\"a;b;c;d\"\n1.5,40,x,\n2.5,41,y,\n1,42,x,\n2,43,y,\n",
    ] {
        assert_eq!(read(text.as_bytes()), plain, "{text}");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        assert_eq!(read(&packed.finish().unwrap()), plain, "{text}, packed");
    }
    let missing = read(
        b"t,h,l\n1.5,40,x\nNA,1,x\n2.5,41,y\n1,N/A,y\n1,42,x\n,1,x\n2,43,y\nnull,1,x\n1,1,NA\n",
    );
    assert_eq!((missing.len(), missing.skipped()), (4, 5));
    let first = Dataset::from_csv_rows(
        &b"t,h,l\n1,1,x\n2,2,y\n3,3,x\n4,4,y\n5,5,z\n"[..],
        "l",
        &inputs,
        Some(4),
    );
    assert_eq!(first.unwrap().labels(), ["x", "y"]);
    // A comma is not a decimal point beside commas.
    let wrong = Dataset::from_csv(&b"t,h,l\n\"1,5\",2,x\n"[..], "l", &inputs);
    assert!(matches!(wrong, Err(DataError::NotANumber { line: 2, .. })), "{wrong:?}");
    // A cut archive is an error, not a shorter file.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"t,h,l\n1,1,x\n2,2,y\n").unwrap();
    let packed = packed.finish().unwrap();
    let cut = Dataset::from_csv(&packed[..packed.len() - 9], "l", &inputs);
    assert!(matches!(cut, Err(DataError::Csv(_))), "{cut:?}");
}
