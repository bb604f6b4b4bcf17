//! One node: whether it is online, how far its transmission and its actuators are, and the commands
//! on the way to it.
//!
//! A [`Session`] is made of small state machines, one enum each with its transitions in the header of
//! its file: [`presence`], [`transmission`], [`actuators`], and [`command`](crate::cacc::command) for
//! each command. What goes in is a decision, a message of the node, or that time passed; what
//! comes out are effects and [`SessionEvent`]s. It knows no other node, no rule, and no fact beside its
//! own twin.
//!
//! Not here: what is decided (`cacc::decide`), the words for people (`cacc::explain`).

pub mod actuators;
mod clock;
mod decision;
mod delivery;
mod event;
pub mod overrides;
pub mod presence;
mod queue;
mod record;
mod state;
#[cfg(test)]
mod tests;
pub mod transmission;
mod uplink;

pub use event::SessionEvent;
pub use record::SessionRecord;
pub use state::{Session, Turn};
