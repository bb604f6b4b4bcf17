//! What a node measured: samples, and the features that it computes over a period.
//!
//! Not here: whether a model takes the values (`node::decode`).

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use super::Pairs;

/// Members of a data message that are no properties; a model cannot name a property so.
pub const RESERVED: [&str; 7] = ["k", "boot", "seq", "ms", "program", "old", "time"];

/// What samples and features have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Boot counter.
    pub boot: u32,
    /// Counts samples and features of this boot.
    pub seq: u32,
    /// The node's uptime, ms; wraps.
    pub ms: u32,
    /// The program that sent it.
    pub program: String,
    /// Sent later than measured.
    pub old: bool,
    /// When it was measured, milliseconds since 1970: of an old one, if the node's clock was set.
    pub time: Option<u64>,
}

/// Values of one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// When and by what it was sent.
    pub head: Head,
    /// The values.
    pub values: Vec<Measured>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The feature, where the property's name alone is ambiguous.
    pub feature: Option<String>,
    /// The property.
    pub property: String,
    /// The value.
    pub value: Value,
}

/// What a node computed over a period.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// When and by what it was sent.
    pub head: Head,
    /// How many samples it is made of.
    pub n: u32,
    /// By property.
    pub values: Vec<PropertyStats>,
}

/// What a node computed of one property.
#[derive(Debug, Clone, PartialEq)]
pub struct PropertyStats {
    /// The feature, where the property's name alone is ambiguous.
    pub feature: Option<String>,
    /// The property.
    pub property: String,
    /// The numbers.
    pub stats: Stats,
}

/// Minimum, maximum, mean and variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Least value.
    pub min: Number,
    /// Greatest value.
    pub max: Number,
    /// Mean.
    pub mean: Number,
    /// Variance of the values (of the population), in the unit squared.
    pub var: Number,
}

impl Head {
    /// Puts the members that are no values, in their order.
    fn put<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("boot", &self.boot)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("ms", &self.ms)?;
        map.serialize_entry("program", &self.program)?;
        if self.old {
            map.serialize_entry("old", &1)?;
        }
        if let Some(time) = self.time {
            map.serialize_entry("time", &time)?;
        }
        Ok(())
    }

    /// Takes a member that is no value; gives back one that is.
    fn take<E: serde::de::Error>(&mut self, key: &str, value: Value) -> Result<Option<Value>, E> {
        let count = |value: &Value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| E::custom(format!("`{key}` is not a 32-bit number")))
        };
        match key {
            "k" => {}
            "time" => self.time = value.as_u64(),
            "boot" => self.boot = count(&value)?,
            "seq" => self.seq = count(&value)?,
            "ms" => self.ms = count(&value)?,
            "old" => self.old = count(&value)? != 0,
            "program" => match value {
                Value::String(program) => self.program = program,
                _ => return Err(E::custom("`program` is not a string")),
            },
            _ => return Ok(Some(value)),
        }
        Ok(None)
    }
}

/// Calls `put` for each value, grouped below its feature where it names one.
fn nest<M: SerializeMap, T: Serialize>(
    map: &mut M,
    values: &[(Option<&str>, &str, T)],
) -> Result<(), M::Error> {
    struct Group<'a, T>(&'a [(Option<&'a str>, &'a str, T)]);
    impl<T: Serialize> Serialize for Group<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.0.len()))?;
            for (_, property, value) in self.0 {
                map.serialize_entry(property, value)?;
            }
            map.end()
        }
    }
    for group in values.chunk_by(|a, b| a.0.is_some() && a.0 == b.0) {
        match group[0].0 {
            Some(feature) => map.serialize_entry(feature, &Group(group))?,
            None => {
                for (_, property, value) in group {
                    map.serialize_entry(property, value)?;
                }
            }
        }
    }
    Ok(())
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.head.put(&mut map)?;
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| (value.feature.as_deref(), value.property.as_str(), &value.value))
            .collect();
        nest(&mut map, &values)?;
        map.end()
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.head.put(&mut map)?;
        map.serialize_entry("n", &self.n)?;
        let values: Vec<_> = self
            .values
            .iter()
            .map(|value| (value.feature.as_deref(), value.property.as_str(), &value.stats))
            .collect();
        nest(&mut map, &values)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut head = Head::default();
        let mut values = Vec::new();
        for (key, value) in Pairs::<Value>::deserialize(deserializer)?.0 {
            match head.take::<D::Error>(&key, value)? {
                None => {}
                Some(Value::Object(properties)) => {
                    for (property, value) in properties {
                        values.push(Measured { feature: Some(key.clone()), property, value });
                    }
                }
                Some(value) => values.push(Measured { feature: None, property: key, value }),
            }
        }
        Ok(Self { head, values })
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut head = Head::default();
        let mut values = Vec::new();
        let mut n = 0;
        let stats = |value| serde_json::from_value::<Stats>(value).map_err(D::Error::custom);
        for (key, value) in Pairs::<Value>::deserialize(deserializer)?.0 {
            match head.take::<D::Error>(&key, value)? {
                None => {}
                Some(Value::Number(count)) if key == "n" => {
                    let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
                    n = count.ok_or_else(|| D::Error::custom("`n` is not a 32-bit number"))?;
                }
                Some(Value::Object(members)) if members.values().all(Value::is_object) => {
                    for (property, value) in members {
                        let (feature, stats) = (Some(key.clone()), stats(value)?);
                        values.push(PropertyStats { feature, property, stats });
                    }
                }
                Some(value) => {
                    let stats = stats(value)?;
                    values.push(PropertyStats { feature: None, property: key, stats });
                }
            }
        }
        Ok(Self { head, n, values })
    }
}
