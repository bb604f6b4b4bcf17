//! The transmission of one node: what was decided, what the node reports, and how far the one is
//! on the way to the other.
//!
//! | from | to | reason |
//! |---|---|---|
//! | any but `Commanded` | `Grace` | the node came back and finds a newer transmission retained |
//! | `Grace`, `GivenUp` | `Idle` | it came back and finds none; or something else was decided |
//! | `Idle`, `Grace` (over), `Applied`, `Confirmed` | `Commanded` | it differs, or is to be kept |
//! | `Commanded` | `Applied` | the node reports what was asked |
//! | `Commanded` | `Idle` | the command was superseded, or came too late by a wrong clock |
//! | `Commanded` | `GivenUp` | the node refused, or did not answer in time |
//! | `Applied`, or any at rest that is as desired | `Confirmed` | a reading came under it |

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::cacc::cause::{Cause, Source};
use crate::cacc::command::{next_op, satisfies};
use crate::cacc::decide::{Decision, SCHEDULE};
use crate::wire::{self, Desired, Tx};

/// How long a node that came back may apply the retained transmission by itself, before a command
/// is sent, microseconds.
pub const GRACE_US: i64 = 1_000_000;

/// How far a transmission is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is under way.
    Idle,
    /// The node came back, and may apply what is retained for it by itself.
    Grace {
        /// Until then, microseconds since 1970.
        until_us: i64,
    },
    /// A command is under way.
    Commanded {
        /// Its id.
        command: u32,
    },
    /// The node applied it; no reading has come since.
    Applied {
        /// When, microseconds since 1970.
        at_us: i64,
    },
    /// A reading came since.
    Confirmed,
    /// Nothing more is tried.
    GivenUp {
        /// For this generation.
        generation: u32,
        /// Why, for people.
        reason: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Transmission {
    /// What was decided.
    pub decision: Option<Decision>,
    /// Who is behind that.
    pub cause: Cause,
    /// What led to it.
    pub source: Option<Source>,
    /// What the node reports.
    pub reported: Option<Tx>,
    /// How far it is.
    pub delivery: Delivery,
    /// The generation that the node has applied from what was retained for it.
    pub version: u32,
    /// The generation that is retained for it; 0: none.
    pub retained: u32,
    /// The node settled on something else than asked, and answered `ok`: what was asked, and what it
    /// reports.
    pub accepted: Option<(Arc<Tx>, Tx)>,
    /// When the edge asks next, if it does so on a schedule, microseconds since 1970.
    pub pull_us: Option<i64>,
}

impl Default for Transmission {
    fn default() -> Self {
        Self {
            decision: None,
            cause: Cause { by: "default".to_owned(), trace: String::new() },
            source: None,
            reported: None,
            delivery: Delivery::Idle,
            version: 0,
            retained: 0,
            accepted: None,
            pull_us: None,
        }
    }
}

impl Transmission {
    /// The generation of the decision; 0 if there is none.
    pub fn generation(&self) -> u32 {
        self.decision.as_ref().map_or(0, |decision| decision.generation)
    }

    /// Whether the node transmits as was decided.
    pub fn is_satisfied(&self) -> bool {
        let (Some(decision), Some(reported)) = (&self.decision, &self.reported) else {
            return false;
        };
        satisfies(reported, &decision.tx)
            || (self.accepted.as_ref())
                .is_some_and(|(asked, is)| *asked == decision.tx && same_way(is, reported))
    }

    /// Why nothing more is tried for what is decided now, if so.
    pub fn given_up(&self) -> Option<&str> {
        match &self.delivery {
            Delivery::GivenUp { generation, reason } if *generation == self.generation() => {
                Some(reason)
            }
            _ => None,
        }
    }

    /// Something else was decided.
    pub fn decided(&mut self, cause: Cause, source: Option<Source>) {
        (self.cause, self.source, self.pull_us) = (cause, source, None);
        self.retry();
    }

    /// What was given up is tried again.
    pub fn retry(&mut self) {
        if matches!(self.delivery, Delivery::GivenUp { .. }) {
            self.delivery = Delivery::Idle;
        }
    }

    /// The node came back. It gets some time if it finds a transmission that it has not applied.
    pub fn returned(&mut self, waits: bool, now_us: i64) {
        self.retry();
        if matches!(self.delivery, Delivery::Commanded { .. }) {
            return;
        }
        if waits {
            self.delivery = Delivery::Grace { until_us: now_us + GRACE_US };
        } else if matches!(self.delivery, Delivery::Grace { .. }) {
            self.delivery = Delivery::Idle;
        }
    }

    /// Whether something newer is retained for the node than it has applied.
    pub fn is_behind(&self) -> bool {
        self.retained > self.version
    }

    /// Until when the node may apply by itself what is retained for it, microseconds since 1970.
    pub fn grace_us(&self) -> Option<i64> {
        match self.delivery {
            Delivery::Grace { until_us } => Some(until_us),
            _ => None,
        }
    }

    /// A command is under way.
    pub fn commanded(&mut self, command: u32) {
        self.delivery = Delivery::Commanded { command };
    }

    /// The node applied what `op` asked for, and reports how it transmits now.
    pub fn applied(&mut self, op: &str, now_us: i64) {
        let Some(decision) = &self.decision else { return };
        if let Some(reported) = &self.reported {
            // Still the same difference: the node settled on something near.
            let next = next_op(Some(reported), &decision.tx, None).map(|op| op.to_string());
            if next.as_deref() == Some(op.split(" trial=").next().unwrap_or_default()) {
                self.accepted = Some((decision.tx.clone(), reported.clone()));
            }
        }
        self.delivery = Delivery::Applied { at_us: now_us };
        if self.is_satisfied() {
            // So that it is not sent the same again when it comes back.
            self.version = self.version.max(self.generation());
        }
    }

    /// The command was refused, or not answered in time.
    pub fn failed(&mut self, reason: String) {
        self.delivery = Delivery::GivenUp { generation: self.generation(), reason };
    }

    /// The command is over without a result.
    pub fn superseded(&mut self, command: u32) {
        if self.delivery == (Delivery::Commanded { command }) {
            self.delivery = Delivery::Idle;
        }
    }

    /// A reading came. Returns when the transmission was applied that it is the first one under.
    pub fn reading(&mut self) -> Option<i64> {
        match self.delivery {
            Delivery::Applied { at_us } => {
                self.delivery = Delivery::Confirmed;
                Some(at_us)
            }
            Delivery::Idle | Delivery::GivenUp { .. } if self.is_satisfied() => {
                self.delivery = Delivery::Confirmed;
                None
            }
            _ => None,
        }
    }

    /// What is to be retained for the node: what it finds when it connects. Of one that is online, or
    /// that transmits so already, the former message is removed, so that it never finds what is out
    /// of date. `None`: it stays as it is.
    ///
    /// * `needed`: the node is to find it.
    pub fn retain(&mut self, needed: bool) -> Option<String> {
        let decision = self.decision.as_ref()?;
        let op = next_op(None, &decision.tx, None).filter(|_| needed && !self.is_satisfied());
        let cmd = op.and_then(|op| wire::Command::new(0, op).encode().ok());
        let version = decision.generation;
        let text = match cmd {
            // Plain data: it always has a JSON form.
            Some(cmd) => serde_json::to_string(&Desired { version, cmd }).unwrap_or_default(),
            None if self.retained == 0 => return None,
            None => String::new(),
        };
        self.retained = if text.is_empty() { 0 } else { version };
        Some(text)
    }
}

/// Whether two reports are the same, whether kept or not.
fn same_way(a: &Tx, b: &Tx) -> bool {
    Tx { kept: None, ..a.clone() } == Tx { kept: None, ..b.clone() }
}

/// A transmission as `features/transmission` shows it.
pub fn tx_json(tx: &Tx, schedule: Option<u32>) -> Map<String, Value> {
    // Plain data: it always has a JSON form.
    let mut map = match serde_json::to_value(tx) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    if let Some(ms) = schedule {
        map.insert("program".to_owned(), SCHEDULE.into());
        map.insert("interval".to_owned(), ms.into());
    }
    map
}
