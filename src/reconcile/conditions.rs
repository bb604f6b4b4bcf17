//! Setting the conditions of objects, and recording events about them.
//!
//! Not here: what conditions hold (`status`), how they are shown (`view`).

use std::sync::PoisonError;

use super::key::ObjectKey;
use super::reconciler::Reconciler;
use super::status::{Condition, Finding, Progress, Truth};
use super::stored::Stored;
use crate::base::telemetry::Severity;
use crate::kinds::Kind;

impl Reconciler {
    /// Marks an object that was declared again: its conditions are out of date.
    pub(super) fn mark_changed(&self, key: &ObjectKey) {
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        let status = statuses.entry(key.clone()).or_default();
        let observed_generation = status.observed_generation;
        let (reason, message) = ("Declared", "the controller has not looked at it yet");
        let condition = |condition, status| Condition {
            condition,
            status,
            reason,
            message: message.into(),
            since_us: self.now_us(),
            observed_generation,
        };
        status.set(condition("Reconciling", Truth::True));
        if !status.conditions.iter().any(|one| one.condition == "Ready") {
            status.set(condition("Ready", Truth::Unknown));
        }
        drop(statuses);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn set_status(&self, key: &ObjectKey, stored: &Stored, report: Finding) {
        let Finding { ready, reason, message, progress, .. } = report;
        let newer = self.objects().get(key).is_none_or(|now| now.revision != stored.revision);
        let mut statuses = self.statuses.write().unwrap_or_else(PoisonError::into_inner);
        let Some(status) = statuses.get_mut(key) else { return };
        let generation = stored.generation;
        status.observed_generation = generation;
        let was = status.conditions.iter().find(|one| one.condition == "Ready").cloned();
        let condition = |condition, status| Condition {
            condition,
            status,
            reason,
            message: message.as_str().into(),
            since_us: self.now_us(),
            observed_generation: generation,
        };
        status.set(condition("Ready", ready));
        for (name, holds) in [
            // Something newer was declared while the controller worked; it is queued again.
            ("Reconciling", progress == Progress::Reconciling || newer),
            ("Stalled", progress == Progress::Stalled),
        ] {
            if holds {
                status.set(condition(name, Truth::True));
            } else {
                status.clear(name);
            }
        }
        drop(statuses);
        self.changed.send_modify(|count| *count += 1);
        self.note(key, was.as_ref(), ready, reason, message);
    }

    /// Records an event if the change matters to people.
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
        self.context.telemetry.event(self.now_us(), severity, reason, key.to_string(), message);
    }
}
