//! Readings: their payload, and which of them a model accepts. Pure.
//!
//! Topics are `et/v1/<namespace>/<name>/<leaf>`. A reading is a JSON object on `…/data`: property
//! values by feature, `{"environment": {"temperature": 21.5}}`, or bare where the twin's model has
//! the name once, `{"temperature": 21.5}`. Beside them may stand `seq` (counts readings), `boot`
//! (counts boots), `time` (the node's clock: RFC 3339, or seconds or milliseconds since 1970, which
//! are distinguished by their size), and what generated firmware adds:
//! `k`, `ms` (uptime), `program`, `old` (see `wire`).
//!
//! Not here: sockets (`broker::listener`), twins (`twin`).

use serde_json::Value;

use super::error::{PayloadError, READING_LEN_MAX};
use super::model::NodeModel;
use crate::base::time::instant_us;
use crate::twin::Object;
use crate::twin::path::is_key;
use crate::twin::sequence::Stamp;

/// One message of a node, decoded and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// `{feature: {property: value}}`, never empty.
    pub values: Object,
    /// Sequence number, if given.
    pub stamp: Option<Stamp>,
    /// The node's clock, milliseconds since 1970, if given.
    pub time_ms: Option<i64>,
    /// The node's uptime, ms, wrapping, if given.
    pub uptime_ms: Option<u32>,
    /// The program that sent it, if given.
    pub program: Option<String>,
    /// Sent later than measured.
    pub old: bool,
}

/// Decodes a reading. Without a model any property is taken, by feature.
///
/// # Errors
/// See [`PayloadError`]; nothing of such a message is used.
pub fn decode(payload: &[u8], model: Option<&NodeModel>) -> Result<Reading, PayloadError> {
    if payload.len() > READING_LEN_MAX {
        return Err(PayloadError::TooLarge(payload.len()));
    }
    let value: Value = serde_json::from_slice(payload)
        .map_err(|error| PayloadError::NotJson(error.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(PayloadError::NotAReading("a reading is a JSON object"));
    };
    let mut reading = Reading {
        values: Object::new(),
        stamp: None,
        time_ms: None,
        uptime_ms: None,
        program: None,
        old: false,
    };
    let (mut seq, mut boot) = (None, None);
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("seq", value) => seq = Some(counter("seq", &value)?),
            ("boot", value) => boot = Some(counter("boot", &value)?),
            ("time", value) => match time_ms(&value) {
                Some(time_ms) => reading.time_ms = Some(time_ms),
                None => return Err(PayloadError::Field("time", TIME)),
            },
            ("k", Value::String(_)) => {}
            ("k", _) => return Err(PayloadError::Field("k", "a string")),
            ("ms", value) => match u32::try_from(counter("ms", &value)?) {
                Ok(ms) => reading.uptime_ms = Some(ms),
                Err(_) => return Err(PayloadError::Field("ms", "a 32-bit number")),
            },
            ("old", value) => reading.old = counter("old", &value)? != 0,
            ("program", Value::String(program)) => reading.program = Some(program),
            ("program", _) => return Err(PayloadError::Field("program", "a string")),
            (_, Value::Object(properties))
                if model.is_none_or(|model| model.features().contains_key(&key)) =>
            {
                for (property, value) in &properties {
                    match model {
                        Some(model) => model.check(&key, property, value)?,
                        None if !is_key(&key) || !is_key(property) => {
                            return Err(PayloadError::Unknown(format!("{key}/{property}")));
                        }
                        None => {}
                    }
                }
                if !properties.is_empty() {
                    put(&mut reading.values, &key, properties);
                }
            }
            (_, value) => {
                let feature = match model.and_then(|model| model.feature_of(&key)) {
                    Some(Some(feature)) => feature,
                    None if model.is_some() => return Err(PayloadError::Unknown(key)),
                    _ => return Err(PayloadError::Ambiguous(key)),
                };
                if let Some(model) = model {
                    model.check(feature, &key, &value)?;
                }
                put(&mut reading.values, feature, Object::from_iter([(key, value)]));
            }
        }
    }
    if reading.values.is_empty() {
        return Err(PayloadError::NotAReading("a reading has at least one value"));
    }
    reading.stamp = seq.map(|seq| Stamp { seq, boot });
    Ok(reading)
}

/// The feature that holds minimum, maximum, mean and variance of what a node summed up itself.
pub const STATISTICS: &str = "statistics";

/// Decodes a summary on `…/feat`: the means are the reading, and the feature [`STATISTICS`] holds
/// all of it by property.
///
/// # Errors
/// See [`PayloadError`].
pub fn decode_features(payload: &[u8], model: Option<&NodeModel>) -> Result<Reading, PayloadError> {
    if payload.len() > READING_LEN_MAX {
        return Err(PayloadError::TooLarge(payload.len()));
    }
    let features: super::Features = serde_json::from_slice(payload)
        .map_err(|error| PayloadError::NotJson(error.to_string()))?;
    let mut means = Object::new();
    let mut statistics = Object::new();
    for value in &features.values {
        let mean = Value::Number(value.stats.mean.clone());
        match &value.feature {
            Some(feature) => {
                put(&mut means, feature, Object::from_iter([(value.property.clone(), mean)]));
            }
            None => {
                means.insert(value.property.clone(), mean);
            }
        }
        let mut all = serde_json::to_value(&value.stats).unwrap_or_default();
        all["n"] = features.n.into();
        statistics.insert(value.property.clone(), all);
    }
    means.insert("boot".to_owned(), features.head.boot.into());
    means.insert("seq".to_owned(), features.head.seq.into());
    let means = Value::Object(means).to_string();
    let mut reading = decode(means.as_bytes(), model)?;
    put(&mut reading.values, STATISTICS, statistics);
    reading.uptime_ms = Some(features.head.ms);
    reading.program = Some(features.head.program);
    reading.old = features.head.old;
    Ok(reading)
}

fn put(values: &mut Object, feature: &str, properties: Object) {
    match values.get_mut(feature) {
        Some(Value::Object(existing)) => existing.extend(properties),
        _ => {
            values.insert(feature.to_owned(), Value::Object(properties));
        }
    }
}

/// What `time` may be.
const TIME: &str = "RFC 3339 with a zone, or seconds or milliseconds since 1970";

/// Below it a number is seconds (until the year 5138), from it on milliseconds (since March 1973).
const SECONDS_END: f64 = 1e11;

/// A node's time in milliseconds since 1970; `None` for what is no time at all.
fn time_ms(value: &Value) -> Option<i64> {
    if let Some(text) = value.as_str() {
        return instant_us(text).map(|us| us.div_euclid(1000));
    }
    let number = value.as_f64()?;
    let ms = if number < SECONDS_END { number * 1000.0 } else { number };
    // Micro- and nanoseconds would be in the year 5138 and later.
    (0.0..SECONDS_END * 1000.0).contains(&ms).then_some(ms as i64)
}

fn counter(field: &'static str, value: &Value) -> Result<u64, PayloadError> {
    value.as_u64().ok_or(PayloadError::Field(field, "a whole number, 0 or more"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::{PropertyRule, ValueKind};
    use proptest::prelude::*;
    use serde_json::json;

    fn model() -> NodeModel {
        let rule = |minimum, maximum| PropertyRule { kind: ValueKind::Number, minimum, maximum };
        let environment = BTreeMap::from([
            ("temperature".to_owned(), rule(Some(-40.0), Some(85.0))),
            ("light".to_owned(), rule(Some(0.0), None)),
        ]);
        let battery = BTreeMap::from([
            ("level".to_owned(), rule(None, None)),
            ("temperature".to_owned(), rule(None, None)),
        ]);
        NodeModel::new(BTreeMap::from([
            ("environment".to_owned(), environment),
            ("battery".to_owned(), battery),
        ]))
    }

    fn read(payload: Value) -> Result<Reading, PayloadError> {
        decode(payload.to_string().as_bytes(), Some(&model()))
    }

    #[test]
    fn values_are_taken_by_feature_and_by_unique_name() {
        let reading =
            read(json!({"environment": {"temperature": 21.5}, "light": 3, "seq": 7, "time": 5}));
        let reading = reading.unwrap();
        assert_eq!(
            Value::Object(reading.values),
            json!({"environment": {"temperature": 21.5, "light": 3}})
        );
        assert_eq!(reading.stamp, Some(Stamp { seq: 7, boot: None }));
        assert_eq!(reading.time_ms, Some(5000));
    }

    #[test]
    fn seconds_milliseconds_and_rfc_3339_are_one_time() {
        for time in [
            json!(1_795_525_002),
            json!(1_795_525_002.0),
            json!(1_795_525_002_000_i64),
            json!("2026-11-24T12:56:42Z"),
            json!("2026-11-24T12:56:42.000Z"),
            json!("2026-11-24 13:56:42+01:00"),
        ] {
            let reading = read(json!({"light": 3, "time": time})).unwrap();
            assert_eq!(reading.time_ms, Some(1_795_525_002_000), "{time}");
        }
        assert_eq!(read(json!({"light": 3, "time": 1.5})).unwrap().time_ms, Some(1500));
        for time in [
            json!("yesterday"),
            json!("2026-11-24T12:56:42"),
            json!(-1),
            json!(true),
            json!(1_795_525_002_000_000_i64),
            json!(1_795_525_002_000_000_000_i64),
        ] {
            let refused = read(json!({"light": 3, "time": time})).unwrap_err();
            assert_eq!(refused.reason(), "NotAReading", "{time}");
            assert!(refused.to_string().contains("seconds or milliseconds"), "{refused}");
        }
    }

    #[test]
    fn what_the_model_does_not_take_is_refused_with_the_reason() {
        for (payload, reason) in [
            (json!({"temperature": 1}), "AmbiguousProperty"),
            (json!({"environment": {"temperature": 86}}), "OutOfRange"),
            (json!({"light": "bright"}), "WrongType"),
            (json!({"colour": 1}), "UnknownProperty"),
            (json!({"environment": {"colour": 1}}), "UnknownProperty"),
            (json!({"weather": {"rain": 1}}), "UnknownProperty"),
            (json!({"light": 1, "seq": -1}), "NotAReading"),
            (json!({"seq": 1}), "NotAReading"),
            (json!([1]), "NotAReading"),
        ] {
            assert_eq!(read(payload.clone()).unwrap_err().reason(), reason, "{payload}");
        }
        assert_eq!(decode(b"{", None).unwrap_err().reason(), "NotJson");
        assert_eq!(decode(&[b' '; READING_LEN_MAX + 1], None).unwrap_err().reason(), "TooLarge");
    }

    #[test]
    fn without_a_model_features_are_taken_as_they_come() {
        let reading = decode(br#"{"a": {"b": true}}"#, None).unwrap();
        assert_eq!(Value::Object(reading.values), json!({"a": {"b": true}}));
        assert_eq!(decode(br#"{"b": true}"#, None).unwrap_err().reason(), "AmbiguousProperty");
    }

    #[test]
    fn a_summary_is_a_reading_of_its_means() {
        let payload = json!({"k": "f", "boot": 3, "seq": 9, "ms": 5, "program": "features", "n": 4,
            "light": {"min": 1, "max": 5, "mean": 3, "var": 2.5}});
        let reading = decode_features(payload.to_string().as_bytes(), Some(&model())).unwrap();
        assert_eq!(reading.stamp, Some(Stamp { seq: 9, boot: Some(3) }));
        assert_eq!(
            Value::Object(reading.values),
            json!({"environment": {"light": 3},
                "statistics": {"light": {"min": 1, "max": 5, "mean": 3, "var": 2.5, "n": 4}}})
        );
        let wrong = payload.to_string().replace("light", "colour");
        let refused = decode_features(wrong.as_bytes(), Some(&model())).unwrap_err();
        assert_eq!(refused.reason(), "UnknownProperty");
    }

    proptest! {
        #[test]
        fn no_payload_makes_decoding_panic(payload in ".{0,200}") {
            drop(decode(payload.as_bytes(), Some(&model())));
        }
    }
}
