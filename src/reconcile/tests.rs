//! A reconciler on a writer in a temporary directory, with services that only remember.

use std::time::Duration;

use serde_json::{Value, json};

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::apply::ApplyError;
use super::status::Condition;
use super::*;
use crate::base::clock::now_us;
use crate::base::telemetry::Telemetry;
use crate::cacc::driver::Control;
use crate::edgeai::service::{ServiceConfig, ServiceStatus, Services};
use crate::gateway::directory::Directory;
use crate::kinds::Kind;
use crate::store::StoreOptions;
use crate::store::disk as store_disk;
use crate::twin::aggregate::Aggregates;
use crate::twin::path::Path;
use crate::twin::selector::Selector;
use crate::twin::{Change, ThingId};
use crate::writer::{Origin, Precondition, Request, Writer};

#[derive(Default)]
pub(super) struct Deployed {
    pub(super) services: Mutex<HashMap<String, ServiceConfig>>,
    deploys: Mutex<usize>,
    healthy: Mutex<usize>,
}

impl Services for Deployed {
    fn deploy(&self, service: ServiceConfig) {
        *self.deploys.lock().unwrap() += 1;
        self.services.lock().unwrap().insert(service.name.to_string(), service);
    }

    fn remove(&self, name: &str) {
        self.services.lock().unwrap().remove(name);
    }

    fn status(&self, name: &str) -> ServiceStatus {
        let known = self.services.lock().unwrap().contains_key(name);
        let healthy = *self.healthy.lock().unwrap();
        if known { ServiceStatus { instances: 1, healthy } } else { ServiceStatus::default() }
    }
}

pub(super) struct World {
    reconciler: Arc<Reconciler>,
    writer: Arc<Writer>,
    directory: Arc<Directory>,
    pub(super) services: Arc<Deployed>,
    stop: watch::Sender<bool>,
    ran: tokio::task::JoinHandle<()>,
}

impl World {
    pub(super) fn open(directory: &std::path::Path) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let aggregates = Arc::new(Aggregates::new(telemetry.clone()));
        let disk = Arc::new(store_disk::Directory::open(&directory.join("log")).unwrap());
        let options = StoreOptions { segment_len: 1 << 20, history_bytes_max: 1 << 22 };
        let (writer, _) = Writer::open(disk, options, vec![aggregates.clone()]).unwrap();
        let writer = Arc::new(writer);
        let nodes = Arc::new(Directory::default());
        let services = Arc::new(Deployed::default());
        *services.healthy.lock().unwrap() = 1;
        let control =
            Control::new(writer.clone(), aggregates.clone(), telemetry.clone(), Arc::default());
        let reconciler = Reconciler::new(ReconcilerContext {
            writer: writer.clone(),
            directory: nodes.clone(),
            telemetry,
            services: services.clone(),
            state_dir: directory.to_owned(),
            aggregates,
            control,
        });
        let (stop, stopped) = watch::channel(false);
        let ran = tokio::spawn(reconciler.clone().run(stopped));
        Self { reconciler, writer, directory: nodes, services, stop, ran }
    }

    pub(super) async fn close(self) {
        self.stop.send_replace(true);
        self.ran.await.unwrap();
    }

    pub(super) async fn try_apply(
        &self,
        documents: &Value,
        options: ApplyOptions,
    ) -> Result<ApplyReport, ApplyError> {
        self.reconciler.apply(documents.as_array().unwrap().clone(), options).await
    }

    /// Applies and waits until all is ready.
    pub(super) async fn apply(&self, documents: &Value) -> ApplyReport {
        let report = self.try_apply(documents, ApplyOptions::default()).await.unwrap();
        self.settle().await;
        report
    }

    pub(super) async fn settle(&self) {
        for _ in 0..2000 {
            let keys: Vec<ObjectKey> = self.reconciler.objects().keys().cloned().collect();
            let waiting = keys.iter().any(|key| {
                self.reconciler.is_ready(key) == Some(false)
                    && !self.has(key, "Stalled")
                    && self.reason(key) != "NoHealthyInstance"
            });
            let deleting = self.reconciler.objects().values().any(|stored| stored.deleting);
            if !waiting && !deleting && self.reconciler.queue.is_idle() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "did not settle: {:?} {:#?}",
            self.reconciler.queue,
            self.reconciler.statuses.read().unwrap()
        );
    }

    fn has(&self, key: &ObjectKey, condition: &str) -> bool {
        self.conditions(key).iter().any(|one| one.condition == condition)
    }

    fn conditions(&self, key: &ObjectKey) -> Vec<Condition> {
        let statuses = self.reconciler.statuses.read().unwrap();
        statuses.get(key).map(|status| status.conditions.clone()).unwrap_or_default()
    }

    fn reason(&self, key: &ObjectKey) -> &'static str {
        let conditions = self.conditions(key);
        let ready = conditions.into_iter().find(|one| one.condition == "Ready");
        ready.map(|one| one.reason).unwrap_or_default()
    }

    pub(super) fn thing(&self, id: &str) -> Value {
        self.writer.twin(id).map(|twin| twin.to_json()).unwrap_or_default()
    }

    pub(super) fn change(&self, id: &str, change: Change) {
        let request = Request {
            id: ThingId::parse(id).unwrap(),
            change,
            only_if: Precondition::Always,
            origin: Origin::Client,
            depth: 0,
        };
        self.writer.submit(request, now_us()).unwrap();
        self.writer.commit();
    }
}

pub(super) fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

pub(super) fn model() -> Value {
    json!({"kind": "TwinModel", "metadata": {"name": "env"}, "spec": {"features": {
        "environment": {"properties": {
            "temperature": {"type": "number", "unit": "Cel"},
            "humidity": {"type": "number", "unit": "%RH"},
            "loudness": {"type": "number", "unit": "dB"},
            "light": {"type": "number", "unit": "lx"},
        }},
        "lamp": {"properties": {"on": {"type": "boolean", "readOnly": false}}},
    }}})
}

pub(super) fn twin(name: &str, labels: &Value, spec: &Value) -> Value {
    json!({"kind": "Twin", "metadata": {"name": name, "namespace": "lab", "labels": labels}, "spec": spec})
}

pub(super) fn external() -> Value {
    json!({"kind": "Service", "metadata": {"name": "judge"}, "spec": {"external": true,
        "inputs": ["environment/temperature"]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_twin_is_a_thing_and_a_second_apply_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let documents = json!([
        model(),
        external(),
        twin(
            "node-1",
            &json!({"room": "north"}),
            &json!({
                "model": "env",
                "attributes": {"floor": 1, "place": {"x": 1, "y": 2}},
                "services": ["judge"],
                "desired": {"lamp": {"on": true}},
            })
        ),
    ]);
    let report = world.apply(&documents).await;
    assert_eq!(report.plan.summary().create, 3);
    assert_eq!(
        world.thing("lab:node-1"),
        json!({
            "thingId": "lab:node-1",
            "policyId": "lab:node-1",
            "definition": "default:env:1.0.0",
            "attributes": {
                "floor": 1, "labels": {"room": "north"}, "model": "env",
                "place": {"x": 1, "y": 2}, "services": ["judge"],
            },
            "features": {"lamp": {"desiredProperties": {"on": true}}},
        })
    );
    assert!(world.directory.model(&ThingId::parse("lab:node-1").unwrap()).is_some());
    assert_eq!(world.reconciler.is_ready(&key("Twin/lab/node-1")), Some(true));
    let revision = world.writer.twin("lab:node-1").unwrap().revision;
    let again = world.apply(&documents).await;
    assert!(!again.plan.has_changes());
    assert_eq!(world.writer.twin("lab:node-1").unwrap().revision, revision);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_document_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let broken = twin("node-2", &json!({}), &json!({"model": "envv"}));
    let refused =
        world.try_apply(&json!([model(), broken]), ApplyOptions::default()).await.unwrap_err();
    let ApplyError::Invalid(diagnostics) = refused else { panic!("{refused}") };
    assert_eq!(diagnostics[0].code.id(), "ET0202");
    assert!(world.reconciler.objects().is_empty());
    assert!(world.writer.documents("").is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_field_is_taken_back_and_what_others_wrote_stays() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let first = twin(
        "a",
        &json!({"room": "north", "zone": "x"}),
        &json!({
            "attributes": {"floor": 1, "place": {"x": 1, "y": 2}}, "desired": {"lamp": {"on": true}},
        }),
    );
    world.apply(&json!([first])).await;
    world.change("lab:a", Change::Modify(Path::parse("/attributes/owner").unwrap(), "me".into()));
    world.change("lab:a", Change::Modify(Path::parse("/attributes/place/z").unwrap(), 3.into()));
    world.change(
        "lab:a",
        Change::Merge(Path::Thing, json!({"features": {"lamp": {"properties": {"on": false}}}})),
    );
    world
        .apply(&json!([twin(
            "a",
            &json!({"room": "south"}),
            &json!({"attributes": {"place": {"x": 9}}})
        )]))
        .await;
    assert_eq!(
        world.thing("lab:a"),
        json!({
            "thingId": "lab:a", "policyId": "lab:a",
            "attributes": {"labels": {"room": "south"}, "owner": "me", "place": {"x": 9, "z": 3}},
            "features": {"lamp": {"desiredProperties": {}, "properties": {"on": false}}},
        })
    );
    let stored = world.reconciler.objects()[&key("Twin/lab/a")].clone();
    assert_eq!(stored.generation, 2);
    let paths = stored.made().paths;
    assert_eq!(
        paths.iter().map(String::as_str).collect::<Vec<_>>(),
        ["attributes/labels/room", "attributes/place/x"]
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_change_no_generation_and_reach_the_twin() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    world.apply(&json!([twin("a", &json!({"room": "north"}), &json!({}))])).await;
    world.apply(&json!([twin("a", &json!({"room": "south"}), &json!({}))])).await;
    assert_eq!(world.reconciler.objects()[&key("Twin/lab/a")].generation, 1);
    assert_eq!(world.thing("lab:a")["attributes"]["labels"]["room"], "south");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_grows_shrinks_and_goes_with_its_twins() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let set = |count: u32| {
        json!({"kind": "TwinSet", "metadata": {"name": "n", "namespace": "lab"}, "spec": {
            "count": count, "template": {"metadata": {"labels": {"room": "r"}}, "spec": {}}}})
    };
    world.apply(&json!([set(5)])).await;
    assert_eq!(world.writer.twin_count(), 5);
    world.apply(&json!([set(2)])).await;
    assert_eq!(world.writer.twin_count(), 2);
    let listed = world.reconciler.list(Some(Kind::Twin), None, &Selector::default(), true);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[1]["status"]["madeBy"], "TwinSet/lab/n");
    // A twin that leaves the set to stand by itself keeps its state.
    world.apply(&json!([set(1), twin("n-2", &json!({}), &json!({}))])).await;
    assert_eq!(world.writer.twin_count(), 2);
    assert!(world.writer.twin("lab:n-2").unwrap().revision > 1);
    world.reconciler.delete(vec![key("TwinSet/lab/n")]).await.unwrap();
    world.settle().await;
    assert_eq!((world.writer.twin_count(), world.thing("lab:n-1")), (1, Value::Null));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_removes_what_the_set_no_longer_declares() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let own = ApplyOptions { set: Some("farm".to_owned()), prune: true, ..Default::default() };
    world.apply(&json!([twin("stranger", &json!({}), &json!({}))])).await;
    let both = json!([twin("a", &json!({}), &json!({})), twin("b", &json!({}), &json!({}))]);
    world.try_apply(&both, own.clone()).await.unwrap();
    world.settle().await;
    let one = json!([twin("a", &json!({}), &json!({}))]);
    let dry = ApplyOptions { dry_run: true, ..own.clone() };
    assert_eq!(world.try_apply(&one, dry).await.unwrap().plan.summary().delete, 1);
    assert_eq!(world.writer.twin_count(), 3);
    world.try_apply(&one, own).await.unwrap();
    world.settle().await;
    assert_eq!(world.thing("lab:b"), Value::Null);
    assert_eq!(world.writer.twin_count(), 2);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pruned_cannot_be_referred_to_and_what_stays_can() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let own = ApplyOptions { set: Some("farm".to_owned()), prune: true, ..Default::default() };
    world.try_apply(&json!([model()]), own.clone()).await.unwrap();
    let named = model()["metadata"]["name"].clone();
    let referring = json!([twin("a", &json!({}), &json!({"model": named}))]);
    let pruned = world.try_apply(&referring, own).await;
    assert!(matches!(pruned, Err(ApplyError::Invalid(_))), "{pruned:?}");
    let other = ApplyOptions { set: Some("other".to_owned()), prune: true, ..Default::default() };
    world.try_apply(&referring, other).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_is_refused_when_the_base_moved() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let one = json!([twin("a", &json!({}), &json!({}))]);
    let dry = ApplyOptions { dry_run: true, ..Default::default() };
    let base = world.try_apply(&one, dry).await.unwrap().plan.base;
    world.apply(&json!([twin("b", &json!({}), &json!({}))])).await;
    let saved = ApplyOptions { base: Some(base), ..Default::default() };
    let refused = world.try_apply(&one, saved).await.unwrap_err();
    assert!(matches!(refused, ApplyError::BaseMoved));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_trained_once_and_its_service_deployed_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let documents = json!([
        model(),
        {"kind": "Model", "metadata": {"name": "m"}, "spec": {
            "classifier": "forest", "inputs": ["temperature", "light"],
            "train": {"generator": "environment", "rows": 2000, "parameters": {"trees": 3}}}},
        {"kind": "Service", "metadata": {"name": "judge"}, "spec": {
            "model": "m", "inputs": ["environment/temperature", "environment/light"]}},
    ]);
    let world = World::open(directory.path());
    world.apply(&documents).await;
    let view = world.reconciler.get(&key("Model/default/m")).unwrap();
    let message = view["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("F1 anomalous"), "{message}");
    let version = view["status"]["version"].clone();
    {
        let services = world.services.services.lock().unwrap();
        let service = &services["judge"];
        assert_eq!(service.model.as_ref().unwrap().model.version(), version.as_str().unwrap());
        assert_eq!(service.inputs[1], ("environment".to_owned(), "light".to_owned()));
    }
    assert_eq!(world.reason(&key("Service/default/judge")), "Healthy");
    world.close().await;
    // Found again after a restart, from the file.
    let world = World::open(directory.path());
    world.settle().await;
    let view = world.reconciler.get(&key("Model/default/m")).unwrap();
    assert_eq!(view["status"]["version"], version);
    assert_eq!(*world.services.deploys.lock().unwrap(), 1);
    world.reconciler.delete(vec![key("Service/default/judge")]).await.unwrap();
    world.settle().await;
    assert!(world.services.services.lock().unwrap().is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_healthy_instance_is_a_condition_of_the_service_and_of_the_twin() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    *world.services.healthy.lock().unwrap() = 0;
    let node = twin("a", &json!({}), &json!({"model": "env", "services": ["judge"]}));
    world.apply(&json!([model(), external(), node])).await;
    assert_eq!(world.reason(&key("Service/default/judge")), "NoHealthyInstance");
    let view = world.reconciler.get(&key("Twin/lab/a")).unwrap();
    let conditions = view["status"]["conditions"].as_array().unwrap();
    let lacking = conditions.iter().find(|one| one["type"] == "ServicesReady").unwrap();
    assert_eq!(
        (&lacking["status"], &lacking["reason"]),
        (&json!("False"), &json!("NoHealthyInstance"))
    );
    *world.services.healthy.lock().unwrap() = 1;
    let left =
        world.reconciler.wait_ready(&[key("Service/default/judge")], Duration::from_secs(10)).await;
    assert!(left.is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_follows_its_members_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let aggregate = |more: Value| {
        let mut derive = json!({"climate/warmth": {"fn": "mean", "of": "environment/temperature"}});
        derive.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"kind": "TwinAggregate", "metadata": {"name": "room", "namespace": "lab"}, "spec": {
            "members": {"matchLabels": {"room": "north"}}, "derive": derive}})
    };
    let reading = |value: f64| Change::Reading {
        values: json!({"environment": {"temperature": value}}).as_object().unwrap().clone(),
        stamp: None,
    };
    let world = World::open(directory.path());
    let spec = json!({"model": "env"});
    world
        .apply(&json!([
            model(),
            twin("a", &json!({"room": "north"}), &spec),
            twin("b", &json!({"room": "north"}), &spec),
            aggregate(json!({"room/nodes": {"fn": "count"}})),
        ]))
        .await;
    world.change("lab:a", reading(20.0));
    world.change("lab:b", reading(23.0));
    let room = world.thing("lab:room");
    assert_eq!(room["features"]["climate"]["properties"]["warmth"], 21.5);
    assert_eq!(room["features"]["room"]["properties"]["nodes"], 2);
    world.close().await;
    let world = World::open(directory.path());
    world.settle().await;
    let revision = world.writer.twin("lab:room").unwrap().revision;
    world.change("lab:a", reading(25.0));
    let room = world.thing("lab:room");
    assert_eq!(room["features"]["climate"]["properties"]["warmth"], 24.0);
    assert_eq!(world.writer.twin("lab:room").unwrap().revision, revision + 1);
    // A twin leaves by its label, and a derived property by the manifest.
    world.apply(&json!([twin("a", &json!({"room": "south"}), &spec), aggregate(json!({}))])).await;
    let room = world.thing("lab:room");
    assert_eq!(room["features"]["climate"]["properties"]["warmth"], 23.0);
    assert_eq!(room["features"]["room"]["properties"], json!({}));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_name_is_as_long_as_allowed_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (name, namespace) = ("n".repeat(128), "s".repeat(120));
    let document = json!({"kind": "TwinAggregate", "metadata": {"name": name, "namespace": namespace},
        "spec": {"members": {"matchLabels": {"a": "b"}}, "derive": {"a/b": {"fn": "count"}}}});
    let world = World::open(directory.path());
    world.apply(&json!([document])).await;
    world.close().await;
    let world = World::open(directory.path());
    assert!(world.reconciler.objects().contains_key(&ObjectKey::new(
        Kind::TwinAggregate,
        &namespace,
        &name
    )));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_acts_on_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    let channel = json!({"kind": "Channel", "metadata": {"name": "wifi"},
        "spec": {"medium": "wifi", "capacity": "6Mbit/s"}});
    let report = world.apply(&json!([channel])).await;
    assert_eq!(report.not_acted_on.len(), 1);
    assert_eq!(world.reason(&key("Channel/default/wifi")), "NotActedOn");
    assert_eq!(world.reconciler.is_ready(&key("Channel/default/wifi")), Some(true));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_changes_of_what_is_declared_is_put_right() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    world
        .apply(&json!([twin("a", &json!({"room": "north"}), &json!({"attributes": {"floor": 1}}))]))
        .await;
    let declared = world.thing("lab:a");
    let floor = Path::parse("/attributes/floor").unwrap();
    for change in [Change::Modify(floor, 2.into()), Change::Delete(Path::Thing)] {
        world.change("lab:a", change);
        for _ in 0..1000 {
            if world.thing("lab:a") == declared {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.thing("lab:a"), declared);
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_one_object_delays_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::open(directory.path());
    // Larger than a thing may be, and smaller than a document.
    let large = json!({"attributes": {"note": "x".repeat(200_000)}});
    let documents = json!([twin("large", &json!({}), &large), twin("z", &json!({}), &json!({}))]);
    world.apply(&documents).await;
    assert_eq!(world.reason(&key("Twin/lab/large")), "Refused");
    assert!(world.has(&key("Twin/lab/large"), "Stalled"));
    assert_eq!(world.reconciler.is_ready(&key("Twin/lab/z")), Some(true));
    assert_ne!(world.thing("lab:z"), Value::Null);
    world.close().await;
}
