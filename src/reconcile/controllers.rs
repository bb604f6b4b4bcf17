//! What each kind's controller does: observe, compare, act, say what it found.
//!
//! Controllers run on threads that may block, at most one at a time for an object. What they do
//! is safe to repeat.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::control;
use super::models::Training;
use super::status::Report;
use super::twins::{self, Wanted};
use super::{ObjectKey, Reconciler, Stored, aggregates, in_namespace, words};
use crate::base::clock::now_us;
use crate::edgeai::service::{NamedModel, ServiceConfig};
use crate::kinds::{
    ContextRuleSpec, ServiceSpec, TwinAggregateSpec, TwinModelSpec, TwinSpec, ValueType,
};
use crate::kinds::{DEFAULT_NAMESPACE, Kind, Spec};
use crate::manifest::{self, Object};
use crate::twin::aggregate::{AggregateSpec, Derived};
use crate::twin::path::Path;
use crate::twin::{Change, Refusal, ThingId};
use crate::wire::{NodeModel, PropertyRule, ValueKind};
use crate::writer::{Origin, Precondition, Rejected, Request};

/// Changes of one controller that are staged before they are sent to the disk.
const STAGED_MAX: usize = 512;

/// Time between two looks at a service without a healthy instance, and at one with.
const SERVICE_LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// What controllers remember between two rounds; all of it can be found out again.
#[derive(Default)]
pub(super) struct Working {
    /// Models of nodes by TwinModel, with the revision that they were made from.
    node_models: Mutex<HashMap<ObjectKey, (u64, Arc<NodeModel>)>>,
    /// What was deployed, by the service's name: which object asked for it, and as what.
    deployed: Mutex<HashMap<String, (ObjectKey, Value)>>,
    /// The model that is being trained.
    pub(super) training: Mutex<Training>,
}

impl Reconciler {
    /// Makes things as an object asks, and says how far that is.
    pub(super) fn act(
        self: &Arc<Self>,
        key: &ObjectKey,
        stored: &Stored,
        object: &Object,
    ) -> Report {
        let labels = &object.metadata.labels;
        match &object.spec {
            Spec::TwinModel(_) => Report::ready("Accepted", "readings are checked against it"),
            Spec::Twin(spec) => {
                let names = BTreeSet::from([key.name.clone()]);
                self.twins(key, stored, spec, labels, &names)
            }
            Spec::TwinSet(set) => {
                let labels = object.twin_labels(set);
                let names = set.twin_names(&key.name).into_iter().collect();
                self.twins(key, stored, &set.template.spec, &labels, &names)
            }
            Spec::TwinAggregate(spec) => self.aggregate(key, stored, spec, labels),
            Spec::Model(spec) => self.model(key, &object.metadata.annotations, spec),
            Spec::Service(spec) => self.service(key, spec),
            Spec::ContextRule(spec) => self.rule(key, spec),
            _ => Report::not_acted_on(manifest::not_acted_on(object).join("; ")),
        }
    }

    /// Removes what an object made; it is gone once the batch is durable.
    pub(super) fn finalise(&self, key: &ObjectKey, stored: &Stored) -> Result<Option<u64>, Report> {
        match key.kind {
            Kind::Twin => self.remove_twins(key, [key.name.as_str()]),
            Kind::TwinSet => {
                let names = set_names(key, stored);
                self.remove_twins(key, names.iter().map(String::as_str))
            }
            Kind::TwinAggregate => {
                if let Ok(id) = thing_id(&key.namespace, &key.name) {
                    self.context.aggregates.remove(&id);
                }
                self.remove_twins(key, [key.name.as_str()])
            }
            Kind::Service => {
                let mut deployed = lock(&self.working.deployed);
                if deployed.get(&key.name).is_some_and(|(owner, _)| owner == key) {
                    self.context.services.remove(&key.name);
                    deployed.remove(&key.name);
                }
                Ok(None)
            }
            Kind::Model => {
                self.models
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&model_name(key));
                Ok(None)
            }
            Kind::TwinModel => {
                lock(&self.working.node_models).remove(key);
                Ok(None)
            }
            Kind::ContextRule => {
                self.context.control.remove_rule(&control::rule_name(key));
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Queues the objects that refer to objects that changed.
    pub(super) fn wake_dependents(&self, changed: &[ObjectKey]) {
        let names = |kind| -> HashSet<&str> {
            let of_kind = changed.iter().filter(|key| key.kind == kind);
            of_kind.map(|key| key.name.as_str()).collect()
        };
        let (twin_models, models, services) =
            (names(Kind::TwinModel), names(Kind::Model), names(Kind::Service));
        let twins = changed
            .iter()
            .any(|key| matches!(key.kind, Kind::Twin | Kind::TwinSet | Kind::TwinAggregate));
        let any = |kind| changed.iter().any(|key| key.kind == kind);
        let profiles = any(Kind::NodeProfile);
        let rules_refer = any(Kind::Service) || any(Kind::Channel);
        // References may be `NAMESPACE/NAME`; a wrong guess costs one look.
        let refers = |stored: &Stored, among: &HashSet<&str>| {
            stored.model().is_some_and(|name| {
                among.contains(name.split_once('/').map_or(name, |(_, name)| name))
            })
        };
        let wakes = |key: &ObjectKey, stored: &Stored| match key.kind {
            Kind::Twin | Kind::TwinSet => refers(stored, &twin_models) || profiles,
            Kind::TwinAggregate => twins && stored.names_members(),
            Kind::Service => refers(stored, &models) || services.contains(key.name.as_str()),
            Kind::ContextRule => rules_refer,
            _ => false,
        };
        let woken: Vec<ObjectKey> = {
            let objects = self.objects();
            let found = objects.iter().filter(|(key, stored)| wakes(key, stored));
            found.map(|(key, _)| key.clone()).collect()
        };
        woken.into_iter().for_each(|key| self.queue.add(key));
    }

    /// The object that a reference means: `NAMESPACE/NAME`, or a name in the own namespace, then
    /// in `default`.
    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<(ObjectKey, Stored)> {
        let objects = self.objects();
        lookup_order(namespace, name).into_iter().find_map(|(namespace, name)| {
            let key = ObjectKey::new(kind, namespace, name);
            let stored = objects.get(&key).filter(|stored| !stored.deleting)?;
            Some((key, stored.clone()))
        })
    }

    // -----------------------------------------------------------------------------------------
    // Twins

    /// Says what the readings of an object's twins are checked against.
    pub(super) fn set_directory(&self, key: &ObjectKey) {
        let Some(stored) = self.objects().get(key).cloned() else { return };
        let names = match key.kind {
            Kind::Twin => vec![key.name.clone()],
            Kind::TwinSet => match stored.object().map(|object| object.spec) {
                Ok(Spec::TwinSet(set)) => set.twin_names(&key.name),
                _ => return,
            },
            _ => return,
        };
        let model = stored.model().and_then(|name| self.node_model(&key.namespace, name));
        let model = model.map(|(_, model)| model);
        for name in names {
            if let Ok(id) = thing_id(&key.namespace, &name) {
                self.context.directory.set(id, model.clone());
            }
        }
    }

    fn node_model(&self, namespace: &str, name: &str) -> Option<(ObjectKey, Arc<NodeModel>)> {
        let (key, stored) = self.find(Kind::TwinModel, namespace, name)?;
        let mut models = lock(&self.working.node_models);
        if let Some((revision, made)) = models.get(&key)
            && *revision == stored.revision
        {
            return Some((key, made.clone()));
        }
        let Spec::TwinModel(model) = stored.object().ok()?.spec else { return None };
        let made = Arc::new(rules(&model));
        models.insert(key.clone(), (stored.revision, made.clone()));
        Some((key, made))
    }

    fn twins(
        &self,
        key: &ObjectKey,
        stored: &Stored,
        spec: &TwinSpec,
        labels: &BTreeMap<String, String>,
        names: &BTreeSet<String>,
    ) -> Report {
        self.set_directory(key);
        self.declare_nodes(key, spec, names);
        let model = stored.model().and_then(|name| self.node_model(&key.namespace, name));
        let model = model.map(|(key, _)| key);
        let definition = model.as_ref().map(|key| format!("{}:{}:1.0.0", key.namespace, key.name));
        let wanted = Wanted::of_twin(spec, labels, definition.as_deref());
        let made = stored.made();
        let mut staged = Staged::new(self);
        for name in names {
            let id = match thing_id(&key.namespace, name) {
                Ok(id) => id,
                Err(refusal) => return Report::stalled("Refused", refusal.message()),
            };
            if self.context.writer.is_stalled(id.as_str()) {
                return corrupt(&id);
            }
            let twin = self.context.writer.newest(id.as_str());
            if let Some(patch) = wanted.patch(twin.as_deref(), &made.paths, &[])
                && let Err(report) = staged.submit(merge(id, patch))
            {
                return report;
            }
        }
        let old = set_names(key, stored);
        let gone = old.iter().map(String::as_str).filter(|name| !names.contains(*name));
        match self.remove_twins(key, gone) {
            Ok(batch) => staged.batch = batch.or(staged.batch),
            Err(report) => return report,
        }
        let batch = staged.batch;
        let report = match (&spec.model, model) {
            (Some(name), None) => Report::stalled(
                "UnknownModel",
                format!("there is no TwinModel `{name}`; readings are taken as they are"),
            ),
            _ if key.kind == Kind::TwinSet => {
                Report::ready("AsDeclared", manifest::diagnostic::plural(names.len(), "twin"))
            }
            _ => Report::ready("AsDeclared", "the twin is as declared"),
        };
        report.once_durable(batch)
    }

    /// Deletes twins of an object, except those that another object declares by now.
    fn remove_twins<'n>(
        &self,
        key: &ObjectKey,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Option<u64>, Report> {
        let mut staged = Staged::new(self);
        for name in names {
            let Ok(id) = thing_id(&key.namespace, name) else { continue };
            if self.declares_twin(&key.namespace, name, key) {
                continue;
            }
            self.context.directory.set(id.clone(), None);
            self.context.control.set_node(id.clone(), None);
            if self.context.writer.newest(id.as_str()).is_some() {
                let change = Change::Delete(Path::Thing);
                staged.submit(request(id, change))?;
            }
        }
        Ok(staged.batch)
    }

    /// Whether an object other than `except` declares this twin.
    fn declares_twin(&self, namespace: &str, name: &str, except: &ObjectKey) -> bool {
        let objects = self.objects();
        let live = |key: &ObjectKey| {
            key != except && objects.get(key).is_some_and(|stored| !stored.deleting)
        };
        live(&ObjectKey::new(Kind::Twin, namespace, name))
            || live(&ObjectKey::new(Kind::TwinAggregate, namespace, name))
            || in_namespace(&objects, Kind::TwinSet, namespace)
                .any(|(key, stored)| live(key) && stored.makes(&key.name, name))
    }

    /// Tells the controller what the nodes behind twins are.
    fn declare_nodes(&self, key: &ObjectKey, spec: &TwinSpec, names: &BTreeSet<String>) {
        let node = spec.node.as_ref().map(|node| {
            let profile = node.profile.as_deref();
            let profile =
                profile.and_then(|name| self.find(Kind::NodeProfile, &key.namespace, name));
            let profile = profile.and_then(|(_, stored)| match stored.object().ok()?.spec {
                Spec::NodeProfile(profile) => Some(profile),
                _ => None,
            });
            let model = spec.model.as_deref();
            let model = model.and_then(|name| self.find(Kind::TwinModel, &key.namespace, name));
            let model = model.and_then(|(_, stored)| match stored.object().ok()?.spec {
                Spec::TwinModel(model) => Some(model),
                _ => None,
            });
            Arc::new(control::node(spec, profile.as_deref(), model.as_deref()))
        });
        for name in names {
            if let Ok(id) = thing_id(&key.namespace, name) {
                self.context.control.set_node(id, node.clone());
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Rules

    /// What an object says of nodes and rules, before anything is reconciled.
    pub(super) fn declare_to_control(&self, key: &ObjectKey) {
        let Some(stored) = self.objects().get(key).cloned() else { return };
        if stored.deleting || !matches!(key.kind, Kind::Twin | Kind::TwinSet | Kind::ContextRule) {
            return;
        }
        match stored.object().map(|object| object.spec) {
            Ok(Spec::Twin(spec)) => {
                self.declare_nodes(key, &spec, &BTreeSet::from([key.name.clone()]));
            }
            Ok(Spec::TwinSet(set)) => {
                let names = set.twin_names(&key.name).into_iter().collect();
                self.declare_nodes(key, &set.template.spec, &names);
            }
            // What is wrong with it is said when it is reconciled.
            Ok(Spec::ContextRule(spec)) => drop(self.rule(key, &spec)),
            _ => {}
        }
    }

    fn rule(&self, key: &ObjectKey, spec: &ContextRuleSpec) -> Report {
        let names = |kind| -> Vec<String> {
            let objects = self.objects();
            let of_kind =
                objects.iter().filter(|(key, stored)| key.kind == kind && !stored.deleting);
            of_kind.map(|(key, _)| key.name.clone()).collect()
        };
        let nobody = ObjectKey::new(Kind::Policy, "", "");
        let resolve = |reference: &str| {
            control::named(&key.namespace, reference, |place, name| {
                self.declares_twin(place, name, &nobody)
            })
        };
        let (services, channels) = (names(Kind::Service), names(Kind::Channel));
        match control::rule(key, spec, resolve, &services, &channels) {
            Ok(rule) => {
                self.context.control.set_rule(rule);
                let unheeded = manifest::rule_not_acted_on(spec);
                match unheeded.is_empty() {
                    true => Report::ready("InForce", "the rule is judged"),
                    false => Report::ready(
                        "InForce",
                        format!("the rule is judged; {}", unheeded.join("; ")),
                    ),
                }
            }
            Err(why) => {
                self.context.control.remove_rule(&control::rule_name(key));
                Report::stalled("ConditionNotUnderstood", why)
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Aggregates

    fn aggregate(
        &self,
        key: &ObjectKey,
        stored: &Stored,
        spec: &TwinAggregateSpec,
        labels: &BTreeMap<String, String>,
    ) -> Report {
        let id = match thing_id(&key.namespace, &key.name) {
            Ok(id) => id,
            Err(refusal) => return Report::stalled("Refused", refusal.message()),
        };
        // What is derived no longer is taken back only when nothing derives it any more.
        let mut staged = Staged::new(self);
        let declared = self.aggregate_spec(key, spec);
        if !self.context.aggregates.is(&id, &declared) {
            let surveyed = self.context.writer.survey(now_us(), |twins, requests| {
                let patch = self.context.aggregates.set(&id, declared, twins);
                requests.extend(patch.map(aggregates::request));
            });
            match surveyed {
                Ok(batch) => staged.batch = batch.or(staged.batch),
                Err(rejected) => return not_stored(&rejected),
            }
            self.context.control.members_changed();
        }
        if self.context.writer.is_stalled(id.as_str()) {
            return corrupt(&id);
        }
        let wanted = Wanted::of_aggregate(spec, labels);
        let twin = self.context.writer.newest(id.as_str());
        if let Some(patch) =
            wanted.patch(twin.as_deref(), &stored.made().paths, &twins::derived(spec))
            && let Err(report) = staged.submit(merge(id.clone(), patch))
        {
            return report;
        }
        let members = self.context.aggregates.members(&id).map_or(0, |members| members.len());
        Report::ready(
            "Derived",
            format!("derived from {}", manifest::diagnostic::plural(members, "member")),
        )
        .once_durable(staged.batch)
    }

    fn aggregate_spec(&self, key: &ObjectKey, spec: &TwinAggregateSpec) -> AggregateSpec {
        let nobody = ObjectKey::new(Kind::Policy, "", "");
        let named = spec.members.names.iter().filter_map(|reference| {
            let order = lookup_order(&key.namespace, reference);
            let found = order.iter().find(|(place, name)| self.declares_twin(place, name, &nobody));
            // A twin that a client made and nobody declared is looked for at home.
            let (namespace, name) = found.or(order.first())?;
            thing_id(namespace, name).ok()
        });
        AggregateSpec {
            members: named.collect(),
            namespace: (key.namespace != DEFAULT_NAMESPACE).then(|| key.namespace.clone()),
            match_labels: spec.members.match_labels.clone(),
            match_expressions: spec.members.match_expressions.clone(),
            derive: spec
                .derive
                .iter()
                .filter_map(|(to, derivation)| {
                    Some(Derived {
                        to: to.parse().ok()?,
                        function: derivation.function,
                        of: derivation.of.clone(),
                    })
                })
                .collect(),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Services

    fn service(&self, key: &ObjectKey, spec: &ServiceSpec) -> Report {
        let model = match &spec.model {
            None => None,
            Some(name) => {
                let Some((model, _)) = self.find(Kind::Model, &key.namespace, name) else {
                    return Report::waiting("ModelMissing", format!("there is no Model `{name}`"));
                };
                let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
                match models.get(&model_name(&model)) {
                    Some(found) => {
                        Some(NamedModel { name: model.name.as_str().into(), model: found.clone() })
                    }
                    None => {
                        return Report::waiting(
                            "ModelNotReady",
                            format!("Model `{name}` is not ready yet"),
                        );
                    }
                }
            }
        };
        if let Some(model) = &model
            && model.model.meta().inputs.len() != spec.inputs.len()
        {
            let (takes, gives) = (model.model.meta().inputs.len(), spec.inputs.len());
            let inputs = manifest::diagnostic::plural(takes, "input");
            let message = format!("the model takes {inputs}, the service gives {gives}");
            return Report::stalled("InputsDiffer", message);
        }
        let wanted =
            json!([spec, model.as_ref().map(|model| (&*model.name, model.model.digest()))]);
        {
            let mut deployed = lock(&self.working.deployed);
            match deployed.get(&key.name) {
                Some((owner, _)) if owner != key => {
                    let message = format!("{owner} is called `{}` already", key.name);
                    return Report::stalled("NameTaken", message);
                }
                Some((_, as_what)) if *as_what == wanted => {}
                _ => {
                    self.context.services.deploy(ServiceConfig {
                        name: key.name.as_str().into(),
                        inputs: spec
                            .inputs
                            .iter()
                            .map(|input| (input.feature.clone(), input.property.clone()))
                            .collect(),
                        external: spec.external || spec.process.is_some(),
                        model,
                        replicas: spec.replicas,
                        timeout: spec.timeout.as_std(),
                        lease: spec.lease.as_std(),
                        balancing: spec.balancing,
                        overload: spec.overload,
                    });
                    deployed.insert(key.name.clone(), (key.clone(), wanted));
                }
            }
        }
        let status = self.context.services.status(&key.name);
        let instances = manifest::diagnostic::plural(status.instances, "instance");
        match (status.healthy, spec.replicas) {
            (0, 0) if !spec.external => {
                Report::ready("ScaledToZero", "no instance is asked for").again(SERVICE_LOOK.1)
            }
            (0, _) => {
                let message = match status.instances {
                    0 => "no instance is registered".to_owned(),
                    _ => format!("none of {instances} is healthy"),
                };
                Report::waiting("NoHealthyInstance", message).again(SERVICE_LOOK.0)
            }
            (healthy, _) => Report::ready("Healthy", format!("{healthy} of {instances} healthy"))
                .again(SERVICE_LOOK.1),
        }
    }

    /// The object that a service of this name was deployed for.
    pub(super) fn find_service(&self, name: &str) -> Option<(ObjectKey, Value)> {
        lock(&self.working.deployed).get(name).cloned()
    }
}

/// Changes of one controller on their way to the disk.
struct Staged<'a> {
    reconciler: &'a Reconciler,
    batch: Option<u64>,
    waiting: usize,
}

impl<'a> Staged<'a> {
    fn new(reconciler: &'a Reconciler) -> Self {
        Self { reconciler, batch: None, waiting: 0 }
    }

    fn submit(&mut self, request: Request) -> Result<(), Report> {
        match self.reconciler.context.writer.submit(request, now_us()) {
            Ok(accepted) => self.batch = Some(accepted.batch),
            Err(Rejected::Refused(Refusal::NotFound(..))) => {}
            Err(rejected) => return Err(not_stored(&rejected)),
        }
        self.waiting += 1;
        if self.waiting >= STAGED_MAX {
            self.waiting = 0;
            self.reconciler.context.writer.wake_committer();
        }
        Ok(())
    }
}

/// Part of a twin's history is damaged.
fn corrupt(id: &ThingId) -> Report {
    Report::stalled("CorruptHistory", Refusal::Stalled(id.clone()).message())
}

fn not_stored(rejected: &Rejected) -> Report {
    match rejected {
        Rejected::Refused(Refusal::Stalled(_)) => {
            Report::stalled("CorruptHistory", words(rejected))
        }
        Rejected::Refused(_) => Report::stalled("Refused", words(rejected)),
        Rejected::NotStored(_) => Report::failed("NotStored", words(rejected)),
    }
}

fn request(id: ThingId, change: Change) -> Request {
    Request { id, change, only_if: Precondition::Always, origin: Origin::Runtime, depth: 0 }
}

fn merge(id: ThingId, patch: Value) -> Request {
    request(id, Change::Merge(Path::Thing, patch))
}

pub(super) fn thing_id(namespace: &str, name: &str) -> Result<ThingId, Refusal> {
    Ok(ThingId::parse(&format!("{namespace}:{name}"))?)
}

/// Where a reference is looked for, in order.
pub(super) fn lookup_order<'n>(namespace: &'n str, name: &'n str) -> Vec<(&'n str, &'n str)> {
    match name.split_once('/') {
        Some((namespace, name)) => vec![(namespace, name)],
        None if namespace == DEFAULT_NAMESPACE => vec![(namespace, name)],
        None => vec![(namespace, name), (DEFAULT_NAMESPACE, name)],
    }
}

/// What a model is called among all: by name, with the namespace where it is not the default one.
pub(super) fn model_name(key: &ObjectKey) -> String {
    if key.namespace == DEFAULT_NAMESPACE {
        key.name.clone()
    } else {
        format!("{}/{}", key.namespace, key.name)
    }
}

/// The twins that a TwinSet may have made so far.
fn set_names(key: &ObjectKey, stored: &Stored) -> BTreeSet<String> {
    if key.kind != Kind::TwinSet {
        return BTreeSet::new();
    }
    let made = stored.made();
    let counted = (1..=made.count).map(|number| format!("{}-{number}", key.name));
    counted.chain(made.names).collect()
}

fn rules(model: &TwinModelSpec) -> NodeModel {
    let features = model.features.iter().map(|(feature, of)| {
        let properties = of.properties.iter().map(|(name, property)| {
            let kind = match property.value_type {
                ValueType::Number => ValueKind::Number,
                ValueType::Integer => ValueKind::Integer,
                ValueType::Boolean => ValueKind::Boolean,
                ValueType::String => ValueKind::Text,
                ValueType::Object => ValueKind::Object,
                ValueType::Array => ValueKind::Array,
            };
            let (minimum, maximum) = (property.minimum, property.maximum);
            (name.clone(), PropertyRule { kind, minimum, maximum })
        });
        (feature.clone(), properties.collect())
    });
    NodeModel::new(features.collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
