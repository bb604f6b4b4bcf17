//! One twin and its features: what it shows, its record in a snapshot, and the edits that keep its
//! parts' lengths and revisions true.
//!
//! Not here: which changes it takes (`decide`), what an event does to it (`apply`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::id::ThingId;
use super::merge::{self, Object};
use super::path::Path;
use super::sequence::Sequence;
use crate::store::record::Position;

/// One feature of a thing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Feature {
    /// Array of definition identifiers.
    pub definition: Option<Value>,
    /// What is.
    pub properties: Option<Object>,
    /// What should be.
    pub desired: Option<Object>,
    /// Revision of the thing at which anything of this feature last changed.
    pub revision: u64,
    /// Bytes as JSON, see [`merge::json_len`].
    len: usize,
}

impl Feature {
    /// The feature as Ditto shows it.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if let Some(definition) = &self.definition {
            map.insert("definition".to_owned(), definition.clone());
        }
        if let Some(properties) = &self.properties {
            map.insert("properties".to_owned(), Value::Object(properties.clone()));
        }
        if let Some(desired) = &self.desired {
            map.insert("desiredProperties".to_owned(), Value::Object(desired.clone()));
        }
        Value::Object(map)
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let object = |key: &str| value.get(key).and_then(Value::as_object).cloned();
        Self {
            definition: value.get("definition").filter(|value| !value.is_null()).cloned(),
            properties: object("properties"),
            desired: object("desiredProperties"),
            ..Self::default()
        }
        .measured()
    }

    fn measured(mut self) -> Self {
        self.len = self.definition.as_ref().map_or(0, merge::json_len)
            + self.properties.as_ref().map_or(0, merge::map_len)
            + self.desired.as_ref().map_or(0, merge::map_len)
            + 50;
        self
    }
}

/// One twin, immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Twin {
    /// `thingId`
    pub id: ThingId,
    /// `policyId`
    pub policy_id: Arc<str>,
    /// `definition`
    pub definition: Option<Value>,
    /// `attributes`: static metadata, labels among them.
    pub attributes: Option<Arc<Object>>,
    /// `features`, by ID.
    pub features: BTreeMap<Arc<str>, Arc<Feature>>,
    /// Number of events so far.
    pub revision: u64,
    /// Time of the first event, microseconds since 1970.
    pub created_us: i64,
    /// Time of the last event, microseconds since 1970.
    pub modified_us: i64,
    /// Which readings of the node are in.
    pub sequence: Sequence,
    /// Where the record lies that led to this state; the way into the twin's history.
    pub tail: Position,
    attributes_len: usize,
    pub(super) has_features: bool,
}

impl Twin {
    /// The thing as Ditto shows it, without special fields.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("thingId".to_owned(), self.id.as_str().into());
        map.insert("policyId".to_owned(), (&*self.policy_id).into());
        if let Some(definition) = &self.definition {
            map.insert("definition".to_owned(), definition.clone());
        }
        if let Some(attributes) = &self.attributes {
            map.insert("attributes".to_owned(), Value::Object((**attributes).clone()));
        }
        if let Some(features) = self.features_json() {
            map.insert("features".to_owned(), features);
        }
        Value::Object(map)
    }

    fn features_json(&self) -> Option<Value> {
        if self.features.is_empty() && !self.has_features {
            return None;
        }
        let each = self.features.iter().map(|(id, feature)| (id.to_string(), feature.to_json()));
        Some(Value::Object(each.collect()))
    }

    /// The value at `path`, or `None` where there is none.
    pub fn get(&self, path: &Path) -> Option<Value> {
        let feature = |id: &str| self.features.get(id);
        match path {
            Path::Thing => Some(self.to_json()),
            Path::PolicyId => Some((&*self.policy_id).into()),
            Path::Definition => self.definition.clone(),
            Path::Attributes => self.attributes.as_deref().cloned().map(Value::Object),
            Path::Attribute(pointer) => merge::get(self.attributes.as_deref()?, pointer).cloned(),
            Path::Features => self.features_json(),
            Path::Feature(id) => feature(id).map(|feature| feature.to_json()),
            Path::FeatureDefinition(id) => feature(id)?.definition.clone(),
            Path::Properties(id) => feature(id)?.properties.clone().map(Value::Object),
            Path::Property(id, pointer) => self.property(id, pointer).cloned(),
            Path::DesiredProperties(id) => feature(id)?.desired.clone().map(Value::Object),
            Path::DesiredProperty(id, pointer) => {
                merge::get(feature(id)?.desired.as_ref()?, pointer).cloned()
            }
        }
    }

    /// The path of what is missing on the way to `path`: the feature, its properties, or `path`.
    pub fn missing(&self, path: &Path) -> Path {
        match path.feature() {
            Some(id) if !self.features.contains_key(id) => Path::Feature(id.to_owned()),
            _ => path.clone(),
        }
    }

    /// A property, without copying it.
    pub fn property(&self, feature: &str, pointer: &[String]) -> Option<&Value> {
        merge::get(self.features.get(feature)?.properties.as_ref()?, pointer)
    }

    /// A property directly below a feature, without copying it.
    pub fn property_named(&self, feature: &str, name: &str) -> Option<&Value> {
        self.features.get(feature)?.properties.as_ref()?.get(name)
    }

    /// Bytes of the thing as JSON, never less than they are.
    pub fn json_len(&self) -> usize {
        let features: usize =
            self.features.iter().map(|(id, feature)| id.len() + 4 + feature.len).sum();
        self.id.as_str().len()
            + self.policy_id.len()
            + self.definition.as_ref().map_or(0, merge::json_len)
            + self.attributes_len
            + features
            + 80
    }

    /// The record of a snapshot, from which [`Twin::from_state`] makes the same twin.
    pub fn to_state(&self) -> Vec<u8> {
        let revisions: BTreeMap<&str, u64> =
            self.features.iter().map(|(id, feature)| (&**id, feature.revision)).collect();
        let state = json!({
            "thing": self.to_json(),
            "created": self.created_us,
            "modified": self.modified_us,
            "revisions": revisions,
            "sequence": self.sequence,
        });
        state.to_string().into_bytes()
    }

    /// Reads [`Twin::to_state`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_state(revision: u64, bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct State {
            thing: Value,
            created: i64,
            modified: i64,
            revisions: BTreeMap<String, u64>,
            sequence: Sequence,
        }
        let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let id = state.thing.get("thingId").and_then(Value::as_str).unwrap_or_default();
        let id = ThingId::parse(id).map_err(|error| error.to_string())?;
        let mut twin = Self::from_thing(&id, &state.thing);
        for (feature, revision) in state.revisions {
            if let Some(feature) = twin.features.get_mut(feature.as_str()) {
                Arc::make_mut(feature).revision = revision;
            }
        }
        twin.revision = revision;
        twin.created_us = state.created;
        twin.modified_us = state.modified;
        twin.sequence = state.sequence;
        Ok(twin)
    }

    /// The same twin, with the place of the record that led to it.
    pub fn at(mut self, tail: Position) -> Self {
        self.tail = tail;
        self
    }

    pub(super) fn empty(id: ThingId) -> Self {
        Self {
            policy_id: id.0.clone(),
            id,
            definition: None,
            attributes: None,
            features: BTreeMap::new(),
            revision: 0,
            created_us: 0,
            modified_us: 0,
            sequence: Sequence::default(),
            tail: Position::NONE,
            attributes_len: 0,
            has_features: false,
        }
    }

    pub(super) fn from_thing(id: &ThingId, thing: &Value) -> Self {
        let mut twin = Self::empty(id.clone());
        if let Some(policy_id) = thing.get("policyId").and_then(Value::as_str) {
            twin.policy_id = policy_id.into();
        }
        twin.definition = thing.get("definition").filter(|value| !value.is_null()).cloned();
        twin.set_attributes(thing.get("attributes").and_then(Value::as_object).cloned());
        twin.set_features(thing.get("features"));
        twin
    }

    pub(super) fn set_attributes(&mut self, attributes: Option<Object>) {
        self.attributes_len = attributes.as_ref().map_or(0, merge::map_len);
        self.attributes = attributes.map(Arc::new);
    }

    pub(super) fn set_features(&mut self, features: Option<&Value>) {
        let features = features.and_then(Value::as_object);
        self.has_features = features.is_some();
        self.features = features
            .into_iter()
            .flatten()
            .map(|(id, feature)| (id.as_str().into(), Arc::new(Feature::from_json(feature))))
            .collect();
    }

    pub(super) fn edit_feature(&mut self, id: &str, edit: impl FnOnce(&mut Feature)) {
        let mut feature =
            self.features.get(id).map(|feature| (**feature).clone()).unwrap_or_default();
        edit(&mut feature);
        self.has_features = true;
        feature.revision = self.revision;
        match self.features.get_mut(id) {
            Some(place) => *place = Arc::new(feature.measured()),
            None => {
                self.features.insert(id.into(), Arc::new(feature.measured()));
            }
        }
    }

    pub(super) fn merge_feature(&mut self, id: &str, patch: &Object) {
        self.edit_feature(id, |feature| {
            for (key, value) in patch {
                match (key.as_str(), value) {
                    ("definition", Value::Null) => feature.definition = None,
                    ("definition", value) => feature.definition = Some(value.clone()),
                    ("properties", value) => merge_part(&mut feature.properties, value),
                    ("desiredProperties", value) => merge_part(&mut feature.desired, value),
                    _ => {}
                }
            }
        });
    }

    pub(super) fn merge_features(&mut self, patch: &Object) {
        self.has_features = true;
        for (id, value) in patch {
            match value {
                Value::Object(patch) => self.merge_feature(id, patch),
                _ => match merge::pattern(id) {
                    Some(Ok(pattern)) => self.features.retain(|id, _| !pattern.is_match(id)),
                    _ => {
                        self.features.remove(id.as_str());
                    }
                },
            }
        }
    }
}

fn merge_part(part: &mut Option<Object>, value: &Value) {
    match value {
        Value::Object(patch) => merge::merge(part.get_or_insert_with(Map::new), patch),
        _ => *part = None,
    }
}

/// The names of the services in `attributes/services` that a change of the twin calls: a list of
/// names, or a map from names to options, where `enabled: false` leaves one out. Anything else
/// names none.
pub fn services(twin: &Twin) -> impl Iterator<Item = &str> {
    let value = twin.attributes.as_deref().and_then(|attributes| attributes.get("services"));
    let list = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let map = value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, options)| options.get("enabled") != Some(&Value::Bool(false)))
        .map(|(name, _)| name.as_str());
    list.chain(map)
}

/// The inputs that the twin gives to a service in place of the service's own, as
/// `feature/property` each; `None` if it gives none.
pub fn service_inputs<'a>(twin: &'a Twin, service: &str) -> Option<&'a Value> {
    let services = twin.attributes.as_deref()?.get("services")?;
    services.get(service)?.get("inputs").filter(|given| !given.is_null())
}
