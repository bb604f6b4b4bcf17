//! Why a message of a node is refused.

use std::fmt;

/// Largest reading, bytes. A node's buffer is a few hundred; a batch of features a few thousand.
/// A larger one is refused as `TooLarge`.
pub const READING_LEN_MAX: usize = 64 * 1024;

/// Why a message is no reading.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadError {
    /// The topic is below `et/v1/` and is none of a node's.
    Topic(String),
    /// Larger than [`READING_LEN_MAX`].
    TooLarge(usize),
    /// Not JSON; what the parser says.
    NotJson(String),
    /// JSON, and not an object with at least one value.
    NotAReading(&'static str),
    /// A reserved field has the wrong type.
    Field(&'static str, &'static str),
    /// The model has no such property.
    Unknown(String),
    /// The property is of another type.
    Type(String, ValueKind),
    /// The property is outside the model's range.
    Range(String, f64, Option<f64>, Option<f64>),
    /// The name is in several features, or the twin has no model: say which feature is meant.
    Ambiguous(String),
}

impl PayloadError {
    /// A stable name for counters and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Topic(_) => "MalformedTopic",
            Self::TooLarge(_) => "TooLarge",
            Self::NotJson(_) => "NotJson",
            Self::NotAReading(_) | Self::Field(..) => "NotAReading",
            Self::Unknown(_) => "UnknownProperty",
            Self::Type(..) => "WrongType",
            Self::Range(..) => "OutOfRange",
            Self::Ambiguous(_) => "AmbiguousProperty",
        }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(
                f,
                "`{topic}` is not a node's topic: et/v1/<namespace>/<name>/<data|state|feat|event|ack|…>"
            ),
            Self::TooLarge(len) => {
                write!(f, "the reading has {len} bytes; {READING_LEN_MAX} are the most")
            }
            Self::NotJson(why) => write!(f, "the payload is not JSON: {why}"),
            Self::NotAReading(why) => f.write_str(why),
            Self::Field(field, wanted) => write!(f, "`{field}` must be {wanted}"),
            Self::Unknown(property) => write!(f, "the twin's model has no property `{property}`"),
            Self::Type(property, kind) => write!(f, "`{property}` must be {kind}"),
            Self::Range(property, value, min, max) => {
                write!(f, "`{property}` is {value}, outside the model's range")?;
                match (min, max) {
                    (Some(min), Some(max)) => write!(f, " {min} to {max}"),
                    (Some(min), None) => write!(f, ", {min} or more"),
                    (None, Some(max)) => write!(f, ", {max} or less"),
                    (None, None) => Ok(()),
                }
            }
            Self::Ambiguous(property) => write!(
                f,
                "`{property}` is not in just one feature of the twin's model; write {{\"<feature>\": {{\"{property}\": …}}}}"
            ),
        }
    }
}

/// What kind of value a property takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Any JSON number.
    Number,
    /// A JSON number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Text.
    Text,
    /// An object.
    Object,
    /// An array.
    Array,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::Text => "a string",
            Self::Object => "an object",
            Self::Array => "an array",
        })
    }
}
