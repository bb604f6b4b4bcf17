//! Why a change was not made: Ditto's status, error code and words.
//!
//! Not here: when a change is refused (`decide`), the answer that says so (`ditto`).

use super::path::Path;
use super::{THING_LEN_MAX, ThingId};

/// Why a change was not made, in Ditto's terms.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No such thing, or nothing at the path.
    NotFound(ThingId, Path),
    /// The thing exists and should not.
    Conflict(ThingId),
    /// The ID is none.
    InvalidId(String),
    /// The value cannot be at the path: code, what is wrong.
    InvalidValue(&'static str, String),
    /// The thing would be larger than [`THING_LEN_MAX`].
    TooLarge(ThingId),
    /// `If-Match` or `If-None-Match` forbids it.
    PreconditionFailed(String),
    /// The reading is in already; it is acknowledged and changes nothing.
    Duplicate,
    /// Part of the twin's history is damaged; it takes no changes (see `doctor`).
    Stalled(ThingId),
}

impl Refusal {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound(..) => 404,
            Self::Conflict(_) => 409,
            Self::InvalidId(_) | Self::InvalidValue(..) => 400,
            Self::TooLarge(_) => 413,
            Self::PreconditionFailed(_) => 412,
            Self::Duplicate => 200,
            Self::Stalled(_) => 503,
        }
    }

    /// Ditto's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_, path) => path.not_found_code(),
            Self::Conflict(_) => "things:thing.conflict",
            Self::InvalidId(_) => "things:id.invalid",
            Self::InvalidValue(code, _) => code,
            Self::TooLarge(_) => "things:thing.toolarge",
            Self::PreconditionFailed(_) => "things:precondition.failed",
            Self::Duplicate => "reading.duplicate",
            Self::Stalled(_) => "things:thing.unavailable",
        }
    }

    /// One sentence.
    pub fn message(&self) -> String {
        match self {
            Self::NotFound(id, Path::Thing) => format!("There is no thing with the ID `{id}`."),
            Self::NotFound(id, path) => format!("The thing `{id}` has no {}.", path.noun()),
            Self::Conflict(id) => format!("There is a thing with the ID `{id}` already."),
            Self::InvalidId(id) => format!("`{id}` is not a thing ID."),
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

    /// What to do about it, where that can be said.
    pub fn description(&self) -> Option<&'static str> {
        match self {
            Self::InvalidId(_) => Some(
                "A thing ID is `namespace:name`; the namespace starts with a letter and has letters, digits, `_`, `.` and `-`; the name has no `/` and no control characters; 256 characters at most.",
            ),
            Self::NotFound(..) => Some("Check whether the ID and the path are right."),
            Self::Stalled(_) => Some("Restore a backup, or run `edgetwin doctor --accept-loss`."),
            _ => None,
        }
    }
}
