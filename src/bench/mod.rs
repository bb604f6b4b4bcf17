//! The benchmark of the whole chain: reading → twin → trigger → lookup → inference → verdict.
//!
//! Measured from outside, on the paths that users use: the runtime is a process of its own with a
//! state directory of its own and default durability, manifests are applied to it, nodes and the
//! one who watches are MQTT clients on sockets, a service over HTTP is an `edgetwin serve` that
//! registered through Eureka. Each case has a fresh runtime, so stages and memory are its own.
//!
//! A benchmark that skips work fails: every verdict is checked to be about the reading that was
//! sent and to say what the model says, and afterwards every twin has to have the revision that
//! follows from what was sent, as the HTTP API shows it.
//!
//! Not here: what is printed (`cli::bench`).

mod floor;
mod load;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::edgeai::generate::{CHANNELS, LABELS, Plan as World};
use crate::edgeai::train::{Recipe, fit};
use crate::edgeai::{Classifier, Model, Prediction};
use crate::reconcile::disk::digest_of;

use floor::Floor;
use load::{Driver, Load as Drive, Sample};
pub use process::Machine;
use process::{Process, TemporaryDirectory};

/// Readings under way at saturation.
pub const IN_FLIGHT: usize = 256;
/// Readings a second, where nothing else is asked for.
pub const RATE: f64 = 1000.0;
/// Twins of a case: so many that one without a reading under way is found at saturation.
const TWINS: usize = 2 * IN_FLIGHT;
/// Connections of nodes where more than one reading is under way.
const CONNECTIONS: usize = 8;
/// Different readings that are sent, one after the other and over again.
const SAMPLES: usize = 997;
/// Measurements of the floor before and after each case.
const FLOOR_COUNT: u32 = 150;

/// Why a benchmark has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It was asked to stop.
    Interrupted,
    /// Something failed or was not as it has to be.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

fn failed(why: impl Into<String>) -> Error {
    Error::Failed(why.into())
}

/// Follows a benchmark and may stop it.
pub trait Watch {
    /// Something else begins: its name.
    fn step(&self, what: &str);
    /// So much of it is done, from 0 to 1.
    fn tick(&self, share: f64);
    /// Whether to stop.
    fn stopped(&self) -> bool;
}

/// Where the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// In the runtime.
    InProcess,
    /// In a process of its own, called over HTTP.
    Http,
}

impl Placement {
    /// As in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Http => "http",
        }
    }
}

/// How readings come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// One after the other.
    One,
    /// At a fixed rate, whatever becomes of them.
    Rate,
    /// As many under way as [`IN_FLIGHT`].
    Saturation,
}

impl Load {
    /// As in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Rate => "rate",
            Self::Saturation => "saturation",
        }
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Time for each case.
    pub seconds: f64,
    /// With which classifiers.
    pub classifiers: Vec<Classifier>,
    /// Where they run.
    pub placements: Vec<Placement>,
    /// How readings come.
    pub loads: Vec<Load>,
    /// Readings a second of [`Load::Rate`], a case for each.
    pub rates: Vec<f64>,
    /// Seed of readings and models.
    pub seed: u64,
    /// Where state directories are made.
    pub directory: PathBuf,
    /// Also measure updates without triggers.
    pub updates: bool,
    /// Rows that models learn from.
    pub rows: u32,
}

impl Plan {
    /// How many steps [`Watch::step`] is told of.
    pub fn steps(&self) -> usize {
        let loads: usize = self.loads.iter().map(|load| self.rates_of(*load).len()).sum();
        let updates = if self.updates { UPDATES.len() } else { 0 };
        self.classifiers.len() * (1 + self.placements.len() * loads) + updates
    }

    fn rates_of(&self, load: Load) -> Vec<Option<f64>> {
        match load {
            Load::Rate => self.rates.iter().copied().map(Some).collect(),
            Load::One | Load::Saturation => vec![None],
        }
    }
}

/// Percentiles, microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// One in ten is above.
    pub p90: f64,
    /// One in a hundred is above.
    pub p99: f64,
    /// One in a thousand is above.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| tenth(histogram.value_at_quantile(quantile) as f64 / 1e3);
        let max = tenth(histogram.max() as f64 / 1e3);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

/// What the machine takes for the same parts, median, microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct FloorReport {
    /// Writing a block of 4 KiB into a file that has its length, and fdatasync.
    pub fdatasync: f64,
    /// There and back between two threads over TCP.
    pub loopback: f64,
    /// The bare model, by classifier.
    pub inference: BTreeMap<&'static str, f64>,
}

/// One case.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// Kind of model.
    pub classifier: &'static str,
    /// Where it runs.
    pub placement: Placement,
    /// How readings came.
    pub load: Load,
    /// Readings a second that were asked for; none in a closed loop.
    pub rate_per_s: Option<f64>,
    /// From a reading being due to its verdict being received.
    pub latency_us: Latency,
    /// Verdicts a second.
    pub throughput_per_s: f64,
    /// Medians of the stages inside the runtime.
    pub stages_us: BTreeMap<&'static str, f64>,
    /// Sync, round trip and inference, measured just before and after.
    pub floor_us: f64,
    /// Median latency, in floors.
    pub ratio_to_floor: f64,
    /// Readings sent: each has one verdict.
    pub readings: u64,
    /// By how much the twins' revisions grew together: a reading and a verdict each.
    pub revisions: u64,
    /// Bytes handed to the disk, for a reading with its verdict.
    pub bytes_per_reading: f64,
    /// Readings made durable by one sync.
    pub readings_per_sync: f64,
    /// Time of processors that the runtime took for a reading with its verdict: unlike latency,
    /// hardly depends on what else the machine does.
    pub cpu_us_per_reading: f64,
    /// Memory of the runtime afterwards, KiB.
    pub rss_kib: u64,
}

/// Updates without triggers.
#[derive(Debug, Clone, Serialize)]
pub struct Updates {
    /// Connections of nodes.
    pub connections: usize,
    /// Readings under way, together.
    pub in_flight: usize,
    /// From a reading being sent to its PUBACK.
    pub latency_us: Latency,
    /// Durable updates a second.
    pub throughput_per_s: f64,
    /// Bytes handed to the disk for each.
    pub bytes_per_update: f64,
    /// Updates made durable by one sync.
    pub updates_per_sync: f64,
    /// Time of processors that the runtime took for each.
    pub cpu_us_per_update: f64,
    /// Readings sent.
    pub readings: u64,
    /// By how much the twins' revisions grew together.
    pub revisions: u64,
    /// Memory of the runtime afterwards, KiB.
    pub rss_kib: u64,
}

/// Connections and readings under way of the cases without triggers.
const UPDATES: [(usize, usize); 4] = [(1, 1), (16, 16), (4, IN_FLIGHT), (8, 2 * IN_FLIGHT)];

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// Of this program.
    pub version: &'static str,
    /// Seed of readings and models.
    pub seed: u64,
    /// What the machine takes.
    pub floor_us: FloorReport,
    /// The chain.
    pub cases: Vec<Case>,
    /// Updates without triggers.
    pub updates: Vec<Updates>,
    /// Memory of a runtime without anything, KiB.
    pub idle_rss_kib: u64,
    /// From starting a runtime without state until it is ready, milliseconds.
    pub start_ms: f64,
    /// Length of the program, bytes.
    pub binary_bytes: u64,
}

/// Runs a benchmark. Processes and directories are gone when it returns.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &Plan, watch: &dyn Watch) -> Result<Report, Error> {
    let directory = TemporaryDirectory::new(&plan.directory)?;
    let machine = Machine::here();
    let binary = std::env::current_exe().and_then(std::fs::metadata);
    let mut bench = Bench { plan, watch, directory: directory.path(), floor: Floor::new() };
    let (idle_rss_kib, start_ms) = bench.idle()?;
    let mut inference = BTreeMap::new();
    let mut cases = Vec::new();
    for &classifier in &plan.classifiers {
        watch.step(&format!("training {classifier}"));
        let judge = Judge::new(classifier, plan)?;
        inference.insert(classifier.name(), tenth(judge.inference_us));
        for &placement in &plan.placements {
            for &load in &plan.loads {
                for rate in plan.rates_of(load) {
                    cases.push(bench.case(&judge, placement, load, rate)?);
                }
            }
        }
    }
    let mut updates = Vec::new();
    if plan.updates {
        for (connections, in_flight) in UPDATES {
            updates.push(bench.updates(connections, in_flight)?);
        }
    }
    bench.floor.measure(bench.directory, FLOOR_COUNT)?;
    Ok(Report {
        machine,
        version: env!("CARGO_PKG_VERSION"),
        seed: plan.seed,
        floor_us: FloorReport {
            fdatasync: tenth(floor::median_us(&bench.floor.fdatasync)),
            loopback: tenth(floor::median_us(&bench.floor.loopback)),
            inference,
        },
        cases,
        updates,
        idle_rss_kib,
        start_ms,
        binary_bytes: binary.map_err(|error| failed(error.to_string()))?.len(),
    })
}

/// A trained model and what it says about the readings that are sent.
struct Judge {
    classifier: Classifier,
    bytes: Vec<u8>,
    samples: Vec<Sample>,
    inference_us: f64,
}

impl Judge {
    fn new(classifier: Classifier, plan: &Plan) -> Result<Self, Error> {
        let world = |seed, nodes, rows: u32| World {
            seed,
            nodes,
            days: 7.0,
            interval_s: 7.0 * 86_400.0 / (f64::from(rows / nodes) + 0.5),
        };
        let data = world(plan.seed, 4, plan.rows).dataset().map_err(|e| failed(e.to_string()))?;
        let mut recipe = Recipe::new(classifier);
        recipe.seed = plan.seed;
        let model = fit(&data, &recipe).map_err(|error| failed(error.to_string()))?;
        let rows = rows(plan.seed);
        let inference_us = floor::inference_us(&model, &rows)?;
        let samples = rows.iter().map(|row| sample(row, Some(&model))).collect::<Result<_, _>>()?;
        Ok(Self { classifier, bytes: model.to_bytes(), samples, inference_us })
    }
}

/// Readings that nobody was trained on.
fn rows(seed: u64) -> Vec<Vec<f32>> {
    let world = World { seed: seed.wrapping_add(1), nodes: 1, days: 7.0, interval_s: 600.0 };
    let rounded = |value: &f32| ((f64::from(*value) * 100.0).round() / 100.0) as f32;
    let samples = world.samples().take(SAMPLES);
    samples.map(|(_, _, sample)| sample.values.iter().map(rounded).collect()).collect()
}

fn sample(row: &[f32], model: Option<&Model>) -> Result<Sample, Error> {
    let mut values = serde_json::Map::new();
    let mut sent = Vec::new();
    for (name, value) in CHANNELS.iter().zip(row) {
        let value = (f64::from(*value) * 100.0).round() / 100.0;
        values.insert((*name).to_owned(), value.into());
        sent.push(value as f32);
    }
    let label = match model {
        Some(model) => {
            let mut prediction = Prediction::default();
            model.predict(&sent, &mut prediction).map_err(|error| failed(error.to_string()))?;
            model.label(prediction.label).to_owned()
        }
        None => String::new(),
    };
    Ok(Sample { tail: format!("\"environment\":{}}}", Value::Object(values)), label })
}

/// A runtime in a process of its own.
struct Started {
    process: Process,
    http: SocketAddr,
    mqtt: SocketAddr,
    eureka: String,
}

impl Started {
    fn server(&self) -> String {
        format!("http://{}", self.http)
    }
}

struct Bench<'a> {
    plan: &'a Plan,
    watch: &'a dyn Watch,
    directory: &'a Path,
    floor: Floor,
}

impl Bench<'_> {
    fn start(&self) -> Result<Started, Error> {
        if self.watch.stopped() {
            return Err(Error::Interrupted);
        }
        let state = self.directory.join("state");
        if state.exists() {
            std::fs::remove_dir_all(&state).map_err(|error| failed(error.to_string()))?;
        }
        let state = state.to_string_lossy();
        let mut process = Process::start(&[
            "run",
            "--state",
            &state,
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
            "--eureka",
            "127.0.0.1:0",
        ])?;
        let address = |text: &str| {
            let (_, address) = text.split_once("://").unwrap_or_default();
            address.parse().map_err(|_| failed(format!("`{text}` is not an address")))
        };
        let http = address(&process.says("http ")?)?;
        let mqtt = address(&process.says("mqtt ")?)?;
        let eureka = process.says("eureka ")?;
        process.says("ready ")?;
        Ok(Started { process, http, mqtt, eureka })
    }

    /// Memory of a runtime without anything, KiB, and the time until it is ready, milliseconds.
    fn idle(&self) -> Result<(u64, f64), Error> {
        let started = std::time::Instant::now();
        let runtime = self.start()?;
        let took = started.elapsed();
        // What the start took goes back to the system as pages are touched no more.
        std::thread::sleep(Duration::from_millis(100));
        let rss = process::rss_kib(runtime.process.id())?;
        runtime.process.end()?;
        Ok((rss, tenth(took.as_secs_f64() * 1e3)))
    }

    /// Applies the manifests; with a service in a process of its own, that process.
    fn apply(
        &self,
        runtime: &Started,
        judge: Option<(&Judge, Placement)>,
        twins: usize,
    ) -> Result<Option<Process>, Error> {
        let write = |name: &str, bytes: &[u8]| {
            let path = self.directory.join(name);
            std::fs::write(&path, bytes)
                .map_err(|error| failed(format!("{}: {error}", path.display())))?;
            Ok(path.to_string_lossy().into_owned())
        };
        let number = |unit, minimum: f64, maximum: f64| json!({"type": "number", "unit": unit, "minimum": minimum, "maximum": maximum});
        let mut objects =
            vec![json!({"kind": "TwinModel", "metadata": {"name": "env-node"}, "spec": {
                "features": {"environment": {"properties": {
                    "temperature": number("Cel", -40.0, 85.0),
                    "humidity": number("%RH", 0.0, 100.0),
                    "loudness": number("dB", 0.0, 140.0),
                    "light": number("lx", 0.0, 100_000.0),
                }}},
            }})];
        let mut template = json!({"model": "env-node"});
        let mut model_file = String::new();
        if let Some((judge, placement)) = judge {
            let name = judge.classifier.name();
            let file = format!("{name}.etm");
            model_file = write(&file, &judge.bytes)?;
            let inputs: Vec<String> =
                CHANNELS.iter().map(|channel| format!("environment/{channel}")).collect();
            let service = match placement {
                Placement::InProcess => {
                    objects.push(json!({"kind": "Model", "metadata": {"name": name}, "spec": {
                        "classifier": name,
                        "inputs": CHANNELS,
                        "labels": LABELS,
                        "file": file,
                        "digest": format!("sha256:{}", digest_of(&judge.bytes)),
                    }}));
                    json!({"inputs": inputs, "model": name})
                }
                Placement::Http => json!({"inputs": inputs, "external": true}),
            };
            objects.push(json!({"kind": "Service", "metadata": {"name": name}, "spec": service}));
            template["services"] = json!([name]);
        }
        objects.push(json!({"kind": "TwinSet", "metadata": {"name": "n", "namespace": "bench"},
            "spec": {"count": twins, "template": {"spec": template}}}));
        let text: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        let manifests = write("bench.yaml", text.concat().as_bytes())?;
        let server = runtime.server();
        process::run(&["apply", "-f", &manifests, "--server", &server])?;
        let mut serving = None;
        if let Some((judge, Placement::Http)) = judge {
            let name = judge.classifier.name();
            let eureka = &runtime.eureka;
            let mut served =
                Process::start(&["serve", &model_file, "--name", name, "--eureka", eureka])?;
            served.says("registered ")?;
            serving = Some(served);
        }
        process::run(&["wait", "all", "-A", "--timeout", "60s", "--server", &server])?;
        Ok(serving)
    }

    fn case(
        &mut self,
        judge: &Judge,
        placement: Placement,
        load: Load,
        rate: Option<f64>,
    ) -> Result<Case, Error> {
        let name = judge.classifier.name();
        let words = match rate {
            Some(rate) => format!("{rate}/s"),
            None => load.name().to_owned(),
        };
        self.watch.step(&format!("{name} {} {words}", placement.name()));
        let runtime = self.start()?;
        let serving = self.apply(&runtime, Some((judge, placement)), TWINS)?;
        let connections = if load == Load::One { 1 } else { CONNECTIONS };
        let samples = judge.samples.clone();
        let mut driver = Driver::connect(runtime.mqtt, connections, TWINS, Some(name), samples)?;
        driver.warm_up(self.watch)?;
        let mut floor = Floor::new();
        floor.measure(self.directory, FLOOR_COUNT)?;
        let drive = Drive {
            in_flight: match load {
                Load::One => 1,
                Load::Rate => TWINS,
                Load::Saturation => IN_FLIGHT,
            },
            rate,
            duration: Duration::from_secs_f64(self.plan.seconds),
            count: u64::MAX,
        };
        let done = self.measure(&runtime, &mut driver, &drive, 2)?;
        floor.measure(self.directory, FLOOR_COUNT)?;
        self.floor.add(&floor)?;
        runtime.process.end()?;
        if let Some(serving) = serving {
            serving.end()?;
        }
        let latency_us = Latency::of(&done.outcome.latency);
        let floor_us = tenth(floor.p50_us() + judge.inference_us);
        Ok(Case {
            classifier: name,
            placement,
            load,
            rate_per_s: rate,
            latency_us,
            throughput_per_s: done.per_second(),
            stages_us: done.stages_us,
            floor_us,
            ratio_to_floor: hundredth(latency_us.p50 / floor_us),
            readings: done.outcome.count,
            revisions: done.revisions,
            bytes_per_reading: tenth(done.bytes),
            readings_per_sync: tenth(done.per_sync),
            cpu_us_per_reading: hundredth(done.cpu_us),
            rss_kib: done.rss_kib,
        })
    }

    fn updates(&mut self, connections: usize, in_flight: usize) -> Result<Updates, Error> {
        self.watch.step(&format!("updates, {in_flight} under way"));
        let runtime = self.start()?;
        self.apply(&runtime, None, TWINS)?;
        let rows = rows(self.plan.seed);
        let samples = rows.iter().map(|row| sample(row, None)).collect::<Result<_, _>>()?;
        let mut driver = Driver::connect(runtime.mqtt, connections, TWINS, None, samples)?;
        driver.warm_up(self.watch)?;
        let duration = Duration::from_secs_f64(self.plan.seconds);
        let drive = Drive { in_flight, rate: None, duration, count: u64::MAX };
        let done = self.measure(&runtime, &mut driver, &drive, 1)?;
        runtime.process.end()?;
        Ok(Updates {
            connections,
            in_flight,
            latency_us: Latency::of(&done.outcome.latency),
            throughput_per_s: done.per_second(),
            bytes_per_update: tenth(done.bytes),
            updates_per_sync: tenth(done.per_sync),
            cpu_us_per_update: hundredth(done.cpu_us),
            readings: done.outcome.count,
            revisions: done.revisions,
            rss_kib: done.rss_kib,
        })
    }

    /// Runs a load and checks that it left what it has to: `changes` for each reading.
    fn measure(
        &self,
        runtime: &Started,
        driver: &mut Driver,
        drive: &Drive,
        changes: u64,
    ) -> Result<Measured, Error> {
        let before = revisions(runtime.http, TWINS)?;
        driver.set_revisions(&before);
        let metrics_before = process::metrics(runtime.http)?;
        let cpu_before = process::cpu_time(runtime.process.id())?;
        let outcome = driver.run(drive, self.watch)?;
        let cpu = process::cpu_time(runtime.process.id())?.saturating_sub(cpu_before);
        let metrics = process::metrics(runtime.http)?;
        let rss_kib = process::rss_kib(runtime.process.id())?;
        let after = revisions(runtime.http, TWINS)?;
        if after != driver.revisions() {
            return Err(failed("the twins do not have the revisions that their verdicts tell"));
        }
        let revisions = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        let grown = |name: &str| {
            let of = |metrics: &BTreeMap<String, f64>| metrics.get(name).copied().unwrap_or(0.0);
            of(&metrics) - of(&metrics_before)
        };
        let readings = outcome.count;
        let taken = grown("edgetwin_readings_total") as u64;
        let judged = grown("edgetwin_verdicts_total") as u64;
        if readings == 0
            || revisions != readings * changes
            || taken != readings
            || judged != readings * (changes - 1)
        {
            return Err(failed(format!(
                "{readings} readings were sent; the runtime took {taken}, gave {judged} verdicts, \
                 and the twins' revisions grew by {revisions}"
            )));
        }
        let stage = |name: &'static str| {
            let metric = format!("edgetwin_stage_{name}_seconds");
            let count = metrics.get(&format!("{metric}_count"))?;
            let median = metrics.get(&format!("{metric}{{quantile=\"0.5\"}}"))?;
            (*count > 0.0).then_some((name, hundredth(median * 1e6)))
        };
        let names = ["apply", "lookup", "inference", "call", "commit", "ack"];
        Ok(Measured {
            revisions,
            stages_us: names.into_iter().filter_map(stage).collect(),
            bytes: grown("edgetwin_log_bytes_total") / readings as f64,
            per_sync: readings as f64 / grown("edgetwin_log_batches_total").max(1.0),
            cpu_us: cpu.as_secs_f64() * 1e6 / readings as f64,
            rss_kib,
            outcome,
        })
    }
}

/// What a load left.
struct Measured {
    outcome: load::Outcome,
    revisions: u64,
    stages_us: BTreeMap<&'static str, f64>,
    bytes: f64,
    per_sync: f64,
    cpu_us: f64,
    rss_kib: u64,
}

impl Measured {
    fn per_second(&self) -> f64 {
        tenth(self.outcome.count as f64 / self.outcome.took.as_secs_f64())
    }
}

/// The twins' revisions as the HTTP API shows them.
fn revisions(server: SocketAddr, twins: usize) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for chunk in (1..=twins).collect::<Vec<_>>().chunks(128) {
        let ids: Vec<String> = chunk.iter().map(|n| format!("bench:n-{n}")).collect();
        let path = format!("/api/2/things?fields=thingId,_revision&ids={}", ids.join(","));
        let body = process::get(server, &path)?;
        let things: Vec<Value> =
            serde_json::from_str(&body).map_err(|error| failed(error.to_string()))?;
        for (id, thing) in ids.iter().zip(things) {
            match (thing["thingId"].as_str(), thing["_revision"].as_u64()) {
                (Some(name), Some(revision)) if name == id => found.push(revision),
                _ => return Err(failed(format!("{id} is not among the twins"))),
            }
        }
    }
    if found.len() != twins {
        return Err(failed(format!("{} of {twins} twins are there", found.len())));
    }
    Ok(found)
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram accepts.
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds"))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredth(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
