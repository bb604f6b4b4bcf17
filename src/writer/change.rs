//! A change on its way through the writer: as it is requested, as it is accepted, as it is committed.
//!
//! Not here: what a change does to a twin (`twin`), how it becomes durable (`commit`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::AppendError;
use crate::twin::path::Path;
use crate::twin::{Change, Event, Refusal, ThingId, Twin};

/// Who requests a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A node, through its reading.
    Node,
    /// A client of the API.
    Client,
    /// A service: its verdict.
    Service(Arc<str>),
    /// The runtime: an object that was applied, an aggregate.
    Runtime,
}

/// One change that is requested.
#[derive(Debug, Clone)]
pub struct Request {
    /// Of which twin.
    pub id: ThingId,
    /// What.
    pub change: Change,
    /// Under which condition.
    pub only_if: Precondition,
    /// By whom.
    pub origin: Origin,
    /// How many changes led to this one; 0 for one that comes from outside.
    pub depth: u8,
}

/// A condition on the twin as it is when the change is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Precondition {
    /// None.
    #[default]
    Always,
    /// No such thing exists.
    Absent,
    /// The thing exists.
    Present,
    /// The thing has this revision.
    Revision(u64),
    /// The thing exists, and what it has at `features/FEATURE/properties/PROPERTY` is not a
    /// number above this one.
    NotAbove {
        /// ID of the feature.
        feature: Arc<str>,
        /// Name of the property.
        property: &'static str,
        /// The greatest that it may be.
        number: u64,
    },
}

/// What was recorded, and in which batch.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The change.
    pub change: Committed,
    /// Durable once [`Durable::batch`](super::Durable::batch) has reached this.
    pub batch: u64,
}

/// One event and the twin that it led to.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Of which twin.
    pub id: ThingId,
    /// What happened.
    pub event: Arc<Event>,
    /// The twin before; `None` if there was none.
    pub before: Option<Arc<Twin>>,
    /// The twin after; `None` if it was deleted.
    pub after: Option<Arc<Twin>>,
    /// The revision that the event gave.
    pub revision: u64,
    /// Microseconds since 1970.
    pub time_us: i64,
    /// Who requested it.
    pub origin: Origin,
    /// How many changes led to this one; 0 for one that came from outside.
    pub depth: u8,
}

/// Why a change was not recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejected {
    /// The twin does not take it.
    Refused(Refusal),
    /// The log does not take it.
    NotStored(AppendError),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.message()),
            Self::NotStored(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Rejected {}

impl From<AppendError> for Rejected {
    fn from(error: AppendError) -> Self {
        Self::NotStored(error)
    }
}

/// What follows from a change at once, in the same batch.
pub trait Reaction: Send + Sync {
    /// Adds the changes that follow from `change` to `follow`. Called under the writer's lock:
    /// microseconds only, and no call back into the writer.
    fn react(&self, change: &Committed, follow: &mut Vec<Request>);
    /// Called when changes were dropped because they were `REACTION_DEPTH_MAX` deep.
    fn too_deep(&self, change: &Committed);
}

/// Receives what became durable.
pub trait Sink: Send + Sync {
    /// Takes the changes of one batch, in order. Called by the thread that commits: hands over,
    /// does not wait.
    fn committed(&self, changes: &[Committed]);
}

/// Counts of the writer, since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Events recorded.
    pub events: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Bytes handed to the disk.
    pub bytes: u64,
    /// Changes refused for lack of space.
    pub full: u64,
    /// Smoothed duration of writing and syncing a batch.
    pub commit_time: Duration,
}

impl Precondition {
    /// Judges the condition on the twin `id` as it is.
    pub(super) fn check(&self, id: &ThingId, twin: Option<&Twin>) -> Result<(), Refusal> {
        match (self, twin) {
            (Self::Always, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Absent, Some(_)) => Err(Refusal::Conflict(id.clone())),
            (Self::Present | Self::Revision(_) | Self::NotAbove { .. }, None) => {
                Err(Refusal::NotFound(id.clone(), Path::Thing))
            }
            (Self::NotAbove { feature, property, number }, Some(twin)) => {
                match twin.property_named(feature, property).and_then(serde_json::Value::as_u64) {
                    Some(is) if is > *number => Err(Refusal::PreconditionFailed(format!(
                        "`{feature}/{property}` of `{id}` is {is}, above {number}."
                    ))),
                    _ => Ok(()),
                }
            }
            (Self::Revision(wanted), Some(twin)) if twin.revision == *wanted => Ok(()),
            (Self::Revision(wanted), Some(twin)) => Err(Refusal::PreconditionFailed(format!(
                "The thing `{id}` has revision {}, not {wanted}.",
                twin.revision
            ))),
        }
    }
}
