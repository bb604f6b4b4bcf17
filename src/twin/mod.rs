//! Twins: what one is, which changes it takes, and what an event does to it. Pure.
//!
//! A change goes through two functions. [`decide()`] judges a [`Change`] against the twin as it is
//! and gives the [`Event`] that would happen, or a [`Refusal`]. [`apply()`] turns a
//! twin and an event into the next twin; it cannot fail and is all that recovery needs. Twins are
//! immutable and share what did not change, so a reader holds a snapshot for the price of a
//! reference count.
//!
//! Always true, and tested:
//! 1. an event raises the revision by exactly one;
//! 2. applying the recorded events again gives the same twin;
//! 3. a twin takes at most [`THING_LEN_MAX`] bytes.
//!
//! Not here: durability (`store`), the one writer (`writer`), HTTP (`ditto`).

pub mod aggregate;
mod apply;
mod check;
mod decide;
mod event;
pub mod fields;
mod id;
mod limits;
pub mod merge;
pub mod path;
mod refusal;
pub mod rql;
pub mod selector;
pub mod sequence;
#[cfg(test)]
mod tests;
mod thing;

pub use apply::apply;
pub use decide::decide;
pub use event::{Action, Change, Event};
pub use id::{InvalidThingId, ThingId};
pub use limits::THING_LEN_MAX;
pub use merge::Object;
pub use refusal::{Refusal, ValueError};
pub use thing::{Feature, Twin, service_inputs, services};
