//! The active rules of a node, as layers in the order in which they apply.

use std::sync::Arc;

use crate::cacc::rule::Effect;

/// An active rule of a node.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The rule's name.
    pub name: &'a Arc<str>,
    /// Its priority.
    pub priority: i64,
    /// See `Target::specificity`.
    pub specificity: u8,
    /// Since when, microseconds since 1970.
    pub since_us: i64,
    /// What it changes.
    pub effect: &'a Effect,
}

/// Puts rules in the order in which they apply.
pub fn order(active: &mut [Layer<'_>]) {
    active.sort_by(|a, b| {
        (b.priority, b.specificity)
            .cmp(&(a.priority, a.specificity))
            .then_with(|| a.name.cmp(b.name))
    });
}
