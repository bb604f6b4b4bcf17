//! A reading becomes a verdict, whoever wrote the reading and wherever the service runs.

use std::time::Duration;

use serde_json::json;

use crate::support::mqtt::Node;
use crate::support::objects::{judge_inside, judge_outside, model, serve, twins};
use crate::support::runtime::Runtime;

#[test]
fn a_reading_over_mqtt_is_a_twin_over_http_and_a_verdict_in_both() {
    let runtime = Runtime::start();
    let mut objects = judge_inside(&model(runtime.path()));
    objects.push(twins(2));
    runtime.apply(&objects);
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
    let runtime = Runtime::start();
    runtime.apply(&judge_inside(&model(runtime.path())));
    let thing = json!({"features": {"environment": {"properties": {"x": 5}}}});
    assert_eq!(runtime.put("/api/2/things/lab:free", &thing), 201);
    assert!(runtime.thing("lab:free")["features"]["judge"].is_null());
    assert_eq!(runtime.put("/api/2/things/lab:free/attributes/services", &json!(["judge"])), 201);
    assert_eq!(runtime.properties("lab:free", "judge", |_| true)["label"], "low");
    let path = "/api/2/things/lab:free/features/environment/properties/x";
    assert_eq!(runtime.put(path, &json!(30)), 204);
    assert_eq!(
        runtime.properties("lab:free", "judge", |verdict| verdict["label"] == "high")["model"],
        "m"
    );
    // A change that is no input calls nobody: between two of an input there is no other verdict.
    let revision = runtime.thing("lab:free")["_revision"].as_u64().unwrap();
    assert_eq!(runtime.put("/api/2/things/lab:free/attributes/floor", &json!(1)), 201);
    assert_eq!(runtime.put(path, &json!(3)), 204);
    let low = runtime.properties("lab:free", "judge", |verdict| verdict["label"] == "low");
    assert_eq!(low["ofRevision"], revision + 2);
    assert_eq!(runtime.thing("lab:free")["_revision"], revision + 3);
}

#[test]
fn a_disabled_service_is_not_called_and_a_twin_may_give_a_service_its_own_inputs() {
    let runtime = Runtime::start();
    runtime.apply(&judge_inside(&model(runtime.path())));
    let thing = |options: serde_json::Value| {
        json!({"attributes": {"services": {"judge": options}},
               "features": {"environment": {"properties": {"x": 5}},
                            "other": {"properties": {"y": 30}}}})
    };
    assert_eq!(runtime.put("/api/2/things/lab:off", &thing(json!({"enabled": false}))), 201);
    let own = json!({"inputs": ["other/y"]});
    assert_eq!(runtime.put("/api/2/things/lab:own", &thing(own)), 201);
    // By then a verdict about the first would have been there, too.
    assert_eq!(runtime.properties("lab:own", "judge", |_| true)["label"], "high");
    assert!(runtime.thing("lab:off")["features"]["judge"].is_null());
    // A change of the twin's own input calls the service, one of the service's input does not.
    let put = |twin: &str, path: &str, value: u32| {
        let path = format!("/api/2/things/lab:{twin}/features/{path}");
        assert_eq!(runtime.put(&path, &json!(value)), 204);
    };
    let revision = runtime.thing("lab:own")["_revision"].as_u64().unwrap();
    put("own", "environment/properties/x", 31);
    put("own", "other/properties/y", 3);
    let low = runtime.properties("lab:own", "judge", |verdict| verdict["label"] == "low");
    assert_eq!(low["ofRevision"], revision + 2);
    // Enabled, it judges what is there.
    let path = "/api/2/things/lab:off/attributes/services/judge/enabled";
    assert_eq!(runtime.put(path, &json!(true)), 204);
    assert_eq!(runtime.properties("lab:off", "judge", |_| true)["label"], "low");
    // A twin that gives what is not there is not judged.
    assert_eq!(runtime.put("/api/2/things/lab:none", &thing(json!({"inputs": [7]}))), 201);
    put("off", "environment/properties/x", 30);
    assert_eq!(
        runtime.properties("lab:off", "judge", |verdict| verdict["label"] == "high")["model"],
        "m"
    );
    assert!(runtime.thing("lab:none")["features"]["judge"].is_null());
}

#[test]
fn a_twin_whose_service_was_away_is_judged_when_an_instance_registers() {
    let runtime = Runtime::start();
    model(runtime.path());
    let mut objects = judge_outside();
    objects.push(twins(1));
    runtime.apply(&objects);
    let node = Node::connect(runtime.mqtt, "node");
    node.send(1, 25);
    node.acknowledged();
    std::thread::sleep(Duration::from_millis(600));
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["environment"]["properties"]["x"], 25);
    assert!(thing["features"]["judge"].is_null(), "{thing:#}");
    let _instance = serve(&runtime);
    assert_eq!(node.verdict().1["label"], "high");
    assert_eq!(runtime.properties("lab:n-1", "judge", |_| true)["label"], "high");
}

#[test]
fn services_that_fire_each_other_end_and_are_reported() {
    let runtime = Runtime::start();
    let mut objects = judge_inside(&model(runtime.path()));
    objects.truncate(1);
    for (name, other) in [("ping", "pong"), ("pong", "ping")] {
        objects.push(json!({"kind": "Service", "metadata": {"name": name}, "spec": {
            "inputs": [format!("{other}/score")], "model": "m"}}));
    }
    runtime.apply(&objects);
    let thing = json!({"attributes": {"services": ["ping", "pong"]}});
    assert_eq!(runtime.put("/api/2/things/lab:loop", &thing), 201);
    let before = runtime.thing("lab:loop")["_revision"].as_u64().unwrap();
    let score = json!({"properties": {"score": 3}});
    assert_eq!(runtime.put("/api/2/things/lab:loop/features/ping", &score), 201);
    // One change, and as many verdicts as may follow from it, all durable with it.
    assert_eq!(runtime.thing("lab:loop")["_revision"].as_u64().unwrap(), before + 1 + 4);
    let loops = runtime.events("TriggerLoop");
    assert_eq!(loops.len(), 1, "{loops:#?}");
    assert_eq!(loops[0]["object"], "Twin/lab/loop");
}

#[test]
fn a_node_whose_boot_counter_went_back_is_reported() {
    let runtime = Runtime::start();
    let mut objects = judge_inside(&model(runtime.path()));
    objects.push(twins(1));
    runtime.apply(&objects);
    let node = Node::connect(runtime.mqtt, "node");
    for (x, boot, seq) in [(1, 7, 0), (2, 1, 0), (3, 7, 1)] {
        node.send_numbered(1, x, boot, seq);
        node.acknowledged();
    }
    assert_eq!(runtime.thing("lab:n-1")["features"]["environment"]["properties"], json!({"x": 3}));
    let old = runtime.events("OldBoot");
    assert_eq!((old.len(), &old[0]["object"]), (1, &json!("Twin/lab/n-1")), "{old:#?}");
    assert_eq!(old[0]["count"], 1);
}
