//! The decision: how each node should transmit, of what is asked for it. Pure.
//!
//! [`decide_node`] goes in this order:
//! 1. *Safety* ([`safety`]) says whether rules apply at all.
//! 2. *Rules*: the layers that ask something of a node are what a client wrote into
//!    `desiredProperties` (cause `user`), the active rules, and the node's default. Each field of
//!    each property is taken from the first layer that sets it; rules stand in order of priority,
//!    then of the more specific target, then of their names. They also give the node's `Share`.
//! 3. *Programs*: the first that the node has, and the profile's bounds.
//! 4. *Hysteresis*: what lowers the load acts at once, what raises it waits until `HOLD_UP_US`
//!    after the node's last change, except that a rule which just became active, or applies again,
//!    raises once without waiting, and a client always.
//!
//! Not here: the link budget. It goes between programs and hysteresis, and lowers what the layers
//! ask for by their shares; [`Decision::target`] is what it will start from.
//!
//! Always true, and tested:
//! 1. the order of rules and nodes changes nothing (I4);
//! 2. a decision on its own output changes nothing (I8);
//! 3. whatever is asked, the profile's bounds hold (I9);
//! 4. without rules every node comes back to its default (I12);
//! 5. a node in quarantine has no weight (of I10).

mod decision;
mod layer;
mod reasons;
mod resolve;
pub mod safety;
mod share;
mod spec;
#[cfg(test)]
mod tests;

pub use decision::{Decided, Decision, Input, asked_of, decide, decide_node};
pub use layer::Layer;
pub use reasons::{Reasons, Winner};
pub use spec::{Actuator, Measured, NodeSpec, SCHEDULE};
