//! `edgetwin completion`: scripts for shells.

use clap_complete::{Shell, generate};

use super::error::CliError;
use super::outcome::Outcome;
use super::output::Output;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  edgetwin completion bash > ~/.local/share/bash-completion/completions/edgetwin"
)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(
    args: &Args,
    mut command: clap::Command,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "edgetwin", &mut script);
    output.text(&String::from_utf8_lossy(&script));
    Ok(Outcome::Done)
}
