//! The kinds: what each one's controller does (observe, compare, act, report), and what
//! it removes when its object is deleted.
//!
//! Controllers run on threads that may block, at most one at a time for an object. What they do is
//! safe to repeat. One file a kind; here is only which of them an object goes to.

mod aggregate;
pub(super) mod model;
mod rule;
mod service;
mod staged;
#[cfg(test)]
mod tests;
mod twin;
mod twin_model;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::twin::set_names;
use super::key::ObjectKey;
use super::reconciler::Reconciler;
use super::status::Finding;
use super::stored::Stored;
use crate::kinds::{Kind, Spec};
use crate::manifest::Object;

impl Reconciler {
    /// Makes things as an object asks, and reports how far that is.
    pub(in crate::reconcile) fn act(
        self: &Arc<Self>,
        key: &ObjectKey,
        stored: &Stored,
        object: &Object,
    ) -> Finding {
        let labels = &object.metadata.labels;
        match &object.spec {
            Spec::TwinModel(_) => Finding::ready("Accepted", "readings are checked against it"),
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
            Spec::ContextRule(spec) => self.rule(key, spec, &object.not_acted_on()),
            _ => Finding::not_acted_on(object.not_acted_on().join("; ")),
        }
    }

    /// Removes what an object made; it is gone once the batch is durable.
    pub(super) fn finalise(
        &self,
        key: &ObjectKey,
        stored: &Stored,
    ) -> Result<Option<u64>, Finding> {
        match key.kind {
            Kind::Twin => self.remove_twins(key, [key.name.as_str()]),
            Kind::TwinSet => {
                let names = set_names(key, stored);
                self.remove_twins(key, names.iter().map(String::as_str))
            }
            Kind::TwinAggregate => {
                self.remove_aggregate(key);
                self.remove_twins(key, [key.name.as_str()])
            }
            kind => {
                match kind {
                    Kind::Service => self.remove_service(key),
                    Kind::Model => self.remove_model(key),
                    Kind::TwinModel => self.remove_twin_model(key),
                    Kind::ContextRule => self.remove_rule(key),
                    _ => {}
                }
                Ok(None)
            }
        }
    }

    /// Declares an object's nodes or rule to the controller, before anything is reconciled.
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
            // Its mistakes are reported when it is reconciled.
            Ok(Spec::ContextRule(spec)) => drop(self.rule(key, &spec, &[])),
            _ => {}
        }
    }
}
