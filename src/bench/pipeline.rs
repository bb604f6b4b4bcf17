//! The benchmark of the whole chain: reading → twin → trigger → lookup → inference → verdict.
//!
//! Manifests are applied to the runtime, the one who watches is an MQTT client as nodes are, a
//! service over HTTP is an `edgetwin serve` that registered through Eureka. Each case has a fresh
//! runtime, so stages and memory are its own. Every verdict is checked to be about the reading
//! that was sent and to say what the model says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::floor::{self, Floor};
use super::load::{Driver, Load as Drive, Sample, rows, sample};
use super::process::{self, Machine, Process, TemporaryDirectory};
use super::runtime::{RuntimeProcess, model_manifest, twins_manifest};
use super::{Error, Latency, Watch, failed, hundredth, tenth};
use crate::edgeai::Classifier;
use crate::edgeai::generate::{CHANNELS, LABELS, SyntheticWorld as World};
use crate::edgeai::train::{Recipe, fit};
use crate::reconcile::disk::digest_of;

/// Readings under way at saturation.
pub const IN_FLIGHT: usize = 256;
/// Readings a second, where nothing else is asked for.
pub const RATE: f64 = 1000.0;
/// Twins of a case: so many that one without a reading under way is found at saturation.
const TWINS: usize = 2 * IN_FLIGHT;
/// Connections of nodes where more than one reading is under way.
const CONNECTIONS: usize = 8;
/// Measurements of the floor before and after each case.
const FLOOR_COUNT: u32 = 150;

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
pub struct PipelinePlan {
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

impl PipelinePlan {
    /// How many steps are passed to [`Watch::step`].
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
pub struct PipelineReport {
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
pub fn run(plan: &PipelinePlan, watch: &dyn Watch) -> Result<PipelineReport, Error> {
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
    Ok(PipelineReport {
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
    fn new(classifier: Classifier, plan: &PipelinePlan) -> Result<Self, Error> {
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

struct Bench<'a> {
    plan: &'a PipelinePlan,
    watch: &'a dyn Watch,
    directory: &'a Path,
    floor: Floor,
}

impl Bench<'_> {
    fn start(&self) -> Result<RuntimeProcess, Error> {
        if self.watch.stopped() {
            return Err(Error::Interrupted);
        }
        RuntimeProcess::start(self.directory)
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
        runtime: &RuntimeProcess,
        judge: Option<(&Judge, Placement)>,
    ) -> Result<Option<Process>, Error> {
        let mut objects = vec![model_manifest()];
        let mut spec = json!({"model": "env-node"});
        let mut model_file = PathBuf::new();
        if let Some((judge, placement)) = judge {
            let name = judge.classifier.name();
            let file = format!("{name}.etm");
            model_file = self.directory.join(&file);
            std::fs::write(&model_file, &judge.bytes)
                .map_err(|error| failed(format!("{}: {error}", model_file.display())))?;
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
            spec["services"] = json!([name]);
        }
        objects.push(twins_manifest(TWINS, &spec));
        runtime.apply(self.directory, &objects)?;
        let mut serving = None;
        if let Some((judge, Placement::Http)) = judge {
            let name = judge.classifier.name();
            let eureka = &runtime.eureka;
            let mut served = Process::start(&[
                "serve",
                &model_file.to_string_lossy(),
                "--name",
                name,
                "--eureka",
                eureka,
            ])?;
            served.says("registered ")?;
            serving = Some(served);
        }
        runtime.wait()?;
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
        let serving = self.apply(&runtime, Some((judge, placement)))?;
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
        let done = runtime.measure(&mut driver, &drive, 2, self.watch)?;
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
        self.apply(&runtime, None)?;
        let rows = rows(self.plan.seed);
        let samples = rows.iter().map(|row| sample(row, None)).collect::<Result<_, _>>()?;
        let mut driver = Driver::connect(runtime.mqtt, connections, TWINS, None, samples)?;
        driver.warm_up(self.watch)?;
        let duration = Duration::from_secs_f64(self.plan.seconds);
        let drive = Drive { in_flight, rate: None, duration, count: u64::MAX };
        let done = runtime.measure(&mut driver, &drive, 1, self.watch)?;
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
}
