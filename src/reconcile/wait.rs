//! Waiting until a condition holds for objects.
//!
//! Not here: what makes them so (`round`, `kind`).

use std::str::FromStr;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::key::ObjectKey;
use super::reconciler::Reconciler;
use super::status::Truth;

/// Least time between two looks at the objects that a request waits for.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// It is as declared; see [`Reconciler::is_ready`].
    Ready,
    /// It is gone.
    Deleted,
    /// A condition has this status.
    Condition(String, Truth),
}

impl FromStr for Until {
    type Err = String;

    /// `Ready`, `Deleted`, `CONDITION` or `CONDITION=STATUS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, truth) = text.split_once('=').unwrap_or((text, "True"));
        let truth = match truth.to_ascii_lowercase().as_str() {
            "true" => Truth::True,
            "false" => Truth::False,
            "unknown" => Truth::Unknown,
            _ => return Err(format!("`{truth}` is not a status: True, False or Unknown")),
        };
        Ok(match (name, truth) {
            ("Ready", Truth::True) => Self::Ready,
            ("Deleted", Truth::True) => Self::Deleted,
            (name, truth) => Self::Condition(name.to_owned(), truth),
        })
    }
}

impl Reconciler {
    /// Waits until each object is ready, at most for `timeout`. Returns those that are not.
    pub async fn wait_ready(&self, keys: &[ObjectKey], timeout: Duration) -> Vec<ObjectKey> {
        self.wait_until(keys, &Until::Ready, timeout).await
    }

    /// Waits until something holds for each object, at most for `timeout`. Returns those for which
    /// it does not.
    pub async fn wait_until(
        &self,
        keys: &[ObjectKey],
        until: &Until,
        timeout: Duration,
    ) -> Vec<ObjectKey> {
        let mut changed = self.changed.subscribe();
        let mut stopping = self.stopping.subscribe();
        let deadline = Instant::now() + timeout;
        loop {
            changed.mark_unchanged();
            let waiting: Vec<ObjectKey> =
                keys.iter().filter(|key| !self.holds(key, until)).cloned().collect();
            if waiting.is_empty() {
                return waiting;
            }
            // Thousands may change in a moment: they are looked at together.
            let something = async {
                let gone = changed.changed().await.is_err();
                tokio::time::sleep(LOOK_PERIOD).await;
                gone
            };
            tokio::select! {
                gone = something => if gone { return waiting },
                _ = stopping.wait_for(|stopping| *stopping) => return waiting,
                () = tokio::time::sleep_until(deadline) => return waiting,
            }
        }
    }

    fn holds(&self, key: &ObjectKey, until: &Until) -> bool {
        match until {
            Until::Ready => self.is_ready(key) == Some(true),
            Until::Deleted => !self.objects().contains_key(key),
            Until::Condition(name, truth) => {
                let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
                let conditions = statuses.get(key).map_or(&[][..], |status| &status.conditions);
                match conditions.iter().find(|one| one.condition == *name) {
                    Some(condition) => condition.status == *truth,
                    // A condition that does not apply is left out.
                    None => *truth == Truth::False && self.objects().contains_key(key),
                }
            }
        }
    }
}
