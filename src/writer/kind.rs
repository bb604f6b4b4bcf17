//! The kinds of records in the log.

/// An event of a twin.
pub(super) const EVENT: u8 = 1;
/// A twin's whole state.
pub(super) const STATE: u8 = 2;
/// A document; an empty payload deletes it.
pub(super) const DOCUMENT: u8 = 3;

/// Format of the records' payloads.
pub(super) const FORMAT: u16 = 1;
