//! Twins and TwinSets: their things are made as declared, and the controller knows the nodes behind
//! them.
//!
//! Not here: the patch that makes a thing so (`wanted`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::rule::settings;
use super::staged::{Staged, corrupt, merge, request};
use crate::cacc::decide::{Actuator, Measured, NodeSpec};
use crate::cacc::rule::{Asked, Settings};
use crate::firmware::Firmware;
use crate::kinds::{Kind, NodeProfileSpec, Spec, TwinModelSpec, TwinSpec, ValueType};
use crate::manifest;
use crate::reconcile::key::{ObjectKey, thing_id};
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::reconcile::stored::Stored;
use crate::reconcile::wanted::Wanted;
use crate::twin::Change;
use crate::twin::path::Path;
use crate::wire::Program;

/// Least time between messages of a node whose firmware is not known, ms: below it a board does
/// nothing else.
const PMIN_LEAST_MS: u32 = 20;

impl Reconciler {
    /// Says what the readings of an object's twins are checked against.
    pub(in crate::reconcile) fn set_directory(&self, key: &ObjectKey) {
        let Some(stored) = self.objects().get(key).cloned() else { return };
        let names = match key.kind {
            Kind::Twin => vec![key.name.clone()],
            Kind::TwinSet => match stored.object().map(|object| object.spec) {
                Ok(Spec::TwinSet(set)) => set.twin_names(&key.name),
                _ => return,
            },
            _ => return,
        };
        let model = stored.model().and_then(|name| self.node_model(&key.namespace, name));
        let model = model.map(|(_, model)| model);
        for name in names {
            if let Ok(id) = thing_id(&key.namespace, &name) {
                self.context.directory.set(id, model.clone());
            }
        }
    }

    /// Makes the twins of a Twin or a TwinSet as declared.
    pub(super) fn twins(
        &self,
        key: &ObjectKey,
        stored: &Stored,
        spec: &TwinSpec,
        labels: &BTreeMap<String, String>,
        names: &BTreeSet<String>,
    ) -> Finding {
        self.set_directory(key);
        self.declare_nodes(key, spec, names);
        let model = stored.model().and_then(|name| self.node_model(&key.namespace, name));
        let model = model.map(|(key, _)| key);
        let definition = model.as_ref().map(|key| format!("{}:{}:1.0.0", key.namespace, key.name));
        let wanted = Wanted::of_twin(spec, labels, definition.as_deref());
        let made = stored.made();
        let mut staged = Staged::new(self);
        for name in names {
            let id = match thing_id(&key.namespace, name) {
                Ok(id) => id,
                Err(error) => return Finding::stalled("Refused", error.to_string()),
            };
            if self.context.writer.is_stalled(id.as_str()) {
                return corrupt(&id);
            }
            let twin = self.context.writer.newest(id.as_str());
            if let Some(patch) = wanted.patch(twin.as_deref(), &made.paths, &[])
                && let Err(report) = staged.submit(merge(id, patch))
            {
                return report;
            }
        }
        let old = set_names(key, stored);
        let gone = old.iter().map(String::as_str).filter(|name| !names.contains(*name));
        match self.remove_twins(key, gone) {
            Ok(batch) => staged.batch = batch.or(staged.batch),
            Err(report) => return report,
        }
        let batch = staged.batch;
        let report = match (&spec.model, model) {
            (Some(name), None) => Finding::stalled(
                "UnknownModel",
                format!("there is no TwinModel `{name}`; readings are taken as they are"),
            ),
            _ if key.kind == Kind::TwinSet => {
                Finding::ready("AsDeclared", manifest::diagnostic::plural(names.len(), "twin"))
            }
            _ => Finding::ready("AsDeclared", "the twin is as declared"),
        };
        report.once_durable(batch)
    }

    /// Deletes twins of an object, except those that another object declares by now.
    pub(super) fn remove_twins<'n>(
        &self,
        key: &ObjectKey,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Option<u64>, Finding> {
        let mut staged = Staged::new(self);
        for name in names {
            let Ok(id) = thing_id(&key.namespace, name) else { continue };
            if self.declares_twin(&key.namespace, name, Some(key)) {
                continue;
            }
            self.context.directory.set(id.clone(), None);
            self.context.control.set_node(id.clone(), None);
            if self.context.writer.newest(id.as_str()).is_some() {
                let change = Change::Delete(Path::Thing);
                staged.submit(request(id, change))?;
            }
        }
        Ok(staged.batch)
    }

    /// Tells the controller what the nodes behind twins are.
    pub(super) fn declare_nodes(&self, key: &ObjectKey, spec: &TwinSpec, names: &BTreeSet<String>) {
        let declared = spec.node.as_ref().map(|of_node| {
            let profile = of_node.profile.as_deref();
            let profile =
                profile.and_then(|name| self.find(Kind::NodeProfile, &key.namespace, name));
            let profile = profile.and_then(|(_, stored)| match stored.object().ok()?.spec {
                Spec::NodeProfile(profile) => Some(profile),
                _ => None,
            });
            let model = spec.model.as_deref();
            let model = model.and_then(|name| self.find(Kind::TwinModel, &key.namespace, name));
            let model = model.and_then(|(_, stored)| match stored.object().ok()?.spec {
                Spec::TwinModel(model) => Some(model),
                _ => None,
            });
            Arc::new(node(spec, profile.as_deref(), model.as_deref()))
        });
        for name in names {
            if let Ok(id) = thing_id(&key.namespace, name) {
                self.context.control.set_node(id, declared.clone());
            }
        }
    }
}

/// The twins that a TwinSet may have made so far.
pub(super) fn set_names(key: &ObjectKey, stored: &Stored) -> BTreeSet<String> {
    if key.kind != Kind::TwinSet {
        return BTreeSet::new();
    }
    let made = stored.made();
    let counted = (1..=made.count).map(|number| format!("{}-{number}", key.name));
    counted.chain(made.names).collect()
}

/// A node as the controller knows it: what the twin says of its transmission stands before what
/// the profile says.
pub(super) fn node(
    twin: &TwinSpec,
    profile: Option<&NodeProfileSpec>,
    model: Option<&TwinModelSpec>,
) -> NodeSpec {
    // The firmware that would be made of the profile knows how fast it can be.
    let firmware = profile.and_then(|profile| Firmware::plan("", profile, model).ok());
    let own = twin.transmission.as_ref().map(settings).unwrap_or_default();
    let theirs = profile.and_then(|profile| profile.transmission.as_ref());
    let theirs = theirs.map(settings).unwrap_or_default();
    // The periods of one program say nothing about another.
    let same = own.program.is_none() || own.program == theirs.program;
    let theirs = if same { theirs } else { Settings::default() };
    let default = Settings {
        program: own.program.or(theirs.program),
        pmin: own.pmin.or(theirs.pmin),
        pmax: own.pmax.or(theirs.pmax),
        st: own.st.or(theirs.st),
        gt: own.gt.or(theirs.gt),
        lt: own.lt.or(theirs.lt),
    };
    let mut actuators: BTreeMap<(String, String), Actuator> = BTreeMap::new();
    for actuator in profile.iter().flat_map(|profile| &profile.actuators) {
        let path = (actuator.property.feature.clone(), actuator.property.property.clone());
        actuators.entry(path).or_default().safe = actuator.safe.clone();
    }
    for (feature, properties) in &twin.desired {
        for (name, value) in properties {
            let wanted: Option<Value> = Some(value.clone()).filter(|value| !value.is_null());
            actuators.entry((feature.clone(), name.clone())).or_default().desired = wanted;
        }
    }
    // Of a board only what its sensors are connected to; of a model everything that is sensed.
    let on_board = |feature: &str, name: &str| {
        let Some(profile) = profile.filter(|profile| !profile.sensors.is_empty()) else {
            return true;
        };
        profile.sensors.iter().any(|sensor| {
            let single = sensor.property.iter();
            single
                .chain(sensor.properties.values())
                .any(|path| path.feature == feature && path.property == name)
        })
    };
    let measured = model.iter().flat_map(|model| &model.features).flat_map(|(feature, of)| {
        let sensed = of
            .properties
            .iter()
            .filter(|(name, property)| property.read_only && on_board(feature, name));
        sensed.map(|(name, property)| Measured {
            feature: feature.clone(),
            name: name.clone(),
            number: matches!(property.value_type, ValueType::Number | ValueType::Integer),
            range: property.maximum.zip(property.minimum).map(|(most, least)| most - least),
        })
    });
    NodeSpec {
        has_profile: twin.node.as_ref().is_some_and(|node| node.profile.is_some()),
        default: Asked { all: default, properties: BTreeMap::new() },
        programs: profile
            .map(|profile| profile.programs.iter().map(|name| Program::from(name.as_str())))
            .into_iter()
            .flatten()
            .collect(),
        pmin_least: firmware.map_or(PMIN_LEAST_MS, |firmware| firmware.period_min),
        pmax_most: 0,
        lease_s: profile
            .and_then(|profile| profile.lease)
            .map_or(0, |lease| u32::try_from(lease.as_ms().div_ceil(1000)).unwrap_or(u32::MAX)),
        battery_low: profile
            .and_then(|profile| profile.battery.as_ref())
            .map(|battery| (battery.low.as_fraction() * 100.0).round().clamp(0.0, 100.0) as u8),
        properties: measured.collect(),
        actuators,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_is_what_its_twin_says_and_then_what_its_profile_says() {
        let profile: NodeProfileSpec = spec(json!({
            "board": "esp32", "lease": "30s", "programs": ["interval", "on-change"],
            "transmission": {"program": "interval", "interval": "1s"},
            "sensors": [{"type": "lm35", "pin": "GPIO34", "property": "environment/temperature"}],
            "actuators": [{"type": "relay", "pin": "GPIO5", "property": "cooling/fan", "safe": false}],
        }));
        let model: TwinModelSpec = spec(json!({"features": {
            "environment": {"properties": {
                "temperature": {"type": "number", "minimum": -40, "maximum": 85},
                "light": {"type": "number"}}},
            "cooling": {"properties": {"fan": {"type": "boolean", "readOnly": false}}}}}));
        let twin: TwinSpec = spec(json!({
            "transmission": {"pmax": "5s", "pmin": "2s"}, "desired": {"cooling": {"fan": true}}}));
        let node = node(&twin, Some(&profile), Some(&model));
        assert_eq!(node.default.all.program, Some(Program::Interval));
        assert_eq!((node.default.all.pmin, node.default.all.pmax), (Some(2000), Some(5000)));
        assert_eq!((node.lease_s, node.programs.len()), (30, 2));
        assert!(node.pmin_least > 0);
        // Of the model only what the board has a sensor for.
        let measured: Vec<_> = node.properties.iter().map(|one| (&*one.name, one.range)).collect();
        assert_eq!(measured, [("temperature", Some(125.0))]);
        let fan = &node.actuators[&("cooling".to_owned(), "fan".to_owned())];
        assert_eq!((&fan.desired, &fan.safe), (&Some(true.into()), &Some(false.into())));
    }
}
