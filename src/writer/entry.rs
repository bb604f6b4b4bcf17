//! What the writer holds of a twin and of a document.

use std::sync::Arc;

use crate::store::record::Position;
use crate::twin::Twin;

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
