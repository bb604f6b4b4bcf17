//! The model of each twin, by which intake checks readings, and the receiver of uplinks.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::twin::ThingId;
use crate::wire::{NodeModel, Uplink};

/// Receives acknowledgements, events and states of nodes.
pub trait Uplinks: Send + Sync {
    /// A message was received. Called by the thread of all connections: must not block.
    fn received(&self, thing: ThingId, uplink: Uplink);
}

/// Which model each twin's readings are checked against.
#[derive(Debug, Default)]
pub struct Directory {
    models: RwLock<HashMap<ThingId, Arc<NodeModel>>>,
}

impl Directory {
    /// The model of a twin; `None` where its readings are not checked.
    pub fn model(&self, thing: &ThingId) -> Option<Arc<NodeModel>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).get(thing).cloned()
    }

    /// Sets or removes the model of a twin.
    pub fn set(&self, thing: ThingId, model: Option<Arc<NodeModel>>) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        match model {
            Some(model) => models.insert(thing, model),
            None => models.remove(&thing),
        };
    }
}
