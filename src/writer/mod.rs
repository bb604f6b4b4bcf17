//! The one writer: judges changes in order, records them, makes them durable in batches, and only
//! then acknowledges and publishes.
//!
//! A change is judged and applied under one lock, and its record is staged. Then it is to be made
//! durable, in one of these ways:
//! - [`Writer::make_durable`] for tasks: the committing thread commits, the task waits;
//! - [`Writer::commit_or_wake`] for threads with nothing else to do: they commit themselves while
//!   the disk is fast, without a hand-over;
//! - [`Writer::commit`] commits on the calling thread.
//!
//! The first thread that commits writes and syncs everything that is staged, the others return at
//! once, since the first one looks again before it stops. So a batch is what arrived while the last
//! one was being written.
//!
//! What follows from a change in the same process (a verdict, an aggregate) is a [`Reaction`]: its
//! changes are applied at once and recorded behind it in the same batch, so one sync makes both
//! durable and a visible verdict implies its update.
//!
//! Always true, and tested:
//! 1. nothing is visible to readers before it is durable;
//! 2. a change that was refused left no trace;
//! 3. after a failed write or sync nothing is accepted any more, and reads go on.

mod change;
mod commit;
mod committer;
mod entry;
mod history;
mod kind;
mod replay;
mod snapshot;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::watch;

use self::commit::Commits;
use self::replay::Replay;
use self::staging::Staging;
use crate::base::telemetry::Telemetry;
use crate::store::disk::Disk;
use crate::store::{Log, StoreOptions};
use crate::twin::{ThingId, Twin};
pub use change::{
    Accepted, Committed, Counts, Origin, Precondition, Reaction, Rejected, Request, Sink,
};
pub use commit::{Durable, NotDurable};
pub use committer::Committer;
pub use history::{HistoryRecord, LoggedEvent};
pub use replay::Found;

/// A disk whose batches take longer is left to the committing thread.
const INLINE_COMMIT_MAX: Duration = Duration::from_millis(2);
/// Changes that follow from changes: a verdict may call for another service, and so on to this
/// depth; what goes beyond is dropped and reported.
pub const REACTION_DEPTH_MAX: u8 = 4;
/// Largest document, bytes.
pub const DOCUMENT_LEN_MAX: usize = 512 * 1024;

/// Named JSON texts that are durable beside the twins: the objects of manifests. As text, because
/// they are read seldom and a parsed object takes ten times the memory.
pub type Documents = BTreeMap<String, Arc<str>>;

/// See the module.
pub struct Writer {
    staging: Mutex<Staging>,
    commits: Commits,
    reactions: Vec<Arc<dyn Reaction>>,
    history_bytes_max: u64,
    disk: Arc<dyn Disk>,
}

impl Writer {
    /// Opens the state on `disk`.
    ///
    /// # Errors
    /// See [`Log::open`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        reactions: Vec<Arc<dyn Reaction>>,
    ) -> io::Result<(Self, Found)> {
        let mut replay = Replay::default();
        let history_bytes_max = options.history_bytes_max;
        let (log, recovery) = Log::open(disk.clone(), options, |recovered| replay.take(recovered))?;
        replay.stall(&recovery);
        let found = Found {
            recovery,
            twins: replay.twins.len(),
            stalled: replay.stalled,
            unreadable: replay.unreadable,
        };
        let visible = replay.twins.iter().map(|(id, entry)| (id.clone(), entry.twin.clone()));
        let writer = Self {
            commits: Commits::new(visible.collect()),
            staging: Mutex::new(Staging::new(log, replay.twins, replay.documents)),
            reactions,
            history_bytes_max,
            disk,
        };
        Ok((writer, found))
    }

    /// Has the time of each batch recorded there; the first call counts.
    pub fn measure(&self, telemetry: Arc<Telemetry>) {
        let _first = self.commits.telemetry.set(telemetry);
    }

    /// Adds a sink for what becomes durable from now on.
    pub fn add_sink(&self, sink: Arc<dyn Sink>) {
        self.commits.sinks.write().unwrap_or_else(PoisonError::into_inner).push(sink);
    }

    /// Judges a change and stages its record and everything that follows from it.
    ///
    /// It is durable, visible and published once the batch of the answer is: call
    /// [`Writer::commit`] or have someone call it, and see [`Writer::durable`].
    ///
    /// # Errors
    /// See [`Rejected`]; nothing changed then.
    pub fn submit(&self, request: Request, now_us: i64) -> Result<Accepted, Rejected> {
        let mut staging = self.lock();
        let change = staging.record(request, now_us)?;
        let batch = staging.batch;
        if !self.reactions.is_empty() {
            self.follow(&mut staging, change.clone(), now_us);
        }
        Ok(Accepted { change, batch })
    }

    fn follow(&self, staging: &mut Staging, first: Committed, now_us: i64) {
        let mut waiting = vec![first];
        let mut requests = Vec::new();
        while let Some(change) = waiting.pop() {
            for reaction in &self.reactions {
                reaction.react(&change, &mut requests);
                if change.depth >= REACTION_DEPTH_MAX && !requests.is_empty() {
                    requests.clear();
                    reaction.too_deep(&change);
                }
            }
            for request in requests.drain(..) {
                // A verdict on a twin that was deleted meanwhile, or that finds no space, is lost;
                // the twin is judged again at its next change or at the next start.
                let request = Request { depth: change.depth + 1, ..request };
                if let Ok(change) = staging.record(request, now_us) {
                    waiting.push(change);
                }
            }
        }
    }

    /// Stores or, with `None`, removes documents. All are staged or none.
    ///
    /// # Errors
    /// [`Rejected::NotStored`].
    pub fn put_documents(
        &self,
        documents: Vec<(String, Option<Arc<str>>)>,
        now_us: i64,
    ) -> Result<u64, Rejected> {
        let mut staging = self.lock();
        staging.record_documents(documents, now_us)?;
        Ok(staging.batch)
    }

    /// All documents whose key starts with `prefix`, by key.
    pub fn documents(&self, prefix: &str) -> Documents {
        let staging = self.lock();
        let all = staging.documents.iter().filter(|(key, _)| key.starts_with(prefix));
        all.map(|(key, document)| (key.clone(), document.text.clone())).collect()
    }

    /// Writes and syncs what is staged, until nothing is. Returns at once when another thread is
    /// at it; that one then takes what this one staged, too.
    pub fn commit(&self) {
        while self.commit_batch() {}
    }

    /// Commits one batch, unless another thread is at it; whether more waits, which the caller then
    /// has to commit. For those who have something to do between two batches.
    pub fn commit_batch(&self) -> bool {
        self.commits.commit_batch(&self.staging)
    }

    /// Has what is staged committed: by the committing thread, or on this one where there is none.
    pub fn wake_committer(&self) {
        match self.commits.thread.get() {
            Some(thread) => thread.unpark(),
            None => self.commit(),
        }
    }

    /// Commits on this thread while the disk is fast, else wakes the committing thread.
    pub fn commit_or_wake(&self) {
        if self.is_slow() { self.wake_committer() } else { self.commit() }
    }

    /// Whether batches take longer than [`INLINE_COMMIT_MAX`].
    pub fn is_slow(&self) -> bool {
        self.counts().commit_time > INLINE_COMMIT_MAX
    }

    /// Has what is staged committed and returns when `batch` is durable.
    ///
    /// # Errors
    /// [`NotDurable`] if it will not be; what it holds is then not visible to readers.
    pub async fn make_durable(&self, batch: u64) -> Result<(), NotDurable> {
        self.wake_committer();
        self.until_durable(batch).await
    }

    /// Returns when `batch` is durable, which others see to.
    ///
    /// # Errors
    /// [`NotDurable`] if it will not be.
    pub async fn until_durable(&self, batch: u64) -> Result<(), NotDurable> {
        self.commits.reached(batch).await
    }

    fn set_committer(&self, thread: Thread) {
        let first = self.commits.thread.set(thread).is_ok();
        assert!(first, "a writer has one committing thread");
    }

    /// Follows how far the log is durable.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.commits.durable.subscribe()
    }

    /// How far the log is durable now.
    pub fn durable_now(&self) -> Durable {
        self.commits.durable.borrow().clone()
    }

    /// The twin as it is durable.
    pub fn twin(&self, id: &str) -> Option<Arc<Twin>> {
        self.commits.visible.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The twin as it was last changed, which may not be durable yet: for the runtime's own
    /// decisions, not for readers.
    pub fn newest(&self, id: &str) -> Option<Arc<Twin>> {
        self.lock().twins.get(id).map(|entry| entry.twin.clone())
    }

    /// Shows `decide` every twin as it was last changed and records what it asks for and what
    /// follows, with no other change in between. Returns the batch that makes it durable; `None`
    /// if nothing was recorded.
    ///
    /// Holds the writer's lock for as long as it takes: for what must start from a consistent
    /// state and is rare.
    ///
    /// # Errors
    /// [`Rejected::NotStored`] if a change found no room; those before it are recorded. Changes
    /// that their twins refuse are left out.
    pub fn survey(
        &self,
        now_us: i64,
        decide: impl FnOnce(&mut dyn Iterator<Item = &Arc<Twin>>, &mut Vec<Request>),
    ) -> Result<Option<u64>, Rejected> {
        let mut staging = self.lock();
        let mut requests = Vec::new();
        decide(&mut staging.twins.values().map(|entry| &entry.twin), &mut requests);
        let mut batch = None;
        for request in requests {
            match staging.record(request, now_us) {
                Ok(change) => {
                    batch = Some(staging.batch);
                    self.follow(&mut staging, change, now_us);
                }
                Err(Rejected::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
    }

    /// All twins as they are durable, in no order.
    pub fn twins(&self) -> Vec<Arc<Twin>> {
        self.commits
            .visible
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Number of twins.
    pub fn twin_count(&self) -> usize {
        self.commits.visible.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Twins that take no changes because part of their history is damaged.
    pub fn stalled(&self) -> Vec<ThingId> {
        let staging = self.lock();
        let stalled = staging.twins.iter().filter(|(_, entry)| entry.stalled);
        stalled.map(|(id, _)| id.clone()).collect()
    }

    /// Whether a twin takes no changes because part of its history is damaged.
    pub fn is_stalled(&self, id: &str) -> bool {
        self.lock().twins.get(id).is_some_and(|entry| entry.stalled)
    }

    /// Takes the states of stalled twins as they are: what is lost is lost. A new snapshot then
    /// leaves the damage behind; the segments before it are history only.
    ///
    /// # Errors
    /// Errors of the disk; nothing is accepted then.
    pub fn accept_loss(&self, now_us: i64) -> io::Result<Vec<ThingId>> {
        let stalled = self.stalled();
        let failed = |rejected: Rejected| io::Error::other(format!("{rejected:?}"));
        {
            let mut staging = self.lock();
            for id in &stalled {
                staging.record_state(id, now_us).map_err(failed)?;
            }
            staging.log.roll(0).map_err(|error| failed(error.into()))?;
            staging.take_snapshot();
        }
        self.commit();
        match self.durable_now().failed {
            Some(cause) => Err(io::Error::other(&*cause)),
            None => self.write_snapshot().map(|_| stalled),
        }
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Why the log takes nothing any more, if so.
    pub fn read_only(&self) -> Option<String> {
        self.lock().log.read_only().map(str::to_owned)
    }

    /// Events of a twin, newest first, until `use_event` returns `false` or history ends.
    ///
    /// # Errors
    /// Errors of the disk; `InvalidData` where a record is damaged.
    pub fn history(
        &self,
        id: &ThingId,
        use_event: impl FnMut(u64, i64, HistoryRecord) -> bool,
    ) -> io::Result<()> {
        match self.twin(id.as_str()) {
            Some(twin) => history::of_twin(&*self.disk, &twin, use_event),
            None => Ok(()),
        }
    }

    /// Events of all twins from `since_us` on, oldest first, until `use_event` returns `false`;
    /// whether none of them was dropped or lies further back in the log than `bytes_max`. Reads
    /// the log in one go and holds no lock: for a thread of its own.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn events_since(
        &self,
        since_us: i64,
        bytes_max: u64,
        use_event: impl FnMut(LoggedEvent<'_>) -> bool,
    ) -> io::Result<bool> {
        history::since(&*self.disk, since_us, bytes_max, use_event)
    }

    /// Returns when a snapshot is due.
    pub async fn snapshot_due(&self) {
        self.commits.snapshot_due.notified().await;
    }

    /// Writes the snapshot that is due, if one is. Takes as long as the disk does: for a thread of
    /// its own.
    ///
    /// # Errors
    /// Errors of the disk; the snapshot before stays valid.
    pub fn write_snapshot(&self) -> io::Result<bool> {
        let Some(snapshot) = self.lock().snapshot.take() else { return Ok(false) };
        snapshot.write(&*self.disk, self.history_bytes_max)?;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Staging> {
        commit::lock(&self.staging)
    }
}
