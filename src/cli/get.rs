//! `edgetwin get`: objects as tables, YAML, JSON or names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::objects::{self, Target};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::clock::now_us;
use crate::kinds::{DEFAULT_NAMESPACE, Kind};
use crate::twin::selector::Selector;

/// Show objects and their status.
///
/// A kind by name, plural or short name (`edgetwin explain` lists them), or `all`. `get twins` lists
/// the twins that TwinSets make, too. What `-o yaml` prints can be applied again. `get commands` shows
/// the commands of nodes and their state.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin get twins -A\n  edgetwin get svc data-anomaly -o yaml\n  \
                  edgetwin get twins -n lab -l room=north -o wide\n  edgetwin get twins -A -w\n  edgetwin get all -A -o yaml > backup.yaml"
)]
pub(super) struct Args {
    /// KIND, KIND NAME…, KIND/NAME… or KIND/NAMESPACE/NAME…
    #[arg(value_name = "OBJECT", required = true)]
    what: Vec<String>,
    /// Only objects with these labels: `room=north,floor!=2,zone in (a, b)`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Go on with changes until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    if let Some(selector) = &args.selector {
        selector
            .parse::<Selector>()
            .map_err(|error| CliError::new(ErrorKind::Usage, error.message).hint(error.help))?;
    }
    if let [word] = args.what.as_slice()
        && matches!(word.to_lowercase().as_str(), "commands" | "command" | "cmd")
    {
        return commands(global, output);
    }
    let targets = objects::targets(&args.what, global)?;
    let client = Client::new(&global.server)?;
    if args.watch {
        return watch(args, &targets, global, &client, output);
    }
    let (mut items, mut missing) = (Vec::new(), Vec::new());
    let single = matches!(targets[..], [Target::One(_)]);
    for target in &targets {
        match target {
            Target::One(key) => match client.object(key)? {
                Some(item) => items.push(item),
                None => missing.push(key.to_string()),
            },
            Target::Kind(kind) => {
                // What `all` prints can be applied again; a TwinSet says what its twins are.
                let made = *kind == Some(Kind::Twin);
                items.extend(client.list(&query(*kind, args.selector.as_deref(), made, global))?);
            }
        }
    }
    let list = |items: Vec<Value>| match <[Value; 1]>::try_from(items) {
        Ok([item]) if single => item,
        Ok([item]) => json!({ "kind": "List", "items": [item] }),
        Err(items) => json!({ "kind": "List", "items": items }),
    };
    match output.format() {
        Format::Json => output.json(&list(items)),
        Format::Yaml => output.yaml(&list(items)),
        Format::Name => items.iter().for_each(|item| output.line(&objects::key_of(item))),
        Format::Table | Format::Wide => {
            if items.is_empty() && missing.is_empty() {
                output.note(&nothing(args, &targets, global, &client)?);
            }
            tables(&items, global, output);
        }
    }
    if missing.is_empty() {
        return Ok(Outcome::Done);
    }
    let error = CliError::new(ErrorKind::Failed, format!("there is no {}", missing.join(", ")));
    Err(match (&global.namespace, args.what.iter().any(|word| word.matches('/').count() == 2)) {
        (None, false) => error.hint("-n NAMESPACE looks in another namespace than `default`"),
        _ => error,
    })
}

/// A row for each object as it is, then one for each change.
fn watch(
    args: &Args,
    targets: &[Target],
    global: &Global,
    client: &Client,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let (kind, only) = match targets {
        [Target::Kind(kind)] => (*kind, None),
        [Target::One(key)] => (Some(key.kind), Some(key)),
        _ => return Err(CliError::new(ErrorKind::Usage, "--watch follows one kind or one object")),
    };
    let in_reach = match only {
        Some(key) => Global { namespace: Some(key.namespace.clone()), ..global.clone() },
        None => global.clone(),
    };
    let listed = query(kind, args.selector.as_deref(), kind == Some(Kind::Twin), &in_reach);
    let mark = if listed.contains('?') { '&' } else { '?' };
    let slash = if listed.is_empty() || listed.starts_with('?') { "" } else { "/" };
    let path = format!("/objects{slash}{listed}");
    // The rows that are there first say how wide columns are, so that they stay aligned.
    let mut first: Vec<Vec<String>> = Vec::new();
    if matches!(output.format(), Format::Table | Format::Wide) {
        for item in client.list(&listed)? {
            let Some(kind) = item["kind"].as_str().and_then(Kind::find) else { continue };
            let wide = output.format() == Format::Wide;
            first.extend(
                objects::table(kind, &[&item], in_reach.all_namespaces, wide, now_us()).rows,
            );
        }
    }
    let mut widths = Vec::new();
    client.follow(&format!("{path}{mark}watch=true"), |change| {
        let object = &change["object"];
        if only.is_some_and(|key| objects::key_of(object) != key.to_string()) {
            return;
        }
        let gone = change["type"] == "DELETED";
        match output.format() {
            Format::Json => output.line(&change.to_string()),
            Format::Yaml => {
                // A `Value` always has a YAML form.
                let text = serde_yaml::to_string(object).unwrap_or_default();
                output.text(&format!("---\n{text}"));
            }
            Format::Name => output.line(&objects::key_of(object)),
            Format::Table | Format::Wide if gone => {
                output.line(&format!("{} is gone", objects::key_of(object)));
            }
            Format::Table | Format::Wide => {
                let found = object["kind"].as_str().and_then(Kind::find);
                let Some(kind) = found else { return };
                let wide = output.format() == Format::Wide;
                let table =
                    objects::table(kind, &[object], in_reach.all_namespaces, wide, now_us());
                output.followed_table(&table.head, &table.rows, &first, &mut widths);
            }
        }
    })?;
    Ok(Outcome::Done)
}

/// The commands of nodes.
fn commands(global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let namespace = global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let query = match global.all_namespaces {
        true => String::new(),
        false => format!("?namespace={}", escape(namespace)),
    };
    let list = client.get(&format!("/commands{query}"))?;
    let items: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    match output.format() {
        Format::Json => output.json(&list),
        Format::Yaml => output.yaml(&list),
        Format::Name => items.iter().for_each(|item| output.line(&objects::key_of(item))),
        Format::Table | Format::Wide if items.is_empty() => {
            output.note("No commands. -n NAMESPACE looks in another namespace, -A in all.");
        }
        Format::Table | Format::Wide => {
            let wide = output.format() == Format::Wide;
            let now_us = now_us();
            let rows: Vec<Vec<String>> = items
                .iter()
                .map(|item| {
                    let of = |pointer: &str| objects::text(item, pointer);
                    let mut row = vec![
                        of("/spec/node"),
                        of("/spec/id"),
                        of("/spec/set"),
                        of("/status/state"),
                        of("/status/tries"),
                        of("/spec/cause"),
                        objects::age(&of("/spec/issuedAt"), now_us),
                    ];
                    if wide {
                        row.extend([of("/spec/trace"), of("/status/reason")]);
                    }
                    row
                })
                .collect();
            let mut head = vec!["NODE", "ID", "SET", "STATE", "TRIES", "CAUSE", "AGE"];
            if wide {
                head.extend(["TRACE", "REASON"]);
            }
            output.table(&head, &rows);
        }
    }
    Ok(Outcome::Done)
}

/// The path and query of a list.
pub(super) fn query(
    kind: Option<Kind>,
    selector: Option<&str>,
    made: bool,
    global: &Global,
) -> String {
    let mut text = kind.map_or_else(String::new, |kind| kind.name().to_owned());
    let mut mark = '?';
    let mut add = |key: &str, value: &str| {
        let _infallible = write!(text, "{mark}{key}={}", escape(value));
        mark = '&';
    };
    if !global.all_namespaces {
        add("namespace", global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE));
    }
    if let Some(selector) = selector {
        add("labelSelector", selector);
    }
    if made {
        add("made", "true");
    }
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// One table a kind; a title in front where there are several.
fn tables(items: &[Value], global: &Global, output: &mut Output) {
    let mut by_kind: BTreeMap<Kind, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Some(kind) = item["kind"].as_str().and_then(Kind::find) {
            by_kind.entry(kind).or_default().push(item);
        }
    }
    let several = by_kind.len() > 1;
    let wide = output.format() == Format::Wide;
    for (at, (kind, items)) in by_kind.into_iter().enumerate() {
        if several {
            output.line(&format!("{}{}", if at > 0 { "\n" } else { "" }, kind.plural()));
        }
        let table = objects::table(kind, &items, global.all_namespaces, wide, now_us());
        output.table(&table.head, &table.rows);
    }
}

/// What to say where there is nothing, and where there is something.
fn nothing(
    args: &Args,
    targets: &[Target],
    global: &Global,
    client: &Client,
) -> Result<String, CliError> {
    let kind = match targets {
        [Target::Kind(kind)] => *kind,
        _ => None,
    };
    let what = kind.map_or("objects", Kind::plural);
    let matching = if args.selector.is_some() { " with such labels" } else { "" };
    if global.all_namespaces {
        return Ok(format!("There are no {what}{matching}."));
    }
    let namespace = global.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let everywhere = Global { all_namespaces: true, ..global.clone() };
    let query = query(kind, args.selector.as_deref(), kind == Some(Kind::Twin), &everywhere);
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for item in client.list(&query)? {
        *others.entry(objects::text(&item, "/metadata/namespace")).or_default() += 1;
    }
    let elsewhere: Vec<String> =
        others.iter().map(|(place, count)| format!("{count} in `{place}`")).collect();
    Ok(match elsewhere.is_empty() {
        true => format!("There are no {what}{matching} in namespace `{namespace}`."),
        false => format!(
            "There are no {what}{matching} in namespace `{namespace}`, but {}: use -n or -A.",
            elsewhere.join(", ")
        ),
    })
}
