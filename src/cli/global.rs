//! Options of all verbs.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::output::{Colour, Format, Output};
use crate::base::telemetry::log::{self, LogFormat, LogOptions};

/// Options of all verbs. They are listed by `edgetwin options` and hidden in the help of each verb,
/// which they would double.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// How to print data; with json, errors are JSON too
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table, hide_short_help = true, hide_long_help = true)]
    pub(super) output: Format,
    /// The namespace to look in
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAMESPACE",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) namespace: Option<String>,
    /// Look in all namespaces
    #[arg(
        short = 'A',
        long,
        global = true,
        conflicts_with = "namespace",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) all_namespaces: bool,
    /// The address of the runtime
    #[arg(
        long,
        global = true,
        env = "EDGETWIN_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) server: String,
    /// The configuration file [default: edgetwin.toml, if it is here]
    #[arg(
        long,
        global = true,
        env = "EDGETWIN_CONFIG",
        value_name = "FILE",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) config: Option<PathBuf>,
    /// When to colour; `NO_COLOR` is obeyed
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Colour::Auto, hide_short_help = true, hide_long_help = true)]
    pub(super) color: Colour,
    /// Log more to stderr: -v what goes as intended, -vv every detail. `EDGETWIN_LOG` takes filters,
    /// such as `info,edgetwin::broker=debug`
    #[arg(short, long, global = true, action = ArgAction::Count, hide_short_help = true, hide_long_help = true)]
    pub(super) verbose: u8,
    /// Only errors: no warnings, no notes
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) quiet: bool,
    /// How to log to stderr [default: text; json with `--output json`]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_short_help = true,
        hide_long_help = true
    )]
    pub(super) log_format: Option<LogForm>,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogForm {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl Global {
    /// What to log, and how.
    pub(super) fn log_options(&self, output: &Output) -> LogOptions {
        let json = match self.log_format {
            Some(form) => form == LogForm::Json,
            None => self.output == Format::Json,
        };
        let more = i8::try_from(self.verbose).unwrap_or(i8::MAX);
        let filters = std::env::var(log::VARIABLE).ok().filter(|text| !text.trim().is_empty());
        LogOptions {
            verbosity: if self.quiet { -1 } else { more },
            filters,
            format: if json { LogFormat::Json } else { LogFormat::Text },
            colour: output.colour_stderr() && !json,
        }
    }
}

/// The global `--output` without its `-o`, for verbs where that is what is made, as with compilers.
/// Nobody reads it here: by its id it is the global one.
#[derive(Debug, Args)]
pub(super) struct LongOutput {
    /// How to print data; with json, errors are JSON too
    #[arg(id = "output", long = "output", value_enum, value_name = "FORMAT", default_value_t = Format::Table, hide_short_help = true, hide_long_help = true)]
    _output: Format,
}
