//! Making what is staged durable, and waiting until it is.
//!
//! The first caller of [`Commits::commit_batch`] writes and syncs everything that is staged, the
//! others return at once, since the leader looks again before it stops. So a batch is what arrived
//! while the last one was being written.
//!
//! What readers see ([`Commits::visible`]) changes here and nowhere else: only once it is durable.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::change::{Committed, Sink};
use super::staging::Staging;
use crate::base::telemetry::Telemetry;
use crate::twin::{ThingId, Twin};

/// Changes of a batch for which room is kept, about 0.2 MiB.
const SPARE_CHANGES_MAX: usize = 1024;

/// How far the log is durable.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// Every batch up to this one is on the disk.
    pub batch: u64,
    /// Why no batch behind it will be.
    pub failed: Option<Arc<str>>,
}

/// Why a batch does not become durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDurable(pub Arc<str>);

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotDurable {}

/// What a batch was held in, kept for the next one: a buffer that is given back to the allocator
/// after each batch costs more than filling it.
#[derive(Default)]
struct Spare {
    bytes: Vec<u8>,
    changes: Vec<Committed>,
}

/// What is durable, and what carries the rest there.
pub(super) struct Commits {
    /// Held by the thread that commits.
    leader: Mutex<Spare>,
    pub(super) visible: RwLock<HashMap<ThingId, Arc<Twin>>>,
    pub(super) durable: watch::Sender<Durable>,
    pub(super) sinks: RwLock<Vec<Arc<dyn Sink>>>,
    pub(super) snapshot_due: Notify,
    pub(super) telemetry: OnceLock<Arc<Telemetry>>,
    /// The committing thread, once there is one.
    pub(super) thread: OnceLock<Thread>,
}

impl Commits {
    /// Starts from the twins that the log led to.
    pub(super) fn new(visible: HashMap<ThingId, Arc<Twin>>) -> Self {
        Self {
            leader: Mutex::default(),
            visible: RwLock::new(visible),
            durable: watch::Sender::new(Durable::default()),
            sinks: RwLock::new(Vec::new()),
            snapshot_due: Notify::new(),
            telemetry: OnceLock::new(),
            thread: OnceLock::new(),
        }
    }

    /// Commits one batch, unless another thread is committing. Returns whether more is waiting, which the
    /// caller then has to commit. For callers that have something to do between two batches.
    pub(super) fn commit_batch(&self, staging: &Mutex<Staging>) -> bool {
        let Ok(mut leader) = self.leader.try_lock() else { return false };
        let (batch, mut staged, number) = {
            let mut inner = lock(staging);
            if !inner.log.has_staged() {
                // What is staged from here on sees the leader gone or is seen below.
                drop(inner);
                drop(leader);
                return !lock(staging).is_idle();
            }
            let buffer = std::mem::take(&mut leader.bytes);
            let Some(batch) = inner.log.take(buffer) else { return false };
            let number = inner.batch;
            inner.batch += 1;
            let next = std::mem::take(&mut leader.changes);
            (batch, std::mem::replace(&mut inner.staged, next), number)
        };
        let started = Instant::now();
        let bytes = batch.len() as u64;
        match batch.commit() {
            Ok(buffer) => leader.bytes = buffer,
            Err(error) => {
                lock(staging).log.poison(&error);
                let cause: Arc<str> = error.to_string().into();
                let remedy = "check the disk, then restart the runtime";
                tracing::error!(%cause, remedy, "the log cannot be written; nothing is stored until a restart");
                self.durable.send_modify(|durable| durable.failed = Some(cause));
                return false;
            }
        }
        let took = started.elapsed();
        if let Some(telemetry) = self.telemetry.get() {
            telemetry.stage_commit.record(took);
        }
        {
            let mut visible = self.visible.write().unwrap_or_else(PoisonError::into_inner);
            for change in &staged {
                match &change.after {
                    Some(twin) => visible.insert(change.id.clone(), twin.clone()),
                    None => visible.remove(&change.id),
                };
            }
        }
        {
            let mut inner = lock(staging);
            inner.counts.batches += 1;
            inner.counts.bytes += bytes;
            inner.counts.commit_time = (inner.counts.commit_time * 7 + took) / 8;
        }
        for sink in self.sinks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            sink.committed(&staged);
        }
        self.durable.send_modify(|durable| durable.batch = number);
        staged.clear();
        staged.shrink_to(SPARE_CHANGES_MAX);
        leader.changes = staged;
        drop(leader);
        let (snapshot, idle) = {
            let inner = lock(staging);
            (inner.snapshot.is_some(), inner.is_idle())
        };
        if snapshot {
            self.snapshot_due.notify_one();
        }
        !idle
    }

    /// Returns when `batch` is durable.
    ///
    /// # Errors
    /// [`NotDurable`] if it will not be.
    pub(super) async fn reached(&self, batch: u64) -> Result<(), NotDurable> {
        let mut durable = self.durable.subscribe();
        // The sender lives as long as `self`, so the wait ends with a state.
        match durable.wait_for(|now| now.batch >= batch || now.failed.is_some()).await {
            Ok(now) if now.batch >= batch => Ok(()),
            Ok(now) => Err(NotDurable(now.failed.clone().unwrap_or_default())),
            Err(_) => Err(NotDurable("the writer has ended".into())),
        }
    }
}

/// A panic under the lock is a bug; the state is then as of the last completed step, and what was
/// acknowledged is on the disk.
pub(super) fn lock(staging: &Mutex<Staging>) -> MutexGuard<'_, Staging> {
    staging.lock().unwrap_or_else(PoisonError::into_inner)
}
