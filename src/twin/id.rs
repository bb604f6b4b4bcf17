//! The name of a twin.
//!
//! Not here: the twin (`thing`), ways into it (`path`).

use std::fmt;
use std::sync::Arc;

use super::limits::THING_ID_LEN_MAX;
use crate::store::record::KEY_LEN_MAX;

/// Text that is not the name of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidThingId(pub String);

impl fmt::Display for InvalidThingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a thing ID.", self.0)
    }
}

impl std::error::Error for InvalidThingId {}

/// `namespace:name`, checked. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThingId(pub(super) Arc<str>);

impl ThingId {
    /// Parses Ditto's ID: namespace `[a-zA-Z]\w*` in parts joined by `.` or `-`, or empty; a
    /// name without control characters and `/`; at most 256 characters and 255 bytes in all.
    ///
    /// # Errors
    /// [`InvalidThingId`].
    pub fn parse(text: &str) -> Result<Self, InvalidThingId> {
        let invalid = || InvalidThingId(text.chars().take(THING_ID_LEN_MAX).collect());
        let (namespace, name) = text.split_once(':').ok_or_else(invalid)?;
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let namespace_ok = namespace.is_empty() || namespace.split(['.', '-']).all(part);
        let name_ok = !name.is_empty()
            && !name
                .chars()
                .any(|c| c == '/' || c.is_control() || ('\u{7f}'..='\u{ff}').contains(&c));
        // The log's key length is one byte.
        let long = text.chars().count() > THING_ID_LEN_MAX || text.len() > KEY_LEN_MAX;
        if !namespace_ok || !name_ok || long {
            return Err(invalid());
        }
        Ok(Self(text.into()))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In front of the first colon.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// Behind the first colon.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for ThingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ThingId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
