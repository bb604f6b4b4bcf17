//! `edgetwin bench pipeline`: the report is whole and its sums are consistent.

use serde_json::Value;

use crate::support::process::edgetwin_in;
use crate::support::runtime::Runtime;

#[test]
fn a_quick_benchmark_reports_every_case_and_leaves_nothing() {
    let report = report(&["bench", "pipeline", "--quick", "--seed", "3"]);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["seed"], 3);
    assert!(report["machine"]["cpus"].as_u64().unwrap() > 0);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {report:#}"));
    let floor = &report["floor_us"];
    assert!(number(&floor["fdatasync"]) > 0.0 && number(&floor["loopback"]) > 0.0);

    let cases = report["cases"].as_array().unwrap();
    let mut seen = Vec::new();
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let (classifier, placement, load) = (text("classifier"), text("placement"), text("load"));
        seen.push((classifier, placement, load));
        assert!(number(&floor["inference"][classifier]) > 0.0);
        let at = |name: &str| number(&case["latency_us"][name]);
        let rising = ["p50", "p90", "p99", "p999", "max"].map(at);
        assert!(rising.is_sorted() && rising[0] > 0.0, "{case:#}");
        let readings = number(&case["readings"]);
        assert_eq!(number(&case["revisions"]), 2.0 * readings, "{case:#}");
        assert!(number(&case["throughput_per_s"]) > 0.0);
        assert!(number(&case["bytes_per_reading"]) > 100.0);
        let ratio = at("p50") / number(&case["floor_us"]);
        assert!((ratio - number(&case["ratio_to_floor"])).abs() < 0.02, "{case:#}");
        match load {
            "rate" => {
                assert_eq!(number(&case["rate_per_s"]), 1000.0);
                assert_eq!(readings, 300.0);
            }
            _ => assert!(case["rate_per_s"].is_null()),
        }
        let stages = &case["stages_us"];
        let inference = if placement == "http" { "call" } else { "inference" };
        let inside = ["apply", inference, "commit", "ack"].map(|name| number(&stages[name]));
        assert!(inside.iter().all(|us| *us > 0.0), "{case:#}");
        // The sync is part of the time to the acknowledgement; that is part of the whole.
        assert!(load != "one" || number(&stages["commit"]) <= 1.1 * number(&stages["ack"]));
    }
    let mut wanted = Vec::new();
    for classifier in ["forest", "svm", "mlp"] {
        for placement in ["in-process", "http"] {
            wanted.extend(["one", "rate", "saturation"].map(|load| (classifier, placement, load)));
        }
    }
    assert_eq!(seen, wanted);
    for updates in report["updates"].as_array().unwrap() {
        assert_eq!(number(&updates["readings"]), number(&updates["revisions"]), "{updates:#}");
        assert!(number(&updates["throughput_per_s"]) > 0.0);
    }
}

/// The report of a benchmark, which leaves nothing behind and says nothing beside it.
fn report(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let state = ["--json", "--state-dir", directory.to_str().unwrap()];
    let run = edgetwin_in(directory, &[arguments, &state].concat(), "");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(directory.read_dir().unwrap().count(), 0);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_broker_beside_is_measured_in_turns() {
    // The broker beside is a second runtime: what is told of both is told of the same program.
    let beside = Runtime::start();
    let url = format!("mqtt://{}", beside.mqtt);
    let report = report(&["bench", "broker", "--seconds", "0.2", "--beside", &url]);
    for who in ["rounds", "beside"] {
        let rounds = report[who].as_array().unwrap();
        assert_eq!(rounds.len(), 3);
        assert!(rounds.iter().all(|round| round["readings"].as_u64().unwrap() > 0), "{report:#}");
    }
    assert!(report["ratio"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_killed_runtime_of_many_twins_is_measured_again() {
    let report = report(&["bench", "scale", "--twins", "300", "--objects", "200"]);
    let size = &report["sizes"][0];
    assert_eq!(size["twins"], 300);
    let bytes = size["twin_bytes"].as_u64().unwrap();
    assert!((900..1200).contains(&bytes), "{bytes}");
    for figure in ["rss_kib", "start_ms", "started_rss_kib", "apply_ms"] {
        assert!(size[figure].as_f64().unwrap() > 0.0, "{report:#}");
    }
    assert!(report["plan_ms"].as_f64().unwrap() > 0.0);
}
