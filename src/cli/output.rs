//! The only place that prints: data to stdout, notes for people to stderr.
//!
//! A reader that goes away (`| head`) ends the output, not the program with an error; any other
//! failure, such as a full disk, is an error ([`Output::finish`]). Verbs that go on print through
//! `console`, so that a reader that does not read holds nothing up.
//!
//! Not here: what is printed.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::console::Lines;
use super::error::{CliError, ErrorKind};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal
    Auto,
    /// Also into files and pipes
    Always,
    /// Never
    Never,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// YAML, as in manifests
    Yaml,
    /// JSON, for programs
    Json,
    /// One name a line
    Name,
}

/// Where everything is printed.
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
    colour_stdout: bool,
    colour_stderr: bool,
    quiet: bool,
    console: Option<Lines>,
    /// Why stdout took no more; printing ends there.
    failed: Option<io::Error>,
}

impl Output {
    /// Decides once whether to colour.
    pub(super) fn new(format: Format, colour: Colour, quiet: bool) -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let decide = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !forbidden && !dumb,
        };
        Self {
            format,
            colour_stdout: decide(io::stdout().is_terminal()),
            colour_stderr: decide(io::stderr().is_terminal()),
            quiet,
            console: None,
            failed: None,
        }
    }

    /// Prints by way of a console from now on.
    pub(super) fn attach(&mut self, lines: Lines) {
        self.console = Some(lines);
    }

    /// Prints by itself again.
    pub(super) fn detach(&mut self) {
        self.console = None;
    }

    /// Whether only data and errors are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says whether stdout took all that was printed.
    ///
    /// # Errors
    /// It did not, and its reader did not just go away.
    pub(super) fn finish(&mut self) -> Result<(), CliError> {
        match self.failed.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::new(ErrorKind::Failed, "the output could not be written")
                    .because(&error))
            }
            _ => Ok(()),
        }
    }

    /// The format asked for.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether stdout is coloured.
    pub(super) fn colour_stdout(&self) -> bool {
        self.colour_stdout
    }

    /// Whether stderr is coloured.
    pub(super) fn colour_stderr(&self) -> bool {
        self.colour_stderr
    }

    /// Prints text as it is to stdout.
    pub(super) fn text(&mut self, text: &str) {
        match &self.console {
            Some(lines) => lines.out(text.as_bytes()),
            None if self.failed.is_none() => {
                self.failed = write(&mut io::stdout().lock(), text).err();
            }
            None => {}
        }
    }

    /// Prints what happens while a verb goes on to stdout, unless only errors are wanted.
    pub(super) fn progress(&mut self, text: &str) {
        if !self.quiet {
            self.text(text);
        }
    }

    /// Prints a line to stdout.
    pub(super) fn line(&mut self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// Prints JSON, indented, to stdout.
    pub(super) fn json(&mut self, value: &Value) {
        self.text(&format!("{value:#}\n"));
    }

    /// Prints YAML to stdout.
    pub(super) fn yaml(&mut self, value: &Value) {
        // A `Value` always has a YAML form.
        self.text(&serde_yaml::to_string(value).unwrap_or_default());
    }

    /// Prints a table to stdout: columns two spaces apart, as wide as they need to be.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = header
            .iter()
            .enumerate()
            .map(|(at, title)| {
                let cells =
                    rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
                cells.chain([title.chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let widths = match self.width() {
            // Who asks for all columns gets them whole.
            Some(room) if self.format != Format::Wide => fit(widths, header, room),
            _ => widths,
        };
        let mut text = String::new();
        let header = header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>();
        for row in std::iter::once(&header).chain(rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| padded(cell, *width)).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        self.text(&text);
    }

    /// Columns of the terminal that stdout is, if it is one.
    fn width(&self) -> Option<usize> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// Prints rows of a table that goes on: its head the first time, and columns that only grow.
    /// `widths` is what was printed so far; a table that begins with the widths of what is there
    /// stays aligned.
    pub(super) fn followed_table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        expected: &[Vec<String>],
        widths: &mut Vec<usize>,
    ) {
        let head: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
        let first = widths.len() < header.len();
        if first {
            widths.clear();
            let titles = header.iter().enumerate();
            widths.extend(titles.map(|(at, title)| {
                let cells = expected.iter().filter_map(|row| row.get(at));
                let cells = cells.map(|cell| cell.chars().count());
                cells.chain([title.chars().count().max(AGE_WIDTH)]).max().unwrap_or(0)
            }));
        }
        for row in std::iter::once(&head).take(usize::from(first)).chain(rows) {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(widths.iter_mut()) {
                *width = cell.chars().count().max(*width);
                text.push_str(&format!("{cell:<width$}  ", width = *width));
            }
            self.line(text.trim_end());
        }
    }

    /// Prints a line for people to stderr, unless only errors are wanted.
    pub(super) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.error_text(&format!("{text}\n"));
        }
    }

    /// Prints text as it is to stderr.
    pub(super) fn error_text(&mut self, text: &str) {
        match &self.console {
            Some(lines) => lines.err(text.as_bytes()),
            // Nobody is left to tell if it fails.
            None => drop(write(&mut io::stderr().lock(), text)),
        }
    }

    /// Prints JSON, indented, to stderr.
    pub(super) fn error_json(&mut self, value: &Value) {
        self.error_text(&format!("{value:#}\n"));
    }
}

/// Least width of a column of a table that goes on: that of an age, which changes all the time.
const AGE_WIDTH: usize = 6;
/// A column is not cut below this.
const CUT_MIN: usize = 8;

/// Makes the widest columns narrower until a row fits; a column is never narrower than its title.
fn fit(widths: Vec<usize>, header: &[&str], room: usize) -> Vec<usize> {
    let least = |at: usize| header.get(at).map_or(0, |title| title.len()).max(CUT_MIN);
    let mut widths: Vec<usize> = widths.into_iter().map(|width| width.min(room)).collect();
    let gaps = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > room {
        let wide = widths.iter_mut().enumerate().filter(|(at, width)| **width > least(*at));
        let Some((_, width)) = wide.max_by_key(|(_, width)| **width) else { break };
        *width -= 1;
    }
    widths
}

/// A cell as wide as its column; what does not fit ends in `…`.
fn padded(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return format!("{cell:<width$}");
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

fn write(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_give_way() {
        let header = ["NAME", "VERDICTS", "AGE"];
        assert_eq!(fit(vec![10, 20, 3], &header, 80), [10, 20, 3]);
        assert_eq!(fit(vec![10, 60, 3], &header, 50), [10, 33, 3]);
        assert_eq!(fit(vec![50, 60, 3], &header, 60), [27, 26, 3]);
        assert_eq!(fit(vec![50, 60, 3], &header, 10), [8, 8, 3], "nothing less is of use");
        assert_eq!((padded("abcdef", 4), padded("ab", 4)), ("abc…".into(), "ab  ".into()));
    }
}
