//! A runtime of the real binary on free ports, with its state in a directory of its own.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, Run, edgetwin_in};
use super::{eventually, http};

/// It is killed, and its directory removed, when it is dropped.
pub(crate) struct Runtime {
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    /// `http://127.0.0.1:PORT/eureka`
    pub(crate) eureka: String,
    /// `http://127.0.0.1:PORT`
    pub(crate) server: String,
    directory: TempDir,
}

impl Runtime {
    /// Starts one without objects and waits until it takes requests.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts one with further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_all(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts one whose state is in `state` of the directory.
    pub(crate) fn start_in(directory: TempDir) -> Self {
        Self::start_all(directory, &[])
    }

    fn start_all(directory: TempDir, arguments: &[&str]) -> Self {
        let state = directory.path().join("state");
        let any = "127.0.0.1:0";
        let listen = &["run", "--http", any, "--mqtt", any, "--eureka", any][..];
        let mut process = Process::start(
            &[listen, &["--state", state.to_str().unwrap()][..], arguments].concat(),
        );
        let http = process.line("http    http://").parse().unwrap();
        let mqtt = process.line("mqtt    mqtt://").parse().unwrap();
        let eureka = process.line("eureka ");
        process.line("ready");
        Self { process, http, mqtt, eureka, server: format!("http://{http}"), directory }
    }

    /// Ends it without warning and starts it again with the same state.
    pub(crate) fn restart(mut self) -> Self {
        self.process.kill();
        Self::start_in(self.directory)
    }

    /// Asks it to stop, and returns its directory.
    pub(crate) fn stop(self) -> TempDir {
        let (code, _, lines) = self.process.stop();
        assert_eq!(code, Some(0), "{lines}");
        self.directory
    }

    /// Its directory: the state is in it, and the files of the test.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into its directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs a verb against it, in its directory.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    /// The same, with text on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Run {
        let all = [arguments, &["--server", &self.server]].concat();
        edgetwin_in(self.path(), &all, stdin)
    }

    /// Standard output of a verb that must succeed.
    #[track_caller]
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
        run.stdout
    }

    /// Applies objects; it does not wait until they are ready.
    #[track_caller]
    pub(crate) fn apply(&self, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        self.write("objects.yaml", &text.concat());
        self.printed(&["apply", "-f", "objects.yaml"]);
    }

    /// Status and body of a request; null where the body is not JSON.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, body) = http::request(self.http, method, path, body.as_bytes());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.request("GET", path, None).1
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> u16 {
        self.request("PUT", path, Some(body)).0
    }

    pub(crate) fn metrics(&self) -> String {
        http::request(self.http, "GET", "/metrics", b"").1
    }

    pub(crate) fn thing(&self, id: &str) -> Value {
        let fields = "thingId,attributes,features,_revision";
        self.get(&format!("/api/2/things/{id}?fields={fields}"))
    }

    /// Waits until the properties of a feature are as wanted, and returns them.
    #[track_caller]
    pub(crate) fn properties(
        &self,
        id: &str,
        feature: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(|| {
            let thing = self.thing(id);
            let properties = &thing["features"][feature]["properties"];
            let found = !properties.is_null() && wanted(properties);
            if found { Ok(properties.clone()) } else { Err(thing) }
        })
    }

    /// Waits until the explanation of `lab/n-1` is as wanted, and returns it.
    #[track_caller]
    pub(crate) fn explained(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| {
            let (status, explained) =
                self.request("GET", "/edgetwin/v1/explain/node/lab/n-1", None);
            if status == 200 && wanted(&explained) { Ok(explained) } else { Err(explained) }
        })
    }

    /// The events of this reason.
    pub(crate) fn events(&self, reason: &str) -> Vec<Value> {
        let events = self.get("/edgetwin/v1/events");
        let events = events["items"].as_array().unwrap().iter();
        events.filter(|event| event["reason"] == reason).cloned().collect()
    }

    /// Waits until there is an event of this reason, and returns the newest.
    #[track_caller]
    pub(crate) fn event(&self, reason: &str) -> Value {
        eventually(|| self.events(reason).pop().ok_or(reason))
    }
}
