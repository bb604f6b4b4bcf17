//! `get`, `describe` and `events` against a running runtime.

use expect_test::expect;
use serde_json::Value;

use crate::support::PATIENCE;
use crate::support::process::Process;
use crate::support::runtime::Runtime;
use crate::support::snapshot::snapshot;

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
        assert_eq!(runtime.printed(&["get", kind, "-n", "lab", "-o", "name"]), names);
    }
    for object in [
        &["twin", "a", "-n", "lab"][..],
        &["tw/a", "-n", "lab"],
        &["Twin/lab/a"],
        &["twin", "lab:a"],
    ] {
        assert_eq!(runtime.printed(&[&["get", "-o", "name"], object].concat()), "Twin/lab/a\n");
    }
    snapshot(
        &runtime.run(&["get", "twinz"]),
        expect![[r#"
        exit 64
        --- stderr
        error: there is no kind `twinz`

        hint: did you mean `twins`?
    "#]],
    );
    snapshot(
        &runtime.run(&["get", "twin", "a"]),
        expect![[r#"
        exit 1
        --- stderr
        error: there is no Twin/default/a

        hint: -n NAMESPACE looks in another namespace than `default`
    "#]],
    );
}

#[test]
fn labels_and_namespaces_choose() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], LAB);
    let north = runtime.run(&["get", "twins", "-A", "-l", "room in (north)", "-o", "name"]);
    assert_eq!(north.stdout, "Twin/lab/a\nTwin/lab/set-1\nTwin/lab/set-2\n");
    snapshot(
        &runtime.run(&["get", "twins"]),
        expect![[r#"
        exit 0
        --- stderr
        There are no twins in namespace `default`, but 4 in `lab`: use -n or -A.
    "#]],
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
    let watch = ["get", "twins", "-A", "-w", "-l", "room", "-o", "json"];
    let watching = Process::start(&[&watch[..], &["--server", &runtime.server]].concat());
    let next = || {
        let line = watching.stdout.recv_timeout(PATIENCE).unwrap();
        let change: Value = serde_json::from_str(&line).unwrap();
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
}
