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
//! `ARCHITECTURE.md` says why, and `tests/tidy.rs` holds which way imports point.

pub mod base;

pub mod store;
pub mod twin;
pub mod writer;

pub mod ditto;
pub mod wire;

pub mod broker;
pub mod gateway;

pub mod edgeai;
pub mod registry;
pub mod trigger;

pub mod kinds;

pub mod cacc;
pub mod firmware;
pub mod manifest;
pub mod reconcile;

pub mod runtime;
pub mod simulate;

pub mod bench;

pub mod cli;
