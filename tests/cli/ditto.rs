//! What people meet first of the HTTP surface: the front page, the README's commands, and requests
//! that cannot be read.

use std::process::Command;

use serde_json::Value;

use crate::support::http::request;
use crate::support::runtime::Runtime;

const SHOP: &str = "\
apiVersion: edgetwin.dev/v1alpha1
kind: Twin
metadata: {name: north-1, namespace: lab, labels: {room: north}}
spec: {}
---
apiVersion: edgetwin.dev/v1alpha1
kind: Twin
metadata: {name: south-1, namespace: lab, labels: {room: south}}
spec: {}
";

#[test]
fn the_readmes_search_finds_the_twins_of_a_room() {
    let runtime = Runtime::start();
    runtime.write("lab.yaml", SHOP);
    runtime.printed(&["apply", "-f", "lab.yaml", "--wait"]);
    let readme = include_str!("../../README.md");
    let command = readme.lines().find(|line| line.starts_with("curl ") && line.contains("search"));
    let command = command.unwrap().replace("localhost:8080", &runtime.http.to_string());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = found["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{found}");
    assert_eq!(items[0]["thingId"], "lab:north-1");
}

#[test]
fn a_query_that_is_not_encoded_is_refused_with_what_to_encode() {
    let runtime = Runtime::start();
    let path = "/api/2/search/things?filter=eq(attributes/labels/room,\"north\")";
    let (status, body) = request(runtime.http, "GET", path, b"");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]), (400, &"gateway:request.malformed".into()));
    assert!(body["description"].as_str().unwrap().contains("%22"), "{body}");
}

#[test]
fn the_front_page_says_what_is_where_and_it_is_there() {
    let runtime = Runtime::start();
    let (status, page) = request(runtime.http, "GET", "/", b"");
    assert_eq!(status, 200);
    let paths: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with('/'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(paths.len() > 5, "{page}");
    let html = include_str!("../../templates/pages/index.html");
    for path in paths {
        assert_eq!(request(runtime.http, "GET", path, b"").0, 200, "{path}");
        assert!(html.contains(&format!("href=\"{path}\"")), "{path}");
    }
    let (status, body) = request(runtime.http, "GET", "/nowhere", b"");
    assert_eq!(status, 404);
    assert!(body.contains("There is no `/nowhere`."), "{body}");
}
