//! The reference in `docs/reference`, made from what the program itself is made of: flags, kinds,
//! codes and metrics.
//!
//! `tests/docs.rs` compares the pages with the files, and rewrites them with `EDGETWIN_BLESS=1`.
//!
//! Not here: guides, which people write.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Arg, Command};

use super::error::ErrorKind;
use crate::base::telemetry::Telemetry;
use crate::base::telemetry::events::REMEDIES;
use crate::kinds::Kind;
use crate::manifest::Code;
use crate::manifest::schema::{self, ExplainedField, Explanation};

/// The first line of each page.
const GENERATED: &str =
    "<!-- Generated: `EDGETWIN_BLESS=1 cargo test --test docs` rewrites this file. -->\n\n";

/// All pages: the name of the file and its text.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("cli.md", commands()),
        ("errors.md", errors()),
        ("events.md", events()),
        ("kinds.md", kinds()),
        ("metrics.md", metrics()),
    ]
}

// ---------------------------------------------------------------------------------------------
// Commands

fn commands() -> String {
    let mut root = super::command();
    root.build();
    let mut page = format!(
        "{GENERATED}# Commands\n\n{}\n\n| Command | Purpose |\n|---|---|\n",
        paragraphs(&about(&root))
    );
    let shown = |command: &Command| !command.is_hide_set() && command.get_name() != "help";
    for command in root.get_subcommands().filter(|command| shown(command)) {
        let short = command.get_about().map(ToString::to_string).unwrap_or_default();
        row(&mut page, &[&format!("[`{0}`](#edgetwin-{0})", command.get_name()), &short]);
    }
    for command in root.get_subcommands().filter(|command| shown(command)) {
        describe(&mut page, command, &format!("edgetwin {}", command.get_name()), 2);
    }
    page.push_str("\n## Options of all commands\n\n");
    arguments(&mut page, &root, |argument| argument.is_global_set());
    page.push_str("\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n");
    row(&mut page, &["0", "The command succeeded."]);
    row(&mut page, &["2", "`--detailed-exitcode` was given and there are changes."]);
    for kind in ErrorKind::ALL {
        row(&mut page, &[&kind.exit_code().to_string(), kind.meaning()]);
    }
    page
}

fn describe(page: &mut String, command: &Command, name: &str, level: usize) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    push(page, format!("\n{} {name}\n\n{}\n", "#".repeat(level), paragraphs(&about(command))));
    push(page, format!("\n```text\n{usage}\n```\n"));
    let own = |argument: &Arg| {
        !argument.is_global_set()
            && !argument.is_hide_set()
            && !matches!(argument.get_id().as_str(), "help" | "version")
    };
    if command.get_arguments().any(own) {
        page.push('\n');
        arguments(page, command, own);
    }
    if let Some(after) = command.get_after_help() {
        let after = after.to_string();
        let (_, examples) = after.split_once(":\n").unwrap_or(("", &after));
        let lines: Vec<&str> = examples.lines().map(str::trim).collect();
        push(page, format!("\n```text\n{}\n```\n", lines.join("\n")));
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        describe(page, below, &format!("{name} {}", below.get_name()), level + 1);
    }
}

fn arguments(page: &mut String, command: &Command, chosen: impl Fn(&Arg) -> bool) {
    page.push_str("| Argument | Meaning |\n|---|---|\n");
    for argument in command.get_arguments().filter(|argument| chosen(argument)) {
        let value =
            argument.get_value_names().filter(|_| argument.get_action().takes_values()).map(
                |names| names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" "),
            );
        let mut names: Vec<String> =
            argument.get_short().map(|short| format!("-{short}")).into_iter().collect();
        names.extend(argument.get_long().map(|long| format!("--{long}")));
        names.extend(names.is_empty().then(String::new));
        let name = match value {
            Some(value) => format!("{} {value}", names.join(", ")),
            None => names.join(", "),
        };
        let help = argument.get_long_help().or(argument.get_help());
        let mut words = help.map(|help| sentence(&help.to_string())).unwrap_or_default();
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|_| argument.get_action().takes_values())
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() {
            push(&mut words, format!(" One of {}.", values.join(", ")));
        }
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            push(&mut words, format!(" Default: `{}`.", defaults.join(" ")));
        }
        if let Some(variable) = argument.get_env() {
            push(&mut words, format!(" Variable: `{}`.", variable.to_string_lossy()));
        }
        row(page, &[&format!("`{}`", name.trim()), &words]);
    }
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(ToString::to_string).unwrap_or_default()
}

// ---------------------------------------------------------------------------------------------
// Kinds

fn kinds() -> String {
    let mut page = format!(
        "{GENERATED}# Kinds\n\nA manifest is a list of objects. Each has `apiVersion`, `kind`, \
         `metadata` and `spec`; the tables list the fields of `spec`. `[]` stands for the items of a \
         list, `NAME` for the keys of a map. `edgetwin explain KIND.FIELD` prints the same text.\n\n\
         | Kind | Short name | Purpose |\n|---|---|---|\n"
    );
    let explained: Vec<(Kind, Explanation)> = Kind::ALL
        .iter()
        .filter_map(|kind| Some((*kind, schema::explain(kind.name()).ok()?)))
        .collect();
    for (kind, explanation) in &explained {
        let link = format!("[{0}](#{1})", kind.name(), kind.name().to_lowercase());
        let first = explanation.description.split_inclusive(". ").next().unwrap_or_default();
        row(&mut page, &[&link, &format!("`{}`", kind.short()), first.trim()]);
    }
    page.push_str("\n## Metadata\n\n| Field | Type | Meaning |\n|---|---|---|\n");
    let mut listed = BTreeMap::new();
    if let Ok(metadata) = schema::explain("Twin.metadata") {
        fields(&mut page, "Twin.metadata", "", &metadata.fields, &mut listed);
    }
    for (kind, explanation) in &explained {
        push(&mut page, format!("\n## {}\n\n{}\n\n", kind.name(), explanation.description));
        page.push_str("| Field | Type | Meaning |\n|---|---|---|\n");
        fields(&mut page, kind.name(), "", &explanation.fields, &mut listed);
    }
    page
}

/// As many fields are listed once; where they come again, there is a reference to the first place.
const LISTED_AGAIN_MAX: usize = 4;

/// Lists fields and what is below them. `listed` is where each set of fields was listed first.
fn fields(
    page: &mut String,
    parent: &str,
    prefix: &str,
    of: &[ExplainedField],
    listed: &mut BTreeMap<Vec<String>, String>,
) {
    for field in of {
        let path = format!("{parent}.{}", field.name);
        let name = format!("{prefix}{}", field.name);
        let kind = match field.required {
            true => format!("{}, required", field.type_words),
            false => field.type_words.clone(),
        };
        let explanation = schema::explain(&path).ok();
        let mut words = field.description.replace("\n\n", " ");
        let mut below = "";
        if let Some(found) = &explanation {
            let values: Vec<String> = found
                .values
                .iter()
                .map(|(value, meaning)| match meaning.trim_end_matches('.') {
                    "" => format!("`{value}`"),
                    meaning => format!("`{value}` ({meaning})"),
                })
                .collect();
            if !values.is_empty() {
                push(&mut words, format!(" One of: {}.", values.join("; ")));
            }
            if let Some(default) = &found.default {
                push(&mut words, format!(" Default: `{default}`."));
            }
            below = match field.type_words.split(' ').next() {
                Some("list") => "[]",
                Some("map") if found.type_words.starts_with("map of") => ".NAME",
                _ => "",
            };
        }
        let fields_below = explanation.map(|found| found.fields).unwrap_or_default();
        let names: Vec<String> = fields_below.iter().map(|field| field.name.clone()).collect();
        let first = (names.len() > LISTED_AGAIN_MAX).then(|| listed.get(&names).cloned()).flatten();
        match &first {
            Some(first) => push(&mut words, format!(" The fields are those of `{first}`.")),
            None => drop(listed.insert(names, path.clone())),
        }
        row(page, &[&format!("`{name}`"), &kind, &words]);
        if first.is_none() {
            fields(page, &path, &format!("{name}{below}."), &fields_below, listed);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Codes, metrics

fn errors() -> String {
    let mut page = format!(
        "{GENERATED}# Error codes\n\n`edgetwin validate`, `plan` and `apply` report mistakes in manifests with \
         a code. The codes are stable: scripts may rely on them. `edgetwin explain CODE` prints the \
         same text.\n"
    );
    for code in Code::ALL {
        push(&mut page, format!("\n## {}: {}\n\n", code.id(), code.title()));
        push(&mut page, format!("{}\n", code.explanation()));
    }
    page
}

fn metrics() -> String {
    let mut page = format!(
        "{GENERATED}# Metrics\n\n`GET /metrics` on the HTTP address answers in the text format of \
         Prometheus 0.0.4. A summary has the quantiles 0.5, 0.9, 0.99 and 0.999, in seconds.\n\n\
         | Metric | Type | Meaning |\n|---|---|---|\n"
    );
    let text = Telemetry::default().prometheus();
    let mut help = "";
    for line in text.lines() {
        if let Some((_, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            help = words;
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            row(&mut page, &[&format!("`{name}`"), kind, help]);
        }
    }
    page
}

fn events() -> String {
    let mut page = format!(
        "{GENERATED}# Events\n\n`edgetwin events` lists what happened, newest last; one event with the same \
         reason and object is counted, not repeated. These are the warnings, and what to do about them. \
         Warnings are also lines of the log.\n\n| Reason | Remedy |\n|---|---|\n"
    );
    for (reason, remedy) in REMEDIES {
        row(&mut page, &[&format!("`{reason}`"), remedy]);
    }
    page.push_str(
        "\nAll other reasons are those of an object's conditions; `edgetwin describe KIND NAME` shows them with \
         their message.\n",
    );
    page
}

// ---------------------------------------------------------------------------------------------
// Markdown

fn push(page: &mut String, text: impl AsRef<str>) {
    page.push_str(text.as_ref());
}

/// One row of a table. A `|` would end the cell, and so would the end of a line.
fn row(page: &mut String, cells: &[&str]) {
    for cell in cells {
        let cell = cell.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        // Writing to a string cannot fail.
        let _infallible = write!(page, "| {} ", escape(&cell));
    }
    page.push_str("|\n");
}

/// `<NAME>` outside of code would be taken for HTML.
fn escape(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(at, part)| match at % 2 {
        0 => part.replace('<', "&lt;"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Help texts end without a full stop; what follows them here needs one.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '?', ']']) { text.to_owned() } else { format!("{text}.") }
}

fn paragraphs(text: &str) -> String {
    text.trim().to_owned()
}
