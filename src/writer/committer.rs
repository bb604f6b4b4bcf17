//! The committing thread: commits what others stage and do not commit themselves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Writer;

/// The thread; it works from [`Committer::start`] to [`Committer::end`].
pub struct Committer {
    thread: thread::JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Committer {
    /// Starts the thread; [`Writer::wake_committer`] wakes it from here on.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(writer: Arc<Writer>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, committing) = (stop.clone(), writer.clone());
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                thread::park();
                committing.commit();
            }
        })?;
        writer.set_committer(thread.thread().clone());
        Ok(Self { thread, stop })
    }

    /// Ends the thread once it has committed what is staged.
    pub fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            let remedy = "restart the runtime, and report it";
            tracing::error!(remedy, "the committing thread panicked");
        }
    }
}
