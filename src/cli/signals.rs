//! Signals that ask a verb that goes on to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::{CliError, ErrorKind};

/// SIGINT and SIGTERM, one after the other.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on signals are awaited and end the process no more.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> Result<Self, CliError> {
        let signals = |kind| {
            signal(kind).map_err(|error| {
                CliError::new(ErrorKind::Failed, "signals cannot be awaited").because(&error)
            })
        };
        Ok(Self {
            interrupt: signals(SignalKind::interrupt())?,
            terminate: signals(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
