//! `simulate --live` against a running runtime.

use serde_json::Value;

use crate::support::runtime::Runtime;

const LAB: &str = "\
kind: TwinModel
metadata: {name: env-node}
spec:
  features: {environment: {properties: {temperature: {type: number, unit: Cel}}}}
---
kind: NodeProfile
metadata: {name: uno-env}
spec:
  board: uno
  sensors: [{type: lm35, pin: A0, property: environment/temperature}]
  transmission: {program: interval, interval: 100ms}
---
kind: TwinSet
metadata: {name: set, namespace: lab, labels: {room: north}}
spec: {count: 2, template: {spec: {model: env-node, node: {profile: uno-env}}}}
---
kind: Twin
metadata: {name: other, namespace: lab, labels: {room: south}}
spec: {model: env-node, node: {profile: uno-env}}
";

const SCENARIO: &str = "\
kind: Scenario
metadata: {name: north, namespace: lab}
spec: {seed: 5, duration: 700ms, nodes: [{twins: {matchLabels: {room: north}}, generator: environment}]}
";

fn broker(runtime: &Runtime) -> String {
    format!("mqtt://{}", runtime.mqtt)
}

/// The temperature of each twin, null where there was no reading.
fn temperatures(runtime: &Runtime) -> Vec<(String, bool)> {
    let list = runtime.run(&["get", "twins", "-A", "-o", "json"]);
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let of = |item: &Value| {
        let name = item["metadata"]["name"].as_str().unwrap().to_owned();
        (name, item["status"]["thing"]["revision"].as_u64().unwrap() > 2)
    };
    list["items"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_scenario_drives_its_twins_and_no_others() {
    let runtime = Runtime::start();
    let applied = runtime.run_with(&["apply", "-", "--wait"], LAB);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    runtime.write("north.yaml", SCENARIO);
    let broker = broker(&runtime);
    let run = runtime.run(&["simulate", "north.yaml", "--live", "--broker", &broker]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let said = format!("nodes   2 simulated over {broker}, seed 5, for 0.7 s\n");
    assert_eq!(run.stderr, said);
    let twins = temperatures(&runtime);
    let wanted = [("other", false), ("set-1", true), ("set-2", true)];
    assert_eq!(twins, wanted.map(|(name, sent)| (name.to_owned(), sent)));
}

#[test]
fn twins_are_chosen_by_label_and_having_none_is_an_error() {
    let runtime = Runtime::start();
    let broker = broker(&runtime);
    let live = ["simulate", "--live", "--for", "500ms", "--broker", &broker];
    let run = runtime.run(&live);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("no twin at http://"), "{}", run.stderr);
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let run = runtime.run(&[&live[..], &["-l", "room=south"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let sent: Vec<String> = temperatures(&runtime)
        .into_iter()
        .filter(|(_, sent)| *sent)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(sent, ["other"]);
}
