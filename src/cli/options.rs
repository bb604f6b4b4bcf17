//! `edgetwin options`: the options of all commands, once.

use clap::{Args as _, Command};

use super::error::CliError;
use super::global::Global;
use super::outcome::Outcome;
use super::output::Output;

/// List the options of all commands
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let command = Command::new("edgetwin")
        .disable_help_flag(true)
        .max_term_width(100)
        .help_template("Options of all commands:\n{options}");
    let command = Global::augment_args(command)
        .mut_args(|argument| argument.hide_short_help(false).hide_long_help(false));
    let text = command.clone().render_help();
    if output.colour_stdout() {
        output.text(&text.ansi().to_string());
    } else {
        output.text(&text.to_string());
    }
    Ok(Outcome::Done)
}
