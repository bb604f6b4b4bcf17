//! Manifests: YAML with places in, typed objects and diagnostics out.
//!
//! [`parse`] takes texts, [`from_json`] takes values (as a runtime gets them over HTTP), and both
//! give what was understood together with everything that is wrong, each with its place: a broken
//! document does not hide the next one's errors. Objects of a result without errors are complete,
//! consistent with each other and with what a runtime already knows, and are not checked again.
//!
//! The steps, one module each: `disk` (paths to texts) → `yaml` (text to a tree with places, `region`) →
//! `schema` (shape) → `kinds` (typed values) → `check` (references, cycles, bounds, expressions
//! over all documents together) → `diagnostic` (for people and programs).
//!
//! Not here: what objects do (`reconcile` and the modules that own them), printing (`cli`).

mod check;
pub mod diagnostic;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: reads manifests")]
pub mod disk;
mod draft;
mod object;
mod parse;
mod region;
pub mod schema;
mod source;
pub mod yaml;

pub use diagnostic::{Code, Diagnostic};
pub use disk::load;
pub use object::Object;
pub use parse::{Parsed, from_json, plan_firmware};
pub use region::Region;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure")]
mod tests;
