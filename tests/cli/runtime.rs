//! A runtime of the real binary on free ports, with its state in a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Run, edgetwin_in};

/// A runtime that ends with the test.
pub(crate) struct Runtime {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub(crate) server: String,
    /// `mqtt://127.0.0.1:PORT`
    pub(crate) mqtt: String,
    /// Where its state and the test's files lie.
    pub(crate) directory: tempfile::TempDir,
}

impl Runtime {
    /// Starts one without objects and waits until it takes requests.
    pub(crate) fn start() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    fn in_directory(directory: tempfile::TempDir) -> Self {
        let free = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_edgetwin"))
            .args(["run", "--http", free, "--mqtt", free, "--eureka", free, "--state"])
            .arg(directory.path().join("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut server, mut mqtt) = (String::new(), String::new());
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("http ") {
                address.trim().clone_into(&mut server);
            }
            if let Some(address) = line.strip_prefix("mqtt ") {
                address.trim().clone_into(&mut mqtt);
            }
            if line.starts_with("ready") {
                break;
            }
        }
        assert!(server.starts_with("http://"), "{server}");
        // What it says from now on is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, server, mqtt, directory }
    }

    /// Ends it without warning and starts it again with the same state.
    pub(crate) fn restart(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        drop(self);
        Self::in_directory(directory)
    }

    /// Runs a verb against it, in its directory.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    /// The same, with text on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Run {
        let mut all = arguments.to_vec();
        all.extend(["--server", &self.server]);
        edgetwin_in(self.directory.path(), &all, stdin)
    }

    /// Writes a file into its directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
