//! What people ask of a node: what clients write into `desiredProperties`.
//!
//! Not here: what becomes of it (`decide`, `nodes`).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Act, Controller, Note, TRANSMISSION};
use crate::cacc::rule::{Asked, Settings, Threshold};
use crate::twin::path::Path;
use crate::twin::{Action, Event, Twin};
use crate::wire::Program;

impl Controller {
    /// What a client wrote into `desiredProperties` is a person's word until it is taken back.
    pub(super) fn note_wishes(&mut self, at: usize, event: &Event) {
        let Some(twin) = self.subjects[at].twin.clone() else { return };
        let written: Vec<String> = match event.path.feature() {
            Some(feature) => vec![feature.to_owned()],
            None if matches!(event.path, Path::Thing | Path::Features) => {
                let known = self.subjects[at].node.as_ref().map(|node| node.acts.keys());
                let acts = known.into_iter().flatten().map(|(feature, _)| feature.clone());
                let mut all: Vec<String> = twin.features.keys().map(|id| id.to_string()).collect();
                all.extend(acts);
                all.sort();
                all.dedup();
                all
            }
            None => return,
        };
        for feature in written {
            if let Some(wish) = wish(event, &twin, &feature) {
                self.wished(at, &feature, wish);
            }
        }
    }

    fn wished(&mut self, at: usize, feature: &str, wish: Wish) {
        if self.subjects[at].node.is_none() {
            if matches!(wish, Wish::Nothing) {
                return;
            }
            self.make_node(at, Arc::default());
        }
        let subject = &mut self.subjects[at];
        let Some(node) = &mut subject.node else { return };
        let (mut map, whole) = match wish {
            Wish::Nothing => (Map::new(), true),
            Wish::All(map) => (map, true),
            Wish::Some(map) => (map, false),
        };
        node.unsaved = true;
        self.dirty.insert(at);
        if feature == TRANSMISSION {
            let mut strange = Vec::new();
            let hold = map.remove("hold");
            if whole {
                node.user = Asked::default();
                node.standing.held = false;
            }
            match hold {
                Some(Value::Bool(held)) => node.standing.held = held,
                Some(Value::Null) => node.standing.held = false,
                Some(_) => strange.push("hold".to_owned()),
                None => {}
            }
            strange.extend(read_wishes(&map, &mut node.user));
            if let Some(decision) = &node.decision {
                // Heard once: what is written the second time is asked for again.
                if node.given_up.as_ref().is_some_and(|(of, _)| *of == decision.generation) {
                    node.given_up = None;
                }
            }
            if !strange.is_empty() {
                let message = format!(
                    "`desiredProperties` of the transmission hold what means nothing: {}",
                    strange.join(", ")
                );
                let object = Self::object(&subject.id);
                let (reason, warning) = ("DesiredNotUnderstood", true);
                self.effects.notes.push(Note { warning, reason, object, message, show: false });
            }
            return;
        }
        for ((of, name), act) in &mut node.acts {
            if of == feature && (whole || map.contains_key(name)) {
                act.user = map.remove(name).filter(|value| !value.is_null());
                act.given_up = None;
            }
        }
        for (name, value) in map {
            if !value.is_null() {
                let act = Act { user: Some(value), ..Act::default() };
                node.acts.insert((feature.to_owned(), name), act);
            }
        }
    }
}

/// Milliseconds as a number, or as a duration with its unit.
fn millis(value: &Value) -> Option<u32> {
    let ms = match value {
        Value::String(text) => text.parse::<crate::base::units::Duration>().ok()?.as_ms(),
        value => value.as_u64()?,
    };
    u32::try_from(ms).ok()
}

/// Reads what a person writes into `desiredProperties`. Returns the fields that mean nothing.
pub(super) fn read_wishes(map: &Map<String, Value>, into: &mut Asked) -> Vec<String> {
    let mut strange = Vec::new();
    for (key, value) in map {
        let understood = match (key.as_str(), value) {
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
                                        strange.push(format!("{names}/{key}"));
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
        if !understood {
            strange.push(key.clone());
        }
    }
    into.properties.retain(|_, settings| !settings.is_empty());
    strange
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
enum Wish {
    /// They are gone.
    Nothing,
    /// They are these.
    All(Map<String, Value>),
    /// These of them changed; null is gone.
    Some(Map<String, Value>),
}

fn wish(event: &Event, twin: &Twin, feature: &str) -> Option<Wish> {
    let now = || {
        let desired = twin.features.get(feature).and_then(|feature| feature.desired.clone());
        desired.map_or(Wish::Nothing, Wish::All)
    };
    let merged = event.action == Action::Merged;
    let some = |value: &Value| match value {
        Value::Object(map) => Wish::Some(map.clone()),
        _ => Wish::Nothing,
    };
    let value = event.value.as_ref();
    match &event.path {
        Path::DesiredProperties(_) if merged => value.map(some),
        Path::DesiredProperties(_) => Some(now()),
        Path::DesiredProperty(_, pointer) => {
            let name = pointer.first()?;
            let value = twin.features.get(feature).and_then(|f| f.desired.as_ref()?.get(name));
            let value = value.cloned().unwrap_or(Value::Null);
            Some(Wish::Some(Map::from_iter([(name.clone(), value)])))
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
