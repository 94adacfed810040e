//! How far it has come, on the standard error, at most a few times a second.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The shortest time between two lines.
pub(crate) const EVERY: Duration = Duration::from_millis(300);

/// Counts files and bytes, and shows them.
pub(crate) struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    shown: bool,
    terminal: bool,
    phase: Mutex<Phase>,
}

struct Phase {
    name: &'static str,
    start: Instant,
    last: Instant,
    /// Whether there is a line on the terminal that the next one must overwrite.
    open: bool,
}

impl Progress {
    /// Shows something if `asked` to or if the standard error is a terminal.
    pub(crate) fn new(asked: bool) -> Self {
        let (terminal, now) = (io::stderr().is_terminal(), Instant::now());
        Self {
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            shown: asked || terminal,
            terminal,
            phase: Mutex::new(Phase { name: "", start: now, last: now, open: false }),
        }
    }

    /// Starts to count from zero.
    pub(crate) fn begin(&self, name: &'static str) {
        let mut phase = self.phase.lock();
        self.close(&mut phase);
        let now = Instant::now();
        *phase = Phase { name, start: now, last: now, open: false };
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Counts, and shows it if the last time is long enough ago.
    pub(crate) fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A worker that finds the lock taken leaves the showing to the other.
        if self.shown
            && let Some(mut phase) = self.phase.try_lock()
            && phase.last.elapsed() >= EVERY
        {
            self.show(&mut phase);
        }
    }

    fn show(&self, phase: &mut Phase) {
        phase.last = Instant::now();
        let files = self.files.load(Ordering::Relaxed);
        let megabytes = self.bytes.load(Ordering::Relaxed) as f64 / 1e6;
        let rate = megabytes / phase.start.elapsed().as_secs_f64();
        let (start, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let name = phase.name;
        // Nobody is harmed if a line of progress is lost.
        let _ = write!(
            io::stderr(),
            "{start}{name}: {files} files, {megabytes:.1} MB, {rate:.0} MB/s{end}"
        );
        phase.open = self.terminal;
    }

    fn close(&self, phase: &mut Phase) {
        if std::mem::take(&mut phase.open) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Removes the line, so that something else can be printed.
    pub(crate) fn end(&self) {
        self.close(&mut self.phase.lock());
    }

    /// Tells of something that went wrong with a file.
    pub(crate) fn warn(&self, path: &Path, error: &dyn fmt::Display) {
        self.close(&mut self.phase.lock());
        let _ = writeln!(io::stderr(), "wordindex: {}: {error}", path.display());
    }
}
