//! `edgetwin describe`: one object, its conditions and its events, for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::objects::{self, Target, age, text};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::clock::now_us;

/// Show all about an object: what it asks for, its status and its events.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin describe svc data-anomaly\n  edgetwin describe twin node-1 -n lab"
)]
pub(super) struct Args {
    /// KIND NAME…, KIND/NAME… or KIND/NAMESPACE/NAME…
    #[arg(value_name = "OBJECT", required = true)]
    what: Vec<String>,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let mut items = Vec::new();
    for target in objects::targets(&args.what, global)? {
        match target {
            Target::One(key) => match client.object(&key)? {
                Some(item) => items.push(item),
                None => {
                    let message = format!("there is no {key}");
                    return Err(CliError::new(ErrorKind::Failed, message));
                }
            },
            Target::Kind(kind) => {
                items.extend(client.list(&super::get::query(kind, None, true, global))?);
            }
        }
    }
    let events = client.get("/events")?;
    let events: Vec<&Value> = events["items"].as_array().into_iter().flatten().collect();
    for (at, item) in items.iter().enumerate() {
        match output.format() {
            Format::Json => output.json(item),
            Format::Yaml => output.yaml(item),
            Format::Name => output.line(&objects::key_of(item)),
            Format::Table | Format::Wide => {
                let gap = if at > 0 { "\n" } else { "" };
                output.text(&format!("{gap}{}", describe(item, &events, now_us())));
                if let Some(sentence) = sentence(item, &client) {
                    output.text(&format!("Node:        {sentence}\n"));
                }
            }
        }
    }
    Ok(Outcome::Done)
}

/// How the node of a twin transmits, and why; none if it has none.
fn sentence(item: &Value, client: &Client) -> Option<String> {
    if item["kind"] != "Twin" {
        return None;
    }
    let (namespace, name) = (text(item, "/metadata/namespace"), text(item, "/metadata/name"));
    // A twin without a node is no mistake.
    let explained = client.get(&format!("/explain/node/{namespace}/{name}")).ok()?;
    Some(text(&explained, "/sentence"))
}

fn describe(item: &Value, events: &[&Value], now_us: i64) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _infallible = writeln!(out, "{:<12} {value}", format!("{name}:"));
        }
    };
    let field = |pointer: &str| text(item, pointer);
    line("Kind", field("/kind"));
    line("Name", field("/metadata/name"));
    line("Namespace", field("/metadata/namespace"));
    let pairs = |pointer: &str| {
        let map = item.pointer(pointer).and_then(Value::as_object);
        let each = map
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        each.collect::<Vec<_>>().join(", ")
    };
    line("Labels", pairs("/metadata/labels"));
    line("Annotations", pairs("/metadata/annotations"));
    line("Made by", field("/status/madeBy"));
    line("Set", field("/status/set"));
    let (generation, observed) = (field("/status/generation"), field("/status/observedGeneration"));
    line("Generation", format!("{generation} (observed: {observed})"));
    let created = field("/status/created");
    line("Created", format!("{created} ({} ago)", age(&created, now_us)));
    for (name, pointer) in [
        ("Version", "/status/version"),
        ("Instances", "/status/instances"),
        ("Healthy", "/status/healthy"),
        ("Twins", "/status/twins"),
        ("Members", "/status/members"),
    ] {
        line(name, field(pointer));
    }
    if item["status"]["thing"].is_object() {
        line("Thing", field("/status/thing/thingId"));
        line("Revision", field("/status/thing/revision"));
        let modified = field("/status/thing/modified");
        line("Updated", format!("{modified} ({} ago)", age(&modified, now_us)));
        let verdicts = item["status"]["thing"]["verdicts"].as_object();
        for (service, verdict) in verdicts.into_iter().flatten() {
            let (label, score) = (text(verdict, "/label"), text(verdict, "/score"));
            line("Verdict", format!("{service}: {label} {score}").trim_end().to_owned());
        }
    }
    if let Some(spec) =
        item.get("spec").filter(|spec| spec.as_object().is_some_and(|m| !m.is_empty()))
    {
        out.push_str("Spec:\n");
        // A `Value` always has a YAML form.
        for row in serde_yaml::to_string(spec).unwrap_or_default().lines() {
            let _infallible = writeln!(out, "  {row}");
        }
    }
    out.push_str("Conditions:\n");
    for one in item["status"]["conditions"].as_array().into_iter().flatten() {
        let of = |key: &str| text(one, key);
        let since = age(&of("/lastTransitionTime"), now_us);
        let _infallible = writeln!(
            out,
            "  {} {} for {since}: {}: {}",
            of("/type"),
            of("/status"),
            of("/reason"),
            of("/message")
        );
    }
    let key = objects::key_of(item);
    // What happens to the thing of an aggregate is noted as that of a twin.
    let thing = key.replacen("TwinAggregate/", "Twin/", 1);
    let mine: Vec<&&Value> = events
        .iter()
        .filter(|event| event["object"] == key.as_str() || event["object"] == thing.as_str())
        .collect();
    if mine.is_empty() {
        out.push_str("Events:      none\n");
    } else {
        out.push_str("Events:\n");
        for event in mine {
            let of = |key: &str| text(event, key);
            let _infallible = writeln!(
                out,
                "  {} ago, {} times: {} {}: {}",
                age(&of("/last"), now_us),
                of("/count"),
                of("/type"),
                of("/reason"),
                of("/message")
            );
        }
    }
    out
}
