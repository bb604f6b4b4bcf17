//! Objects: what a manifest declares, typed and as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kinds::{API_VERSION, DEFAULT_NAMESPACE, Kind, Metadata, Spec, TwinSetSpec};

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What sort of object.
    pub kind: Kind,
    /// Who it is.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: Spec,
    /// The object as JSON: `apiVersion`, `kind`, `metadata` with its namespace, `spec` as
    /// written. Equal text gives equal JSON.
    pub json: Value,
    /// Where it was written; nowhere for one that came as JSON.
    pub origin: Origin,
}

/// Where an object was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file as the user named it; empty if there is none.
    pub file: String,
    /// The line of the document's first key, from 1; 0 if there is none.
    pub line: u32,
}

impl Object {
    /// `Kind/namespace/name`, unique among all objects.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.kind, self.metadata.namespace, self.metadata.name)
    }

    /// What of the object is checked and stored but not acted on yet, one sentence each; empty if
    /// all of it is acted on.
    pub fn not_acted_on(&self) -> Vec<String> {
        let words = object_words(self.kind, &self.metadata.namespace, &self.metadata.name);
        self.spec.not_acted_on(&words, self.json.get("spec").unwrap_or(&Value::Null))
    }

    /// The id of the thing that this twin or aggregate is: `namespace:name`.
    pub fn thing_id(&self) -> String {
        format!("{}:{}", self.metadata.namespace, self.metadata.name)
    }

    /// An object as [`Object::json`] gave it, which was checked then and is not checked again.
    ///
    /// # Errors
    /// What cannot be read: another version wrote it.
    pub fn from_checked(json: Value) -> Result<Self, String> {
        let typed = Self::typed(json.clone())?;
        Ok(Self { json, ..typed })
    }

    /// The same without [`Object::json`]: enough to be referred to, and a third of the memory.
    ///
    /// # Errors
    /// As [`Object::from_checked`].
    pub fn typed(mut json: Value) -> Result<Self, String> {
        let mut part = |name: &str| json.get_mut(name).map(Value::take).unwrap_or_default();
        let words = |error: serde_json::Error| error.to_string();
        let kind: Kind = serde_json::from_value(part("kind")).map_err(words)?;
        let metadata: Metadata = serde_json::from_value(part("metadata")).map_err(words)?;
        let spec = Spec::from_value(kind, part("spec")).map_err(words)?;
        Ok(Self { kind, metadata, spec, json: Value::Null, origin: Origin::default() })
    }

    /// The directory that file names in this object are relative to; empty for one that came as
    /// JSON or from standard input.
    pub fn directory(&self) -> PathBuf {
        Path::new(&self.origin.file).parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// The Twin objects that a TwinSet makes; nothing for other kinds. Each has the labels and
    /// annotations of the set and of its template, the template winning.
    pub fn expand(&self) -> Vec<Object> {
        let Spec::TwinSet(set) = &self.spec else {
            return Vec::new();
        };
        let names = set.twin_names(&self.metadata.name);
        names.iter().filter_map(|name| self.twin(name)).collect()
    }

    /// The twin of this name that a TwinSet makes; `None` for other kinds.
    pub fn twin(&self, name: &str) -> Option<Object> {
        let Spec::TwinSet(set) = &self.spec else {
            return None;
        };
        let mut annotations = self.metadata.annotations.clone();
        annotations.extend(set.template.metadata.annotations.clone());
        let metadata = Metadata {
            name: name.to_owned(),
            namespace: self.metadata.namespace.clone(),
            labels: self.twin_labels(set),
            annotations,
        };
        let json =
            object_json(Kind::Twin, &metadata, self.json["spec"]["template"]["spec"].clone());
        let spec = Spec::Twin(Box::new(set.template.spec.clone()));
        Some(Object { kind: Kind::Twin, metadata, spec, json, origin: self.origin.clone() })
    }

    /// The labels of each twin that a TwinSet makes.
    pub fn twin_labels(&self, set: &TwinSetSpec) -> BTreeMap<String, String> {
        let mut labels = self.metadata.labels.clone();
        labels.extend(set.template.metadata.labels.clone());
        labels
    }
}

pub(super) fn object_json(kind: Kind, metadata: &Metadata, spec: Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

/// An object for messages: twins by their thing's id, others by name, with the namespace
/// where it is not the default one.
pub(super) fn object_words(kind: Kind, namespace: &str, name: &str) -> String {
    match kind {
        Kind::Twin | Kind::TwinAggregate => format!("{kind} `{namespace}:{name}`"),
        _ if namespace == DEFAULT_NAMESPACE => format!("{kind} `{name}`"),
        _ => format!("{kind} `{namespace}/{name}`"),
    }
}
