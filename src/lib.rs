//! edgetwin

pub mod cacc;
pub mod manifest;
pub mod scalar;
pub mod store;
