//! The rounds of the controllers: which object is looked at when, and what follows from what was
//! found.
//!
//! Not here: what a controller does in its round (`kind`), the order of the queue (`queue`).

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::key::ObjectKey;
use super::queue::Outcome;
use super::reconciler::Reconciler;
use super::status::{Finding, Progress};
use super::stored::{Stored, in_namespace};
use crate::kinds::Kind;
use crate::twin::ThingId;
use crate::twin::path::Path;
use crate::writer::{Committed, Origin, Sink};

/// Controllers that compute at the same time; more would only compete with the readings for two
/// cores.
const PARALLEL_MAX: usize = 4;

/// Objects that are worked on at the same time. Most of them wait for the disk, all for the same
/// sync.
const IN_HAND_MAX: usize = 256;

/// Time between two checks of an object without changes.
const RESYNC: Duration = Duration::from_secs(300);

impl Reconciler {
    /// Works until `stop` turns true, then ends what is in hand.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let computing = Arc::new(Semaphore::new(PARALLEL_MAX));
        let mut resync = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                key = self.queue.next(), if tasks.len() < IN_HAND_MAX => {
                    tasks.spawn(self.clone().reconcile(key, computing.clone()));
                }
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        let remedy = "restart the runtime, and report it";
                        tracing::error!(%error, remedy, "the reconciliation of an object panicked");
                    }
                }
                () = self.touch.notified() => {
                    let touched = std::mem::take(
                        &mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    for key in touched.iter().filter_map(|id| self.declarer(id)) {
                        self.queue.add(key);
                    }
                }
                _ = resync.tick() => {
                    let keys: Vec<ObjectKey> = self.objects().keys().cloned().collect();
                    keys.into_iter().for_each(|key| self.queue.add(key));
                }
            }
        }
        self.stopping.send_replace(true);
        while tasks.join_next().await.is_some() {}
    }

    /// One round of one controller.
    async fn reconcile(self: Arc<Self>, key: ObjectKey, computing: Arc<Semaphore>) {
        let Some(stored) = self.objects().get(&key).cloned() else {
            self.queue.done(key, Outcome::Done);
            return;
        };
        let report = {
            // The semaphore is never closed.
            let _turn = computing.acquire().await;
            let (this, key, stored) = (self.clone(), key.clone(), stored.clone());
            tokio::task::spawn_blocking(move || this.look_at(&key, &stored)).await
        };
        let mut report =
            report.unwrap_or_else(|error| Finding::failed("Panicked", error.to_string()));
        if let Some(batch) = report.batch
            && let Err(why) = self.durable(batch).await
        {
            report = Finding::failed("NotStored", why);
        }
        if stored.deleting && report.progress == Progress::Settled {
            match self.forget(&key, &stored).await {
                Ok(()) => return self.queue.done(key, Outcome::Done),
                Err(why) => report = Finding::failed("NotDeleted", why),
            }
        } else if report.progress == Progress::Settled {
            self.forget_what_is_gone(&key, &stored).await;
        }
        let next = report.next;
        self.set_status(&key, &stored, report);
        self.queue.done(key, next);
    }

    /// The part of a round that computes and stages changes, on a thread that may block.
    fn look_at(self: &Arc<Self>, key: &ObjectKey, stored: &Stored) -> Finding {
        let report = if stored.deleting {
            match self.finalise(key, stored) {
                Ok(batch) => Finding::ready("Deleted", "").once_durable(batch),
                Err(report) => report,
            }
        } else {
            match stored.typed() {
                Ok(object) => self.act(key, stored, &object),
                Err(why) => Finding::stalled("UnreadableObject", why),
            }
        };
        if report.batch.is_some() {
            self.context.writer.wake_committer();
        }
        report
    }

    /// Removes the document of a deleted object whose traces are gone.
    async fn forget(&self, key: &ObjectKey, stored: &Stored) -> Result<(), String> {
        let batch = {
            let _turn = self.applying.lock().await;
            // It may have been declared again meanwhile.
            if !self.is_current(key, stored) {
                return Ok(());
            }
            let batch = self.put(vec![(key.document(), None)])?;
            // Should the deletion not become durable, it is done again at the next start.
            self.write_objects(|objects| {
                objects.remove(key);
            });
            batch
        };
        let durable = self.durable(batch).await;
        self.statuses.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.changed.send_modify(|count| *count += 1);
        self.wake_dependents(std::slice::from_ref(key));
        durable
    }

    /// Once an object is as declared, what its earlier generations made is no longer there.
    async fn forget_what_is_gone(&self, key: &ObjectKey, stored: &Stored) {
        let Some(next) = stored.settled() else { return };
        let _turn = self.applying.lock().await;
        if !self.is_current(key, stored) {
            return;
        }
        // Kept as it was, it only costs a look at what is not there.
        if self.put(vec![(key.document(), Some(next.text()))]).is_ok() {
            self.write_objects(|objects| {
                objects.insert(key.clone(), next);
            });
        }
    }

    fn is_current(&self, key: &ObjectKey, stored: &Stored) -> bool {
        self.objects().get(key).is_some_and(|now| now.is(stored))
    }

    /// The object that declares a twin.
    fn declarer(&self, id: &ThingId) -> Option<ObjectKey> {
        let (namespace, name) = (id.namespace(), id.name());
        let objects = self.objects();
        let kinds = [Kind::Twin, Kind::TwinAggregate];
        let by_name = kinds.map(|kind| ObjectKey::new(kind, namespace, name));
        by_name.into_iter().find(|key| objects.contains_key(key)).or_else(|| {
            let mut sets = in_namespace(&objects, Kind::TwinSet, namespace);
            sets.find(|(set, stored)| stored.makes(&set.name, name)).map(|(set, _)| set.clone())
        })
    }
}

/// Notes which declared parts of twins clients change, or that they delete a twin. Called by the
/// thread that commits, so it looks nothing up; see [`Reconciler::run`].
pub(super) struct Watcher(pub(super) Weak<Reconciler>);

impl Sink for Watcher {
    fn committed(&self, changes: &[Committed]) {
        let by_client = |change: &&Committed| change.origin == Origin::Client;
        let declared = |change: &&Committed| {
            !matches!(change.event.path, Path::Property(..) | Path::Properties(_))
        };
        let mut changes = changes.iter().filter(by_client).filter(declared).peekable();
        if changes.peek().is_none() {
            return;
        }
        if let Some(reconciler) = self.0.upgrade() {
            let ids = changes.map(|change| change.id.clone());
            reconciler.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            reconciler.touch.notify_one();
        }
    }
}
