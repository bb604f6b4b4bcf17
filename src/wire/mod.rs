//! The messages between firmware and the edge, byte for byte. Pure.
//!
//! Uplink: one JSON object a message, its kind in `k`: `s` sample (`…/data`), `f` features
//! (`…/feat`), `a` acknowledgement (`…/ack`), `x` event (`…/event`), `b` boot or state
//! (`…/state`). Downlink: a [`Command`], one line of at most [`BODY_LEN_MAX`] ASCII bytes,
//! `17 prog interval period=200 trial=8`. On a serial line both are framed with a checksum:
//! `{…}*CCCC` up, `!body*CCCC` down.
//!
//! Members are written in one order, so that both sides make the same bytes of the same message;
//! `tests/firmware/vectors/` holds examples that this module and the C++ of the firmware replay.
//! Decoding is lenient: members may come in any order, and unknown ones are ignored, because newer
//! firmware may send more.
//!
//! Not here: when to send what (`cacc`).

mod command;
mod decimal;
mod error;
mod line;
mod model;
mod pairs;
mod reading;
mod sample;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read vectors")]
mod tests;
mod topic;
mod tx;
mod uplink;
mod vocabulary;

pub use command::{ActValue, BODY_LEN_MAX, BodyError, Command, Desired, Op, Prog};
pub use decimal::Decimal;
pub use error::{PayloadError, ValueKind};
pub use line::{LINE_LEN_MAX, Line, crc16, frame_down, unframe};
pub use model::{NodeModel, PropertyRule};
pub use pairs::Pairs;
pub use reading::{STATISTICS, decode, decode_features};
pub use sample::{Features, Head, Measured, PropertyStats, RESERVED, Sample, Stats};
pub use topic::{Leaf, Topic};
pub use tx::Tx;
pub use uplink::{Ack, Event, State, Uplink};
pub use vocabulary::{AckStatus, Cause, EventKind, Program};
