//! Objects as arguments (`twins`, `twin/a`, `Twin/lab/a`) and as rows of tables.

use serde_json::Value;

use super::error::{CliError, ErrorKind};
use super::global::Global;
use crate::base::text::suggest;
use crate::base::time::time_us;
use crate::kinds::{DEFAULT_NAMESPACE, Kind};
use crate::reconcile::ObjectKey;

/// What a verb is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// All objects of a kind, or of all kinds.
    Kind(Option<Kind>),
    /// One object.
    One(ObjectKey),
}

/// Reads `KIND`, `KIND NAME…`, `KIND/NAME…` and `KIND/NAMESPACE/NAME…`; a kind by name, singular,
/// plural or short name; `all` for all kinds. A twin may be named by its thing's id, too.
pub(super) fn targets(words: &[String], global: &Global) -> Result<Vec<Target>, CliError> {
    let Some((first, names)) = words.split_first() else {
        return Err(CliError::new(ErrorKind::Usage, "which kind of object?")
            .hint("`edgetwin explain` lists the kinds; `all` means all of them"));
    };
    if !first.contains('/') {
        let kind = if first.eq_ignore_ascii_case("all") { None } else { Some(kind(first)?) };
        return match (kind, names) {
            (_, []) => Ok(vec![Target::Kind(kind)]),
            (Some(kind), names) => {
                Ok(names.iter().map(|name| Target::One(named(kind, name, global))).collect())
            }
            (None, _) => Err(CliError::new(ErrorKind::Usage, "`all` takes no names")),
        };
    }
    let one = |word: &String| {
        let parts: Vec<&str> = word.split('/').collect();
        Ok(Target::One(match parts[..] {
            [word, name] => named(kind(word)?, name, global),
            [word, namespace, name] => ObjectKey {
                kind: kind(word)?,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            _ => {
                let message = format!("`{word}` names no object");
                return Err(CliError::new(ErrorKind::Usage, message)
                    .hint("write KIND/NAME or KIND/NAMESPACE/NAME"));
            }
        }))
    };
    words.iter().map(one).collect()
}

fn named(kind: Kind, name: &str, global: &Global) -> ObjectKey {
    let (namespace, name) = match name.split_once(':') {
        Some((namespace, name)) => (namespace, name),
        None => (global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), name),
    };
    ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// A kind by any of its names.
pub(super) fn kind(word: &str) -> Result<Kind, CliError> {
    Kind::find(word).ok_or_else(|| {
        let error = CliError::new(ErrorKind::Usage, format!("there is no kind `{word}`"));
        let as_written = word.starts_with(|c: char| c.is_uppercase());
        let name = |kind: &Kind| if as_written { kind.name() } else { kind.plural() };
        match suggest(word, Kind::ALL.iter().map(name)) {
            Some(guess) => error.hint(format!("did you mean `{guess}`?")),
            None => error.hint("`edgetwin explain` lists the kinds"),
        }
    })
}

/// `Kind/namespace/name` of an object as the runtime shows it.
pub(super) fn key_of(item: &Value) -> String {
    let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// A condition of an object.
pub(super) fn condition<'a>(item: &'a Value, name: &str) -> Option<&'a Value> {
    item["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == name)
}

/// Text at a pointer; empty where there is none.
pub(super) fn text(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(value) => value.to_string(),
    }
}

/// How long ago a time was, in one or two units: `3s`, `5m10s`, `2d`.
pub(super) fn age(time: &str, now_us: i64) -> String {
    let Some(then) = time_us(time) else { return String::new() };
    let s = (now_us - then).max(0) / 1_000_000;
    match s {
        0..120 => format!("{s}s"),
        120..600 => format!("{}m{}s", s / 60, s % 60),
        600..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// The head and the rows of a table.
pub(super) struct Table {
    /// Titles.
    pub(super) head: Vec<&'static str>,
    /// One row an object.
    pub(super) rows: Vec<Vec<String>>,
}

/// Lays objects of one kind out as a table.
pub(super) fn table(
    kind: Kind,
    items: &[&Value],
    namespaces: bool,
    wide: bool,
    now_us: i64,
) -> Table {
    let mut head = Vec::new();
    if namespaces {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "READY"]);
    head.extend::<&[&str]>(match kind {
        Kind::Twin => &["REVISION", "UPDATED", "VERDICTS"],
        Kind::TwinAggregate => &["REVISION", "UPDATED", "MEMBERS", "VERDICTS"],
        Kind::TwinSet => &["TWINS"],
        Kind::Service => &["HEALTHY", "MODEL"],
        Kind::Model => &["CLASSIFIER", "VERSION"],
        _ => &[],
    });
    head.push("AGE");
    if wide {
        if kind == Kind::Twin {
            head.extend(["MODEL", "MADE BY"]);
        }
        head.extend(["GENERATION", "SET", "LABELS", "REASON", "MESSAGE"]);
    }
    let row = |item: &&Value| {
        let mut row = Vec::new();
        if namespaces {
            row.push(text(item, "/metadata/namespace"));
        }
        row.push(text(item, "/metadata/name"));
        row.push(readiness(item));
        let thing = |pointer: &str| text(item, &format!("/status/thing/{pointer}"));
        match kind {
            Kind::Twin => {
                row.extend([thing("revision"), age(&thing("modified"), now_us), verdicts(item)]);
            }
            Kind::TwinAggregate => row.extend([
                thing("revision"),
                age(&thing("modified"), now_us),
                text(item, "/status/members"),
                verdicts(item),
            ]),
            Kind::TwinSet => row.push(text(item, "/status/twins")),
            Kind::Service => {
                let (healthy, all) =
                    (text(item, "/status/healthy"), text(item, "/status/instances"));
                let runs = match text(item, "/spec/model") {
                    model if model.is_empty() => "(external)".to_owned(),
                    model => model,
                };
                row.extend([format!("{healthy}/{all}"), runs]);
            }
            Kind::Model => {
                row.extend([text(item, "/spec/classifier"), text(item, "/status/version")])
            }
            _ => {}
        }
        row.push(age(&text(item, "/status/created"), now_us));
        if wide {
            if kind == Kind::Twin {
                row.extend([text(item, "/spec/model"), text(item, "/status/madeBy")]);
            }
            let ready = condition(item, "Ready");
            let of = |key: &str| ready.map(|one| text(one, key)).unwrap_or_default();
            row.extend([
                text(item, "/status/generation"),
                text(item, "/status/set"),
                labels(item),
                of("/reason"),
                of("/message"),
            ]);
        }
        row
    };
    Table { head, rows: items.iter().map(row).collect() }
}

/// `True`, or why not.
fn readiness(item: &Value) -> String {
    if item["status"]["deleting"] == true {
        return "Deleting".to_owned();
    }
    let Some(ready) = condition(item, "Ready") else { return "Unknown".to_owned() };
    match (ready["status"].as_str(), ready["reason"].as_str()) {
        (Some("True"), _) => match condition(item, "ServicesReady") {
            Some(lacking) => format!("True, {}", text(lacking, "/reason")),
            None => "True".to_owned(),
        },
        (Some(status), Some(reason)) => format!("{status}, {reason}"),
        _ => "Unknown".to_owned(),
    }
}

fn verdicts(item: &Value) -> String {
    let verdicts = item["status"]["thing"]["verdicts"].as_object();
    let each = verdicts.into_iter().flatten().map(|(service, verdict)| {
        let label =
            verdict["label"].as_str().map_or_else(|| verdict["label"].to_string(), str::to_owned);
        match verdict["score"].as_f64() {
            Some(score) => format!("{service}={label} {score:.2}"),
            None => format!("{service}={label}"),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

fn labels(item: &Value) -> String {
    let labels = item["metadata"]["labels"].as_object();
    let each = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    each.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let at = crate::base::time::rfc3339(0);
        for (s, text) in
            [(0, "0s"), (119, "119s"), (125, "2m5s"), (3600, "60m"), (7200, "2h"), (200_000, "2d")]
        {
            assert_eq!(age(&at, s * 1_000_000), text);
        }
        assert_eq!(age("", 0), "");
    }
}
