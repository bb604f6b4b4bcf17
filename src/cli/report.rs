//! How errors are printed, and which exit code they give.

use std::ffi::OsString;
use std::process::ExitCode;

use super::error::{CliError, ErrorKind, TEXT_MAX};
use super::output::{Colour, Format, Output};
use crate::base::text::cut;

impl CliError {
    /// Prints the error as the output format asks and returns the exit code.
    pub(super) fn report(&self, output: &mut Output) -> ExitCode {
        if self.is_silent() {
            return ExitCode::from(self.exit_code());
        }
        if output.format() == Format::Json {
            output.error_json(&self.to_json());
        } else {
            output.error_text(&self.render(output.colour_stderr()));
        }
        ExitCode::from(self.exit_code())
    }
}

/// Where to print before the arguments are known to be right: as far as they can be read.
pub(super) fn output(arguments: &[OsString]) -> Output {
    let arguments: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let after = |flag: &str| {
        arguments.iter().position(|word| word == flag).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let json = ["-o", "--output"].iter().any(|flag| after(flag).as_deref() == Some("json"))
        || arguments
            .iter()
            .any(|word| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json"));
    let colour = match (
        after("--color").as_deref(),
        arguments.iter().find_map(|word| word.strip_prefix("--color=")),
    ) {
        (Some("never"), _) | (_, Some("never")) => Colour::Never,
        (Some("always"), _) | (_, Some("always")) => Colour::Always,
        _ => Colour::Auto,
    };
    Output::new(if json { Format::Json } else { Format::Table }, colour, false)
}

/// What clap says: help and version are data, all else is a usage error (64, not clap's 2).
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let mut output = output(arguments);
    let text = error.render();
    if !error.use_stderr() {
        let text = if output.colour_stdout() { text.ansi().to_string() } else { text.to_string() };
        output.text(&text);
        return match output.finish() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => error.report(&mut output),
        };
    }
    if output.format() == Format::Json {
        let plain = text.to_string();
        let message =
            plain.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return CliError::new(ErrorKind::Usage, message).hint("try `--help`").report(&mut output);
    }
    let text = if output.colour_stderr() { text.ansi().to_string() } else { text.to_string() };
    let lines: Vec<_> = text.lines().map(|line| cut(line, TEXT_MAX)).collect();
    output.error_text(&format!("{}\n", lines.join("\n")));
    ExitCode::from(ErrorKind::Usage.exit_code())
}
