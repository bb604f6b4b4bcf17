//! `edgetwin serve`: trained models as services of their own, registered with a Eureka.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::console::Console;
use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::Output;
use super::signals::Signals;
use crate::base::http::{self, Guard};
use crate::base::telemetry::Telemetry;
use crate::base::telemetry::log::Log;
use crate::base::units;
use crate::edgeai::http::router;
use crate::edgeai::{MODEL_BYTES_MAX, Model};
use crate::registry::http::{ClientError, Clock, EurekaClient};
use crate::registry::{Endpoint, Instance};

/// Serve trained models to other runtimes
///
/// Each model is a service that speaks the Open Inference Protocol v2. It registers with a Eureka
/// (the runtime has one), renews its lease, and deregisters when it is stopped. A registry that is
/// not there yet, or forgets, is asked again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin serve anomaly.etm --name data-anomaly --eureka http://127.0.0.1:8761/eureka\n  \
    edgetwin serve gas=gas.etm noise=noise.etm --http 127.0.0.1:9000")]
pub(super) struct Args {
    /// Model files, as FILE or NAME=FILE; without a name the service is named like its file
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Name of the service, if there is one model
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address to listen on
    #[arg(long, env = "EDGETWIN_SERVE_HTTP", value_name = "ADDR", default_value = "127.0.0.1:0")]
    http: String,
    /// Eureka to register with; without it the models are not registered
    #[arg(long, value_name = "URL")]
    eureka: Option<String>,
    /// How long a registration lives without a heartbeat, from 1s to 1h
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    lease: units::Duration,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Time that the registry has for an answer. Why: stopping asks it once for each model, at the same
/// time, and must end within two seconds.
const REGISTRY_TIMEOUT: Duration = Duration::from_millis(800);

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(args: &Args, log: &Log, output: &mut Output) -> Result<Outcome, CliError> {
    if args.with_parent {
        super::run::end_with_parent()?;
    }
    let models = models(args)?;
    let address = super::run::address("--http", &args.http)?;
    if !address.ip().is_loopback() {
        let message = format!("{address} is not loopback, and there is no authentication yet");
        return Err(CliError::new(ErrorKind::Failed, message)
            .hint("listen on 127.0.0.1 and put a reverse proxy in front"));
    }
    let lease_s = match args.lease.as_ms() / 1000 {
        s @ 1..=3600 => s as u32,
        _ => {
            let message = format!("--lease {} is not from 1s to 1h", args.lease);
            return Err(CliError::new(ErrorKind::Usage, message));
        }
    };
    let eureka = match &args.eureka {
        Some(url) => Some(
            EurekaClient::new(url, REGISTRY_TIMEOUT)
                .map_err(|error| CliError::new(ErrorKind::Usage, format!("--eureka: {error}")))?,
        ),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(ErrorKind::Failed, "no threads").because(&error))?;
    let console = Console::start(log, false)?;
    output.attach(console.lines());
    let ended = runtime.block_on(serve(models, address, eureka, lease_s, output));
    runtime.shutdown_timeout(Duration::from_millis(100));
    if console.end() {
        output.detach();
    }
    ended
}

fn models(args: &Args) -> Result<HashMap<String, Arc<Model>>, CliError> {
    if args.name.is_some() && args.models.len() > 1 {
        return Err(CliError::new(ErrorKind::Usage, "--name names one model, and there are more")
            .hint("write NAME=FILE for each"));
    }
    let mut models = HashMap::new();
    for given in &args.models {
        let (name, file) = match (&args.name, given.split_once('=')) {
            (Some(name), None) => (name.clone(), given.as_str()),
            (None, Some((name, file))) => (name.to_owned(), file),
            (None, None) => {
                let stem = Path::new(given).file_stem().unwrap_or_default();
                (stem.to_string_lossy().into_owned(), given.as_str())
            }
            (Some(_), Some(_)) => {
                return Err(CliError::new(ErrorKind::Usage, format!("{given} is named twice")));
            }
        };
        let unusable = |error: &dyn std::error::Error| {
            CliError::new(ErrorKind::Failed, format!("{file} cannot be served")).because(error)
        };
        let size = std::fs::metadata(file).map_err(|error| unusable(&error))?.len();
        if size > MODEL_BYTES_MAX as u64 {
            return Err(unusable(&crate::edgeai::ModelError::TooLarge));
        }
        let bytes = std::fs::read(file).map_err(|error| unusable(&error))?;
        let model = Model::from_bytes(&bytes).map_err(|error| unusable(&error))?;
        if name.is_empty() || models.insert(name.clone(), Arc::new(model)).is_some() {
            let message = format!("`{name}` names no or more than one model");
            return Err(CliError::new(ErrorKind::Usage, message).hint("write NAME=FILE for each"));
        }
    }
    Ok(models)
}

async fn serve(
    models: HashMap<String, Arc<Model>>,
    address: SocketAddr,
    eureka: Option<EurekaClient>,
    lease_s: u32,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let failed = |what: String, error: &dyn std::error::Error| {
        CliError::new(ErrorKind::Failed, what).because(error)
    };
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| failed(format!("{address} cannot be listened on"), &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| failed(format!("{address} has no address"), &error))?;

    let instances: Vec<Instance> =
        models.iter().map(|(name, model)| instance(name, model, address, lease_s)).collect();
    let guard = Guard::new(address, &[], Arc::new(Telemetry::default()));
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(http::serve(listener, router(Arc::new(models)), guard, stopped));

    output.note(&format!("http    http://{address}"));
    for instance in &instances {
        let version = instance.metadata.get("version").map_or("", String::as_str);
        output.note(&format!("serves  {} ({version})", instance.app.to_lowercase()));
    }
    output.note("ready   Ctrl-C stops");
    match eureka {
        Some(eureka) => {
            let eureka = Arc::new(eureka);
            let (report, mut reports) = mpsc::channel(16);
            let leases: Vec<_> = instances
                .iter()
                .map(|i| {
                    tokio::spawn(keep_registered(Arc::clone(&eureka), i.clone(), report.clone()))
                })
                .collect();
            loop {
                tokio::select! {
                    Some(line) = reports.recv() => output.note(&line),
                    () = signals.next() => break,
                }
            }
            leases.iter().for_each(tokio::task::JoinHandle::abort);
            deregister(&eureka, &instances, output).await;
        }
        None => signals.next().await,
    }
    // Calls that were under way when it deregistered are still answered.
    stop.send_replace(true);
    served.await.map_err(|error| failed("the server ended badly".to_owned(), &error))?;
    Ok(Outcome::Done)
}

fn instance(name: &str, model: &Model, address: SocketAddr, lease_s: u32) -> Instance {
    let endpoint = Endpoint::Http { host: address.ip().to_string(), port: address.port() };
    let mut instance =
        Instance::new(name, &format!("{}:{name}:{}", address.ip(), address.port()), endpoint);
    instance.lease.duration_s = lease_s;
    instance.lease.renewal_s = (lease_s / 3).max(1);
    instance.dirty_ms = Clock::default().now().unix_ms;
    instance.health_check = Some(format!("http://{address}/v2/health/ready"));
    instance.metadata = [
        ("protocol", "oip-v2"),
        ("model", name),
        ("version", model.version()),
        ("classifier", model.meta().classifier.name()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    instance
}

/// Registers, then renews three times a lease, registers again when the registry lost the instance, and
/// reports when that starts and stops failing.
async fn keep_registered(
    eureka: Arc<EurekaClient>,
    instance: Instance,
    report: mpsc::Sender<String>,
) {
    let every = Duration::from_secs(u64::from(instance.lease.duration_s)) / 3;
    // A registry that is not there is asked more often: calls wait for it.
    let again = every.min(Duration::from_secs(1));
    let name = instance.app.to_lowercase();
    let mut registered = false;
    let mut failing = false;
    loop {
        let asked = if registered {
            eureka.heartbeat(&instance).await
        } else {
            eureka.register(&instance).await
        };
        let wait = match asked {
            Ok(()) => {
                if !registered || failing {
                    drop(report.send(format!("registered {name} as {}", instance.id)).await);
                }
                (registered, failing) = (true, false);
                every
            }
            Err(ClientError::Status(404, _)) if registered => {
                registered = false;
                Duration::ZERO
            }
            Err(error) => {
                if !failing {
                    drop(
                        report
                            .send(format!("not registered {name}: {error}; it is tried again"))
                            .await,
                    );
                }
                failing = true;
                again
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Ends all leases at once; one that cannot be ended expires by itself.
async fn deregister(eureka: &Arc<EurekaClient>, instances: &[Instance], output: &mut Output) {
    let mut ending = tokio::task::JoinSet::new();
    for instance in instances.iter().cloned() {
        let eureka = Arc::clone(eureka);
        ending.spawn(async move { (eureka.cancel(&instance).await, instance) });
    }
    while let Some(ended) = ending.join_next().await {
        match ended {
            Ok((Ok(()) | Err(ClientError::Status(404, _)), instance)) => {
                output.note(&format!("deregistered {}", instance.app.to_lowercase()));
            }
            Ok((Err(error), instance)) => {
                let name = instance.app.to_lowercase();
                output.note(&format!("not deregistered {name}: {error}; its lease will end"));
            }
            Err(error) => output.note(&format!("not deregistered: {error}")),
        }
    }
}
