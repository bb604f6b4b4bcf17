//! What waits for the controller: a bounded queue of inputs, and what replaces itself.
//!
//! If the queue is overrun, its oldest input is dropped and the newest state of every twin is to be
//! read again, so that only windows miss values.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::decide::NodeSpec;
use super::facts::HistoryRequest;
use super::rule::Rule;
use crate::twin::ThingId;
use crate::wire::Uplink;
use crate::writer::Committed;

/// Inputs that wait; a few seconds of a full load.
const WAITING_MAX: usize = 65_536;
/// Inputs that are taken in one go, so that what follows from the first is not kept waiting.
const ROUND_MAX: usize = 1024;

/// Something that happened, and when, microseconds since 1970.
#[derive(Debug)]
pub(super) enum Input {
    /// A twin changed.
    Changed(Box<Committed>, i64),
    /// A node sent something beside readings.
    Received(ThingId, Box<Uplink>, i64),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Input>,
    /// Nodes whose declaration changed.
    pub(super) nodes: BTreeMap<ThingId, Option<Arc<NodeSpec>>>,
    /// All rules, if they changed.
    pub(super) rules: Option<Vec<Rule>>,
    /// Windows that are to be read.
    pub(super) wanted: HistoryRequest,
    /// Windows that were read.
    pub(super) read: Vec<HistoryRequest>,
    /// History is being read.
    pub(super) reading: bool,
    /// The newest state of every twin is to be read again.
    pub(super) overrun: bool,
    /// The members of aggregates may have changed.
    pub(super) regroup: bool,
}

impl Inbox {
    /// Adds an input; whether another one was dropped for it.
    pub(super) fn push(&mut self, input: Input) -> bool {
        let full = self.waiting.len() >= WAITING_MAX;
        if full {
            self.waiting.pop_front();
            self.overrun = true;
        }
        self.waiting.push_back(input);
        full
    }

    /// Whether no input waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The oldest inputs, for one round.
    pub(super) fn take_round(&mut self) -> Vec<Input> {
        let many = self.waiting.len().min(ROUND_MAX);
        self.waiting.drain(..many).collect()
    }
}
