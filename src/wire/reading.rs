//! What nodes say and how: topics, payloads, and which readings a model takes. Pure.
//!
//! Topics are `et/v1/<namespace>/<name>/<leaf>`. A reading is a JSON object on `…/data`: property
//! values by feature, `{"environment": {"temperature": 21.5}}`, or bare where the twin's model has
//! the name once, `{"temperature": 21.5}`. Beside them may stand `seq` (counts readings), `boot`
//! (counts boots), `time` (milliseconds since 1970, the node's clock), and what firmware of ours
//! says: `k`, `ms` (uptime), `program`, `old` (see `wire`).
//!
//! Not here: sockets (`broker::listener`), twins (`twin`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::twin::path::is_key;
use crate::twin::sequence::Stamp;
use crate::twin::{Object, ThingId};

/// Largest reading, bytes. A node's buffer is a few hundred; a batch of features a few thousand.
/// A larger one is refused as `TooLarge`.
pub const READING_LEN_MAX: usize = 64 * 1024;

/// What a message of a node is about: the last part of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// `state`: what the node is, retained, with the last will `{"up": 0, "boot": B}`. Of any MQTT
    /// client `{"up": 1, "boot": B}` will do, and `rssi` (dBm, negative) and `battery` (percent, 0 to
    /// 100) may stand beside them; see [`super::State`].
    State,
    /// `data`: a reading.
    Data,
    /// `feat`: features computed by the node.
    Features,
    /// `event`: lease, overflow, sensor fault.
    Event,
    /// `ack`: of a command.
    Ack,
    /// `cmd`: a command, from the edge.
    Command,
    /// `desired`: retained configuration, from the edge.
    Desired,
    /// `fw`: retained firmware manifest, from the edge.
    Firmware,
    /// `verdict/<service>`, from the edge.
    Verdict(String),
}

/// A topic of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The node's twin.
    pub thing: ThingId,
    /// What it is about.
    pub leaf: Leaf,
}

impl Topic {
    /// Parses a topic; `None` for one that is not below `et/v1/`, an error for one that is and
    /// names no node or leaf.
    ///
    /// ```
    /// use edgetwin::wire::{Leaf, Topic};
    /// let topic = Topic::parse("et/v1/farm/node-17/data").unwrap().unwrap();
    /// assert_eq!((topic.thing.as_str(), &topic.leaf), ("farm:node-17", &Leaf::Data));
    /// assert_eq!(topic.to_string(), "et/v1/farm/node-17/data");
    /// assert!(Topic::parse("home/lamp").is_none());
    /// ```
    pub fn parse(topic: &str) -> Option<Result<Self, PayloadError>> {
        let rest = topic.strip_prefix("et/v1/")?;
        let mut parts = rest.splitn(3, '/');
        let (namespace, name) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let bad = || PayloadError::Topic(topic.chars().take(200).collect());
        let leaf = match parts.next() {
            Some("state") => Leaf::State,
            Some("data") => Leaf::Data,
            Some("feat") => Leaf::Features,
            Some("event") => Leaf::Event,
            Some("ack") => Leaf::Ack,
            Some("cmd") => Leaf::Command,
            Some("desired") => Leaf::Desired,
            Some("fw") => Leaf::Firmware,
            Some(other) => match other.strip_prefix("verdict/") {
                Some(service) if is_key(service) => Leaf::Verdict(service.to_owned()),
                _ => return Some(Err(bad())),
            },
            None => return Some(Err(bad())),
        };
        match ThingId::parse(&format!("{namespace}:{name}")) {
            Ok(thing) => Some(Ok(Self { thing, leaf })),
            Err(_) => Some(Err(bad())),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "et/v1/{}/{}/", self.thing.namespace(), self.thing.name())?;
        match &self.leaf {
            Leaf::State => f.write_str("state"),
            Leaf::Data => f.write_str("data"),
            Leaf::Features => f.write_str("feat"),
            Leaf::Event => f.write_str("event"),
            Leaf::Ack => f.write_str("ack"),
            Leaf::Command => f.write_str("cmd"),
            Leaf::Desired => f.write_str("desired"),
            Leaf::Firmware => f.write_str("fw"),
            Leaf::Verdict(service) => write!(f, "verdict/{service}"),
        }
    }
}

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

/// Why a message is no reading.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadError {
    /// The topic is below `et/v1/` and is none of a node's.
    Topic(String),
    /// Larger than [`READING_LEN_MAX`].
    TooLarge(usize),
    /// Not JSON; what the parser says.
    NotJson(String),
    /// JSON, and not an object with at least one value.
    NotAReading(&'static str),
    /// A reserved field has the wrong type.
    Field(&'static str, &'static str),
    /// The model has no such property.
    Unknown(String),
    /// The property is of another type.
    Type(String, ValueKind),
    /// The property is outside the model's range.
    Range(String, f64, Option<f64>, Option<f64>),
    /// The name is in several features, or the twin has no model: say which feature is meant.
    Ambiguous(String),
}

impl PayloadError {
    /// A stable word for counters and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Topic(_) => "MalformedTopic",
            Self::TooLarge(_) => "TooLarge",
            Self::NotJson(_) => "NotJson",
            Self::NotAReading(_) | Self::Field(..) => "NotAReading",
            Self::Unknown(_) => "UnknownProperty",
            Self::Type(..) => "WrongType",
            Self::Range(..) => "OutOfRange",
            Self::Ambiguous(_) => "AmbiguousProperty",
        }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(
                f,
                "`{topic}` is not a node's topic: et/v1/<namespace>/<name>/<data|state|feat|event|ack|…>"
            ),
            Self::TooLarge(len) => {
                write!(f, "the reading has {len} bytes; {READING_LEN_MAX} are the most")
            }
            Self::NotJson(why) => write!(f, "the payload is not JSON: {why}"),
            Self::NotAReading(why) => f.write_str(why),
            Self::Field(field, wanted) => write!(f, "`{field}` must be {wanted}"),
            Self::Unknown(property) => write!(f, "the twin's model has no property `{property}`"),
            Self::Type(property, kind) => write!(f, "`{property}` must be {kind}"),
            Self::Range(property, value, min, max) => {
                write!(f, "`{property}` is {value}, outside the model's range")?;
                match (min, max) {
                    (Some(min), Some(max)) => write!(f, " {min} to {max}"),
                    (Some(min), None) => write!(f, ", {min} or more"),
                    (None, Some(max)) => write!(f, ", {max} or less"),
                    (None, None) => Ok(()),
                }
            }
            Self::Ambiguous(property) => write!(
                f,
                "`{property}` is not in just one feature of the twin's model; write {{\"<feature>\": {{\"{property}\": …}}}}"
            ),
        }
    }
}

/// What kind of value a property takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Any JSON number.
    Number,
    /// A JSON number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Text.
    Text,
    /// An object.
    Object,
    /// An array.
    Array,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::Text => "a string",
            Self::Object => "an object",
            Self::Array => "an array",
        })
    }
}

/// What a property of a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PropertyRule {
    /// Kind of value.
    pub kind: ValueKind,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
}

/// What the twins of a model measure: properties by feature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeModel {
    features: BTreeMap<String, BTreeMap<String, PropertyRule>>,
    /// The feature of each name that is in just one.
    short: HashMap<String, Option<String>>,
}

impl NodeModel {
    /// A model with these features.
    pub fn new(features: BTreeMap<String, BTreeMap<String, PropertyRule>>) -> Self {
        let mut short: HashMap<String, Option<String>> = HashMap::new();
        for (feature, properties) in &features {
            for property in properties.keys() {
                let only = short.entry(property.clone()).or_insert_with(|| Some(feature.clone()));
                if only.as_ref() != Some(feature) {
                    *only = None;
                }
            }
        }
        Self { features, short }
    }

    /// Properties by feature.
    pub fn features(&self) -> &BTreeMap<String, BTreeMap<String, PropertyRule>> {
        &self.features
    }

    fn check(&self, feature: &str, property: &str, value: &Value) -> Result<(), PayloadError> {
        let name = || format!("{feature}/{property}");
        let rule = self.features.get(feature).and_then(|properties| properties.get(property));
        let rule = rule.ok_or_else(|| PayloadError::Unknown(name()))?;
        let fits = match rule.kind {
            ValueKind::Number => value.is_number(),
            ValueKind::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            ValueKind::Boolean => value.is_boolean(),
            ValueKind::Text => value.is_string(),
            ValueKind::Object => value.is_object(),
            ValueKind::Array => value.is_array(),
        };
        if !fits {
            return Err(PayloadError::Type(name(), rule.kind));
        }
        if let Some(number) = value.as_f64()
            && (rule.minimum.is_some_and(|least| number < least)
                || rule.maximum.is_some_and(|most| number > most))
        {
            return Err(PayloadError::Range(name(), number, rule.minimum, rule.maximum));
        }
        Ok(())
    }
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
            ("time", value) => match value.as_i64() {
                Some(time_ms) => reading.time_ms = Some(time_ms),
                None => return Err(PayloadError::Field("time", "milliseconds since 1970")),
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
                if model.is_none_or(|model| model.features.contains_key(&key)) =>
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
                let feature = match model.and_then(|model| model.short.get(&key)) {
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

fn counter(field: &'static str, value: &Value) -> Result<u64, PayloadError> {
    value.as_u64().ok_or(PayloadError::Field(field, "a whole number, 0 or more"))
}

/// Is told what nodes say beside their readings: answers, events, states.
pub trait Uplinks: Send + Sync {
    /// A node said something. Called by the thread of all connections: hands over, does not wait.
    fn heard(&self, thing: ThingId, uplink: super::Uplink);
}

/// Which model each twin's readings are checked against.
#[derive(Debug, Default)]
pub struct Directory {
    models: RwLock<HashMap<ThingId, Arc<NodeModel>>>,
}

impl Directory {
    /// The model of a twin; `None` where its readings are not checked.
    pub fn model(&self, thing: &ThingId) -> Option<Arc<NodeModel>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).get(thing).cloned()
    }

    /// Sets or removes the model of a twin.
    pub fn set(&self, thing: ThingId, model: Option<Arc<NodeModel>>) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        match model {
            Some(model) => models.insert(thing, model),
            None => models.remove(&thing),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(reading.time_ms, Some(5));
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

    #[test]
    fn topics_below_ours_that_name_no_node_are_malformed() {
        for topic in [
            "et/v1/",
            "et/v1/a/b",
            "et/v1/1a/b/data",
            "et/v1/a//data",
            "et/v1/a/b/x",
            "et/v1/a/b/data/c",
        ] {
            assert!(Topic::parse(topic).unwrap().is_err(), "{topic}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_decoding_panic(payload in ".{0,200}") {
            drop(decode(payload.as_bytes(), Some(&model())));
        }
    }
}
