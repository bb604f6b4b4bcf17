//! Policy: who may read and write what.
//!
//! Not here: the twins that it applies to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pending::{KindSpec, Pending};

/// A Ditto policy: which subjects may read and write which resources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicySpec {
    /// The entries by label.
    pub entries: BTreeMap<String, PolicyEntry>,
    /// Entries taken from other policies, by policy id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub imports: BTreeMap<String, Value>,
}

impl KindSpec for PolicySpec {
    const PENDING: &'static [Pending] = &[Pending::Kind("rights are not enforced yet")];
}

/// One entry of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyEntry {
    /// The subjects, by id such as `pre:local`.
    pub subjects: BTreeMap<String, PolicySubject>,
    /// The resources, such as `thing:/features`.
    pub resources: BTreeMap<String, PolicyResource>,
    /// Whether other policies may take this entry: `implicit`, `explicit` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importable: Option<Importable>,
}

/// Whether other policies may take an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Importable {
    /// Taken by every import.
    Implicit,
    /// Taken by imports that name it.
    Explicit,
    /// Never taken.
    Never,
}

/// A subject of a policy entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicySubject {
    /// A note on the kind of subject.
    #[serde(rename = "type")]
    pub subject_type: String,
    /// When the subject loses its rights, an ISO 8601 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<String>,
}

/// What a policy entry permits on a resource and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyResource {
    /// Permissions that are granted.
    pub grant: Vec<Permission>,
    /// Permissions that are revoked. This takes precedence over any grant at the same depth.
    pub revoke: Vec<Permission>,
}

/// What a subject may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Permission {
    /// Read.
    #[serde(rename = "READ")]
    Read,
    /// Write.
    #[serde(rename = "WRITE")]
    Write,
    /// Run an operation.
    #[serde(rename = "EXECUTE")]
    Execute,
}
