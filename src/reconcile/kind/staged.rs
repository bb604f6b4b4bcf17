//! Changes of one controller on their way to the disk.

use serde_json::Value;

use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::status::Finding;
use crate::twin::path::Path;
use crate::twin::{Change, Refusal, ThingId};
use crate::writer::{Origin, Precondition, Rejected, Request};

/// Changes of one controller that are staged before they are sent to the disk.
const STAGED_MAX: usize = 512;

/// See the module.
pub(super) struct Staged<'a> {
    reconciler: &'a Reconciler,
    pub(super) batch: Option<u64>,
    waiting: usize,
}

impl<'a> Staged<'a> {
    pub(super) fn new(reconciler: &'a Reconciler) -> Self {
        Self { reconciler, batch: None, waiting: 0 }
    }

    pub(super) fn submit(&mut self, request: Request) -> Result<(), Finding> {
        match self.reconciler.context.writer.submit(request, self.reconciler.now_us()) {
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
pub(super) fn corrupt(id: &ThingId) -> Finding {
    Finding::stalled("CorruptHistory", Refusal::Stalled(id.clone()).message())
}

/// What a change that was not recorded means for its object.
pub(super) fn not_stored(rejected: &Rejected) -> Finding {
    match rejected {
        Rejected::Refused(Refusal::Stalled(_)) => {
            Finding::stalled("CorruptHistory", rejected.to_string())
        }
        Rejected::Refused(_) => Finding::stalled("Refused", rejected.to_string()),
        Rejected::NotStored(_) => Finding::failed("NotStored", rejected.to_string()),
    }
}

pub(super) fn request(id: ThingId, change: Change) -> Request {
    Request { id, change, only_if: Precondition::Always, origin: Origin::Runtime, depth: 0 }
}

pub(super) fn merge(id: ThingId, patch: Value) -> Request {
    request(id, Change::Merge(Path::Thing, patch))
}
