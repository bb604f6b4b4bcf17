//! Twins: what one is, which changes it takes, and what an event does to it. Pure.
//!
//! A change goes through two functions. [`decide()`] judges a [`Change`] against the twin as it is
//! and gives the [`Event`] that would happen, or a [`Refusal`] in Ditto's terms. [`apply()`] turns a
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
pub mod merge;
pub mod path;
mod refusal;
pub mod rql;
pub mod selector;
pub mod sequence;
#[cfg(test)]
mod tests;
mod thing;

use serde_json::{Map, Value};

use self::path::Pointer;
pub use apply::apply;
pub use decide::decide;
pub use event::{Action, Change, Event};
pub use id::ThingId;
pub use refusal::Refusal;
pub use thing::{Feature, Twin};

/// Largest thing as JSON, bytes: Ditto's `ditto.limits.things.max-size`. A change beyond it is
/// answered with 413 `things:thing.toolarge`.
pub const THING_LEN_MAX: usize = 100 * 1024;
/// Longest thing ID, characters (Ditto).
pub const THING_ID_LEN_MAX: usize = 256;

/// A JSON object.
pub type Object = Map<String, Value>;

/// The names of the services in `attributes/services`: a list of names, or a map from names to
/// options. Anything else names none.
pub fn services(twin: &Twin) -> impl Iterator<Item = &str> {
    let value = twin.attributes.as_deref().and_then(|attributes| attributes.get("services"));
    let list = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let map = value.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str());
    list.chain(map)
}

/// `feature/property`, as a service's inputs and derived properties are written.
pub fn property_path(feature: &str, pointer: &Pointer) -> String {
    format!("{feature}/{}", pointer.join("/"))
}
