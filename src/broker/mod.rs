//! The MQTT broker: frames, what it remembers, and the listener.

pub mod frame;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: MQTT connections")]
pub mod listener;
pub mod memory;
