//! What is known of twins and nodes.

pub mod window;
