//! `edgetwin validate`: every mistake of a run, without a runtime.

use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::manifest::{self, diagnostic};

/// Check manifests and report every mistake at once.
///
/// Syntax, misspelt fields, wrong units, unknown references, faulty expressions: each with its file,
/// line and column, and what to do. Nothing is changed, and no runtime is needed.
///
/// With `--output json` the result is `{"diagnostics": [{"code", "severity", "file", "line",
/// "column", "message", "help"}]}` on stdout. Exit code 78 means that there are errors.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edgetwin validate manifests/\n  edgetwin validate -f farm.yaml -f city.yaml\n  \
                        helm template site | edgetwin validate -"
)]
pub(super) struct Args {
    /// Files, directories (searched through for *.yaml and *.yml), or - for standard input
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// The same, as an option
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let paths: Vec<String> = args.paths.iter().chain(&args.files).cloned().collect();
    if paths.is_empty() {
        return Err(CliError::new(ErrorKind::Usage, "nothing to validate")
            .hint("name files or directories: `edgetwin validate manifests/`"));
    }
    let parsed = manifest::load(&paths, &[]);
    let failed = parsed.has_errors() || args.strict && !parsed.diagnostics.is_empty();
    if output.format() == Format::Json {
        output.json(&diagnostic::to_json(&parsed.diagnostics));
        // The diagnostics are the data; there is nothing to add on stderr.
        return if failed {
            Err(CliError::silent(ErrorKind::InvalidManifest))
        } else {
            Ok(Outcome::Done)
        };
    }
    if failed {
        return Err(CliError::invalid(
            parsed.diagnostics,
            parsed.files,
            "Nothing would be applied.",
        ));
    }
    if !parsed.diagnostics.is_empty() {
        output.error_text(&diagnostic::render(
            &parsed.diagnostics,
            parsed.files,
            "",
            output.colour_stderr(),
        ));
    }
    match output.format() {
        Format::Name => {
            for object in &parsed.objects {
                output.line(&object.key());
            }
        }
        Format::Yaml => {
            let items: Vec<_> = parsed.objects.iter().map(|object| object.json.clone()).collect();
            output.yaml(&serde_json::json!({ "kind": "List", "items": items }));
        }
        _ => {
            let objects = diagnostic::plural(parsed.objects.len(), "object");
            let files = diagnostic::plural(parsed.files, "file");
            let verb = if parsed.objects.len() == 1 { "is" } else { "are" };
            output.line(&format!("{objects} in {files} {verb} valid."));
        }
    }
    Ok(Outcome::Done)
}
