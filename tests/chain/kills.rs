//! `kill -9` of a service and of the runtime.

use std::collections::HashSet;

use crate::support::mqtt::Node;
use crate::support::objects::{judge_inside, judge_outside, model, serve, twins};
use crate::support::runtime::Runtime;

#[test]
fn an_instance_killed_under_load_costs_no_verdict() {
    const TWINS: u32 = 16;
    let runtime = Runtime::start();
    model(runtime.path());
    let mut objects = judge_outside();
    objects.push(twins(TWINS));
    runtime.apply(&objects);
    let mut first = serve(&runtime);
    let _second = serve(&runtime);
    let node = Node::connect(runtime.mqtt, "node");
    let mut instances = HashSet::new();
    let mut killed = false;
    for round in 0..40_u32 {
        for n in 1..=TWINS {
            node.send(n, (n * 7 + round) % 40);
        }
        if round == 15 {
            // Calls are under way.
            first.kill();
            killed = true;
        }
        let mut judged = HashSet::new();
        for _ in 0..TWINS {
            let (topic, verdict) = node.verdict();
            let n: u32 = topic
                .strip_prefix("et/v1/lab/n-")
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            let wanted = if (n * 7 + round) % 40 < 20 { "low" } else { "high" };
            assert_eq!(verdict["label"], wanted, "{topic} {verdict}");
            assert!(judged.insert(n), "{topic} twice");
            if !killed {
                instances.insert(verdict["instance"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(instances.len(), 2, "both were called before one was killed");
}

#[test]
fn a_verdict_survives_and_what_was_not_judged_is_after_a_kill() {
    let runtime = Runtime::start();
    let bytes = model(runtime.path());
    let mut objects = judge_inside(&bytes);
    objects.push(twins(2));
    runtime.apply(&objects);
    let node = Node::connect(runtime.mqtt, "node");
    node.send(1, 3);
    let (_, told) = node.verdict();
    let runtime = runtime.restart();
    assert_eq!(runtime.thing("lab:n-1")["features"]["judge"]["properties"], told);

    // From here on the service is elsewhere, and not there yet.
    runtime.apply(&judge_outside());
    let node = Node::connect(runtime.mqtt, "node");
    node.send(1, 33);
    node.acknowledged();
    node.send(2, 34);
    node.acknowledged();
    let runtime = runtime.restart();
    let thing = runtime.thing("lab:n-1");
    assert_eq!(thing["features"]["environment"]["properties"]["x"], 33, "{thing:#}");
    let _instance = serve(&runtime);
    for n in 1..=2 {
        let id = format!("lab:n-{n}");
        let verdict = runtime.properties(&id, "judge", |verdict| verdict["label"] == "high");
        let revision = runtime.thing(&id)["_revision"].as_u64().unwrap();
        assert_eq!(verdict["ofRevision"].as_u64().unwrap() + 1, revision);
    }
}
