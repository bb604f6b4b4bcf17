//! `edgetwin run`: the runtime, until it is stopped.
//!
//! Nothing here writes to stdout or stderr by itself: `console` does, with threads of its own.

mod show;

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{ArgMatches, ValueEnum};
use serde_json::json;
use tokio::sync::{broadcast, mpsc, watch};

use self::show::{Events, Figures, Rates, Style, Verdict, Watch};
use super::console::Console;
use super::error::{CliError, ErrorKind};
use super::output::{Format, Output};
use super::signals::Signals;
use super::{Outcome, config, manifests};
use crate::base::clock::now_us;
use crate::base::telemetry::log::Log;
use crate::base::telemetry::{Event, Telemetry};
use crate::base::time::rfc3339;
use crate::cacc::driver::Control;
use crate::gateway::external::Broker;
use crate::gateway::serial::{self, Port};
use crate::kinds::Kind;
use crate::manifest::{self, Object};
use crate::reconcile::{ApplyOptions, ApplyReport, ObjectKey, Reconciler};
use crate::runtime::{Config, DRAIN_TIMEOUT, Runtime, StartError};
use crate::simulate;

/// Run the twins, the broker and the services of this machine
///
/// Everything listens on loopback; port 0 takes a free port. With -f the manifests are applied
/// first. On a terminal a status line is kept up to date below what happens. With `--output json`
/// stdout has one JSON object a line, with `type` started, event, status, verdict or stopping.
/// Ctrl-C stops it and lets requests in progress finish; a second Ctrl-C ends it at once.
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
    /// An external MQTT broker to use in place of the own listener: `mqtt://HOST[:PORT]`
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
    /// Show each of these, too, as a line
    #[arg(long, value_name = "WHAT", value_enum)]
    show: Vec<Show>,
    /// Another host name that requests may carry; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// What is shown only if it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// Each verdict of a service about a twin
    Verdicts,
}

/// Runs until SIGINT or SIGTERM; a second one ends at once.
///
/// A listener's address that is given for this run outranks a broker that the configuration file
/// names.
pub(super) fn run(
    args: &Args,
    found: Option<&ArgMatches>,
    log: &Log,
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
    let ports = ports(&args.serial)?;
    let people = output.format() != Format::Json && !output.is_quiet();
    let console = Console::start(log, people)?;
    output.attach(console.lines());
    let ended = runtime.block_on(serve(config, args, ports, &console, output));
    runtime.shutdown_timeout(Duration::from_millis(100));
    if console.end() {
        output.detach();
    }
    ended
}

/// Starts the runtime, applies what `-f` names, and serves until a signal.
async fn serve(
    config: Config,
    args: &Args,
    ports: Vec<(Port, Option<OwnedFd>)>,
    console: &Console,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let mut signals = Signals::new()?;
    let external = config.broker.clone();
    let built = config.state.join("firmware");
    // Reading a long log takes a while, and may be interrupted.
    let starting = tokio::spawn(Runtime::start(config));
    let runtime = tokio::select! {
        started = starting => started
            .map_err(|error| CliError::new(ErrorKind::Failed, "the start broke off").because(&error))?
            .map_err(|error| explain(&error))?,
        () = signals.next() => return Err(stopped_at_once("stopped before it was ready")),
    };
    let (stop, stopped) = watch::channel(false);
    let mqtt = match (runtime.addresses.mqtt, &external) {
        (Some(address), _) => Broker { host: address.ip().to_string(), port: address.port() },
        (None, Some(broker)) => broker.clone(),
        (None, None) => return Err(CliError::new(ErrorKind::Failed, "nothing speaks MQTT")),
    };
    let mut shown = Shown::new(&runtime, args, console, output);
    shown.started(&runtime, &mqtt, external.is_some(), output);
    let reconciler = runtime.reconciler.clone();
    let writer = runtime.writer.clone();
    let telemetry = runtime.telemetry.clone();
    let mut serving = std::pin::pin!(runtime.run(stopped));
    let mut stopping = false;
    if !args.filenames.is_empty() {
        let applying = apply(&reconciler, &args.filenames);
        tokio::select! {
            ended = &mut serving => return done(ended),
            () = signals.next() => stopping = true,
            report = applying => {
                for line in report?.not_acted_on {
                    shown.note("note", &line, output);
                }
            }
        }
    }
    if !stopping {
        let declared = reconciler.declared();
        for (port, _) in &ports {
            known(port, &declared, writer.newest(port.thing.as_str()).is_some())?;
        }
    }
    let mut wired = Vec::new();
    if !stopping {
        for (port, line) in ports {
            let missing = if line.is_none() { "  (not there yet)" } else { "" };
            shown.note("serial", &format!("{port}{missing}"), output);
            wired.push(port.thing.clone());
            let (mqtt, telemetry) = (mqtt.clone(), telemetry.clone());
            tokio::spawn(serial::run(port, line, mqtt, telemetry, stop.subscribe()));
        }
    }
    if args.simulate && !stopping {
        let declared = reconciler.declared();
        let mut nodes = simulate::nodes(&declared);
        nodes.retain(|node| !wired.contains(&node.thing));
        if nodes.is_empty() {
            shown.note("note", "no twin names a node profile, so no node is simulated", output);
        } else {
            shown.note("nodes", &format!("{} simulated, over MQTT", nodes.len()), output);
        }
        let workshop = simulate::process::compiler()
            .map(|compiler| simulate::Workshop { compiler, folder: built });
        let building = simulate::build(&nodes, workshop.as_ref());
        let programs = tokio::select! {
            ended = &mut serving => return done(ended),
            programs = building => programs,
        };
        let processes = programs.count(&nodes);
        if processes > 0 {
            shown.note("", &format!("{processes} run their firmware, each as a process"), output);
        }
        for why in &programs.failed {
            shown.note("note", &format!("{why}; its nodes are simulated without it"), output);
        }
        let twins: Vec<ObjectKey> = declared
            .iter()
            .filter(|object| matches!(object.kind, Kind::Twin | Kind::TwinSet))
            .map(ObjectKey::of)
            .collect();
        let (stopped, seed) = (stop.subscribe(), args.seed);
        let mqtt = mqtt.clone();
        tokio::spawn(async move {
            // A node that sends before its twin has its model is refused.
            reconciler.wait_ready(&twins, TWINS_TIMEOUT).await;
            simulate::run(nodes, mqtt, seed, programs, stopped).await;
        });
    }
    while !stopping {
        tokio::select! {
            ended = &mut serving => return done(ended),
            () = shown.next(console, output) => {}
            () = signals.next() => stopping = true,
        }
    }
    shown.stopping(output);
    stop.send_replace(true);
    tokio::select! {
        ended = &mut serving => done(ended),
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            shown.note("note", "some connections did not end in time", output);
            Ok(Outcome::Done)
        }
        () = signals.next() => Err(stopped_at_once("stopped without draining")),
    }
}

fn stopped_at_once(message: &str) -> CliError {
    CliError::new(ErrorKind::Interrupted, message)
}

/// Simulated nodes start after so long even if a twin is not as declared.
const TWINS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the figures are taken.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);
/// Programs get the figures once in so many periods.
const FIGURES_FOR_PROGRAMS: u64 = 10;

/// What is shown while the runtime serves.
struct Shown {
    style: Style,
    telemetry: Arc<Telemetry>,
    control: Arc<Control>,
    events: Events,
    coming: broadcast::Receiver<Event>,
    watch: Arc<Watch>,
    verdicts: Option<mpsc::Receiver<Verdict>>,
    rates: Rates,
    tick: tokio::time::Interval,
    ticks: u64,
    /// Where to find it, at the head of the status line.
    address: String,
}

impl Shown {
    fn new(runtime: &Runtime, args: &Args, console: &Console, output: &Output) -> Self {
        let style = if output.format() == Format::Json { Style::Json } else { Style::Text };
        let telemetry = runtime.telemetry.clone();
        let (watch, verdicts) = if args.show.contains(&Show::Verdicts) {
            let (watch, verdicts) = Watch::showing();
            (watch, Some(verdicts))
        } else {
            (Watch::counting(), None)
        };
        if verdicts.is_some() || style == Style::Json || console.has_status() {
            runtime.writer.add_sink(watch.clone());
        }
        let mut tick = tokio::time::interval(FIGURES_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let rates = Rates::new(Instant::now(), telemetry.readings.get(), telemetry.verdicts.get());
        Self {
            style,
            control: runtime.control.clone(),
            events: Events::new(style),
            coming: telemetry.watch(),
            telemetry,
            watch,
            verdicts,
            rates,
            tick,
            ticks: 0,
            address: format!("http://{}", runtime.addresses.http),
        }
    }

    /// Shows where it listens.
    fn started(&self, runtime: &Runtime, mqtt: &Broker, external: bool, output: &mut Output) {
        let addresses = runtime.addresses;
        let http = format!("http://{}", addresses.http);
        let broker = format!("mqtt://{}:{}", mqtt.host, mqtt.port);
        let eureka = format!("http://{}/eureka", addresses.eureka);
        if self.style == Style::Json {
            let line = json!({
                "type": "started",
                "time": rfc3339(now_us()),
                "http": http,
                "mqtt": broker,
                "externalBroker": external,
                "eureka": eureka,
                "twins": runtime.found.twins,
            });
            output.line(&line.to_string());
            return;
        }
        output.note(&format!("http    {http}"));
        let whose = if external { "  (external)" } else { "" };
        output.note(&format!("mqtt    {broker}{whose}"));
        output.note(&format!("eureka  {eureka}"));
        if runtime.found.twins > 0 {
            output.note(&format!("found   {} twins", runtime.found.twins));
        }
        output.note("ready   on loopback only, without authentication; Ctrl-C stops it");
    }

    /// Something worth knowing about the start.
    fn note(&self, head: &str, text: &str, output: &mut Output) {
        match self.style {
            Style::Text => output.note(&format!("{head:<7} {text}")),
            Style::Json => output.line(&json!({ "type": "note", "message": text }).to_string()),
        }
    }

    fn stopping(&self, output: &mut Output) {
        match self.style {
            Style::Text => output.note("draining; Ctrl-C again ends it at once"),
            Style::Json => {
                let line = json!({ "type": "stopping", "time": rfc3339(now_us()) });
                output.line(&line.to_string());
            }
        }
    }

    /// Waits for the next thing to show, and shows it.
    async fn next(&mut self, console: &Console, output: &mut Output) {
        tokio::select! {
            event = self.coming.recv() => match event {
                Ok(event) => {
                    if let Some(line) = self.events.line(event, Instant::now()) {
                        output.progress(&line);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let remedy = "look at `edgetwin events`, which has the latest";
                    tracing::warn!(missed, remedy, "events came faster than they could be shown");
                }
                // The telemetry lives as long as this.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
            Some(verdict) = next_verdict(&mut self.verdicts) => {
                output.progress(&verdict.line(self.style));
            }
            _ = self.tick.tick() => self.figures(console, output),
        }
    }

    fn figures(&mut self, console: &Console, output: &mut Output) {
        let now = Instant::now();
        for line in self.events.due(now) {
            output.progress(&line);
        }
        let (readings, verdicts) =
            self.rates.take(now, self.telemetry.readings.get(), self.telemetry.verdicts.get());
        let for_programs =
            self.style == Style::Json && self.ticks.is_multiple_of(FIGURES_FOR_PROGRAMS);
        self.ticks += 1;
        if !console.has_status() && !for_programs {
            return;
        }
        let counts = self.control.counts();
        let anomalies = self.watch.anomalies();
        let figures = Figures { counts, readings, verdicts, anomalies };
        if for_programs {
            output.progress(&figures.json(now_us()));
        }
        console.status(format!("{} · {}", self.address, figures.text()));
    }
}

/// The next verdict; never, if they are not shown.
async fn next_verdict(verdicts: &mut Option<mpsc::Receiver<Verdict>>) -> Option<Verdict> {
    match verdicts {
        Some(verdicts) => verdicts.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether the twin of a serial line is there or declared.
fn known(port: &Port, declared: &[Object], there: bool) -> Result<(), CliError> {
    let (namespace, name) = (port.thing.namespace(), port.thing.name());
    let is = |object: &Object| {
        object.metadata.namespace == namespace
            && match object.kind {
                Kind::Twin => object.metadata.name == name,
                _ => object.twin(name).is_some(),
            }
    };
    if there || declared.iter().any(is) {
        return Ok(());
    }
    let message = format!("--serial {port}: there is no twin `{namespace}/{name}`");
    Err(CliError::new(ErrorKind::Failed, message)
        .hint("declare it in a manifest, and name the manifest with -f"))
}

/// The lines of `--serial`, each device and each twin once.
fn ports(given: &[String]) -> Result<Vec<(Port, Option<OwnedFd>)>, CliError> {
    let usage = |message: String| CliError::new(ErrorKind::Usage, message);
    let mut ports: Vec<(Port, Option<OwnedFd>)> = Vec::new();
    for text in given {
        let port = Port::parse(text).map_err(|why| usage(format!("--serial {text}: {why}")))?;
        let device = &port.device;
        let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if ports.iter().any(|(other, _)| same(&other.device) == same(device)) {
            let message = format!("--serial {text}: {} is given twice", device.display());
            return Err(usage(message).hint("a serial line has one node, and a node one twin"));
        }
        if ports.iter().any(|(other, _)| other.thing == port.thing) {
            let twin = format!("{}/{}", port.thing.namespace(), port.thing.name());
            let message = format!("--serial {text}: `{twin}` has a serial line already");
            return Err(usage(message).hint("a serial line has one node, and a node one twin"));
        }
        let line = port.open().map_err(|why| {
            usage(format!("--serial {text}: {} is not a serial line", device.display()))
                .because(&why)
                .hint("name the device of a board, such as /dev/ttyACM0 or /dev/ttyUSB0")
        })?;
        ports.push((port, line));
    }
    Ok(ports)
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

fn broker(url: &str) -> Result<Broker, CliError> {
    Broker::parse(url).map_err(|why| CliError::new(ErrorKind::Usage, format!("--broker: {why}")))
}

fn explain(error: &StartError) -> CliError {
    let failure = CliError::new(ErrorKind::Failed, error.to_string());
    let failure = match std::error::Error::source(error) {
        Some(cause) => failure.because(&cause),
        None => failure,
    };
    match error {
        StartError::Bind(..) => failure.hint("is another runtime running? port 0 takes a free port"),
        StartError::Locked(_) => failure.hint("stop it, or use another directory with --state"),
        StartError::NotLoopback(..) => {
            failure.hint("listening beyond loopback comes with authentication; until then put a reverse proxy in front")
        }
        StartError::State(..) | StartError::Thread(_) => failure,
    }
}
