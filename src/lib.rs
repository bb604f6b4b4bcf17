//! edgetwin
pub mod store;
