//! What a node gets of a link budget.

use serde::{Deserialize, Serialize};

use super::layer::Layer;
use super::reasons::{Reasons, Winner};
use super::safety::Safety;
use crate::cacc::rule::Class;

/// What a node gets of a link budget, against others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Against others of the class.
    pub weight: f64,
    /// Which traffic gives way first.
    pub class: Class,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1.0, class: Class::Normal }
    }
}

impl Share {
    /// Whether no rule changes it.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// By the active rules, the strongest first.
    pub(super) fn of(
        safety: Option<Safety>,
        active: &[Layer<'_>],
        mut reasons: Option<&mut Reasons>,
    ) -> Self {
        let mut note = |field: &str, layer: &Layer<'_>| {
            if let Some(reasons) = &mut reasons {
                reasons.winners.insert(field.to_owned(), Winner::Rule(layer.name.to_string()));
            }
        };
        let quarantine = active.iter().find(|layer| layer.effect.quarantine.is_some());
        if let Some(layer) = quarantine {
            note("quarantine", layer);
        }
        let mut share = Self::default();
        if safety == Some(Safety::Quarantined) {
            share.weight = 0.0;
            return share;
        }
        if let Some((layer, weight)) =
            active.iter().find_map(|layer| Some((layer, layer.effect.weight?)))
        {
            // What a manifest may not say does no harm either.
            share.weight = if weight.is_finite() { weight.max(0.0) } else { 1.0 };
            note("weight", layer);
        }
        if let Some((layer, class)) =
            active.iter().find_map(|layer| Some((layer, layer.effect.class?)))
        {
            share.class = class;
            note("class", layer);
        }
        share
    }
}
