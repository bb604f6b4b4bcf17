//! Context-aware communication control: how each node transmits, given what is known now.
//!
//! [`expr`] is the language of conditions, checked against what the rules' twins have; [`facts`] keeps
//! what is known; [`rule`] is one rule and its states, [`rules`] all of them over the facts;
//! [`decide`] turns the active rules into each node's transmission; [`session`] brings a node there
//! by [`command`]s; [`explain`] gives the reasons. [`controller`] passes inputs from one to the next and
//! collects the [`effects`]; [`driver`] alone touches clocks, the log and MQTT.
//!
//! Imports point from the end of this list to its start:
//! `expr, cause ← rule ← facts ← decide ← rules, command, effects ← session ← explain ← controller ←
//! driver`.

pub mod cause;
pub mod command;
pub mod controller;
pub mod decide;
pub mod driver;
pub mod effects;
pub mod explain;
pub mod expr;
pub mod facts;
mod inbox;
pub mod rule;
pub mod rules;
pub mod session;
