//! The command line: arguments, dispatch, exit code.
//!
//! One file a verb, with its `Args` (whose doc comments are the help) and its `run`; one arm in
//! `Verb::run`. A verb returns data or a `CliError`; only `output` prints, and only `error`
//! makes text and exit codes of errors. A verb that is not in `Verb` does not exist yet.
//!
//! stdout is data, stderr is for people. Exit codes are listed at `error::ErrorKind`.
//!
//! Not here: what verbs do beyond showing it.

mod apply;
mod bench;
mod client;
mod completion;
mod config;
mod console;
mod delete;
mod describe;
mod diff;
mod doctor;
mod error;
mod events;
mod explain;
mod explain_node;
mod gen_firmware;
mod get;
mod global;
mod init;
mod manifests;
mod objects;
mod options;
mod outcome;
mod output;
mod plan;
pub mod reference;
mod report;
mod run;
mod saved_plan;
mod schema;
mod serve;
mod signals;
mod simulate;
mod train;
mod validate;
mod version;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use config::Config;
use error::{CliError, ErrorKind};
use global::Global;
use outcome::Outcome;
use output::Output;

use crate::base::telemetry::log::{self, Log};

/// Digital twins on one edge server: nodes, twins, EdgeAI services and context-aware control.
///
/// Manifests say what there is: `edgetwin init` writes some to start with, `edgetwin validate` checks
/// them without a runtime, `edgetwin explain` says what can stand in them.
#[derive(Debug, Parser)]
#[command(
    name = "edgetwin",
    version,
    max_term_width = 100,
    after_help = "`edgetwin options` lists the options of all commands.\n\n\
                  Exit codes: 0 ok, 1 failed, 2 changes present, 3 not ready in time, 5 conflict,\n\
                  6 unauthorised, 64 usage, 69 runtime unreachable, 78 manifest invalid, 130 interrupted."
)]
struct Cli {
    /// Options of all verbs.
    #[command(flatten)]
    global: Global,
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

/// What to do. The help of each verb is the doc comment of its `Args`.
#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Run(run::Args),
    Simulate(simulate::Args),
    Validate(validate::Args),
    Plan(plan::Args),
    Diff(diff::Args),
    Apply(apply::Args),
    Get(get::Args),
    Describe(describe::Args),
    Delete(delete::Args),
    Wait(wait::Args),
    Events(events::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    GenFirmware(gen_firmware::Args),
    Train(train::Args),
    Serve(serve::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Options(options::Args),
    Completion(completion::Args),
    Version(version::Args),
}

/// Where settings come from, for the verbs to which that matters.
struct Settings<'a> {
    config: &'a Config,
    found: &'a ArgMatches,
    arguments: &'a [OsString],
    log: &'a Log,
}

impl Verb {
    fn run(
        &self,
        global: &Global,
        settings: &Settings<'_>,
        output: &mut Output,
    ) -> Result<Outcome, CliError> {
        match self {
            Self::Init(args) => init::run(args, output),
            Self::Run(args) => {
                run::run(args, settings.found.subcommand_matches("run"), settings.log, output)
            }
            Self::Simulate(args) => simulate::run(args, global, settings.log, output),
            Self::Validate(args) => validate::run(args, output),
            Self::Plan(args) => plan::run(args, global, output),
            Self::Diff(args) => diff::run(args, global, output),
            Self::Apply(args) => apply::run(args, global, output),
            Self::Get(args) => get::run(args, global, output),
            Self::Describe(args) => describe::run(args, global, output),
            Self::Delete(args) => delete::run(args, global, output),
            Self::Wait(args) => wait::run(args, global, output),
            Self::Events(args) => events::run(args, global, output),
            Self::Explain(args) => explain::run(args, global, output),
            Self::Schema(args) => schema::run(args, output),
            Self::GenFirmware(args) => gen_firmware::run(args, output),
            Self::Train(args) => train::run(args, output),
            Self::Serve(args) => serve::run(args, settings.log, output),
            Self::Config(args) => {
                let command = settings.config.defaults_in(command());
                config::run(args, settings.config, command, settings.arguments, output)
            }
            Self::Doctor(args) => doctor::run(args, output),
            Self::Bench(args) => bench::run(args, output),
            Self::Options(args) => options::run(args, output),
            Self::Completion(args) => completion::run(args, command(), output),
            Self::Version(args) => version::run(args, output),
        }
    }
}

/// The command with all verbs, for completion and generated references.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, reports, and says how the process ends.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let config = match Config::load(command(), &arguments) {
        Ok(config) => config,
        Err(error) => return error.report(&mut report::output(&arguments)),
    };
    let found = config.defaults_in(command()).try_get_matches_from(&arguments);
    let found = found.and_then(|found| Ok((Cli::from_arg_matches(&found)?, found)));
    let (cli, found) = match found {
        Ok(both) => both,
        Err(error) => return report::usage(&error, &arguments),
    };
    let mut output = Output::new(cli.global.output, cli.global.color, cli.global.quiet);
    let log = match Log::install(&cli.global.log_options(&output)) {
        Ok(log) => log,
        Err(error) => {
            let message = format!("{} cannot be read", log::VARIABLE);
            return CliError::new(ErrorKind::Usage, message)
                .because(&error)
                .hint("write filters such as `info` or `warn,edgetwin::broker=debug`")
                .report(&mut output);
        }
    };
    let settings = Settings { config: &config, found: &found, arguments: &arguments, log: &log };
    let ended = cli.verb.run(&cli.global, &settings, &mut output);
    let ended = ended.and_then(|outcome| output.finish().map(|()| outcome));
    log.finish();
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::ChangesPresent) => ExitCode::from(2),
        Err(error) => error.report(&mut output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_and_option_has_help() {
        let mut command = command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }
}
