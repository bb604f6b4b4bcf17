//! `edgetwin apply`: what the manifests say becomes so.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::manifests::{Loaded, Manifests, Owner};
use super::outcome::Outcome;
use super::output::{Format, Output};
use super::saved_plan::SavedPlan;
use crate::base::units;
use crate::manifest::diagnostic;
use crate::reconcile::ObjectKey;
use crate::reconcile::plan::{ApplyPlan, Operation};

/// Apply manifests to a runtime.
///
/// All files are checked together first; one mistake anywhere and nothing is changed. Applying the
/// same files again changes nothing. A plan that was saved with `edgetwin plan --out FILE` is
/// applied by naming FILE, and refused if the runtime's objects changed since.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin apply manifests/\n  edgetwin apply -f farm.yaml --wait\n  \
                  edgetwin apply manifests/ --prune --set farm\n  edgetwin get twins -o yaml | edgetwin apply -f -"
)]
pub(super) struct Args {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    owner: Owner,
    /// Show what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until everything is ready
    #[arg(long)]
    wait: bool,
    /// How long to wait; exit code 3 if it was not enough
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    timeout: units::Duration,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let body = match SavedPlan::find(&args.manifests.paths())? {
        Some(saved) => {
            if args.owner.set.is_some() {
                let message = "the plan says whose objects these are";
                return Err(CliError::new(ErrorKind::Usage, message).hint("leave out --set"));
            }
            for file in saved.files()? {
                client.bring(&file)?;
            }
            saved.body()
        }
        None => {
            let outcome = "Nothing was applied.";
            let loaded = args.manifests.load(global, &client, Some(&args.owner), outcome)?;
            warn(&loaded, output);
            if !args.dry_run {
                for file in &loaded.files {
                    client.bring(file)?;
                }
            }
            body(&loaded, &args.owner)
        }
    };
    let path = if args.dry_run { "/plan" } else { "/apply" };
    let report = client.post(path, &body)?;
    let plan = plan_of(&report)?;
    match output.format() {
        Format::Json => output.json(&report),
        Format::Yaml => output.yaml(&report),
        Format::Name => print_names(&plan, output),
        Format::Table | Format::Wide => {
            output.text(&plan.render(!args.dry_run, output.colour_stdout()));
        }
    }
    note_what_is_not_acted_on(&report, output);
    if args.wait && !args.dry_run {
        let keys: Vec<ObjectKey> = plan
            .actions
            .iter()
            .filter(|action| action.action != Operation::Delete)
            .map(|action| action.key.clone())
            .collect();
        wait_until_ready(&client, &keys, args.timeout.as_std())?;
    }
    Ok(Outcome::Done)
}

/// What is sent to plan or apply.
pub(super) fn body(loaded: &Loaded, owner: &Owner) -> Value {
    json!({ "documents": loaded.documents(), "set": owner.set, "prune": owner.prune })
}

/// The plan in a runtime's report.
pub(super) fn plan_of(report: &Value) -> Result<ApplyPlan, CliError> {
    serde_json::from_value(json!({ "base": report["base"], "actions": report["actions"] })).map_err(
        |error| {
            CliError::new(ErrorKind::Failed, "the runtime is of another version").because(&error)
        },
    )
}

/// Prints warnings about manifests.
pub(super) fn warn(loaded: &Loaded, output: &mut Output) {
    if !loaded.warnings.is_empty() && output.format() != Format::Json {
        let colour = output.colour_stderr();
        output.error_text(&diagnostic::render(&loaded.warnings, loaded.read, "", colour));
    }
}

/// Prints the objects that change, one a line.
pub(super) fn print_names(plan: &ApplyPlan, output: &mut Output) {
    for action in plan.actions.iter().filter(|action| action.action != Operation::Unchanged) {
        output.line(&action.key.to_string());
    }
}

/// Says plainly what is stored and does nothing yet.
pub(super) fn note_what_is_not_acted_on(report: &Value, output: &mut Output) {
    if matches!(output.format(), Format::Json | Format::Yaml) {
        return;
    }
    for note in report["notActedOn"].as_array().into_iter().flatten() {
        output.note(&format!("note: {}", note.as_str().unwrap_or_default()));
    }
}

/// Waits; what is not ready in time is exit code 3.
pub(super) fn wait_until_ready(
    client: &Client,
    keys: &[ObjectKey],
    timeout: Duration,
) -> Result<(), CliError> {
    not_in_time(client.wait(keys, "Ready", timeout)?, "ready")
}

/// The error about objects that are not there yet.
pub(super) fn not_in_time(waiting: Vec<Value>, what: &str) -> Result<(), CliError> {
    if waiting.is_empty() {
        return Ok(());
    }
    let count = diagnostic::plural(waiting.len(), "object");
    let are = if waiting.len() == 1 { "is" } else { "are" };
    let error = CliError::new(ErrorKind::NotReady, format!("{count} {are} not {what} in time"));
    Err(waiting.iter().take(10).fold(error, |error, one| {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        error.hint(format!("{}: {}", text("object"), text("why")))
    }))
}
