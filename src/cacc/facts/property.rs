//! Properties of twins as conditions read them.

use serde_json::Value;

use super::window::Series;
use crate::cacc::expr::{Fact, LinkField, NodeField, PropertyRef, VerdictField, Window, eval};
use crate::twin::{Event, Feature, Twin};
use crate::wire::STATISTICS;

/// The feature that shows how a node transmits.
pub const TRANSMISSION: &str = "transmission";

/// The property that stands for a verdict's time.
const VERDICT_TIME: &str = "ofRevision";

/// A value as conditions see it.
pub(super) fn value_of(value: &Value) -> eval::Value {
    match value {
        Value::Bool(value) => eval::Value::Bool(*value),
        Value::Number(number) => number.as_f64().map_or(eval::Value::Unknown, eval::Value::Number),
        Value::String(text) => eval::Value::Text(text.as_str().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => eval::Value::Unknown,
    }
}

/// The feature that is meant: the one that is named, or else the first that has the property.
pub(super) fn feature_of<'a>(twin: &'a Twin, of: &'a PropertyRef) -> Option<&'a str> {
    if !of.feature.is_empty() {
        return Some(&of.feature);
    }
    let has = |feature: &Feature| {
        feature.properties.as_ref().is_some_and(|map| map.contains_key(&of.name))
    };
    let found = twin.features.iter().find(|(id, feature)| !is_derived(id) && has(feature));
    found.map(|(id, _)| &**id)
}

/// A property by feature and name; without a feature, of the first feature that has it.
pub(super) fn property<'a>(twin: &'a Twin, of: &PropertyRef) -> Option<&'a Value> {
    twin.property_named(feature_of(twin, of)?, &of.name)
}

/// Adds what an event wrote of a property to its window, as `twin` then has it.
pub(super) fn record(
    series: &mut Series,
    of: &PropertyRef,
    event: &Event,
    twin: &Twin,
    time_us: i64,
) {
    if let Some(feature) = feature_of(twin, of)
        && event.touches(feature, &of.name)
        && let Some(value) = twin.property_named(feature, &of.name)
    {
        series.push(time_us, number(value));
    }
}

/// A value of a window.
pub(super) fn number(value: &Value) -> f64 {
    let flag = value.as_bool().map(|flag| f64::from(u8::from(flag)));
    flag.or_else(|| value.as_f64()).unwrap_or(f64::NAN)
}

/// What the edge writes by itself, beside verdicts.
fn is_derived(feature: &str) -> bool {
    feature == TRANSMISSION || feature == STATISTICS
}

/// Whether an event writes a property.
pub(super) fn touches(event: &Event, twin: &Twin, of: &PropertyRef) -> bool {
    if !of.feature.is_empty() {
        return event.touches(&of.feature, &of.name);
    }
    twin.features.keys().any(|feature| event.touches(feature, &of.name))
}

pub(super) fn verdict_field(field: VerdictField) -> &'static str {
    match field {
        VerdictField::Label => "label",
        VerdictField::Score => "score",
        VerdictField::Model => "model",
        VerdictField::Version => "version",
        VerdictField::OfRevision => "ofRevision",
        VerdictField::LatencyMs => "latencyMs",
        VerdictField::Instance => "instance",
    }
}

/// The property that a fact reads of the twin, if it does.
pub fn read_property(fact: &Fact) -> Option<PropertyRef> {
    let of = |feature: &str, name: &str| PropertyRef {
        feature: feature.to_owned(),
        name: name.to_owned(),
    };
    match fact {
        Fact::Property(property)
        | Fact::Window(_, property, _)
        | Fact::Age(property)
        | Fact::AnyOf(property)
        | Fact::AllOf(property) => Some(property.clone()),
        Fact::Verdict(service, field) => Some(of(service, verdict_field(*field))),
        Fact::VerdictAge(service) => Some(of(service, VERDICT_TIME)),
        Fact::Label(_) | Fact::Channel(..) | Fact::Link(_) | Fact::Node(_) => None,
    }
}

/// A fact as it is written in a condition.
pub fn describe(fact: &Fact) -> String {
    let name = |property: &PropertyRef| match property.feature.as_str() {
        "" => property.name.clone(),
        feature => format!("{feature}/{}", property.name),
    };
    match fact {
        Fact::Property(property) => name(property),
        Fact::Window(window, property, ms) => format!(
            "{}({}, {})",
            match window {
                Window::Avg => "avg",
                Window::Min => "min",
                Window::Max => "max",
                Window::Stddev => "stddev",
                Window::Rate => "rate",
                Window::Count => "count",
            },
            name(property),
            crate::base::units::Duration::from_ms(*ms)
        ),
        Fact::Age(property) => format!("age({})", name(property)),
        Fact::VerdictAge(service) => format!("age(verdict(\"{service}\"))"),
        Fact::AnyOf(property) => format!("any({})", name(property)),
        Fact::AllOf(property) => format!("all({})", name(property)),
        Fact::Verdict(service, field) => {
            format!("verdict(\"{service}\").{}", verdict_field(*field))
        }
        Fact::Label(key) => format!("label(\"{key}\")"),
        Fact::Channel(channel, field) => {
            let name = channel.as_ref().map(|name| format!("\"{name}\"")).unwrap_or_default();
            format!("channel({name}).{}", link_field(*field))
        }
        Fact::Link(field) => format!("link.{}", link_field(*field)),
        Fact::Node(field) => format!(
            "node.{}",
            match field {
                NodeField::Online => "online",
                NodeField::Battery => "battery",
                NodeField::LastSeen => "lastSeen",
                NodeField::Lost => "lost",
                NodeField::Rssi => "rssi",
                NodeField::Uptime => "uptime",
                NodeField::Program => "program",
            }
        ),
    }
}

fn link_field(field: LinkField) -> &'static str {
    match field {
        LinkField::State => "state",
        LinkField::Load => "load",
        LinkField::Loss => "loss",
        LinkField::Delay => "delay",
        LinkField::Rate => "rate",
    }
}
