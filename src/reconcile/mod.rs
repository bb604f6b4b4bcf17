//! Reconciling: what is declared is stored, and one controller a kind makes it so and keeps it so.
//!
//! [`Reconciler::apply`] checks documents, plans, and stores what changed in one batch; only when
//! that is durable are the controllers woken. A controller compares what its object asks for with
//! what is there, does what is missing and sets conditions. It is started by level: by a change of
//! its object or of something that the object refers to, by a failure's backoff, and by a slow
//! resync; running it again does nothing new.
//!
//! An object is a document of the writer, `object/Kind/namespace/name`. Its *generation* rises
//! when its spec changes. Status (conditions) is kept in memory: it is what the controllers found
//! since the start, so it can never be mistaken for something that was asked for.
//!
//! What an object made is remembered with it, so that a field that is declared no longer is taken
//! back, and what others wrote into the same twin is left alone. A deleted object stays, marked,
//! until its controller has removed what it made.
//!
//! Always true, and tested:
//! 1. one broken document changes nothing;
//! 2. a second apply of the same documents changes nothing;
//! 3. a failure of one object delays no other.
//!
//! Not here: reading YAML (`manifest`), the HTTP surface (`reconcile::http`).

mod aggregates;
mod control;
mod controllers;
pub mod disk;
pub mod http;
mod models;
pub mod plan;
pub mod queue;
mod stored;
mod twins;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cacc::runtime::Control;
use crate::edgeai::Model;
use crate::edgeai::service::Services;
use crate::manifest::{self, Diagnostic, Kind, Object, Spec};
use crate::node::Directory;
use crate::scalar::rfc3339;
use crate::store::record::KEY_LEN_MAX;
use crate::telemetry::{Severity, Telemetry, now_us};
use crate::twin::ThingId;
use crate::twin::aggregate::Aggregates;
use crate::twin::path::Path;
use crate::twin::selector::Selector;
use crate::writer::{Committed, DOCUMENT_LEN_MAX, Origin, Rejected, Sink, Writer};
use plan::{Ownership, Plan, PlanError, Verb};
use queue::{Outcome, Queue};
pub use stored::{Facts, Made, Stored};

/// Controllers that compute at the same time; more would only compete with the readings for two
/// cores.
const PARALLEL_MAX: usize = 4;

/// Objects that are worked on at the same time. Most of them wait for the disk, all for the same
/// sync.
const IN_HAND_MAX: usize = 256;

/// Time between two looks at an object that nothing happened to.
const RESYNC: Duration = Duration::from_secs(300);

/// Least time between two looks of somebody who waits for objects.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Keys of documents start with this.
const PREFIX: &str = "object/";

/// Trained models by name: of the default namespace `name`, of others `namespace/name`.
pub type Models = RwLock<HashMap<String, Arc<Model>>>;

/// What a reconciler works with.
pub struct ReconcilerContext {
    /// Where objects and twins are recorded.
    pub writer: Arc<Writer>,
    /// What readings are checked against.
    pub directory: Arc<Directory>,
    /// Where events are noted.
    pub telemetry: Arc<Telemetry>,
    /// Runs services.
    pub services: Arc<dyn Services>,
    /// The directory of the state; models are kept below it.
    pub state_dir: PathBuf,
    /// Has what is staged committed, by whoever commits.
    pub kick: Arc<dyn Fn() + Send + Sync>,
    /// The aggregates that the writer derives.
    pub aggregates: Arc<Aggregates>,
    /// Sees to it that nodes talk as rules ask.
    pub control: Arc<Control>,
}

/// Which object: unique among all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What sort of object.
    pub kind: Kind,
    /// Where its name is unique.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn of(object: &Object) -> Self {
        Self {
            kind: object.kind,
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone(),
        }
    }

    fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of its document: readable, or a digest where that would be too long for the log.
    fn document(&self) -> String {
        let key = format!("{PREFIX}{self}");
        if key.len() <= KEY_LEN_MAX {
            return key;
        }
        let digest = <sha2::Sha256 as sha2::Digest>::digest(key.as_bytes());
        format!("{PREFIX}{}/{}", self.kind, hex(&digest))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl FromStr for ObjectKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [kind, namespace, name] = parts[..] else {
            return Err(format!("`{text}` is not KIND/NAMESPACE/NAME"));
        };
        let kind = Kind::find(kind).ok_or_else(|| format!("there is no kind `{kind}`"))?;
        Ok(Self::new(kind, namespace, name))
    }
}

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
struct Status {
    observed_generation: u64,
    conditions: Vec<Condition>,
}

/// What a controller found.
#[derive(Debug, Clone)]
struct Report {
    ready: Truth,
    reason: &'static str,
    message: String,
    progress: Progress,
    next: Outcome,
    /// It holds once this batch is durable.
    batch: Option<u64>,
}

/// Whether a controller still works on its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is left to do.
    Settled,
    /// It goes on by itself.
    Reconciling,
    /// It cannot go on until somebody changes something.
    Stalled,
}

impl Report {
    fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::True,
            reason,
            message: message.into(),
            progress: Progress::Settled,
            next: Outcome::Done,
            batch: None,
        }
    }

    fn once_durable(mut self, batch: Option<u64>) -> Self {
        self.batch = batch;
        self
    }

    /// What nobody acts on yet.
    fn not_acted_on(message: impl Into<String>) -> Self {
        Self { ready: Truth::Unknown, ..Self::ready("NotActedOn", message) }
    }

    /// Something is missing that comes by itself, and then wakes this object.
    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            ready: Truth::False,
            progress: Progress::Reconciling,
            ..Self::ready(reason, message)
        }
    }

    /// It did not work, and may work later.
    fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { next: Outcome::Failed, ..Self::waiting(reason, message) }
    }

    /// It cannot work as declared.
    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { progress: Progress::Stalled, ..Self::waiting(reason, message) }
    }

    fn again(mut self, after: Duration) -> Self {
        self.next = Outcome::Again(after);
        self
    }
}

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

/// How to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyOptions {
    /// Plan, and change nothing.
    pub dry_run: bool,
    /// Delete the objects of the set that are not declared.
    pub prune: bool,
    /// The set that owns the objects.
    pub set: Option<String>,
    /// The base of a saved plan: nothing is changed if it has moved.
    pub base: Option<String>,
}

/// What was, or would be, applied.
#[derive(Debug, Clone)]
pub struct ApplyReport {
    /// Whether nothing was changed because a dry run was asked for.
    pub dry_run: bool,
    /// What happened, or would.
    pub plan: Plan,
    /// What is stored and not acted on yet, one sentence each.
    pub not_acted_on: Vec<String>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

impl ApplyReport {
    /// The form for programs, as text: there may be a hundred thousand actions.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Report<'a> {
            dry_run: bool,
            base: &'a str,
            actions: &'a [plan::Action],
            summary: plan::Summary,
            not_acted_on: &'a [String],
            warnings: Value,
        }
        let report = Report {
            dry_run: self.dry_run,
            base: &self.plan.base,
            actions: &self.plan.actions,
            summary: self.plan.summary(),
            not_acted_on: &self.not_acted_on,
            warnings: manifest::diagnostic::to_json(&self.warnings)["diagnostics"].take(),
        };
        // Text, numbers and JSON: it always has a JSON form.
        serde_json::to_string(&report).unwrap_or_default()
    }
}

/// Why nothing was applied.
#[derive(Debug, Clone)]
pub enum ApplyError {
    /// The documents have mistakes.
    Invalid(Vec<Diagnostic>),
    /// There is no plan.
    Plan(PlanError),
    /// The stored objects changed since the plan was made.
    BaseMoved,
    /// An object is too large to be stored: which, bytes.
    TooLarge(ObjectKey, usize),
    /// There is no room, or the log takes nothing any more.
    NotStored(String),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(diagnostics) => {
                let errors = diagnostics.iter().filter(|one| one.is_error()).count();
                write!(f, "the documents have {}", manifest::diagnostic::plural(errors, "error"))
            }
            Self::Plan(error) => error.fmt(f),
            Self::BaseMoved => f.write_str("the objects changed since the plan was made"),
            Self::TooLarge(key, len) => {
                write!(f, "{key} has {len} bytes; an object takes {DOCUMENT_LEN_MAX} at most")
            }
            Self::NotStored(why) => write!(f, "nothing could be stored: {why}"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<PlanError> for ApplyError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// See the module.
pub struct Reconciler {
    context: ReconcilerContext,
    artefacts: disk::Artefacts,
    objects: RwLock<BTreeMap<ObjectKey, Stored>>,
    statuses: RwLock<HashMap<ObjectKey, Status>>,
    queue: Queue<ObjectKey>,
    /// Twins that clients changed; their objects are looked at again.
    touched: Mutex<BTreeSet<ThingId>>,
    touch: Notify,
    /// One apply at a time: each plans against what the one before stored.
    applying: tokio::sync::Mutex<()>,
    /// Counts changes of objects and statuses, for those who wait for one.
    changed: watch::Sender<u64>,
    /// Turns true at the end, for streams that would go on.
    stopping: watch::Sender<bool>,
    models: Arc<Models>,
    working: controllers::Working,
}

impl Reconciler {
    /// Reads the stored objects; readings are checked against their models from here on. Nothing
    /// is changed before [`Reconciler::run`].
    pub fn new(context: ReconcilerContext) -> Arc<Self> {
        let reconciler = Arc::new(Self {
            artefacts: disk::Artefacts::new(context.state_dir.join("models")),
            context,
            objects: RwLock::default(),
            statuses: RwLock::default(),
            queue: Queue::default(),
            touched: Mutex::default(),
            touch: Notify::new(),
            applying: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            models: Arc::default(),
            working: controllers::Working::default(),
        });
        reconciler.load();
        let watcher = Watcher(Arc::downgrade(&reconciler));
        reconciler.context.writer.add_sink(Arc::new(watcher));
        reconciler
    }

    fn load(&self) {
        let mut objects = BTreeMap::new();
        for (document, text) in self.context.writer.documents(PREFIX) {
            match Stored::read(&text) {
                Ok((key, stored)) => {
                    objects.insert(key, stored);
                }
                Err(why) => self.context.telemetry.event(
                    now_us(),
                    Severity::Warning,
                    "UnreadableObject",
                    document,
                    format!("the stored object cannot be read and is left as it is: {why}"),
                ),
            }
        }
        self.drop_artefacts(&objects);
        let keys: Vec<ObjectKey> = objects.keys().cloned().collect();
        *self.objects.write().unwrap_or_else(PoisonError::into_inner) = objects;
        for key in keys {
            self.set_directory(&key);
            // All of them before the controller decides anything: half of the rules would be
            // other rules.
            self.declare_to_control(&key);
            self.mark_changed(&key);
            self.queue.add(key);
        }
    }

    /// Removes model files and training data that no Model refers to.
    fn drop_artefacts(&self, objects: &BTreeMap<ObjectKey, Stored>) {
        let mut wanted = HashSet::new();
        for stored in objects.iter().filter(|(key, _)| key.kind == Kind::Model).map(|(_, s)| s) {
            match stored.typed().map(|object| (object.spec, object.metadata.annotations)) {
                Ok((Spec::Model(spec), notes)) => wanted.extend(models::needs(&spec, &notes)),
                // What it needs cannot be told.
                _ => return,
            }
        }
        if let Err(error) = self.artefacts.keep_only(&wanted) {
            tracing::warn!(%error, "model files that nothing refers to could not be removed");
        }
    }

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
                        tracing::error!(%error, "a controller ended in the middle of its work");
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
            report.unwrap_or_else(|error| Report::failed("Panicked", error.to_string()));
        if let Some(batch) = report.batch
            && let Err(why) = self.durable(batch).await
        {
            report = Report::failed("NotStored", why);
        }
        if stored.deleting && report.progress == Progress::Settled {
            match self.forget(&key, &stored).await {
                Ok(()) => return self.queue.done(key, Outcome::Done),
                Err(why) => report = Report::failed("NotDeleted", why),
            }
        } else if report.progress == Progress::Settled {
            self.forget_what_is_gone(&key, &stored).await;
        }
        let next = report.next;
        self.set_status(&key, &stored, report);
        self.queue.done(key, next);
    }

    /// The part of a round that computes and stages changes, on a thread that may block.
    fn look_at(self: &Arc<Self>, key: &ObjectKey, stored: &Stored) -> Report {
        let report = if stored.deleting {
            match self.finalise(key, stored) {
                Ok(batch) => Report::ready("Deleted", "").once_durable(batch),
                Err(report) => report,
            }
        } else {
            match stored.typed() {
                Ok(object) => self.act(key, stored, &object),
                Err(why) => Report::stalled("UnreadableObject", why),
            }
        };
        if report.batch.is_some() {
            (self.context.kick)();
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

    /// Checks, plans, stores and wakes the controllers.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is changed then.
    pub async fn apply(
        self: &Arc<Self>,
        documents: Vec<Value>,
        options: ApplyOptions,
    ) -> Result<ApplyReport, ApplyError> {
        let _turn = self.applying.lock().await;
        let this = self.clone();
        // Thousands of documents take a while to check.
        let prepared = tokio::task::spawn_blocking(move || this.prepare(documents, &options)).await;
        let (report, changes) =
            prepared.map_err(|error| ApplyError::NotStored(error.to_string()))??;
        if !report.dry_run {
            self.store(changes).await?;
        }
        Ok(report)
    }

    /// What an apply would do, and the objects as they would be.
    fn prepare(
        &self,
        documents: Vec<Value>,
        options: &ApplyOptions,
    ) -> Result<(ApplyReport, Vec<(ObjectKey, Stored)>), ApplyError> {
        let objects = self.objects();
        let set = options.set.as_deref();
        let ownership = Ownership { set, prune: options.prune };
        let pruned = |stored: &Stored| options.prune && stored.set.as_deref() == set;
        let stays = |stored: &&Stored| !stored.deleting && !pruned(stored);
        let known: Vec<Object> =
            objects.values().filter(stays).filter_map(|stored| stored.typed().ok()).collect();
        let parsed = manifest::from_json(documents, &known);
        if parsed.has_errors() {
            return Err(ApplyError::Invalid(parsed.diagnostics));
        }
        let plan = plan::plan(&parsed.objects, &objects, ownership)?;
        if options.base.as_ref().is_some_and(|base| *base != plan.base) {
            return Err(ApplyError::BaseMoved);
        }
        let not_acted_on = not_acted_on(&parsed.objects);
        let mut declared: HashMap<ObjectKey, Object> =
            parsed.objects.into_iter().map(|object| (ObjectKey::of(&object), object)).collect();
        let now_us = now_us();
        let mut changes = Vec::new();
        for action in plan.actions.iter().filter(|action| action.action != Verb::Unchanged) {
            let before = objects.get(&action.key);
            let stored = match (action.action, declared.remove(&action.key), before) {
                (Verb::Delete, _, Some(before)) => before.to_delete(),
                (_, Some(object), before) => {
                    let mut facts = facts(&object, before, action, set, now_us);
                    inherit(&mut facts.made, &object, &objects);
                    Stored::new(&object.json, &facts)
                }
                _ => continue,
            };
            let len = stored.text().len();
            if len > DOCUMENT_LEN_MAX {
                return Err(ApplyError::TooLarge(action.key.clone(), len));
            }
            changes.push((action.key.clone(), stored));
        }
        let warnings = parsed.diagnostics;
        Ok((ApplyReport { dry_run: options.dry_run, plan, not_acted_on, warnings }, changes))
    }

    /// Stores changed objects in one batch and, once that is durable, wakes the controllers.
    async fn store(&self, changes: Vec<(ObjectKey, Stored)>) -> Result<(), ApplyError> {
        if changes.is_empty() {
            return Ok(());
        }
        let document = |(key, stored): &(ObjectKey, Stored)| (key.document(), Some(stored.text()));
        let documents = changes.iter().map(document).collect();
        let batch = self.put(documents).map_err(ApplyError::NotStored)?;
        self.durable(batch).await.map_err(ApplyError::NotStored)?;
        let keys: Vec<ObjectKey> = changes.iter().map(|(key, _)| key.clone()).collect();
        self.write_objects(|objects| objects.extend(changes));
        for key in &keys {
            self.mark_changed(key);
        }
        self.wake_dependents(&keys);
        keys.into_iter().for_each(|key| self.queue.add(key));
        Ok(())
    }

    /// Marks objects as deleted; their controllers remove them. Returns those that there are, and
    /// those that there are not.
    ///
    /// # Errors
    /// [`ApplyError::NotStored`]; nothing is changed then.
    pub async fn delete(
        self: &Arc<Self>,
        keys: Vec<ObjectKey>,
    ) -> Result<(Vec<ObjectKey>, Vec<ObjectKey>), ApplyError> {
        let _turn = self.applying.lock().await;
        let (found, missing): (Vec<_>, Vec<_>) = {
            let objects = self.objects();
            keys.into_iter().partition(|key| objects.contains_key(key))
        };
        let changes = {
            let objects = self.objects();
            let live = found.iter().filter_map(|key| Some((key, objects.get(key)?)));
            live.filter(|(_, stored)| !stored.deleting)
                .map(|(key, stored)| (key.clone(), stored.to_delete()))
                .collect()
        };
        self.store(changes).await?;
        Ok((found, missing))
    }

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
                    // Conditions that would only say that nothing is amiss are left out.
                    None => *truth == Truth::False && self.objects().contains_key(key),
                }
            }
        }
    }

    /// What keeps an object from being ready, in words.
    fn why_not(&self, key: &ObjectKey) -> String {
        if !self.objects().contains_key(key) {
            return "there is no such object".to_owned();
        }
        let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let conditions = statuses.get(key).map_or(&[][..], |status| &status.conditions);
        match conditions.iter().find(|one| one.condition == "Ready") {
            Some(ready) => format!("{}: {}", ready.reason, ready.message),
            None => "nothing is known of it yet".to_owned(),
        }
    }

    /// Whether an object is ready; what nobody acts on counts as ready. `None` if there is none.
    pub fn is_ready(&self, key: &ObjectKey) -> Option<bool> {
        self.objects().get(key)?;
        let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let conditions = statuses.get(key).map_or(&[][..], |status| &status.conditions);
        let is = |name: &str, truth| {
            conditions.iter().any(|one| one.condition == name && one.status == truth)
        };
        let not_acted_on = conditions.iter().any(|one| one.reason == "NotActedOn");
        Some((is("Ready", Truth::True) || not_acted_on) && !is("Reconciling", Truth::True))
    }

    /// The object with its status, as reading verbs show it.
    pub fn get(&self, key: &ObjectKey) -> Option<Value> {
        let stored = self.objects().get(key).cloned();
        match stored {
            Some(stored) => Some(self.view(key, &stored)),
            None => self.made_twin(key),
        }
    }

    /// All objects of a kind, or of all kinds, with their status, as the text of a JSON list; by
    /// kind, namespace and name.
    ///
    /// * `made`: whether the twins that TwinSets make are listed, too.
    pub fn list(
        &self,
        kind: Option<Kind>,
        namespace: Option<&str>,
        selector: &Selector,
        made: bool,
    ) -> String {
        let objects = self.objects();
        let in_reach = |place: &str| namespace.is_none_or(|namespace| namespace == place);
        let is_of = |other: Kind| kind.is_none_or(|kind| kind == other);
        let selected = |stored: &Stored| {
            selector.is_empty()
                || stored.typed().is_ok_and(|o| selector.matches(&o.metadata.labels))
        };
        // Each row by its key: an object, or a twin of a TwinSet.
        let mut rows: Vec<(ObjectKey, Option<usize>)> = objects
            .iter()
            .filter(|(key, stored)| is_of(key.kind) && in_reach(&key.namespace) && selected(stored))
            .map(|(key, _)| (key.clone(), None))
            .collect();
        let mut sets = Vec::new();
        if made && is_of(Kind::Twin) {
            for (set, stored) in objects.iter().filter(|(key, stored)| {
                key.kind == Kind::TwinSet && in_reach(&key.namespace) && !stored.deleting
            }) {
                let Ok(object) = stored.object() else { continue };
                let Spec::TwinSet(spec) = &object.spec else { continue };
                if !selector.is_empty() && !selector.matches(&object.twin_labels(spec)) {
                    continue;
                }
                let twin = |name: String| {
                    let key = ObjectKey::new(Kind::Twin, &set.namespace, &name);
                    (key, Some(sets.len()))
                };
                rows.extend(spec.twin_names(&set.name).into_iter().map(twin));
                sets.push((set, stored, object));
            }
            rows.sort();
        }
        let mut text = "[".to_owned();
        for (key, set) in rows {
            let view = match set.and_then(|at| sets.get(at)) {
                Some((set, stored, object)) => {
                    object.twin(&key.name).map(|twin| self.view_made(&key, &twin, set, stored))
                }
                None => objects.get(&key).map(|stored| self.view(&key, stored)),
            };
            if text.len() > 1 {
                text.push(',');
            }
            // One at a time: a hundred thousand values would take a gigabyte.
            text += &view.unwrap_or_default().to_string();
        }
        text.push(']');
        text
    }

    /// The trained models that are loaded.
    pub fn models(&self) -> Arc<Models> {
        self.models.clone()
    }

    /// The store of model files and training data.
    pub fn artefacts(&self) -> &disk::Artefacts {
        &self.artefacts
    }

    /// How many objects there are of each kind, and how many of them are ready.
    pub fn counts(&self) -> BTreeMap<Kind, (usize, usize)> {
        let mut counts = BTreeMap::new();
        let keys: Vec<ObjectKey> = self.objects().keys().cloned().collect();
        for key in keys {
            let ready = self.is_ready(&key) == Some(true);
            let (all, good) = counts.entry(key.kind).or_insert((0, 0));
            *all += 1;
            *good += usize::from(ready);
        }
        counts
    }

    /// The objects as declared, as the text of a JSON list.
    pub fn declared_json(&self) -> String {
        let objects = self.objects();
        let live = objects.values().filter(|stored| !stored.deleting);
        let texts: Vec<&str> = live.map(Stored::declared).collect();
        format!("[{}]", texts.join(","))
    }

    /// The objects as declared.
    pub fn declared(&self) -> Vec<Object> {
        let objects = self.objects();
        let live = objects.values().filter(|stored| !stored.deleting);
        live.filter_map(|stored| stored.object().ok()).collect()
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

    fn objects(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectKey, Stored>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_objects(&self, change: impl FnOnce(&mut BTreeMap<ObjectKey, Stored>)) {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Stores documents and has them committed; the batch that makes them durable.
    fn put(&self, documents: Vec<(String, Option<Arc<str>>)>) -> Result<u64, String> {
        let put = self.context.writer.put_documents(documents, now_us());
        let batch = put.map_err(|rejected| words(&rejected))?;
        (self.context.kick)();
        Ok(batch)
    }

    async fn durable(&self, batch: u64) -> Result<(), String> {
        let mut durable = self.context.writer.durable();
        match durable.wait_for(|now| now.batch >= batch || now.failed.is_some()).await {
            Ok(now) if now.batch >= batch => Ok(()),
            Ok(now) => Err(now.failed.as_deref().unwrap_or_default().to_owned()),
            Err(_) => Err("the writer is gone".to_owned()),
        }
    }

    /// An object was declared anew: what was found about it holds no longer.
    fn mark_changed(&self, key: &ObjectKey) {
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

    fn set_status(&self, key: &ObjectKey, stored: &Stored, report: Report) {
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

/// What is not acted on yet: a sentence that fits many objects is said once.
fn not_acted_on(objects: &[Object]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for sentence in objects.iter().flat_map(manifest::not_acted_on) {
        *counts.entry(sentence).or_default() += 1;
    }
    let say = |(sentence, count)| match count {
        1 => sentence,
        count => format!("{sentence} ({count} objects)"),
    };
    counts.into_iter().map(say).collect()
}

/// The objects of a kind in a namespace.
fn in_namespace<'a>(
    objects: &'a BTreeMap<ObjectKey, Stored>,
    kind: Kind,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Stored)> {
    objects
        .range(ObjectKey::new(kind, namespace, "")..)
        .take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
}

/// Notes which declared parts of twins clients change, or that they delete a twin. Called by the
/// thread that commits, so it looks nothing up; see [`Reconciler::run`].
struct Watcher(Weak<Reconciler>);

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

/// What is stored beside an object once it is declared.
fn facts(
    object: &Object,
    before: Option<&Stored>,
    action: &plan::Action,
    set: Option<&str>,
    now_us: i64,
) -> Facts {
    let made = twins::made(object);
    let set = set.map(str::to_owned);
    let Some(before) = before else {
        let (generation, revision) = (1, 1);
        return Facts { generation, revision, set, created_us: now_us, deleting: false, made };
    };
    let old = before.facts();
    let raised = action.action == Verb::Create || action.changes_spec();
    let mut facts = Facts {
        generation: old.generation + u64::from(raised),
        revision: old.revision + 1,
        set: set.or(old.set),
        created_us: if old.deleting { now_us } else { old.created_us },
        deleting: false,
        made,
    };
    facts.made.merge(old.made);
    facts
}

/// A twin that another object made until now is taken over with what that object left in it.
fn inherit(made: &mut Made, object: &Object, objects: &BTreeMap<ObjectKey, Stored>) {
    let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
    match &object.spec {
        Spec::Twin(_) | Spec::TwinAggregate(_) => {
            let sets = in_namespace(objects, Kind::TwinSet, namespace);
            for (_, other) in sets.filter(|(set, other)| other.makes(&set.name, name)) {
                made.paths.extend(other.made().paths);
            }
        }
        Spec::TwinSet(_) => {
            let set = Stored::new(&object.json, &Facts::default());
            let twins = in_namespace(objects, Kind::Twin, namespace);
            for (_, other) in twins.filter(|(twin, _)| set.makes(name, &twin.name)) {
                made.paths.extend(other.made().paths);
            }
        }
        _ => {}
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

/// Why a change was not recorded, in words.
fn words(rejected: &Rejected) -> String {
    match rejected {
        Rejected::Refused(refusal) => refusal.message(),
        Rejected::NotStored(error) => error.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

#[cfg(test)]
mod tests;
