//! Rules: what a ContextRule says in the controller's terms, and declaring it to the controller.

use crate::cacc::expr::{self, Scope, Service};
use crate::cacc::rule::{Asked, Class, Effect, Rule, Settings, Target, Threshold, Times};
use crate::kinds::DEFAULT_NAMESPACE;
use crate::kinds::{ContextRuleSpec, Deadband, Duration, Kind, TrafficClass, Transmission};
use crate::reconcile::key::{ObjectKey, lookup_order};
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::twin::ThingId;
use crate::wire::Program;

impl Reconciler {
    /// Declares a rule to the controller.
    ///
    /// * `not_acted_on`: what of it nothing acts on yet, for its condition.
    pub(super) fn rule(
        &self,
        key: &ObjectKey,
        spec: &ContextRuleSpec,
        not_acted_on: &[String],
    ) -> Finding {
        let names = |kind| -> Vec<String> {
            let objects = self.objects();
            let of_kind =
                objects.iter().filter(|(key, stored)| key.kind == kind && !stored.deleting);
            of_kind.map(|(key, _)| key.name.clone()).collect()
        };
        let resolve = |reference: &str| {
            named(&key.namespace, reference, |place, name| self.declares_twin(place, name, None))
        };
        let (services, channels) = (names(Kind::Service), names(Kind::Channel));
        match rule(key, spec, resolve, &services, &channels) {
            Ok(rule) => {
                self.context.control.set_rule(rule);
                match not_acted_on.is_empty() {
                    true => Finding::ready("InForce", "the rule is judged"),
                    false => Finding::ready(
                        "InForce",
                        format!("the rule is judged; {}", not_acted_on.join("; ")),
                    ),
                }
            }
            Err(why) => {
                self.context.control.remove_rule(&key.global_name());
                Finding::stalled("ConditionNotUnderstood", why)
            }
        }
    }

    /// Forgets a deleted ContextRule.
    pub(super) fn remove_rule(&self, key: &ObjectKey) {
        self.context.control.remove_rule(&key.global_name());
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
/// What is wrong with its conditions; `validate` shows line and column.
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
        name: key.global_name().into(),
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
    use serde_json::{Value, json};

    use super::*;

    fn spec<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
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
