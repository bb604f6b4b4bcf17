//! What a request asks for beside its path and body. Pure.

use axum::http::{HeaderMap, HeaderName, Method, header};

use super::error::DittoError;
use crate::twin::fields::Fields;
use crate::twin::path::Verb;
use crate::twin::rql::Filter;

/// Method, headers and parameters of a request.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Vec<(String, String)>,
}

impl Call {
    /// A query parameter or, Ditto allows either, the header of that name.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let header = || self.headers.get(name).and_then(|value| value.to_str().ok());
        self.query(name).or_else(header)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a stream of changes is asked for instead of one response.
    pub(super) fn wants_stream(&self) -> bool {
        self.header(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"))
    }

    /// Whether a response with a result is wanted; without one, 202 says that the change was made.
    pub(super) fn wants_result(&self) -> bool {
        let timeout = self.option("timeout").map(|text| text.trim_end_matches(['m', 's']));
        self.option("response-required") != Some("false") && timeout != Some("0")
    }

    /// Whether a write depends on the resource as it is.
    pub(super) fn is_conditional(&self) -> bool {
        self.option("condition").is_some()
            || self.headers.contains_key(header::IF_MATCH)
            || self.headers.contains_key(header::IF_NONE_MATCH)
    }

    /// The parameter `fields`, for a whole thing.
    pub(super) fn fields(&self) -> Result<Option<Fields>, DittoError> {
        let fields = self.query("fields").map(Fields::parse).transpose();
        fields.map_err(DittoError::InvalidFields)
    }

    /// All parameters `filter`.
    pub(super) fn filters(&self) -> Result<Vec<Filter>, DittoError> {
        let given = self.query.iter().filter(|(key, _)| key == "filter");
        let filters = given.map(|(_, text)| Filter::parse(text)).collect::<Result<_, _>>();
        filters.map_err(DittoError::InvalidFilter)
    }

    /// The parameter or header `condition`.
    pub(super) fn condition(&self) -> Result<Option<Filter>, DittoError> {
        let condition = self.option("condition").map(Filter::parse).transpose();
        condition.map_err(DittoError::InvalidCondition)
    }

    /// The parameter or header `at-historical-revision`.
    pub(super) fn historical_revision(&self) -> Result<Option<u64>, DittoError> {
        let revision = self.option("at-historical-revision").map(str::parse).transpose();
        revision.map_err(|_| DittoError::InvalidOption("`at-historical-revision` is not a number."))
    }

    /// A parameter that is a list separated by commas.
    pub(super) fn list(&self, name: &str) -> Option<Vec<String>> {
        self.query(name).map(|text| text.split(',').map(str::to_owned).collect())
    }

    /// What the method does; `None` if no resource has it.
    pub(super) fn verb(&self) -> Option<Verb> {
        match self.method {
            Method::GET | Method::HEAD => Some(Verb::Retrieve),
            Method::PUT => Some(Verb::Modify),
            Method::PATCH => Some(Verb::Merge),
            Method::DELETE => Some(Verb::Delete),
            _ => None,
        }
    }

    pub(super) fn not_allowed(&self) -> DittoError {
        DittoError::MethodNotAllowed(self.method.to_string())
    }

    /// Checks that the body is what the method takes.
    ///
    /// * `merge`: whether that is a merge patch.
    pub(super) fn check_media_type(&self, merge: bool) -> Result<(), DittoError> {
        let given = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = match media.as_str() {
            "application/merge-patch+json" => merge,
            "application/json" | "application/octet-stream" | "" => !merge,
            _ => false,
        };
        if fits { Ok(()) } else { Err(DittoError::MediaType { given: given.to_owned(), merge }) }
    }
}
