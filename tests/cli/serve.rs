//! `edgetwin serve`: registers, answers, renews, deregisters.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use serde_json::Value;

use crate::support::http;
use crate::support::objects::model;
use crate::support::process::{Process, command, edgetwin_in};
use crate::support::runtime::Runtime;
use crate::support::snapshot::snapshot;

/// A process that serves, in this directory.
fn serve(directory: &Path, arguments: &[&str]) -> Process {
    Process::spawn(command().arg("serve").args(arguments).current_dir(directory))
}

/// The instances of an application, as the runtime's registry tells them.
fn instances(runtime: &Runtime, app: &str) -> Vec<Value> {
    let address: SocketAddr = address(&runtime.eureka);
    let (status, body) = http::request(address, "GET", &format!("/eureka/apps/{app}"), b"");
    if status == 404 {
        return Vec::new();
    }
    let app: Value = serde_json::from_str(&body).unwrap();
    app["application"]["instance"].as_array().unwrap().clone()
}

fn address(url: &str) -> SocketAddr {
    let address = url.strip_prefix("http://").unwrap();
    address.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn a_served_model_registers_answers_and_deregisters_within_two_seconds() {
    let runtime = Runtime::start();
    model(runtime.path());
    let arguments = ["m.etm", "--name", "judge", "--eureka", &runtime.eureka];
    let mut served = serve(runtime.path(), &arguments);
    let at: SocketAddr = served.line("http    http://").parse().unwrap();
    served.line("registered judge as ");
    let instance = instances(&runtime, "JUDGE")[0].clone();
    assert_eq!(
        (&instance["port"]["$"], &instance["ipAddr"]),
        (&at.port().into(), &"127.0.0.1".into())
    );
    assert_eq!(instance["metadata"]["protocol"], "oip-v2");

    let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[35]}]}"#;
    let (_, answer) = http::request(at, "POST", "/v2/models/judge/infer", body.as_bytes());
    assert!(answer.contains(r#""data":["high"]"#), "{answer}");

    let (code, took, lines) = served.stop();
    assert_eq!(code, Some(0), "{lines}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(lines.contains("deregistered judge"), "{lines}");
    assert_eq!(instances(&runtime, "JUDGE").len(), 0);
}

#[test]
fn a_registry_that_forgets_is_told_again() {
    let runtime = Runtime::start();
    model(runtime.path());
    let arguments = ["j=m.etm", "--lease", "1s", "--eureka", &runtime.eureka];
    let mut served = serve(runtime.path(), &arguments);
    served.line("registered j as ");
    let id = instances(&runtime, "J")[0]["instanceId"].as_str().unwrap().to_owned();
    let path = format!("/eureka/apps/J/{id}");
    assert_eq!(http::request(address(&runtime.eureka), "DELETE", &path, b"").0, 200);
    served.line("registered j as ");
    assert_eq!(instances(&runtime, "J").len(), 1);
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn a_registry_that_is_not_there_stops_neither_the_start_nor_the_end() {
    let runtime = Runtime::start();
    model(runtime.path());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/eureka", gone.local_addr().unwrap());
    drop(gone);
    let mut served = serve(runtime.path(), &["m.etm", "--eureka", &url]);
    assert!(served.line("not registered m: ").contains("it is tried again"));
    let (code, took, lines) = served.stop();
    assert_eq!(code, Some(0), "{lines}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_cannot_be_served_is_said_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    model(directory.path());
    std::fs::write(directory.path().join("odd.etm"), "no model").unwrap();
    let serve = |arguments: &[&str]| edgetwin_in(directory.path(), arguments, "");
    snapshot(
        &serve(&["serve", "odd.etm"]),
        expect![[r#"
        exit 1
        --- stderr
        error: odd.etm cannot be served
          because this is not a model file (`edgetwin train` writes them)
    "#]],
    );
    assert_eq!(serve(&["serve", "a.etm", "b.etm", "--name", "x"]).code, 64);
    assert_eq!(serve(&["serve", "m.etm", "--eureka", "https://x/eureka"]).code, 64);
    assert_eq!(serve(&["serve", "m.etm", "--http", "0.0.0.0:0"]).code, 1);
}
