//! `run` as people and programs see it: in a terminal, in a pipe, as JSON; its log; its end.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::mqtt::Client;
use crate::support::objects::{judge_inside, model, twins};
use crate::support::process::{Process, Run, command, edgetwin_in};
use crate::support::runtime::Runtime;
use crate::support::terminal::{self, Terminal};
use crate::support::{PATIENCE, eventually, http};

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart");
const LAB: &str = "{kind: Twin, metadata: {name: desk, namespace: lab}, spec: {}}\n";

/// `run` on free ports, with its state in the directory.
fn run(directory: &Path, arguments: &[&str]) -> Command {
    let any = "127.0.0.1:0";
    let mut command = command();
    // Nodes in this process: the tests are about what is shown, not about compilers.
    command.current_dir(directory).env("CXX", "");
    command.args(["run", "--http", any, "--mqtt", any, "--eureka", any, "--state", "state"]);
    command.args(arguments);
    command
}

/// How a run ends that does not go on.
fn ended(directory: &Path, arguments: &[&str]) -> Run {
    let any = "127.0.0.1:0";
    let listen = ["run", "--http", any, "--mqtt", any, "--eureka", any, "--state", "state"];
    edgetwin_in(directory, &[&listen, arguments].concat(), "")
}

/// The address after a word, as it was shown.
fn address(screen: &str, before: &str) -> SocketAddr {
    let start = screen.find(before).unwrap() + before.len();
    let text: String =
        screen[start..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    text.parse().unwrap()
}

#[test]
fn a_terminal_shows_addresses_and_a_status_line_that_is_refreshed_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut terminal =
        Terminal::spawn(&mut run(directory.path(), &["-f", QUICKSTART, "--simulate"]));
    let figures = |screen: &str| {
        screen.contains("9 of 9 nodes online") && !screen.contains(" 0.0 verdicts/s · no anomalies")
            || screen.matches("9 of 9 nodes online").count() > 8
    };
    let screen = terminal.until(figures);
    for shown in ["http    http://127.0.0.1:", "mqtt    mqtt://", "eureka  http://", "ready   "] {
        assert!(screen.contains(shown), "{shown}: {screen}");
    }
    assert!(screen.contains("readings/s · "), "{screen}");
    let lines = screen.matches('\n').count();
    assert!(lines < 60, "the status line is written over, not below: {lines}\n{screen}");
    assert!(!screen.contains("data-anomaly-svm"), "verdicts are shown only if asked for: {screen}");
    let (status, _) = http::request(address(&screen, "http    http://"), "GET", "/health", b"");
    assert_eq!(status, 200);

    terminal.signal(Signal::INT);
    terminal.until(|screen| screen.contains("draining; Ctrl-C again ends it at once"));
    let (code, took) = terminal.end();
    assert_eq!(code, Some(0), "{}", terminal.screen());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_terminal_that_is_stopped_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["-f", QUICKSTART, "--simulate", "--show", "verdicts", "-vv"];
    let mut terminal = Terminal::spawn(&mut run(directory.path(), &arguments));
    let screen = terminal.until(|screen| screen.contains("nodes online"));
    let at = address(&screen, "http    http://");
    // Ctrl-S.
    terminal.press(b"\x13");
    let before = readings(at);
    eventually(|| match readings(at) {
        now if now > before + 150 => Ok(()),
        now => Err(now),
    });
    assert_eq!(http::request(at, "GET", "/health", b"").0, 200);
    terminal.signal(Signal::TERM);
    let (code, took) = terminal.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(6), "{took:?}");
}

fn readings(at: SocketAddr) -> u64 {
    let (_, text) = http::request(at, "GET", "/metrics", b"");
    let line = text.lines().find(|line| line.starts_with("edgetwin_readings_total ")).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_pipe_that_nobody_reads_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lab.yaml"), LAB).unwrap();
    // Each refusal is an event, and each event of another object a line: more than a pipe takes.
    let mut child = run(directory.path(), &["-f", "lab.yaml", "-o", "json", "-vv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
    let started: Value = serde_json::from_str(&first).unwrap();
    let at = started["http"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let mqtt = started["mqtt"].as_str().unwrap().strip_prefix("mqtt://").unwrap().parse().unwrap();
    let client = Client::connect(mqtt, "unknown", None, &[]);
    for n in 0..3000 {
        client.publish(&format!("et/v1/lab/none-{n}/data"), false, &Value::Null);
        client.acknowledged();
    }
    assert_eq!(http::request(at, "GET", "/health", b"").0, 200);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// All lines of a stream, until the process ends it.
fn rest(lines: &std::sync::mpsc::Receiver<String>) -> Vec<String> {
    lines.iter().collect()
}

#[test]
fn a_pipe_gets_plain_lines_and_no_flood() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(&mut run(directory.path(), &["-f", QUICKSTART, "--simulate"]));
    let at: SocketAddr = process.line("http    http://").parse().unwrap();
    process.line("ready");
    eventually(|| match readings(at) {
        now if now > 200 => Ok(()),
        now => Err(now),
    });
    let stdout = std::mem::replace(&mut process.stdout, std::sync::mpsc::channel().1);
    let (code, _, stderr) = process.stop();
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<String> = rest(&stdout);
    let all = format!("{}\n--- stderr\n{stderr}", lines.join("\n"));
    assert!(!all.contains('\x1b') && !all.contains('\r'), "{all}");
    assert!(lines.len() + stderr.lines().count() < 60, "{all}");
    for line in &lines {
        assert!(line[..20].starts_with("20") && line[..24].ends_with('Z'), "no time: {line}");
    }
}

#[test]
fn json_is_one_object_a_line_on_both_streams() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["-f", QUICKSTART, "--simulate", "-o", "json", "--show", "verdicts", "-v"];
    let mut process = Process::spawn(&mut run(directory.path(), &arguments));
    let mut lines: Vec<Value> = Vec::new();
    let has = |lines: &[Value], kind: &str| lines.iter().any(|line| line["type"] == kind);
    while !["started", "event", "status", "verdict"].iter().all(|kind| has(&lines, kind)) {
        let line = process.stdout.recv_timeout(PATIENCE).unwrap();
        lines.push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")));
    }
    assert_eq!(lines[0]["type"], "started");
    let verdict = lines.iter().find(|line| line["type"] == "verdict").unwrap();
    assert!(verdict["verdict"]["label"].is_string(), "{verdict}");
    let status = lines.iter().find(|line| line["type"] == "status").unwrap();
    assert!(status["nodesOnline"].is_number(), "{status}");
    let stdout = std::mem::replace(&mut process.stdout, std::sync::mpsc::channel().1);
    let (code, _, stderr) = process.stop();
    assert_eq!(code, Some(0), "{stderr}");
    let last: Value = rest(&stdout)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .rfind(|line: &Value| line["type"] == "stopping")
        .unwrap();
    assert!(last["time"].is_string());
    assert!(!stderr.is_empty(), "-v logs what goes as intended");
    for line in stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

/// What is written to stderr while 50 readings of an unknown node are refused.
fn log_of_refusals(arguments: &[&str], filters: Option<&str>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = run(directory.path(), &[arguments, &["-o", "json"]].concat());
    if let Some(filters) = filters {
        command.env("EDGETWIN_LOG", filters);
    }
    let process = Process::spawn(&mut command);
    let started = process.stdout.recv_timeout(PATIENCE).unwrap();
    let started: Value = serde_json::from_str(&started).unwrap();
    let mqtt = started["mqtt"].as_str().unwrap().strip_prefix("mqtt://").unwrap().parse().unwrap();
    let client = Client::connect(mqtt, "unknown", None, &[]);
    for n in 0..50 {
        client.publish("et/v1/lab/none/data", false, &n.into());
        client.acknowledged();
    }
    let (code, _, stderr) = process.stop();
    assert_eq!(code, Some(0), "{stderr}");
    stderr
}

#[test]
fn a_failure_is_logged_once_with_its_remedy_and_then_counted() {
    let text = log_of_refusals(&["--log-format", "text"], None);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(" WARN ") && lines[0].contains("remedy="), "{text}");
    assert!(lines[1].contains("(49 more in "), "{text}");
}

#[test]
fn levels_work() {
    let levels = |text: &str| {
        let levels = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["level"].as_str().unwrap().to_owned()
        });
        levels.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(log_of_refusals(&["-q"], None), "");
    assert_eq!(levels(&log_of_refusals(&["-v"], None)), "INFO WARN");
    assert_eq!(levels(&log_of_refusals(&["-vv"], None)), "DEBUG INFO WARN");
    assert_eq!(log_of_refusals(&[], Some("error")), "");
    assert_eq!(levels(&log_of_refusals(&[], Some("edgetwin=debug"))), "DEBUG INFO WARN");
    assert_eq!(log_of_refusals(&["-q"], Some("trace")), "", "a flag outranks the variable");

    let directory = tempfile::tempdir().unwrap();
    let mut command = run(directory.path(), &[]);
    let wrong = command.env("EDGETWIN_LOG", "edgetwin=loud").output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("EDGETWIN_LOG cannot be read"));
}

#[test]
fn the_first_signal_drains_and_the_second_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::spawn(&mut run(directory.path(), &[]));
    let screen = terminal.until(|screen| screen.contains("ready"));
    let at = address(&screen, "http    http://");
    // A request that never ends, for which the drain waits.
    let mut request = TcpStream::connect(at).unwrap();
    let head = format!("PUT /api/2/things/lab:x HTTP/1.1\r\nhost: {at}\r\n");
    write!(request, "{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{")
        .unwrap();
    // It is being served once another one on a later connection is.
    assert_eq!(http::request(at, "GET", "/health", b"").0, 200);
    terminal.signal(Signal::INT);
    terminal.until(|screen| screen.contains("draining"));
    terminal.signal(Signal::INT);
    let (code, took) = terminal.end();
    assert_eq!(code, Some(130), "{}", terminal.screen());
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_serial_line_that_is_a_mistake_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lab.yaml"), LAB).unwrap();
    let (_keyboard, _line, name) = terminal::open();
    let line = |twin: &str| format!("{name}={twin}");
    for (arguments, code, why) in [
        (vec!["--serial", "/dev/null=lab/desk"], 64, "/dev/null is not a serial line"),
        (vec!["--serial", &line("lab/desk"), "--serial", &line("lab/b")], 64, "is given twice"),
        (
            vec!["--serial", &line("lab/desk"), "--serial", "/dev/none=lab/desk"],
            64,
            "`lab/desk` has a serial line already",
        ),
        (vec!["--serial", &line("lab/dask")], 1, "there is no twin `lab/dask`"),
        (vec!["--serial", "/dev/ttyACM0"], 64, "write DEVICE=NAMESPACE/NAME"),
    ] {
        let run = ended(directory.path(), &[&["-f", "lab.yaml"], &arguments[..]].concat());
        assert_eq!(run.code, code, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(why), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn a_serial_line_that_is_missing_is_shown_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lab.yaml"), LAB).unwrap();
    let device = directory.path().join("line");
    let serial = format!("{}=lab/desk", device.display());
    let mut process =
        Process::spawn(&mut run(directory.path(), &["-f", "lab.yaml", "--serial", &serial]));
    let at = process.line("http    http://").parse().unwrap();
    assert!(process.line("serial  ").contains("not there yet"));
    let events = || {
        let (_, text) = http::request(at, "GET", "/edgetwin/v1/events", b"");
        text
    };
    eventually(|| {
        let text = events();
        if text.contains("SerialLineUnavailable") { Ok(()) } else { Err(text) }
    });
    let (_keyboard, _line, name) = terminal::open();
    std::os::unix::fs::symlink(name, &device).unwrap();
    eventually(|| {
        let text = events();
        if text.contains("SerialLineOpen") { Ok(()) } else { Err(text) }
    });
    let (code, _, stderr) = process.stop();
    assert_eq!(code, Some(0), "{stderr}");
    let of_line = |line: &&str| line.contains("SerialLineUnavailable");
    let warned: Vec<&str> = stderr.lines().filter(of_line).collect();
    assert!(warned[0].contains("cannot be opened: No such file"), "{stderr}");
    assert!(warned[0].contains("remedy="), "{stderr}");
    assert!(warned.len() <= 2, "{stderr}");
}

#[test]
fn verdicts_are_shown_if_they_are_asked_for() {
    let runtime = Runtime::start_with(&["--show", "verdicts"]);
    let file = model(runtime.path());
    let mut objects = judge_inside(&file);
    objects.push(twins(1));
    runtime.apply(&objects);
    eventually(|| {
        let environment = json!({"properties": {"x": 35}});
        let put = runtime.put("/api/2/things/lab:n-1/features/environment", &environment);
        if put == 204 || put == 201 { Ok(()) } else { Err(put) }
    });
    let line = eventually(|| {
        runtime.put("/api/2/things/lab:n-1/features/environment/properties/x", &36.into());
        runtime.process.stdout.try_recv()
    });
    assert!(line.contains("lab:n-1") && line.contains("judge") && line.contains("high"), "{line}");
}
