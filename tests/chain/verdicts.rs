//! A reading becomes a verdict, whoever wrote the reading and wherever the service runs.

use std::time::Duration;

use serde_json::json;

use crate::mqtt::Node;
use crate::{Runtime, judge_inside, judge_outside, model, serve, twins};

#[test]
fn a_reading_over_mqtt_is_a_twin_over_http_and_a_verdict_in_both() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::start(directory.path());
    let mut objects = judge_inside(&model(directory.path()));
    objects.push(twins(2));
    runtime.apply(directory.path(), &objects);
    let node = Node::connect(runtime.mqtt, "node");
    node.send(1, 3);
    node.acknowledged();
    let (topic, told) = node.verdict();
    assert_eq!((topic.as_str(), &told["label"]), ("et/v1/lab/n-1/verdict/judge", &json!("low")));
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["environment"]["properties"], json!({"x": 3}));
    // What is told is what is kept, and it is about the reading.
    assert_eq!(thing["features"]["judge"]["properties"], told);
    assert_eq!(told["ofRevision"].as_u64().unwrap() + 1, thing["_revision"].as_u64().unwrap());
    node.send(1, 33);
    assert_eq!(node.verdict().1["label"], "high");
    assert!(runtime.thing("lab:n-2")["features"]["judge"].is_null());
}

#[test]
fn whoever_names_a_service_in_the_attributes_gets_verdicts() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::start(directory.path());
    runtime.apply(directory.path(), &judge_inside(&model(directory.path())));
    let thing = json!({"features": {"environment": {"properties": {"x": 5}}}});
    assert_eq!(runtime.put("/api/2/things/lab:free", &thing), 201);
    assert!(runtime.thing("lab:free")["features"]["judge"].is_null());
    assert_eq!(runtime.put("/api/2/things/lab:free/attributes/services", &json!(["judge"])), 201);
    assert_eq!(runtime.verdict("lab:free", |_| true)["label"], "low");
    let path = "/api/2/things/lab:free/features/environment/properties/x";
    assert_eq!(runtime.put(path, &json!(30)), 204);
    assert_eq!(runtime.verdict("lab:free", |verdict| verdict["label"] == "high")["model"], "m");
    // A change that is no input calls nobody.
    let revision = runtime.thing("lab:free")["_revision"].as_u64().unwrap();
    assert_eq!(runtime.put("/api/2/things/lab:free/attributes/floor", &json!(1)), 201);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(runtime.thing("lab:free")["_revision"], revision + 1);
}

#[test]
fn a_twin_whose_service_was_away_is_judged_when_an_instance_registers() {
    let directory = tempfile::tempdir().unwrap();
    model(directory.path());
    let runtime = Runtime::start(directory.path());
    let mut objects = judge_outside();
    objects.push(twins(1));
    runtime.apply(directory.path(), &objects);
    let node = Node::connect(runtime.mqtt, "node");
    node.send(1, 25);
    node.acknowledged();
    std::thread::sleep(Duration::from_millis(600));
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["environment"]["properties"]["x"], 25);
    assert!(thing["features"]["judge"].is_null(), "{thing:#}");
    let _instance = serve(directory.path(), &runtime);
    assert_eq!(node.verdict().1["label"], "high");
    assert_eq!(runtime.verdict("lab:n-1", |_| true)["label"], "high");
}

#[test]
fn services_that_fire_each_other_end_and_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::start(directory.path());
    let mut objects = judge_inside(&model(directory.path()));
    objects.truncate(1);
    for (name, other) in [("ping", "pong"), ("pong", "ping")] {
        objects.push(json!({"kind": "Service", "metadata": {"name": name}, "spec": {
            "inputs": [format!("{other}/score")], "model": "m"}}));
    }
    runtime.apply(directory.path(), &objects);
    let thing = json!({"attributes": {"services": ["ping", "pong"]}});
    assert_eq!(runtime.put("/api/2/things/lab:loop", &thing), 201);
    let before = runtime.thing("lab:loop")["_revision"].as_u64().unwrap();
    let score = json!({"properties": {"score": 3}});
    assert_eq!(runtime.put("/api/2/things/lab:loop/features/ping", &score), 201);
    // One change, and as many verdicts as may follow from it, all durable with it.
    assert_eq!(runtime.thing("lab:loop")["_revision"].as_u64().unwrap(), before + 1 + 4);
    let (status, events) = runtime.request("GET", "/edgetwin/v1/events", None);
    assert_eq!(status, 200);
    let told = events["items"].as_array().unwrap().iter();
    let told: Vec<_> = told.filter(|event| event["reason"] == "TriggerLoop").collect();
    assert_eq!(told.len(), 1, "{events:#}");
    assert_eq!(told[0]["object"], "Twin/lab/loop");
}

#[test]
fn a_node_whose_boot_counter_went_back_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::start(directory.path());
    let mut objects = judge_inside(&model(directory.path()));
    objects.push(twins(1));
    runtime.apply(directory.path(), &objects);
    let node = Node::connect(runtime.mqtt, "node");
    for (x, boot, seq) in [(1, 7, 0), (2, 1, 0), (3, 7, 1)] {
        node.send_numbered(1, x, boot, seq);
        node.acknowledged();
    }
    assert_eq!(runtime.thing("lab:n-1")["features"]["environment"]["properties"], json!({"x": 3}));
    let (_, events) = runtime.request("GET", "/edgetwin/v1/events", None);
    let told = events["items"].as_array().unwrap().iter();
    let told: Vec<_> = told.filter(|event| event["reason"] == "OldBoot").collect();
    assert_eq!((told.len(), &told[0]["object"]), (1, &json!("Twin/lab/n-1")), "{events:#}");
    assert_eq!(told[0]["count"], 1);
}
