//! What happened in a session that people would want to know.

use super::presence::PresenceReason;
use crate::cacc::command::Command;
use crate::cacc::decide::safety::Safety;
use crate::wire::Event;

/// Something that happened in a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// The node is online again.
    CameBack,
    /// The node is offline.
    WentOffline(PresenceReason),
    /// A command was sent for the first time.
    CommandSent(Command),
    /// The node took a command whose result it has not shown yet.
    CommandAcked(Command),
    /// A command ended.
    CommandEnded(Command),
    /// The node sent an event.
    Reported(Event),
    /// The transmission is fixed from now on, or with `None` no more.
    SafetyChanged(Option<Safety>),
    /// A client wrote fields into `desiredProperties` that mean nothing.
    UnknownOverride(Vec<String>),
}
