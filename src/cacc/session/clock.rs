//! The node's own clock, learned from its answers, and until when by it a command may be carried out.

use crate::cacc::command::Command;
use crate::wire::{self, Ack};

/// What is known of a node's clock.
#[derive(Debug, Default)]
pub(super) struct NodeClock {
    /// Its uptime, ms, and when it was asked for that, microseconds since 1970. Only an answer
    /// reports it: a state may be the broker's old copy, and anything else may have waited on the
    /// way.
    known: Option<(u32, i64)>,
    /// The last heartbeat that is not answered: its id, and when it was sent.
    heartbeat: Option<(u32, i64)>,
}

impl NodeClock {
    /// A heartbeat goes out.
    pub(super) fn heartbeat_sent(&mut self, id: u32, now_us: i64) {
        self.heartbeat = Some((id, now_us));
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// Takes the node's clock from its answer to a message that was sent just once: it answered no
    /// earlier than that, so what is reckoned from it is never too early for the node.
    ///
    /// * `command_us`: when the command that is answered was sent, if it was sent once.
    pub(super) fn answered(&mut self, ack: &Ack, command_us: Option<i64>) {
        let sent_us = match self.heartbeat {
            Some((id, sent_us)) if id == ack.id => Some(sent_us),
            _ => command_us,
        };
        if let Some(sent_us) = sent_us.filter(|_| !ack.dup) {
            self.known = Some((ack.ms, sent_us));
            self.heartbeat = self.heartbeat.filter(|(id, _)| *id != ack.id);
        }
    }

    /// A command as it goes out: with how long it may be carried out by the node's own clock, so
    /// that one which was held up on the way surprises nobody.
    pub(super) fn body(&self, command: &Command, now_us: i64) -> String {
        let body = format!("{} {}", command.id, command.op);
        let Some((ms, sent_us)) = self.known else { return body };
        let passed_ms = u32::try_from((now_us - sent_us) / 1000).unwrap_or(0);
        // Counted from the same moment, so that what is sent again is to be done no later.
        let whole_ms = u32::try_from((command.deadline_us - sent_us) / 1000).unwrap_or(0);
        let left_ms = whole_ms.saturating_sub(passed_ms);
        let ttl = format!(" ttl={left_ms}@{}", ms.wrapping_add(passed_ms));
        if body.len() + ttl.len() > wire::BODY_LEN_MAX { body } else { body + &ttl }
    }
}
