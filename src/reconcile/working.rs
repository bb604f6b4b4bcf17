//! What controllers remember between two rounds; all of it can be found out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::key::ObjectKey;
use crate::wire::NodeModel;

/// See the module.
#[derive(Default)]
pub(super) struct Working {
    /// Models of nodes by TwinModel, with the revision that they were made from.
    pub(super) node_models: Mutex<HashMap<ObjectKey, (u64, Arc<NodeModel>)>>,
    /// What was deployed, by the service's name: which object asked for it, and as what.
    pub(super) deployed: Mutex<HashMap<String, (ObjectKey, Value)>>,
    /// The model that is being trained.
    pub(super) training: Mutex<Training>,
}

/// What is being trained, and what came of it.
#[derive(Default)]
pub(super) struct Training {
    /// The recipe at work.
    pub(super) running: Option<String>,
    /// Recipes that gave no model, and why.
    pub(super) failed: HashMap<String, String>,
    /// What each Model was last loaded from, and the message of its condition.
    pub(super) loaded: HashMap<ObjectKey, (String, String)>,
}

/// A panic under one of these locks is a bug; what they guard is whole after each statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
