//! What is known of twins and their nodes, as the values that conditions read.
//!
//! [`Facts`] keeps the newest state of every twin, the windows and ages that rules ask for, the
//! figures of each node's link, and what a node last reported of itself. Everything goes in with its
//! time, and each input returns what changed, so that nobody has to look at the rest.
//!
//! Not here: which rules read a fact (`cacc::rules`), how a node is controlled (`cacc::session`).

mod history;
mod known;
mod link;
mod property;
#[cfg(test)]
mod tests;
mod twins;
pub mod window;

pub use history::HistoryRequest;
pub use property::{TRANSMISSION, describe, read_property};
pub use twins::{Facts, NodeStatus, Slot, TwinFacts};
