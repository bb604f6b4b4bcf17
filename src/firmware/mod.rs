//! Firmware from a NodeProfile: what a sketch needs to know, checked before anything is written.
//! Pure.
//!
//! [`Firmware::plan`] turns a profile, and the model of the twins that use it, into properties in
//! fixed point ([`property`]), parts on pins ([`board`], [`part`]), and sizes ([`size`]); every mistake is
//! a `Problem` with the path of the field that it is about. [`render`] makes the files of it: the
//! same bytes for the same profile.
//!
//! Boards and parts are described in `firmware-templates/`, the C++ is there too.
//!
//! Not here: compilers, the disk (`cli::gen_firmware`), positions in YAML and codes (`manifest`).

mod board;
mod fit;
mod part;
mod plan;
mod problem;
mod property;
pub mod render;
mod size;
#[cfg(test)]
mod tests;

pub use plan::{Firmware, PROGRAMS, check};
pub use problem::Fault;
pub use property::Property;
