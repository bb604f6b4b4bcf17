//! `edgetwin plan`: what an apply would do, and a file that does just that.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::apply::{body, note_what_is_not_acted_on, plan_of, print_names, warn};
use super::client::Client;
use super::manifests::{Manifests, Owner};
use super::output::{Format, Output};
use super::{CliError, ErrorKind, Global, Outcome};
use crate::reconcile::disk::{NeededFile, digest_of};

/// Largest saved plan, bytes: what a runtime takes.
const SAVED_BYTES_MAX: u64 = 32 << 20;

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

/// A plan in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedPlan {
    kind: String,
    base: String,
    set: Option<String>,
    prune: bool,
    documents: Vec<Value>,
    files: Vec<PinnedFile>,
}

/// A file that an object needs, as it was when the plan was made.
#[derive(Debug, Serialize, Deserialize)]
struct PinnedFile {
    path: PathBuf,
    digest: String,
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

impl SavedPlan {
    fn write(&self, path: &Path) -> Result<(), CliError> {
        let cannot = |error: &dyn std::error::Error| {
            let message = format!("the plan cannot be written to `{}`", path.display());
            CliError::new(ErrorKind::Failed, message).because(error)
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| cannot(&error))?;
        fs::write(path, text + "\n").map_err(|error| cannot(&error))
    }

    /// The saved plan that the paths name, if it is one.
    pub(super) fn find(paths: &[String]) -> Result<Option<Self>, CliError> {
        let [path] = paths else { return Ok(None) };
        // Whatever else it is is reported where manifests are read.
        let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SAVED_BYTES_MAX);
        let Some(text) = small.then(|| fs::read_to_string(path).ok()).flatten() else {
            return Ok(None);
        };
        if !text.trim_start().starts_with('{') {
            return Ok(None);
        }
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        if value["kind"] != "Plan" {
            return Ok(None);
        }
        serde_json::from_value(value).map(Some).map_err(|error| {
            let message = format!("the plan in `{path}` cannot be read");
            CliError::new(ErrorKind::Failed, message).because(&error)
        })
    }

    /// The files that the plan needs, if they are what they were.
    pub(super) fn files(&self) -> Result<Vec<NeededFile>, CliError> {
        let read = |pinned: &PinnedFile| {
            let path = &pinned.path;
            let bytes = fs::read(path).map_err(|error| {
                let message = format!("`{}` cannot be read", path.display());
                CliError::new(ErrorKind::Failed, message).because(&error)
            })?;
            if digest_of(&bytes) != pinned.digest {
                let message = format!("`{}` changed since the plan was made", path.display());
                return Err(CliError::new(ErrorKind::Conflict, message).hint("make the plan again"));
            }
            Ok(NeededFile { path: path.clone(), digest: pinned.digest.clone(), bytes })
        };
        self.files.iter().map(read).collect()
    }

    /// What is sent to apply it.
    pub(super) fn body(&self) -> Value {
        json!({
            "documents": self.documents,
            "set": self.set,
            "prune": self.prune,
            "base": self.base,
        })
    }
}
