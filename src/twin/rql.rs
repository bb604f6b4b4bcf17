//! RQL, the filter language of search and streams: parsed once, evaluated on a twin. Pure.
//!
//! `and(eq(attributes/room,"north"),gt(features/env/properties/temperature,20))`. Source: Eclipse
//! Ditto, `basic-rql`. Numbers compare with numbers and text with text; an array matches when any
//! element does; a comparison with a field that is not there does not match, `ne` included.

use std::cmp::Ordering;

use serde_json::Value;

use super::path::{DEPTH_MAX, Path};
use super::thing::Twin;
use crate::base::time::rfc3339;

/// Longest filter, bytes.
pub const FILTER_LEN_MAX: usize = 8192;

/// A filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them match.
    And(Vec<Filter>),
    /// At least one matches.
    Or(Vec<Filter>),
    /// It does not match.
    Not(Box<Filter>),
    /// The property is there.
    Exists(Property),
    /// The property is missing, null or empty.
    Empty(Property),
    /// The property compares so with the value.
    Compare(Comparison, Property, Value),
    /// The property is one of these.
    In(Property, Vec<Value>),
    /// The property is text like the pattern, `*` and `?` standing for any text and any character;
    /// the flag ignores case.
    Like(Property, String, bool),
}

/// How a property compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// equal
    Eq,
    /// not equal
    Ne,
    /// greater
    Gt,
    /// greater or equal
    Ge,
    /// less
    Lt,
    /// less or equal
    Le,
}

/// What of a twin a filter looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Property {
    /// `thingId`
    ThingId,
    /// `namespace`
    Namespace,
    /// `_revision`
    Revision,
    /// `_created`, `_modified`: as RFC 3339 text.
    Created,
    /// See [`Property::Created`].
    Modified,
    /// A place in the thing.
    At(Path),
    /// `features/*/…`: the same place in any feature.
    AnyFeature(Vec<String>),
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// One sentence; Ditto's code is `rql.expression.invalid`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > FILTER_LEN_MAX {
            return Err(format!("The filter has more than {FILTER_LEN_MAX} bytes."));
        }
        let mut parser = Parser { text, at: 0 };
        let filter = parser.filter(0)?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.expected("the end of the filter"));
        }
        Ok(filter)
    }

    /// Whether `twin` matches.
    pub fn matches(&self, twin: &Twin) -> bool {
        match self {
            Self::And(all) => all.iter().all(|filter| filter.matches(twin)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(twin)),
            Self::Not(filter) => !filter.matches(twin),
            Self::Exists(property) => !property.values(twin).is_empty(),
            Self::Empty(property) => {
                let values = property.values(twin);
                values.is_empty()
                    || values.iter().all(|value| match value {
                        Value::Null => true,
                        Value::String(text) => text.is_empty(),
                        Value::Array(items) => items.is_empty(),
                        Value::Object(map) => map.is_empty(),
                        _ => false,
                    })
            }
            Self::Compare(comparison, property, wanted) => any(&property.values(twin), |value| {
                let equal = equal(value, wanted);
                match comparison {
                    Comparison::Eq => equal,
                    Comparison::Ne => !equal,
                    Comparison::Gt => order(value, wanted) == Some(Ordering::Greater),
                    Comparison::Ge => equal || order(value, wanted) == Some(Ordering::Greater),
                    Comparison::Lt => order(value, wanted) == Some(Ordering::Less),
                    Comparison::Le => equal || order(value, wanted) == Some(Ordering::Less),
                }
            }),
            Self::In(property, wanted) => any(&property.values(twin), |value| {
                wanted.iter().any(|wanted| equal(value, wanted))
            }),
            Self::Like(property, pattern, ignore_case) => any(&property.values(twin), |value| {
                value.as_str().is_some_and(|text| {
                    if *ignore_case {
                        like(&pattern.to_lowercase(), &text.to_lowercase())
                    } else {
                        like(pattern, text)
                    }
                })
            }),
        }
    }
}

impl Property {
    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        match bare {
            "thingId" => return Ok(Self::ThingId),
            "namespace" | "_namespace" => return Ok(Self::Namespace),
            "_revision" => return Ok(Self::Revision),
            "_created" => return Ok(Self::Created),
            "_modified" => return Ok(Self::Modified),
            _ => {}
        }
        if let Some(rest) = bare.strip_prefix("features/*/") {
            let parts: Vec<String> = rest.split('/').map(str::to_owned).collect();
            let ok = matches!(parts[0].as_str(), "definition" | "properties" | "desiredProperties");
            if ok && parts.iter().all(|part| super::path::is_key(part)) {
                return Ok(Self::AnyFeature(parts));
            }
        }
        match Path::parse(bare) {
            Ok(Path::Thing | Path::Attributes | Path::Features) | Err(_) => {
                Err(format!("`{text}` is not a property that filters know."))
            }
            Ok(path) => Ok(Self::At(path)),
        }
    }

    fn values(&self, twin: &Twin) -> Vec<Value> {
        match self {
            Self::ThingId => vec![twin.id.as_str().into()],
            Self::Namespace => vec![twin.id.namespace().into()],
            Self::Revision => vec![twin.revision.into()],
            Self::Created => vec![rfc3339(twin.created_us).into()],
            Self::Modified => vec![rfc3339(twin.modified_us).into()],
            Self::At(path) => twin.get(path).into_iter().collect(),
            Self::AnyFeature(rest) => {
                let each = twin.features.keys().filter_map(|feature| {
                    let head = ["features".to_owned(), feature.to_string()];
                    let path = Path::from_segments(head.into_iter().chain(rest.clone()).collect());
                    twin.get(&path.ok()?)
                });
                each.collect()
            }
        }
    }
}

fn any(values: &[Value], matches: impl Fn(&Value) -> bool) -> bool {
    values.iter().any(|value| match value {
        Value::Array(items) => items.iter().any(&matches),
        value => matches(value),
    })
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Greedy matching with one step back: linear in practice, `pattern × text` at worst.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some('?') => (p, t) = (p + 1, t + 1),
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn expected(&self, what: &str) -> String {
        let found: String = self.text[self.at..].chars().take(12).collect();
        format!("The filter wants {what} at character {}, not `{found}`.", self.at + 1)
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: char) -> Result<(), String> {
        self.space();
        match self.text[self.at..].strip_prefix(token) {
            Some(_) => {
                self.at += token.len_utf8();
                Ok(())
            }
            None => Err(self.expected(&format!("`{token}`"))),
        }
    }

    fn peek(&mut self, token: char) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    fn word(&mut self) -> &str {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest.find(['(', ')', ',']).unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim_end()
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, String> {
        if depth > DEPTH_MAX {
            return Err(format!("The filter is nested deeper than {DEPTH_MAX} levels."));
        }
        self.space();
        let start = self.at;
        let name = self.word().to_owned();
        let comparison = match name.as_str() {
            "and" | "or" => {
                self.take('(')?;
                let mut filters = vec![self.filter(depth + 1)?];
                while self.peek(',') {
                    self.take(',')?;
                    filters.push(self.filter(depth + 1)?);
                }
                self.take(')')?;
                let and = name == "and";
                return Ok(if and { Filter::And(filters) } else { Filter::Or(filters) });
            }
            "not" => {
                self.take('(')?;
                let filter = self.filter(depth + 1)?;
                self.take(')')?;
                return Ok(Filter::Not(Box::new(filter)));
            }
            "exists" | "empty" => {
                self.take('(')?;
                let property = Property::parse(self.word())?;
                self.take(')')?;
                let exists = name == "exists";
                return Ok(if exists { Filter::Exists(property) } else { Filter::Empty(property) });
            }
            "like" | "ilike" => {
                let (property, values) = self.arguments()?;
                return match values.as_slice() {
                    [Value::String(pattern)] => {
                        Ok(Filter::Like(property, pattern.clone(), name == "ilike"))
                    }
                    _ => Err(self.expected("one text pattern")),
                };
            }
            "in" => {
                let (property, values) = self.arguments()?;
                return Ok(Filter::In(property, values));
            }
            "eq" => Comparison::Eq,
            "ne" => Comparison::Ne,
            "gt" => Comparison::Gt,
            "ge" => Comparison::Ge,
            "lt" => Comparison::Lt,
            "le" => Comparison::Le,
            _ => {
                self.at = start;
                return Err(self.expected(
                    "one of eq, ne, gt, ge, lt, le, like, ilike, in, exists, empty, and, or, not",
                ));
            }
        };
        let (property, mut values) = self.arguments()?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(Filter::Compare(comparison, property, value)),
            _ => Err(self.expected("one value")),
        }
    }

    /// `(property,value,…)`
    fn arguments(&mut self) -> Result<(Property, Vec<Value>), String> {
        self.take('(')?;
        let property = Property::parse(self.word())?;
        let mut values = Vec::new();
        while self.peek(',') {
            self.take(',')?;
            values.push(self.value()?);
        }
        self.take(')')?;
        if values.is_empty() {
            return Err(self.expected("a value"));
        }
        Ok((property, values))
    }

    fn value(&mut self) -> Result<Value, String> {
        self.space();
        let rest = &self.text[self.at..];
        if let Some(quote) = rest.chars().next().filter(|c| *c == '"' || *c == '\'') {
            let mut text = String::new();
            let mut chars = rest.char_indices().skip(1);
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => match chars.next() {
                        Some((_, escaped)) => text.push(escaped),
                        None => break,
                    },
                    c if c == quote => {
                        self.at += at + c.len_utf8();
                        return Ok(Value::String(text));
                    }
                    c => text.push(c),
                }
            }
            return Err(self.expected("a closing quote"));
        }
        let start = self.at;
        let word = self.word().to_owned();
        match word.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            number => match serde_json::from_str::<serde_json::Number>(number) {
                Ok(number) => Ok(Value::Number(number)),
                Err(_) => {
                    self.at = start;
                    Err(self.expected("a number, a quoted text, true, false or null"))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Change, ThingId, apply, decide};
    use proptest::prelude::*;
    use serde_json::json;

    fn twin() -> Twin {
        let id = ThingId::parse("farm:node-1").unwrap();
        let thing = json!({
            "attributes": {"room": "north", "tags": ["a", "b"], "empty": ""},
            "features": {"env": {"properties": {"t": 21.5}}, "sun": {"properties": {"t": 3}}},
        });
        let event = decide(&id, None, Change::Modify(Path::Thing, thing)).unwrap();
        apply(&id, None, &event, 1_700_000_000_000_000).unwrap()
    }

    #[test]
    fn filters_match_as_ditto_does() {
        let twin = twin();
        for (filter, expected) in [
            ("eq(attributes/room,\"north\")", true),
            ("eq(attributes/room,'south')", false),
            ("ne(attributes/room,\"south\")", true),
            ("ne(attributes/floor,1)", false),
            ("and(exists(attributes/room),exists(features/env))", true),
            ("and(exists(attributes/room), eq(thingId,\"farm:other\"))", false),
            ("or(eq(thingId,\"x:y\"),eq(namespace,\"farm\"))", true),
            ("not(exists(features/none/properties/t))", true),
            ("gt(features/env/properties/t,21)", true),
            ("le(features/env/properties/t,21.5)", true),
            ("lt(features/env/properties/t,\"30\")", false),
            ("gt(features/*/properties/t,21)", true),
            ("lt(features/*/properties/t,0)", false),
            ("eq(attributes/tags,\"b\")", true),
            ("in(attributes/room,\"south\",\"north\")", true),
            ("like(attributes/room,\"n?rt*\")", true),
            ("ilike(attributes/room,\"NORTH\")", true),
            ("empty(attributes/empty)", true),
            ("eq(_revision,1)", true),
            ("gt(_created,\"2023-11-14T22:13:19Z\")", true),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().matches(&twin), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_says_where() {
        for filter in [
            "",
            "eq(",
            "eq(attributes/a)",
            "eq(attributes/a,1",
            "eq(nothing,1)",
            "foo(a,1)",
            "eq(attributes/a,b)",
            "eq(attributes/a,1)x",
            "and()",
            "eq(attributes/a,\"x)",
        ] {
            assert!(Filter::parse(filter).is_err(), "{filter}");
        }
        let deep = format!("{}exists(attributes/a){}", "not(".repeat(50), ")".repeat(50));
        assert!(Filter::parse(&deep).is_err());
        assert!(Filter::parse("eq(attributes/a,b)").unwrap_err().contains("character 17"));
    }

    proptest! {
        #[test]
        fn no_filter_makes_parsing_panic(text in "\\PC{0,60}") {
            drop(Filter::parse(&text));
        }

        #[test]
        fn a_pattern_of_stars_matches_its_text(text in "[a-c]{0,12}", cuts in proptest::collection::vec(0_usize..12, 0..4)) {
            let mut pattern: Vec<char> = text.chars().collect();
            for cut in cuts {
                if cut < pattern.len() { pattern[cut] = '*'; }
            }
            prop_assert!(like(&pattern.into_iter().collect::<String>(), &text));
        }
    }
}
