//! Every error of Ditto's API in one table: status, code, text, what to do, and whether to try
//! again. Pure.
//!
//! What twins ([`Refusal`]) and the writer ([`Rejected`], [`NotDurable`]) refuse is mapped here and
//! nowhere else, so neither knows HTTP. Source of the codes: Eclipse Ditto, `httpapi-errors` and the
//! exceptions of its modules `things`, `policies`, `gateway` and `json`.

use crate::base::http::BODY_LEN_MAX;
use crate::store::AppendError;
use crate::twin::path::{Path, PathError};
use crate::twin::{InvalidThingId, Refusal, ThingId, ValueError};
use crate::writer::{NotDurable, Rejected};

/// A full disk may have space again after this time, in seconds.
const RETRY_FULL_S: u32 = 10;
/// A runtime whose disk failed may have been restarted after this time, in seconds.
const RETRY_READ_ONLY_S: u32 = 60;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DittoError {
    /// No such version of the API.
    UnknownVersion(String),
    /// Nothing is served at this path.
    UnknownPath(String),
    /// A thing has no such resource.
    UnknownResource,
    /// The path is not UTF-8 once it is decoded.
    PathEncoding,
    /// A segment of the path is not a key.
    PathSegment,
    /// The method is not possible at this path.
    MethodNotAllowed(String),
    /// POST with an ID.
    IdNotSettable,
    /// A header or parameter has a value that it cannot have: what is wrong.
    InvalidOption(&'static str),
    /// The parameter `condition` is no filter: why.
    InvalidCondition(String),
    /// The parameter `filter` is no filter: why.
    InvalidFilter(String),
    /// The parameter `fields` selects nothing of a thing: why.
    InvalidFields(String),
    /// The parameter `fields` is no selector: why.
    InvalidSelector(String),
    /// The parameter `option` of a search: why.
    InvalidSearchOption(String),
    /// The thing does not meet `condition`.
    ConditionFailed,
    /// The resource does not meet `If-Match` or `If-None-Match`.
    PreconditionFailed {
        /// Which of them.
        header: &'static str,
        /// Its value.
        wanted: String,
        /// The resource's entity tag.
        found: Option<String>,
    },
    /// The body's media type is not taken here.
    MediaType {
        /// The one that was given.
        given: String,
        /// Whether a merge patch is wanted.
        merge: bool,
    },
    /// The body is not JSON: why.
    NotJson(String),
    /// The body is not a form.
    NotAForm,
    /// The body is too large or incomplete.
    BodyTooLarge,
    /// The thing had no such revision, or its history no longer reaches back to it.
    NoSuchRevision(ThingId, u64),
    /// The history cannot be read: why.
    HistoryUnreadable(String),
    /// The twin refused the change.
    Refused(Refusal),
    /// There is no space left for the change.
    DiskFull,
    /// The disk failed; nothing is changed until a restart.
    ReadOnly,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorRow {
    /// HTTP status.
    pub(super) status: u16,
    /// Ditto's error code.
    pub(super) code: &'static str,
    /// What is wrong, one sentence.
    pub(super) message: String,
    /// What to do about it.
    pub(super) description: Option<&'static str>,
    /// The same request may succeed after this time, in seconds; `None` if it will not.
    pub(super) retry_after_s: Option<u32>,
}

fn row(status: u16, code: &'static str, message: impl Into<String>) -> ErrorRow {
    ErrorRow { status, code, message: message.into(), description: None, retry_after_s: None }
}

impl ErrorRow {
    fn help(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    fn retry(mut self, after_s: u32) -> Self {
        self.retry_after_s = Some(after_s);
        self
    }
}

impl DittoError {
    /// The error's line of the table.
    pub(super) fn row(&self) -> ErrorRow {
        match self {
            Self::UnknownVersion(version) => row(
                404,
                "api.version.notsupported",
                format!("API version `{version}` is not served; `2` is."),
            ),
            Self::UnknownPath(path) => {
                row(404, "gateway:resource.notfound", format!("There is no `{path}`."))
                    .help("`/` says what is where.")
            }
            Self::UnknownResource => {
                row(404, "gateway:resource.notfound", "A thing has no such resource.")
            }
            Self::PathEncoding => {
                row(400, "json.pointer.invalid", "The path is not UTF-8 once it is decoded.")
            }
            Self::PathSegment => row(
                400,
                "json.pointer.invalid",
                "A segment of the path is empty or has control characters, or the path is too deep.",
            ),
            Self::MethodNotAllowed(method) => {
                row(405, "gateway:method.notallowed", format!("{method} is not possible here."))
            }
            Self::IdNotSettable => row(
                400,
                "things:id.notsettable",
                "A thing that is created by POST gets its ID from the server; use PUT to set one.",
            ),
            Self::InvalidOption(why) => row(400, "command.headers.invalid", *why),
            Self::InvalidCondition(why) => row(400, "things:condition.invalid", why),
            Self::InvalidFilter(why) => row(400, "rql.expression.invalid", why),
            Self::InvalidFields(why) => row(400, "things:field.selection.invalid", why),
            Self::InvalidSelector(why) => row(400, "json.fieldselector.invalid", why),
            Self::InvalidSearchOption(why) => row(400, "thing-search:search.option.invalid", why),
            Self::ConditionFailed => {
                row(412, "things:condition.failed", "The thing does not meet the condition.")
            }
            Self::PreconditionFailed { header, wanted, found } => {
                let found = found.as_deref().unwrap_or("nothing");
                row(
                    412,
                    "things:precondition.failed",
                    format!("`{header}: {wanted}` does not hold: the resource is {found}."),
                )
            }
            Self::MediaType { given, merge } => {
                let (wanted, help) = match merge {
                    true => (
                        "application/merge-patch+json",
                        "Set Content-Type: application/merge-patch+json.",
                    ),
                    false => ("application/json", "Set Content-Type: application/json."),
                };
                row(
                    415,
                    "mediatype.unsupported",
                    format!("`{given}` is not taken here; {wanted} is."),
                )
                .help(help)
            }
            Self::NotJson(why) => row(400, "json.invalid", format!("The body is not JSON: {why}.")),
            Self::NotAForm => {
                row(400, "json.invalid", "The body is not application/x-www-form-urlencoded.")
            }
            Self::BodyTooLarge => row(
                413,
                "things:thing.toolarge",
                format!("The body is larger than {BODY_LEN_MAX} bytes, or was cut off."),
            ),
            Self::NoSuchRevision(id, revision) => row(
                404,
                "things:thing.history.notfound",
                format!("The thing `{id}` has no revision {revision} in its history."),
            ),
            Self::HistoryUnreadable(why) => row(
                500,
                "things:thing.history.corrupt",
                format!("The history cannot be read: {why}."),
            ),
            Self::Refused(refusal) => refused(refusal),
            Self::DiskFull => {
                row(507, "things:thing.notmodifiable", "There is no space left on the disk.")
                    .help("Reads go on. Free space; writing then works again by itself.")
                    .retry(RETRY_FULL_S)
            }
            Self::ReadOnly => row(
                503,
                "things:thing.unavailable",
                "A write to the disk failed; nothing is changed until a restart.",
            )
            .help("Reads go on. Look at `edgetwin events`, mend the disk, restart.")
            .retry(RETRY_READ_ONLY_S),
        }
    }
}

/// What a twin refused, in Ditto's terms.
fn refused(refusal: &Refusal) -> ErrorRow {
    let row = |status, code| row(status, code, refusal.message());
    match refusal {
        Refusal::NotFound(_, path) => {
            row(404, not_found_code(path)).help("Check whether the ID and the path are right.")
        }
        Refusal::Conflict(_) => row(409, "things:thing.conflict"),
        Refusal::InvalidId(_) => row(400, "things:id.invalid").help(
            "A thing ID is `namespace:name`; the namespace starts with a letter and has letters, digits, `_`, `.` and `-`; the name has no `/` and no control characters; 256 characters at most.",
        ),
        Refusal::InvalidValue(error, _) => row(400, value_code(*error)),
        Refusal::TooLarge(_) => row(413, "things:thing.toolarge"),
        Refusal::PreconditionFailed(_) => row(412, "things:precondition.failed"),
        Refusal::Duplicate => row(200, "reading.duplicate"),
        Refusal::Stalled(_) => row(503, "things:thing.unavailable")
            .help("Restore a backup, or run `edgetwin doctor --accept-loss`."),
    }
}

fn value_code(error: ValueError) -> &'static str {
    match error {
        ValueError::Json => "json.invalid",
        ValueError::Key => "json.key.invalid",
        ValueError::Merge => "things:merge.invalid",
        ValueError::ThingIdNotSettable => "things:id.notsettable",
        ValueError::PolicyId => "policies:id.invalid",
        ValueError::PolicyIdNotDeletable => "things:policyId.notdeletable",
        ValueError::Definition => "things:definition.identifier.invalid",
        ValueError::EmptyDefinition => "things:feature.definition.empty",
    }
}

/// The code where there is nothing at a path.
fn not_found_code(path: &Path) -> &'static str {
    match path {
        Path::Thing => "things:thing.notfound",
        Path::PolicyId => "things:policyId.notfound",
        Path::Definition => "things:definition.notfound",
        Path::Attributes => "things:attributes.notfound",
        Path::Attribute(_) => "things:attribute.notfound",
        Path::Features => "things:features.notfound",
        Path::Feature(_) => "things:feature.notfound",
        Path::FeatureDefinition(_) => "things:feature.definition.notfound",
        Path::Properties(_) => "things:feature.properties.notfound",
        Path::Property(..) => "things:feature.property.notfound",
        Path::DesiredProperties(_) => "things:feature.desiredProperties.notfound",
        Path::DesiredProperty(..) => "things:feature.desiredProperty.notfound",
    }
}

impl From<Refusal> for DittoError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<InvalidThingId> for DittoError {
    fn from(error: InvalidThingId) -> Self {
        Self::Refused(error.into())
    }
}

impl From<PathError> for DittoError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Unknown => Self::UnknownResource,
            PathError::Invalid => Self::PathSegment,
        }
    }
}

impl From<Rejected> for DittoError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Refused(refusal) => Self::Refused(refusal),
            Rejected::NotStored(AppendError::Full) => Self::DiskFull,
            Rejected::NotStored(AppendError::ReadOnly(_)) => Self::ReadOnly,
        }
    }
}

impl From<NotDurable> for DittoError {
    fn from(_: NotDurable) -> Self {
        Self::ReadOnly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_advised_only_where_the_same_request_may_succeed() {
        for error in [DittoError::DiskFull, DittoError::ReadOnly] {
            let row = error.row();
            assert!(row.status >= 500 && row.retry_after_s.is_some(), "{row:?}");
        }
        let id = ThingId::parse("lab:a").unwrap();
        for error in [
            DittoError::UnknownResource,
            DittoError::BodyTooLarge,
            DittoError::HistoryUnreadable("a checksum".to_owned()),
            // Only a person can mend this one.
            Refusal::Stalled(id.clone()).into(),
            Refusal::NotFound(id.clone(), Path::Thing).into(),
            Refusal::Conflict(id).into(),
        ] {
            assert_eq!(error.row().retry_after_s, None, "{error:?}");
        }
    }

    #[test]
    fn a_refusal_has_dittos_status_and_code() {
        let id = ThingId::parse("lab:a").unwrap();
        let feature = Path::Feature("env".to_owned());
        for (refusal, status, code) in [
            (Refusal::NotFound(id.clone(), Path::Thing), 404, "things:thing.notfound"),
            (Refusal::NotFound(id.clone(), feature), 404, "things:feature.notfound"),
            (Refusal::Conflict(id.clone()), 409, "things:thing.conflict"),
            (InvalidThingId("x".to_owned()).into(), 400, "things:id.invalid"),
            (Refusal::InvalidValue(ValueError::Key, String::new()), 400, "json.key.invalid"),
            (Refusal::InvalidValue(ValueError::Merge, String::new()), 400, "things:merge.invalid"),
            (Refusal::TooLarge(id.clone()), 413, "things:thing.toolarge"),
            (Refusal::PreconditionFailed(String::new()), 412, "things:precondition.failed"),
            (Refusal::Stalled(id), 503, "things:thing.unavailable"),
        ] {
            let row = DittoError::from(refusal).row();
            assert_eq!((row.status, row.code), (status, code));
        }
    }

    #[test]
    fn what_is_not_stored_says_whether_a_restart_is_needed() {
        let full = DittoError::from(Rejected::NotStored(AppendError::Full)).row();
        assert_eq!((full.status, full.code), (507, "things:thing.notmodifiable"));
        let failed = AppendError::ReadOnly("an error of the disk".to_owned());
        let failed = DittoError::from(Rejected::NotStored(failed)).row();
        assert_eq!((failed.status, failed.code), (503, "things:thing.unavailable"));
    }
}
