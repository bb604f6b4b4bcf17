//! What is known of a twin, as the values that conditions read.

use std::sync::Arc;

use serde_json::Value;

use super::{Controller, Kept, LINK_WINDOW_MS, Presence, Subject, TRANSMISSION, Watched};
use crate::cacc::expr::eval;
use crate::cacc::expr::{Fact, LinkField, NodeField, PropertyRef, VerdictField, Window};
use crate::cacc::facts::window::Series;
use crate::twin::{Action, Event, Feature, Twin};
use crate::wire::STATISTICS;

/// The property that stands for a verdict's time.
const VERDICT_TIME: &str = "ofRevision";

/// A value as conditions see it.
fn value_of(value: &Value) -> eval::Value {
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
fn property<'a>(twin: &'a Twin, of: &PropertyRef) -> Option<&'a Value> {
    twin.property_named(feature_of(twin, of)?, &of.name)
}

/// Keeps what an event wrote of a property, as `twin` then has it.
pub(super) fn note(
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
fn number(value: &Value) -> f64 {
    let flag = value.as_bool().map(|flag| f64::from(u8::from(flag)));
    flag.or_else(|| value.as_f64()).unwrap_or(f64::NAN)
}

/// A fact with the feature that its name stands for in a twin.
pub(super) fn resolved(fact: &Fact, subject: &Subject) -> Fact {
    let mut fact = fact.clone();
    if let Fact::Property(of) | Fact::Window(_, of, _) | Fact::Age(of) = &mut fact
        && of.feature.is_empty()
        && let Some(twin) = &subject.twin
        && let Some(feature) = feature_of(twin, of).map(str::to_owned)
    {
        of.feature = feature;
    }
    fact
}

/// What the edge writes by itself, beside verdicts.
fn is_derived(feature: &str) -> bool {
    feature == TRANSMISSION || feature == STATISTICS
}

/// Whether an event writes a property.
fn touches(event: &Event, twin: &Twin, of: &PropertyRef) -> bool {
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
pub(super) fn read_property(fact: &Fact) -> Option<PropertyRef> {
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

/// What a person calls a fact.
pub(super) fn words(fact: &Fact) -> String {
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
            format!("channel({name}).{}", link_word(*field))
        }
        Fact::Link(field) => format!("link.{}", link_word(*field)),
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

fn link_word(field: LinkField) -> &'static str {
    match field {
        LinkField::State => "state",
        LinkField::Load => "load",
        LinkField::Loss => "loss",
        LinkField::Delay => "delay",
        LinkField::Rate => "rate",
    }
}

/// Why a fact is not known, in words.
pub(super) fn why_unknown(fact: &Fact, subject: &Subject) -> &'static str {
    let away = subject.node.as_ref().is_some_and(|node| matches!(node.presence, Presence::Away(_)));
    match fact {
        Fact::Channel(..) | Fact::Link(LinkField::State | LinkField::Load | LinkField::Delay) => {
            "nothing measures it yet"
        }
        Fact::Node(_) | Fact::Link(_) => "the node has not said so",
        Fact::Label(_) => "the twin has no such label",
        _ if away => "the node is away, so what it last said may be out of date",
        // By the name alone, since the feature may have been found for it.
        Fact::Window(_, of, ms)
            if (subject.series.iter())
                .any(|kept| kept.awaited && kept.ms == *ms && kept.of.name == of.name) =>
        {
            "the window is being read from the twin's history"
        }
        Fact::Window(..) => "the window holds too few values",
        Fact::Verdict(..) | Fact::VerdictAge(_) => "there is no verdict yet",
        _ => "there is no value yet",
    }
}

impl Controller {
    /// The value of a fact for a member of a rule.
    pub(super) fn fact(&self, watched: &Watched, fact: &Fact, at: usize) -> eval::Value {
        let (first, second) = self.sources(watched, at);
        let value = known(fact, &self.subjects[first]);
        match second {
            Some(second) if value == eval::Value::Unknown => known(fact, &self.subjects[second]),
            _ => value,
        }
    }

    /// Where a rule's facts about a member come from: of the member first where each is judged, of
    /// the aggregate that the rule names first where all are.
    fn sources(&self, watched: &Watched, at: usize) -> (usize, Option<usize>) {
        match self.aggregate_of(watched) {
            None => (at, None),
            Some(aggregate) if watched.rule.each => (at, Some(aggregate)),
            Some(aggregate) => (aggregate, Some(at)),
        }
    }

    /// Whose fact it is that a rule reads of a member: the member's if nobody knows it.
    pub(super) fn teller(&self, watched: &Watched, fact: &Fact, at: usize) -> &Subject {
        let (first, second) = self.sources(watched, at);
        let tellers = [Some(first), second].into_iter().flatten();
        let mut known =
            tellers.filter(|at| known(fact, &self.subjects[*at]) != eval::Value::Unknown);
        &self.subjects[known.next().unwrap_or(at)]
    }

    /// The aggregate that a rule names, if it is known.
    pub(super) fn aggregate_of(&self, watched: &Watched) -> Option<usize> {
        self.index.get(watched.rule.target.aggregate.as_ref()?).copied()
    }

    /// Those of whom a rule reads facts about a member.
    pub(super) fn read_of(&self, rule: usize, at: usize) -> impl Iterator<Item = usize> + use<> {
        [Some(at), self.aggregate_of(&self.rules[rule])].into_iter().flatten()
    }

    /// Keeps what windows and ages need of what an event wrote.
    pub(super) fn note_values(&mut self, at: usize, event: &Event, now_us: i64) {
        self.note_times(at, now_us);
        if event.action == Action::ReadLate {
            // History: it came too late to say how things are.
            return;
        }
        let subject = &mut self.subjects[at];
        let Some(twin) = subject.twin.clone() else { return };
        for kept in &mut subject.series {
            if twin.revision > kept.upto {
                note(&mut kept.series, &kept.of, event, &twin, now_us);
            }
        }
        for (of, time_us) in &mut subject.times {
            if touches(event, &twin, of) {
                *time_us = now_us;
            }
        }
    }

    /// The features that have the twin's revision are those that changed with it.
    pub(super) fn note_times(&mut self, at: usize, now_us: i64) {
        let subject = &mut self.subjects[at];
        let Some(twin) = &subject.twin else { return };
        let now = twin.features.iter().filter(|(_, feature)| feature.revision == twin.revision);
        for (id, _) in now {
            match subject.changed.iter_mut().find(|(other, _)| other == id) {
                Some((_, time_us)) => *time_us = now_us,
                None => subject.changed.push((id.clone(), now_us)),
            }
        }
        subject.changed.retain(|(id, _)| twin.features.contains_key(id));
    }

    /// Sees to it that what a rule asks of the past is kept for a member, or for its aggregate.
    pub(super) fn track(&mut self, rule: usize, at: usize, now_us: i64) {
        let facts = &self.rules[rule].facts;
        let subject = &mut self.subjects[at];
        for fact in facts {
            match fact {
                Fact::Window(_, of, ms) => {
                    if subject.kept(of, *ms).is_some() {
                        continue;
                    }
                    let mut kept = Kept {
                        of: of.clone(),
                        ms: *ms,
                        series: Series::new(*ms),
                        upto: subject.twin.as_deref().map_or(0, |twin| twin.revision),
                        awaited: false,
                    };
                    if let Some(twin) = &subject.twin
                        && twin.modified_us >= kept.series.since(now_us)
                    {
                        if twin.revision == 1 {
                            // It is all of its history.
                            let value = property(twin, of).map_or(f64::NAN, number);
                            kept.series.push(twin.modified_us.min(now_us), value);
                        } else {
                            kept.awaited = true;
                            self.effects.past.ask(twin, &kept);
                        }
                    }
                    subject.series.push(kept);
                }
                Fact::Age(_) | Fact::VerdictAge(_) => {
                    let Some(of) = read_property(fact) else { continue };
                    if !subject.times.iter().any(|(other, _)| *other == of) {
                        // No later than the twin's last change.
                        let time = subject.twin.as_deref().map_or(now_us, |twin| twin.modified_us);
                        subject.times.push((of, time.min(now_us)));
                    }
                }
                Fact::Link(LinkField::Loss | LinkField::Rate) => {
                    subject.link.window.get_or_insert_with(|| Series::new(LINK_WINDOW_MS));
                }
                _ => {}
            }
        }
    }

    /// When the next value leaves a window that the rule reads.
    pub(super) fn window_due(&self, rule: usize, at: usize) -> Option<i64> {
        let due = |fact: &Fact, subject: &Subject| match fact {
            Fact::Window(_, of, ms) => subject.kept(of, *ms).and_then(|kept| kept.series.due()),
            Fact::Link(LinkField::Loss | LinkField::Rate) => subject.link.window.as_ref()?.due(),
            _ => None,
        };
        let facts = &self.rules[rule].facts;
        let of = |at: usize| facts.iter().filter_map(move |fact| due(fact, &self.subjects[at]));
        self.read_of(rule, at).flat_map(of).min()
    }

    /// Forgets what has left the windows that a rule reads of a member.
    pub(super) fn forget_old(&mut self, rule: usize, at: usize, now_us: i64) {
        for at in self.read_of(rule, at) {
            let subject = &mut self.subjects[at];
            subject.series.iter_mut().for_each(|kept| kept.series.forget(now_us));
            if let Some(window) = &mut subject.link.window {
                window.forget(now_us);
            }
        }
    }
}

fn known(fact: &Fact, subject: &Subject) -> eval::Value {
    let unknown = eval::Value::Unknown;
    let number = |value: Option<f64>| value.map_or(eval::Value::Unknown, eval::Value::Number);
    let node = subject.node.as_deref();
    let away = node.is_some_and(|node| matches!(node.presence, Presence::Away(_)));
    match fact {
        // What a node said before it went says nothing about now.
        Fact::Property(_) | Fact::Window(..) | Fact::Verdict(..) if away => unknown,
        Fact::Property(of) => {
            let value = subject.twin.as_deref().and_then(|twin| property(twin, of));
            value.map_or(unknown, value_of)
        }
        Fact::Verdict(service, field) => {
            let twin = subject.twin.as_deref();
            let value = twin.and_then(|t| t.property_named(service, verdict_field(*field)));
            value.map_or(unknown, value_of)
        }
        Fact::Window(window, of, ms) => {
            let kept = subject.kept(of, *ms).filter(|kept| !kept.awaited);
            number(kept.and_then(|kept| kept.series.value(*window)))
        }
        Fact::Age(_) | Fact::VerdictAge(_) => {
            let Some(of) = read_property(fact) else { return unknown };
            let there = subject.twin.as_deref().is_some_and(|twin| property(twin, &of).is_some());
            let time = subject.times.iter().find(|(other, _)| *other == of).map(|(_, time)| *time);
            number(time.filter(|_| there).map(|time| time as f64))
        }
        Fact::Label(key) => {
            let attributes = subject.twin.as_deref().and_then(|twin| twin.attributes.as_deref());
            let label = attributes.and_then(|map| map.get("labels")?.get(key)?.as_str());
            label.map_or(unknown, |label| eval::Value::Text(Arc::from(label)))
        }
        // Kept for all members together, see `rules`.
        Fact::AnyOf(_) | Fact::AllOf(_) => unknown,
        Fact::Channel(..) => unknown,
        Fact::Link(field) => {
            let window = subject.link.window.as_ref();
            let count = window.and_then(|window| window.value(Window::Count));
            match field {
                LinkField::Rate => {
                    number(count.map(|count| count * 1000.0 / LINK_WINDOW_MS as f64))
                }
                LinkField::Loss => {
                    let mean = window.and_then(|window| window.value(Window::Avg));
                    // So many are missing for each that came.
                    number(mean.map(|missing| missing / (1.0 + missing)))
                }
                LinkField::State | LinkField::Load | LinkField::Delay => unknown,
            }
        }
        Fact::Node(field) => match field {
            NodeField::Online => match node.map(|node| node.presence) {
                Some(Presence::Up) => eval::Value::Bool(true),
                Some(Presence::Away(_)) => eval::Value::Bool(false),
                Some(Presence::Unheard) | None => unknown,
            },
            NodeField::LastSeen => number(subject.link.last_seen_us.map(|time| time as f64)),
            NodeField::Uptime => number(subject.link.started_us.map(|time| time as f64)),
            NodeField::Lost => number(subject.link.last_seen_us.map(|_| subject.link.gaps as f64)),
            NodeField::Program => {
                let reported = node.and_then(|node| node.reported.as_ref());
                reported.map_or(unknown, |tx| eval::Value::Text(Arc::from(tx.program.as_str())))
            }
            // What it said before it went says nothing about now.
            NodeField::Battery | NodeField::Rssi if away => unknown,
            NodeField::Battery => number(node.and_then(|node| node.health.battery).map(f64::from)),
            NodeField::Rssi => number(node.and_then(|node| node.health.rssi).map(f64::from)),
        },
    }
}

pub(super) fn flag(subject: &Subject, of: &PropertyRef) -> Option<bool> {
    let away = subject.node.as_ref().is_some_and(|n| matches!(n.presence, Presence::Away(_)));
    if away {
        return None;
    }
    property(subject.twin.as_deref()?, of)?.as_bool()
}

pub(super) fn written(event: &Event, subject: &Subject, of: &PropertyRef) -> bool {
    subject.twin.as_deref().is_some_and(|twin| touches(event, twin, of))
}
