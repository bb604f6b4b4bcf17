//! What the test binaries share: runtimes of the real binary on free ports, the clients that talk
//! to them, and how outputs are compared.
//!
//! Every wait ends as soon as what is awaited is there, and fails after [`PATIENCE`].

pub(crate) mod board;
pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod objects;
pub(crate) mod process;
pub(crate) mod runtime;
pub(crate) mod snapshot;
pub(crate) mod terminal;

use std::time::{Duration, Instant};

/// How long to wait for what must come. Why: long enough for a machine that is busy with something
/// else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait between two looks where nothing announces the change.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to return; on a timeout, fails with what was seen last.
#[track_caller]
pub(crate) fn eventually<T, Seen: std::fmt::Display>(
    mut look: impl FnMut() -> Result<T, Seen>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "it did not come; last seen: {seen:#}"),
        }
        std::thread::sleep(PAUSE);
    }
}
