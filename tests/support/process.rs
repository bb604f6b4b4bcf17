//! Processes of the real binary: such as run to their end, and such as run beside the test.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The binary under test: that of this build, or the one that `EDGETWIN_BIN` names.
fn binary() -> OsString {
    std::env::var_os("EDGETWIN_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_edgetwin").into())
}

/// The binary, without colour and without the settings of the caller.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EDGETWIN_") {
            command.env_remove(name);
        }
    }
    // As it is called where it is on the PATH.
    command.arg0("edgetwin").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// What one run of the binary gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary in the project's root.
pub(crate) fn edgetwin(arguments: &[&str]) -> Run {
    edgetwin_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments, "")
}

/// Runs the binary in a directory, with text on standard input.
pub(crate) fn edgetwin_in(directory: &Path, arguments: &[&str], stdin: &str) -> Run {
    let mut child = command()
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends at once does not read it.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that runs beside the test; it is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Lines of standard output, as they come.
    pub(crate) stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What was read from `stderr` until now.
    read: String,
}

/// Reads lines in a thread of their own, so that the process never waits for a reader.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The test may be over.
            drop(send.send(line));
        }
    });
    receive
}

impl Process {
    /// Starts the binary in the current directory.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(command().args(arguments))
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr, read: String::new() }
    }

    /// Waits for a line on standard error that begins so, and returns the rest of it.
    #[track_caller]
    pub(crate) fn line(&mut self, start: &str) -> String {
        loop {
            let Ok(line) = self.stderr.recv_timeout(PATIENCE) else {
                panic!("no line begins with `{start}`:\n{}", self.read);
            };
            self.read += &(line.clone() + "\n");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits: exit code, how long it took, and all that it wrote to standard
    /// error.
    pub(crate) fn stop(mut self) -> (Option<i32>, Duration, String) {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        let took = start.elapsed();
        while let Ok(line) = self.stderr.recv_timeout(PATIENCE) {
            self.read += &(line + "\n");
        }
        (code, took, std::mem::take(&mut self.read))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
