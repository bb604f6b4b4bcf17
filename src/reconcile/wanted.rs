//! What an object asks of its twins, and the patch that makes a twin so. Pure.
//!
//! An object owns the leaves that it names, such as `attributes/floor` or
//! `features/lamp/desiredProperties/on`, and no others. A patch sets those that differ, takes
//! those back that an earlier generation named, and touches nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kinds::Spec;
use crate::kinds::{TwinAggregateSpec, TwinSpec};
use crate::manifest::Object;
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
        if spec.node.is_some() {
            // What is desired of a node is written by the controller, which knows the manifest.
            return wanted;
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
    /// * `derived`: pointers that are derived for this object.
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
                // What is asked for above or below this place has replaced it already, except for a
                // map that may hold anything.
                let replaced = self.0.iter().any(|(other, value)| {
                    other.starts_with(&pointer)
                        || pointer.starts_with(other) && (pointer == *other || !value.is_object())
                });
                let derived = derived
                    .iter()
                    .any(|other| other.starts_with(&pointer) || pointer.starts_with(other));
                if !replaced && !derived && current(twin, &pointer).is_some() {
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

/// What an object may have left in twins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Made {
    /// Twins `NAME-1` to `NAME-count` of a TwinSet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u32,
    /// Twins of a TwinSet by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Parts of each twin, such as `attributes/floor`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub paths: BTreeSet<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Made {
    /// Puts together what two generations made.
    pub(super) fn merge(&mut self, other: Self) {
        self.count = self.count.max(other.count);
        self.names.extend(other.names);
        self.paths.extend(other.paths);
    }
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
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::path::Path;
    use crate::twin::{Change, ThingId, apply, decide};
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(twin: Option<&Twin>, patch: Value) -> Option<Twin> {
        let id = ThingId::parse("lab:a").unwrap();
        let event = decide(&id, twin, Change::Merge(Path::Thing, patch)).ok()?;
        apply(&id, twin, &event, 0)
    }

    fn wanted(attributes: &Value) -> Wanted {
        let spec = TwinSpec {
            attributes: serde_json::from_value(attributes.clone()).unwrap(),
            ..TwinSpec::default()
        };
        Wanted::of_twin(&spec, &BTreeMap::new(), None)
    }

    fn paths(wanted: &Wanted) -> Vec<String> {
        wanted.0.keys().map(|pointer| pointer.join("/")).collect()
    }

    #[test]
    fn a_twin_that_is_as_wanted_gets_no_patch() {
        let wanted = wanted(&json!({"a": 1, "b": {"c": [1, 2], "d": {}}, "e": null}));
        let patch = wanted.patch(None, [], &[]).unwrap();
        assert_eq!(patch, json!({"attributes": {"a": 1, "b": {"c": [1, 2], "d": {}}}}));
        let twin = patched(None, patch).unwrap();
        assert_eq!(wanted.patch(Some(&twin), &paths(&wanted), &[]), None);
        assert_eq!(Wanted::default().patch(None, [], &[]), Some(json!({})));
    }

    #[test]
    fn an_aggregate_has_its_attributes_and_labels() {
        let spec = serde_json::from_value(json!({
            "members": {"matchLabels": {"a": "b"}}, "derive": {}, "attributes": {"floor": 1}}));
        let labels = BTreeMap::from([("room".to_owned(), "north".to_owned())]);
        let patch = Wanted::of_aggregate(&spec.unwrap(), &labels).patch(None, [], &[]);
        let wanted = json!({"attributes": {"floor": 1, "labels": {"room": "north"}}});
        assert_eq!(patch, Some(wanted));
    }

    #[test]
    fn services_in_one_form_replace_those_in_the_other() {
        let of = |services: Value| {
            let spec: TwinSpec = serde_json::from_value(json!({"services": services})).unwrap();
            Wanted::of_twin(&spec, &BTreeMap::new(), None)
        };
        let (list, map) = (of(json!(["x", "y"])), of(json!({"y": {}, "z": {"every": "1s"}})));
        let twin = patched(None, list.patch(None, [], &[]).unwrap()).unwrap();
        let patch = map.patch(Some(&twin), &paths(&list), &[]).unwrap();
        let twin = patched(Some(&twin), patch).unwrap();
        let services = Path::parse("/attributes/services").unwrap();
        let shown = twin.get(&services).unwrap();
        assert_eq!(shown["z"]["every"], "1s");
        assert!(shown.get("x").is_none());
        let patch = list.patch(Some(&twin), &paths(&map), &[]).unwrap();
        let twin = patched(Some(&twin), patch).unwrap();
        assert_eq!(twin.get(&services), Some(json!(["x", "y"])));
    }

    /// Attributes of few names, so that generations and clients meet.
    fn attributes() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0..3_i32).prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            Just(Value::Null),
        ];
        let tree = leaf.prop_recursive(2, 8, 3, |inner| {
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| json!(map))
        });
        proptest::collection::btree_map("[abc]", tree, 0..4).prop_map(|map| json!(map))
    }

    proptest! {
        #[test]
        fn whatever_was_there_one_patch_makes_it_so_and_a_second_changes_nothing(
            generations in proptest::collection::vec((attributes(), attributes()), 1..5),
        ) {
            let mut twin: Option<Twin> = None;
            let mut made: Vec<String> = Vec::new();
            for (declared, written) in generations {
                // A client writes something of its own, beside and across what is declared.
                if twin.is_some() {
                    let own = json!({"attributes": written, "features": {"f": {}}});
                    twin = patched(twin.as_ref(), own);
                }
                let wanted = wanted(&declared);
                if let Some(patch) = wanted.patch(twin.as_ref(), &made, &[]) {
                    twin = patched(twin.as_ref(), patch);
                }
                let now = twin.as_ref().unwrap();
                for (pointer, value) in &wanted.0 {
                    let shown = current(now, pointer);
                    let as_map = value.is_object() && shown.as_ref().is_some_and(Value::is_object);
                    prop_assert!(as_map || shown.as_ref() == Some(value), "{pointer:?} {shown:?}");
                }
                let mine = paths(&wanted);
                prop_assert_eq!(wanted.patch(Some(now), made.iter().chain(&mine), &[]), None);
                made = mine;
            }
        }
    }
}
