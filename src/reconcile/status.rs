//! What a controller found about its object, and the conditions that it becomes.
//!
//! Not here: setting conditions (`conditions`), how a status is shown (`view`).

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::queue::Outcome;
use crate::base::time::rfc3339;

/// One fact about an object, shaped like Kubernetes' `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`, `Reconciling` or `Stalled`.
    pub condition: &'static str,
    /// Whether it is so.
    pub status: Truth,
    /// Why, as a stable CamelCase word.
    pub reason: &'static str,
    /// Why, as a sentence.
    pub message: Box<str>,
    /// Since when `status` is what it is, microseconds since 1970.
    pub since_us: i64,
    /// The generation that this was found for.
    pub observed_generation: u64,
}

impl Condition {
    /// As reading verbs show it.
    pub fn to_json(&self) -> Value {
        json!({
            "type": self.condition,
            "status": self.status.to_string(),
            "reason": self.reason,
            "message": &*self.message,
            "lastTransitionTime": rfc3339(self.since_us),
            "observedGeneration": self.observed_generation,
        })
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What was found about an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) observed_generation: u64,
    pub(super) conditions: Vec<Condition>,
}

/// What a controller found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) ready: Truth,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) progress: Progress,
    pub(super) next: Outcome,
    /// It holds once this batch is durable.
    pub(super) batch: Option<u64>,
}

/// Whether a controller still works on its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left to do.
    Settled,
    /// It goes on by itself.
    Reconciling,
    /// It cannot go on as declared.
    Stalled,
}

impl Finding {
    pub(super) fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::True,
            reason,
            message: message.into(),
            progress: Progress::Settled,
            next: Outcome::Done,
            batch: None,
        }
    }

    pub(super) fn once_durable(mut self, batch: Option<u64>) -> Self {
        self.batch = batch;
        self
    }

    /// The kind or field is not acted on yet.
    pub(super) fn not_acted_on(message: impl Into<String>) -> Self {
        Self { ready: Truth::Unknown, ..Self::ready("NotActedOn", message) }
    }

    /// Something is missing that comes by itself, and then wakes this object.
    pub(super) fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::False,
            progress: Progress::Reconciling,
            ..Self::ready(reason, message)
        }
    }

    /// It did not work, and may work later.
    pub(super) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { next: Outcome::Failed, ..Self::waiting(reason, message) }
    }

    /// It cannot work as declared.
    pub(super) fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { progress: Progress::Stalled, ..Self::waiting(reason, message) }
    }

    pub(super) fn again(mut self, after: Duration) -> Self {
        self.next = Outcome::Again(after);
        self
    }
}

impl Status {
    /// Sets a condition; its time stays what it is unless its status changes.
    pub(super) fn set(&mut self, new: Condition) {
        let found = self.conditions.iter_mut().find(|one| one.condition == new.condition);
        let Some(condition) = found else { return self.conditions.push(new) };
        let since_us =
            if condition.status == new.status { condition.since_us } else { new.since_us };
        *condition = Condition { since_us, ..new };
    }

    /// Removes a condition that no longer applies.
    pub(super) fn clear(&mut self, condition: &str) {
        self.conditions.retain(|one| one.condition != condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_the_time_of_its_last_change_of_status() {
        let condition = |status, reason, since_us| Condition {
            condition: "Ready",
            status,
            reason,
            message: "".into(),
            since_us,
            observed_generation: 1,
        };
        let mut status = Status::default();
        status.set(condition(Truth::False, "Training", 1));
        status.set(condition(Truth::False, "TrainingFailed", 2));
        assert_eq!(status.conditions, [condition(Truth::False, "TrainingFailed", 1)]);
        status.set(condition(Truth::True, "Loaded", 3));
        assert_eq!(status.conditions, [condition(Truth::True, "Loaded", 3)]);
        status.clear("Ready");
        assert!(status.conditions.is_empty());
    }
}
