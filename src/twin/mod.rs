//! Twins: what one is, which changes it takes, and what an event does to it. Pure.
//!
//! A change goes through two functions. [`decide`] judges a [`Change`] against the twin as it is
//! and gives the [`Event`] that would happen, or a [`Refusal`] in Ditto's terms. [`apply`] turns a
//! twin and an event into the next twin; it cannot fail and is all that recovery needs. Twins are
//! immutable and share what did not change, so a reader holds a snapshot for the price of a
//! reference count.
//!
//! Always true, and tested:
//! 1. an event raises the revision by exactly one;
//! 2. applying the recorded events again gives the same twin;
//! 3. a twin takes at most [`THING_LEN_MAX`] bytes.
//!
//! Not here: durability (`store`), the one writer (`writer`), HTTP (`twin::http`).

pub mod aggregate;
pub mod fields;
pub mod http;
pub mod merge;
pub mod path;
pub mod rql;
pub mod selector;
pub mod sequence;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::path::{DEPTH_MAX, Path, Pointer, is_key};
use self::sequence::{Sequence, Stamp};
use crate::store::record::Position;

/// Largest thing as JSON, bytes: Ditto's `ditto.limits.things.max-size`. A change beyond it is
/// answered with 413 `things:thing.toolarge`.
pub const THING_LEN_MAX: usize = 100 * 1024;
/// Longest thing ID, characters (Ditto).
pub const THING_ID_LEN_MAX: usize = 256;

/// A JSON object.
pub type Object = Map<String, Value>;

/// `namespace:name`, checked. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThingId(Arc<str>);

impl ThingId {
    /// Parses Ditto's ID: namespace `[a-zA-Z]\w*` in parts joined by `.` or `-`, or empty; a
    /// name without control characters and `/`; at most 256 characters and 255 bytes in all.
    ///
    /// # Errors
    /// [`Refusal::InvalidId`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = || Refusal::InvalidId(text.chars().take(THING_ID_LEN_MAX).collect());
        let (namespace, name) = text.split_once(':').ok_or_else(invalid)?;
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let namespace_ok = namespace.is_empty() || namespace.split(['.', '-']).all(part);
        let name_ok = !name.is_empty()
            && !name
                .chars()
                .any(|c| c == '/' || c.is_control() || ('\u{7f}'..='\u{ff}').contains(&c));
        // The log's key length is one byte.
        let long = text.chars().count() > THING_ID_LEN_MAX
            || text.len() > crate::store::record::KEY_LEN_MAX;
        if !namespace_ok || !name_ok || long {
            return Err(invalid());
        }
        Ok(Self(text.into()))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In front of the first colon.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// Behind the first colon.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for ThingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ThingId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

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

    fn from_json(value: &Value) -> Self {
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
    has_features: bool,
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
        let id = ThingId::parse(id).map_err(|refusal| refusal.message())?;
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

    fn empty(id: ThingId) -> Self {
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

    fn from_thing(id: &ThingId, thing: &Value) -> Self {
        let mut twin = Self::empty(id.clone());
        if let Some(policy_id) = thing.get("policyId").and_then(Value::as_str) {
            twin.policy_id = policy_id.into();
        }
        twin.definition = thing.get("definition").filter(|value| !value.is_null()).cloned();
        twin.set_attributes(thing.get("attributes").and_then(Value::as_object).cloned());
        twin.set_features(thing.get("features"));
        twin
    }

    fn set_attributes(&mut self, attributes: Option<Object>) {
        self.attributes_len = attributes.as_ref().map_or(0, merge::map_len);
        self.attributes = attributes.map(Arc::new);
    }

    fn set_features(&mut self, features: Option<&Value>) {
        let features = features.and_then(Value::as_object);
        self.has_features = features.is_some();
        self.features = features
            .into_iter()
            .flatten()
            .map(|(id, feature)| (id.as_str().into(), Arc::new(Feature::from_json(feature))))
            .collect();
    }

    fn edit_feature(&mut self, id: &str, edit: impl FnOnce(&mut Feature)) {
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

    fn merge_feature(&mut self, id: &str, patch: &Object) {
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

    fn merge_features(&mut self, patch: &Object) {
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

/// What someone wants of a twin.
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
    /// A node says that it is at this boot; taken if it has numbered its boots anew.
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
    /// The reading's sequence number; the boot that was said.
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

/// Why a change was not made, in Ditto's terms.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No such thing, or nothing at the path.
    NotFound(ThingId, Path),
    /// The thing exists and should not.
    Conflict(ThingId),
    /// The ID is none.
    InvalidId(String),
    /// The value cannot be at the path: code, what is wrong.
    InvalidValue(&'static str, String),
    /// The thing would be larger than [`THING_LEN_MAX`].
    TooLarge(ThingId),
    /// `If-Match` or `If-None-Match` forbids it.
    PreconditionFailed(String),
    /// The reading is in already; it is acknowledged and changes nothing.
    Duplicate,
    /// Part of the twin's history is damaged; it takes no changes (see `doctor`).
    Stalled(ThingId),
}

impl Refusal {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound(..) => 404,
            Self::Conflict(_) => 409,
            Self::InvalidId(_) | Self::InvalidValue(..) => 400,
            Self::TooLarge(_) => 413,
            Self::PreconditionFailed(_) => 412,
            Self::Duplicate => 200,
            Self::Stalled(_) => 503,
        }
    }

    /// Ditto's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_, path) => path.not_found_code(),
            Self::Conflict(_) => "things:thing.conflict",
            Self::InvalidId(_) => "things:id.invalid",
            Self::InvalidValue(code, _) => code,
            Self::TooLarge(_) => "things:thing.toolarge",
            Self::PreconditionFailed(_) => "things:precondition.failed",
            Self::Duplicate => "reading.duplicate",
            Self::Stalled(_) => "things:thing.unavailable",
        }
    }

    /// One sentence.
    pub fn message(&self) -> String {
        match self {
            Self::NotFound(id, Path::Thing) => format!("There is no thing with the ID `{id}`."),
            Self::NotFound(id, path) => format!("The thing `{id}` has no {}.", path.noun()),
            Self::Conflict(id) => format!("There is a thing with the ID `{id}` already."),
            Self::InvalidId(id) => format!("`{id}` is not a thing ID."),
            Self::InvalidValue(_, why) => why.clone(),
            Self::TooLarge(id) => {
                format!("The thing `{id}` would be larger than {THING_LEN_MAX} bytes.")
            }
            Self::PreconditionFailed(why) => why.clone(),
            Self::Duplicate => "This reading was taken before.".to_owned(),
            Self::Stalled(id) => format!(
                "The recorded history of `{id}` is damaged; it takes no changes until the loss is accepted."
            ),
        }
    }

    /// What to do about it, where that can be said.
    pub fn description(&self) -> Option<&'static str> {
        match self {
            Self::InvalidId(_) => Some(
                "A thing ID is `namespace:name`; the namespace starts with a letter and has letters, digits, `_`, `.` and `-`; the name has no `/` and no control characters; 256 characters at most.",
            ),
            Self::NotFound(..) => Some("Check whether the ID and the path are right."),
            Self::Stalled(_) => Some("Restore a backup, or run `edgetwin doctor --accept-loss`."),
            _ => None,
        }
    }
}

/// Judges a change.
///
/// `twin` is the twin as it is now, `None` where there is none.
///
/// # Errors
/// See [`Refusal`]; the twin is then unchanged.
pub fn decide(id: &ThingId, twin: Option<&Twin>, change: Change) -> Result<Event, Refusal> {
    let event = |action, path, value| Event { action, path, value, stamp: None };
    match change {
        Change::Reading { values, stamp } => {
            let twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
            let late = match stamp {
                None => false,
                Some(stamp) => match twin.sequence.judge(stamp) {
                    sequence::Verdict::Duplicate => return Err(Refusal::Duplicate),
                    sequence::Verdict::Late => true,
                    sequence::Verdict::Next => false,
                },
            };
            let action = if late { Action::ReadLate } else { Action::Read };
            Ok(Event { stamp, ..event(action, Path::Features, Some(Value::Object(values))) })
        }
        Change::Boot(boot) => {
            let twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
            if !twin.sequence.is_anew(boot) {
                return Err(Refusal::Duplicate);
            }
            let stamp = Some(Stamp { seq: 0, boot: Some(boot) });
            Ok(Event { stamp, ..event(Action::BootReset, Path::Features, None) })
        }
        Change::Modify(Path::Thing, mut value) => {
            check_thing(id, &mut value)?;
            if let (Some(twin), Some(map)) = (twin, value.as_object_mut()) {
                map.entry("policyId").or_insert_with(|| (&*twin.policy_id).into());
            }
            let action = if twin.is_some() { Action::Modified } else { Action::Created };
            Ok(event(action, Path::Thing, Some(value)))
        }
        Change::Merge(Path::Thing, mut value) => {
            if twin.is_none() {
                value =
                    Value::Object(merge::without_nulls(object(&value, "things:merge.invalid")?));
                check_thing(id, &mut value)?;
                return Ok(event(Action::Created, Path::Thing, Some(value)));
            }
            check_merge(id, &Path::Thing, &value)?;
            Ok(event(Action::Merged, Path::Thing, Some(value)))
        }
        Change::Delete(Path::Thing) => match twin {
            Some(_) => Ok(event(Action::Deleted, Path::Thing, None)),
            None => Err(Refusal::NotFound(id.clone(), Path::Thing)),
        },
        Change::Modify(path, value) => {
            let twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
            need_feature(twin, &path)?;
            check_value(&path, &value)?;
            let exists = exists(twin, &path);
            let action = if exists { Action::Modified } else { Action::Created };
            Ok(event(action, path, Some(value)))
        }
        Change::Merge(path, value) => {
            let _twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
            check_merge(id, &path, &value)?;
            Ok(event(Action::Merged, path, Some(value)))
        }
        Change::Delete(path) => {
            let twin = twin.ok_or_else(|| Refusal::NotFound(id.clone(), Path::Thing))?;
            if path == Path::PolicyId {
                return Err(Refusal::InvalidValue(
                    "things:policyId.notdeletable",
                    "A thing's policy ID cannot be deleted.".to_owned(),
                ));
            }
            if !exists(twin, &path) {
                return Err(Refusal::NotFound(id.clone(), twin.missing(&path)));
            }
            Ok(event(Action::Deleted, path, None))
        }
    }
}

/// Makes the twin that `event` leads to; `None` when it deletes the thing.
///
/// `time_us` is the event's time, microseconds since 1970. The revision grows by one.
pub fn apply(id: &ThingId, twin: Option<&Twin>, event: &Event, time_us: i64) -> Option<Twin> {
    let mut next = match (&event.path, event.action) {
        (Path::Thing, Action::Deleted) => return None,
        (Path::Thing, Action::Created | Action::Modified) => {
            let mut fresh = Twin::from_thing(id, event.value.as_ref().unwrap_or(&Value::Null));
            if let Some(twin) = twin {
                fresh.created_us = twin.created_us;
                fresh.revision = twin.revision;
                fresh.sequence = twin.sequence.clone();
            }
            fresh
        }
        _ => twin.cloned().unwrap_or_else(|| Twin::empty(id.clone())),
    };
    next.revision += 1;
    next.modified_us = time_us;
    if next.revision == 1 {
        next.created_us = time_us;
    }
    if event.path == Path::Thing && event.action != Action::Merged {
        let revision = next.revision;
        for feature in next.features.values_mut() {
            Arc::make_mut(feature).revision = revision;
        }
    }
    match event.stamp {
        Some(Stamp { boot: Some(boot), .. }) if event.action == Action::BootReset => {
            next.sequence.begin(boot);
        }
        Some(stamp) => next.sequence.note(stamp),
        None => {}
    }
    match (event.action, &event.value) {
        (Action::ReadLate | Action::BootReset, _) => {}
        (Action::Read, Some(Value::Object(values))) => {
            for (feature, values) in values {
                if let Value::Object(values) = values {
                    next.edit_feature(feature, |feature| {
                        merge::merge(feature.properties.get_or_insert_with(Map::new), values);
                    });
                }
            }
        }
        (Action::Merged, Some(value)) => merge_at(&mut next, &event.path, value),
        (Action::Created | Action::Modified, Some(value)) => set_at(&mut next, &event.path, value),
        (Action::Deleted, _) => delete_at(&mut next, &event.path),
        _ => {}
    }
    Some(next)
}

fn exists(twin: &Twin, path: &Path) -> bool {
    let feature = |id: &str| twin.features.get(id);
    match path {
        Path::Thing | Path::PolicyId => true,
        Path::Definition => twin.definition.is_some(),
        Path::Attributes => twin.attributes.is_some(),
        Path::Attribute(pointer) => {
            twin.attributes.as_deref().is_some_and(|map| merge::get(map, pointer).is_some())
        }
        Path::Features => twin.has_features || !twin.features.is_empty(),
        Path::Feature(id) => feature(id).is_some(),
        Path::FeatureDefinition(id) => feature(id).is_some_and(|f| f.definition.is_some()),
        Path::Properties(id) => feature(id).is_some_and(|f| f.properties.is_some()),
        Path::Property(id, pointer) => twin.property(id, pointer).is_some(),
        Path::DesiredProperties(id) => feature(id).is_some_and(|f| f.desired.is_some()),
        Path::DesiredProperty(id, pointer) => feature(id)
            .and_then(|f| f.desired.as_ref())
            .is_some_and(|map| merge::get(map, pointer).is_some()),
    }
}

/// Ditto makes no feature for a write below it.
fn need_feature(twin: &Twin, path: &Path) -> Result<(), Refusal> {
    match path {
        Path::Feature(_) => Ok(()),
        _ => match path.feature() {
            Some(id) if !twin.features.contains_key(id) => {
                Err(Refusal::NotFound(twin.id.clone(), Path::Feature(id.to_owned())))
            }
            _ => Ok(()),
        },
    }
}

fn set_at(twin: &mut Twin, path: &Path, value: &Value) {
    let map = || value.as_object().cloned();
    match path {
        Path::Thing => {}
        Path::PolicyId => {
            if let Some(policy) = value.as_str() {
                twin.policy_id = policy.into();
            }
        }
        Path::Definition => twin.definition = Some(value.clone()).filter(|value| !value.is_null()),
        Path::Attributes => twin.set_attributes(map()),
        Path::Attribute(pointer) => {
            let mut attributes = twin.attributes.as_deref().cloned().unwrap_or_default();
            merge::set(&mut attributes, pointer, value.clone());
            twin.set_attributes(Some(attributes));
        }
        Path::Features => {
            twin.set_features(Some(value));
            let revision = twin.revision;
            for feature in twin.features.values_mut() {
                Arc::make_mut(feature).revision = revision;
            }
        }
        Path::Feature(id) => {
            let fresh = Feature::from_json(value);
            twin.edit_feature(id, |feature| *feature = fresh);
        }
        Path::FeatureDefinition(id) => {
            twin.edit_feature(id, |feature| feature.definition = Some(value.clone()));
        }
        Path::Properties(id) => twin.edit_feature(id, |feature| feature.properties = map()),
        Path::DesiredProperties(id) => twin.edit_feature(id, |feature| feature.desired = map()),
        Path::Property(id, pointer) => twin.edit_feature(id, |feature| {
            merge::set(feature.properties.get_or_insert_with(Map::new), pointer, value.clone());
        }),
        Path::DesiredProperty(id, pointer) => twin.edit_feature(id, |feature| {
            merge::set(feature.desired.get_or_insert_with(Map::new), pointer, value.clone());
        }),
    }
}

fn merge_at(twin: &mut Twin, path: &Path, value: &Value) {
    let empty = Map::new();
    let patch = value.as_object().unwrap_or(&empty);
    match path {
        Path::Thing => {
            for (key, value) in patch {
                match (key.as_str(), value) {
                    ("policyId", Value::String(policy)) => twin.policy_id = policy.as_str().into(),
                    ("definition", value) => set_at(twin, &Path::Definition, value),
                    ("attributes", value) => merge_at(twin, &Path::Attributes, value),
                    ("features", value) => merge_at(twin, &Path::Features, value),
                    _ => {}
                }
            }
        }
        Path::Attributes => match value {
            Value::Object(patch) => {
                let mut attributes = twin.attributes.as_deref().cloned().unwrap_or_default();
                merge::merge(&mut attributes, patch);
                twin.set_attributes(Some(attributes));
            }
            _ => twin.set_attributes(None),
        },
        Path::Attribute(pointer) => {
            merge_at(twin, &Path::Attributes, &merge::wrap(pointer, value.clone()));
        }
        Path::Features => match value {
            Value::Object(patch) => twin.merge_features(patch),
            _ => twin.set_features(None),
        },
        Path::Feature(id) => match value {
            Value::Object(patch) => twin.merge_feature(id, patch),
            _ => {
                twin.features.remove(id.as_str());
            }
        },
        Path::FeatureDefinition(id) => merge_in(twin, id, "definition", value.clone()),
        Path::Properties(id) => merge_in(twin, id, "properties", value.clone()),
        Path::DesiredProperties(id) => merge_in(twin, id, "desiredProperties", value.clone()),
        Path::Property(id, pointer) => {
            merge_in(twin, id, "properties", merge::wrap(pointer, value.clone()));
        }
        Path::DesiredProperty(id, pointer) => {
            merge_in(twin, id, "desiredProperties", merge::wrap(pointer, value.clone()));
        }
        Path::PolicyId | Path::Definition => set_at(twin, path, value),
    }
}

fn merge_in(twin: &mut Twin, feature: &str, part: &str, value: Value) {
    twin.has_features = true;
    twin.merge_feature(feature, &Map::from_iter([(part.to_owned(), value)]));
}

fn delete_at(twin: &mut Twin, path: &Path) {
    match path {
        Path::Thing | Path::PolicyId => {}
        Path::Definition => twin.definition = None,
        Path::Attributes => twin.set_attributes(None),
        Path::Attribute(pointer) => {
            let mut attributes = twin.attributes.as_deref().cloned().unwrap_or_default();
            merge::remove(&mut attributes, pointer);
            twin.set_attributes(Some(attributes));
        }
        Path::Features => twin.set_features(None),
        Path::Feature(id) => {
            twin.features.remove(id.as_str());
        }
        Path::FeatureDefinition(id) => twin.edit_feature(id, |feature| feature.definition = None),
        Path::Properties(id) => twin.edit_feature(id, |feature| feature.properties = None),
        Path::DesiredProperties(id) => twin.edit_feature(id, |feature| feature.desired = None),
        Path::Property(id, pointer) => twin.edit_feature(id, |feature| {
            if let Some(map) = &mut feature.properties {
                merge::remove(map, pointer);
            }
        }),
        Path::DesiredProperty(id, pointer) => twin.edit_feature(id, |feature| {
            if let Some(map) = &mut feature.desired {
                merge::remove(map, pointer);
            }
        }),
    }
}

fn object<'a>(value: &'a Value, code: &'static str) -> Result<&'a Object, Refusal> {
    value.as_object().ok_or_else(|| {
        Refusal::InvalidValue(code, format!("A JSON object is wanted here, not {}.", kind(value)))
    })
}

/// Checks a whole thing and writes the ID into it.
fn check_thing(id: &ThingId, value: &mut Value) -> Result<(), Refusal> {
    let map = object(value, "json.invalid")?;
    match map.get("thingId") {
        None => {}
        Some(Value::String(text)) if text == id.as_str() => {}
        Some(other) => {
            return Err(Refusal::InvalidValue(
                "things:id.notsettable",
                format!("The thing ID in the body is {other}, in the path it is `{id}`."),
            ));
        }
    }
    for (key, value) in map {
        match key.as_str() {
            "thingId" | "_policy" | "_copyPolicyFrom" => {}
            "policyId" => check_value(&Path::PolicyId, value)?,
            "definition" => check_value(&Path::Definition, value)?,
            "attributes" if value.is_null() => {}
            "attributes" => check_value(&Path::Attributes, value)?,
            "features" if value.is_null() => {}
            "features" => check_value(&Path::Features, value)?,
            // Special fields are written by the server alone; Ditto ignores them here.
            key if key.starts_with('_') => {}
            key => {
                return Err(Refusal::InvalidValue(
                    "json.invalid",
                    format!(
                        "A thing has no field `{key}`; it has thingId, policyId, definition, attributes and features."
                    ),
                ));
            }
        }
    }
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, value| !key.starts_with('_') && !value.is_null());
        map.insert("thingId".to_owned(), id.as_str().into());
    }
    Ok(())
}

/// Checks a merge patch; `null` may stand for anything but the IDs.
fn check_merge(id: &ThingId, path: &Path, value: &Value) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::InvalidValue("things:merge.invalid", why));
    check_keys(value, 0)?;
    check_patterns(value)?;
    match path {
        Path::Thing => {
            for (key, value) in object(value, "things:merge.invalid")? {
                match (key.as_str(), value) {
                    ("thingId", Value::String(text)) if text == id.as_str() => {}
                    ("thingId" | "policyId", Value::Null) => {
                        return invalid(format!("`{key}` cannot be removed."));
                    }
                    ("thingId", _) => {
                        return Err(Refusal::InvalidValue(
                            "things:id.notsettable",
                            "The thing ID cannot be changed.".to_owned(),
                        ));
                    }
                    ("policyId", value) => check_value(&Path::PolicyId, value)?,
                    ("definition", value) => check_value(&Path::Definition, value)?,
                    ("attributes", value) => check_merge(id, &Path::Attributes, value)?,
                    ("features", value) => check_merge(id, &Path::Features, value)?,
                    (key, _) => return invalid(format!("A thing has no field `{key}`.")),
                }
            }
            Ok(())
        }
        Path::Features => match value {
            Value::Null => Ok(()),
            _ => object(value, "things:merge.invalid")?
                .iter()
                .try_for_each(|(f, value)| check_merge(id, &Path::Feature(f.clone()), value)),
        },
        Path::Feature(feature) => match value {
            Value::Null => Ok(()),
            _ => object(value, "things:merge.invalid")?.iter().try_for_each(|(key, value)| {
                let part = feature_part(feature, key)?;
                if value.is_null() { Ok(()) } else { check_value(&part, value) }
            }),
        },
        _ if value.is_null() && *path != Path::PolicyId => Ok(()),
        _ => check_value(path, value),
    }
}

/// Every key that is a pattern must be one that can be read, and may only delete.
fn check_patterns(value: &Value) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::InvalidValue("things:merge.invalid", why));
    let Some(map) = value.as_object() else { return Ok(()) };
    for (key, value) in map {
        match merge::pattern(key) {
            Some(Err(why)) => return invalid(format!("`{key}` is no pattern: {why}.")),
            Some(Ok(_)) if !value.is_null() => {
                return invalid(format!("`{key}` can only delete; its value must be null."));
            }
            Some(Ok(_)) => {}
            None => check_patterns(value)?,
        }
    }
    Ok(())
}

fn feature_part(feature: &str, key: &str) -> Result<Path, Refusal> {
    match key {
        "definition" => Ok(Path::FeatureDefinition(feature.to_owned())),
        "properties" => Ok(Path::Properties(feature.to_owned())),
        "desiredProperties" => Ok(Path::DesiredProperties(feature.to_owned())),
        _ => Err(Refusal::InvalidValue(
            "json.invalid",
            format!(
                "A feature has no field `{key}`; it has definition, properties and desiredProperties."
            ),
        )),
    }
}

/// Checks that `value` can be at `path`.
fn check_value(path: &Path, value: &Value) -> Result<(), Refusal> {
    let invalid = |code, why: String| Err(Refusal::InvalidValue(code, why));
    check_keys(value, 0)?;
    match path {
        Path::Thing | Path::Attribute(_) | Path::Property(..) | Path::DesiredProperty(..) => Ok(()),
        Path::PolicyId => match value.as_str().map(ThingId::parse) {
            Some(Ok(_)) => Ok(()),
            _ => invalid("policies:id.invalid", format!("{value} is not a policy ID.")),
        },
        Path::Definition => match value {
            Value::Null => Ok(()),
            Value::String(text) if is_definition(text) => Ok(()),
            _ => invalid(
                "things:definition.identifier.invalid",
                format!("{value} is not a definition: `namespace:name:version` or an HTTP URL."),
            ),
        },
        Path::Attributes | Path::Properties(_) | Path::DesiredProperties(_) => {
            object(value, "json.invalid").map(drop)
        }
        Path::Features => object(value, "json.invalid")?
            .iter()
            .try_for_each(|(id, value)| check_value(&Path::Feature(id.clone()), value)),
        Path::Feature(feature) => match value {
            Value::Null => Ok(()),
            _ => object(value, "json.invalid")?.iter().try_for_each(|(key, value)| {
                let part = feature_part(feature, key)?;
                if value.is_null() { Ok(()) } else { check_value(&part, value) }
            }),
        },
        Path::FeatureDefinition(_) => match value.as_array() {
            Some(items) if items.is_empty() => invalid(
                "things:feature.definition.empty",
                "A definition names at least one model.".to_owned(),
            ),
            Some(items) if items.iter().all(|item| item.as_str().is_some_and(is_definition)) => {
                Ok(())
            }
            _ => invalid(
                "things:definition.identifier.invalid",
                format!("{value} is not a list of `namespace:name:version` or HTTP URLs."),
            ),
        },
    }
}

fn check_keys(value: &Value, depth: usize) -> Result<(), Refusal> {
    if depth > DEPTH_MAX {
        return Err(Refusal::InvalidValue(
            "json.invalid",
            format!("The JSON is nested deeper than {DEPTH_MAX} levels."),
        ));
    }
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            if !is_key(key) {
                return Err(Refusal::InvalidValue(
                    "json.key.invalid",
                    format!("`{}` is no key: keys are not empty and have no `/` and no control characters.", key.escape_debug()),
                ));
            }
            check_keys(value, depth + 1)
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check_keys(item, depth + 1)),
        _ => Ok(()),
    }
}

fn is_definition(text: &str) -> bool {
    if text.starts_with("http://") || text.starts_with("https://") {
        return !text.contains(char::is_whitespace);
    }
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    text.split(':').count() == 3 && text.split(':').all(part)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The names of the services in `attributes/services`: a list of names, or a map from names to
/// options. Anything else names none.
pub fn services(twin: &Twin) -> impl Iterator<Item = &str> {
    let value = twin.attributes.as_deref().and_then(|attributes| attributes.get("services"));
    let list = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let map = value.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str());
    list.chain(map)
}

/// `feature/property`, as a service's inputs and derived properties are written.
pub fn property_path(feature: &str, pointer: &Pointer) -> String {
    format!("{feature}/{}", pointer.join("/"))
}

#[cfg(test)]
mod tests;
