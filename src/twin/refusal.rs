//! Why a change was not made.
//!
//! Not here: when a change is refused (`decide`), status and error code of the response (`ditto`).

use super::id::{InvalidThingId, ThingId};
use super::limits::THING_LEN_MAX;
use super::path::Path;

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No such thing, or nothing at the path.
    NotFound(ThingId, Path),
    /// The thing exists and should not.
    Conflict(ThingId),
    /// The ID is none.
    InvalidId(InvalidThingId),
    /// The value cannot be at the path: which rule it breaks, and how.
    InvalidValue(ValueError, String),
    /// The thing would be larger than [`THING_LEN_MAX`].
    TooLarge(ThingId),
    /// `If-Match` or `If-None-Match` forbids it.
    PreconditionFailed(String),
    /// The reading is in already; it is acknowledged and changes nothing.
    Duplicate,
    /// Part of the twin's history is damaged; it takes no changes (see `doctor`).
    Stalled(ThingId),
}

/// Which rule a value breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueError {
    /// It is not JSON of the form that belongs here.
    Json,
    /// A key is empty, or has a `/` or a control character.
    Key,
    /// It is not a merge patch for this place.
    Merge,
    /// A thing's ID cannot be changed.
    ThingIdNotSettable,
    /// It is not a policy ID.
    PolicyId,
    /// A thing's policy ID cannot be deleted.
    PolicyIdNotDeletable,
    /// It is not a definition.
    Definition,
    /// A feature's definition names at least one model.
    EmptyDefinition,
}

impl Refusal {
    /// One sentence.
    pub fn message(&self) -> String {
        match self {
            Self::NotFound(id, Path::Thing) => format!("There is no thing with the ID `{id}`."),
            Self::NotFound(id, path) => format!("The thing `{id}` has no {}.", path.noun()),
            Self::Conflict(id) => format!("There is a thing with the ID `{id}` already."),
            Self::InvalidId(error) => error.to_string(),
            Self::InvalidValue(_, why) => why.clone(),
            Self::TooLarge(id) => {
                format!("The thing `{id}` would be larger than {THING_LEN_MAX} bytes.")
            }
            Self::PreconditionFailed(why) => why.clone(),
            Self::Duplicate => "This reading was taken before.".to_owned(),
            Self::Stalled(id) => format!(
                "The recorded history of `{id}` is damaged; it takes no changes until the loss is accepted."
            ),
        }
    }
}

impl From<InvalidThingId> for Refusal {
    fn from(error: InvalidThingId) -> Self {
        Self::InvalidId(error)
    }
}
