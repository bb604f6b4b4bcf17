//! `edgetwin bench`: how fast the chain is on this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::Outcome;
use super::error::{CliError, ErrorKind};
use super::output::{Format, Output};
use crate::bench::{self, Case, Load, Placement, Plan, Report, Updates, Watch};
use crate::edgeai::Classifier;

/// Measure how fast this machine runs the chain
///
/// Starts runtimes of its own in temporary directories; one that is running is left alone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Pipeline(Pipeline),
}

/// From a reading sent over MQTT to its verdict received over MQTT
///
/// Each case starts a runtime with default durability, applies manifests, sends readings from real
/// MQTT clients and waits for the verdicts; one that is missing, wrong or about another reading is
/// an error. Beside it stands the machine's floor, measured in the same run: one sync, one round
/// trip over loopback, one bare inference. At a fixed rate, latency counts from when a reading was
/// due.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin bench pipeline\n  \
    edgetwin bench pipeline --classifier forest --placement in-process --load one\n  \
    edgetwin bench pipeline --load rate --rate 1000 --rate 10000 --json")]
struct Pipeline {
    /// Seconds for each case [default: 5, with --quick 0.3]
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Only this kind of model: forest, svm or mlp; may be repeated
    #[arg(long = "classifier", value_name = "KIND")]
    classifiers: Vec<Classifier>,
    /// Only services that run there; may be repeated
    #[arg(long = "placement", value_enum, value_name = "WHERE")]
    placements: Vec<PlacementArg>,
    /// Only readings that come so; may be repeated
    #[arg(long = "load", value_enum, value_name = "HOW")]
    loads: Vec<LoadArg>,
    /// Readings a second where they come at a rate; may be repeated [default: 1000]
    #[arg(long = "rate", value_name = "N")]
    rates: Vec<f64>,
    /// Seed of readings and models
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Where the temporary state is: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    state_dir: PathBuf,
    /// All cases, each only long enough to see that it works
    #[arg(long)]
    quick: bool,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlacementArg {
    /// In the runtime
    InProcess,
    /// In a process of its own, over HTTP
    Http,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LoadArg {
    /// One after the other
    One,
    /// At a fixed rate
    Rate,
    /// 256 under way
    Saturation,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let What::Pipeline(args) = &args.what;
    let plan = plan(args)?;
    let bar = ProgressBar::new(plan.steps() as u64 * STEP);
    let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let shown = Shown { bar: bar.with_style(style), stop: Arc::default() };
    let stop = shown.stop.clone();
    // Its thread ends with the program.
    let signals = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(ErrorKind::Failed, "no threads").because(&error))?;
    signals.spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.store(true, Ordering::Relaxed);
    });
    let measured = bench::run(&plan, &shown);
    shown.bar.finish_and_clear();
    signals.shutdown_background();
    let report = measured.map_err(|error| match error {
        _ if shown.stopped() => CliError::new(ErrorKind::Interrupted, "the benchmark was stopped"),
        bench::Error::Interrupted => CliError::new(ErrorKind::Interrupted, "interrupted"),
        bench::Error::Failed(why) => {
            CliError::new(ErrorKind::Failed, "the benchmark has no result").because(&Why(why))
        }
    })?;
    let data = || {
        serde_json::to_value(&report).map_err(|error| {
            CliError::new(ErrorKind::Failed, "the report cannot be written").because(&error)
        })
    };
    match output.format() {
        _ if args.json => output.json(&data()?),
        Format::Json => output.json(&data()?),
        Format::Yaml => output.yaml(&data()?),
        Format::Table | Format::Wide | Format::Name => table(&report, output),
    }
    Ok(Outcome::Done)
}

#[derive(Debug)]
struct Why(String);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Why {}

fn plan(args: &Pipeline) -> Result<Plan, CliError> {
    let usage = |message: String| CliError::new(ErrorKind::Usage, message);
    let seconds = args.seconds.unwrap_or(if args.quick { 0.3 } else { 5.0 });
    if !(0.05..=3600.0).contains(&seconds) {
        return Err(usage(format!("--seconds {seconds} is not from 0.05 to 3600")));
    }
    if let Some(rate) = args.rates.iter().find(|rate| !(1.0..=1e6).contains(*rate)) {
        return Err(usage(format!("--rate {rate} is not from 1 to 1000000")));
    }
    let all = |given: Vec<_>, all: &[_]| if given.is_empty() { all.to_vec() } else { given };
    let placements = args.placements.iter().map(|placement| match placement {
        PlacementArg::InProcess => Placement::InProcess,
        PlacementArg::Http => Placement::Http,
    });
    let loads: Vec<Load> = args
        .loads
        .iter()
        .map(|load| match load {
            LoadArg::One => Load::One,
            LoadArg::Rate => Load::Rate,
            LoadArg::Saturation => Load::Saturation,
        })
        .collect();
    let every = [Classifier::Forest, Classifier::Svm, Classifier::Mlp];
    Ok(Plan {
        seconds,
        classifiers: if args.classifiers.is_empty() {
            every.to_vec()
        } else {
            args.classifiers.clone()
        },
        placements: all(placements.collect(), &[Placement::InProcess, Placement::Http]),
        updates: loads.is_empty(),
        loads: if loads.is_empty() { vec![Load::One, Load::Rate, Load::Saturation] } else { loads },
        rates: if args.rates.is_empty() { vec![bench::RATE] } else { args.rates.clone() },
        seed: args.seed,
        directory: args.state_dir.clone(),
        rows: if args.quick { 1000 } else { 4000 },
    })
}

/// Parts of a step that the bar shows.
const STEP: u64 = 100;

/// A bar on a terminal, nothing elsewhere.
struct Shown {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl Watch for Shown {
    fn step(&self, what: &str) {
        let steps = self.bar.position().div_ceil(STEP);
        self.bar.set_position(steps * STEP);
        self.bar.set_message(what.to_owned());
    }

    fn tick(&self, share: f64) {
        let steps = self.bar.position() / STEP;
        let part = (share.clamp(0.0, 0.99) * STEP as f64) as u64;
        self.bar.set_position((steps * STEP + part).max(self.bar.position()));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn table(report: &Report, output: &mut Output) {
    let machine = &report.machine;
    output.line(&format!(
        "edgetwin {} on {} × {}, Linux {}, load {}, seed {}",
        report.version, machine.cpus, machine.cpu, machine.kernel, machine.load_before, report.seed
    ));
    let floor = &report.floor_us;
    let inference: Vec<String> =
        floor.inference.iter().map(|(name, us)| format!("{name} {us}")).collect();
    output.line(&format!(
        "floor, µs: sync {}, loopback {}, {}",
        floor.fdatasync,
        floor.loopback,
        inference.join(", ")
    ));
    output.line(&format!(
        "idle: {:.1} MiB, ready in {:.0} ms; program {:.1} MB\n",
        report.idle_rss_kib as f64 / 1024.0,
        report.start_ms,
        report.binary_bytes as f64 / 1e6
    ));
    let header = [
        "MODEL", "SERVICE", "LOAD", "P50 µs", "P90", "P99", "P99.9", "MAX", "PER S", "FLOORS",
        "CPU µs", "MiB",
    ];
    output.table(&header, &report.cases.iter().map(row).collect::<Vec<_>>());
    let names = ["apply", "lookup", "inference", "call", "commit", "ack"];
    let header: Vec<&str> = ["MODEL", "SERVICE", "LOAD"].into_iter().chain(names).collect();
    let stages = |case: &Case| {
        let stage = |name: &&str| case.stages_us.get(*name).map_or("-".to_owned(), f64::to_string);
        row(case).into_iter().take(3).chain(names.iter().map(stage)).collect::<Vec<_>>()
    };
    output.line("\nmedians of the stages, µs");
    output.table(&header, &report.cases.iter().map(stages).collect::<Vec<_>>());
    if !report.updates.is_empty() {
        output.line("\nupdates without services");
        let header = [
            "CONNECTIONS",
            "UNDER WAY",
            "P50 µs",
            "P99",
            "PER S",
            "BYTES",
            "PER SYNC",
            "CPU µs",
            "MiB",
        ];
        output.table(&header, &report.updates.iter().map(update_row).collect::<Vec<_>>());
    }
}

fn row(case: &Case) -> Vec<String> {
    let latency = &case.latency_us;
    let us = |value: f64| format!("{value:.0}");
    vec![
        case.classifier.to_owned(),
        case.placement.name().to_owned(),
        case.rate_per_s.map_or(case.load.name().to_owned(), |rate| format!("{rate}/s")),
        us(latency.p50),
        us(latency.p90),
        us(latency.p99),
        us(latency.p999),
        us(latency.max),
        us(case.throughput_per_s),
        format!("{:.2}", case.ratio_to_floor),
        format!("{:.1}", case.cpu_us_per_reading),
        format!("{:.1}", case.rss_kib as f64 / 1024.0),
    ]
}

fn update_row(updates: &Updates) -> Vec<String> {
    vec![
        updates.connections.to_string(),
        updates.in_flight.to_string(),
        format!("{:.0}", updates.latency_us.p50),
        format!("{:.0}", updates.latency_us.p99),
        format!("{:.0}", updates.throughput_per_s),
        format!("{:.0}", updates.bytes_per_update),
        format!("{:.1}", updates.updates_per_sync),
        format!("{:.1}", updates.cpu_us_per_update),
        format!("{:.1}", updates.rss_kib as f64 / 1024.0),
    ]
}
