//! TwinAggregates: their twins are made as declared and derived from their members.
//!
//! Deriving is a reaction of the writer: what follows from a change is recorded behind it, in the
//! same batch.

use std::collections::BTreeMap;

use serde_json::Value;

use super::staged::{Staged, corrupt, merge, not_stored};
use crate::base::telemetry::Severity;
use crate::kinds::{DEFAULT_NAMESPACE, TwinAggregateSpec};
use crate::manifest;
use crate::reconcile::key::{ObjectKey, lookup_order, thing_id};
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::reconcile::stored::Stored;
use crate::reconcile::wanted;
use crate::twin::Change;
use crate::twin::aggregate::{AggregateSpec, Aggregates, Derived, Patch};
use crate::twin::path::Path;
use crate::writer::{Committed, Origin, Precondition, REACTION_DEPTH_MAX, Reaction, Request};

impl Reconciler {
    /// Makes the twin of an aggregate as declared and has it derived.
    pub(super) fn aggregate(
        &self,
        key: &ObjectKey,
        stored: &Stored,
        spec: &TwinAggregateSpec,
        labels: &BTreeMap<String, String>,
    ) -> Finding {
        let id = match thing_id(&key.namespace, &key.name) {
            Ok(id) => id,
            Err(error) => return Finding::stalled("Refused", error.to_string()),
        };
        // What is derived no longer is taken back only when nothing derives it any more.
        let mut staged = Staged::new(self);
        let declared = self.aggregate_spec(key, spec);
        if !self.context.aggregates.is(&id, &declared) {
            let surveyed = self.context.writer.survey(self.now_us(), |twins, requests| {
                let patch = self.context.aggregates.set(&id, declared, twins);
                requests.extend(patch.map(derived_request));
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
        let wanted = wanted::Wanted::of_aggregate(spec, labels);
        let twin = self.context.writer.newest(id.as_str());
        if let Some(patch) =
            wanted.patch(twin.as_deref(), &stored.made().paths, &wanted::derived(spec))
            && let Err(report) = staged.submit(merge(id.clone(), patch))
        {
            return report;
        }
        let members = self.context.aggregates.members(&id).map_or(0, |members| members.len());
        Finding::ready(
            "Derived",
            format!("derived from {}", manifest::diagnostic::plural(members, "member")),
        )
        .once_durable(staged.batch)
    }

    fn aggregate_spec(&self, key: &ObjectKey, spec: &TwinAggregateSpec) -> AggregateSpec {
        let named = spec.members.names.iter().filter_map(|reference| {
            let order = lookup_order(&key.namespace, reference);
            let found = order.iter().find(|(place, name)| self.declares_twin(place, name, None));
            // A twin that a client created and no object declares is in this namespace.
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

    /// Forgets a deleted TwinAggregate.
    pub(super) fn remove_aggregate(&self, key: &ObjectKey) {
        if let Ok(id) = thing_id(&key.namespace, &key.name) {
            self.context.aggregates.remove(&id);
        }
    }
}

impl Reaction for Aggregates {
    fn react(&self, change: &Committed, follow: &mut Vec<Request>) {
        let mut patches = Vec::new();
        self.observe(&change.id, change.before.as_deref(), change.after.as_deref(), &mut patches);
        follow.extend(patches.into_iter().map(derived_request));
    }

    fn too_deep(&self, change: &Committed) {
        let id = &change.id;
        self.telemetry.event(
            change.time_us,
            Severity::Warning,
            "AggregatesTooDeep",
            format!("Twin/{}/{}", id.namespace(), id.name()),
            format!("aggregates of aggregates are derived {REACTION_DEPTH_MAX} levels deep; those above keep their values"),
        );
    }
}

/// The change that makes an aggregate's twin show what it should.
fn derived_request(patch: Patch) -> Request {
    Request {
        id: patch.id,
        change: Change::Merge(Path::Features, Value::Object(patch.features)),
        only_if: Precondition::Present,
        origin: Origin::Runtime,
        depth: 0,
    }
}
