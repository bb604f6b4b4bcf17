//! `edgetwin delete`: objects and what they made.

use serde_json::{Value, json};

use super::apply::not_in_time;
use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::objects::{self, Target};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::units;
use crate::manifest::{self, diagnostic};
use crate::reconcile::ObjectKey;

/// Delete objects and what they created: twins with their history, running services.
///
/// By kind and name, by label, or all that files declare. Waits until they are gone.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin delete twin node-1 -n lab\n  edgetwin delete Twin/lab/node-1\n  \
                  edgetwin delete -f farm.yaml\n  edgetwin delete twins -l room=north -n lab"
)]
pub(super) struct Args {
    /// KIND NAME…, KIND/NAME… or KIND/NAMESPACE/NAME…
    #[arg(value_name = "OBJECT", required_unless_present = "files", conflicts_with = "files")]
    what: Vec<String>,
    /// Delete what these files declare
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Delete the objects of the kind that have these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// It is fine if there is no such object
    #[arg(long)]
    ignore_not_found: bool,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// How long to wait; exit code 3 if it was not enough
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    timeout: units::Duration,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let keys = if args.files.is_empty() {
        named(args, global, &client)?
    } else {
        declared(args, &client)?
    };
    let answer = client.post("/delete", &json!({ "objects": keys }))?;
    let read =
        |list: &Value| serde_json::from_value::<Vec<ObjectKey>>(list.clone()).unwrap_or_default();
    let (deleted, missing) = (read(&answer["deleted"]), read(&answer["missing"]));
    if !args.no_wait {
        not_in_time(client.wait(&deleted, "Deleted", args.timeout.as_std())?, "gone")?;
    }
    match output.format() {
        Format::Json => output.json(&answer),
        Format::Yaml => output.yaml(&answer),
        Format::Name => deleted.iter().for_each(|key| output.line(&key.to_string())),
        Format::Table | Format::Wide => {
            let word = if args.no_wait { "is being deleted" } else { "deleted" };
            deleted.iter().for_each(|key| output.line(&format!("{key} {word}")));
        }
    }
    if missing.is_empty() || args.ignore_not_found {
        return Ok(Outcome::Done);
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Err(CliError::new(ErrorKind::Failed, format!("there is no {}", names.join(", "))))
}

fn named(args: &Args, global: &Global, client: &Client) -> Result<Vec<ObjectKey>, CliError> {
    let mut keys = Vec::new();
    for target in objects::targets(&args.what, global)? {
        match (target, &args.selector) {
            (Target::One(key), None) => keys.push(key),
            (Target::Kind(kind), Some(selector)) => {
                let query = super::get::query(kind, Some(selector), false, global);
                for item in client.list(&query)? {
                    keys.extend(objects::key_of(&item).parse::<ObjectKey>());
                }
            }
            (Target::One(_), Some(_)) => {
                return Err(CliError::new(ErrorKind::Usage, "names or labels, not both"));
            }
            (Target::Kind(_), None) => {
                return Err(CliError::new(ErrorKind::Usage, "which objects?")
                    .hint("name them, or choose by label with -l"));
            }
        }
    }
    Ok(keys)
}

/// What files declare. Only their names matter, so other mistakes do not.
fn declared(args: &Args, client: &Client) -> Result<Vec<ObjectKey>, CliError> {
    let parsed = manifest::load(&args.files, &client.known()?);
    if parsed.objects.is_empty() && parsed.has_errors() {
        return Err(CliError::invalid(parsed.diagnostics, parsed.files, "Nothing was deleted."));
    }
    if parsed.diagnostics.iter().any(|d| d.code.id() < "ET0100") {
        return Err(CliError::invalid(
            parsed.diagnostics.into_iter().filter(diagnostic::Diagnostic::is_error).collect(),
            parsed.files,
            "Nothing was deleted.",
        ));
    }
    Ok(parsed.objects.iter().map(ObjectKey::of).collect())
}
