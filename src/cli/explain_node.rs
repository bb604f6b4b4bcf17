//! `edgetwin explain node`: which rules hold for a node, who won each field, and how far it is.

use std::fmt::Write as _;

use serde_json::Value;

use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::objects::text;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::kinds::DEFAULT_NAMESPACE;

pub(super) fn run(name: &str, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let namespace = global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let (namespace, name) = name.split_once(['/', ':']).unwrap_or((namespace, name));
    if name.is_empty() || name.contains('/') {
        return Err(CliError::new(ErrorKind::Usage, "a node is NAMESPACE/NAME"));
    }
    let client = Client::new(&global.server)?;
    let explained = client.get(&format!("/explain/node/{namespace}/{name}"))?;
    match output.format() {
        Format::Json => output.json(&explained),
        Format::Yaml => output.yaml(&explained),
        Format::Name => output.line(&text(&explained, "/node")),
        Format::Table | Format::Wide => {
            output.text(&head(&explained));
            rules(&explained, output);
            facts(&explained, output);
            output.text(&tail(&explained));
        }
    }
    Ok(Outcome::Done)
}

/// The sentence, and desired against reported.
fn head(explained: &Value) -> String {
    let mut out = format!("{}\n\n", text(explained, "/sentence"));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _infallible = writeln!(out, "{:<12} {value}", format!("{name}:"));
        }
    };
    line("Node", text(explained, "/node"));
    let presence = text(explained, "/presence/state");
    let seen = match text(explained, "/presence/lastSeen") {
        seen if seen.is_empty() => presence,
        seen => format!("{presence}, last seen at {seen}"),
    };
    line("Presence", seen);
    line("Health", fields(&explained["health"]));
    line("Safety", text(explained, "/safety"));
    line("Desired", fields(&explained["desired"]));
    line("Reported", fields(&explained["reported"]));
    let (generation, changed) = (text(explained, "/generation"), text(explained, "/changed"));
    line(
        "Generation",
        format!("{generation}, since {changed}, cause {}", text(explained, "/cause")),
    );
    line("Share", fields(&explained["share"]));
    line("Trace", text(explained, "/trace"));
    if explained["waiting"].is_object() {
        let (wanted, until) =
            (fields(&explained["waiting"]["for"]), text(explained, "/waiting/until"));
        line("Waiting", format!("{wanted}, comes at {until}"));
    }
    out
}

/// `program interval, pmin 200, pmax 200`
fn fields(value: &Value) -> String {
    let map = value.as_object().into_iter().flatten();
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut all: Vec<String> = map.map(|(key, value)| format!("{key} {}", word(value))).collect();
    // The program first: the rest are its parameters.
    all.sort_by_key(|field| !field.starts_with("program "));
    all.join(", ")
}

fn rules(explained: &Value, output: &mut Output) {
    let rules: Vec<Vec<String>> = explained["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| {
            let when = match text(rule, "/missing") {
                missing if missing.is_empty() => text(rule, "/when"),
                missing => format!("unknown: {missing}"),
            };
            vec![
                text(rule, "/rule"),
                text(rule, "/priority"),
                text(rule, "/state"),
                when,
                fields(&rule["asks"]),
            ]
        })
        .collect();
    if !rules.is_empty() {
        output.text("\n");
        output.table(&["RULE", "PRIORITY", "STATE", "WHEN", "ASKS"], &rules);
    }
}

fn facts(explained: &Value, output: &mut Output) {
    let facts: Vec<Vec<String>> = explained["facts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fact| {
            let value = match text(fact, "/why") {
                why if why.is_empty() => text(fact, "/value"),
                why => format!("unknown: {why}"),
            };
            vec![text(fact, "/fact"), value, text(fact, "/age"), text(fact, "/revision")]
        })
        .collect();
    if !facts.is_empty() {
        output.text("\n");
        output.table(&["FACT", "VALUE", "AGE", "REVISION"], &facts);
    }
}

/// Who won each field, what is not as asked, and the command.
fn tail(explained: &Value) -> String {
    let mut out = String::new();
    let winners = explained["fields"].as_object().into_iter().flatten();
    let won: Vec<String> =
        winners.map(|(field, by)| format!("{field} by {}", by.as_str().unwrap_or("?"))).collect();
    // Writing to a string cannot fail.
    let _infallible = writeln!(out, "\nFields:      {}", won.join(", "));
    for refusal in explained["refusals"].as_array().into_iter().flatten() {
        let of = |key: &str| text(refusal, key);
        let (reason, by) = (of("/reason"), of("/by"));
        let _infallible = writeln!(out, "Refused:     {reason} ({by}): {}", of("/message"));
    }
    for actuator in explained["actuators"].as_array().into_iter().flatten() {
        let of = |key: &str| text(actuator, key);
        let (name, by) = (of("/actuator"), of("/by"));
        let (desired, reported) = (of("/desired"), of("/reported"));
        let _infallible =
            writeln!(out, "Actuator:    {name} is {reported}, desired {desired} by {by}");
    }
    if explained["command"].is_object() {
        let of = |key: &str| text(&explained["command"], key);
        let why = match of("/status/reason") {
            reason if reason.is_empty() => String::new(),
            reason => format!(": {reason}"),
        };
        let (id, set, state) = (of("/spec/id"), of("/spec/set"), of("/status/state"));
        let (tries, deadline) = (of("/status/tries"), of("/spec/deadline"));
        let _infallible = writeln!(
            out,
            "Command:     {id} `{set}` {state}{why} (tries {tries}, deadline {deadline})"
        );
    }
    out
}
