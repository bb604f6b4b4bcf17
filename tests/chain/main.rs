//! The whole chain through the real binary: nodes are MQTT clients, twins are read over HTTP,
//! services run in the runtime or in processes of their own, and processes are killed.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests assert by panicking; clippy only knows functions marked as tests"
)]

mod bench;
mod control;
mod kills;
mod mqtt;
mod verdicts;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use edgetwin::reconcile::disk::digest_of;
use serde_json::{Value, json};

/// Long enough for a machine that does something else beside it.
const PATIENCE: Duration = Duration::from_secs(30);

fn edgetwin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgetwin"));
    command.env_remove("EDGETWIN_SERVER").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A process that says where it is; killed when it is dropped.
struct Process {
    child: Child,
    said: Receiver<String>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = edgetwin().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, said) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may be over.
                drop(tell.send(line));
            }
        });
        Self { child, said }
    }

    /// The rest of the first line that begins so.
    fn says(&self, start: &str) -> String {
        let mut lines = String::new();
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(line) => match line.strip_prefix(start) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => lines += &(line + "\n"),
                },
                Err(_) => panic!("it did not say `{start}`:\n{lines}"),
            }
        }
    }

    /// As the power cord does it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already over, as a rule.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A runtime on free ports.
struct Runtime {
    process: Process,
    http: SocketAddr,
    mqtt: SocketAddr,
    eureka: String,
}

impl Runtime {
    fn start(directory: &Path) -> Self {
        Self::start_at(directory, "127.0.0.1:0")
    }

    fn start_at(directory: &Path, eureka: &str) -> Self {
        let state = directory.join("state");
        let any = "127.0.0.1:0";
        let process = Process::start(&[
            "run",
            "--state",
            state.to_str().unwrap(),
            "--http",
            any,
            "--mqtt",
            any,
            "--eureka",
            eureka,
        ]);
        let http = process.says("http    http://").parse().unwrap();
        let mqtt = process.says("mqtt    mqtt://").parse().unwrap();
        let eureka = process.says("eureka ");
        process.says("ready");
        Self { process, http, mqtt, eureka }
    }

    fn apply(&self, directory: &Path, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        let path = directory.join("chain.yaml");
        std::fs::write(&path, text.concat()).unwrap();
        let server = format!("http://{}", self.http);
        let apply = edgetwin()
            .args(["apply", "-f", path.to_str().unwrap(), "--server", &server])
            .output()
            .unwrap();
        assert!(apply.status.success(), "{}", String::from_utf8_lossy(&apply.stderr));
    }

    /// Status and body of a request.
    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body) = self.request_text(method, path, body);
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn metrics(&self) -> String {
        self.request_text("GET", "/metrics", None).1
    }

    fn request_text(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.http,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn put(&self, path: &str, body: &Value) -> u16 {
        self.request("PUT", path, Some(body)).0
    }

    fn thing(&self, id: &str) -> Value {
        let fields = "thingId,attributes,features,_revision";
        self.request("GET", &format!("/api/2/things/{id}?fields={fields}"), None).1
    }

    /// The verdict in the twin, once `wanted` holds for it.
    fn verdict(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let thing = self.thing(id);
            let verdict = &thing["features"]["judge"]["properties"];
            if !verdict.is_null() && wanted(verdict) {
                return verdict.clone();
            }
            assert!(Instant::now() < deadline, "{thing:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Trains a model that says `low` below 20 and `high` from there, as `m.etm`.
fn model(directory: &Path) -> Vec<u8> {
    let rows = (0..40).map(|i| format!("{i},{}\n", if i < 20 { "low" } else { "high" }));
    let csv = directory.join("rows.csv");
    std::fs::write(&csv, "x,label\n".to_owned() + &rows.collect::<String>()).unwrap();
    let path = directory.join("m.etm");
    let arguments = ["--target", "label", "-o", path.to_str().unwrap()];
    assert!(edgetwin().arg("train").arg(csv).args(arguments).status().unwrap().success());
    std::fs::read(path).unwrap()
}

/// The service `judge` in the runtime itself.
fn judge_inside(model: &[u8]) -> Vec<Value> {
    let digest = format!("sha256:{}", digest_of(model));
    vec![
        json!({"kind": "Model", "metadata": {"name": "m"}, "spec": {
            "classifier": "forest", "file": "m.etm", "digest": digest}}),
        json!({"kind": "Service", "metadata": {"name": "judge"}, "spec": {
            "inputs": ["environment/x"], "model": "m"}}),
    ]
}

/// The service `judge` that registers from outside.
fn judge_outside() -> Vec<Value> {
    vec![json!({"kind": "Service", "metadata": {"name": "judge"}, "spec": {
        "inputs": ["environment/x"], "external": true}})]
}

/// An instance of `judge` in a process of its own, registered.
fn serve(directory: &Path, runtime: &Runtime) -> Process {
    let file = directory.join("m.etm");
    let process = Process::start(&[
        "serve",
        file.to_str().unwrap(),
        "--name",
        "judge",
        "--eureka",
        &runtime.eureka,
        "--lease",
        "3s",
    ]);
    process.says("registered judge");
    process
}

/// Twins `lab:n-1`… that name the service.
fn twins(count: u32) -> Value {
    json!({"kind": "TwinSet", "metadata": {"name": "n", "namespace": "lab"}, "spec": {
        "count": count, "template": {"spec": {"services": ["judge"]}}}})
}
