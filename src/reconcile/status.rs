//! What was found about objects: a controller's report, and the conditions that it becomes.
//!
//! Not here: what controllers look for (`controllers`), how a status is shown (`view`).

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::queue::Outcome;
use super::{ObjectKey, Reconciler, Stored};
use crate::base::clock::now_us;
use crate::base::telemetry::Severity;
use crate::base::time::rfc3339;
use crate::kinds::Kind;

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
pub(super) struct Report {
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
    /// It cannot go on until somebody changes something.
    Stalled,
}

impl Report {
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

    /// What nobody acts on yet.
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

impl Reconciler {
    /// An object was declared anew: what was found about it holds no longer.
    pub(super) fn mark_changed(&self, key: &ObjectKey) {
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        let status = statuses.entry(key.clone()).or_default();
        let observed_generation = status.observed_generation;
        let (reason, message) = ("Declared", "the controller has not looked at it yet");
        set_condition(status, "Reconciling", Truth::True, reason, message, observed_generation);
        if !status.conditions.iter().any(|one| one.condition == "Ready") {
            set_condition(status, "Ready", Truth::Unknown, reason, message, observed_generation);
        }
        drop(statuses);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn set_status(&self, key: &ObjectKey, stored: &Stored, report: Report) {
        let Report { ready, reason, message, progress, .. } = report;
        let newer = self.objects().get(key).is_none_or(|now| now.revision != stored.revision);
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        let Some(status) = statuses.get_mut(key) else { return };
        let generation = stored.generation;
        status.observed_generation = generation;
        let was = status.conditions.iter().find(|one| one.condition == "Ready").cloned();
        set_condition(status, "Ready", ready, reason, &message, generation);
        for (name, holds) in [
            // Something newer was declared while the controller worked; it is queued again.
            ("Reconciling", progress == Progress::Reconciling || newer),
            ("Stalled", progress == Progress::Stalled),
        ] {
            if holds {
                set_condition(status, name, Truth::True, reason, &message, generation);
            } else {
                status.conditions.retain(|one| one.condition != name);
            }
        }
        drop(statuses);
        self.changed.send_modify(|count| *count += 1);
        self.note(key, was.as_ref(), ready, reason, message);
    }

    /// Notes an event where somebody would want to know.
    fn note(
        &self,
        key: &ObjectKey,
        was: Option<&Condition>,
        ready: Truth,
        reason: &'static str,
        message: String,
    ) {
        let before = was.map(|condition| (condition.status, condition.reason));
        let severity = match (before, ready) {
            (Some((before, why)), now) if before == now && why == reason => return,
            // These come by themselves, in a while.
            (_, Truth::False) if matches!(reason, "Training" | "ModelNotReady") => Severity::Normal,
            (_, Truth::False) => Severity::Warning,
            // A thousand twins that come up as they should are no news.
            (Some((Truth::False, _)), Truth::True) => Severity::Normal,
            (_, Truth::True) if matches!(key.kind, Kind::Service | Kind::Model) => Severity::Normal,
            _ => return,
        };
        self.context.telemetry.event(now_us(), severity, reason, key.to_string(), message);
    }
}

fn set_condition(
    status: &mut Status,
    name: &'static str,
    truth: Truth,
    reason: &'static str,
    message: &str,
    generation: u64,
) {
    let found = status.conditions.iter_mut().find(|one| one.condition == name);
    let Some(condition) = found else {
        status.conditions.push(Condition {
            condition: name,
            status: truth,
            reason,
            message: message.into(),
            since_us: now_us(),
            observed_generation: generation,
        });
        return;
    };
    if condition.status != truth {
        condition.status = truth;
        condition.since_us = now_us();
    }
    condition.reason = reason;
    if *condition.message != *message {
        condition.message = message.into();
    }
    condition.observed_generation = generation;
}
