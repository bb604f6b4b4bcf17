//! The one writer: judges changes in order, records them, makes them durable in batches, and only
//! then acknowledges and publishes.
//!
//! A change is judged and applied under one lock, and its record is staged. Whoever wants it
//! durable calls [`Writer::commit`]: the first caller writes and syncs everything that is staged,
//! the others return at once, since the leader looks again before it stops. So a batch is what
//! arrived while the last one was being written, and a thread that is alone commits by itself,
//! without a hand-over.
//!
//! What follows from a change in the same process (a verdict, an aggregate) is a [`Reaction`]: its
//! changes are applied at once and recorded behind it in the same batch, so one sync makes both
//! durable and a visible verdict implies its update.
//!
//! Always true, and tested:
//! 1. nothing is visible to readers before it is durable;
//! 2. a change that was refused left no trace;
//! 3. after a failed write or sync nothing is accepted any more, and reads go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::base::telemetry::Telemetry;
use crate::store::disk::Disk;
use crate::store::record::{Position, Record};
use crate::store::{self, AppendError, Log, Options, Recovered, Recovery};
use crate::twin::path::Path;
use crate::twin::{Action, Change, Event, Refusal, ThingId, Twin, apply, decide};

/// A disk whose batches take longer is left to the writer's own thread.
pub const INLINE_COMMIT_MAX: Duration = Duration::from_millis(2);
/// Changes that follow from changes: a verdict may call for another service, and so on to this
/// depth; what goes beyond is dropped and reported.
pub const REACTION_DEPTH_MAX: u8 = 4;
/// Largest document, bytes.
pub const DOCUMENT_LEN_MAX: usize = 512 * 1024;

/// Changes of a batch for which room is kept, about 0.2 MiB.
const SPARE_CHANGES_MAX: usize = 1024;

/// Record kinds of the log.
mod kind {
    /// An event of a twin.
    pub(super) const EVENT: u8 = 1;
    /// A twin's whole state.
    pub(super) const STATE: u8 = 2;
    /// A document; an empty payload deletes it.
    pub(super) const DOCUMENT: u8 = 3;
}
const FORMAT: u16 = 1;

/// Who wants a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A node, through its reading.
    Node,
    /// A client of the API.
    Client,
    /// A service: its verdict.
    Service(Arc<str>),
    /// The runtime: an object that was applied, an aggregate.
    Runtime,
}

/// One change that is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which twin.
    pub id: ThingId,
    /// What.
    pub change: Change,
    /// Under which condition.
    pub only_if: Precondition,
    /// By whom.
    pub origin: Origin,
    /// How many changes led to this one; 0 for one that comes from outside.
    pub depth: u8,
}

/// A condition on the twin as it is when the change is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// None.
    #[default]
    Always,
    /// No such thing exists.
    Absent,
    /// The thing exists.
    Present,
    /// The thing has this revision.
    Revision(u64),
    /// The thing exists, and what it has at `features/FEATURE/properties/PROPERTY` is not a
    /// number above this one.
    NotAbove {
        /// ID of the feature.
        feature: Arc<str>,
        /// Name of the property.
        property: &'static str,
        /// The greatest that it may be.
        number: u64,
    },
}

/// What was recorded, and in which batch.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The change.
    pub change: Committed,
    /// Durable once [`Durable::batch`] has reached this.
    pub batch: u64,
}

/// One event and the twin that it led to.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Of which twin.
    pub id: ThingId,
    /// What happened.
    pub event: Arc<Event>,
    /// The twin before; `None` if there was none.
    pub before: Option<Arc<Twin>>,
    /// The twin after; `None` if it was deleted.
    pub after: Option<Arc<Twin>>,
    /// The revision that the event gave.
    pub revision: u64,
    /// Microseconds since 1970.
    pub time_us: i64,
    /// Who wanted it.
    pub origin: Origin,
    /// How many changes led to this one; 0 for one that came from outside.
    pub depth: u8,
}

/// Why a change was not recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejected {
    /// The twin does not take it.
    Refused(Refusal),
    /// The log does not take it.
    NotStored(AppendError),
}

impl From<AppendError> for Rejected {
    fn from(error: AppendError) -> Self {
        Self::NotStored(error)
    }
}

/// How far the log is durable.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// Every batch up to this one is on the disk.
    pub batch: u64,
    /// Why no batch behind it will be.
    pub failed: Option<Arc<str>>,
}

/// What follows from a change at once, in the same batch.
pub trait Reaction: Send + Sync {
    /// Adds the changes that follow from `change` to `follow`. Called under the writer's lock:
    /// microseconds only, and no call back into the writer.
    fn react(&self, change: &Committed, follow: &mut Vec<Request>);
    /// Called when changes were dropped because they were [`REACTION_DEPTH_MAX`] deep.
    fn too_deep(&self, change: &Committed);
}

/// Is told what became durable.
pub trait Sink: Send + Sync {
    /// Takes the changes of one batch, in order. Called by the thread that commits: hands over,
    /// does not wait.
    fn committed(&self, changes: &[Committed]);
}

/// Counts of the writer, since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Events recorded.
    pub events: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Bytes handed to the disk.
    pub bytes: u64,
    /// Changes refused for lack of space.
    pub full: u64,
    /// Smoothed duration of writing and syncing a batch.
    pub commit_time: Duration,
}

/// Named JSON texts that are durable beside the twins: the objects of manifests. As text, because
/// they are read seldom and a parsed object takes ten times the memory.
pub type Documents = BTreeMap<String, Arc<str>>;

/// See the module.
pub struct Writer {
    inner: Mutex<Inner>,
    /// Held by the thread that commits.
    leader: Mutex<Spare>,
    visible: RwLock<HashMap<ThingId, Arc<Twin>>>,
    durable: watch::Sender<Durable>,
    reactions: Vec<Arc<dyn Reaction>>,
    sinks: RwLock<Vec<Arc<dyn Sink>>>,
    history_bytes_max: u64,
    disk: Arc<dyn Disk>,
    snapshot_due: tokio::sync::Notify,
    telemetry: OnceLock<Arc<Telemetry>>,
}

/// What a batch was held in, kept for the next one: a buffer that is given back to the allocator
/// after each batch costs more than filling it.
#[derive(Default)]
struct Spare {
    bytes: Vec<u8>,
    changes: Vec<Committed>,
}

struct Inner {
    log: Log,
    twins: HashMap<ThingId, Entry>,
    documents: HashMap<String, Document>,
    staged: Vec<Committed>,
    /// Number of the batch that is being staged.
    batch: u64,
    counts: Counts,
    snapshot: Option<Snapshot>,
}

struct Entry {
    twin: Arc<Twin>,
    stalled: bool,
}

struct Document {
    text: Arc<str>,
    revision: u64,
    tail: Position,
}

/// Everything as of a segment boundary, to be written by [`Writer::write_snapshot`].
struct Snapshot {
    boundary: u32,
    twins: Vec<Arc<Twin>>,
    documents: Vec<(String, Arc<str>, u64, Position)>,
}

/// What [`Writer::open`] found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Of the log.
    pub recovery: Recovery,
    /// Twins that exist.
    pub twins: usize,
    /// Twins whose history has a hole: they show the newest state that can be proved and take no
    /// changes.
    pub stalled: BTreeSet<ThingId>,
    /// Records that could not be read for another reason than damage.
    pub unreadable: u64,
}

impl Writer {
    /// Opens the state on `disk`.
    ///
    /// # Errors
    /// See [`Log::open`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        reactions: Vec<Arc<dyn Reaction>>,
    ) -> io::Result<(Self, Found)> {
        let mut replay = Replay::default();
        let history_bytes_max = options.history_bytes_max;
        let (log, recovery) = Log::open(disk.clone(), options, |recovered| replay.take(recovered))?;
        let keys = recovery.damage.iter().flat_map(|damage| &damage.keys);
        replay.stalled.extend(keys.filter_map(|key| ThingId::parse(key).ok()));
        for (id, entry) in &mut replay.twins {
            entry.stalled = replay.stalled.contains(id);
        }
        replay.stalled.retain(|id| replay.twins.contains_key(id));
        let found = Found {
            recovery,
            twins: replay.twins.len(),
            stalled: replay.stalled,
            unreadable: replay.unreadable,
        };
        let visible = replay.twins.iter().map(|(id, entry)| (id.clone(), entry.twin.clone()));
        let writer = Self {
            visible: RwLock::new(visible.collect()),
            inner: Mutex::new(Inner {
                log,
                twins: replay.twins,
                documents: replay.documents,
                staged: Vec::new(),
                batch: 1,
                counts: Counts::default(),
                snapshot: None,
            }),
            leader: Mutex::default(),
            durable: watch::Sender::new(Durable::default()),
            reactions,
            sinks: RwLock::new(Vec::new()),
            history_bytes_max,
            disk,
            snapshot_due: tokio::sync::Notify::new(),
            telemetry: OnceLock::new(),
        };
        Ok((writer, found))
    }

    /// Has the time of each batch recorded there; the first call counts.
    pub fn measure(&self, telemetry: Arc<Telemetry>) {
        let _first = self.telemetry.set(telemetry);
    }

    /// Adds a sink for what becomes durable from now on.
    pub fn add_sink(&self, sink: Arc<dyn Sink>) {
        self.sinks.write().unwrap_or_else(PoisonError::into_inner).push(sink);
    }

    /// Judges a change and stages its record and everything that follows from it.
    ///
    /// It is durable, visible and published once the batch of the answer is: call
    /// [`Writer::commit`] or have someone call it, and see [`Writer::durable`].
    ///
    /// # Errors
    /// See [`Rejected`]; nothing changed then.
    pub fn submit(&self, request: Request, now_us: i64) -> Result<Accepted, Rejected> {
        let mut inner = self.lock();
        let change = inner.record(request, now_us)?;
        let batch = inner.batch;
        if !self.reactions.is_empty() {
            self.follow(&mut inner, change.clone(), now_us);
        }
        Ok(Accepted { change, batch })
    }

    fn follow(&self, inner: &mut Inner, first: Committed, now_us: i64) {
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
                if let Ok(change) = inner.record(request, now_us) {
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
        let mut inner = self.lock();
        let len = documents.iter().map(|(key, text)| {
            let payload = text.as_deref().map_or(0, str::len);
            store::record::align(store::record::HEADER_LEN + key.len() + payload)
        });
        inner.reserve(len.sum())?;
        for (key, text) in documents {
            let (revision, tail) =
                inner.documents.get(&key).map_or((0, Position::NONE), |d| (d.revision, d.tail));
            let record = Record {
                kind: kind::DOCUMENT,
                format: FORMAT,
                key: &key,
                revision: revision + 1,
                time_us: now_us,
                previous: tail,
                payload: text.as_deref().map_or(&[][..], str::as_bytes),
            };
            let tail = inner.log.stage(&record);
            match text {
                Some(text) => {
                    inner.documents.insert(key, Document { text, revision: revision + 1, tail });
                }
                None => {
                    inner.documents.remove(&key);
                }
            }
        }
        Ok(inner.batch)
    }

    /// All documents whose key starts with `prefix`, by key.
    pub fn documents(&self, prefix: &str) -> Documents {
        let inner = self.lock();
        let all = inner.documents.iter().filter(|(key, _)| key.starts_with(prefix));
        all.map(|(key, document)| (key.clone(), document.text.clone())).collect()
    }

    /// Writes and syncs what is staged, until nothing is. Returns at once when another thread is
    /// at it; that one then takes what this one staged, too.
    pub fn commit(&self) {
        while self.commit_batch() {}
    }

    /// Commits one batch, unless another thread is at it; whether more waits, which whoever is told
    /// so has to commit. For those who have something to do between two batches.
    pub fn commit_batch(&self) -> bool {
        let Ok(mut leader) = self.leader.try_lock() else { return false };
        let (batch, mut staged, number) = {
            let mut inner = self.lock();
            if !inner.log.has_staged() {
                // What is staged from here on sees the leader gone or is seen below.
                drop(inner);
                drop(leader);
                return !self.lock().log_is_idle();
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
                self.lock().log.poison(&error);
                let cause: Arc<str> = error.to_string().into();
                tracing::error!(%cause, "the log cannot be written; read-only until a restart");
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
            let mut inner = self.lock();
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
            let inner = self.lock();
            (inner.snapshot.is_some(), inner.log_is_idle())
        };
        if snapshot {
            self.snapshot_due.notify_one();
        }
        !idle
    }

    /// Follows how far the log is durable.
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// How far the log is durable now.
    pub fn durable_now(&self) -> Durable {
        self.durable.borrow().clone()
    }

    /// The twin as it is durable.
    pub fn twin(&self, id: &str) -> Option<Arc<Twin>> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
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
        let mut inner = self.lock();
        let mut requests = Vec::new();
        decide(&mut inner.twins.values().map(|entry| &entry.twin), &mut requests);
        let mut batch = None;
        for request in requests {
            match inner.record(request, now_us) {
                Ok(change) => {
                    batch = Some(inner.batch);
                    self.follow(&mut inner, change, now_us);
                }
                Err(Rejected::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
    }

    /// All twins as they are durable, in no order.
    pub fn twins(&self) -> Vec<Arc<Twin>> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Number of twins.
    pub fn twin_count(&self) -> usize {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Twins that take no changes because part of their history is damaged.
    pub fn stalled(&self) -> Vec<ThingId> {
        let inner = self.lock();
        let stalled = inner.twins.iter().filter(|(_, entry)| entry.stalled);
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
            let mut inner = self.lock();
            for id in &stalled {
                inner.record_state(id, now_us).map_err(failed)?;
            }
            inner.log.roll(0).map_err(|error| failed(error.into()))?;
            inner.take_snapshot();
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
        mut use_event: impl FnMut(u64, i64, HistoryRecord) -> bool,
    ) -> io::Result<()> {
        let Some(twin) = self.twin(id.as_str()) else { return Ok(()) };
        let mut at = twin.tail;
        while !at.is_none() {
            let read = store::read(&*self.disk, at, |record| {
                let content = match record.kind {
                    kind::EVENT => serde_json::from_slice(record.payload)
                        .map(HistoryRecord::Event)
                        .map_err(|error| error.to_string()),
                    _ => Twin::from_state(record.revision, record.payload)
                        .map(|twin| HistoryRecord::State(Box::new(twin))),
                };
                (record.revision, record.time_us, record.previous, content)
            });
            let (revision, time_us, previous, content) = match read {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let content = content.map_err(io::Error::other)?;
            if !use_event(revision, time_us, content) {
                return Ok(());
            }
            at = previous;
        }
        Ok(())
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
        mut use_event: impl FnMut(LoggedEvent<'_>) -> bool,
    ) -> io::Result<bool> {
        store::read_since(&*self.disk, since_us, bytes_max, |record| {
            record.kind != kind::EVENT || use_event(LoggedEvent(record))
        })
    }

    /// Returns when a snapshot is due.
    pub async fn snapshot_due(&self) {
        self.snapshot_due.notified().await;
    }

    /// Writes the snapshot that is due, if one is. Takes as long as the disk does: for a thread of
    /// its own.
    ///
    /// # Errors
    /// Errors of the disk; the snapshot before stays in force.
    pub fn write_snapshot(&self) -> io::Result<bool> {
        let Some(snapshot) = self.lock().snapshot.take() else { return Ok(false) };
        let twins = snapshot.twins.iter().map(|twin| {
            let record = Record {
                kind: kind::STATE,
                format: FORMAT,
                key: twin.id.as_str(),
                revision: twin.revision,
                time_us: twin.modified_us,
                previous: twin.tail,
                payload: &[],
            };
            (record, twin.to_state())
        });
        let documents = snapshot.documents.iter().map(|(key, text, revision, tail)| {
            let record = Record {
                kind: kind::DOCUMENT,
                format: FORMAT,
                key,
                revision: *revision,
                time_us: 0,
                previous: *tail,
                payload: &[],
            };
            (record, text.as_bytes().to_vec())
        });
        store::write_snapshot(
            &*self.disk,
            snapshot.boundary,
            self.history_bytes_max,
            &mut twins.chain(documents),
        )?;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a bug; the state is then as of the last completed step, and
        // what was acknowledged is on the disk.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record of a twin's history.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryRecord {
    /// What happened.
    Event(Event),
    /// The whole twin, where a loss was accepted.
    State(Box<Twin>),
}

/// An event as the log has it.
#[derive(Debug, Clone, Copy)]
pub struct LoggedEvent<'a>(Record<'a>);

impl LoggedEvent<'_> {
    /// The twin's ID.
    pub fn id(&self) -> &str {
        self.0.key
    }

    /// The revision that it gave.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// When, microseconds since 1970.
    pub fn time_us(&self) -> i64 {
        self.0.time_us
    }

    /// What happened; `None` if it cannot be read.
    pub fn event(&self) -> Option<Event> {
        serde_json::from_slice(self.0.payload).ok()
    }
}

impl Inner {
    fn log_is_idle(&self) -> bool {
        self.staged.is_empty() && !self.log.has_staged()
    }

    fn record(&mut self, request: Request, now_us: i64) -> Result<Committed, Rejected> {
        let Request { id, change, only_if, origin, depth } = request;
        let entry = self.twins.get(&id);
        if entry.is_some_and(|entry| entry.stalled) {
            return Err(Rejected::Refused(Refusal::Stalled(id)));
        }
        let before = entry.map(|entry| entry.twin.clone());
        let tail = before.as_ref().map_or(Position::NONE, |twin| twin.tail);
        check(&only_if, &id, before.as_deref()).map_err(Rejected::Refused)?;
        let event = decide(&id, before.as_deref(), change).map_err(Rejected::Refused)?;
        let after = apply(&id, before.as_deref(), &event, now_us);
        if after.as_ref().is_some_and(|twin| twin.json_len() > crate::twin::THING_LEN_MAX) {
            return Err(Rejected::Refused(Refusal::TooLarge(id)));
        }
        let revision = before.as_ref().map_or(0, |twin| twin.revision) + 1;
        let payload = serde_json::to_vec(&event).map_err(|error| {
            Rejected::Refused(Refusal::InvalidValue("json.invalid", error.to_string()))
        })?;
        let record = Record {
            kind: kind::EVENT,
            format: FORMAT,
            key: id.as_str(),
            revision,
            time_us: now_us,
            previous: tail,
            payload: &payload,
        };
        self.reserve(record.encoded_len())?;
        let tail = self.log.stage(&record);
        let after = after.map(|twin| Arc::new(twin.at(tail)));
        match &after {
            Some(twin) => match self.twins.get_mut(&id) {
                Some(entry) => entry.twin = twin.clone(),
                None => {
                    let entry = Entry { twin: twin.clone(), stalled: false };
                    self.twins.insert(id.clone(), entry);
                }
            },
            None => {
                self.twins.remove(&id);
            }
        }
        self.counts.events += 1;
        let change = Committed {
            id,
            event: Arc::new(event),
            before,
            after,
            revision,
            time_us: now_us,
            origin,
            depth,
        };
        self.staged.push(change.clone());
        Ok(change)
    }

    fn record_state(&mut self, id: &ThingId, now_us: i64) -> Result<(), Rejected> {
        let Some(entry) = self.twins.get(id) else { return Ok(()) };
        let (payload, revision, previous) =
            (entry.twin.to_state(), entry.twin.revision + 1, entry.twin.tail);
        let record = Record {
            kind: kind::STATE,
            format: FORMAT,
            key: id.as_str(),
            revision,
            time_us: now_us,
            previous,
            payload: &payload,
        };
        self.reserve(record.encoded_len())?;
        let tail = self.log.stage(&record);
        if let Some(entry) = self.twins.get_mut(id) {
            let twin = Arc::make_mut(&mut entry.twin);
            twin.revision = revision;
            twin.tail = tail;
            entry.stalled = false;
        }
        Ok(())
    }

    fn reserve(&mut self, len: usize) -> Result<(), AppendError> {
        let segment = self.log.segment();
        let reserved = self.log.reserve(len);
        if reserved == Err(AppendError::Full) {
            self.counts.full += 1;
        }
        if self.log.segment() != segment {
            self.take_snapshot();
        }
        reserved
    }

    /// Notes everything as it is, at the boundary of a segment that has just begun.
    fn take_snapshot(&mut self) {
        self.snapshot = Some(Snapshot {
            boundary: self.log.segment(),
            twins: self.twins.values().map(|entry| entry.twin.clone()).collect(),
            documents: self
                .documents
                .iter()
                .map(|(key, d)| (key.clone(), d.text.clone(), d.revision, d.tail))
                .collect(),
        });
    }
}

fn check(only_if: &Precondition, id: &ThingId, twin: Option<&Twin>) -> Result<(), Refusal> {
    match (only_if, twin) {
        (Precondition::Always, _)
        | (Precondition::Absent, None)
        | (Precondition::Present, Some(_)) => Ok(()),
        (Precondition::Absent, Some(_)) => Err(Refusal::Conflict(id.clone())),
        (
            Precondition::Present | Precondition::Revision(_) | Precondition::NotAbove { .. },
            None,
        ) => Err(Refusal::NotFound(id.clone(), Path::Thing)),
        (Precondition::NotAbove { feature, property, number }, Some(twin)) => {
            match twin.property_named(feature, property).and_then(serde_json::Value::as_u64) {
                Some(is) if is > *number => Err(Refusal::PreconditionFailed(format!(
                    "`{feature}/{property}` of `{id}` is {is}, above {number}."
                ))),
                _ => Ok(()),
            }
        }
        (Precondition::Revision(wanted), Some(twin)) if twin.revision == *wanted => Ok(()),
        (Precondition::Revision(wanted), Some(twin)) => Err(Refusal::PreconditionFailed(format!(
            "The thing `{id}` has revision {}, not {wanted}.",
            twin.revision
        ))),
    }
}

/// The state that the log's records lead to.
#[derive(Default)]
struct Replay {
    twins: HashMap<ThingId, Entry>,
    documents: HashMap<String, Document>,
    stalled: BTreeSet<ThingId>,
    unreadable: u64,
}

impl Replay {
    fn take(&mut self, recovered: Recovered<'_>) {
        let (record, tail) = match recovered {
            Recovered::State(record) => (record, record.previous),
            Recovered::Appended(record, position) => (record, position),
        };
        match record.kind {
            kind::DOCUMENT if record.payload.is_empty() => {
                self.documents.remove(record.key);
            }
            kind::DOCUMENT => match std::str::from_utf8(record.payload) {
                Ok(text) => {
                    let document = Document { text: text.into(), revision: record.revision, tail };
                    self.documents.insert(record.key.to_owned(), document);
                }
                Err(_) => self.unreadable += 1,
            },
            kind::STATE | kind::EVENT => {
                if self.twin(&record, tail).is_none() {
                    self.unreadable += 1;
                }
            }
            _ => self.unreadable += 1,
        }
    }

    fn twin(&mut self, record: &Record<'_>, tail: Position) -> Option<()> {
        let id = ThingId::parse(record.key).ok()?;
        if record.kind == kind::STATE {
            let twin = Twin::from_state(record.revision, record.payload).ok()?;
            let twin = Arc::new(twin.at(tail));
            // A whole state needs nothing before it.
            self.stalled.remove(&id);
            self.twins.insert(id, Entry { twin, stalled: false });
            return Some(());
        }
        let event: Event = serde_json::from_slice(record.payload).ok()?;
        let created = event.path == Path::Thing && event.action == Action::Created;
        let before = self.twins.get(&id).map(|entry| entry.twin.clone());
        let expected = before.as_ref().map_or(0, |twin| twin.revision) + 1;
        if record.revision != expected || (before.is_none() && !created) {
            // A record is missing before this one. The state stays what can be proved.
            self.stalled.insert(id);
            return Some(());
        }
        match apply(&id, before.as_deref(), &event, record.time_us) {
            Some(twin) => {
                let twin = Arc::new(twin.at(tail));
                self.twins.insert(id, Entry { twin, stalled: false });
            }
            None => {
                self.twins.remove(&id);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
