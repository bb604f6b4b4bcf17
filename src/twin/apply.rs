//! What an event does to a twin; it cannot fail.
//!
//! Not here: whether the event may happen (`decide`), how a feature is edited (`thing`).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::event::{Action, Event};
use super::id::ThingId;
use super::merge;
use super::path::Path;
use super::sequence::Stamp;
use super::thing::{Feature, Twin};

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
