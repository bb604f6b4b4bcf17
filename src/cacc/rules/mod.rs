//! Rules over what is known: which twins each is about, whether its conditions hold, and in which
//! state it is.
//!
//! [`Rules`] takes what changed in the [`Facts`](crate::cacc::facts::Facts), judges the rules that read
//! it, and returns the [`RuleChange`]s. A rule is looked at when a fact that it reads changed or a
//! timer of its own is due, and never otherwise.
//!
//! Not here: one rule and its state machine (`cacc::rule`), what follows for nodes
//! (`cacc::decide`, `cacc::session`).

mod entry;
mod judge;
mod members;
mod quantifier;
mod table;
#[cfg(test)]
mod tests;

pub use entry::RuleEntry;
pub use table::{RuleChange, RuleRecord, Rules};
