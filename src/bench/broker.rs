//! The benchmark of the broker: readings acknowledged a second, QoS 1, each durable in its twin.
//!
//! Another broker can stand beside it: the same client sends it the same packets in turns with the
//! runtime, so that both see the same machine. What that broker does before it acknowledges is its
//! own matter; most keep QoS 1 messages in memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::load::{Driver, Load, rows, sample};
use super::process::{Machine, TemporaryDirectory};
use super::runtime::{RuntimeProcess, model_manifest, twins_manifest};
use super::{Error, Latency, Watch, failed, hundredth, tenth};

/// Connections of nodes.
pub const CONNECTIONS: usize = 8;
/// Readings under way on each connection.
pub const IN_FLIGHT: usize = 64;
/// Rounds where another broker stands beside it.
pub const ROUNDS: usize = 3;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BrokerPlan {
    /// Time for each round.
    pub seconds: f64,
    /// Seed of the readings.
    pub seed: u64,
    /// Where the state directory is made.
    pub directory: PathBuf,
    /// A broker to measure in turns with the runtime.
    pub beside: Option<SocketAddr>,
}

impl BrokerPlan {
    /// How many steps are passed to [`Watch::step`].
    pub fn steps(&self) -> usize {
        if self.beside.is_some() { 2 * ROUNDS } else { 1 }
    }
}

/// One round of one broker.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Readings acknowledged a second.
    pub throughput_per_s: f64,
    /// From a reading being sent to its PUBACK.
    pub latency_us: Latency,
    /// Readings sent, all of them acknowledged.
    pub readings: u64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct BrokerReport {
    /// On what.
    pub machine: Machine,
    /// Of this program.
    pub version: &'static str,
    /// Seed of the readings.
    pub seed: u64,
    /// Connections of nodes.
    pub connections: usize,
    /// Readings under way, together.
    pub in_flight: usize,
    /// The runtime's rounds: each reading durable in its twin.
    pub rounds: Vec<Round>,
    /// The other broker's, in turns with them.
    pub beside: Vec<Round>,
    /// The runtime's median rate, in rates of the other broker.
    pub ratio: Option<f64>,
}

/// Runs the benchmark. Processes and directories are gone when it returns.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &BrokerPlan, watch: &dyn Watch) -> Result<BrokerReport, Error> {
    let directory = TemporaryDirectory::new(&plan.directory)?;
    let machine = Machine::here();
    let twins = CONNECTIONS * IN_FLIGHT;
    let samples: Vec<_> =
        rows(plan.seed).iter().map(|row| sample(row, None)).collect::<Result<_, _>>()?;
    let runtime = RuntimeProcess::start(directory.path())?;
    let spec = json!({"model": "env-node"});
    runtime.apply(directory.path(), &[model_manifest(), twins_manifest(twins, &spec)])?;
    runtime.wait()?;
    let connect = |broker| Driver::connect(broker, CONNECTIONS, twins, None, samples.clone());
    let mut own = connect(runtime.mqtt)?;
    let mut other = match plan.beside {
        Some(broker) => Some(connect(broker)?),
        None => None,
    };
    let duration = Duration::from_secs_f64(plan.seconds);
    let load = Load { in_flight: twins, rate: None, duration, count: u64::MAX };
    own.warm_up(watch)?;
    if let Some(other) = &mut other {
        other.warm_up(watch)?;
    }
    let (mut rounds, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=if other.is_some() { ROUNDS } else { 1 } {
        watch.step(&format!("round {round}, the runtime"));
        rounds.push(Round::of(&runtime.measure(&mut own, &load, 1, watch)?.outcome));
        if let Some(other) = &mut other {
            watch.step(&format!("round {round}, the other broker"));
            beside.push(Round::of(&other.run(&load, watch)?));
        }
    }
    runtime.process.end()?;
    let ratio = (!beside.is_empty()).then(|| hundredth(median(&rounds) / median(&beside)));
    Ok(BrokerReport {
        machine,
        version: env!("CARGO_PKG_VERSION"),
        seed: plan.seed,
        connections: CONNECTIONS,
        in_flight: twins,
        rounds,
        beside,
        ratio,
    })
}

impl Round {
    fn of(outcome: &super::load::Outcome) -> Self {
        Self {
            throughput_per_s: tenth(outcome.count as f64 / outcome.took.as_secs_f64()),
            latency_us: Latency::of(&outcome.latency),
            readings: outcome.count,
        }
    }
}

fn median(rounds: &[Round]) -> f64 {
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.throughput_per_s).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// The address in `mqtt://HOST:PORT`.
///
/// # Errors
/// The host has no address.
pub fn address(host: &str, port: u16) -> Result<SocketAddr, Error> {
    use std::net::ToSocketAddrs;
    let found = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| failed(format!("{host} has no address")))
}
