//! The ways of nodes' messages into the runtime: intake, an external broker, serial lines.

pub mod external;
pub mod intake;
pub mod serial;
