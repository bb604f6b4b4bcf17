//! The log read back: what the events of one twin were, and what happened since some time.

use std::io;

use super::kind;
use crate::store;
use crate::store::disk::Disk;
use crate::store::record::Record;
use crate::twin::{Event, Twin};

/// A record of a twin's history.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryRecord {
    /// What happened.
    Event(Event),
    /// The whole twin, where a loss was accepted.
    State(Box<Twin>),
}

/// An event as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct LoggedEvent<'a>(Record<'a>);

impl LoggedEvent<'_> {
    /// The twin's ID.
    pub fn id(&self) -> &str {
        self.0.key
    }

    /// The revision that it gave.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// When, microseconds since 1970.
    pub fn time_us(&self) -> i64 {
        self.0.time_us
    }

    /// What happened; `None` if it cannot be read.
    pub fn event(&self) -> Option<Event> {
        serde_json::from_slice(self.0.payload).ok()
    }
}

/// Events of the twin, newest first, until `use_event` returns `false` or history ends.
///
/// # Errors
/// Errors of the disk; `InvalidData` where a record is damaged.
pub(super) fn of_twin(
    disk: &dyn Disk,
    twin: &Twin,
    mut use_event: impl FnMut(u64, i64, HistoryRecord) -> bool,
) -> io::Result<()> {
    let mut at = twin.tail;
    while !at.is_none() {
        let read = store::read(disk, at, |record| {
            let content = match record.kind {
                kind::EVENT => serde_json::from_slice(record.payload)
                    .map(HistoryRecord::Event)
                    .map_err(|error| error.to_string()),
                _ => Twin::from_state(record.revision, record.payload)
                    .map(|twin| HistoryRecord::State(Box::new(twin))),
            };
            (record.revision, record.time_us, record.previous, content)
        });
        let (revision, time_us, previous, content) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let content = content.map_err(io::Error::other)?;
        if !use_event(revision, time_us, content) {
            return Ok(());
        }
        at = previous;
    }
    Ok(())
}

/// Events of all twins from `since_us` on, oldest first. See
/// [`Writer::events_since`](super::Writer::events_since).
pub(super) fn since(
    disk: &dyn Disk,
    since_us: i64,
    bytes_max: u64,
    mut use_event: impl FnMut(LoggedEvent<'_>) -> bool,
) -> io::Result<bool> {
    store::read_since(disk, since_us, bytes_max, |record| {
        record.kind != kind::EVENT || use_event(LoggedEvent(record))
    })
}
