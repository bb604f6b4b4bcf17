//! Benchmarks of what the runtime promises, from outside: the runtime is a process of its own with
//! a state directory of its own and default durability, nodes are MQTT clients on sockets.
//!
//! A benchmark that skips work fails: afterwards every twin has to have the revision that follows
//! from what was sent, as the HTTP API shows it.
//!
//! - [`pipeline`]: from a reading to its verdict.
//! - [`broker`]: readings acknowledged a second, beside another broker.
//! - [`cacc`]: conditions and decisions of the controller, in this process.
//! - [`scale`]: memory, start after a crash and `plan` with many twins.
//!
//! Not here: what is printed (`cli::bench`).

pub mod broker;
pub mod cacc;
mod floor;
mod load;
mod measure;
pub mod pipeline;
mod process;
mod runtime;
pub mod scale;

pub use measure::{Error, Latency, Watch};
use measure::{failed, histogram, hundredth, nanos, tenth};
pub use process::Machine;
