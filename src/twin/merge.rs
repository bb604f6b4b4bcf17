//! Merge patches (RFC 7396) and pointers into JSON maps.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// Longest pattern of a key that deletes by pattern, bytes.
pub const PATTERN_LEN_MAX: usize = 256;

/// Merges `patch` into `target`: objects are merged, `null` removes, everything else replaces.
pub fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => match pattern(key) {
                Some(Ok(pattern)) => target.retain(|key, _| !pattern.is_match(key)),
                _ => {
                    target.remove(key);
                }
            },
            Value::Object(inner) => match target.get_mut(key) {
                Some(Value::Object(existing)) => merge(existing, inner),
                _ => {
                    target.insert(key.clone(), Value::Object(without_nulls(inner)));
                }
            },
            other => match target.get_mut(key) {
                Some(place) => *place = other.clone(),
                None => {
                    target.insert(key.clone(), other.clone());
                }
            },
        }
    }
}

/// The pattern of a key `{{ ~pattern~ }}`, with which `null` removes all keys that match (Ditto,
/// `httpapi-concepts`, "removing fields with regular expressions"); `None` for other keys.
pub fn pattern(key: &str) -> Option<Result<Regex, String>> {
    let inner = key.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let text = inner.strip_prefix('~')?.strip_suffix('~')?;
    if text.len() > PATTERN_LEN_MAX {
        return Some(Err(format!("the pattern has more than {PATTERN_LEN_MAX} bytes")));
    }
    Some(Regex::new(text).map_err(|error| error.to_string()))
}

/// What merging `patch` into nothing gives.
pub fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut fresh = Map::new();
    merge(&mut fresh, patch);
    fresh
}

/// The value at `pointer`; an array's elements are not addressed (as in Ditto).
pub fn get<'a>(map: &'a Map<String, Value>, pointer: &[String]) -> Option<&'a Value> {
    let (last, parents) = pointer.split_last()?;
    let mut map = map;
    for segment in parents {
        map = map.get(segment)?.as_object()?;
    }
    map.get(last)
}

/// Sets the value at `pointer`, making the objects on the way (a scalar in the way is replaced).
/// Returns whether there was a value before.
pub fn set(map: &mut Map<String, Value>, pointer: &[String], value: Value) -> bool {
    let Some((last, parents)) = pointer.split_last() else { return false };
    let mut map = map;
    for segment in parents {
        let place = map.entry(segment.clone()).or_insert_with(|| Value::Object(Map::new()));
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(inner) = place else { return false };
        map = inner;
    }
    map.insert(last.clone(), value).is_some()
}

/// Removes the value at `pointer` and returns it.
pub fn remove(map: &mut Map<String, Value>, pointer: &[String]) -> Option<Value> {
    let (last, parents) = pointer.split_last()?;
    let mut map = map;
    for segment in parents {
        map = map.get_mut(segment)?.as_object_mut()?;
    }
    map.remove(last)
}

/// `value` wrapped in one object a segment: `["a", "b"]`, 1 → `{"a": {"b": 1}}`.
pub fn wrap(pointer: &[String], value: Value) -> Value {
    pointer
        .iter()
        .rev()
        .fold(value, |inner, segment| Value::Object(Map::from_iter([(segment.clone(), inner)])))
}

/// Bytes of a value written as JSON without spaces; strings are counted without escapes.
pub fn json_len(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number_len(number),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| json_len(item) + 1).sum::<usize>(),
        Value::Object(map) => map_len(map),
    }
}

/// Bytes of an object written as JSON; see [`json_len`].
pub fn map_len(map: &Map<String, Value>) -> usize {
    2 + map.iter().map(|(key, value)| key.len() + 4 + json_len(value)).sum::<usize>()
}

fn number_len(number: &serde_json::Number) -> usize {
    match number.as_u64() {
        Some(integer) => integer.checked_ilog10().map_or(1, |digits| digits as usize + 1),
        // Longer than most and never shorter than any: 17 digits, point, exponent.
        None => 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn merges_as_the_rfc_does() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.as_object().unwrap().clone();
            merge(&mut merged, patch.as_object().unwrap());
            assert_eq!(Value::Object(merged), result, "{target} + {patch}");
        }
    }

    #[test]
    fn a_pointer_sets_reads_and_removes() {
        let mut map = Map::new();
        let at = ["a".to_owned(), "b".to_owned()];
        assert!(!set(&mut map, &at, json!(1)));
        assert!(set(&mut map, &at, json!(2)));
        assert_eq!(get(&map, &at), Some(&json!(2)));
        assert_eq!(wrap(&at, json!(2)), Value::Object(map.clone()));
        assert_eq!(remove(&mut map, &at), Some(json!(2)));
        assert_eq!(remove(&mut map, &at), None);
    }
}
