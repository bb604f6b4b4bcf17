//! What a request is about: [`Path`] × [`Verb`].
//!
//! Ditto has a command, an event and an exception class for each pair; here they are two small
//! types, shared by HTTP, events, search and the log. Source: Eclipse Ditto HTTP API 2.

use std::fmt;

/// Longest chain of segments in a pointer; deeper JSON is refused on the way in.
pub const DEPTH_MAX: usize = 32;

/// A non-empty JSON pointer below attributes or properties, one string a segment, unescaped.
pub type Pointer = Vec<String>;

/// A place in a thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Path {
    /// The whole thing.
    Thing,
    /// `/policyId`
    PolicyId,
    /// `/definition`
    Definition,
    /// `/attributes`
    Attributes,
    /// `/attributes/<pointer>`
    Attribute(Pointer),
    /// `/features`
    Features,
    /// `/features/<id>`
    Feature(String),
    /// `/features/<id>/definition`
    FeatureDefinition(String),
    /// `/features/<id>/properties`
    Properties(String),
    /// `/features/<id>/properties/<pointer>`
    Property(String, Pointer),
    /// `/features/<id>/desiredProperties`
    DesiredProperties(String),
    /// `/features/<id>/desiredProperties/<pointer>`
    DesiredProperty(String, Pointer),
}

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET
    Retrieve,
    /// PUT
    Modify,
    /// PATCH
    Merge,
    /// DELETE
    Delete,
}

/// Why a string is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// No resource of a thing has this name.
    Unknown,
    /// An empty segment, a control character, or deeper than [`DEPTH_MAX`].
    Invalid,
}

impl Path {
    /// Parses `/features/env/properties/x`; `/` and the empty string are the thing.
    ///
    /// Segments are JSON-pointer-escaped (`~0` for `~`, `~1` for `/`; RFC 6901).
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let trimmed = text.strip_prefix('/').unwrap_or(text);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Ok(Self::Thing);
        }
        Self::from_segments(trimmed.split('/').map(unescape).collect())
    }

    /// The path with these unescaped segments.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn from_segments(segments: Vec<String>) -> Result<Self, PathError> {
        if segments.len() > DEPTH_MAX || !segments.iter().all(|segment| is_key(segment)) {
            return Err(PathError::Invalid);
        }
        let mut rest = segments.into_iter();
        let Some(root) = rest.next() else { return Ok(Self::Thing) };
        let second = rest.next();
        Ok(match (root.as_str(), second) {
            ("policyId", None) => Self::PolicyId,
            ("definition", None) => Self::Definition,
            ("attributes", None) => Self::Attributes,
            ("attributes", Some(first)) => {
                Self::Attribute(std::iter::once(first).chain(rest).collect())
            }
            ("features", None) => Self::Features,
            ("features", Some(feature)) => {
                let part = rest.next();
                let pointer: Pointer = rest.collect();
                match (part.as_deref(), pointer.is_empty()) {
                    (None, _) => Self::Feature(feature),
                    (Some("definition"), true) => Self::FeatureDefinition(feature),
                    (Some("properties"), true) => Self::Properties(feature),
                    (Some("properties"), false) => Self::Property(feature, pointer),
                    (Some("desiredProperties"), true) => Self::DesiredProperties(feature),
                    (Some("desiredProperties"), false) => Self::DesiredProperty(feature, pointer),
                    _ => return Err(PathError::Unknown),
                }
            }
            _ => return Err(PathError::Unknown),
        })
    }

    /// The feature that this path is in, if it is in just one.
    pub fn feature(&self) -> Option<&str> {
        match self {
            Self::Feature(feature)
            | Self::FeatureDefinition(feature)
            | Self::Properties(feature)
            | Self::Property(feature, _)
            | Self::DesiredProperties(feature)
            | Self::DesiredProperty(feature, _) => Some(feature),
            _ => None,
        }
    }

    /// Whether `verb` exists here; where it does not, the request is refused.
    pub fn allows(&self, verb: Verb) -> bool {
        !matches!((self, verb), (Self::PolicyId, Verb::Delete))
    }

    /// What a person calls the thing at this path.
    pub fn noun(&self) -> String {
        match self {
            Self::Thing => "thing".to_owned(),
            Self::PolicyId => "policy ID".to_owned(),
            Self::Definition => "definition".to_owned(),
            Self::Attributes => "attributes".to_owned(),
            Self::Attribute(pointer) => format!("attribute `{}`", pointer.join("/")),
            Self::Features => "features".to_owned(),
            Self::Feature(feature) => format!("feature `{feature}`"),
            Self::FeatureDefinition(feature) => format!("definition of feature `{feature}`"),
            Self::Properties(feature) => format!("properties of feature `{feature}`"),
            Self::Property(feature, pointer) => {
                format!("property `{}` of feature `{feature}`", pointer.join("/"))
            }
            Self::DesiredProperties(feature) => {
                format!("desired properties of feature `{feature}`")
            }
            Self::DesiredProperty(feature, pointer) => {
                format!("desired property `{}` of feature `{feature}`", pointer.join("/"))
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, pointer: &Pointer| {
            pointer.iter().try_for_each(|segment| write!(f, "/{}", escape(segment)))
        };
        match self {
            Self::Thing => f.write_str("/"),
            Self::PolicyId => f.write_str("/policyId"),
            Self::Definition => f.write_str("/definition"),
            Self::Attributes => f.write_str("/attributes"),
            Self::Attribute(pointer) => {
                f.write_str("/attributes")?;
                write(f, pointer)
            }
            Self::Features => f.write_str("/features"),
            Self::Feature(feature) => write!(f, "/features/{}", escape(feature)),
            Self::FeatureDefinition(feature) => {
                write!(f, "/features/{}/definition", escape(feature))
            }
            Self::Properties(feature) => write!(f, "/features/{}/properties", escape(feature)),
            Self::Property(feature, pointer) => {
                write!(f, "/features/{}/properties", escape(feature))?;
                write(f, pointer)
            }
            Self::DesiredProperties(feature) => {
                write!(f, "/features/{}/desiredProperties", escape(feature))
            }
            Self::DesiredProperty(feature, pointer) => {
                write!(f, "/features/{}/desiredProperties", escape(feature))?;
                write(f, pointer)
            }
        }
    }
}

impl serde::Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| serde::de::Error::custom(format!("no path: {text}")))
    }
}

/// Whether a JSON key or feature ID is one that Ditto takes: not empty, no control characters, no
/// `/`. (Keys that hold `/` can therefore not occur; `~1` in a pointer names nothing.)
pub fn is_key(key: &str) -> bool {
    !key.is_empty() && !key.chars().any(|c| c == '/' || c.is_control())
}

fn unescape(segment: &str) -> String {
    if segment.contains('~') {
        segment.replace("~1", "/").replace("~0", "~")
    } else {
        segment.to_owned()
    }
}

fn escape(segment: &str) -> std::borrow::Cow<'_, str> {
    if segment.contains(['~', '/']) {
        segment.replace('~', "~0").replace('/', "~1").into()
    } else {
        segment.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_resource_of_a_thing_has_a_path() {
        for text in [
            "/",
            "/policyId",
            "/definition",
            "/attributes",
            "/attributes/a/b",
            "/features",
            "/features/env",
            "/features/env/definition",
            "/features/env/properties",
            "/features/env/properties/a/b",
            "/features/env/desiredProperties",
            "/features/env/desiredProperties/a",
        ] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_resource_is_refused() {
        for (text, error) in [
            ("/thing", PathError::Unknown),
            ("/features/env/props", PathError::Unknown),
            ("/features/env/definition/x", PathError::Unknown),
            ("/attributes//a", PathError::Invalid),
            ("/attributes/a\u{7}", PathError::Invalid),
            ("/attributes/a~1b", PathError::Invalid),
        ] {
            assert_eq!(Path::parse(text), Err(error), "{text}");
        }
        let deep = format!("/attributes{}", "/a".repeat(DEPTH_MAX));
        assert_eq!(Path::parse(&deep), Err(PathError::Invalid));
    }

    proptest! {
        #[test]
        fn a_path_reads_back(segments in proptest::collection::vec("[a-z~ é]{1,6}", 1..6)) {
            let mut all = vec!["features".to_owned(), "f~".to_owned(), "properties".to_owned()];
            all.extend(segments);
            let path = Path::from_segments(all).unwrap();
            prop_assert_eq!(Path::parse(&path.to_string()).unwrap(), path);
        }
    }
}
