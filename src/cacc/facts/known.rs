//! The value of a fact for one twin, and why it has none.

use std::sync::Arc;

use super::property::{feature_of, property, read_property, value_of, verdict_field};
use super::twins::TwinFacts;
use crate::cacc::expr::{Fact, LinkField, NodeField, PropertyRef, eval};

impl TwinFacts {
    /// The value of a fact.
    pub fn value(&self, fact: &Fact) -> eval::Value {
        let unknown = eval::Value::Unknown;
        let number = |value: Option<f64>| value.map_or(eval::Value::Unknown, eval::Value::Number);
        let offline = self.is_offline();
        match fact {
            // What an offline node last sent is out of date.
            Fact::Property(_) | Fact::Window(..) | Fact::Verdict(..) if offline => unknown,
            Fact::Property(of) => {
                let value = self.twin.as_deref().and_then(|twin| property(twin, of));
                value.map_or(unknown, value_of)
            }
            Fact::Verdict(service, field) => {
                let twin = self.twin.as_deref();
                let value = twin.and_then(|t| t.property_named(service, verdict_field(*field)));
                value.map_or(unknown, value_of)
            }
            Fact::Window(window, of, ms) => {
                let kept = self.window(of, *ms).filter(|kept| !kept.awaited);
                number(kept.and_then(|kept| kept.series.value(*window)))
            }
            Fact::Age(_) | Fact::VerdictAge(_) => {
                let Some(of) = read_property(fact) else { return unknown };
                let exists = self.twin.as_deref().is_some_and(|twin| property(twin, &of).is_some());
                number(self.written_us(&of).filter(|_| exists).map(|time| time as f64))
            }
            Fact::Label(key) => {
                let attributes = self.twin.as_deref().and_then(|twin| twin.attributes.as_deref());
                let label = attributes.and_then(|map| map.get("labels")?.get(key)?.as_str());
                label.map_or(unknown, |label| eval::Value::Text(Arc::from(label)))
            }
            // Kept for all members of a rule together, see `rules`.
            Fact::AnyOf(_) | Fact::AllOf(_) => unknown,
            Fact::Channel(..) => unknown,
            Fact::Link(field) => self.link.value(*field),
            Fact::Node(field) => match field {
                NodeField::Online => self.status.online.map_or(unknown, eval::Value::Bool),
                NodeField::LastSeen => number(self.link.last_seen_us.map(|time| time as f64)),
                NodeField::Uptime => number(self.status.started_us.map(|time| time as f64)),
                NodeField::Lost => number(self.link.last_seen_us.map(|_| self.link.gaps as f64)),
                NodeField::Program => {
                    let program = self.status.program.as_ref();
                    program.map_or(unknown, |program| eval::Value::Text(program.as_str().into()))
                }
                NodeField::Battery | NodeField::Rssi if offline => unknown,
                NodeField::Battery => number(self.status.battery.map(f64::from)),
                NodeField::Rssi => number(self.status.rssi.map(f64::from)),
            },
        }
    }

    /// A member's part of `any` and `all`.
    pub fn flag(&self, of: &PropertyRef) -> Option<bool> {
        if self.is_offline() {
            return None;
        }
        property(self.twin.as_deref()?, of)?.as_bool()
    }

    /// A fact with the feature that its name stands for in this twin.
    pub fn resolve(&self, fact: &Fact) -> Fact {
        let mut fact = fact.clone();
        if let Fact::Property(of) | Fact::Window(_, of, _) | Fact::Age(of) = &mut fact
            && of.feature.is_empty()
            && let Some(twin) = &self.twin
            && let Some(feature) = feature_of(twin, of).map(str::to_owned)
        {
            of.feature = feature;
        }
        fact
    }

    /// Why a fact is unknown, for people.
    pub fn why_unknown(&self, fact: &Fact) -> &'static str {
        match fact {
            Fact::Channel(..)
            | Fact::Link(LinkField::State | LinkField::Load | LinkField::Delay) => {
                "nothing measures it yet"
            }
            Fact::Node(_) | Fact::Link(_) => "the node has not reported it",
            Fact::Label(_) => "the twin has no such label",
            _ if self.is_offline() => "the node is offline, so its last value may be out of date",
            Fact::Window(_, of, ms) if self.is_being_read(of, *ms) => {
                "the window is being read from the twin's history"
            }
            Fact::Window(..) => "the window holds too few values",
            Fact::Verdict(..) | Fact::VerdictAge(_) => "there is no verdict yet",
            _ => "there is no value yet",
        }
    }
}
