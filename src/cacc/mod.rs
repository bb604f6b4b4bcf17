//! Context-aware communication control: how each node should talk, given what is known now.
//!
//! [`expr`] is the language of rules, checked against what the rules' twins have; [`window`] keeps
//! what they say of the past; [`rule`] says where a rule stands; [`safety`] and [`decide`] turn the
//! rules in force into each node's transmission.

pub mod command;
pub mod controller;
pub mod decide;
pub mod expr;
pub mod rule;
pub mod runtime;
pub mod safety;
pub mod window;
pub mod words;
