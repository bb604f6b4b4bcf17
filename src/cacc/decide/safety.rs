//! Safety, the first step of the decision: when a node's transmission is fixed, whatever rules ask.
//! Pure.
//!
//! | state | since | how the node transmits |
//! |---|---|---|
//! | `Quarantined` | an active rule says `quarantine: true`, and no stronger one `false` | its default; no rule applies, and it has no share of a budget |
//! | `Held` | a client wrote `hold: true` into `desiredProperties` | as it did; no rule applies |
//! | `LowBattery` | its battery fell below the profile's `low`, until it is [`RECOVERED`] above | its default; only rules of class `safety` apply |
//!
//! The uppermost that holds counts. A client's `desiredProperties` apply in all of them.
//!
//! An offline node is in none of these states: it falls back to its default by itself when its lease is
//! over, and what is decided meanwhile is what it finds when it comes back.

use serde::{Deserialize, Serialize};

use super::layer::Layer;
use crate::cacc::rule::Class;

/// By so many percent a battery has to be above `low` before it is no longer low: the voltage rises
/// as soon as less is sent.
pub const RECOVERED: u8 = 5;

/// Why a node's transmission is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Safety {
    /// A rule isolates the node.
    Quarantined,
    /// A client wants it left as it is.
    Held,
    /// Its battery is low.
    LowBattery,
}

/// What safety needs to know of a node beside its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// A client wants it left as it is.
    pub held: bool,
    /// Its battery is low.
    pub low: bool,
}

impl Standing {
    /// Whether nothing is the matter.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Safety {
    /// The state that a node is in.
    ///
    /// * `active`: the active rules, the strongest first.
    pub fn of(standing: Standing, active: &[Layer<'_>]) -> Option<Self> {
        let quarantined = active.iter().find_map(|layer| layer.effect.quarantine);
        match standing {
            _ if quarantined == Some(true) => Some(Self::Quarantined),
            Standing { held: true, .. } => Some(Self::Held),
            Standing { low: true, .. } => Some(Self::LowBattery),
            _ => None,
        }
    }

    /// Whether a rule applies nevertheless.
    pub fn permits(self, layer: &Layer<'_>) -> bool {
        self == Self::LowBattery && layer.effect.class == Some(Class::Safety)
    }

    /// Which rules do not apply, for people.
    pub fn suspended(self) -> &'static str {
        match self {
            Self::LowBattery => "only rules of class `safety` apply to this node now",
            Self::Quarantined | Self::Held => "rules do not apply to this node now",
        }
    }

    /// What does not apply is refused for this reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Quarantined => "Quarantined",
            Self::Held => "Held",
            Self::LowBattery => "LowBattery",
        }
    }
}

/// Whether a battery is low now.
///
/// * `was`: whether it was.
/// * `percent`: what the node reports; `None` if it reports nothing.
/// * `low`: the profile's threshold; `None` if it has no battery.
pub fn is_low(was: bool, percent: Option<u8>, low: Option<u8>) -> bool {
    match (percent, low) {
        (_, None) => false,
        (None, Some(_)) => was,
        (Some(percent), Some(low)) if was => percent < low.saturating_add(RECOVERED).min(100),
        (Some(percent), Some(low)) => percent < low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_is_low_until_it_has_recovered() {
        let mut low = false;
        let run = [(Some(50), false), (Some(15), false), (Some(14), true), (Some(19), true)];
        for (percent, is) in run.into_iter().chain([(None, true), (Some(20), false)]) {
            low = is_low(low, percent, Some(15));
            assert_eq!(low, is, "{percent:?}");
        }
        assert!(!is_low(true, Some(1), None), "no battery");
        assert!(!is_low(true, Some(100), Some(99)), "a full one is never low");
    }
}
