//! The ways of nodes' messages into the runtime: intake, an external broker, serial lines.

pub mod directory;
pub mod external;
pub mod intake;
pub mod outbox;
pub mod serial;
