//! What led to a change: the change of a twin, the trace that starts there, and who asked.

use serde::{Deserialize, Serialize};

use crate::twin::ThingId;

/// The change of a twin that something follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Of which twin.
    pub thing: ThingId,
    /// The revision that the change gave; of a verdict, the revision that it is about.
    pub revision: u64,
    /// When, microseconds since 1970.
    pub time_us: i64,
}

impl Source {
    /// The trace of all that follows.
    pub fn trace(&self) -> String {
        trace_id(&self.thing, self.revision)
    }
}

/// Why a command was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// `user`, `default`, or the rule's name.
    pub by: String,
    /// The chain from the reading on: 32 hexadecimal digits.
    pub trace: String,
}

/// The trace that begins with a change of a twin: the same for all that follows from it.
pub fn trace_id(thing: &ThingId, revision: u64) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(format!("{thing}@{revision}"));
    digest.iter().take(16).fold(String::with_capacity(32), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_belongs_to_its_change() {
        let thing = ThingId::parse("a:b").unwrap();
        assert_eq!(trace_id(&thing, 7).len(), 32);
        assert_eq!(trace_id(&thing, 7), trace_id(&thing, 7));
        assert_ne!(trace_id(&thing, 7), trace_id(&thing, 8));
    }
}
