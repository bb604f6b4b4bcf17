//! `edgetwin explain`: what a kind, a field, an error code or an expression means.

use serde_json::json;

use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::text::suggest;
use crate::cacc::expr::reference::{Entry, REFERENCE};
use crate::kinds::{Connection, Kind, Part, Quantity, Setting};
use crate::manifest::Code;
use crate::manifest::schema::{self, Explanation};

/// Explain a kind, a field, a code, an expression, or how a node transmits and why
///
/// Without an argument, lists the kinds; `edgetwin explain codes` lists the codes, and `edgetwin
/// explain expressions` what a rule's `when` can name and call,
/// `edgetwin explain parts` the sensors and actuators. `edgetwin explain node
/// NAMESPACE/NAME` asks the runtime which rules are active for a node and what each of them sets.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin explain ContextRule\n  edgetwin explain Service.balancing\n  \
                        edgetwin explain ET0203\n  edgetwin explain node lab/north-1"
)]
pub(super) struct Args {
    /// KIND, KIND.field.field, ETxxxx, codes, expressions, parts, a part or node
    #[arg(value_name = "WHAT")]
    what: Option<String>,
    /// The node: NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    match (args.what.as_deref(), &args.node) {
        (Some("node"), Some(name)) => return super::explain_node::run(name, global, output),
        (Some("node"), None) => {
            return Err(CliError::new(ErrorKind::Usage, "which node?")
                .hint("write `edgetwin explain node NAMESPACE/NAME`"));
        }
        (_, Some(name)) => {
            let message = format!("`{name}` is one word too many");
            return Err(CliError::new(ErrorKind::Usage, message)
                .hint("only `edgetwin explain node` takes a name"));
        }
        _ => {}
    }
    let Some(what) = &args.what else {
        kinds(output);
        return Ok(Outcome::Done);
    };
    if what == "codes" {
        codes(output);
        return Ok(Outcome::Done);
    }
    if matches!(what.as_str(), "expressions" | "expression" | "functions") {
        expressions(output);
        return Ok(Outcome::Done);
    }
    if what == "parts" {
        parts(output);
        return Ok(Outcome::Done);
    }
    if let Some(part) = Part::find(&what.to_lowercase()) {
        match output.format() {
            Format::Json => output.json(&json!(part)),
            Format::Yaml => output.yaml(&json!(part)),
            _ => output.text(&render_part(part, output.colour_stdout())),
        }
        return Ok(Outcome::Done);
    }
    let like_code = what.len() >= 3
        && what.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("ET"))
        && what[2..].bytes().all(|b| b.is_ascii_digit());
    if like_code {
        let Some(code) = Code::find(what) else {
            let upper = what.to_uppercase();
            let error = CliError::new(ErrorKind::Failed, format!("there is no code `{what}`"));
            return Err(match suggest(&upper, Code::ALL.iter().map(|code| code.id())) {
                Some(guess) => error.hint(format!("did you mean `{guess}`?")),
                None => error,
            });
        };
        let value =
            json!({ "code": code.id(), "title": code.title(), "explanation": code.explanation() });
        match output.format() {
            Format::Json => output.json(&value),
            Format::Yaml => output.yaml(&value),
            _ => output.text(&format!(
                "{}: {}\n\n{}\n",
                code.id(),
                code.title(),
                wrap(code.explanation(), 0)
            )),
        }
        return Ok(Outcome::Done);
    }
    let explanation = schema::explain(what).map_err(|message| {
        CliError::new(ErrorKind::Failed, message).hint("`edgetwin explain` lists the kinds")
    })?;
    let value = to_json(&explanation);
    match output.format() {
        Format::Json => output.json(&value),
        Format::Yaml => output.yaml(&value),
        _ => output.text(&render(&explanation, output.colour_stdout())),
    }
    Ok(Outcome::Done)
}

fn kinds(output: &mut Output) {
    let explained: Vec<(Kind, String)> = Kind::ALL
        .iter()
        .map(|kind| {
            let words = schema::explain(kind.name())
                .map(|explanation| explanation.description)
                .unwrap_or_default();
            let first = words.split_inclusive(". ").next().unwrap_or_default().trim().to_owned();
            (*kind, first)
        })
        .collect();
    match output.format() {
        Format::Name => explained.iter().for_each(|(kind, _)| output.line(kind.name())),
        Format::Json | Format::Yaml => {
            let items: Vec<_> = explained
                .iter()
                .map(|(kind, words)| {
                    json!({ "kind": kind, "plural": kind.plural(), "short": kind.short(), "description": words })
                })
                .collect();
            let value = json!({ "kind": "List", "items": items });
            if output.format() == Format::Json { output.json(&value) } else { output.yaml(&value) }
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = explained
                .iter()
                .map(|(kind, words)| {
                    vec![kind.name().to_owned(), kind.short().to_owned(), words.clone()]
                })
                .collect();
            output.table(&["KIND", "SHORT", "SAYS"], &rows);
        }
    }
}

fn expressions(output: &mut Output) {
    match output.format() {
        Format::Name => REFERENCE.iter().for_each(|entry| output.line(entry.form)),
        Format::Json | Format::Yaml => {
            let item = |entry: &Entry| json!({ "group": entry.group, "form": entry.form, "meaning": entry.meaning });
            let items: Vec<_> = REFERENCE.iter().map(item).collect();
            let value = json!({ "kind": "List", "items": items });
            if output.format() == Format::Json { output.json(&value) } else { output.yaml(&value) }
        }
        Format::Table | Format::Wide => {
            let mut text =
                "Conditions of rules are written in the Common Expression Language.\n".to_owned();
            for group in REFERENCE.chunk_by(|a, b| a.group == b.group) {
                text += &format!("\n{}\n", group[0].group);
                for entry in group {
                    text += &format!("  {}\n{}\n", entry.form, wrap(entry.meaning, 6));
                }
            }
            output.text(&text);
        }
    }
}

fn codes(output: &mut Output) {
    match output.format() {
        Format::Name => Code::ALL.iter().for_each(|code| output.line(code.id())),
        Format::Json | Format::Yaml => {
            let items: Vec<_> = Code::ALL
                .iter()
                .map(|code| {
                    json!({
                        "code": code.id(),
                        "title": code.title(),
                        "explanation": code.explanation(),
                    })
                })
                .collect();
            let value = json!({ "kind": "List", "items": items });
            if output.format() == Format::Json { output.json(&value) } else { output.yaml(&value) }
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = Code::ALL
                .iter()
                .map(|code| vec![code.id().to_owned(), code.title().to_owned()])
                .collect();
            output.table(&["CODE", "MISTAKE"], &rows);
        }
    }
}

fn parts(output: &mut Output) {
    match output.format() {
        Format::Name => Part::all().iter().for_each(|part| output.line(&part.name)),
        Format::Json => output.json(&json!({ "kind": "List", "items": Part::all() })),
        Format::Yaml => output.yaml(&json!({ "kind": "List", "items": Part::all() })),
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = Part::all()
                .iter()
                .map(|part| vec![part.name.clone(), connected(part), part.summary.clone()])
                .collect();
            output.table(&["PART", "CONNECTED TO", "WHAT IT IS"], &rows);
        }
    }
}

/// Where a part is connected.
fn connected(part: &Part) -> String {
    match part.connection {
        Connection::Analog => "analog pin".to_owned(),
        Connection::Digital => "digital pin".to_owned(),
        Connection::I2c => {
            let addresses = part.addresses.iter().map(|address| format!("{address:#04x}"));
            format!("I2C, {}", addresses.collect::<Vec<_>>().join(" or "))
        }
    }
}

fn render_part(part: &Part, colour: bool) -> String {
    let (bold, reset) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let kind = if part.is_sensor() { "sensor" } else { "actuator" };
    let mut text = format!(
        "{bold}{}{reset}  <{kind}, {}>\n\n{}\n\n",
        part.name,
        connected(part),
        wrap(&part.summary, 0)
    );
    if part.is_sensor() {
        text += "Measures:\n";
    }
    for Quantity { quantity, unit, minimum, maximum, .. } in &part.measures {
        let unit = unit.as_deref().map(|unit| format!("  <{unit}>")).unwrap_or_default();
        let range = match (minimum, maximum) {
            (Some(least), Some(most)) => format!("  from {least} to {most}"),
            _ => String::new(),
        };
        text += &format!("  {bold}{quantity}{reset}{unit}{range}\n");
    }
    for setting in &part.sets {
        text += match setting {
            Setting::Boolean => "Set by a property that is true or false.\n",
            Setting::Number => "Set by a number, from its minimum to its maximum.\n",
        };
    }
    if let Some(period) = part.period {
        text += &format!(
            "\nRead every {} ms; `period` can be {} ms or more.\n",
            period.default, period.least
        );
    }
    text + &format!(
        "\nTakes about {} bytes of flash and {} of RAM on an Uno.\n",
        part.cost.flash, part.cost.ram
    )
}

fn to_json(explanation: &Explanation) -> serde_json::Value {
    json!({
        "path": explanation.path,
        "type": explanation.type_words,
        "description": explanation.description,
        "default": explanation.default,
        "values": explanation.values.iter()
            .map(|(value, words)| json!({ "value": value, "description": words }))
            .collect::<Vec<_>>(),
        "fields": explanation.fields.iter()
            .map(|field| json!({
                "name": field.name,
                "type": field.type_words,
                "required": field.required,
                "description": field.description,
            }))
            .collect::<Vec<_>>(),
    })
}

fn render(explanation: &Explanation, colour: bool) -> String {
    let (bold, reset) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{bold}{}{reset}  <{}>\n\n", explanation.path, explanation.type_words);
    for paragraph in explanation.description.split("\n\n").filter(|paragraph| !paragraph.is_empty())
    {
        text += &format!("{}\n\n", wrap(paragraph, 0));
    }
    if let Some(default) = &explanation.default {
        text += &format!("Default: {default}\n\n");
    }
    if !explanation.values.is_empty() {
        text.push_str("Values:\n");
        for (value, words) in &explanation.values {
            text += &format!("  {bold}{value}{reset}\n{}\n", wrap(words, 6));
        }
    }
    if !explanation.fields.is_empty() {
        text.push_str("Fields:\n");
        for field in &explanation.fields {
            let required = if field.required { ", required" } else { "" };
            text += &format!(
                "  {bold}{}{reset}  <{}{required}>\n{}\n",
                field.name,
                field.type_words,
                wrap(&field.description, 6)
            );
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Widest line of explanations, in characters.
const WIDTH: usize = 88;

fn wrap(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{}{line}", " ".repeat(indent))).collect::<Vec<_>>().join("\n")
}
