//! Context-aware communication control: how each node should talk, given what is known now.
//!
//! [`expr`] is the language of rules, checked against what the rules' twins have; [`facts`] keeps
//! what is known; [`rule`] says where a rule stands; [`decide`] turns the
//! rules in force into each node's transmission.

pub mod command;
pub mod controller;
pub mod decide;
pub mod driver;
pub mod explain;
pub mod expr;
pub mod facts;
pub mod rule;
