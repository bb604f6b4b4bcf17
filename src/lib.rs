//! edgetwin
pub mod edgeai;
pub mod store;
