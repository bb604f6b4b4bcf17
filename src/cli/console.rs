//! What a verb shows while it goes on: lines, and on a terminal a status line below them.
//!
//! Threads of their own write, behind bounded queues. A terminal that is stopped with Ctrl-S, a
//! pager, a pipe that nobody reads: lines are dropped and counted, and what serves goes on.
//!
//! On a terminal one thread writes both streams, so that lines go above the status line; otherwise
//! each stream has its own, and one that nobody reads does not hold up the other.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::{CliError, ErrorKind as Kind};
use crate::base::telemetry::log::Log;

/// Lines that wait for a slow reader; further ones are dropped. Why: a few pages of a terminal.
const LINES_MAX: usize = 1024;
/// How long the end waits for a reader that does not read.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// How often folded messages are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Which stream a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

enum Item {
    Line(Stream, Vec<u8>),
    Status(String),
    End(SyncSender<()>),
}

/// Takes lines without ever waiting.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    out: SyncSender<Item>,
    err: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// A line for stdout.
    pub(super) fn out(&self, text: &[u8]) {
        self.put(Stream::Out, text);
    }

    /// A line for stderr.
    pub(super) fn err(&self, text: &[u8]) {
        self.put(Stream::Err, text);
    }

    fn put(&self, stream: Stream, text: &[u8]) {
        let lane = if stream == Stream::Out { &self.out } else { &self.err };
        if lane.try_send(Item::Line(stream, text.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

/// See the module.
pub(super) struct Console {
    lines: Lines,
    log: Log,
    /// Whether there is a status line.
    status: bool,
}

impl Console {
    /// Starts the threads and has the log write through them.
    ///
    /// * `status`: whether a status line is wanted; there is one only on a terminal.
    pub(super) fn start(log: &Log, status: bool) -> Result<Self, CliError> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal() && !dumb;
        let dropped = Arc::new(AtomicU64::new(0));
        let start = |name: &str, lane: Lane, items: Receiver<Item>| {
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn(move || lane.run(&items)).map(drop).map_err(|error| {
                CliError::new(Kind::Failed, "a thread could not be started").because(&error)
            })
        };
        let lane = |bar: Option<ProgressBar>, ticks: bool| Lane {
            bar,
            ticks: ticks.then(|| log.clone()),
            dropped: dropped.clone(),
            closed: false,
        };
        let (err, items) = sync_channel(LINES_MAX);
        let status = status && terminal;
        let out = if terminal {
            let bar = status.then(|| {
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(
                    // The template is a constant that indicatif takes.
                    ProgressStyle::with_template("{wide_msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_spinner()),
                )
            });
            start("terminal", lane(bar, true), items)?;
            err.clone()
        } else {
            start("stderr", lane(None, true), items)?;
            let (out, items) = sync_channel(LINES_MAX);
            start("stdout", lane(None, false), items)?;
            out
        };
        let lines = Lines { out, err, dropped };
        let sink = lines.clone();
        log.redirect(move |line| sink.err(line));
        Ok(Self { lines, log: log.clone(), status })
    }

    /// Takes lines.
    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Whether there is a status line.
    pub(super) fn has_status(&self) -> bool {
        self.status
    }

    /// Replaces the status line.
    pub(super) fn status(&self, text: String) {
        // One that a slow terminal misses is replaced by the next.
        drop(self.lines.err.try_send(Item::Status(text)));
    }

    /// Writes what waits and takes the status line away; whether all of it was taken in time.
    pub(super) fn end(self) -> bool {
        self.log.finish();
        let lanes = [&self.lines.err, &self.lines.out];
        let until = Instant::now() + END_TIMEOUT;
        let mut ended = Vec::new();
        for lane in lanes {
            let (done, waiting) = sync_channel(1);
            let mut item = Item::End(done);
            loop {
                match lane.try_send(item) {
                    Err(TrySendError::Full(back)) if Instant::now() < until => item = back,
                    _ => break,
                }
                thread::park_timeout(Duration::from_millis(10));
            }
            ended.push(waiting);
        }
        let all = ended.iter().all(|waiting| {
            let left = until.saturating_duration_since(Instant::now());
            // A lane that both streams share ends once; its second end is dropped with it.
            !matches!(waiting.recv_timeout(left), Err(RecvTimeoutError::Timeout))
        });
        if all {
            self.log.direct();
        }
        all
    }
}

/// One thread's part.
struct Lane {
    bar: Option<ProgressBar>,
    ticks: Option<Log>,
    dropped: Arc<AtomicU64>,
    /// The reader of stdout went away.
    closed: bool,
}

impl Lane {
    fn run(mut self, items: &Receiver<Item>) {
        let mut ticked = Instant::now();
        loop {
            match items.recv_timeout(TICK) {
                Ok(Item::Line(stream, text)) => self.write(stream, &text),
                Ok(Item::Status(text)) => {
                    if let Some(bar) = &self.bar {
                        bar.set_message(text);
                    }
                }
                Ok(Item::End(done)) => {
                    if let Some(bar) = &self.bar {
                        bar.finish_and_clear();
                    }
                    if done.send(()).is_err() {
                        tracing::debug!("the console ended later than it was waited for");
                    }
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(log) = self.ticks.as_ref().filter(|_| ticked.elapsed() >= TICK) {
                ticked = Instant::now();
                log.tick(ticked);
                let lines = self.dropped.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    tracing::warn!(
                        lines,
                        remedy = "read stdout and stderr, or send them to a file",
                        "lines were dropped, because nobody read them in time"
                    );
                }
            }
        }
    }

    fn write(&mut self, stream: Stream, text: &[u8]) {
        if stream == Stream::Out && self.closed {
            return;
        }
        let write = || match stream {
            Stream::Out => put(&mut io::stdout().lock(), text),
            Stream::Err => put(&mut io::stderr().lock(), text),
        };
        let written = match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        match written {
            Err(error) if stream == Stream::Out && error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                tracing::info!("nobody reads stdout any more; the runtime goes on");
            }
            Err(error) if stream == Stream::Out => {
                let remedy = "make room, or start it with another stdout";
                tracing::warn!(%error, remedy, "a line could not be written to stdout");
            }
            // There is no other place for it.
            Ok(()) | Err(_) => {}
        }
    }
}

fn put(to: &mut dyn Write, text: &[u8]) -> io::Result<()> {
    to.write_all(text)?;
    to.flush()
}
