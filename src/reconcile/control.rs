//! What manifests say of nodes and rules, in the controller's terms. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ObjectKey;
use super::controllers::lookup_order;
use crate::cacc::decide::{Actuator, Measured, NodeSpec};
use crate::cacc::expr::{self, Scope, Service};
use crate::cacc::rule::{Asked, Class, Effect, Rule, Settings, Target, Threshold, Times};
use crate::firmware::Firmware;
use crate::kinds::DEFAULT_NAMESPACE;
use crate::kinds::{
    ContextRuleSpec, Deadband, Duration, NodeProfileSpec, TrafficClass, Transmission,
    TwinModelSpec, TwinSpec, ValueType,
};
use crate::twin::ThingId;
use crate::wire::Program;

/// Least time between messages of a node whose firmware is not known, ms: below it a board does
/// nothing else.
const PMIN_LEAST_MS: u32 = 20;

/// A rule's name among all.
pub(super) fn rule_name(key: &ObjectKey) -> String {
    if key.namespace == DEFAULT_NAMESPACE {
        key.name.clone()
    } else {
        format!("{}/{}", key.namespace, key.name)
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_ms()).unwrap_or(u32::MAX)
}

fn micros(duration: Option<Duration>) -> i64 {
    let ms = duration.map_or(0, Duration::as_ms);
    i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// A transmission's fields as the controller knows them.
pub(super) fn settings(of: &Transmission) -> Settings {
    let interval = of.interval.map(millis);
    Settings {
        program: of.program.as_deref().map(Program::from),
        pmin: of.pmin.map(millis).or(interval),
        pmax: of.pmax.map(millis).or(interval),
        st: of.st.as_ref().map(|st| match st {
            Deadband::Absolute(st) => Threshold::Absolute(*st),
            Deadband::OfRange(share) => Threshold::OfRange(share.as_fraction()),
        }),
        gt: of.gt,
        lt: of.lt,
    }
}

/// A rule as the controller knows it.
///
/// * `resolve`: the twin that a reference means.
/// * `services`, `channels`: their names.
///
/// # Errors
/// What is wrong with its conditions, in words; `validate` says it with line and column.
pub(super) fn rule(
    key: &ObjectKey,
    spec: &ContextRuleSpec,
    resolve: impl Fn(&str) -> Option<ThingId>,
    services: &[String],
    channels: &[String],
) -> Result<Rule, String> {
    // Names were checked against the models when the rule was applied. Here they mean what each
    // twin has, so that a rule outlives a change of model.
    let scope = Scope {
        open: true,
        services: services
            .iter()
            .map(|name| Service { name: name.clone(), labels: None })
            .collect(),
        channels: channels.to_vec(),
        ..Scope::default()
    };
    let check = |text: &str| {
        expr::check(text, &scope).map_err(|errors| {
            errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; ")
        })
    };
    let nodes = &spec.nodes;
    let then = &spec.then;
    let properties = then.properties.iter().map(|(name, of)| (name.clone(), settings(of)));
    let set = then.set.iter().filter_map(|(path, value)| {
        let (feature, property) = path.split_once('/')?;
        Some(((feature.to_owned(), property.to_owned()), value.clone()))
    });
    Ok(Rule {
        name: rule_name(key).into(),
        target: Target {
            names: nodes.names.iter().filter_map(|name| resolve(name)).collect(),
            namespace: (key.namespace != DEFAULT_NAMESPACE).then(|| key.namespace.clone()),
            match_labels: nodes.match_labels.clone(),
            match_expressions: nodes.match_expressions.clone(),
            aggregate: nodes.aggregate.as_deref().and_then(&resolve),
        },
        each: spec.judges_each(),
        when: check(&spec.when)?,
        until: spec.until.as_deref().map(check).transpose()?,
        times: Times {
            for_us: micros(spec.for_),
            hold_us: micros(spec.hold),
            cooldown_us: micros(spec.cooldown),
        },
        effect: Effect {
            asked: Asked { all: settings(&then.transmission), properties: properties.collect() },
            set: set.collect(),
            pull: then.pull.clone(),
            weight: then.weight,
            class: then.class.map(|class| match class {
                TrafficClass::Low => Class::Low,
                TrafficClass::Normal => Class::Normal,
                TrafficClass::High => Class::High,
                TrafficClass::Safety => Class::Safety,
            }),
            quarantine: then.quarantine,
        },
        priority: spec.priority,
    })
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

/// The thing that a reference means, without looking whether it is there.
pub(super) fn named(
    namespace: &str,
    reference: &str,
    exists: impl Fn(&str, &str) -> bool,
) -> Option<ThingId> {
    let order = lookup_order(namespace, reference);
    let found = order.iter().find(|(place, name)| exists(place, name));
    let (namespace, name) = found.or(order.first())?;
    ThingId::parse(&format!("{namespace}:{name}")).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kind;

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

    #[test]
    fn a_rule_reaches_what_its_namespace_reaches() {
        let of: ContextRuleSpec = spec(json!({
            "nodes": {"names": ["n"], "each": true}, "when": "verdict(\"s\").score > 1.0",
            "for": "2s", "then": {"interval": "200ms", "set": {"cooling/fan": true}}}));
        let key = |namespace| ObjectKey::new(Kind::ContextRule, namespace, "r");
        let resolve = |name: &str| ThingId::parse(&format!("lab:{name}")).ok();
        let services = ["s".to_owned()];
        let made = rule(&key("lab"), &of, resolve, &services, &[]).unwrap();
        assert_eq!((&*made.name, made.target.namespace.as_deref()), ("lab/r", Some("lab")));
        assert_eq!((made.each, made.times.for_us), (true, 2_000_000));
        assert_eq!(made.effect.asked.all.pmin, Some(200));
        assert_eq!(made.effect.set.len(), 1);
        let made = rule(&key("default"), &of, resolve, &services, &[]).unwrap();
        assert_eq!((&*made.name, made.target.namespace), ("r", None));
        assert!(rule(&key("lab"), &of, resolve, &[], &[]).unwrap_err().contains("Service `s`"));
    }
}
