//! What a manifest may say and nothing acts on yet, declared beside each kind's struct.
//!
//! `apply`, `plan` and `run` print one sentence for each such field that an object gives. A field
//! that is neither acted on nor listed fails `reconcile::kind::tests`, so a new one cannot be
//! accepted and ignored.
//!
//! Not here: whether a field is well-formed (`manifest::check`).

use serde_json::Value;

/// The spec of one kind.
pub trait KindSpec {
    /// What is checked and stored, and not acted on yet. Empty if all of it is acted on.
    const PENDING: &'static [Pending];

    /// The same for what is not a field of its own, such as a function inside an expression.
    fn pending_within(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A field that is checked and stored, and not acted on yet.
#[derive(Debug, Clone, Copy)]
pub enum Pending {
    /// The kind as a whole, with words that follow "is checked and stored; ".
    Kind(&'static str),
    /// A field by its path below `spec`, where `*` stands for any key or index; for which of its
    /// values; and words that follow "is not acted on yet: ".
    Field(&'static str, Values, &'static str),
    /// The fields of a type that several kinds contain, by the path of the field that holds it.
    Inside(&'static str, &'static [Pending]),
}

/// Which values of a field are not acted on.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// All.
    Any,
    /// These.
    Only(&'static [&'static str]),
    /// All but these.
    Except(&'static [&'static str]),
    /// All, as long as the field of this name, beside the path's beginning, is not given. The sentence is then
    /// "is stored in the twin; " and the words.
    Without(&'static str),
}

impl Pending {
    /// Shorthand for a field of which no value is acted on.
    pub const fn field(path: &'static str, instead: &'static str) -> Self {
        Self::Field(path, Values::Any, instead)
    }

    /// Pushes a sentence for each field that is given and not acted on.
    ///
    /// * `object`: the object in the user's words.
    /// * `at`, `prefix`: the value that the paths start from, and the path to it as printed.
    fn sentences(self, object: &str, at: &Value, prefix: &str, out: &mut Vec<String>) {
        match self {
            Self::Kind(later) => out.push(format!("{object} is checked and stored; {later}")),
            Self::Inside(path, fields) => each(at, path, prefix, &mut |inner, path| {
                for field in fields {
                    field.sentences(object, inner, path, out);
                }
            }),
            Self::Field(path, values, instead) => each(at, path, prefix, &mut |value, path| {
                let written = match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                match values {
                    Values::Any => {
                        out.push(format!("`{path}` is not acted on yet: {instead}"));
                    }
                    Values::Only(these) if these.contains(&written.as_str()) => {
                        out.push(format!("`{path}: {written}` is not acted on yet: {instead}"));
                    }
                    Values::Except(these) if !these.contains(&written.as_str()) => {
                        out.push(format!("`{path}: {written}` is not acted on yet: {instead}"));
                    }
                    Values::Without(other) if at.get(other).is_none_or(Value::is_null) => {
                        out.push(format!("`{path}` is stored in the twin; {instead}"));
                    }
                    _ => {}
                }
            }),
        }
    }

    /// The paths of the fields that this entry is about, as far as they have values without effect
    /// whatever else the object says; empty for the whole kind.
    #[cfg(test)]
    pub fn paths(self, prefix: &str, out: &mut Vec<String>) {
        match self {
            Self::Kind(_) => out.push(prefix.to_owned()),
            Self::Field(_, Values::Without(_), _) => {}
            Self::Field(path, ..) => out.push(join(prefix, path)),
            Self::Inside(path, fields) => {
                let prefix = join(prefix, path);
                fields.iter().for_each(|field| field.paths(&prefix, out));
            }
        }
    }
}

/// One sentence for each thing that `spec`, as written, says and nothing acts on yet.
pub(super) fn sentences<S: KindSpec>(object: &str, typed: &S, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for pending in S::PENDING {
        pending.sentences(object, spec, "", &mut out);
    }
    out.extend(typed.pending_within());
    out
}

/// Calls `found` with each value below `value` that a path leads to, and the path in full.
fn each(value: &Value, path: &str, prefix: &str, found: &mut dyn FnMut(&Value, &str)) {
    if value.is_null() {
        return;
    }
    if path.is_empty() {
        return found(value, prefix);
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match (step, value) {
        ("*", Value::Object(map)) => {
            for (key, value) in map {
                each(value, rest, &join(prefix, key), found);
            }
        }
        ("*", Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                each(value, rest, &join(prefix, &index.to_string()), found);
            }
        }
        (step, Value::Object(map)) => {
            if let Some(value) = map.get(step) {
                each(value, rest, &join(prefix, step), found);
            }
        }
        _ => {}
    }
}

fn join(prefix: &str, step: &str) -> String {
    match (prefix, step) {
        ("", step) => step.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, step) => format!("{prefix}.{step}"),
    }
}
