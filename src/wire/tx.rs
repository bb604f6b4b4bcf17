//! A node's transmission, as acknowledgements, events and states report it.
//!
//! Not here: the command that changes it ([`super::Prog`]).

use serde::{Deserialize, Serialize};

use super::{Decimal, Pairs, Program};

/// A node's transmission, as it reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tx {
    /// The program of all properties that are in no group of their own.
    pub program: Program,
    /// Least time between messages, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmin: Option<u32>,
    /// Longest silence, ms; 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmax: Option<u32>,
    /// Send on a change by this much since the last value sent, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub st: Pairs<Decimal>,
    /// Send on crossing this value, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub gt: Pairs<Decimal>,
    /// Send on crossing this value, by property.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub lt: Pairs<Decimal>,
    /// Whether this is what the node starts with.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_flag")]
    pub kept: Option<bool>,
    /// Properties with a transmission of their own: the names joined by commas, as in `on=`.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub groups: Pairs<Tx>,
}

impl Tx {
    /// A transmission of all properties with no thresholds.
    pub fn new(program: Program, pmin: Option<u32>, pmax: Option<u32>) -> Self {
        let (st, gt, lt) = Default::default();
        Self { program, pmin, pmax, st, gt, lt, kept: None, groups: Pairs::default() }
    }
}

/// A flag that may be missing.
mod maybe_flag {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        flag: &Option<bool>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(*flag == Some(true)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<bool>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(|flag| flag != 0))
    }
}
