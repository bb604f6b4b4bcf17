//! `edgetwin serve`: registers, answers, renews, deregisters.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgetwin::registry::Registry;
use edgetwin::registry::http::{Clock, router};

use super::{edgetwin_in, expect};

fn model(directory: &Path) {
    let rows = (0..40).map(|i| format!("{i},{}\n", if i < 20 { "low" } else { "high" }));
    let csv = "x,label\n".to_owned() + &rows.collect::<String>();
    let run = edgetwin_in(directory, &["train", "-", "--target", "label", "-o", "m.etm"], &csv);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// A Eureka in this process.
fn eureka() -> (Arc<Registry>, String) {
    let registry = Arc::new(Registry::new(1));
    let served = router(Arc::clone(&registry), Clock::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/eureka", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, served).await.unwrap();
            },
        );
    });
    (registry, url)
}

struct Served {
    process: Child,
    said: BufReader<ChildStderr>,
    lines: String,
}

impl Served {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_edgetwin"))
            .arg("serve")
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        Self { process, said, lines: String::new() }
    }

    /// The rest of the first line that begins so.
    fn says(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "{start}: {}", self.lines);
            self.lines += &line;
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Asks it to stop; how long that took.
    fn stop(mut self) -> (Option<i32>, Duration, String) {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.said.read_to_string(&mut self.lines).unwrap();
        let code = self.process.wait().unwrap().code();
        (code, start.elapsed(), std::mem::take(&mut self.lines))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Already over, as a rule.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_served_model_registers_answers_and_deregisters_within_two_seconds() {
    let directory = tempfile::tempdir().unwrap();
    model(directory.path());
    let (registry, url) = eureka();
    let mut served =
        Served::start(directory.path(), &["m.etm", "--name", "judge", "--eureka", &url]);
    let address: SocketAddr = served.says("http    http://").parse().unwrap();
    served.says("registered judge as ");
    let instance = registry.read(|t| t.app("JUDGE"))[0].clone();
    assert_eq!(instance.endpoint.to_string(), address.to_string());
    assert_eq!(instance.metadata["protocol"], "oip-v2");

    let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[35]}]}"#;
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /v2/models/judge/infer HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""data":["high"]"#), "{answer}");

    let (code, took, lines) = served.stop();
    assert_eq!(code, Some(0), "{lines}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(lines.contains("deregistered judge"), "{lines}");
    assert_eq!(registry.read(|t| t.len()), 0);
}

#[test]
fn a_registry_that_forgets_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    model(directory.path());
    let (registry, url) = eureka();
    let mut served =
        Served::start(directory.path(), &["j=m.etm", "--lease", "1s", "--eureka", &url]);
    served.says("registered j as ");
    let instance = registry.read(|t| t.app("J"))[0].clone();
    assert!(registry.cancel("j", &instance.id, Clock::default().now()));
    served.says("registered j as ");
    assert_eq!(registry.read(|t| t.len()), 1);
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn a_registry_that_is_not_there_stops_neither_the_start_nor_the_end() {
    let directory = tempfile::tempdir().unwrap();
    model(directory.path());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/eureka", gone.local_addr().unwrap());
    drop(gone);
    let mut served = Served::start(directory.path(), &["m.etm", "--eureka", &url]);
    assert!(served.says("not registered m: ").contains("trying on"));
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
    expect(
        &serve(&["serve", "odd.etm"]),
        1,
        "",
        "error: odd.etm cannot be served\n  because this is not a model file (`edgetwin train` writes \
         them)\n",
    );
    assert_eq!(serve(&["serve", "a.etm", "b.etm", "--name", "x"]).code, 64);
    assert_eq!(serve(&["serve", "m.etm", "--eureka", "https://x/eureka"]).code, 64);
    assert_eq!(serve(&["serve", "m.etm", "--http", "0.0.0.0:0"]).code, 1);
}
