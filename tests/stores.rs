//! Stores of earlier versions: each one in `tests/data/stores` opens, with everything in it.
//!
//! [`a_store_is_recorded`] makes one of the version that runs; `tests/data/stores/README.md` says
//! when and how.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests assert by panicking; clippy only knows functions marked as tests"
)]

#[expect(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgetwin::testing::Op;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::board::{Board, is_interval};
use support::eventually;
use support::mqtt::Node;
use support::objects::{judge_inside, model};
use support::runtime::Runtime;

/// Where the store lies that a version wrote.
fn stores() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores")
}

/// The files below a folder, by their path in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn pack(from: &Path, to: &Path) {
    for name in files(from) {
        let target = to.join(format!("{}.gz", name.display()));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut out = GzEncoder::new(fs::File::create(target).unwrap(), Compression::best());
        out.write_all(&fs::read(from.join(name)).unwrap()).unwrap();
        out.finish().unwrap();
    }
}

fn unpack(from: &Path, to: &Path) {
    for name in files(from) {
        let target = to.join(&name).with_extension("");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        let packed = fs::File::open(from.join(name)).unwrap();
        GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// What of a store every later version must find again.
///
/// Only what is over: a runtime that opens a store goes on with what was under way.
fn contents(runtime: &Runtime, recorded: Option<&Value>) -> Value {
    json!({
        "objects": objects(runtime),
        "things": things(runtime, recorded),
        "commands": commands(runtime, recorded),
    })
}

/// What was applied, without what the runtime made of it.
fn objects(runtime: &Runtime) -> Vec<Value> {
    let list = runtime.get("/edgetwin/v1/objects");
    let mut objects = list["items"].as_array().unwrap().clone();
    for object in &mut objects {
        object.as_object_mut().unwrap().remove("status");
    }
    objects
}

/// Twins at some of their revisions: those that are recorded, or else the oldest and the newest.
fn things(runtime: &Runtime, recorded: Option<&Value>) -> Value {
    let list = runtime.get("/api/2/search/things?option=size(200)&fields=thingId,_revision");
    let mut things = serde_json::Map::new();
    for thing in list["items"].as_array().unwrap() {
        let id = thing["thingId"].as_str().unwrap();
        let last = thing["_revision"].as_u64().unwrap();
        let revisions: Vec<u64> = match recorded {
            Some(recorded) => {
                let known = recorded["things"][id].as_object().into_iter().flatten();
                known.map(|(revision, _)| revision.parse().unwrap()).collect()
            }
            None => (1..=last).filter(|n| *n <= 20 || n + 20 > last).collect(),
        };
        let at = revisions.into_iter().map(|revision| {
            let path = format!("/api/2/things/{id}?at-historical-revision={revision}");
            let (status, thing) = runtime.request("GET", &path, None);
            let thing = if status == 200 { shortened(thing) } else { json!(status) };
            (revision.to_string(), thing)
        });
        things.insert(id.to_owned(), at.collect());
    }
    things.into()
}

/// A long text is as good as its length.
fn shortened(mut thing: Value) -> Value {
    if let Some(text) = thing["attributes"]["text"].as_str() {
        thing["attributes"]["text"] = text.len().into();
    }
    thing
}

/// The commands that were over: all that there are, or those that are recorded.
fn commands(runtime: &Runtime, recorded: Option<&Value>) -> Vec<Value> {
    let list = runtime.get("/edgetwin/v1/commands");
    let over = |command: &&Value| match recorded {
        Some(recorded) => {
            let known = recorded["commands"].as_array().unwrap();
            known.iter().any(|one| one["spec"]["id"] == command["spec"]["id"])
        }
        None => ["Applied", "Rejected"].contains(&command["status"]["state"].as_str().unwrap()),
    };
    let mut commands: Vec<Value> =
        list["items"].as_array().unwrap().iter().filter(over).cloned().collect();
    for command in &mut commands {
        // A sentence, which may be put in other words.
        command["status"].as_object_mut().unwrap().remove("reason");
    }
    commands
}

#[test]
fn stores_of_every_version_open_with_everything_in_them() {
    let mut versions = 0;
    for entry in fs::read_dir(stores()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        versions += 1;
        let directory = tempfile::tempdir().unwrap();
        unpack(&folder.join("state"), &directory.path().join("state"));
        let runtime = Runtime::start_in(directory);
        let recorded = fs::read_to_string(folder.join("contents.json")).unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        let found = contents(&runtime, Some(&recorded));
        for part in ["objects", "things", "commands"] {
            assert_eq!(found[part], recorded[part], "{part} of {}", folder.display());
        }
    }
    assert!(versions > 0, "there is a store");
}

/// Nearly as long as a twin may be, so that few of them fill a segment; a text of one letter packs
/// well.
const TEXT_LEN: usize = 99_000;

#[test]
#[ignore = "writes tests/data/stores; see the README there"]
fn a_store_is_recorded() {
    let runtime = Runtime::start();
    // The examples, with three trained models.
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/quickstart");
    runtime.printed(&["apply", "-f", quickstart.to_str().unwrap(), "--wait", "--timeout", "2m"]);
    // A node with a rule, an actuator and a service, two twins without a node, a channel.
    let mut objects = judge_inside(&model(runtime.path()));
    objects.extend([
        json!({"kind": "TwinModel", "metadata": {"name": "cooled"}, "spec": {"features": {
            "environment": {"properties": {"x": {"type": "number"}}},
            "cooling": {"properties": {"fan": {"type": "boolean", "readOnly": false}}}}}}),
        json!({"kind": "Twin", "metadata": {"name": "n-1", "namespace": "lab",
            "labels": {"shelf": "top"}}, "spec": {"model": "cooled", "services": ["judge"],
            "node": {}, "transmission": {"program": "interval", "interval": "1s"}}}),
        json!({"kind": "TwinSet", "metadata": {"name": "row", "namespace": "lab",
            "labels": {"shelf": "low"}}, "spec": {"count": 2, "template": {"spec": {
            "model": "cooled", "services": ["judge"]}}}}),
        json!({"kind": "TwinAggregate", "metadata": {"name": "shelf", "namespace": "lab"}, "spec": {
            "members": {"matchExpressions": [{"key": "shelf", "operator": "Exists"}]},
            "derive": {"all/x": {"fn": "mean", "of": "environment/x"}, "all/n": {"fn": "count"}}}}),
        json!({"kind": "Channel", "metadata": {"name": "lora"},
            "spec": {"medium": "lora", "capacity": "5kbit/s"}}),
        json!({"kind": "Twin", "metadata": {"name": "deleted", "namespace": "lab"}, "spec": {}}),
        json!({"kind": "ContextRule", "metadata": {"name": "closer"}, "spec": {
            "nodes": {"matchLabels": {"shelf": "top"}}, "each": true, "priority": 10,
            "when": "verdict(\"judge\").label == \"high\"",
            "then": {"program": "interval", "interval": "200ms"}}}),
    ]);
    runtime.apply(&objects);
    runtime.printed(&["wait", "all", "-A"]);
    runtime.printed(&["delete", "twin", "deleted", "-n", "lab"]);
    runtime.explained(|_| true);

    // A rule commands a node, which obeys; then a client does, for an actuator, too.
    let mut board = Board::connect(runtime.mqtt, 7);
    board.state();
    board.read(33);
    let (_, faster) = board.command_like(is_interval(200));
    board.obey(&faster);
    let cooling = "/api/2/things/lab:n-1/features/cooling";
    assert_eq!(runtime.put(cooling, &json!({"desiredProperties": {"fan": true}})), 201);
    let (_, act) = board.command_like(|op| matches!(op, Op::Act { .. }));
    board.obey(&act);
    let transmission = "/api/2/things/lab:n-1/features/transmission/desiredProperties";
    runtime.put(transmission, &json!({"program": "interval", "interval": "700ms"}));
    let (_, refused) = board.command_like(is_interval(700));
    board.refuse(&refused, "pmin");
    runtime.explained(|node| node["command"]["status"]["state"] == "Rejected");

    // Twins that a client makes, changes and deletes.
    let free = json!({"attributes": {"floor": 1, "odd \"name\" é": [1, null, 2.5]},
        "features": {"a": {"properties": {"b": {"c": 1}}, "desiredProperties": {"b": 2}}}});
    for id in ["lab:free", "lab:deleted-too"] {
        assert_eq!(runtime.put(&format!("/api/2/things/{id}"), &free), 201);
    }
    assert_eq!(runtime.put("/api/2/things/lab:free/attributes/floor", &json!(2)), 204);
    let patch = json!({"attributes": {"floor": null}, "features": {"a": {"properties": {"b": 3}}}});
    assert_eq!(runtime.request("PATCH", "/api/2/things/lab:free", Some(&patch)).0, 204);
    let feature = "/api/2/things/lab:free/features/a";
    assert_eq!(runtime.request("DELETE", feature, None).0, 204);
    assert_eq!(runtime.request("DELETE", "/api/2/things/lab:deleted-too", None).0, 204);

    // More than a segment, so that there is a snapshot, and something behind it.
    assert_eq!(runtime.put("/api/2/things/lab:long", &json!({})), 201);
    for letter in ["a", "b"].repeat(90) {
        let text = json!({"text": letter.repeat(TEXT_LEN)});
        assert_eq!(runtime.put("/api/2/things/lab:long/attributes", &text) / 100, 2);
    }
    assert_eq!(runtime.put("/api/2/things/lab:long/attributes", &json!({"text": "short"})), 204);
    let state = runtime.path().join("state");
    eventually(|| {
        let names: Vec<String> = files(&state).iter().map(|n| n.display().to_string()).collect();
        let taken = names.iter().any(|name| name.contains("snap-"));
        if taken { Ok(()) } else { Err(names.join(" ")) }
    });
    // A node of which another one takes the place, numbered readings, verdicts.
    let node = Node::connect(runtime.mqtt, "node");
    node.send_state(1, 1);
    node.acknowledged();
    for (x, boot, seq) in [(3, 1, 0), (33, 1, 1), (4, 1, 2)] {
        node.send_numbered(1, x, boot, seq);
        node.acknowledged();
    }
    let row = json!({"properties": {"x": 21}});
    assert_eq!(runtime.put("/api/2/things/lab:row-1/features/environment", &row), 201);
    runtime.properties("lab:row-1", "judge", |verdict| verdict["label"] == "high");
    // What was under way is over or given up when nothing is committed any more.
    let status = || runtime.get("/edgetwin/v1/status")["store"].to_string();
    let mut before = status();
    eventually(|| {
        std::thread::sleep(Duration::from_secs(2));
        let now = status();
        let same = now == before;
        before.clone_from(&now);
        if same { Ok(()) } else { Err(now) }
    });

    let contents = contents(&runtime, None);
    let directory = runtime.stop();
    let target = stores().join(env!("CARGO_PKG_VERSION"));
    pack(&directory.path().join("state"), &target.join("state"));
    fs::write(target.join("contents.json"), format!("{contents:#}\n")).unwrap();
}
