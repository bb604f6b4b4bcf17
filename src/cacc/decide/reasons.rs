//! Why a decision is as it is: who set each field, and what was refused.

use std::collections::BTreeMap;

/// Whose word a field is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Winner {
    /// A person's, through `desiredProperties`.
    User,
    /// A rule's.
    Rule(String),
    /// Nobody's: the node is held as it was.
    Hold,
    /// The twin's or the profile's.
    Default,
}

/// Something that was asked for and is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `NotInProfile`, `Clamped`, `HoldUp`, or what [`Safety::reason`] gives.
    pub reason: &'static str,
    /// Who asked.
    pub by: Winner,
    /// One sentence.
    pub message: String,
    /// Nothing of what the rule asks of the transmission is heard.
    pub unheard: bool,
}

/// Why a decision is as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reasons {
    /// Whose word each field is: `pmin`, or `temperature.st`.
    pub winners: BTreeMap<String, Winner>,
    /// What is not as asked.
    pub refusals: Vec<Refusal>,
}

/// Whether what is won is no field of the transmission.
pub fn is_share(field: &str) -> bool {
    matches!(field, "weight" | "class" | "quarantine")
}
