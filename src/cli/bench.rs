//! `edgetwin bench`: how fast the chain is on this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::bench::pipeline::{self, Case, Load, PipelinePlan, PipelineReport, Placement, Updates};
use crate::bench::{self, Machine, Watch, broker, cacc, scale};
use crate::edgeai::Classifier;
use crate::gateway::external::Broker;

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
    Broker(BrokerArgs),
    Scale(ScaleArgs),
    Cacc(CaccArgs),
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
    /// All cases, each only long enough to see that it works
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: Common,
}

/// Readings acknowledged a second over MQTT with QoS 1, each durable in its twin
///
/// 8 connections with 64 readings under way each. With --beside, another broker gets the same
/// packets from the same client in turns with the runtime.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin bench broker\n  \
    edgetwin bench broker --beside mqtt://127.0.0.1:1884")]
struct BrokerArgs {
    /// Another broker to measure in turns: `mqtt://HOST[:PORT]`
    #[arg(long, value_name = "URL")]
    beside: Option<String>,
    /// Seconds for each round
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    common: Common,
}

/// Memory with many twins, the start after a crash, and `plan`
///
/// Each twin is 1 KB and has a reading. The runtime is killed with SIGKILL and has to find every
/// twin's revision again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin bench scale\n  \
    edgetwin bench scale --twins 1000 --objects 1000 --json")]
struct ScaleArgs {
    /// Number of twins; may be repeated [default: 10000 and 100000]
    #[arg(long = "twins", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    counts: Vec<u32>,
    /// Objects that `plan` compares
    #[arg(long = "objects", value_name = "N", default_value_t = scale::PLANNED as u32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    planned: u32,
    #[command(flatten)]
    common: Common,
}

/// Conditions and decisions of the controller
///
/// In this process, without sockets and disk. Once every rule is about every node, so the whole
/// product is judged, and once about a tenth of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin bench cacc\n  \
    edgetwin bench cacc --nodes 1000 --rules 10 --json")]
struct CaccArgs {
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Rules
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rules: u32,
    #[command(flatten)]
    common: Common,
}

/// Options of all benchmarks.
#[derive(Debug, clap::Args)]
struct Common {
    /// Seed of readings and models
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Where the temporary state is: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    state_dir: PathBuf,
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
    match &args.what {
        What::Pipeline(args) => {
            let plan = plan(args)?;
            let measured = watched(plan.steps(), |watch| pipeline::run(&plan, watch))?;
            show(&measured, &args.common, output, table)
        }
        What::Broker(args) => {
            let plan = broker_plan(args)?;
            let measured = watched(plan.steps(), |watch| broker::run(&plan, watch))?;
            show(&measured, &args.common, output, broker_table)
        }
        What::Cacc(args) => {
            let plan = cacc::Plan { nodes: args.nodes as usize, rules: args.rules as usize };
            let measured = watched(plan.steps(), |watch| cacc::run(&plan, watch))?;
            show(&measured, &args.common, output, cacc_table)
        }
        What::Scale(args) => {
            let counts = match args.counts.as_slice() {
                [] => vec![10_000, 100_000],
                given => given.iter().map(|&count| count as usize).collect(),
            };
            let plan = scale::ScalePlan {
                counts,
                planned: args.planned as usize,
                seed: args.common.seed,
                directory: args.common.state_dir.clone(),
            };
            let measured = watched(plan.steps(), |watch| scale::run(&plan, watch))?;
            show(&measured, &args.common, output, scale_table)
        }
    }
}

/// Runs a benchmark with a bar, and ends it when it is interrupted.
fn watched<R>(
    steps: usize,
    measure: impl FnOnce(&dyn Watch) -> Result<R, bench::Error>,
) -> Result<R, CliError> {
    let bar = ProgressBar::new(steps as u64 * STEP);
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
    let measured = measure(&shown);
    shown.bar.finish_and_clear();
    signals.shutdown_background();
    measured.map_err(|error| match error {
        _ if shown.stopped() => CliError::new(ErrorKind::Interrupted, "the benchmark was stopped"),
        bench::Error::Interrupted => CliError::new(ErrorKind::Interrupted, "interrupted"),
        bench::Error::Failed(why) => {
            CliError::new(ErrorKind::Failed, "the benchmark has no result").because(&Why(why))
        }
    })
}

fn show<R: serde::Serialize>(
    report: &R,
    common: &Common,
    output: &mut Output,
    table: impl FnOnce(&R, &mut Output),
) -> Result<Outcome, CliError> {
    let data = || {
        serde_json::to_value(report).map_err(|error| {
            CliError::new(ErrorKind::Failed, "the report cannot be written").because(&error)
        })
    };
    match output.format() {
        _ if common.json => output.json(&data()?),
        Format::Json => output.json(&data()?),
        Format::Yaml => output.yaml(&data()?),
        Format::Table | Format::Wide | Format::Name => table(report, output),
    }
    Ok(Outcome::Done)
}

fn broker_plan(args: &BrokerArgs) -> Result<broker::BrokerPlan, CliError> {
    let usage = |message: String| CliError::new(ErrorKind::Usage, message);
    let beside = match args.beside.as_deref() {
        Some(url) => {
            let broker = Broker::parse(url).map_err(|why| usage(format!("--beside: {why}")))?;
            let address = broker::address(&broker.host, broker.port);
            Some(address.map_err(|error| usage(format!("--beside: {error}")))?)
        }
        None => None,
    };
    Ok(broker::BrokerPlan {
        seconds: seconds(args.seconds)?,
        seed: args.common.seed,
        directory: args.common.state_dir.clone(),
        beside,
    })
}

fn seconds(seconds: f64) -> Result<f64, CliError> {
    if (0.05..=3600.0).contains(&seconds) {
        return Ok(seconds);
    }
    let message = format!("--seconds {seconds} is not from 0.05 to 3600");
    Err(CliError::new(ErrorKind::Usage, message))
}

#[derive(Debug)]
struct Why(String);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Why {}

fn plan(args: &Pipeline) -> Result<PipelinePlan, CliError> {
    let usage = |message: String| CliError::new(ErrorKind::Usage, message);
    let seconds = seconds(args.seconds.unwrap_or(if args.quick { 0.3 } else { 5.0 }))?;
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
    Ok(PipelinePlan {
        seconds,
        classifiers: if args.classifiers.is_empty() {
            every.to_vec()
        } else {
            args.classifiers.clone()
        },
        placements: all(placements.collect(), &[Placement::InProcess, Placement::Http]),
        updates: loads.is_empty(),
        loads: if loads.is_empty() { vec![Load::One, Load::Rate, Load::Saturation] } else { loads },
        rates: if args.rates.is_empty() { vec![pipeline::RATE] } else { args.rates.clone() },
        seed: args.common.seed,
        directory: args.common.state_dir.clone(),
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

fn table(report: &PipelineReport, output: &mut Output) {
    machine(report.version, &report.machine, output);
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

fn machine(version: &str, machine: &Machine, output: &mut Output) {
    output.line(&format!(
        "edgetwin {version} on {} × {}, Linux {}, load {}",
        machine.cpus, machine.cpu, machine.kernel, machine.load_before
    ));
}

fn broker_table(report: &broker::BrokerReport, output: &mut Output) {
    machine(report.version, &report.machine, output);
    let row = |who: &str, round: &broker::Round| {
        vec![
            who.to_owned(),
            format!("{:.0}", round.throughput_per_s),
            format!("{:.0}", round.latency_us.p50),
            format!("{:.0}", round.latency_us.p99),
            round.readings.to_string(),
        ]
    };
    let rounds = report.rounds.iter().map(|round| row("edgetwin, durable", round));
    let beside = report.beside.iter().map(|round| row("beside", round));
    let header = ["BROKER", "PER S", "P50 µs", "P99", "READINGS"];
    output.table(&header, &rounds.chain(beside).collect::<Vec<_>>());
    if let Some(ratio) = report.ratio {
        output.line(&format!("edgetwin's median rate is {ratio} of the other broker's"));
    }
}

fn cacc_table(report: &cacc::Report, output: &mut Output) {
    machine(report.version, &report.machine, output);
    let row = |one: &cacc::Evaluation| vec![one.condition.clone(), format!("{:.1}", one.ns)];
    output.table(&["CONDITION", "ns"], &report.evaluations.iter().map(row).collect::<Vec<_>>());
    for shape in &report.shapes {
        output.line(&format!(
            "{} nodes, {} rules, {} about each node, {:.1} active:",
            report.nodes,
            report.rules,
            shape.rules_per_node,
            shape.active as f64 / report.nodes as f64
        ));
        for (what, spread) in [
            ("all rules reconsidered", &shape.reconsider_ms),
            ("every node decided", &shape.decide_ms),
        ] {
            output.line(&format!("  {what:<30} {:.2} ms (worst {:.2})", spread.p50, spread.max));
        }
        output
            .line(&format!("  {:<30} {:.2} µs", "a reading that moves nothing", shape.reading_us));
        output.line(&format!("  {:<30} {:.2} µs", "a verdict", shape.verdict_us));
        output.line(&format!("  {:<30} {:.0} ms", "all rules set anew", shape.set_rules_ms));
    }
    let row = |size: &cacc::Size| {
        vec![
            size.nodes.to_string(),
            format!("{:.2}", size.set_rules_us_per_node),
            format!("{:.2}", size.group_us_per_node),
            format!("{:.2}", size.actuator_ms),
        ]
    };
    let header = ["NODES", "SET RULES µs A NODE", "GROUP RULE µs A NODE", "ACTUATOR ms"];
    output.table(&header, &report.sizes.iter().map(row).collect::<Vec<_>>());
}

fn scale_table(report: &scale::ScaleReport, output: &mut Output) {
    machine(report.version, &report.machine, output);
    let header = ["TWINS", "TWIN BYTES", "APPLY ms", "MiB", "START ms", "MiB AFTER"];
    let row = |size: &scale::Size| {
        vec![
            size.twins.to_string(),
            size.twin_bytes.to_string(),
            format!("{:.0}", size.apply_ms),
            format!("{:.1}", size.rss_kib as f64 / 1024.0),
            format!("{:.0}", size.start_ms),
            format!("{:.1}", size.started_rss_kib as f64 / 1024.0),
        ]
    };
    output.table(&header, &report.sizes.iter().map(row).collect::<Vec<_>>());
    output.line(&format!("plan of {} objects: {:.0} ms", report.planned, report.plan_ms));
}
