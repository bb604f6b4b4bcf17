//! `edgetwin run`: the runtime, until it is told to stop.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};

use super::error::{CliError, ErrorKind};
use super::manifests;
use super::output::Output;
use super::{Outcome, config};
use crate::cacc::facts::TRANSMISSION;
use crate::gateway::external::Broker;
use crate::gateway::serial::{self, Port};
use crate::kinds::Kind;
use crate::manifest;
use crate::reconcile::{ApplyOptions, ApplyReport, ObjectKey, Reconciler};
use crate::runtime::{Config, DRAIN_TIMEOUT, Runtime, StartError};
use crate::simulate;
use crate::twin::Twin;
use crate::writer::{Committed, Origin, Sink};

/// Run the twins, the broker and the services of this machine
///
/// Everything listens on loopback unless you say otherwise; port 0 takes a free port. With -f the
/// manifests are applied first. Ctrl-C drains and exits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin run -f manifests/quickstart --simulate\n  \
    edgetwin run -f manifests/serial --serial /dev/ttyACM0=lab/desk\n  \
    edgetwin run --state /var/lib/edgetwin --mqtt 127.0.0.1:0")]
pub(super) struct Args {
    /// Manifest, directory or - for standard input to apply at the start; may be repeated
    #[arg(short, long = "filename", value_name = "PATH")]
    filenames: Vec<String>,
    /// Directory of everything durable
    #[arg(long, env = "EDGETWIN_STATE", value_name = "DIR", default_value = "edgetwin-state")]
    state: PathBuf,
    /// Address of the Ditto API, the control API and metrics
    #[arg(long, env = "EDGETWIN_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: String,
    /// Address of the MQTT listener
    #[arg(long, env = "EDGETWIN_MQTT", value_name = "ADDR", default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// An external MQTT broker to use in place of the own listener: mqtt://HOST[:PORT]
    #[arg(long, env = "EDGETWIN_BROKER", value_name = "URL", conflicts_with = "mqtt")]
    broker: Option<String>,
    /// Address of the Eureka API
    #[arg(long, env = "EDGETWIN_EUREKA", value_name = "ADDR", default_value = "127.0.0.1:8761")]
    eureka: String,
    /// Add a simulated node for every twin that names a profile: its firmware as a process where there
    /// is a C++ compiler (CXX, c++, g++; none with an empty CXX), else one in this process
    #[arg(long)]
    simulate: bool,
    /// A node on a serial line, and its twin; may be repeated
    #[arg(long = "serial", value_name = "DEVICE=NAMESPACE/NAME")]
    serial: Vec<String>,
    /// Seed of the simulated nodes
    #[arg(long, value_name = "N", default_value_t = 7, requires = "simulate")]
    seed: u64,
    /// Another host name that requests may carry; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Runs until SIGINT or SIGTERM; a second one ends at once.
///
/// A listener's address that is given for this run outranks a broker that the configuration file
/// names.
pub(super) fn run(
    args: &Args,
    found: Option<&ArgMatches>,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let given = |flag| found.is_some_and(|found| config::given(found, flag));
    let broker_url = args.broker.as_deref().filter(|_| given("broker") || !given("mqtt"));
    if args.with_parent {
        end_with_parent()?;
    }
    let config = Config {
        state: args.state.clone(),
        http: address("--http", &args.http)?,
        mqtt: address("--mqtt", &args.mqtt)?,
        eureka: address("--eureka", &args.eureka)?,
        broker: broker_url.map(broker).transpose()?,
        allowed_hosts: args.allowed_hosts.clone(),
        store: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(ErrorKind::Failed, "no threads").because(&error))?;
    let ended = runtime.block_on(serve(config, args, output));
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn serve(config: Config, args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let signals = |kind| {
        signal(kind).map_err(|error| {
            CliError::new(ErrorKind::Failed, "signals cannot be awaited").because(&error)
        })
    };
    let ports = args.serial.iter().map(|text| port(text)).collect::<Result<Vec<Port>, _>>()?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let external = config.broker.clone();
    let built = config.state.join("firmware");
    let runtime = Runtime::start(config).await.map_err(|error| explain(&error))?;
    let (stop, stopped) = watch::channel(false);
    let addresses = runtime.addresses;
    output.note(&format!("http    http://{}", addresses.http));
    let mqtt = match (addresses.mqtt, &external) {
        (Some(address), _) => Broker { host: address.ip().to_string(), port: address.port() },
        (None, Some(broker)) => broker.clone(),
        (None, None) => return Err(CliError::new(ErrorKind::Failed, "nothing speaks MQTT")),
    };
    let whose = if external.is_some() { "  (external)" } else { "" };
    output.note(&format!("mqtt    mqtt://{}:{}{whose}", mqtt.host, mqtt.port));
    output.note(&format!("eureka  http://{}/eureka", addresses.eureka));
    if runtime.found.twins > 0 {
        output.note(&format!("found   {} twins", runtime.found.twins));
    }
    output.note("ready   loopback only, without users; Ctrl-C stops");
    let reconciler = runtime.reconciler.clone();
    let writer = runtime.writer.clone();
    let mut said = runtime.control.lines();
    let mut serving = std::pin::pin!(runtime.run(stopped));
    if !args.filenames.is_empty() {
        let applying = apply(&reconciler, &args.filenames);
        let report = tokio::select! {
            ended = &mut serving => return done(ended),
            report = applying => report?,
        };
        for line in report.not_acted_on {
            output.note(&format!("note    {line}"));
        }
    }
    for port in &ports {
        output.note(&format!("serial  {port}"));
        tokio::spawn(serial::run(port.clone(), mqtt.clone(), stop.subscribe()));
    }
    let (simulated, mut verdicts) = if args.simulate {
        let (verdicts, lines) = mpsc::channel(VERDICTS_MAX);
        writer.add_sink(Arc::new(Verdicts(verdicts)));
        let declared = reconciler.declared();
        let mut nodes = simulate::nodes(&declared);
        nodes.retain(|node| !ports.iter().any(|port| port.thing == node.thing));
        if nodes.is_empty() {
            output.note("note    no twin names a node profile, so no node is simulated");
        } else {
            output.note(&format!("nodes   {} simulated, over MQTT", nodes.len()));
        }
        let workshop = simulate::process::compiler()
            .map(|compiler| simulate::Workshop { compiler, folder: built });
        let processes = workshop.as_ref().map_or(0, |_| simulate::as_processes(&nodes));
        if processes > 0 {
            output.note(&format!("        {processes} run their firmware, each as a process"));
        }
        let twins: Vec<ObjectKey> = declared
            .iter()
            .filter(|object| matches!(object.kind, Kind::Twin | Kind::TwinSet))
            .map(ObjectKey::of)
            .collect();
        let (stopped, seed) = (stop.subscribe(), args.seed);
        let simulating = async move {
            // A node that speaks before its twin has its model is refused.
            reconciler.wait_ready(&twins, TWINS_TIMEOUT).await;
            simulate::run(nodes, mqtt, seed, workshop, stopped).await;
        };
        (Some(tokio::spawn(simulating)), Some(lines))
    } else {
        (None, None)
    };
    loop {
        tokio::select! {
            ended = &mut serving => return done(ended),
            line = next_line(&mut verdicts) => output.line(&line),
            line = next_said(&mut said) => output.line(&line),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    output.note("draining");
    stop.send_replace(true);
    drop(simulated);
    tokio::select! {
        ended = &mut serving => done(ended),
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            output.note("some connections did not end in time");
            Ok(Outcome::Done)
        }
        _ = interrupt.recv() => Err(CliError::new(ErrorKind::Interrupted, "stopped without draining")),
    }
}

/// Simulated nodes start after so long even if a twin is not as declared.
const TWINS_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines that wait for a slow terminal; further verdicts are not shown.
const VERDICTS_MAX: usize = 256;

/// Shows each verdict as a line.
struct Verdicts(mpsc::Sender<String>);

impl Sink for Verdicts {
    fn committed(&self, changes: &[Committed]) {
        for change in changes {
            let Origin::Service(service) = &change.origin else { continue };
            if let (Some(twin), Some(verdict)) = (&change.after, &change.event.value)
                && self.0.try_send(verdict_line(twin, service, verdict)).is_err()
            {
                // The terminal is slow: the verdict is in the twin all the same.
                return;
            }
        }
    }
}

/// `lab:north-1   data-anomaly  anomalous 0.97  temperature 35.1, humidity 40, …`
fn verdict_line(twin: &Twin, service: &str, verdict: &Value) -> String {
    let label = verdict["label"].as_str().unwrap_or("?");
    let score = verdict["score"].as_f64().unwrap_or_default();
    let measured = twin.features.iter().filter(|(id, _)| &***id != TRANSMISSION);
    let values: Vec<String> = measured
        .filter_map(|(_, feature)| feature.properties.as_ref())
        .filter(|properties| !properties.contains_key("ofRevision"))
        .flatten()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_f64()?)))
        .collect();
    format!("{:<14} {service:<17} {label:<10} {score:.2}  {}", twin.id.as_str(), values.join(", "))
}

/// What the controller did; what a slow terminal missed is in the events.
async fn next_said(said: &mut broadcast::Receiver<String>) -> String {
    loop {
        match said.recv().await {
            Ok(line) => return line,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn next_line(lines: &mut Option<mpsc::Receiver<String>>) -> String {
    match lines {
        Some(lines) => match lines.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn apply(
    reconciler: &Arc<Reconciler>,
    filenames: &[String],
) -> Result<ApplyReport, CliError> {
    let paths = filenames.to_vec();
    let known = reconciler.declared();
    let this = reconciler.clone();
    let loading = move || {
        let mut parsed = manifest::load(&paths, &known);
        if parsed.has_errors() {
            let outcome = "Nothing was applied.";
            return Err(CliError::invalid(parsed.diagnostics, parsed.files, outcome));
        }
        for file in manifests::needed_files(&mut parsed.objects)? {
            this.artefacts().put(&file.digest, &file.bytes).map_err(|error| {
                let message = format!("`{}` could not be kept", file.path.display());
                CliError::new(ErrorKind::Failed, message).because(&error)
            })?;
        }
        Ok(parsed.objects.iter().map(|object| object.json.clone()).collect())
    };
    let documents = tokio::task::spawn_blocking(loading).await.map_err(|error| {
        CliError::new(ErrorKind::Failed, "manifests could not be read").because(&error)
    })??;
    reconciler.apply(documents, ApplyOptions::default()).await.map_err(|error| {
        CliError::new(ErrorKind::Failed, "the manifests were not applied").because(&error)
    })
}

fn done(ended: Result<(), StartError>) -> Result<Outcome, CliError> {
    ended.map(|()| Outcome::Done).map_err(|error| explain(&error))
}

/// Has the system end this process, like SIGTERM does, when the thread that started it ends.
pub(super) fn end_with_parent() -> Result<(), CliError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).map_err(
        |error| {
            CliError::new(ErrorKind::Failed, "the end of the parent cannot be seen").because(&error)
        },
    )
}

/// An address from a flag.
pub(super) fn address(flag: &str, text: &str) -> Result<SocketAddr, CliError> {
    let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| {
        CliError::new(ErrorKind::Usage, format!("{flag} {text} is not an address"))
            .hint("write HOST:PORT, for example 127.0.0.1:8080")
    })
}

fn port(text: &str) -> Result<Port, CliError> {
    Port::parse(text).map_err(|why| CliError::new(ErrorKind::Usage, format!("--serial: {why}")))
}

fn broker(url: &str) -> Result<Broker, CliError> {
    Broker::parse(url).map_err(|why| CliError::new(ErrorKind::Usage, format!("--broker: {why}")))
}

fn explain(error: &StartError) -> CliError {
    let said = CliError::new(ErrorKind::Failed, error.to_string());
    let said = match std::error::Error::source(error) {
        Some(cause) => said.because(&cause),
        None => said,
    };
    match error {
        StartError::Bind(..) => said.hint("is another runtime running? port 0 takes a free port"),
        StartError::Locked(_) => said.hint("stop it, or use another directory with --state"),
        StartError::NotLoopback(..) => {
            said.hint("listening beyond loopback comes with authentication; until then put a reverse proxy in front")
        }
        StartError::State(..) | StartError::Thread(_) => said,
    }
}
