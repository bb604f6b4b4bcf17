//! Why a decision is as it is: who set each field, and what was refused.

use std::collections::BTreeMap;
use std::fmt;

/// Who set a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Winner {
    /// A client, through `desiredProperties`.
    User,
    /// A rule.
    Rule(String),
    /// Nobody: the node is held as it was.
    Hold,
    /// The twin or the profile.
    Default,
}

impl fmt::Display for Winner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Hold => "hold",
            Self::Default => "default",
            Self::Rule(name) => name,
        })
    }
}

/// Something that was asked for and is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `NotInProfile`, `Clamped`, `HoldUp`, or what `Safety::reason` gives.
    pub reason: &'static str,
    /// Who asked.
    pub by: Winner,
    /// One sentence.
    pub message: String,
    /// Nothing of what the rule asks of the transmission applies.
    pub suspended: bool,
}

/// Why a decision is as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reasons {
    /// Who set each field: `pmin`, or `temperature.st`.
    pub winners: BTreeMap<String, Winner>,
    /// What is not as asked.
    pub refusals: Vec<Refusal>,
}
