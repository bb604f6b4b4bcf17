//! Which event a change to a twin becomes, or why it is refused.
//!
//! Not here: whether a value can be at its path (`check`), what the event does (`apply`).

use serde_json::Value;

use super::check::{check_merge, check_thing, check_value, object};
use super::event::{Action, Change, Event};
use super::id::ThingId;
use super::merge;
use super::path::Path;
use super::refusal::{Refusal, ValueError};
use super::sequence::{self, Stamp};
use super::thing::Twin;

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
                    sequence::Arrival::Duplicate => return Err(Refusal::Duplicate),
                    sequence::Arrival::Late => true,
                    sequence::Arrival::Next => false,
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
                value = Value::Object(merge::without_nulls(object(&value, ValueError::Merge)?));
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
                    ValueError::PolicyIdNotDeletable,
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
