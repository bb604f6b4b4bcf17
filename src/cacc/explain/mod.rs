//! Why a node transmits as it does, and what happened, in words. Nothing here decides anything.

mod node;
mod notes;
mod rule;
pub mod sentence;

pub use node::{Explained, explain};
pub use notes::{rule_note, session_note};
