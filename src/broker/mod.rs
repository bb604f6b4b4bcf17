//! The MQTT broker: frames, what it remembers, and the listener.

pub mod frame;
pub mod listener;
pub mod memory;
