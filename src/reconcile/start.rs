//! Starting: the stored objects are read, and all of them are queued.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, watch};

use super::disk::Artefacts;
use super::key::{self, ObjectKey};
use super::kind::model;
use super::queue::Queue;
use super::reconciler::{Reconciler, ReconcilerContext};
use super::round::Watcher;
use super::stored::Stored;
use super::working::Working;
use crate::base::telemetry::Severity;
use crate::kinds::{Kind, Spec};

impl Reconciler {
    /// Reads the stored objects; readings are checked against their models from here on. Nothing
    /// is changed before [`Reconciler::run`].
    pub fn new(context: ReconcilerContext) -> Arc<Self> {
        let reconciler = Arc::new(Self {
            artefacts: Artefacts::new(context.state_dir.join("models")),
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
            working: Working::default(),
        });
        reconciler.load();
        let watcher = Watcher(Arc::downgrade(&reconciler));
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
                    self.now_us(),
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
                Ok((Spec::Model(spec), notes)) => wanted.extend(model::needs(&spec, &notes)),
                // It is unknown what this Model needs.
                _ => return,
            }
        }
        if let Err(error) = self.artefacts.keep_only(&wanted) {
            let remedy = "check the permissions of the state directory; they only take space";
            tracing::warn!(%error, remedy, "model files that nothing refers to could not be removed");
        }
    }
}
