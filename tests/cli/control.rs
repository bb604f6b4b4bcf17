//! The control API, as a program would use it: raw requests to a running runtime.

use std::io::Read;

use serde_json::{Value, json};

use crate::support::http;
use crate::support::runtime::Runtime;

/// Status and body of one request.
fn ask(runtime: &Runtime, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let (status, body) = http::request(runtime.http, method, &at(path), body);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn at(path: &str) -> String {
    format!("/edgetwin/v1{path}")
}

fn apply(runtime: &Runtime, path: &str, body: &Value) -> (u16, Value) {
    ask(runtime, "POST", path, body.to_string().as_bytes())
}

#[test]
fn every_error_is_json_with_a_code() {
    let runtime = Runtime::start();
    let code = |method: &str, path: &str, body: &str| {
        let (status, body) = ask(&runtime, method, path, body.as_bytes());
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let bad = || (400, "bad-request".to_owned());
    let missing = || (404, "not-found".to_owned());
    assert_eq!(code("GET", "/nothing", ""), missing());
    assert_eq!(code("GET", "/objects/Twin/lab/a", ""), missing());
    assert_eq!(code("DELETE", "/objects/Twin/lab/a", ""), missing());
    assert_eq!(code("GET", "/objects/things", ""), (404, "unknown-kind".to_owned()));
    assert_eq!(code("GET", "/objects?labelSelector=a%20b", ""), bad());
    assert_eq!(code("GET", "/objects?made=perhaps", ""), bad());
    assert_eq!(code("POST", "/apply", "{"), bad());
    assert_eq!(code("POST", "/apply", "[]"), bad());
    assert_eq!(code("POST", "/apply", r#"{"documents": [], "dryrun": true}"#), bad());
    assert_eq!(code("POST", "/apply", r#"{"documents": [], "prune": true}"#), bad());
    assert_eq!(code("POST", "/wait", r#"{"objects": [], "for": "x=y", "timeoutMs": 1}"#), bad());
    assert_eq!(code("PUT", &format!("/artefacts/{}", "0".repeat(64)), "x"), bad());
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let runtime = Runtime::start();
    let large = vec![b' '; (16 << 20) + 1];
    assert_eq!(ask(&runtime, "POST", "/apply", &large).0, 413);
}

#[test]
fn mistakes_come_with_their_object_and_change_nothing() {
    let runtime = Runtime::start();
    let documents = json!({"documents": [
        {"kind": "Twin", "metadata": {"name": "a"}, "spec": {}},
        {"kind": "Twin", "metadata": {"name": "b"}, "spec": {"modell": "x"}},
    ]});
    let (status, answer) = apply(&runtime, "/apply", &documents);
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("invalid")));
    let diagnostic = &answer["error"]["diagnostics"][0];
    assert_eq!(diagnostic["code"], "ET0104");
    assert_eq!(diagnostic["file"], "Twin/default/b");
    assert_eq!(ask(&runtime, "GET", "/objects", b"").1["items"], json!([]));
}

#[test]
fn an_object_is_planned_applied_read_and_deleted() {
    let runtime = Runtime::start();
    let documents = json!({"documents": [{"kind": "Twin", "metadata": {"name": "a"}, "spec": {}}]});
    let (status, plan) = apply(&runtime, "/plan", &documents);
    assert_eq!(
        (status, &plan["dryRun"], &plan["summary"]["create"]),
        (200, &json!(true), &json!(1))
    );
    let mut with_base = documents.clone();
    with_base["base"] = plan["base"].clone();
    assert_eq!(apply(&runtime, "/apply", &with_base).0, 200);
    assert_eq!(apply(&runtime, "/apply", &with_base).0, 409);
    let key = json!({"kind": "Twin", "namespace": "default", "name": "a"});
    let wait = json!({"objects": [key], "for": "Ready", "timeoutMs": 10_000});
    assert_eq!(apply(&runtime, "/wait", &wait).1["waiting"], json!([]));
    let object = ask(&runtime, "GET", "/objects/twins/default/a", b"").1;
    assert_eq!(object["status"]["thing"]["thingId"], "default:a");
    assert_eq!(ask(&runtime, "DELETE", "/objects/Twin/default/a", b"").0, 202);
    let wait = json!({"objects": [key], "for": "Deleted", "timeoutMs": 10_000});
    assert_eq!(apply(&runtime, "/wait", &wait).1["waiting"], json!([]));
    assert_eq!(ask(&runtime, "GET", "/objects/Twin/default/a", b"").0, 404);
}

#[test]
fn events_are_streamed_as_they_happen() {
    let runtime = Runtime::start();
    let mut stream = http::send(runtime.http, "GET", &at("/events?watch=true"), b"");
    let service = json!({"documents": [{"kind": "Service", "metadata": {"name": "judge"},
        "spec": {"external": true, "inputs": ["f/x"]}}]});
    assert_eq!(apply(&runtime, "/apply", &service).0, 200);
    let mut text = String::new();
    let mut part = [0; 4096];
    while !text.contains("NoHealthyInstance") {
        let len = stream.read(&mut part).unwrap();
        assert_ne!(len, 0, "{text}");
        text += &String::from_utf8_lossy(&part[..len]);
    }
    assert!(text.contains("text/event-stream"), "{text}");
}

#[test]
fn status_and_version_say_how_and_what_it_is() {
    let runtime = Runtime::start();
    let status = ask(&runtime, "GET", "/status", b"").1;
    assert_eq!(status["store"]["durability"], "synced");
    assert_eq!(status["store"]["readOnly"], Value::Null);
    assert_eq!(ask(&runtime, "GET", "/version", b"").1["name"], "edgetwin");
}
