//! Why a node transmits as it does.

pub mod sentence;
