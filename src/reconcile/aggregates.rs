//! Aggregates as a reaction of the writer: what follows from a change is recorded behind it, in
//! the same batch.

use serde_json::Value;

use crate::base::clock::now_us;
use crate::base::telemetry::Severity;
use crate::twin::aggregate::{Aggregates, Patch};
use crate::twin::path::Path;
use crate::twin::{Change, ThingId};
use crate::writer::{Committed, Origin, Precondition, REACTION_DEPTH_MAX, Reaction, Request};

impl Reaction for Aggregates {
    fn react(&self, change: &Committed, follow: &mut Vec<Request>) {
        let mut patches = Vec::new();
        self.observe(&change.id, change.before.as_deref(), change.after.as_deref(), &mut patches);
        follow.extend(patches.into_iter().map(request));
    }

    fn too_deep(&self, change: &Committed) {
        too_deep(self, &change.id);
    }
}

fn too_deep(aggregates: &Aggregates, id: &ThingId) {
    aggregates.telemetry.event(
        now_us(),
        Severity::Warning,
        "AggregatesTooDeep",
        format!("Twin/{}/{}", id.namespace(), id.name()),
        format!("aggregates of aggregates are derived {REACTION_DEPTH_MAX} levels deep; those above keep their values"),
    );
}

/// The change that makes an aggregate's twin show what it should.
pub(super) fn request(patch: Patch) -> Request {
    Request {
        id: patch.id,
        change: Change::Merge(Path::Features, Value::Object(patch.features)),
        only_if: Precondition::Present,
        origin: Origin::Runtime,
        depth: 0,
    }
}
