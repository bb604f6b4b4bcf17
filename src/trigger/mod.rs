//! Service triggers: which services a change calls, and the verdict's way back to the twin.
//!
//! A twin names its services in `attributes/services`, whoever wrote that. When an event changes an
//! input of one of them, the service is looked up by name and called with the new state. An
//! instance in this process answers at once, under the writer's lock and while nothing waits, so
//! that the verdict is recorded in the batch of its cause. Others are called over HTTP, within the
//! service's timeout and bounded in number. Calls that arrive faster are queued, conflated or
//! dropped, as the overload policy defines.
//!
//! Always true, and tested:
//! 1. a verdict never fires the service that wrote it, and chains of services end
//!    ([`REACTION_DEPTH_MAX`]);
//! 2. a verdict about an older revision never replaces one about a newer;
//! 3. a twin whose inputs are newer than its verdict is judged again when the service is there
//!    again: at the next start, or when an instance registers.
//!
//! Not here: leases and balancing (`registry`), models (`edgeai`).

mod overload;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::base::clock::now_us;
use crate::base::telemetry::{Severity, Telemetry};
use crate::edgeai::http::{CallFailure, ModelClient, ModelProvider};
use crate::edgeai::service::{NamedModel, ServiceConfig, ServiceStatus, Services};
use crate::edgeai::{Model, Prediction};
use crate::registry::http::Clock;
use crate::registry::{Balancer, Endpoint, FailureKind, Instance, Now, Port, Registry};
use crate::twin::path::Path;
use crate::twin::{Action, Change, Object, Refusal, Twin, service_inputs, services};
use crate::writer::{
    Committed, Origin, Precondition, REACTION_DEPTH_MAX, Reaction, Rejected, Request, Writer,
};

use overload::{Admission, Job, Line};

/// The property of a verdict that names the revision it is about.
const OF_REVISION: &str = "ofRevision";
/// A slower model would block the writer: it is called like one in another process.
pub const INLINE_MAX: Duration = Duration::from_micros(300);
/// How often services without an instance are checked again.
const STARVED_CHECK: Duration = Duration::from_millis(250);

/// Calls services when twins change. A [`Reaction`] of the writer.
pub struct Trigger {
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    deployed: RwLock<HashMap<Arc<str>, Arc<Deployed>>>,
    client: ModelClient,
    clock: Clock,
    /// Port at which this process serves its models to others.
    port: OnceLock<u16>,
    link: OnceLock<Link>,
}

/// What calls over HTTP need, once there is a runtime.
struct Link {
    writer: Arc<Writer>,
    runtime: Handle,
}

struct Deployed {
    config: ServiceConfig,
    balancer: Arc<Balancer>,
    line: Mutex<Line>,
    /// A call found no instance; twins are judged again when there is one.
    starved: AtomicBool,
    /// Smoothed time of the model in this process, to know whether it may run on the spot.
    inline: Inline,
}

/// Whether a model may run on the spot.
#[derive(Default)]
struct Inline(Mutex<Duration>);

impl Inline {
    /// Smooths the time of the model. One that was only interrupted counts for little: it takes a
    /// row of slow ones to call a model slow.
    fn note(&self, took: Duration) {
        let mut smoothed = lock(&self.0);
        *smoothed = (*smoothed * 15 + took.min(INLINE_MAX * 2)) / 16;
    }

    fn is_slow(&self) -> bool {
        *lock(&self.0) > INLINE_MAX
    }
}

impl Trigger {
    /// A trigger that looks services up in `registry`.
    pub fn new(registry: Arc<Registry>, clock: Clock, telemetry: Arc<Telemetry>) -> Self {
        Self {
            registry,
            telemetry,
            deployed: RwLock::default(),
            client: ModelClient::new(),
            clock,
            port: OnceLock::new(),
            link: OnceLock::new(),
        }
    }

    /// Gives the trigger what calls over HTTP need. `port` is where this process serves its own
    /// models. To be called once, before services are deployed.
    pub fn start(self: &Arc<Self>, writer: Arc<Writer>, runtime: Handle, port: u16) {
        let first = self.link.set(Link { writer, runtime: runtime.clone() }).is_ok()
            && self.port.set(port).is_ok();
        assert!(first, "a trigger is started once");
        runtime.spawn(feed_the_starved(Arc::downgrade(self)));
    }

    fn now_ns(&self) -> u64 {
        self.clock.nanos()
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn service(&self, name: &str) -> Option<Arc<Deployed>> {
        self.deployed.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Judges on the spot, if the instance that is picked is in this process.
    fn judge_here(&self, service: &Deployed, row: &[f32]) -> Option<Object> {
        let model = service.config.model.as_ref()?;
        if service.inline.is_slow() {
            return None;
        }
        let looked_up = Instant::now();
        let mut call = service.balancer.call();
        let pick = call.next(self.now_ns())?;
        if pick.instance().endpoint != Endpoint::InProcess {
            return None;
        }
        let started = Instant::now();
        self.telemetry.stage_lookup.record(started - looked_up);
        let mut prediction = Prediction::default();
        if let Err(error) = model.model.predict(row, &mut prediction) {
            self.no_verdict(&service.config.name, &error.to_string());
            call.failed(pick, FailureKind::Failed, self.now_ns());
            return Some(Object::new());
        }
        let took = started.elapsed();
        self.telemetry.stage_inference.record(took);
        service.inline.note(took);
        let verdict = local_verdict(model, &prediction, took, &pick.instance().id);
        call.succeeded(pick, self.now_ns());
        Some(verdict)
    }

    /// Puts a call behind those that wait, or starts it.
    fn enqueue(self: &Arc<Self>, service: &Arc<Deployed>, job: Job) {
        let Some(link) = self.link.get() else { return };
        let admission = lock(&service.line).admit(service.config.overload, job);
        match admission {
            Admission::Starts(job) => {
                link.runtime.spawn(work(self.clone(), service.clone(), job));
            }
            Admission::Waits => {}
            Admission::Drops => {
                self.telemetry.calls_dropped.inc();
                let service = &*service.config.name;
                let remedy = "start more instances, or have nodes send less often";
                tracing::warn!(
                    service,
                    remedy,
                    "a verdict was left out: its service is overloaded"
                );
            }
        }
    }

    /// Calls one instance after the other until one answers or the time is over.
    async fn call(&self, service: &Deployed, job: &Job) -> Option<Object> {
        let config = &service.config;
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + config.timeout;
        let mut call = service.balancer.call();
        let mut last = None;
        while let Some(pick) = call.next(self.now_ns()) {
            if call.attempts() > 1 {
                self.telemetry.calls_retried.inc();
            }
            let instance = pick.instance();
            let failure = match &instance.endpoint {
                Endpoint::InProcess => {
                    let Some(model) = &config.model else { return None };
                    let mut prediction = Prediction::default();
                    let alone = Instant::now();
                    match model.model.predict(&job.row, &mut prediction) {
                        Ok(()) => {
                            let took = alone.elapsed();
                            self.telemetry.stage_inference.record(took);
                            // So that it runs on the spot again once it is fast again.
                            service.inline.note(took);
                            let verdict = local_verdict(model, &prediction, took, &instance.id);
                            call.succeeded(pick, self.now_ns());
                            return Some(verdict);
                        }
                        Err(error) => {
                            self.no_verdict(&config.name, &error.to_string());
                            return None;
                        }
                    }
                }
                Endpoint::Http { host, port } => {
                    let address = format!("{host}:{port}");
                    let model =
                        instance.metadata.get("model").map_or(&*config.name, String::as_str);
                    match self.client.infer(&address, model, &job.row, deadline).await {
                        Ok(reply) => {
                            let took = started.elapsed();
                            self.telemetry.stage_call.record(took);
                            let mut verdict = json!({
                                "label": reply.label,
                                "score": round(reply.score),
                                "model": reply.model,
                                "version": reply.version,
                                "instance": instance.id,
                                "latencyMs": millis(took),
                            });
                            if !reply.probabilities.is_empty() {
                                verdict["probabilities"] =
                                    reply.probabilities.iter().map(|p| round(*p)).collect();
                            }
                            call.succeeded(pick, self.now_ns());
                            return verdict.as_object().cloned();
                        }
                        Err(error) if !error.retryable() => {
                            self.no_verdict(&config.name, &error.message);
                            call.succeeded(pick, self.now_ns());
                            return None;
                        }
                        Err(error) => {
                            let kind = match error.cause {
                                CallFailure::Connect => FailureKind::Connect,
                                _ => FailureKind::Failed,
                            };
                            last = Some(error.message);
                            kind
                        }
                    }
                }
                Endpoint::Nowhere => FailureKind::Connect,
            };
            call.failed(pick, failure, self.now_ns());
        }
        let why = last.unwrap_or_else(|| "no instance is registered".to_owned());
        service.starved.store(true, Ordering::Release);
        self.telemetry.calls_failed.inc();
        self.telemetry.event(
            now_us(),
            Severity::Warning,
            "NoHealthyInstance",
            format!("Service/{}", config.name),
            format!("no instance could judge {}: {why}", job.id),
        );
        None
    }

    fn no_verdict(&self, service: &str, why: &str) {
        self.telemetry.calls_failed.inc();
        let object = format!("Service/{service}");
        self.telemetry.event(now_us(), Severity::Warning, "NoVerdict", object, why);
    }

    /// Calls the service for every twin whose verdict is older than its inputs.
    fn judge_again(self: &Arc<Self>, service: &Arc<Deployed>) {
        let Some(link) = self.link.get() else { return };
        for twin in link.writer.twins() {
            let named = services(&twin).any(|name| name == &*service.config.name);
            if named
                && is_stale(&twin, &service.config)
                && let Some(row) = row_of(&twin, &service.config)
            {
                let (id, of_revision) = (twin.id.clone(), twin.revision);
                self.enqueue(service, Job { id, row, of_revision, depth: 0 });
            }
        }
    }
}

/// Runs a job and then those that wait, one after the other.
async fn work(trigger: Arc<Trigger>, service: Arc<Deployed>, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        if let Some(verdict) = trigger.call(&service, &job).await
            && let Some(link) = trigger.link.get()
        {
            trigger.record(link, &service.config, &job, verdict);
        }
        next = lock(&service.line).next();
    }
}

impl Trigger {
    fn record(&self, link: &Link, config: &ServiceConfig, job: &Job, verdict: Object) {
        let Some(twin) = link.writer.twin(job.id.as_str()) else { return };
        // Another call of the twin may have been answered first, also while this looks.
        let mut request = verdict_change(&twin, config, verdict, job.of_revision, job.depth);
        request.only_if = Precondition::NotAbove {
            feature: config.name.clone(),
            property: OF_REVISION,
            number: job.of_revision,
        };
        match link.writer.submit(request, now_us()) {
            Ok(_) => {
                self.telemetry.verdicts.inc();
                link.writer.commit_or_wake();
            }
            // The twin has a newer verdict.
            Err(Rejected::Refused(Refusal::PreconditionFailed(_))) => {}
            Err(rejected) => {
                self.no_verdict(
                    &config.name,
                    &format!("{} was not recorded: {rejected:?}", job.id),
                );
            }
        }
    }
}

async fn feed_the_starved(trigger: std::sync::Weak<Trigger>) {
    let mut tick = tokio::time::interval(STARVED_CHECK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(trigger) = trigger.upgrade() else { return };
        let all: Vec<Arc<Deployed>> = {
            let deployed = trigger.deployed.read().unwrap_or_else(PoisonError::into_inner);
            deployed.values().cloned().collect()
        };
        for service in all {
            let healthy = |balancer: &Balancer| {
                balancer.instances(trigger.now_ns()).iter().any(|(_, ejected)| !ejected)
            };
            if service.starved.load(Ordering::Acquire) && healthy(&service.balancer) {
                service.starved.store(false, Ordering::Release);
                trigger.judge_again(&service);
            }
        }
    }
}

/// The trigger as the writer knows it.
pub struct TriggerReaction(pub Arc<Trigger>);

impl Reaction for TriggerReaction {
    fn react(&self, change: &Committed, follow: &mut Vec<Request>) {
        let trigger = &self.0;
        let Some(twin) = change.after.as_deref() else { return };
        if matches!(change.event.action, Action::ReadLate | Action::BootReset) {
            return;
        }
        for name in services(twin) {
            if matches!(&change.origin, Origin::Service(writer) if &**writer == name) {
                continue;
            }
            let Some(service) = trigger.service(name) else { continue };
            let config = &service.config;
            let new = || {
                let before = change.before.as_deref();
                !before.is_some_and(|before| services(before).any(|other| other == name))
            };
            let mut inputs = inputs_of(twin, config);
            if !inputs.any(|(feature, property)| change.event.touches(feature, property)) && !new()
            {
                continue;
            }
            let Some(row) = row_of(twin, config) else { continue };
            if change.depth >= REACTION_DEPTH_MAX {
                return self.too_deep(change);
            }
            match trigger.judge_here(&service, &row) {
                Some(verdict) if verdict.is_empty() => {}
                Some(verdict) => {
                    trigger.telemetry.verdicts.inc();
                    follow.push(verdict_change(twin, config, verdict, change.revision, 0));
                }
                None => {
                    let (id, of_revision) = (change.id.clone(), change.revision);
                    let depth = change.depth + 1;
                    trigger.enqueue(&service, Job { id, row, of_revision, depth });
                }
            }
        }
    }

    fn too_deep(&self, change: &Committed) {
        let id = &change.id;
        self.0.telemetry.event(
            now_us(),
            Severity::Warning,
            "TriggerLoop",
            format!("Twin/{}/{}", id.namespace(), id.name()),
            format!(
                "services call each other more than {REACTION_DEPTH_MAX} deep; the chain was cut"
            ),
        );
    }
}

impl Services for Trigger {
    fn deploy(&self, config: ServiceConfig) {
        let Some(balancer) = self.registry.balancer(&config.name) else {
            return self.no_verdict(&config.name, "the registry has no room for another service");
        };
        balancer.set_strategy(config.balancing);
        let name = config.name.clone();
        let replicas = if config.model.is_some() { config.replicas } else { 0 };
        let port = self.port.get().copied().unwrap_or_default();
        for n in 1..=replicas {
            let mut instance = Instance::new(&name, &local_id(&name, n), Endpoint::InProcess);
            instance.port = Port { number: port, enabled: true };
            instance.metadata.insert("placement".to_owned(), "in-process".to_owned());
            instance.health_check = Some(format!("http://127.0.0.1:{port}/v2/health/ready"));
            if let Err(refusal) = self.registry.register(instance, self.now()) {
                self.no_verdict(&name, &refusal.to_string());
            }
        }
        let service = Arc::new(Deployed {
            config,
            balancer,
            line: Mutex::default(),
            // Whatever changed while it was not there is judged as soon as it is.
            starved: AtomicBool::new(true),
            inline: Inline::default(),
        });
        let former = self
            .deployed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), service);
        let former_replicas = match former {
            Some(former) if former.config.model.is_some() => former.config.replicas,
            _ => 0,
        };
        for n in replicas + 1..=former_replicas {
            self.registry.cancel(&name, &local_id(&name, n), self.now());
        }
    }

    fn remove(&self, name: &str) {
        let former = self.deployed.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(former) = former {
            for n in 1..=former.config.replicas {
                self.registry.cancel(name, &local_id(name, n), self.now());
            }
        }
    }

    fn status(&self, name: &str) -> ServiceStatus {
        let Some(balancer) = self.registry.balancer(name) else { return ServiceStatus::default() };
        let instances = balancer.instances(self.now_ns());
        ServiceStatus {
            instances: instances.len(),
            healthy: instances.iter().filter(|(_, ejected)| !ejected).count(),
        }
    }
}

impl ModelProvider for Trigger {
    fn model(&self, name: &str, version: Option<&str>) -> Option<Arc<Model>> {
        let model = self.service(name)?.config.model.clone()?.model;
        version.is_none_or(|wanted| wanted == model.version()).then_some(model)
    }
}

fn local_id(service: &str, n: u32) -> String {
    format!("edgetwin:{service}:{n}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these locks guard is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn verdict_change(
    twin: &Twin,
    config: &ServiceConfig,
    mut verdict: Object,
    of_revision: u64,
    depth: u8,
) -> Request {
    verdict.insert(OF_REVISION.to_owned(), of_revision.into());
    let path = Path::Properties(config.name.to_string());
    let verdict = Value::Object(verdict);
    let change = if twin.features.contains_key(&*config.name) {
        Change::Modify(path, verdict)
    } else {
        Change::Merge(path, verdict)
    };
    Request {
        id: twin.id.clone(),
        change,
        only_if: Precondition::Present,
        origin: Origin::Service(config.name.clone()),
        depth,
    }
}

fn local_verdict(
    named: &NamedModel,
    prediction: &Prediction,
    took: Duration,
    instance: &str,
) -> Object {
    let model = &named.model;
    let meta = model.meta();
    let probabilities: Object = meta
        .labels
        .iter()
        .zip(&prediction.probabilities)
        .map(|(label, p)| (label.clone(), round(*p).into()))
        .collect();
    let verdict = json!({
        "label": model.label(prediction.label),
        "score": round(prediction.score),
        "probabilities": probabilities,
        "model": &*named.name,
        "version": model.version(),
        "instance": instance,
        "latencyMs": millis(took),
    });
    verdict.as_object().cloned().unwrap_or_default()
}

/// Four digits are more than a model means.
fn round(probability: f32) -> f64 {
    (f64::from(probability) * 1e4).round() / 1e4
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Feature and property of each input: those that the twin gives to the service, else the
/// service's own.
fn inputs_of<'a>(
    twin: &'a Twin,
    config: &'a ServiceConfig,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let given = service_inputs(twin, &config.name);
    let given_inputs = given.map(|given| given.as_array().into_iter().flatten());
    // What is not a path is not a property that the twin has, so nothing is judged.
    let path = |input: &'a Value| input.as_str().and_then(|path| path.split_once('/'));
    let of_twin =
        given_inputs.into_iter().flatten().map(move |input| path(input).unwrap_or_default());
    let of_service = config.inputs.iter().filter(move |_| given.is_none());
    of_twin.chain(of_service.map(|(feature, property)| (feature.as_str(), property.as_str())))
}

/// The inputs' values; `None` while one is missing or no number, or if the twin gives another
/// number of inputs than the service takes.
fn row_of(twin: &Twin, config: &ServiceConfig) -> Option<Vec<f32>> {
    let value = |(feature, property): (&str, &str)| match twin.property_named(feature, property)? {
        Value::Bool(flag) => Some(f32::from(u8::from(*flag))),
        value => value.as_f64().map(|number| number as f32),
    };
    let row: Vec<f32> = inputs_of(twin, config).map(value).collect::<Option<_>>()?;
    (row.len() == config.inputs.len()).then_some(row)
}

fn of_revision(twin: &Twin, service: &str) -> Option<u64> {
    twin.property_named(service, OF_REVISION)?.as_u64()
}

/// Whether a feature of an input changed after the state that the verdict is about.
fn is_stale(twin: &Twin, config: &ServiceConfig) -> bool {
    let newest = inputs_of(twin, config).filter_map(|(feature, _)| twin.features.get(feature));
    let newest = newest.map(|feature| feature.revision).max();
    match (newest, of_revision(twin, &config.name)) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(newest), Some(judged)) => newest > judged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interrupted_inference_does_not_make_a_model_slow_and_a_slow_one_may_recover() {
        let inline = Inline::default();
        let times =
            |micros, count| (0..count).for_each(|_| inline.note(Duration::from_micros(micros)));
        times(2, 16);
        times(50_000, 4);
        assert!(!inline.is_slow());
        times(1000, 40);
        assert!(inline.is_slow());
        times(2, 40);
        assert!(!inline.is_slow());
    }
}
