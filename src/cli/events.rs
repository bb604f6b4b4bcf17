//! `edgetwin events`: the latest events of a runtime.

use serde_json::{Value, json};

use super::client::Client;
use super::error::CliError;
use super::global::Global;
use super::objects::{age, text};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::clock::now_us;

/// Show events: refused readings, services without instances, models that were trained
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  edgetwin events\n  edgetwin events -w --warnings")]
pub(super) struct Args {
    /// Go on with new events until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Only warnings
    #[arg(long)]
    warnings: bool,
}

const HEAD: [&str; 6] = ["LAST", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"];

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let wanted = |event: &Value| {
        let namespace = event["object"].as_str().and_then(|object| object.split('/').nth(1));
        let here = global.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted));
        here && (!args.warnings || event["type"] == "Warning")
    };
    if args.watch {
        let mut widths = Vec::new();
        client.follow("/events?watch=true", |event| {
            if wanted(event) {
                match output.format() {
                    Format::Json => output.line(&event.to_string()),
                    Format::Yaml => output.text(&format!("---\n{}", yaml(event))),
                    Format::Name => output.line(&text(event, "/object")),
                    Format::Table | Format::Wide => {
                        output.followed_table(&HEAD, &[row(event, false)], &[], &mut widths);
                    }
                }
            }
        })?;
        return Ok(Outcome::Done);
    }
    let events = client.get("/events")?;
    let events: Vec<&Value> =
        events["items"].as_array().into_iter().flatten().filter(|event| wanted(event)).collect();
    match output.format() {
        Format::Json => output.json(&json!({ "kind": "List", "items": events })),
        Format::Yaml => output.yaml(&json!({ "kind": "List", "items": events })),
        Format::Name => events.iter().for_each(|event| output.line(&text(event, "/object"))),
        Format::Table | Format::Wide if events.is_empty() => output.note("No events."),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = events.iter().map(|event| row(event, true)).collect();
            output.table(&HEAD, &rows);
        }
    }
    Ok(Outcome::Done)
}

fn yaml(event: &Value) -> String {
    // A `Value` always has a YAML form.
    serde_yaml::to_string(event).unwrap_or_default()
}

/// One event; how long ago it was changes while one watches, so then it is the time.
fn row(event: &Value, ago: bool) -> Vec<String> {
    let last = text(event, "/last");
    vec![
        if ago { age(&last, now_us()) } else { last },
        text(event, "/type"),
        text(event, "/reason"),
        text(event, "/object"),
        text(event, "/count"),
        text(event, "/message"),
    ]
}
