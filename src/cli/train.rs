//! `edgetwin train`: CSV in, a model file and a report out.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum as _;
use serde_json::json;

use super::error::{CliError, ErrorKind};
use super::global::LongOutput;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::text::suggest;
use crate::base::units::Percent;
use crate::edgeai::Classifier;
use crate::edgeai::train::{
    self, DataError, Recipe, RecipeError, TrainError, TrainingOptions, TrainingReport,
};

/// Train a classifier from CSV
///
/// Fits a random forest, a support vector machine or a perceptron to labelled rows, keeps some of
/// them aside, and reports how well it does on those: confusion matrix, precision, recall and F1 of
/// each label, calibration. The same rows, recipe and seed give the same model, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin train readings.csv --target label --inputs temperature,humidity -o anomaly.etm\n  \
    edgetwin train readings.csv --target label --classifier mlp -p hidden=64-32 --test 20%\n\n\
    Parameters (-p NAME=VALUE), with their defaults:\n  \
    forest  trees=60 depth=12 min-leaf=8 features=sqrt\n  \
    svm     c=10 gamma=scale rows=16000 tolerance=0.001\n  \
    mlp     hidden=32-16 rate=0.001 l2=0.001 batch=200 epochs=200 patience=15 tolerance=0.0001")]
pub(super) struct Args {
    /// CSV file with a header line, or - for standard input
    #[arg(value_name = "DATA")]
    data: String,
    /// Column that holds the label
    #[arg(long, value_name = "COLUMN")]
    target: String,
    /// Columns to learn from, in the order in which the model will take them [default: all others]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    inputs: Vec<String>,
    /// Kind of model: forest, svm or mlp
    #[arg(long, value_name = "KIND", default_value = "forest")]
    classifier: Classifier,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Share of the rows to keep aside for the report; 0% for none
    #[arg(long, value_name = "SHARE", default_value = "25%")]
    test: Percent,
    /// A parameter of the classifier, as trees=60; may be repeated
    #[arg(short, long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// File to write the model to; without it there is only the report
    #[arg(short = 'o', long = "model", value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    _output: LongOutput,
}

/// Trains, writes the model, prints the report.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    if let Some(word) = args.model.as_ref().and_then(|path| path.to_str())
        && Format::from_str(word, true).is_ok()
    {
        let message =
            format!("-o names the file of the model here, and `{word}` is an output format");
        return Err(CliError::new(ErrorKind::Usage, message)
            .hint(format!("write --output {word}, or -o ./{word} for a file of that name")));
    }
    let options = TrainingOptions {
        target: args.target.clone(),
        inputs: args.inputs.clone(),
        recipe: recipe(args)?,
    };
    let reader: Box<dyn Read> = if args.data == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.data).map_err(|error| {
            CliError::new(ErrorKind::Failed, format!("{} cannot be read", args.data))
                .because(&error)
        })?)
    };
    let source = if args.data == "-" { "standard input" } else { &args.data };
    let start = Instant::now();
    let (model, mut report) =
        train::run(reader, &options).map_err(|error| explain(source, &error))?;
    report.seconds = start.elapsed().as_secs_f64();
    if let Some(path) = &args.model {
        write(path, &model.to_bytes()).map_err(|error| {
            CliError::new(ErrorKind::Failed, format!("{} cannot be written", path.display()))
                .because(&error)
        })?;
    }
    show(args, &report, output);
    Ok(Outcome::Done)
}

fn recipe(args: &Args) -> Result<Recipe, CliError> {
    let usage = |message: String| CliError::new(ErrorKind::Usage, message);
    let mut recipe = Recipe::new(args.classifier);
    recipe.seed = args.seed;
    recipe.threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    recipe.set_test(args.test.as_fraction()).map_err(|error| usage(error.to_string()))?;
    for parameter in &args.parameters {
        let (name, value) = parameter.split_once('=').ok_or_else(|| {
            usage(format!("-p {parameter} sets nothing")).hint("write -p NAME=VALUE")
        })?;
        recipe.set(name.trim(), value.trim()).map_err(|error| {
            let failure = usage(error.to_string());
            match &error {
                RecipeError::Unknown { name, known } => {
                    did_you_mean(failure, name, known.iter().copied())
                }
                RecipeError::Value { .. } => failure,
            }
        })?;
    }
    Ok(recipe)
}

fn explain(data: &str, error: &TrainError) -> CliError {
    let kind = match error {
        TrainError::Data(DataError::NoColumn { .. }) | TrainError::Recipe(_) => ErrorKind::Usage,
        TrainError::Data(_) | TrainError::Solver(_) => ErrorKind::Failed,
    };
    let failure = CliError::new(kind, format!("{data}: {error}"));
    match error {
        TrainError::Data(DataError::NoColumn { name, columns }) => {
            did_you_mean(failure, name, columns.iter().map(String::as_str))
        }
        TrainError::Data(DataError::NotANumber { .. }) => {
            failure.hint("name the columns to learn from with --inputs")
        }
        _ => failure,
    }
}

fn did_you_mean<'a>(
    failure: CliError,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> CliError {
    match suggest(word, known) {
        Some(guess) => failure.hint(format!("did you mean `{guess}`?")),
        None => failure,
    }
}

/// Writes a whole file or none: under another name first, then renamed.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

fn show(args: &Args, report: &TrainingReport, output: &mut Output) {
    let file = args.model.as_ref().map(|path| path.display().to_string());
    match output.format() {
        format @ (Format::Json | Format::Yaml) => {
            // Names and numbers alone: the report always has a JSON form.
            let mut value = serde_json::to_value(report).unwrap_or_default();
            value["file"] = json!(file);
            match format {
                Format::Json => output.json(&value),
                _ => output.yaml(&value),
            }
        }
        Format::Name => output.line(&report.version),
        Format::Table | Format::Wide => {
            output.text(&report.to_string());
            match file {
                Some(file) => output.note(&format!("written to {file}")),
                None => output.note("not written: -o FILE keeps the model"),
            }
        }
    }
}
