//! What is requested of a twin, and what happened to it: one record of the log.
//!
//! Not here: which event a change becomes (`decide`), what an event does (`apply`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::merge::Object;
use super::path::Path;
use super::sequence::Stamp;

/// What is requested of a twin.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// PUT: replaces what is at the path; at the thing itself it creates one where none is.
    Modify(Path, Value),
    /// PATCH: merges; at the thing itself it creates one where none is.
    Merge(Path, Value),
    /// DELETE.
    Delete(Path),
    /// A node's reading: property values by feature.
    Reading {
        /// `{"environment": {"temperature": 21.5}}`
        values: Object,
        /// Sequence number, if the node gives one.
        stamp: Option<Stamp>,
    },
    /// A node announces its boot; taken if it has numbered its boots anew.
    Boot(u64),
}

/// What happened to a twin: one record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What was done.
    #[serde(rename = "a")]
    pub action: Action,
    /// Where.
    #[serde(rename = "p")]
    pub path: Path,
    /// With what; a reading's values are `{feature: {property: value}}`.
    #[serde(
        rename = "v",
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub value: Option<Value>,
    /// The reading's sequence number, or the boot that the node announced.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

impl Event {
    /// Whether it may write what is desired of a feature.
    pub fn touches_desired(&self, feature: &str) -> bool {
        match &self.path {
            Path::Thing | Path::Features => {
                let value = self.value.as_ref();
                let features = value.map(|value| value.get("features").unwrap_or(value));
                features.is_some_and(|features| features.get(feature).is_some())
            }
            path => {
                path.feature() == Some(feature)
                    && !matches!(path, Path::Properties(_) | Path::Property(..))
            }
        }
    }

    /// Whether an event writes the property, even with the value that it has.
    pub fn touches(&self, feature: &str, property: &str) -> bool {
        let merged = self.action == Action::Merged;
        let value = self.value.as_ref();
        let in_properties = |value: &Value| value.get(property).is_some();
        let in_feature = |value: &Value| {
            value.get("properties").is_some_and(|value| value.is_null() || in_properties(value))
        };
        let in_features = |value: &Value| {
            value.get(feature).is_some_and(|value| value.is_null() || in_feature(value))
        };
        match &self.path {
            _ if self.action == Action::BootReset => false,
            _ if self.action == Action::Read => {
                value.and_then(|value| value.get(feature)).is_some_and(in_properties)
            }
            Path::Thing if merged => {
                value.and_then(|value| value.get("features")).is_some_and(in_features)
            }
            Path::Thing => true,
            Path::Features => !merged || value.is_some_and(in_features),
            Path::Feature(id) => id == feature && (!merged || value.is_some_and(in_feature)),
            Path::Properties(id) => id == feature && (!merged || value.is_some_and(in_properties)),
            Path::Property(id, pointer) => {
                id == feature && pointer.first().is_some_and(|first| first == property)
            }
            _ => false,
        }
    }
}

/// A `null` that is written is a value: the patch that removes.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// There is something new at the path.
    #[serde(rename = "c")]
    Created,
    /// What was at the path was replaced.
    #[serde(rename = "m")]
    Modified,
    /// The value was merged into the path.
    #[serde(rename = "g")]
    Merged,
    /// There is nothing at the path any more.
    #[serde(rename = "d")]
    Deleted,
    /// A node's reading was merged into the features.
    #[serde(rename = "r")]
    Read,
    /// A reading came after a later one: it is history and changes no value.
    #[serde(rename = "l")]
    ReadLate,
    /// The node has numbered its boots anew: its next readings are no repeats. No value changes.
    #[serde(rename = "b")]
    BootReset,
}
