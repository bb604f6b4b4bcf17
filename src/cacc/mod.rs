//! Context-aware communication control: how each node should talk, given what is known now.
//!
//! [`expr`] is the language of rules, checked against what the rules' twins have.

pub mod expr;
