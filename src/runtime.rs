//! Wires everything: state directory, listeners, threads, the end.
//!
//! Threads: one for MQTT with all its connections (see `broker::listener`), one that commits what other
//! threads stage, and two workers for HTTP, services and reconciling. [`Runtime::start`] returns
//! when every address is bound and the state is recovered; [`Runtime::run`] serves until it is
//! stopped, and drains within [`DRAIN_TIMEOUT`].

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::base::clock::now_us;
use crate::base::http::{self, Guard};
use crate::base::telemetry::{Severity, Telemetry};
use crate::broker::listener;
use crate::cacc::driver::Control;
use crate::ditto;
use crate::edgeai;
use crate::gateway::directory::Directory;
use crate::gateway::external::{self, Broker};
use crate::gateway::outbox::Outbox;
use crate::reconcile::{self, Reconciler, ReconcilerContext};
use crate::registry::http::Clock;
use crate::registry::{self, Registry};
use crate::store::StoreOptions;
use crate::store::disk::Directory as DiskDirectory;
use crate::trigger::{Trigger, TriggerReaction};
use crate::twin::aggregate::Aggregates;
use crate::writer::{Committer, Found, Reaction, Writer};

/// The drain at the end takes no longer than this.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(1800);

/// How often leases are looked at; they are counted in seconds.
const LEASE_CHECK: Duration = Duration::from_millis(500);

/// The settings of `run`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where state lives.
    pub state: PathBuf,
    /// Ditto API, control API, dashboard, metrics.
    pub http: SocketAddr,
    /// MQTT.
    pub mqtt: SocketAddr,
    /// Eureka API.
    pub eureka: SocketAddr,
    /// An MQTT broker to use in place of the own listener.
    pub broker: Option<Broker>,
    /// Further host names that requests may carry.
    pub allowed_hosts: Vec<String>,
    /// Sizes of the log.
    pub store: StoreOptions,
}

/// Why the runtime did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address beyond loopback, which needs authentication.
    NotLoopback(&'static str, SocketAddr),
    /// An address cannot be bound.
    Bind(&'static str, SocketAddr, io::Error),
    /// Another process has the state directory.
    Locked(PathBuf),
    /// The state directory cannot be used.
    State(PathBuf, io::Error),
    /// A thread could not be started.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(what, address) => {
                write!(f, "{what} on {address} would be open to the network without authentication")
            }
            Self::Bind(what, address, _) => write!(f, "cannot listen on {address} for {what}"),
            Self::Locked(path) => {
                write!(f, "another runtime uses the state in {}", path.display())
            }
            Self::State(path, _) => write!(f, "the state in {} cannot be used", path.display()),
            Self::Thread(_) => f.write_str("a thread could not be started"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(_, _, error) | Self::State(_, error) | Self::Thread(error) => Some(error),
            Self::NotLoopback(..) | Self::Locked(_) => None,
        }
    }
}

/// Where the runtime listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// MQTT; `None` where an external broker is used.
    pub mqtt: Option<SocketAddr>,
    /// Eureka.
    pub eureka: SocketAddr,
}

/// A runtime that has started.
pub struct Runtime {
    /// Where it listens.
    pub addresses: Addresses,
    /// What it found on the disk.
    pub found: Found,
    /// The twins.
    pub writer: Arc<Writer>,
    /// Metrics and events.
    pub telemetry: Arc<Telemetry>,
    listeners: Listeners,
    config: Config,
    directory: Arc<Directory>,
    trigger: Arc<Trigger>,
    registry: Arc<Registry>,
    clock: Clock,
    /// Keeps what was declared.
    pub reconciler: Arc<Reconciler>,
    /// Makes nodes transmit as rules define.
    pub control: Arc<Control>,
    outbox: Arc<Outbox>,
    committer: Committer,
    _lock: File,
}

struct Listeners {
    http: TcpListener,
    mqtt: Front,
    eureka: TcpListener,
}

/// Where nodes are met.
enum Front {
    /// The own listener.
    Listener(std::net::TcpListener),
    /// An external broker, and the name of the session that it keeps for this runtime.
    External(Broker, String),
}

impl Runtime {
    /// Binds, locks and recovers.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left behind.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        for (what, address) in
            [("HTTP", config.http), ("MQTT", config.mqtt), ("Eureka", config.eureka)]
        {
            if !address.ip().is_loopback() {
                return Err(StartError::NotLoopback(what, address));
            }
        }
        let http = bind("HTTP", config.http).await?;
        let mqtt = match config.broker {
            None => Some(bind("MQTT", config.mqtt).await?),
            Some(_) => None,
        };
        let eureka = bind("Eureka", config.eureka).await?;
        let state = |error| StartError::State(config.state.clone(), error);
        let addresses = Addresses {
            http: http.local_addr().map_err(state)?,
            mqtt: mqtt.as_ref().map(TcpListener::local_addr).transpose().map_err(state)?,
            eureka: eureka.local_addr().map_err(state)?,
        };
        tracing::info!(
            http = %addresses.http,
            mqtt = addresses.mqtt.map(tracing::field::display),
            eureka = %addresses.eureka,
            "listening"
        );
        let lock = lock(&config.state)?;
        let disk = DiskDirectory::open(&config.state.join("log")).map_err(state)?;
        let telemetry = Arc::new(Telemetry::default());
        // Only balancing draws from it, and that is not to be repeatable across starts.
        let registry = Arc::new(Registry::new(now_us().unsigned_abs()));
        let clock = Clock::default();
        let trigger = Arc::new(Trigger::new(registry.clone(), clock, telemetry.clone()));
        let aggregates = Arc::new(Aggregates::new(telemetry.clone()));
        let reactions: Vec<Arc<dyn Reaction>> =
            vec![aggregates.clone(), Arc::new(TriggerReaction(trigger.clone()))];
        let (writer, found) =
            Writer::open(Arc::new(disk), config.store.clone(), reactions).map_err(state)?;
        let writer = Arc::new(writer);
        writer.measure(telemetry.clone());
        report(&found, &telemetry);
        let outbox = Arc::new(Outbox::default());
        writer.add_sink(outbox.clone());
        let committer = Committer::start(writer.clone()).map_err(StartError::Thread)?;
        let directory = Arc::new(Directory::default());
        let control =
            Control::new(writer.clone(), aggregates.clone(), telemetry.clone(), outbox.clone());
        let reconciler = Reconciler::new(ReconcilerContext {
            writer: writer.clone(),
            directory: directory.clone(),
            telemetry: telemetry.clone(),
            services: trigger.clone(),
            state_dir: config.state.clone(),
            aggregates,
            control: control.clone(),
        });
        trigger.start(writer.clone(), tokio::runtime::Handle::current(), addresses.http.port());
        let mqtt = match (mqtt, &config.broker) {
            (Some(listener), _) => Front::Listener(listener.into_std().map_err(state)?),
            (None, Some(broker)) => {
                let session = session_name(&config.state).map_err(state)?;
                Front::External(broker.clone(), session)
            }
            (None, None) => unreachable!("without a broker there is a listener"),
        };
        let listeners = Listeners { http, mqtt, eureka };
        Ok(Self {
            addresses,
            found,
            writer,
            telemetry,
            listeners,
            directory,
            trigger,
            registry,
            clock,
            reconciler,
            control,
            outbox,
            committer,
            config,
            _lock: lock,
        })
    }

    /// Serves until `stop` turns true.
    ///
    /// # Errors
    /// When the MQTT thread cannot be started.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), StartError> {
        let context = crate::gateway::intake::IntakeContext {
            writer: self.writer.clone(),
            directory: self.directory.clone(),
            telemetry: self.telemetry.clone(),
            outbox: self.outbox.clone(),
            uplinks: self.control.clone(),
        };
        let mqtt =
            mqtt_thread(self.listeners.mqtt, context, stop.clone()).map_err(StartError::Thread)?;
        tokio::spawn(snapshots(self.writer.clone(), self.telemetry.clone()));

        let api = ditto::Api::new(self.writer.clone(), self.telemetry.clone(), stop.clone());
        self.writer.add_sink(api.feed());
        let router = Router::new()
            .merge(ditto::router(api))
            .merge(edgeai::http::router(self.trigger.clone()))
            .merge(reconcile::http::router(self.reconciler.clone()));
        let reconciling = self.reconciler.clone().run(stop.clone());
        let controlling = self.control.clone().run(stop.clone());
        let leases =
            leases(self.registry.clone(), self.clock, self.telemetry.clone(), stop.clone());
        let guard =
            |address| Guard::new(address, &self.config.allowed_hosts, self.telemetry.clone());
        let http =
            http::serve(self.listeners.http, router, guard(self.addresses.http), stop.clone());
        let eureka = http::serve(
            self.listeners.eureka,
            registry::http::router(self.registry.clone(), self.clock),
            guard(self.addresses.eureka),
            stop.clone(),
        );
        tokio::join!(http, eureka, reconciling, controlling, leases);

        let ended = tokio::task::spawn_blocking(move || mqtt.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            let remedy = "restart the runtime, and report it";
            tracing::error!(remedy, "the MQTT thread panicked");
        }
        self.writer.commit();
        let committer = self.committer;
        if tokio::task::spawn_blocking(move || committer.end()).await.is_err() {
            let remedy = "restart the runtime, and report it";
            tracing::error!(remedy, "the committing thread could not be ended");
        }
        Ok(())
    }
}

/// Opens the state without serving it: what the log holds, and the lock that keeps others out.
///
/// # Errors
/// See [`StartError`].
pub fn open_state(state: &Path) -> Result<(Writer, Found, File), StartError> {
    let lock = lock(state)?;
    let failed = |error| StartError::State(state.to_owned(), error);
    let disk = DiskDirectory::open(&state.join("log")).map_err(failed)?;
    let (writer, found) =
        Writer::open(Arc::new(disk), StoreOptions::default(), Vec::new()).map_err(failed)?;
    Ok((writer, found, lock))
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind(what, address, error))
}

fn lock(state: &Path) -> Result<File, StartError> {
    let failed = |error| StartError::State(state.to_owned(), error);
    std::fs::create_dir_all(state).map_err(failed)?;
    let file = File::create(state.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked(state.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The name under which an external broker keeps this runtime's session; made once, and kept.
fn session_name(state: &Path) -> io::Result<String> {
    let path = state.join("broker-session");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "broker-session is empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = format!("edgetwin-{:016x}", rand::random::<u64>());
            std::fs::write(&path, &name)?;
            File::open(&path)?.sync_all()?;
            Ok(name)
        }
        Err(error) => Err(error),
    }
}

fn mqtt_thread(
    front: Front,
    context: crate::gateway::intake::IntakeContext,
    stop: watch::Receiver<bool>,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("mqtt".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let listener = match front {
                Front::External(broker, session) => {
                    return external::run(broker, session, context, stop).await;
                }
                Front::Listener(listener) => listener,
            };
            match TcpListener::from_std(listener) {
                Ok(listener) => listener::serve(listener, context, stop).await,
                Err(error) => {
                    let remedy = "restart the runtime, and report it";
                    tracing::error!(%error, remedy, "the MQTT listener cannot be used");
                }
            }
        });
    })
}

/// Ends leases that were not renewed.
async fn leases(
    registry: Arc<Registry>,
    clock: Clock,
    telemetry: Arc<Telemetry>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(LEASE_CHECK);
    loop {
        tokio::select! {
            () = http::stopped(&mut stop) => return,
            _ = tick.tick() => {}
        }
        for instance in registry.expire(clock.now()) {
            telemetry.event(
                now_us(),
                Severity::Warning,
                "LeaseExpired",
                format!("Service/{}", instance.app.to_lowercase()),
                format!("instance {} did not renew its lease", instance.id),
            );
        }
    }
}

async fn snapshots(writer: Arc<Writer>, telemetry: Arc<Telemetry>) {
    loop {
        writer.snapshot_due().await;
        let taker = writer.clone();
        let started = Instant::now();
        match tokio::task::spawn_blocking(move || taker.write_snapshot()).await {
            Ok(Ok(true)) => tracing::info!(took = ?started.elapsed(), "snapshot written"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => telemetry.event(
                now_us(),
                Severity::Warning,
                "SnapshotFailed",
                "Store",
                format!(
                    "no snapshot could be written: {error}; the log goes on, a start takes longer"
                ),
            ),
            Err(error) => {
                let remedy = "restart the runtime, and report it";
                tracing::error!(%error, remedy, "the snapshot thread panicked");
            }
        }
    }
}

fn report(found: &Found, telemetry: &Telemetry) {
    let warn = |reason, message: String| {
        telemetry.event(now_us(), Severity::Warning, reason, "Store", message);
    };
    if found.recovery.torn_bytes > 0 {
        let torn = found.recovery.torn_bytes;
        telemetry.event(
            now_us(),
            Severity::Normal,
            "TornTail",
            "Store",
            format!("{torn} bytes that a crash tore were cut off; they were never acknowledged"),
        );
    }
    for damage in &found.recovery.damage {
        warn(
            "CorruptHistory",
            format!(
                "segment {} is damaged at byte {} ({} bytes); it names {} twins",
                damage.segment,
                damage.offset,
                damage.len,
                damage.keys.len()
            ),
        );
    }
    for name in &found.recovery.bad_snapshots {
        warn("CorruptSnapshot", format!("{name} does not read back; the one before was used"));
    }
    if found.unreadable > 0 {
        warn("UnreadableRecords", format!("{} records could not be understood", found.unreadable));
    }
    for id in &found.stalled {
        telemetry.event(
            now_us(),
            Severity::Warning,
            "CorruptHistory",
            format!("Twin/{}/{}", id.namespace(), id.name()),
            "shows the newest state that can be proved and takes no changes until `edgetwin doctor --accept-loss`",
        );
    }
}
