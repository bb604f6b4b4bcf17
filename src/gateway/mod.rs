//! The ways of nodes' messages into the runtime: intake, an external broker, serial lines.

pub mod directory;
pub mod external;
pub mod intake;
pub mod outbox;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: serial lines")]
pub mod serial;
