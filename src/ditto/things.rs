//! Things: conditions on them, their entity tags, what is shown of them. Pure.

use axum::http::header;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::error::DittoError;
use crate::base::time::rfc3339;
use crate::twin::fields::Fields;
use crate::twin::path::{Path, Verb};
use crate::twin::{Event, Object, ThingId, Twin, apply};
use crate::writer::HistoryRecord;

/// The entity tag of what is at `path`.
pub(super) fn etag(twin: &Twin, path: &Path, value: &Value) -> String {
    if *path == Path::Thing {
        return revision_tag(twin.revision);
    }
    let digest = Sha256::digest(value.to_string().as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"hash:{hex}\"")
}

/// The entity tag of a whole thing.
pub(super) fn revision_tag(revision: u64) -> String {
    format!("\"rev:{revision}\"")
}

/// Judges `If-Match` and, for writes, `If-None-Match` (RFC 9110, 13.1).
pub(super) fn precondition(call: &Call, tag: Option<&str>, verb: Verb) -> Result<(), DittoError> {
    let failed = |header, wanted: &str| DittoError::PreconditionFailed {
        header,
        wanted: wanted.to_owned(),
        found: tag.map(str::to_owned),
    };
    if let Some(wanted) = call.header(header::IF_MATCH)
        && !tag_matches(wanted, tag)
    {
        return Err(failed("If-Match", wanted));
    }
    if verb != Verb::Retrieve
        && let Some(wanted) = call.header(header::IF_NONE_MATCH)
        && tag_matches(wanted, tag)
    {
        return Err(failed("If-None-Match", wanted));
    }
    Ok(())
}

/// Whether the client has this version already.
pub(super) fn not_modified(call: &Call, tag: &str) -> bool {
    call.header(header::IF_NONE_MATCH).is_some_and(|wanted| tag_matches(wanted, Some(tag)))
}

fn tag_matches(wanted: &str, tag: Option<&str>) -> bool {
    match tag {
        None => false,
        Some(tag) => wanted.split(',').map(str::trim).any(|wanted| wanted == "*" || wanted == tag),
    }
}

/// The whole thing, or the selected part with the special fields that were asked for.
pub(super) fn shown(twin: &Twin, fields: Option<&Fields>) -> Value {
    let Value::Object(mut thing) = twin.to_json() else { return Value::Null };
    let Some(fields) = fields else { return Value::Object(thing) };
    add_special(&mut thing, twin, fields);
    Value::Object(fields.select(&thing))
}

/// The selected part of `value`, which is at `path` of the twin.
///
/// * `selector`: the parameter `fields`, if there is one.
pub(super) fn selected(
    twin: &Twin,
    path: &Path,
    value: Value,
    selector: Option<&str>,
) -> Result<Value, DittoError> {
    match (path, selector) {
        (_, None) => Ok(value),
        (Path::Thing, Some(text)) => {
            let fields = Fields::parse(text).map_err(DittoError::InvalidFields)?;
            Ok(shown(twin, Some(&fields)))
        }
        (_, Some(text)) => {
            let fields = Fields::parse_pointers(text).map_err(DittoError::InvalidSelector)?;
            match &value {
                Value::Object(map) => Ok(Value::Object(fields.select(map))),
                _ => Ok(value),
            }
        }
    }
}

/// Adds the special fields that `fields` names.
pub(super) fn add_special(thing: &mut Object, twin: &Twin, fields: &Fields) {
    let mut add = |name: &str, value: Value| {
        if fields.names(name) {
            thing.insert(name.to_owned(), value);
        }
    };
    add("_revision", twin.revision.into());
    add("_created", rfc3339(twin.created_us).into());
    add("_modified", rfc3339(twin.modified_us).into());
    add("_namespace", twin.id.namespace().into());
}

/// Builds a twin as it was at a revision from its history, newest record first.
pub(super) struct PastRevision {
    revision: u64,
    events: Vec<(i64, Event)>,
    base: Option<Twin>,
    complete: bool,
}

impl PastRevision {
    pub(super) fn new(revision: u64) -> Self {
        Self { revision, events: Vec::new(), base: None, complete: false }
    }

    /// Takes a record; whether older ones are needed.
    pub(super) fn take(&mut self, revision: u64, time_us: i64, record: HistoryRecord) -> bool {
        match record {
            HistoryRecord::State(twin) if revision <= self.revision => {
                self.base = Some(*twin);
                self.complete = true;
            }
            HistoryRecord::State(_) => {}
            HistoryRecord::Event(event) => {
                if revision <= self.revision {
                    self.events.push((time_us, event));
                }
                self.complete = revision == 1;
            }
        }
        !self.complete
    }

    /// The twin at the revision.
    pub(super) fn finish(self, id: &ThingId) -> Result<Twin, DittoError> {
        let mut twin = self.base;
        for (time_us, event) in self.events.into_iter().rev() {
            twin = apply(id, twin.as_ref(), &event, time_us);
        }
        match twin {
            Some(twin) if self.complete && twin.revision == self.revision => Ok(twin),
            _ => Err(DittoError::NoSuchRevision(id.clone(), self.revision)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, HeaderName, Method};

    fn call(headers: &[(&str, &str)]) -> Call {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.insert(name, value.parse().unwrap());
        }
        Call { method: Method::GET, headers: map, query: Vec::new() }
    }

    #[test]
    fn preconditions_hold_as_the_rfc_says() {
        let tag = Some("\"rev:3\"");
        for (headers, verb, holds) in [
            (("if-match", "\"rev:3\""), Verb::Modify, true),
            (("if-match", "\"rev:2\", \"rev:3\""), Verb::Delete, true),
            (("if-match", "\"rev:2\""), Verb::Modify, false),
            (("if-match", "*"), Verb::Modify, true),
            (("if-none-match", "*"), Verb::Modify, false),
            (("if-none-match", "\"rev:2\""), Verb::Merge, true),
            (("if-none-match", "\"rev:3\""), Verb::Retrieve, true),
        ] {
            assert_eq!(precondition(&call(&[headers]), tag, verb).is_ok(), holds, "{headers:?}");
        }
        assert!(precondition(&call(&[("if-match", "*")]), None, Verb::Modify).is_err());
        assert!(precondition(&call(&[("if-none-match", "*")]), None, Verb::Modify).is_ok());
    }
}
