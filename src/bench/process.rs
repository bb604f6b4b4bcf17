//! The processes that a benchmark starts, and what the system says about them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Error, failed};

/// Time for a process to say that it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a process to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for an answer over HTTP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A directory that is removed when it is dropped.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Makes a directory of its own in `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self, Error> {
        remove_abandoned(parent)?;
        let path = parent.join(format!("{DIRECTORY_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|error| failed(format!("{} cannot be made: {error}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(
                %error,
                path = %self.0.display(),
                remedy = "remove it",
                "a temporary directory is left"
            );
        }
    }
}

const DIRECTORY_PREFIX: &str = ".edgetwin-bench-";

/// Removes what benchmarks that were killed left in `parent`.
fn remove_abandoned(parent: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(|error| {
                failed(format!("{} cannot be removed: {error}", path.display()))
            })?;
        }
    }
    Ok(())
}

/// A process of this program, ended when it is dropped. It also ends with the thread that started
/// it, however that ends.
pub(super) struct Process {
    child: Child,
    printed: Receiver<String>,
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts `edgetwin` with `arguments`; they may not ask for anything on standard output.
    pub(super) fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Self, Error> {
        let mut child = program()?
            .args(arguments)
            .arg("--with-parent")
            // Ctrl-C is for the benchmark, which then ends its processes in order.
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("a process could not be started: {error}")))?;
        let (sender, printed) = channel();
        if let Some(stderr) = child.stderr.take() {
            // Ends with the pipe; nobody may be listening any more.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    drop(sender.send(line));
                }
            });
        }
        Ok(Self { child, printed, lines: Vec::new(), ended: false })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The rest of the first line that begins with `start`.
    pub(super) fn says(&mut self, start: &str) -> Result<String, Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.printed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let rest = line.strip_prefix(start).map(|rest| rest.trim().to_owned());
                    self.lines.push(line);
                    if let Some(rest) = rest {
                        return Ok(rest);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let lines = self.lines.join("\n");
                    return Err(failed(format!("a process did not say `{start}`:\n{lines}")));
                }
            }
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(super) fn kill(mut self) -> Result<(), Error> {
        self.ended = true;
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(|_| ()).map_err(|error| failed(format!("a process was not killed: {error}")))
    }

    /// Asks it to end and waits until it has.
    pub(super) fn end(mut self) -> Result<(), Error> {
        self.ended = true;
        let asked = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while asked.is_ok() && Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(format!("a process ended with {status}"))),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        self.ended = false;
        Err(failed("a process did not end when it was asked to"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended && (self.child.kill().is_err() || self.child.wait().is_err()) {
            tracing::warn!(
                pid = self.child.id(),
                remedy = "end it with `kill`",
                "a process may be left"
            );
        }
    }
}

/// Runs `edgetwin` to its end.
pub(super) fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Result<(), Error> {
    let output = program()?
        .args(arguments)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(format!("a process could not be started: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim()))
}

fn program() -> Result<Command, Error> {
    let path = std::env::current_exe()
        .map_err(|error| failed(format!("this program does not find itself: {error}")))?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for name in std::env::vars_os().map(|(name, _)| name) {
        if name.to_string_lossy().starts_with("EDGETWIN_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The body of a 200 answer to GET.
pub(super) fn get(server: SocketAddr, path: &str) -> Result<String, Error> {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| failed(format!("GET {path}: {error}")))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(failed(format!("GET {path}: {}", answer.lines().next().unwrap_or_default()))),
    }
}

/// The samples of a runtime's `/metrics`.
pub(super) fn metrics(server: SocketAddr) -> Result<BTreeMap<String, f64>, Error> {
    let text = get(server, "/metrics")?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Ok(pairs.collect())
}

/// Resident memory of a process, KiB.
pub(super) fn rss_kib(pid: u32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| failed(format!("{path}: {error}")))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    kib.ok_or_else(|| failed(format!("{path} does not show the memory")))
}

/// Time that a process has had of the processors, its ended children left out.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|error| failed(format!("{path}: {error}")))?;
    // The second field is a name in parentheses that may have anything in it.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    let ticks: u64 =
        fields.into_iter().flatten().skip(11).take(2).flat_map(str::parse::<u64>).sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// What a benchmark ran on.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// The processor's name.
    pub cpu: String,
    /// Main memory, MiB.
    pub memory_mib: u64,
    /// The kernel's version.
    pub kernel: String,
    /// Load of the last minute, when the run began: what else the machine was doing.
    pub load_before: f64,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        let load = file("/proc/loadavg");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: field(&file("/proc/cpuinfo"), "model name"),
            memory_mib: memory_kib / 1024,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default(),
        }
    }
}
