//! CloudSink: what may leave the site.
//!
//! Not here: the twins that it is about.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, MemberSelector, PropertyPath, Size};

/// What may leave the site, to where and how often. What no CloudSink names stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudSinkSpec {
    /// Where to: `https://…` or `mqtts://…`.
    #[schemars(regex(pattern = r"^(https?|mqtts?)://[^\s]+$"), extend("x-scalar" = "url"))]
    pub url: String,
    /// What may leave.
    #[schemars(length(min = 1, max = 256))]
    pub allow: Vec<CloudAllowance>,
    /// How much is kept on disk while the uplink is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Size>,
    /// The name of the credentials to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

/// One thing that may leave the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudAllowance {
    /// Of which twins.
    pub twins: MemberSelector,
    /// Which properties, by `feature/property`.
    #[schemars(length(min = 1, max = 256))]
    pub properties: Vec<PropertyPath>,
    /// Least time between two values of one twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}
