//! `edgetwin version`.

use serde_json::json;

use super::error::CliError;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::kinds::API_VERSION;

/// Print the version of this program, and of the manifests that it reads.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({ "version": version, "apiVersion": API_VERSION });
    match output.format() {
        Format::Json => output.json(&value),
        Format::Yaml => output.yaml(&value),
        Format::Table | Format::Wide | Format::Name => output.line(&format!("edgetwin {version}")),
    }
    Ok(Outcome::Done)
}
