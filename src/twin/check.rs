//! What can be at a path: whole things, values, merge patches, keys.
//!
//! Not here: whether there is something at the path (`decide`).

use serde_json::Value;

use super::id::ThingId;
use super::merge::{self, Object};
use super::path::{DEPTH_MAX, Path, is_key};
use super::refusal::{Refusal, ValueError};

pub(super) fn object(value: &Value, error: ValueError) -> Result<&Object, Refusal> {
    value.as_object().ok_or_else(|| {
        Refusal::InvalidValue(error, format!("A JSON object is wanted here, not {}.", kind(value)))
    })
}

/// Checks a whole thing and writes the ID into it.
pub(super) fn check_thing(id: &ThingId, value: &mut Value) -> Result<(), Refusal> {
    let map = object(value, ValueError::Json)?;
    match map.get("thingId") {
        None => {}
        Some(Value::String(text)) if text == id.as_str() => {}
        Some(other) => {
            return Err(Refusal::InvalidValue(
                ValueError::ThingIdNotSettable,
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
                    ValueError::Json,
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
pub(super) fn check_merge(id: &ThingId, path: &Path, value: &Value) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::InvalidValue(ValueError::Merge, why));
    check_keys(value, 0)?;
    check_patterns(value)?;
    match path {
        Path::Thing => {
            for (key, value) in object(value, ValueError::Merge)? {
                match (key.as_str(), value) {
                    ("thingId", Value::String(text)) if text == id.as_str() => {}
                    ("thingId" | "policyId", Value::Null) => {
                        return invalid(format!("`{key}` cannot be removed."));
                    }
                    ("thingId", _) => {
                        return Err(Refusal::InvalidValue(
                            ValueError::ThingIdNotSettable,
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
            _ => object(value, ValueError::Merge)?
                .iter()
                .try_for_each(|(f, value)| check_merge(id, &Path::Feature(f.clone()), value)),
        },
        Path::Feature(feature) => match value {
            Value::Null => Ok(()),
            _ => object(value, ValueError::Merge)?.iter().try_for_each(|(key, value)| {
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
    let invalid = |why: String| Err(Refusal::InvalidValue(ValueError::Merge, why));
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
            ValueError::Json,
            format!(
                "A feature has no field `{key}`; it has definition, properties and desiredProperties."
            ),
        )),
    }
}

/// Checks that `value` can be at `path`.
pub(super) fn check_value(path: &Path, value: &Value) -> Result<(), Refusal> {
    let invalid = |error, why: String| Err(Refusal::InvalidValue(error, why));
    check_keys(value, 0)?;
    match path {
        Path::Thing | Path::Attribute(_) | Path::Property(..) | Path::DesiredProperty(..) => Ok(()),
        Path::PolicyId => match value.as_str().map(ThingId::parse) {
            Some(Ok(_)) => Ok(()),
            _ => invalid(ValueError::PolicyId, format!("{value} is not a policy ID.")),
        },
        Path::Definition => match value {
            Value::Null => Ok(()),
            Value::String(text) if is_definition(text) => Ok(()),
            _ => invalid(
                ValueError::Definition,
                format!("{value} is not a definition: `namespace:name:version` or an HTTP URL."),
            ),
        },
        Path::Attributes | Path::Properties(_) | Path::DesiredProperties(_) => {
            object(value, ValueError::Json).map(drop)
        }
        Path::Features => object(value, ValueError::Json)?
            .iter()
            .try_for_each(|(id, value)| check_value(&Path::Feature(id.clone()), value)),
        Path::Feature(feature) => match value {
            Value::Null => Ok(()),
            _ => object(value, ValueError::Json)?.iter().try_for_each(|(key, value)| {
                let part = feature_part(feature, key)?;
                if value.is_null() { Ok(()) } else { check_value(&part, value) }
            }),
        },
        Path::FeatureDefinition(_) => match value.as_array() {
            Some(items) if items.is_empty() => invalid(
                ValueError::EmptyDefinition,
                "A definition names at least one model.".to_owned(),
            ),
            Some(items) if items.iter().all(|item| item.as_str().is_some_and(is_definition)) => {
                Ok(())
            }
            _ => invalid(
                ValueError::Definition,
                format!("{value} is not a list of `namespace:name:version` or HTTP URLs."),
            ),
        },
    }
}

fn check_keys(value: &Value, depth: usize) -> Result<(), Refusal> {
    if depth > DEPTH_MAX {
        return Err(Refusal::InvalidValue(
            ValueError::Json,
            format!("The JSON is nested deeper than {DEPTH_MAX} levels."),
        ));
    }
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            if !is_key(key) {
                return Err(Refusal::InvalidValue(
                    ValueError::Key,
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
