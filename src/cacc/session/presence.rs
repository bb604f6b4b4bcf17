//! Whether a node is online.
//!
//! | from | to | reason |
//! |---|---|---|
//! | `NeverSeen`, `Offline` | `Online` | `Message`: a message of any sort came |
//! | `NeverSeen`, `Online` | `Offline` | `ConnectionEnded`: the broker published its will |
//! | `Online` | `Offline` | `LeaseElapsed`: no message came for a whole lease |

/// Whether a node is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// No message ever came from it.
    NeverSeen,
    /// Messages come from it.
    Online,
    /// It is gone since then.
    Offline {
        /// Microseconds since 1970.
        since_us: i64,
    },
}

/// Why a presence changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceReason {
    /// A message of any sort came.
    Message,
    /// The broker published its will.
    ConnectionEnded,
    /// No message came for a whole lease.
    LeaseElapsed,
}

impl PresenceReason {
    /// For people, after "offline: ".
    pub fn text(self) -> &'static str {
        match self {
            Self::Message => "a message came",
            Self::ConnectionEnded => "its connection ended",
            Self::LeaseElapsed => "no message was received for a whole lease",
        }
    }
}

impl Presence {
    /// The next state; `None` if it stays.
    pub fn step(self, reason: PresenceReason, now_us: i64) -> Option<Self> {
        let gone = Self::Offline { since_us: now_us };
        match (self, reason) {
            (Self::NeverSeen | Self::Offline { .. }, PresenceReason::Message) => Some(Self::Online),
            (Self::NeverSeen | Self::Online, PresenceReason::ConnectionEnded) => Some(gone),
            (Self::Online, PresenceReason::LeaseElapsed) => Some(gone),
            _ => None,
        }
    }

    /// As a fact: `None` for a node that was never seen.
    pub fn as_fact(self) -> Option<bool> {
        match self {
            Self::NeverSeen => None,
            Self::Online => Some(true),
            Self::Offline { .. } => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transition_has_its_reason() {
        use PresenceReason::{ConnectionEnded, LeaseElapsed, Message};
        let gone = Presence::Offline { since_us: 7 };
        for (from, reason, to) in [
            (Presence::NeverSeen, Message, Some(Presence::Online)),
            (gone, Message, Some(Presence::Online)),
            (Presence::Online, Message, None),
            (Presence::NeverSeen, ConnectionEnded, Some(Presence::Offline { since_us: 9 })),
            (Presence::Online, ConnectionEnded, Some(Presence::Offline { since_us: 9 })),
            (gone, ConnectionEnded, None),
            (Presence::Online, LeaseElapsed, Some(Presence::Offline { since_us: 9 })),
            (Presence::NeverSeen, LeaseElapsed, None),
            (gone, LeaseElapsed, None),
        ] {
            assert_eq!(from.step(reason, 9), to, "{from:?} {reason:?}");
        }
    }
}
