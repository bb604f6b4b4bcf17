//! What reconciling works with: the objects, what was found about them, and what is to be looked
//! at next.
//!
//! Not here: how it starts (`start`), what it does (`apply`, `round`, `kind`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{Notify, watch};

use super::disk::Artefacts;
use super::key::{ObjectKey, lookup_order};
use super::queue::Queue;
use super::status::Status;
use super::stored::{Stored, in_namespace};
use super::working::Working;
use crate::base::clock::now_us;
use crate::base::telemetry::Telemetry;
use crate::cacc::driver::Control;
use crate::edgeai::Model;
use crate::edgeai::service::Services;
use crate::gateway::directory::Directory;
use crate::kinds::Kind;
use crate::twin::ThingId;
use crate::twin::aggregate::Aggregates;
use crate::writer::Writer;

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
    /// Sends nodes their commands.
    pub control: Arc<Control>,
}

/// See the module [`reconcile`](super).
pub struct Reconciler {
    pub(super) context: ReconcilerContext,
    pub(super) artefacts: Artefacts,
    pub(super) objects: RwLock<BTreeMap<ObjectKey, Stored>>,
    pub(super) statuses: RwLock<HashMap<ObjectKey, Status>>,
    pub(super) queue: Queue<ObjectKey>,
    /// Twins that clients changed; their objects are looked at again.
    pub(super) touched: Mutex<BTreeSet<ThingId>>,
    pub(super) touch: Notify,
    /// One apply at a time: each plans against what the one before stored.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// Counts changes of objects and statuses, for those who wait for one.
    pub(super) changed: watch::Sender<u64>,
    /// Turns true at the end, for streams that would go on.
    pub(super) stopping: watch::Sender<bool>,
    pub(super) models: Arc<Models>,
    pub(super) working: Working,
}

impl Reconciler {
    /// The trained models that are loaded.
    pub fn models(&self) -> Arc<Models> {
        self.models.clone()
    }

    /// The store of model files and training data.
    pub fn artefacts(&self) -> &Artefacts {
        &self.artefacts
    }

    /// Microseconds since 1970.
    pub(super) fn now_us(&self) -> i64 {
        now_us()
    }

    pub(super) fn objects(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectKey, Stored>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_objects(&self, change: impl FnOnce(&mut BTreeMap<ObjectKey, Stored>)) {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Stores documents and has them committed; the batch that makes them durable.
    pub(super) fn put(&self, documents: Vec<(String, Option<Arc<str>>)>) -> Result<u64, String> {
        let put = self.context.writer.put_documents(documents, self.now_us());
        let batch = put.map_err(|rejected| rejected.to_string())?;
        self.context.writer.wake_committer();
        Ok(batch)
    }

    pub(super) async fn durable(&self, batch: u64) -> Result<(), String> {
        self.context.writer.until_durable(batch).await.map_err(|error| error.to_string())
    }

    /// The object that a reference means: `NAMESPACE/NAME`, or a name in the own namespace, then
    /// in `default`.
    pub(super) fn find(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<(ObjectKey, Stored)> {
        let objects = self.objects();
        lookup_order(namespace, name).into_iter().find_map(|(namespace, name)| {
            let key = ObjectKey::new(kind, namespace, name);
            let stored = objects.get(&key).filter(|stored| !stored.deleting)?;
            Some((key, stored.clone()))
        })
    }

    /// Whether an object, other than `except`, declares this twin.
    pub(super) fn declares_twin(
        &self,
        namespace: &str,
        name: &str,
        except: Option<&ObjectKey>,
    ) -> bool {
        let objects = self.objects();
        let live = |key: &ObjectKey| {
            Some(key) != except && objects.get(key).is_some_and(|stored| !stored.deleting)
        };
        live(&ObjectKey::new(Kind::Twin, namespace, name))
            || live(&ObjectKey::new(Kind::TwinAggregate, namespace, name))
            || in_namespace(&objects, Kind::TwinSet, namespace)
                .any(|(key, stored)| live(key) && stored.makes(&key.name, name))
    }
}
