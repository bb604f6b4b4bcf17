//! `edgetwin plan`: what an apply would do, and a file that does just that.

use std::path::PathBuf;

use super::apply::{body, note_what_is_not_acted_on, plan_of, print_names, warn};
use super::client::Client;
use super::error::CliError;
use super::global::Global;
use super::manifests::{Manifests, Owner};
use super::outcome::Outcome;
use super::output::{Format, Output};
use super::saved_plan::{PinnedFile, SavedPlan};
use crate::reconcile::disk::NeededFile;

/// Show what an apply would change, field by field, and change nothing.
///
/// With `--detailed-exitcode` the exit code is 2 if there are changes and 0 if there are none.
/// With `--out FILE` the plan is saved; `edgetwin apply FILE` then does exactly that, or nothing if
/// the runtime's objects changed meanwhile.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin plan manifests/\n  edgetwin plan manifests/ --detailed-exitcode\n  \
                  edgetwin plan manifests/ --out farm.plan && edgetwin apply farm.plan"
)]
pub(super) struct Args {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    owner: Owner,
    /// Exit with 2 if there are changes
    #[arg(long)]
    detailed_exitcode: bool,
    /// Save the plan
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let outcome = "Nothing would be applied.";
    let loaded = args.manifests.load(global, &client, Some(&args.owner), outcome)?;
    warn(&loaded, output);
    let report = client.post("/plan", &body(&loaded, &args.owner))?;
    let plan = plan_of(&report)?;
    match output.format() {
        Format::Json => output.json(&report),
        Format::Yaml => output.yaml(&report),
        Format::Name => print_names(&plan, output),
        Format::Table | Format::Wide => output.text(&plan.render(false, output.colour_stdout())),
    }
    note_what_is_not_acted_on(&report, output);
    if let Some(path) = &args.out {
        let absolute = |file: &NeededFile| {
            let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
            PinnedFile { path, digest: file.digest.clone() }
        };
        let saved = SavedPlan {
            kind: "Plan".to_owned(),
            base: plan.base.clone(),
            set: args.owner.set.clone(),
            prune: args.owner.prune,
            documents: loaded.documents(),
            files: loaded.files.iter().map(absolute).collect(),
        };
        saved.write(path)?;
        output.note(&format!("\nNext: edgetwin apply {}", path.display()));
    }
    if args.detailed_exitcode && plan.has_changes() {
        return Ok(Outcome::ChangesPresent);
    }
    Ok(Outcome::Done)
}
