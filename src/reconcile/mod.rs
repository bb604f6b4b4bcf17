//! Reconciling: what is declared is stored, and one controller a kind makes it so and keeps it so.
//!
//! [`Reconciler::apply`] checks documents, plans, and stores what changed in one batch; only when
//! that is durable are the controllers woken. A controller compares what its object asks for with
//! what is there, does what is missing and sets conditions. It is started by level: by a change of
//! its object or of something that the object refers to, by a failure's backoff, and by a slow
//! resync; running it again does nothing new.
//!
//! An object is a document of the writer, `object/Kind/namespace/name`. Its *generation* rises
//! when its spec changes. Status (conditions) is kept in memory: it is what the controllers found
//! since the start, so it can never be mistaken for something that was asked for.
//!
//! What an object made is remembered with it, so that a field that is declared no longer is taken
//! back, and what others wrote into the same twin is left alone. A deleted object stays, marked,
//! until its controller has removed what it made.
//!
//! Always true, and tested:
//! 1. one broken document changes nothing;
//! 2. a second apply of the same documents changes nothing;
//! 3. a failure of one object delays no other.
//!
//! Not here: reading YAML (`manifest`), the HTTP surface (`reconcile::http`).

mod apply;
mod conditions;
mod dependents;
mod digest;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: models' files")]
pub mod disk;
pub mod http;
mod key;
mod kind;
pub mod plan;
pub mod queue;
mod reconciler;
mod round;
mod start;
mod status;
mod stored;
#[cfg(test)]
mod tests;
mod view;
mod wait;
mod wanted;
mod working;

pub use apply::{ApplyOptions, ApplyReport};
pub use key::ObjectKey;
pub use reconciler::{Reconciler, ReconcilerContext};
