//! Streams: which changes are shown, and what of them. Pure.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::error::DittoError;
use super::things::add_special;
use crate::twin::fields::Fields;
use crate::twin::path::Path;
use crate::twin::rql::Filter;
use crate::twin::{Action, Event, ThingId, Twin, merge};
use crate::writer::Committed;

/// What a stream shows.
pub(super) struct Subscription {
    of: Subject,
    filters: Vec<Filter>,
    fields: Option<Fields>,
}

enum Subject {
    /// Many things; `None` for all.
    Things { ids: Option<Vec<String>>, namespaces: Option<Vec<String>> },
    /// What is at a path of one thing.
    Part(ThingId, Path),
}

impl Subscription {
    /// To the things that the parameters select.
    pub(super) fn to_things(call: &Call) -> Result<Self, DittoError> {
        let of = Subject::Things { ids: call.list("ids"), namespaces: call.list("namespaces") };
        Ok(Self { of, filters: call.filters()?, fields: call.fields()? })
    }

    /// To one thing, or a part of it.
    pub(super) fn to_part(call: &Call, id: ThingId, path: Path) -> Result<Self, DittoError> {
        let filters = call.filters()?;
        let fields = if path == Path::Thing { call.fields()? } else { None };
        Ok(Self { of: Subject::Part(id, path), filters, fields })
    }

    /// What is shown of a change; `None` if nothing.
    pub(super) fn show(&self, change: &Committed) -> Option<Value> {
        if !self.is_about(&change.id) {
            return None;
        }
        let twin = change.after.as_deref().or(change.before.as_deref())?;
        if !self.filters.iter().all(|filter| filter.matches(twin)) {
            return None;
        }
        match &self.of {
            // Below a thing: the bare new value, whenever it is another one.
            Subject::Part(_, path) if *path != Path::Thing => {
                let before = change.before.as_ref().and_then(|twin| twin.get(path));
                let after = change.after.as_ref().and_then(|twin| twin.get(path));
                if before == after { None } else { after }
            }
            _ => shown_change(change, twin, self.fields.as_ref()),
        }
    }

    fn is_about(&self, id: &ThingId) -> bool {
        match &self.of {
            Subject::Part(only, _) => only == id,
            Subject::Things { ids, namespaces } => {
                let among = |list: &Option<Vec<String>>, name: &str| {
                    list.as_ref().is_none_or(|list| list.iter().any(|item| item == name))
                };
                among(ids, id.as_str()) && among(namespaces, id.namespace())
            }
        }
    }
}

/// What changed, as a thing that holds only that, and the ID.
fn shown_change(change: &Committed, twin: &Twin, fields: Option<&Fields>) -> Option<Value> {
    let Event { action, path, value, .. } = &*change.event;
    let mut thing = match (action, path, value) {
        (Action::Deleted, Path::Thing, _) => Map::new(),
        (Action::Read, _, Some(Value::Object(values))) => {
            let features = values
                .iter()
                .map(|(feature, values)| (feature.clone(), json!({"properties": values})));
            Map::from_iter([("features".to_owned(), Value::Object(features.collect()))])
        }
        (Action::ReadLate | Action::BootReset, ..) => return None,
        (Action::Deleted, ..) | (_, _, None) => Map::new(),
        (_, Path::Thing, Some(value)) => value.as_object().cloned().unwrap_or_default(),
        (_, path, Some(value)) => {
            let pointer: Vec<String> =
                path.to_string().split('/').skip(1).map(str::to_owned).collect();
            merge::wrap(&pointer, value.clone()).as_object().cloned().unwrap_or_default()
        }
    };
    thing.insert("thingId".to_owned(), change.id.as_str().into());
    let Some(fields) = fields else { return Some(Value::Object(thing)) };
    let own = fields.select(&thing);
    let only_id = own.keys().all(|key| key == "thingId") && !fields.names("thingId");
    if own.is_empty() || only_id {
        return None;
    }
    add_special(&mut thing, twin, fields);
    if fields.names("_context") {
        thing.insert("_context".to_owned(), context(change));
    }
    Some(Value::Object(fields.select(&thing)))
}

fn context(change: &Committed) -> Value {
    let action = match change.event.action {
        Action::Created => "created",
        Action::Modified => "modified",
        Action::Merged | Action::Read | Action::ReadLate | Action::BootReset => "merged",
        Action::Deleted => "deleted",
    };
    let (namespace, name) = (change.id.namespace(), change.id.name());
    json!({
        "topic": format!("{namespace}/{name}/things/twin/events/{action}"),
        "path": change.event.path.to_string(),
        "value": change.event.value,
    })
}
