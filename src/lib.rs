//! Digital twins on one edge server, as one program.
//!
//! **The data's path**, one line: a node's message arrives ([`broker::listener`]), is decoded and
//! checked ([`wire`], [`gateway`]), becomes an event of its twin ([`twin`]), is recorded, made durable
//! and only then acknowledged ([`writer`], [`store`]). What the change calls for follows in the same
//! batch where it can: [`trigger`] looks the services that the twin names up in the [`registry`],
//! [`edgeai`] classifies the new state, and the verdict goes back to the twin as a change of its own.
//!
//! **The intent's path**: YAML is parsed, checked and typed ([`manifest`], [`kinds`]), compared with
//! what is there ([`reconcile`]), and kept so by the [`runtime`].
//!
//! The layers, from the lowest to the highest; a module imports only modules above its own line:
//!
//! <!-- layers:begin -->
//! ```text
//! base       units, text, time, telemetry, HTTP plumbing
//! store      the log: records, segments, snapshots, the disk
//! twin       things, changes, events, paths, merge, RQL, aggregates
//! writer     the one writer: order, batches, durability, visibility
//! ditto      Ditto's HTTP API: things, search, streams, errors
//! wire       what nodes and the edge say to each other: topics, payloads, commands, frames
//! gateway    intake of nodes' messages, outbox, external broker, serial lines
//! broker     MQTT: frames, sessions, retained messages, the listener
//! edgeai     models, training, the Open Inference Protocol
//! registry   leases, instances, balancing, Eureka's API
//! trigger    which services a change calls, and their verdicts
//! kinds      one typed struct per manifest kind
//! cacc       context-aware communication control: facts, rules, decisions, sessions
//! firmware   what a profile makes of a board; the sketch's files
//! manifest   YAML, schema, checks, diagnostics
//! reconcile  desired against actual, kind by kind; the control API
//! simulate   nodes that send synthetic data and obey commands
//! runtime    wires all of it: listeners, threads, drain
//! bench      the chain measured from outside
//! cli        the command line
//! ```
//! <!-- layers:end -->
//!
//! `ARCHITECTURE.md` says why, and `tests/tidy.rs` holds it.

pub(crate) mod base;

pub(crate) mod store;
pub(crate) mod twin;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: measures how long the disk takes")]
pub(crate) mod writer;

pub(crate) mod ditto;
pub(crate) mod wire;

pub(crate) mod broker;
pub(crate) mod gateway;

pub(crate) mod edgeai;
pub(crate) mod registry;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: times calls of services")]
pub(crate) mod trigger;

pub(crate) mod kinds;

pub(crate) mod cacc;
pub(crate) mod firmware;
pub(crate) mod manifest;
pub(crate) mod reconcile;

#[expect(clippy::disallowed_methods, reason = "I/O boundary: listeners, threads, signals")]
pub(crate) mod runtime;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: nodes with sockets and processes")]
pub(crate) mod simulate;

#[expect(clippy::disallowed_methods, reason = "I/O boundary: measures")]
pub(crate) mod bench;

#[expect(clippy::disallowed_methods, reason = "I/O boundary: the command line")]
pub(crate) mod cli;

pub use cli::run;

/// What integration tests need of the inside; not an interface.
#[doc(hidden)]
pub mod testing {
    pub use crate::cli::reference::pages;
    pub use crate::edgeai::Classifier;
    pub use crate::edgeai::train::{Dataset, Evaluation, Recipe, fit};
    pub use crate::manifest::Code;
    pub use crate::wire::{Command, Op};
}
