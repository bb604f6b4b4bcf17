//! Field selectors: which parts of a thing an answer holds.
//!
//! `thingId,attributes(a,b/c),features/*/properties/x`. Source: Eclipse Ditto, `httpapi-concepts`,
//! "partial requests".

use serde_json::{Map, Value};

use super::merge::{self, Object};
use super::path::DEPTH_MAX;

/// Longest selector, bytes.
pub const FIELDS_LEN_MAX: usize = 8192;
/// Fields that are shown only when asked for.
const SPECIAL: [&str; 7] =
    ["_revision", "_modified", "_created", "_namespace", "_metadata", "_policy", "_context"];
const REGULAR: [&str; 5] = ["thingId", "policyId", "definition", "attributes", "features"];

/// A parsed selector: pointers from the thing's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(Vec<Vec<String>>);

impl Fields {
    /// Parses a selector for a whole thing.
    ///
    /// # Errors
    /// One sentence; Ditto's code is `things:field.selection.invalid`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = Self::parse_pointers(text)?;
        for pointer in &fields.0 {
            let root = pointer.first().map_or("", String::as_str);
            if !REGULAR.contains(&root) && !SPECIAL.contains(&root) {
                return Err(format!("A thing has no field `{root}`."));
            }
        }
        Ok(fields)
    }

    /// Parses a selector for any object.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse_pointers(text: &str) -> Result<Self, String> {
        if text.len() > FIELDS_LEN_MAX {
            return Err(format!("The field selector has more than {FIELDS_LEN_MAX} bytes."));
        }
        let mut parser = Parser { rest: text };
        let mut pointers = Vec::new();
        parser.list(&[], &mut pointers)?;
        if !parser.rest.is_empty() {
            return Err(format!("The field selector ends before `{}`.", parser.rest));
        }
        Ok(Self(pointers))
    }

    /// Whether a field at the root is named.
    pub fn names(&self, root: &str) -> bool {
        self.0.iter().any(|pointer| pointer.first().is_some_and(|first| first == root))
    }

    /// The selected parts of `value`.
    pub fn select(&self, value: &Object) -> Object {
        let mut selected = Map::new();
        for pointer in &self.0 {
            if let Some(part) = pick(value, pointer) {
                merge::merge(&mut selected, &part);
            }
        }
        selected
    }
}

fn pick(value: &Object, pointer: &[String]) -> Option<Object> {
    let (first, rest) = pointer.split_first()?;
    if first == "*" {
        let each =
            value.iter().filter_map(|(key, inner)| Some((key.clone(), descend(inner, rest)?)));
        let picked: Object = each.collect();
        return (!picked.is_empty()).then_some(picked);
    }
    let inner = descend(value.get(first)?, rest)?;
    Some(Map::from_iter([(first.clone(), inner)]))
}

fn descend(value: &Value, rest: &[String]) -> Option<Value> {
    if rest.is_empty() {
        return Some(value.clone());
    }
    pick(value.as_object()?, rest).map(Value::Object)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn list(&mut self, prefix: &[String], pointers: &mut Vec<Vec<String>>) -> Result<(), String> {
        loop {
            let end = self.rest.find([',', '(', ')']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            let mut pointer = prefix.to_vec();
            pointer.extend(field.split('/').filter(|part| !part.is_empty()).map(str::to_owned));
            if pointer.len() == prefix.len() {
                return Err("The field selector has an empty field.".to_owned());
            }
            if pointer.len() > DEPTH_MAX {
                return Err(format!("The field selector is deeper than {DEPTH_MAX} levels."));
            }
            if let Some(rest) = self.rest.strip_prefix('(') {
                self.rest = rest;
                self.list(&pointer, pointers)?;
                self.rest = self
                    .rest
                    .strip_prefix(')')
                    .ok_or("The field selector has a `(` without `)`.".to_owned())?;
            } else {
                pointers.push(pointer);
            }
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn select(selector: &str) -> Value {
        let thing = json!({
            "thingId": "a:b",
            "attributes": {"x": 1, "y": {"z": 2, "w": 3}},
            "features": {"f": {"properties": {"t": 1, "h": 2}}, "g": {"properties": {"t": 3}}},
        });
        Value::Object(Fields::parse(selector).unwrap().select(thing.as_object().unwrap()))
    }

    #[test]
    fn parts_are_selected() {
        assert_eq!(select("thingId"), json!({"thingId": "a:b"}));
        assert_eq!(select("attributes(x,y/z)"), json!({"attributes": {"x": 1, "y": {"z": 2}}}));
        assert_eq!(
            select("/features/*/properties/t"),
            json!({"features": {"f": {"properties": {"t": 1}}, "g": {"properties": {"t": 3}}}})
        );
        assert_eq!(
            select("features(f/properties(t),h),attributes/none"),
            json!({"features": {"f": {"properties": {"t": 1}}}})
        );
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in ["", "a", "thingId,,x", "attributes(x", "attributes(x))", "attributes()"] {
            assert!(Fields::parse(selector).is_err(), "{selector}");
        }
    }
}
