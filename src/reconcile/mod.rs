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
mod apply;
mod control;
mod controllers;
pub mod disk;
pub mod http;
mod key;
mod models;
pub mod plan;
pub mod queue;
mod round;
mod status;
mod stored;
#[cfg(test)]
mod tests;
mod twins;
mod view;
mod wait;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{Notify, watch};

use crate::base::clock::now_us;
use crate::base::telemetry::{Severity, Telemetry};
use crate::cacc::driver::Control;
use crate::edgeai::Model;
use crate::edgeai::service::Services;
use crate::gateway::directory::Directory;
use crate::kinds::{Kind, Spec};
use crate::twin::ThingId;
use crate::twin::aggregate::Aggregates;
use crate::writer::{Rejected, Writer};
pub use apply::{ApplyError, ApplyOptions, ApplyReport};
pub use key::ObjectKey;
use queue::Queue;
use status::Status;
pub use status::{Condition, Truth};
pub use stored::{Facts, Made, Stored};
pub use wait::Until;

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
    /// The aggregates that the writer derives.
    pub aggregates: Arc<Aggregates>,
    /// Sees to it that nodes talk as rules ask.
    pub control: Arc<Control>,
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
        let watcher = round::Watcher(Arc::downgrade(&reconciler));
        reconciler.context.writer.add_sink(Arc::new(watcher));
        reconciler
    }

    fn load(&self) {
        let mut objects = BTreeMap::new();
        for (document, text) in self.context.writer.documents(key::PREFIX) {
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

    /// The trained models that are loaded.
    pub fn models(&self) -> Arc<Models> {
        self.models.clone()
    }

    /// The store of model files and training data.
    pub fn artefacts(&self) -> &disk::Artefacts {
        &self.artefacts
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
        self.context.writer.wake_committer();
        Ok(batch)
    }

    async fn durable(&self, batch: u64) -> Result<(), String> {
        self.context.writer.until_durable(batch).await.map_err(|error| error.to_string())
    }
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
