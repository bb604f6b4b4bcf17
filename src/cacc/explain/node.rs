//! Why a node transmits as it does: everything that the decision looked at, as data, and one
//! sentence. The same state at the same time gives the same bytes.

use serde_json::{Map, Value, json};

use super::rule::{explain_facts, explain_rule};
use super::sentence::{self, Because, Progress, Situation};
use crate::base::time::rfc3339;
use crate::cacc::command::{Command, Purpose};
use crate::cacc::decide::safety::Safety;
use crate::cacc::decide::{self, Reasons};
use crate::cacc::facts::{Facts, Slot};
use crate::cacc::rules::Rules;
use crate::cacc::session::Session;
use crate::cacc::session::actuators::{ActuatorControl, ActuatorKey};
use crate::cacc::session::presence::Presence;
use crate::cacc::session::transmission::tx_json;

/// What an explanation is about.
#[derive(Debug, Clone, Copy)]
pub struct Explained<'a> {
    /// What is known.
    pub facts: &'a Facts,
    /// The rules.
    pub rules: &'a Rules,
    /// The node.
    pub session: &'a Session,
    /// Its place.
    pub slot: Slot,
    /// Now, microseconds since 1970.
    pub now_us: i64,
}

/// Why a node transmits as it does; `None` if nothing was decided yet.
pub fn explain(of: Explained<'_>) -> Option<Value> {
    let Explained { facts, rules, session, slot, now_us } = of;
    let transmission = &session.transmission;
    let decision = transmission.decision.as_ref()?;
    let mut reasons = Reasons::default();
    let input = session.input(rules.layers(slot));
    let again = decide::decide_node(&input, now_us, Some(&mut reasons));
    let mut places = rules.memberships(slot).to_vec();
    places.sort_by(|a, b| {
        let of = |(rule, _): &(usize, usize)| &rules.entry(*rule).rule;
        of(b).priority.cmp(&of(a).priority).then_with(|| of(a).name.cmp(&of(b).name))
    });
    let rule = |(rule, place): &(usize, usize)| {
        explain_rule(rules.entry(*rule), *place, &reasons, facts, now_us)
    };
    let mut known = Vec::new();
    for place in &places {
        explain_facts(rules, *place, facts, now_us, &mut known);
    }
    known.sort_by(|a, b| a["fact"].as_str().cmp(&b["fact"].as_str()));
    known.dedup();
    let refusals: Vec<Value> = (reasons.refusals.iter())
        .map(
            |one| json!({ "reason": one.reason, "by": one.by.to_string(), "message": one.message }),
        )
        .collect();
    let winners: Map<String, Value> = (reasons.winners.iter())
        .map(|(field, winner)| (field.clone(), winner.to_string().into()))
        .collect();
    let mut value = json!({
        "node": session.id.as_str(),
        "time": rfc3339(now_us),
        "sentence": of.sentence()?,
        "generation": decision.generation,
        "changed": rfc3339(decision.changed_us),
        "cause": transmission.cause.by,
        "trace": transmission.cause.trace,
        "presence": presence(session.presence),
        "desired": tx_json(&decision.tx, decision.schedule),
        "reported": transmission.reported.as_ref().map(|tx| tx_json(tx, None)),
        "satisfied": transmission.is_satisfied(),
        "takesCommands": session.takes_commands(),
        "share": json!(decision.share),
        "fields": winners,
        "rules": places.iter().map(rule).collect::<Vec<_>>(),
        "facts": known,
        "refusals": refusals,
        "command": command(session).map(|command| command.to_json(&session.id)),
    });
    let link = &facts.of(slot).link;
    if let Some(seen_us) = link.last_seen_us {
        value["presence"]["lastSeen"] = rfc3339(seen_us).into();
    }
    let health = [
        ("battery", session.health.battery.map(Value::from)),
        ("rssi", session.health.rssi.map(Value::from)),
        ("lost", Some(link.gaps.into())),
    ];
    let health = health.into_iter().filter_map(|(name, is)| Some((name.to_owned(), is?)));
    value["health"] = health.collect::<Map<String, Value>>().into();
    if let Some(safety) = decision.safety {
        value["safety"] = json!(safety);
    }
    if let Some((target, due_us)) = &again.target {
        value["waiting"] =
            json!({ "for": tx_json(target, again.schedule), "until": rfc3339(*due_us) });
    }
    if !session.actuators.is_empty() {
        let twin = facts.of(slot).twin.as_deref();
        let actuator = |((feature, name), control): (&ActuatorKey, &ActuatorControl)| {
            json!({
                "actuator": format!("{feature}/{name}"),
                "desired": control.wanted,
                "reported": Session::shown(twin, feature, name),
                "by": control.by,
            })
        };
        value["actuators"] = session.actuators.iter().map(actuator).collect();
    }
    Some(value)
}

fn presence(presence: Presence) -> Value {
    match presence {
        Presence::NeverSeen => json!({ "state": "never seen" }),
        Presence::Online => json!({ "state": "online" }),
        Presence::Offline { since_us } => {
            json!({ "state": "offline", "since": rfc3339(since_us) })
        }
    }
}

/// The command that is most telling about the transmission: the one under way, or else the last.
fn command(session: &Session) -> Option<&Command> {
    let all = session.commands.all();
    let last = || all.iter().rev().find(|one| one.purpose == Purpose::Transmission);
    session.commands.open_transmission().or_else(last).or_else(|| all.back())
}

impl Explained<'_> {
    /// How the node transmits and why; `None` if nothing was decided yet.
    pub fn sentence(&self) -> Option<String> {
        let transmission = &self.session.transmission;
        let decision = transmission.decision.as_ref()?;
        Some(sentence::sentence(&Situation {
            node: self.session.id.name(),
            desired: &decision.tx,
            schedule: decision.schedule,
            reported: transmission.reported.as_ref(),
            since_us: decision.changed_us,
            now_us: self.now_us,
            because: self.because()?,
            progress: self.progress(),
        }))
    }

    fn because(&self) -> Option<Because<'_>> {
        let Self { rules, session, slot, now_us, .. } = *self;
        let transmission = &session.transmission;
        let decision = transmission.decision.as_ref()?;
        let by = transmission.cause.by.as_str();
        let active_until_us = || {
            let (entry, place) = rules.find(slot, by)?;
            let since_us = entry.state(place).active_since()?;
            Some(since_us.saturating_add(entry.rule.times.hold_us))
        };
        let isolating = || {
            let mut layers = rules.layers(slot).into_iter();
            let layer = layers.find(|layer| layer.effect.quarantine == Some(true));
            layer.map_or("", |layer| &**layer.name)
        };
        let overridden = !session.overrides.asked.is_empty();
        Some(match (&decision.target, by, active_until_us()) {
            (Some((_, due_us)), ..) => Because::Waiting(*due_us),
            (None, "user", _) if overridden => Because::User,
            _ if decision.safety == Some(Safety::Quarantined) => Because::Quarantined(isolating()),
            _ if decision.safety == Some(Safety::Held) && !overridden => Because::Held,
            (None, "default", _) if decision.safety.is_some() => Because::LowBattery,
            (None, "user", _) => Because::User,
            (None, rule, Some(until_us)) => {
                Because::Rule(rule, Some(until_us).filter(|until_us| *until_us > now_us))
            }
            _ => Because::Default,
        })
    }

    fn progress(&self) -> Progress<'_> {
        let session = self.session;
        let transmission = &session.transmission;
        match (session.presence, transmission.given_up()) {
            _ if !session.takes_commands() => Progress::NoCommands,
            (Presence::NeverSeen, _) => Progress::NeverSeen,
            (Presence::Offline { since_us }, _) => Progress::Offline(since_us),
            (Presence::Online, _) if transmission.is_satisfied() => Progress::Done,
            (Presence::Online, Some(reason)) => Progress::Refused(reason),
            (Presence::Online, None)
                if session.is_mute() && session.commands.open_transmission().is_none() =>
            {
                Progress::Unreported
            }
            (Presence::Online, None) => Progress::Commanded,
        }
    }
}
