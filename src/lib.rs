//! edgetwin

pub mod cacc;
pub mod cli;
pub mod manifest;
pub mod scalar;
pub mod store;
