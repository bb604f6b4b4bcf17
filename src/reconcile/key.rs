//! Which object: its name among all, and the key of its document.
//!
//! Not here: the object (`stored`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::digest_of;
use crate::kinds::{DEFAULT_NAMESPACE, Kind};
use crate::manifest::Object;
use crate::store::record::KEY_LEN_MAX;
use crate::twin::{InvalidThingId, ThingId};

/// Keys of documents start with this.
pub(super) const PREFIX: &str = "object/";

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

    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Its name among all of its kind: with the namespace where that is not the default one.
    pub(super) fn global_name(&self) -> String {
        if self.namespace == DEFAULT_NAMESPACE {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// The key of its document: readable, or a digest where that would be too long for the log.
    pub(super) fn document(&self) -> String {
        let key = format!("{PREFIX}{self}");
        if key.len() <= KEY_LEN_MAX {
            return key;
        }
        format!("{PREFIX}{}/{}", self.kind, digest_of(key.as_bytes()))
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

/// The thing that a twin of this name is.
pub(super) fn thing_id(namespace: &str, name: &str) -> Result<ThingId, InvalidThingId> {
    ThingId::parse(&format!("{namespace}:{name}"))
}

/// Where a reference is looked for, in order.
pub(super) fn lookup_order<'n>(namespace: &'n str, name: &'n str) -> Vec<(&'n str, &'n str)> {
    match name.split_once('/') {
        Some((namespace, name)) => vec![(namespace, name)],
        None if namespace == DEFAULT_NAMESPACE => vec![(namespace, name)],
        None => vec![(namespace, name), (DEFAULT_NAMESPACE, name)],
    }
}
