//! The benchmark of size: memory with many twins, the start after a crash, and `plan`.
//!
//! For each size a runtime gets that many twins of about 1 KB with a reading each, is killed with
//! SIGKILL and started again on what it left. After that every twin has to have the revision that
//! it had before. `plan` compares [`PLANNED`] twins, each a document of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::load::{Driver, Load, rows, sample};
use super::process::{self, Machine, TemporaryDirectory};
use super::runtime::{RuntimeProcess, model_manifest, revisions, twins_manifest};
use super::{Error, Watch, failed, tenth};

/// Objects that `plan` compares.
pub const PLANNED: usize = 10_000;
/// Bytes of text among a twin's attributes, which together with the rest make it 1 KB.
const TEXT_LEN: usize = 780;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ScalePlan {
    /// Numbers of twins.
    pub counts: Vec<usize>,
    /// Objects that `plan` compares.
    pub planned: usize,
    /// Seed of the readings.
    pub seed: u64,
    /// Where state directories are made.
    pub directory: PathBuf,
}

impl ScalePlan {
    /// How many steps are passed to [`Watch::step`].
    pub fn steps(&self) -> usize {
        self.counts.len() + 1
    }
}

/// One number of twins.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Twins.
    pub twins: usize,
    /// Length of the first one as JSON, bytes.
    pub twin_bytes: usize,
    /// From `apply` to the last twin being ready, milliseconds.
    pub apply_ms: f64,
    /// Memory of the runtime with all of them, KiB.
    pub rss_kib: u64,
    /// From starting it after SIGKILL until it is ready, milliseconds.
    pub start_ms: f64,
    /// Memory after that start, KiB.
    pub started_rss_kib: u64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct ScaleReport {
    /// On what.
    pub machine: Machine,
    /// Of this program.
    pub version: &'static str,
    /// By number of twins.
    pub sizes: Vec<Size>,
    /// Objects that `plan` compared.
    pub planned: usize,
    /// `plan` of all of them with nothing to change, the whole command, milliseconds.
    pub plan_ms: f64,
}

/// Runs the benchmark. Processes and directories are gone when it returns.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &ScalePlan, watch: &dyn Watch) -> Result<ScaleReport, Error> {
    let directory = TemporaryDirectory::new(&plan.directory)?;
    let machine = Machine::here();
    let mut sizes = Vec::new();
    for &count in &plan.counts {
        watch.step(&format!("{count} twins"));
        sizes.push(size(count, plan.seed, directory.path(), watch)?);
    }
    watch.step(&format!("plan of {} objects", plan.planned));
    let plan_ms = planning(plan.planned, directory.path())?;
    Ok(ScaleReport {
        machine,
        version: env!("CARGO_PKG_VERSION"),
        sizes,
        planned: plan.planned,
        plan_ms,
    })
}

fn size(count: usize, seed: u64, directory: &Path, watch: &dyn Watch) -> Result<Size, Error> {
    let runtime = RuntimeProcess::start(directory)?;
    let started = Instant::now();
    let spec = json!({"model": "env-node", "attributes": {"about": "x".repeat(TEXT_LEN)}});
    runtime.apply(directory, &[model_manifest(), twins_manifest(count, &spec)])?;
    runtime.wait()?;
    let apply_ms = milliseconds(started);
    let samples = rows(seed).iter().map(|row| sample(row, None)).collect::<Result<_, _>>()?;
    let mut driver = Driver::connect(runtime.mqtt, 8, count, None, samples)?;
    let duration = Duration::from_secs(600);
    let load = Load { in_flight: 512, rate: None, duration, count: count as u64 };
    driver.run(&load, watch)?;
    let twin = process::get(runtime.http, "/api/2/things/bench:n-1")?;
    let before = revisions(runtime.http, count)?;
    let rss_kib = process::rss_kib(runtime.process.id())?;
    runtime.process.kill()?;
    let started = Instant::now();
    let runtime = RuntimeProcess::start_again(directory)?;
    let start_ms = milliseconds(started);
    if revisions(runtime.http, count)? != before {
        return Err(failed("the twins do not have the revisions that they had before"));
    }
    let started_rss_kib = process::rss_kib(runtime.process.id())?;
    runtime.process.end()?;
    Ok(Size { twins: count, twin_bytes: twin.len(), apply_ms, rss_kib, start_ms, started_rss_kib })
}

fn planning(count: usize, directory: &Path) -> Result<f64, Error> {
    let runtime = RuntimeProcess::start(directory)?;
    let twin = |n: usize| -> Value {
        json!({"kind": "Twin", "metadata": {"name": format!("p-{n}"), "namespace": "bench",
            "labels": {"row": (n % 100).to_string()}},
            "spec": {"model": "env-node", "attributes": {"position": n}}})
    };
    let objects: Vec<Value> =
        std::iter::once(model_manifest()).chain((1..count).map(twin)).collect();
    runtime.apply(directory, &objects)?;
    runtime.wait()?;
    let manifests = directory.join("bench.yaml");
    let manifests = manifests.to_string_lossy();
    let server = runtime.server();
    let started = Instant::now();
    // Fails where there is something to change.
    process::run(&["plan", "-f", &manifests, "--server", &server, "--detailed-exitcode"])?;
    let plan_ms = milliseconds(started);
    runtime.process.end()?;
    Ok(plan_ms)
}

fn milliseconds(since: Instant) -> f64 {
    tenth(since.elapsed().as_secs_f64() * 1e3)
}
