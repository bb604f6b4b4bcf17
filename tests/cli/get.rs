//! `get`, `describe` and `events` against a running runtime.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::expect;
use crate::runtime::Runtime;

const LAB: &str = "\
kind: Twin
metadata: {name: a, namespace: lab, labels: {room: north}}
spec: {attributes: {floor: 2}}
---
kind: Twin
metadata: {name: b, namespace: lab, labels: {room: south}}
spec: {}
---
kind: TwinSet
metadata: {name: set, namespace: lab, labels: {room: north}}
spec: {count: 2, template: {spec: {}}}
";

#[test]
fn kinds_have_three_names_and_objects_three_spellings() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let names = "Twin/lab/a\nTwin/lab/b\nTwin/lab/set-1\nTwin/lab/set-2\n";
    for kind in ["twins", "twin", "tw", "Twin"] {
        expect(&runtime.run(&["get", kind, "-n", "lab", "-o", "name"]), 0, names, "");
    }
    for object in [
        &["twin", "a", "-n", "lab"][..],
        &["tw/a", "-n", "lab"],
        &["Twin/lab/a"],
        &["twin", "lab:a"],
    ] {
        let mut arguments = vec!["get", "-o", "name"];
        arguments.extend(object);
        expect(&runtime.run(&arguments), 0, "Twin/lab/a\n", "");
    }
    expect(
        &runtime.run(&["get", "twinz"]),
        64,
        "",
        "error: there is no kind `twinz`\n\nhint: did you mean `twins`?\n",
    );
    expect(
        &runtime.run(&["get", "twin", "a"]),
        1,
        "",
        "error: there is no Twin/default/a\n\n\
         hint: -n NAMESPACE looks in another namespace than `default`\n",
    );
}

#[test]
fn labels_and_namespaces_choose() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let north = runtime.run(&["get", "twins", "-A", "-l", "room in (north)", "-o", "name"]);
    assert_eq!(north.stdout, "Twin/lab/a\nTwin/lab/set-1\nTwin/lab/set-2\n");
    expect(
        &runtime.run(&["get", "twins"]),
        0,
        "",
        "There are no twins in namespace `default`, but 4 in `lab`: use -n or -A.\n",
    );
    assert_eq!(runtime.run(&["get", "twins", "-l", "a b"]).code, 64);
}

#[test]
fn tables_are_for_people_and_json_for_programs() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let table = runtime.run(&["get", "twins", "-A"]).stdout;
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("NAMESPACE  NAME   READY  REVISION  UPDATED  VERDICTS  AGE"));
    assert!(lines.all(|line| line.starts_with("lab        ") && line.contains("True")));
    let wide = runtime.run(&["get", "twins", "-A", "-o", "wide"]).stdout;
    assert!(wide.contains("TwinSet/lab/set"), "{wide}");
    let list = runtime.run(&["get", "twins", "-A", "-o", "json"]).stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["kind"], "List");
    let first = &list["items"][0];
    assert_eq!(first["apiVersion"], "edgetwin.dev/v1alpha1");
    assert_eq!(first["spec"]["attributes"]["floor"], 2);
    assert_eq!(first["status"]["thing"]["thingId"], "lab:a");
    assert_eq!(first["status"]["conditions"][0]["status"], "True");
    let one = runtime.run(&["get", "twin/lab/a", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["kind"], "Twin");
}

#[test]
fn describe_tells_all_about_an_object() {
    let runtime = Runtime::start();
    let service = "kind: Service\nmetadata: {name: judge, labels: {a: b}}\n\
                   spec: {external: true, inputs: [f/x]}\n";
    runtime.run_with(&["apply", "-"], service);
    let wait = ["wait", "svc/judge", "--for=condition=Ready=False", "--timeout", "5s"];
    assert_eq!(runtime.run(&wait).code, 0);
    let text = runtime.run(&["describe", "svc", "judge"]).stdout;
    for part in [
        "Kind:        Service\nName:        judge\nNamespace:   default\nLabels:      a=b\n",
        "Generation:  1 (observed: 1)\n",
        "Instances:   0\nHealthy:     0\n",
        "Spec:\n  external: true\n  inputs:\n  - f/x\n",
        "NoHealthyInstance: no instance is registered\n",
        "Events:\n",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
    let events = runtime.run(&["events", "--warnings", "-o", "json"]).stdout;
    let events: Value = serde_json::from_str(&events).unwrap();
    assert_eq!(events["items"][0]["reason"], "NoHealthyInstance");
    assert_eq!(events["items"][0]["object"], "Service/default/judge");
}

#[test]
fn watching_shows_what_is_and_then_what_changes() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let mut watching = Command::new(env!("CARGO_BIN_EXE_edgetwin"))
        .args(["get", "twins", "-A", "-w", "-l", "room", "-o", "json", "--server", &runtime.server])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || {
        let change: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let name = change["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        (change["type"].as_str().unwrap().to_owned(), name, change)
    };
    let added: Vec<String> =
        (0..4).map(|_| next()).map(|(kind, name, _)| kind + name.as_str()).collect();
    assert_eq!(added, ["ADDEDa", "ADDEDb", "ADDEDset-1", "ADDEDset-2"]);
    runtime.run_with(&["apply", "-", "--wait"], &LAB.replace("floor: 2", "floor: 3"));
    let change = loop {
        let (kind, name, change) = next();
        assert_eq!((kind.as_str(), name.as_str()), ("MODIFIED", "a"), "{change:#}");
        if change["object"]["status"]["observedGeneration"] == 2 {
            break change;
        }
    };
    assert_eq!(change["object"]["spec"]["attributes"]["floor"], 3);
    runtime.run(&["delete", "twin", "b", "-n", "lab"]);
    while next().0 != "DELETED" {}
    watching.kill().unwrap();
    watching.wait().unwrap();
}
