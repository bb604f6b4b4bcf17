//! Digital twins on one edge server, as one program.
//!
//! **The data's path**, one line: a node's message arrives ([`node::mqtt`]), is decoded and checked
//! ([`node`]), becomes an event of its twin ([`twin`]), is recorded, made durable and only then
//! acknowledged ([`writer`], [`store`]). What the change calls for follows in the same batch where
//! it can: [`trigger`] looks the services that the twin names up in the [`registry`], [`edgeai`]
//! classifies the new state, and the verdict goes back to the twin as a change of its own.
//!
//! **The intent's path**: YAML is parsed, checked and typed ([`manifest`]), compared with what is
//! there ([`reconcile`]), and kept so by the [`runtime`].
//!
//! Imports point one way: `scalar`, `telemetry` ← `http` ← `store` ← `twin`, `writer` ← `node` ←
//! `edgeai`, `registry` ← `cacc`, `trigger` ← `firmware`, `manifest` ← `reconcile` ← `simulate`, `runtime` ←
//! `bench` ← `cli`.
//! `ARCHITECTURE.md` says why, and `tests/tidy.rs` holds it.

pub mod scalar;
pub mod telemetry;

pub mod http;

pub mod node;
pub mod store;
pub mod twin;
pub mod writer;

pub mod edgeai;
pub mod registry;

pub mod cacc;
pub mod firmware;
pub mod manifest;
pub mod reconcile;
pub mod trigger;

pub mod runtime;
pub mod simulate;

pub mod bench;

pub mod cli;
