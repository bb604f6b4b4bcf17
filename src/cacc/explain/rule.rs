//! The rules about a node, and the facts that they read.

use serde_json::{Map, Value, json};

use super::sentence;
use crate::base::time::rfc3339;
use crate::cacc::decide::{Reasons, Winner};
use crate::cacc::expr::Fact;
use crate::cacc::expr::eval::{self, Truth};
use crate::cacc::facts::{Facts, describe, read_property};
use crate::cacc::rule::{Effect, RuleState, Settings, Threshold};
use crate::cacc::rules::{RuleEntry, Rules};

/// A rule about a node: its state, its conditions, what it asks for.
pub(super) fn explain_rule(
    entry: &RuleEntry,
    place: usize,
    reasons: &Reasons,
    facts: &Facts,
    now_us: i64,
) -> Value {
    let rule = &entry.rule;
    let (when, until) = entry.truths(place);
    let left = |until_us: i64| sentence::span(until_us - now_us);
    let mine = Winner::Rule(rule.name.to_string());
    let wins = reasons.winners.values().any(|winner| *winner == mine);
    let suspended = reasons.refusals.iter().any(|one| one.by == mine && one.suspended);
    let asks = asked_fields(&rule.effect);
    let above = reasons.winners.iter().find(|(field, winner)| {
        let field = field.rsplit('.').next().unwrap_or_default();
        **winner != mine && asks.iter().any(|(asked, _)| asked.ends_with(field))
    });
    let state = match entry.state(place) {
        RuleState::Idle => "inactive".to_owned(),
        RuleState::Waiting { since_us } => format!(
            "waiting for {} of {}",
            left(since_us.saturating_add(rule.times.for_us)),
            sentence::span(rule.times.for_us)
        ),
        RuleState::Active { since_us } => {
            let until_us = since_us.saturating_add(rule.times.hold_us);
            match (wins || asks.is_empty(), above) {
                _ if suspended => "suspended".to_owned(),
                (false, Some((_, winner))) => {
                    format!("overridden by {}", winner)
                }
                _ if !when.holds() && until_us > now_us => {
                    format!("holding {}", left(until_us))
                }
                _ if until_us > now_us => {
                    format!("active for at least {}", left(until_us))
                }
                _ => "active".to_owned(),
            }
        }
        RuleState::Cooling { until_us } => format!("cooling down for {}", left(until_us)),
    };
    let truth = |truth: Truth| match truth {
        Truth::True => json!(true),
        Truth::False => json!(false),
        Truth::Unknown(_) => json!("unknown"),
    };
    let missing = match when {
        Truth::Unknown(slot) => (entry.facts.get(usize::from(slot)))
            .map(|fact| describe(&facts.of(entry.members()[place]).resolve(fact))),
        _ => None,
    };
    let mut value = json!({
        "rule": &*rule.name,
        "state": state,
        "priority": rule.priority,
        "when": truth(when),
        "asks": asks.into_iter().collect::<Map<String, Value>>(),
    });
    if let Some(until) = until {
        value["until"] = truth(until);
    }
    if let Some(missing) = missing {
        value["missing"] = missing.into();
    }
    if let Some(since_us) = entry.state(place).active_since() {
        value["since"] = rfc3339(since_us).into();
    }
    value
}

/// The facts that a rule reads about a node.
pub(super) fn explain_facts(
    rules: &Rules,
    (rule, place): (usize, usize),
    facts: &Facts,
    now_us: i64,
    into: &mut Vec<Value>,
) {
    let entry = rules.entry(rule);
    for (fact, value) in entry.facts.iter().zip(entry.values(place)) {
        let reporter = rules.reporter(rule, fact, entry.members()[place], facts);
        // A name without its feature is shown with the one that has it.
        let fact = &reporter.resolve(fact);
        let mut one = json!({ "fact": describe(fact) });
        match value {
            eval::Value::Unknown => {
                one["value"] = "unknown".into();
                one["why"] = reporter.why_unknown(fact).into();
            }
            eval::Value::Number(since_us) if eval::grows(fact) => {
                let age_ms = ((now_us as f64 - since_us) / 1000.0).max(0.0);
                let s = (age_ms / 1000.0).round() as u64;
                one["value"] = crate::base::units::Duration::from_ms(s * 1000).to_string().into();
            }
            eval::Value::Number(number) => one["value"] = json!(number),
            eval::Value::Bool(flag) => one["value"] = json!(flag),
            eval::Value::Text(text) => one["value"] = json!(&**text),
        }
        let feature = match fact {
            Fact::AnyOf(_) | Fact::AllOf(_) => None,
            fact => read_property(fact).map(|of| of.feature),
        };
        if let Some(feature) = feature {
            let twin = reporter.twin.as_deref();
            if let Some(found) = twin.and_then(|twin| twin.features.get(feature.as_str())) {
                one["revision"] = found.revision.into();
            }
            if let Some(time_us) = reporter.changed_us(&feature) {
                one["age"] = sentence::span(now_us - time_us).into();
            }
        }
        into.push(one);
    }
}

/// What a rule asks for, field by field.
fn asked_fields(effect: &Effect) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    let mut add = |prefix: &str, settings: &Settings| {
        let st = settings.st.map(|st| match st {
            Threshold::Absolute(st) => json!(st),
            Threshold::OfRange(share) => json!(format!("{}%", share * 100.0)),
        });
        for (field, value) in [
            ("program", settings.program.as_ref().map(|program| json!(program))),
            ("pmin", settings.pmin.map(|ms| json!(ms))),
            ("pmax", settings.pmax.map(|ms| json!(ms))),
            ("st", st),
            ("gt", settings.gt.map(|gt| json!(gt))),
            ("lt", settings.lt.map(|lt| json!(lt))),
        ] {
            if let Some(value) = value {
                fields.push((format!("{prefix}{field}"), value));
            }
        }
    };
    add("", &effect.asked.all);
    effect.asked.properties.iter().for_each(|(name, settings)| add(&format!("{name}."), settings));
    for (field, value) in [
        ("weight", effect.weight.map(Value::from)),
        ("class", effect.class.map(|class| json!(class))),
        ("quarantine", effect.quarantine.map(Value::from)),
    ] {
        fields.extend(value.map(|value| (field.to_owned(), value)));
    }
    fields
}
