//! Overrides: what clients write into `desiredProperties` applies until it is taken back.
//!
//! Not here: what follows from it (`cacc::decide`, `actuators`).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::cacc::facts::TRANSMISSION;
use crate::cacc::rule::{Asked, Settings, Threshold};
use crate::twin::path::Path;
use crate::twin::{Action, Event, Twin};
use crate::wire::Program;

/// What a client wrote of each feature's `desiredProperties`.
///
/// * `known`: features that have been overridden or set before.
pub fn overrides<'a>(
    event: &Event,
    twin: &Twin,
    known: impl Iterator<Item = &'a str>,
) -> Vec<(String, FeatureOverride)> {
    let written: BTreeSet<String> = match event.path.feature() {
        Some(feature) => BTreeSet::from([feature.to_owned()]),
        None if matches!(event.path, Path::Thing | Path::Features) => {
            let features = twin.features.keys().map(|id| id.to_string());
            features.chain(known.map(str::to_owned)).collect()
        }
        None => return Vec::new(),
    };
    let of = |feature: String| {
        let change = of_feature(event, twin, &feature)?;
        Some((feature, change))
    };
    written.into_iter().filter_map(of).collect()
}

/// What a client asks of the transmission.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TransmissionOverride {
    /// How the node is to transmit.
    pub asked: Asked,
    /// It is to stay as it is.
    pub held: bool,
}

impl TransmissionOverride {
    /// Takes what a client wrote. Returns the fields that mean nothing.
    ///
    /// * `whole`: what is not named is taken back.
    pub fn write(&mut self, mut map: Map<String, Value>, whole: bool) -> Vec<String> {
        let hold = map.remove("hold");
        if whole {
            *self = Self::default();
        }
        let mut unknown = Vec::new();
        match hold {
            Some(Value::Bool(held)) => self.held = held,
            Some(Value::Null) => self.held = false,
            Some(_) => unknown.push("hold".to_owned()),
            None => {}
        }
        unknown.extend(read_settings(&map, &mut self.asked));
        unknown
    }
}

/// Whether a feature is the transmission, and not an actuator's.
pub fn is_transmission(feature: &str) -> bool {
    feature == TRANSMISSION
}

/// Milliseconds as a number, or as a duration with its unit.
fn millis(value: &Value) -> Option<u32> {
    let ms = match value {
        Value::String(text) => text.parse::<crate::base::units::Duration>().ok()?.as_ms(),
        value => value.as_u64()?,
    };
    u32::try_from(ms).ok()
}

/// Reads a transmission from `desiredProperties`. Returns the fields that mean nothing.
fn read_settings(map: &Map<String, Value>, into: &mut Asked) -> Vec<String> {
    let mut unknown = Vec::new();
    for (key, value) in map {
        let known = match (key.as_str(), value) {
            // What the edge itself writes beside it.
            ("generation" | "kept" | "cause", _) => true,
            ("groups" | "properties", Value::Object(groups)) => {
                for (names, group) in groups {
                    for name in names.split(',') {
                        let settings = into.properties.entry(name.to_owned()).or_default();
                        match group {
                            Value::Object(group) => {
                                group.iter().for_each(|(key, value)| {
                                    if !setting(settings, key, value) {
                                        unknown.push(format!("{names}/{key}"));
                                    }
                                });
                            }
                            _ => *settings = Settings::default(),
                        }
                    }
                }
                true
            }
            ("groups" | "properties", Value::Null) => {
                into.properties.clear();
                true
            }
            ("st" | "gt" | "lt", Value::Object(each)) => each.iter().all(|(name, value)| {
                setting(into.properties.entry(name.clone()).or_default(), key, value)
            }),
            (key, value) => setting(&mut into.all, key, value),
        };
        if !known {
            unknown.push(key.clone());
        }
    }
    into.properties.retain(|_, settings| !settings.is_empty());
    unknown
}

/// Sets one field; whether it means something.
fn setting(settings: &mut Settings, key: &str, value: &Value) -> bool {
    let gone = value.is_null();
    match key {
        "program" => settings.program = value.as_str().map(Program::from),
        "interval" => {
            settings.pmin = millis(value);
            settings.pmax = settings.pmin;
            return gone || settings.pmin.is_some();
        }
        "pmin" => settings.pmin = millis(value),
        "pmax" => settings.pmax = millis(value),
        "st" => settings.st = value.as_f64().map(Threshold::Absolute),
        "gt" => settings.gt = value.as_f64(),
        "lt" => settings.lt = value.as_f64(),
        _ => return false,
    }
    gone || match key {
        "program" => settings.program.is_some(),
        "pmin" => settings.pmin.is_some(),
        "pmax" => settings.pmax.is_some(),
        "st" => settings.st.is_some(),
        "gt" => settings.gt.is_some(),
        _ => settings.lt.is_some(),
    }
}

/// What a client wrote of a feature's `desiredProperties`.
pub enum FeatureOverride {
    /// They are gone.
    Removed,
    /// They are these.
    Whole(Map<String, Value>),
    /// These of them changed; null: gone.
    Part(Map<String, Value>),
}

fn of_feature(event: &Event, twin: &Twin, feature: &str) -> Option<FeatureOverride> {
    let now = || {
        let desired = twin.features.get(feature).and_then(|feature| feature.desired.clone());
        desired.map_or(FeatureOverride::Removed, FeatureOverride::Whole)
    };
    let merged = event.action == Action::Merged;
    let some = |value: &Value| match value {
        Value::Object(map) => FeatureOverride::Part(map.clone()),
        _ => FeatureOverride::Removed,
    };
    let value = event.value.as_ref();
    match &event.path {
        Path::DesiredProperties(_) if merged => value.map(some),
        Path::DesiredProperties(_) => Some(now()),
        Path::DesiredProperty(_, pointer) => {
            let name = pointer.first()?;
            let value = twin.features.get(feature).and_then(|f| f.desired.as_ref()?.get(name));
            let value = value.cloned().unwrap_or(Value::Null);
            Some(FeatureOverride::Part(Map::from_iter([(name.clone(), value)])))
        }
        Path::Feature(_) if merged => value?.get("desiredProperties").map(some),
        Path::Feature(_) => Some(now()),
        Path::Features if merged => value?.get(feature)?.get("desiredProperties").map(some),
        Path::Thing if merged => {
            value?.get("features")?.get(feature)?.get("desiredProperties").map(some)
        }
        Path::Features | Path::Thing => Some(now()),
        _ => None,
    }
}
