//! What an object asks of its twins, and the patch that makes a twin so. Pure.
//!
//! An object owns the leaves that it names, such as `attributes/floor` or
//! `features/lamp/desiredProperties/on`, and no others. A patch sets those that differ, takes
//! those back that an earlier generation named, and touches nothing else.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Made;
use crate::manifest::kinds::{TwinAggregateSpec, TwinSpec};
use crate::manifest::{Object, Spec};
use crate::twin::{Twin, merge};

/// A way into a thing: `attributes/labels/room`. No key holds a slash.
type Pointer = Vec<String>;

/// The leaves that an object asks for, by pointer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wanted(BTreeMap<Pointer, Value>);

impl Wanted {
    fn put(&mut self, pointer: &[&str], value: &Value) {
        let mut pointer: Pointer = pointer.iter().map(|step| (*step).to_owned()).collect();
        self.leaves(&mut pointer, value);
    }

    fn leaves(&mut self, pointer: &mut Pointer, value: &Value) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    pointer.push(key.clone());
                    self.leaves(pointer, value);
                    pointer.pop();
                }
            }
            // A merge patch cannot ask for a null: nothing is there either way.
            Value::Null => {}
            value => {
                self.0.insert(pointer.clone(), value.clone());
            }
        }
    }

    /// The leaves of a Twin, or of each twin of a TwinSet.
    ///
    /// * `definition`: the definition that its model gives it.
    pub(super) fn of_twin(
        spec: &TwinSpec,
        labels: &BTreeMap<String, String>,
        definition: Option<&str>,
    ) -> Self {
        let mut wanted = Self::default();
        wanted.metadata(&spec.attributes, labels, &json(&spec.services), spec.services.is_empty());
        if let Some(model) = &spec.model {
            wanted.put(&["attributes", "model"], &model.as_str().into());
        }
        if let Some(definition) = definition {
            wanted.put(&["definition"], &definition.into());
        }
        for (feature, properties) in &spec.desired {
            for (name, value) in properties {
                wanted.put(&["features", feature, "desiredProperties", name], value);
            }
        }
        if let Some(transmission) = &spec.transmission {
            let path = ["features", "transmission", "desiredProperties"];
            wanted.put(&path, &json(transmission));
        }
        wanted
    }

    /// The leaves of an aggregate's twin; what is derived is not among them.
    pub(super) fn of_aggregate(
        spec: &TwinAggregateSpec,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut wanted = Self::default();
        wanted.metadata(&spec.attributes, labels, &json(&spec.services), spec.services.is_empty());
        wanted
    }

    fn metadata(
        &mut self,
        attributes: &BTreeMap<String, Value>,
        labels: &BTreeMap<String, String>,
        services: &Value,
        no_services: bool,
    ) {
        for (key, value) in attributes {
            self.put(&["attributes", key], value);
        }
        for (key, value) in labels {
            self.put(&["attributes", "labels", key], &value.as_str().into());
        }
        if !no_services {
            // Names that were given earlier, in the other form, are not mixed with these.
            let place: Pointer = vec!["attributes".to_owned(), "services".to_owned()];
            self.0.retain(|pointer, _| !pointer.starts_with(&place));
            self.put(&["attributes", "services"], services);
        }
    }

    /// The merge patch for a thing; `None` if it is as wanted.
    ///
    /// * `made`: pointers that this object may have written earlier.
    /// * `derived`: pointers that somebody else keeps up for this object.
    pub(super) fn patch<'a>(
        &self,
        twin: Option<&Twin>,
        made: impl IntoIterator<Item = &'a String>,
        derived: &[Pointer],
    ) -> Option<Value> {
        let mut patch = Map::new();
        for (pointer, value) in &self.0 {
            let satisfied = match (twin.and_then(|twin| current(twin, pointer)), value) {
                // An empty map asks for a map; what others put in is theirs.
                (Some(Value::Object(_)), Value::Object(_)) => true,
                (Some(current), value) => current == *value,
                (None, _) => false,
            };
            if !satisfied {
                merge::set(&mut patch, pointer, value.clone());
            }
        }
        if let Some(twin) = twin {
            for path in made {
                let pointer: Pointer = path.split('/').map(str::to_owned).collect();
                let on_the_way =
                    |other: &Pointer| other.starts_with(&pointer) || pointer.starts_with(other);
                if !self.0.keys().chain(derived).any(on_the_way)
                    && current(twin, &pointer).is_some()
                {
                    merge::set(&mut patch, &pointer, Value::Null);
                }
            }
        }
        (twin.is_none() || !patch.is_empty()).then_some(Value::Object(patch))
    }
}

fn current(twin: &Twin, pointer: &[String]) -> Option<Value> {
    let (first, rest) = pointer.split_first()?;
    match (first.as_str(), rest) {
        ("definition", []) => twin.definition.clone(),
        ("attributes", rest) => merge::get(twin.attributes.as_deref()?, rest).cloned(),
        ("features", [feature, part, rest @ ..]) => {
            let feature = twin.features.get(feature.as_str())?;
            let map = match part.as_str() {
                "properties" => feature.properties.as_ref()?,
                _ => feature.desired.as_ref()?,
            };
            merge::get(map, rest).cloned()
        }
        _ => None,
    }
}

/// The properties that an aggregate derives, as pointers into its thing.
pub(super) fn derived(spec: &TwinAggregateSpec) -> Vec<Pointer> {
    let pointer = |path: &String| {
        let (feature, property) = path.split_once('/')?;
        let steps = ["features", feature, "properties"].into_iter().chain(property.split('/'));
        Some(steps.map(str::to_owned).collect())
    };
    spec.derive.keys().filter_map(pointer).collect()
}

/// What an object may leave in twins.
pub(super) fn made(object: &Object) -> Made {
    let labels = &object.metadata.labels;
    let paths = |wanted: Wanted, derived: Vec<Pointer>| {
        wanted.0.into_keys().chain(derived).map(|pointer| pointer.join("/")).collect()
    };
    match &object.spec {
        // Which definition it is does not matter here.
        Spec::Twin(spec) => Made {
            paths: paths(Wanted::of_twin(spec, labels, spec.model.as_deref()), Vec::new()),
            ..Made::default()
        },
        Spec::TwinSet(set) => {
            let mut labels = labels.clone();
            labels.extend(set.template.metadata.labels.clone());
            let spec = &set.template.spec;
            Made {
                count: if set.names.is_some() { 0 } else { set.count.unwrap_or(0) },
                names: set.names.iter().flatten().cloned().collect(),
                paths: paths(Wanted::of_twin(spec, &labels, spec.model.as_deref()), Vec::new()),
            }
        }
        Spec::TwinAggregate(spec) => Made {
            paths: paths(Wanted::of_aggregate(spec, labels), derived(spec)),
            ..Made::default()
        },
        _ => Made::default(),
    }
}

/// Types of manifests always have a JSON form.
fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
