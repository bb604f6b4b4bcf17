//! The whole state as of a segment boundary, written so that a restart need not read the whole log.

use std::io;
use std::sync::Arc;

use super::kind::{self, FORMAT};
use crate::store;
use crate::store::disk::Disk;
use crate::store::record::{Position, Record};
use crate::twin::Twin;

/// Everything as of a segment boundary.
pub(super) struct StateSnapshot {
    pub(super) boundary: u32,
    pub(super) twins: Vec<Arc<Twin>>,
    pub(super) documents: Vec<(String, Arc<str>, u64, Position)>,
}

impl StateSnapshot {
    /// Writes it. Takes as long as the disk does.
    ///
    /// # Errors
    /// Errors of the disk; the snapshot before stays valid.
    pub(super) fn write(&self, disk: &dyn Disk, history_bytes_max: u64) -> io::Result<()> {
        let twins = self.twins.iter().map(|twin| {
            let record = Record {
                kind: kind::STATE,
                format: FORMAT,
                key: twin.id.as_str(),
                revision: twin.revision,
                time_us: twin.modified_us,
                previous: twin.tail,
                payload: &[],
            };
            (record, twin.to_state())
        });
        let documents = self.documents.iter().map(|(key, text, revision, tail)| {
            let record = Record {
                kind: kind::DOCUMENT,
                format: FORMAT,
                key,
                revision: *revision,
                time_us: 0,
                previous: *tail,
                payload: &[],
            };
            (record, text.as_bytes().to_vec())
        });
        store::write_snapshot(disk, self.boundary, history_bytes_max, &mut twins.chain(documents))
    }
}
