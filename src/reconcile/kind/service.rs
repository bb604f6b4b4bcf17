//! Services: deployed with their model, and their instances watched.

use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use crate::edgeai::service::{NamedModel, ServiceConfig};
use crate::kinds::{Kind, ServiceSpec};
use crate::manifest;
use crate::reconcile::key::ObjectKey;
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::reconcile::working::lock;

/// Time between two looks at a service without a healthy instance, and at one with.
const SERVICE_LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

impl Reconciler {
    /// Deploys a service and says how many of its instances are healthy.
    pub(super) fn service(&self, key: &ObjectKey, spec: &ServiceSpec) -> Finding {
        let model = match &spec.model {
            None => None,
            Some(name) => {
                let Some((model, _)) = self.find(Kind::Model, &key.namespace, name) else {
                    return Finding::waiting("ModelMissing", format!("there is no Model `{name}`"));
                };
                let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
                match models.get(&model.global_name()) {
                    Some(found) => {
                        Some(NamedModel { name: model.name.as_str().into(), model: found.clone() })
                    }
                    None => {
                        return Finding::waiting(
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
            return Finding::stalled("InputsDiffer", message);
        }
        let wanted =
            json!([spec, model.as_ref().map(|model| (&*model.name, model.model.digest()))]);
        {
            let mut deployed = lock(&self.working.deployed);
            match deployed.get(&key.name) {
                Some((owner, _)) if owner != key => {
                    let message = format!("{owner} is called `{}` already", key.name);
                    return Finding::stalled("NameTaken", message);
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
                        model,
                        replicas: spec.replicas,
                        timeout: spec.timeout.as_std(),
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
                Finding::ready("ScaledToZero", "no instance is asked for").again(SERVICE_LOOK.1)
            }
            (0, _) => {
                let message = match status.instances {
                    0 => "no instance is registered".to_owned(),
                    _ => format!("none of {instances} is healthy"),
                };
                Finding::waiting("NoHealthyInstance", message).again(SERVICE_LOOK.0)
            }
            (healthy, _) => Finding::ready("Healthy", format!("{healthy} of {instances} healthy"))
                .again(SERVICE_LOOK.1),
        }
    }

    /// The object that a service of this name was deployed for.
    pub(in crate::reconcile) fn find_service(&self, name: &str) -> Option<(ObjectKey, Value)> {
        lock(&self.working.deployed).get(name).cloned()
    }

    /// Withdraws a deleted service.
    pub(super) fn remove_service(&self, key: &ObjectKey) {
        let mut deployed = lock(&self.working.deployed);
        if deployed.get(&key.name).is_some_and(|(owner, _)| owner == key) {
            self.context.services.remove(&key.name);
            deployed.remove(&key.name);
        }
    }
}
