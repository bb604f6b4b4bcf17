//! CloudSink: what may leave the site.
//!
//! Not here: the twins that it is about.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pending::{KindSpec, Pending};
use super::{Duration, MemberSelector, PropertyPath, Size};

/// Which values may leave the site, where to and how often. Values that no CloudSink names stay on the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudSinkSpec {
    /// The address: `https://…` or `mqtts://…`.
    #[schemars(regex(pattern = r"^(https?|mqtts?)://[^\s]+$"), extend("x-scalar" = "url"))]
    pub url: String,
    /// The values that may leave the site.
    #[schemars(length(min = 1, max = 256))]
    pub allow: Vec<CloudAllowance>,
    /// How much is buffered on disk while the uplink is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Size>,
    /// The name of the credentials to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

impl KindSpec for CloudSinkSpec {
    const PENDING: &'static [Pending] =
        &[Pending::Kind("nothing leaves the site, so nothing acts on it yet")];
}

/// Values that may leave the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudAllowance {
    /// The twins.
    pub twins: MemberSelector,
    /// The properties, by `feature/property`.
    #[schemars(length(min = 1, max = 256))]
    pub properties: Vec<PropertyPath>,
    /// The least time between two values of one twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}
