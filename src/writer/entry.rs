//! What the writer holds of a twin and of a document, and how the log names their records.

use std::sync::Arc;

use crate::store::record::Position;
use crate::twin::Twin;

/// Record kinds of the log.
pub(super) mod kind {
    /// An event of a twin.
    pub(in crate::writer) const EVENT: u8 = 1;
    /// A twin's whole state.
    pub(in crate::writer) const STATE: u8 = 2;
    /// A document; an empty payload deletes it.
    pub(in crate::writer) const DOCUMENT: u8 = 3;
}

/// Format of the records' payloads.
pub(super) const FORMAT: u16 = 1;

/// A twin as it was last changed.
pub(super) struct Entry {
    pub(super) twin: Arc<Twin>,
    /// Whether it takes no changes because part of its history is damaged.
    pub(super) stalled: bool,
}

/// A document as it was last stored.
pub(super) struct Document {
    pub(super) text: Arc<str>,
    pub(super) revision: u64,
    pub(super) tail: Position,
}
