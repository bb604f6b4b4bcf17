//! Why a node talks as it does: everything that the decision looked at, as data, and one sentence.
//! The same state at the same time gives the same bytes.

use serde_json::{Map, Value, json};

use super::facts::{self, read_property};
use super::nodes::tx_json;
use super::{Controller, Presence, Watched};
use crate::base::time::rfc3339;
use crate::cacc::command::{self, Cause, Purpose};
use crate::cacc::decide::safety::Safety;
use crate::cacc::decide::{self, Reasons, Winner};
use crate::cacc::explain::sentence::{self as words, Progress, Situation};
use crate::cacc::expr::Fact;
use crate::cacc::expr::eval::{self, Truth};
use crate::cacc::rule::{Effect, Settings, State, Threshold};
use crate::twin::ThingId;

impl Controller {
    /// Why a node talks as it does; `None` if there is no such node.
    ///
    /// * `now_us`: microseconds since 1970.
    pub fn explain(&self, id: &ThingId, now_us: i64) -> Option<Value> {
        let at = *self.index.get(id)?;
        let subject = &self.subjects[at];
        let node = subject.node.as_ref()?;
        let decision = node.decision.as_ref()?;
        let mut reasons = Reasons::default();
        let previous = Some(decision);
        let (spec, user, standing) = (&node.spec, &node.user, node.standing);
        let input = decide::Input { spec, user, active: self.layers(at), standing, previous };
        let again = decide::decide_node(&input, now_us, Some(&mut reasons));
        let mut places = subject.memberships.clone();
        places.sort_by(|a, b| {
            let of = |(rule, _): &(usize, usize)| &self.rules[*rule].rule;
            of(b).priority.cmp(&of(a).priority).then_with(|| of(a).name.cmp(&of(b).name))
        });
        let rules: Vec<Value> = places
            .iter()
            .map(|(rule, place)| self.explain_rule(&self.rules[*rule], *place, &reasons, now_us))
            .collect();
        let mut facts = Vec::new();
        for (rule, place) in &places {
            self.explain_facts(&self.rules[*rule], *place, now_us, &mut facts);
        }
        facts.sort_by(|a, b| a["fact"].as_str().cmp(&b["fact"].as_str()));
        facts.dedup();
        let refusals: Vec<Value> = reasons
            .refusals
            .iter()
            .map(|one| {
                json!({ "reason": one.reason, "by": Cause::words(&one.by), "message": one.message })
            })
            .collect();
        let winners: Map<String, Value> = reasons
            .winners
            .iter()
            .map(|(field, winner)| (field.clone(), Cause::words(winner).into()))
            .collect();
        let of_transmission = |one: &&command::Command| one.purpose == Purpose::Transmission;
        let told = || node.commands.iter().rev().find(of_transmission);
        let command = node.open_transmission().or_else(told).or_else(|| node.commands.back());
        let mut value = json!({
            "node": id.as_str(),
            "time": rfc3339(now_us),
            "sentence": self.sentence(at, now_us)?,
            "generation": decision.generation,
            "changed": rfc3339(decision.changed_us),
            "cause": node.cause.by,
            "trace": node.cause.trace,
            "presence": match node.presence {
                Presence::Unheard => json!({ "state": "unheard" }),
                Presence::Up => json!({ "state": "up" }),
                Presence::Away(since_us) => json!({ "state": "away", "since": rfc3339(since_us) }),
            },
            "desired": tx_json(&decision.tx, decision.schedule),
            "reported": node.reported.as_ref().map(|tx| tx_json(tx, None)),
            "satisfied": node.is_satisfied(),
            "share": json!(decision.share),
            "fields": winners,
            "rules": rules,
            "facts": facts,
            "refusals": refusals,
            "command": command.map(|command| command.to_json(id)),
        });
        if let Some(seen_us) = subject.link.last_seen_us {
            value["presence"]["lastSeen"] = rfc3339(seen_us).into();
        }
        let health = [
            ("battery", node.health.battery.map(Value::from)),
            ("rssi", node.health.rssi.map(Value::from)),
            ("lost", Some(subject.link.gaps.into())),
        ];
        let known = health.into_iter().filter_map(|(name, is)| Some((name.to_owned(), is?)));
        value["health"] = known.collect::<Map<String, Value>>().into();
        if let Some(safety) = decision.safety {
            value["safety"] = json!(safety);
        }
        if let Some((target, due_us)) = &again.target {
            value["waiting"] =
                json!({ "for": tx_json(target, again.schedule), "until": rfc3339(*due_us) });
        }
        if !node.acts.is_empty() {
            let twin = subject.twin.as_deref();
            let act = |((feature, name), act): (&(String, String), &super::Act)| {
                let is = twin.and_then(|twin| twin.property_named(feature, name));
                json!({
                    "actuator": format!("{feature}/{name}"),
                    "desired": act.wanted,
                    "reported": is,
                    "by": act.by,
                })
            };
            value["actuators"] = node.acts.iter().map(act).collect();
        }
        Some(value)
    }

    /// The one sentence.
    pub(super) fn sentence(&self, at: usize, now_us: i64) -> Option<String> {
        let subject = &self.subjects[at];
        let node = subject.node.as_ref()?;
        let decision = node.decision.as_ref()?;
        let held = subject.memberships.iter().find_map(|(rule, place)| {
            let watched = &self.rules[*rule];
            let since_us = watched.state(*place).active_since()?;
            (*watched.rule.name == *node.cause.by)
                .then(|| since_us.saturating_add(watched.rule.times.hold_us))
        });
        let isolates = || {
            let mut layers = self.layers(at);
            decide::order(&mut layers);
            let layer = layers.into_iter().find(|layer| layer.effect.quarantine == Some(true));
            layer.map_or("", |layer| &**layer.name)
        };
        let steered = !node.user.is_empty();
        let cause = match (&decision.target, node.cause.by.as_str(), held) {
            (Some((_, due_us)), ..) => words::Cause::Waiting(*due_us),
            (None, "user", _) if steered => words::Cause::User,
            _ if decision.safety == Some(Safety::Quarantined) => {
                words::Cause::Quarantined(isolates())
            }
            _ if decision.safety == Some(Safety::Held) && !steered => words::Cause::Held,
            (None, "default", _) if decision.safety.is_some() => words::Cause::LowBattery,
            (None, "user", _) => words::Cause::User,
            (None, rule, Some(until_us)) => {
                words::Cause::Rule(rule, Some(until_us).filter(|until| *until > now_us))
            }
            _ => words::Cause::Default,
        };
        let given_up = node.given_up.as_ref().filter(|(of, _)| *of == decision.generation);
        let progress = match (node.presence, given_up) {
            (Presence::Unheard, _) => Progress::Unheard,
            (Presence::Away(since_us), _) => Progress::Away(since_us),
            (Presence::Up, _) if node.is_satisfied() => Progress::There,
            (Presence::Up, Some((_, why))) => Progress::Refused(why),
            (Presence::Up, None) if node.is_mute() && node.open_transmission().is_none() => {
                Progress::Mute
            }
            (Presence::Up, None) => Progress::Told,
        };
        Some(words::sentence(&Situation {
            node: subject.id.name(),
            desired: &decision.tx,
            schedule: decision.schedule,
            reported: node.reported.as_ref(),
            since_us: decision.changed_us,
            now_us,
            cause,
            progress,
        }))
    }

    fn explain_rule(
        &self,
        watched: &Watched,
        place: usize,
        reasons: &Reasons,
        now_us: i64,
    ) -> Value {
        let rule = &watched.rule;
        let (when, until) = watched.truths[place];
        let left = |until_us: i64| words::span(until_us - now_us);
        let mine = Winner::Rule(rule.name.to_string());
        let wins = reasons.winners.values().any(|winner| *winner == mine);
        let unheard = reasons.refusals.iter().any(|one| one.by == mine && one.unheard);
        let asks = asked_fields(&rule.effect);
        let above = reasons.winners.iter().find(|(field, winner)| {
            let field = field.rsplit('.').next().unwrap_or_default();
            **winner != mine && asks.iter().any(|(asked, _)| asked.ends_with(field))
        });
        let state = match watched.state(place) {
            State::Idle => "does not hold".to_owned(),
            State::Waiting { since_us } => format!(
                "waiting for {} of {}",
                left(since_us.saturating_add(rule.times.for_us)),
                words::span(rule.times.for_us)
            ),
            State::Active { since_us } => {
                let until_us = since_us.saturating_add(rule.times.hold_us);
                match (wins || asks.is_empty(), above) {
                    _ if unheard => "not heard".to_owned(),
                    (false, Some((_, winner))) => {
                        format!("overridden by {}", Cause::words(winner))
                    }
                    _ if !when.holds() && until_us > now_us => {
                        format!("holding {}", left(until_us))
                    }
                    _ if until_us > now_us => {
                        format!("active, holds for {} at least", left(until_us))
                    }
                    _ => "active".to_owned(),
                }
            }
            State::Cooling { until_us } => format!("resting for {}", left(until_us)),
        };
        let truth = |truth: Truth| match truth {
            Truth::True => json!(true),
            Truth::False => json!(false),
            Truth::Unknown(_) => json!("unknown"),
        };
        let missing = match when {
            Truth::Unknown(slot) => watched.facts.get(usize::from(slot)).map(|fact| {
                facts::words(&facts::resolved(fact, &self.subjects[watched.members[place]]))
            }),
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
        if let Some(since_us) = watched.state(place).active_since() {
            value["since"] = rfc3339(since_us).into();
        }
        value
    }

    fn explain_facts(&self, watched: &Watched, place: usize, now_us: i64, into: &mut Vec<Value>) {
        let stride = watched.facts.len();
        for (slot, fact) in watched.facts.iter().enumerate() {
            let subject = self.teller(watched, fact, watched.members[place]);
            // A name without its feature is shown with the one that has it.
            let fact = &facts::resolved(fact, subject);
            let mut one = json!({ "fact": facts::words(fact) });
            match &watched.values[place * stride + slot] {
                eval::Value::Unknown => {
                    one["value"] = "unknown".into();
                    one["why"] = facts::why_unknown(fact, subject).into();
                }
                eval::Value::Number(since_us) if eval::grows(fact) => {
                    let age_ms = ((now_us as f64 - since_us) / 1000.0).max(0.0);
                    let s = (age_ms / 1000.0).round() as u64;
                    one["value"] =
                        crate::base::units::Duration::from_ms(s * 1000).to_string().into();
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
                let twin = subject.twin.as_deref();
                if let Some(found) = twin.and_then(|twin| twin.features.get(feature.as_str())) {
                    one["revision"] = found.revision.into();
                }
                let changed = subject.changed.iter().find(|(id, _)| **id == *feature);
                if let Some((_, time_us)) = changed {
                    one["age"] = words::span(now_us - time_us).into();
                }
            }
            into.push(one);
        }
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
