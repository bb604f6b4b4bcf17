//! The only place that prints: data to stdout, words for people to stderr.
//!
//! A reader that goes away (`| head`) ends the output, not the program with an error.
//!
//! Not here: what is printed.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::Colour;

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
}

impl Output {
    /// Decides once whether to colour.
    pub(super) fn new(format: Format, colour: Colour) -> Self {
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
        write(&mut io::stdout().lock(), text);
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
        let mut text = String::new();
        let header = header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>();
        for row in std::iter::once(&header).chain(rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        self.text(&text);
    }

    /// Prints rows of a table that goes on: its head the first time, and columns that only grow.
    /// `widths` is what was printed so far.
    pub(super) fn followed_table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        widths: &mut Vec<usize>,
    ) {
        let head: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
        let first = widths.is_empty();
        widths.resize(header.len(), 0);
        for row in std::iter::once(&head).take(usize::from(first)).chain(rows) {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(widths.iter_mut()) {
                *width = cell.chars().count().max(*width);
                text.push_str(&format!("{cell:<width$}  ", width = *width));
            }
            self.line(text.trim_end());
        }
    }

    /// Prints a line for people to stderr.
    pub(super) fn note(&mut self, text: &str) {
        self.error_text(&format!("{text}\n"));
    }

    /// Prints text as it is to stderr.
    pub(super) fn error_text(&mut self, text: &str) {
        write(&mut io::stderr().lock(), text);
    }

    /// Prints JSON, indented, to stderr.
    pub(super) fn error_json(&mut self, value: &Value) {
        self.error_text(&format!("{value:#}\n"));
    }
}

/// Writes and flushes. Nobody is left to tell if it fails.
fn write(to: &mut dyn Write, text: &str) {
    drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}
