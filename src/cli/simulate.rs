//! `edgetwin simulate`: simulated nodes for a running runtime.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::client::Client;
use super::console::Console;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::outcome::Outcome;
use super::output::Output;
use super::signals::Signals;
use crate::base::telemetry::log::Log;
use crate::base::units;
use crate::gateway::external::Broker;
use crate::kinds::{DEFAULT_NAMESPACE, Spec};
use crate::manifest::{self, Object};
use crate::simulate;
use crate::twin::selector::{Selector, labels_match};

/// Simulate nodes that drive a running runtime over MQTT
///
/// Each twin that names a node profile gets a node that reads a synthetic environment, sends what it
/// reads, and carries out commands. With a Scenario only its twins do, with its seed and for its
/// duration. Simulating in virtual time, without a runtime, comes later: today --live is the only
/// way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin simulate --live --for 1m\n  \
    edgetwin simulate manifests/building --live --seed 7\n  \
    edgetwin simulate --live -l room=north --broker mqtt://127.0.0.1:1884")]
pub(super) struct Args {
    /// Manifest or directory with one Scenario
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    /// Drive the runtime at --server, in real time
    #[arg(long, required = true)]
    live: bool,
    /// Where nodes meet the runtime
    #[arg(
        long,
        env = "EDGETWIN_BROKER",
        value_name = "URL",
        default_value = "mqtt://127.0.0.1:1883"
    )]
    broker: String,
    /// Only nodes of twins with these labels: `room=north,floor!=2`
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "scenario")]
    selector: Option<String>,
    /// Random seed [default: the scenario's, else 7]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long [default: the scenario's duration, else until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<units::Duration>,
}

pub(super) fn run(
    args: &Args,
    global: &Global,
    log: &Log,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let broker = Broker::parse(&args.broker)
        .map_err(|why| CliError::new(ErrorKind::Usage, format!("--broker: {why}")))?;
    let known = Client::new(&global.server)?.known()?;
    let scenario = args.scenario.as_deref().map(|path| scenario(path, &known)).transpose()?;
    let (mut seed, mut duration) = (7, None);
    let twins = match &scenario {
        Some((object, Spec::Scenario(spec))) => {
            (seed, duration) = (spec.seed, Some(spec.duration));
            for (what, there) in [
                ("channels", !spec.channels.is_empty()),
                ("faults", !spec.faults.is_empty()),
                ("traces", spec.nodes.iter().any(|group| group.trace.is_some())),
            ] {
                if there {
                    output.note(&format!("note    the scenario's {what} are not acted on live"));
                }
            }
            twins(&known, |twin| spec.nodes.iter().any(|group| takes(object, &group.twins, twin)))
        }
        _ => {
            let selector: Selector = args.selector.as_deref().unwrap_or_default().parse().map_err(
                |error: units::ScalarError| {
                    CliError::new(ErrorKind::Usage, error.message).hint(error.help)
                },
            )?;
            let namespace = global.namespace.as_deref().filter(|_| !global.all_namespaces);
            twins(&known, |twin| {
                namespace.is_none_or(|namespace| twin.metadata.namespace == namespace)
                    && selector.matches(&twin.metadata.labels)
            })
        }
    };
    let nodes = simulate::nodes(&twins);
    if nodes.is_empty() {
        let message = format!("no twin at {} is to have a node", global.server);
        return Err(CliError::new(ErrorKind::Failed, message)
            .hint("a node is simulated for twins that name a NodeProfile (`spec.node.profile`)"));
    }
    let seed = args.seed.unwrap_or(seed);
    let duration = args.duration.or(duration).map(|duration| duration.as_std());
    let until =
        duration.map_or("Ctrl-C stops".to_owned(), |d| format!("for {} s", d.as_secs_f64()));
    let count = nodes.len();
    output.note(&format!("nodes   {count} simulated over {}, seed {seed}, {until}", args.broker));
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(ErrorKind::Failed, "no threads").because(&error))?;
    let console = Console::start(log, !output.is_quiet())?;
    output.attach(console.lines());
    let ended = threads.block_on(drive(nodes, broker, seed, duration, &console));
    threads.shutdown_timeout(Duration::from_millis(100));
    if console.end() {
        output.detach();
    }
    ended.map(|()| Outcome::Done)
}

/// Runs the nodes for so long, or until SIGINT or SIGTERM.
async fn drive(
    nodes: Vec<simulate::SimulatedNode>,
    broker: Broker,
    seed: u64,
    duration: Option<Duration>,
    console: &Console,
) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let (stop, stopped) = watch::channel(false);
    let broke_off = |error: tokio::task::JoinError| {
        CliError::new(ErrorKind::Failed, "the simulation broke off").because(&error)
    };
    let started = Instant::now();
    let mut running =
        tokio::spawn(simulate::run(nodes, broker, seed, simulate::Programs::default(), stopped));
    let mut over = std::pin::pin!(async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    });
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let of = duration.map_or_else(String::new, |d| format!(" of {} s", d.as_secs()));
                console.status(format!("simulating for {} s{of}", started.elapsed().as_secs()));
            }
            () = &mut over => break,
            () = signals.next() => break,
            ended = &mut running => return ended.map_err(broke_off),
        }
    }
    stop.send_replace(true);
    tokio::select! {
        ended = running => ended.map_err(broke_off),
        () = signals.next() => {
            Err(CliError::new(ErrorKind::Interrupted, "stopped before the nodes had ended"))
        }
    }
}

/// The one scenario of a manifest, as an object and its spec.
fn scenario(path: &str, known: &[Object]) -> Result<(Object, Spec), CliError> {
    let parsed = manifest::load(&[path.to_owned()], known);
    if parsed.has_errors() {
        let outcome = "Nothing was simulated.";
        return Err(CliError::invalid(parsed.diagnostics, parsed.files, outcome));
    }
    let found = parsed.objects.into_iter().filter(|o| matches!(o.spec, Spec::Scenario(_)));
    let found: Vec<Object> = found.collect();
    match <[Object; 1]>::try_from(found) {
        Ok([object]) => Ok((object.clone(), object.spec)),
        Err(found) => Err(CliError::new(
            ErrorKind::Usage,
            format!("{path} has {} scenarios; one is simulated at a time", found.len()),
        )),
    }
}

/// What is declared, with those twins only that are wanted.
fn twins(known: &[Object], wanted: impl Fn(&Object) -> bool) -> Vec<Object> {
    let expanded = known.iter().flat_map(|object| match &object.spec {
        Spec::TwinSet(_) => object.expand(),
        _ => vec![object.clone()],
    });
    expanded.filter(|object| !matches!(object.spec, Spec::Twin(_)) || wanted(object)).collect()
}

/// Whether a scenario's group has a twin.
fn takes(scenario: &Object, group: &crate::kinds::MemberSelector, twin: &Object) -> bool {
    let (here, there) = (&scenario.metadata.namespace, &twin.metadata.namespace);
    let named = group.names.iter().any(|name| match name.split_once('/') {
        Some((namespace, name)) => namespace == there && name == twin.metadata.name,
        None => here == there && *name == twin.metadata.name,
    });
    let by_labels = !group.match_labels.is_empty() || !group.match_expressions.is_empty();
    named
        || by_labels
            && (here == DEFAULT_NAMESPACE || here == there)
            && labels_match(&twin.metadata.labels, &group.match_labels, &group.match_expressions)
}
