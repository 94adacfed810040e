//! Giving memory back in quiet times.

use std::io;
use std::panic::catch_unwind;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::{Reclaim, reclaim};

/// One round of upkeep: ends a period of the estimate of what each zone of the process needs, trims it to that,
/// and gives the pages that this freed back to the system. What was needed once is forgotten by a quarter each
/// round. (For FreeBSD's own periodic work, which gives back only what was idle for 45 rounds, call
/// `reclaim` with [`Reclaim::Idle`] instead.) Nothing does it unless you call it, from time to
/// time (every 20 s is what FreeBSD does), or have [`Maintenance`] do it.
pub fn maintain() {
    reclaim(Reclaim::Trim);
}

/// A thread that calls [`maintain`] at regular intervals, until this value is dropped. A hook that panics there, which the
/// panic hook has reported, ends neither the thread nor the round.
///
/// ```
/// let _upkeep = uma::Maintenance::start(std::time::Duration::from_secs(20))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the thread ends when this is dropped"]
pub struct Maintenance {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system has no thread to spare.
    pub fn start(interval: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = Builder::new().name("uma-maintain".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let _ = catch_unwind(maintain);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Maintenance {
    /// Waits for a round that is under way.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
