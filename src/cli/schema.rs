//! `edgetwin schema`: the JSON Schema of manifests.

use super::error::CliError;
use super::outcome::Outcome;
use super::output::Output;
use crate::manifest::schema::json_schema;

/// Print the JSON Schema of manifests, for editors.
///
/// The schema is draft-07 and made from the same types that read manifests.
///
/// Editors with yaml-language-server complete and check a manifest that starts with
/// `# yaml-language-server: $schema=PATH-OR-URL`; `edgetwin init` writes such a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  edgetwin schema > .edgetwin/schema.json")]
pub(super) struct Args {}

pub(super) fn run(_: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    output.json(json_schema());
    Ok(Outcome::Done)
}
