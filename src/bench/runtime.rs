//! A runtime in a process of its own, and what a load has to leave in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::load::{Driver, Load, Outcome};
use super::process::{self, Process};
use super::{Error, Watch, failed, hundredth, tenth};

/// The model of every twin that is measured: the four properties of the synthetic data.
pub(super) fn model_manifest() -> Value {
    let number = |unit, minimum: f64, maximum: f64| json!({"type": "number", "unit": unit, "minimum": minimum, "maximum": maximum});
    json!({"kind": "TwinModel", "metadata": {"name": "env-node"}, "spec": {
        "features": {"environment": {"properties": {
            "temperature": number("Cel", -40.0, 85.0),
            "humidity": number("%RH", 0.0, 100.0),
            "loudness": number("dB", 0.0, 140.0),
            "light": number("lx", 0.0, 100_000.0),
        }}},
    }})
}

/// Twins `bench:n-1` to `bench:n-COUNT`.
pub(super) fn twins_manifest(count: usize, spec: &Value) -> Value {
    json!({"kind": "TwinSet", "metadata": {"name": "n", "namespace": "bench"},
        "spec": {"count": count, "template": {"spec": spec}}})
}

/// A runtime in a process of its own.
pub(super) struct RuntimeProcess {
    pub(super) process: Process,
    pub(super) http: SocketAddr,
    pub(super) mqtt: SocketAddr,
    pub(super) eureka: String,
}

impl RuntimeProcess {
    /// Starts one without state; its state will be in `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self, Error> {
        let state = state(directory);
        if state.exists() {
            std::fs::remove_dir_all(&state).map_err(|error| failed(error.to_string()))?;
        }
        Self::start_again(directory)
    }

    /// Starts one on the state that another left in `directory`.
    pub(super) fn start_again(directory: &Path) -> Result<Self, Error> {
        let state = state(directory);
        let mut arguments = vec!["run".as_ref(), "--state".as_ref(), state.as_os_str()];
        for flag in ["--http", "--mqtt", "--eureka"] {
            arguments.extend([OsStr::new(flag), OsStr::new("127.0.0.1:0")]);
        }
        let mut process = Process::start(&arguments)?;
        let address = |text: &str| {
            let (_, address) = text.split_once("://").unwrap_or_default();
            address.parse().map_err(|_| failed(format!("`{text}` is not an address")))
        };
        let http = address(&process.says("http ")?)?;
        let mqtt = address(&process.says("mqtt ")?)?;
        let eureka = process.says("eureka ")?;
        process.says("ready ")?;
        Ok(Self { process, http, mqtt, eureka })
    }

    /// How the other verbs name it.
    pub(super) fn server(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Applies manifests, by way of a file in `directory`.
    pub(super) fn apply(&self, directory: &Path, objects: &[Value]) -> Result<(), Error> {
        let text: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        let path = directory.join("bench.yaml");
        std::fs::write(&path, text.concat())
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let server = self.server();
        let path = path.to_string_lossy();
        process::run(&["apply", "-f", &path, "--server", &server])
    }

    /// Waits until everything that was applied is ready.
    pub(super) fn wait(&self) -> Result<(), Error> {
        process::run(&["wait", "all", "-A", "--timeout", "120s", "--server", &self.server()])
    }

    /// Runs a load and checks that it left what it has to: `changes` for each reading.
    pub(super) fn measure(
        &self,
        driver: &mut Driver,
        load: &Load,
        changes: u64,
        watch: &dyn Watch,
    ) -> Result<Measured, Error> {
        let before = revisions(self.http, driver.twins())?;
        driver.set_revisions(&before);
        let metrics_before = process::metrics(self.http)?;
        let cpu_before = process::cpu_time(self.process.id())?;
        let outcome = driver.run(load, watch)?;
        let cpu = process::cpu_time(self.process.id())?.saturating_sub(cpu_before);
        let metrics = process::metrics(self.http)?;
        let rss_kib = process::rss_kib(self.process.id())?;
        let after = revisions(self.http, driver.twins())?;
        if after != driver.revisions() {
            return Err(failed("the twins do not have the revisions of their verdicts"));
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
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    pub(super) revisions: u64,
    pub(super) stages_us: BTreeMap<&'static str, f64>,
    pub(super) bytes: f64,
    pub(super) per_sync: f64,
    pub(super) cpu_us: f64,
    pub(super) rss_kib: u64,
}

impl Measured {
    pub(super) fn per_second(&self) -> f64 {
        tenth(self.outcome.count as f64 / self.outcome.took.as_secs_f64())
    }
}

/// The twins' revisions as the HTTP API shows them.
pub(super) fn revisions(server: SocketAddr, twins: usize) -> Result<Vec<u64>, Error> {
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

fn state(directory: &Path) -> PathBuf {
    directory.join("state")
}
