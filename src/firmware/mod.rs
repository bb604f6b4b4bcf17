//! Firmware from a NodeProfile: what a sketch needs to know, checked before anything is written.
//! Pure.
//!
//! [`Firmware::plan`] turns a profile, and the model of the twins that use it, into properties in
//! fixed point ([`fit`]), parts on pins ([`board`], [`part`]), and sizes ([`size`]); every mistake is
//! a [`Problem`] with the path of the field that it is about. [`render`] makes the files of it: the
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
pub mod render;
mod size;

pub use board::{Board, board};
pub use fit::{NAME_LEN_MAX, Property};
pub use plan::{DefaultTransmission, Firmware, PROGRAMS, SENSOR_PROPERTIES_MAX, check};
pub use problem::{Fault, Problem};
pub use size::SERIAL_BYTES_PER_S;
