//! The workers: threads that take pieces of files, scan them, and add the words to the index.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use uma::{ObjectCache, ZoneError};

use crate::files::{Files, Piece};
use crate::index::Index;
use crate::progress::Progress;
use crate::scan::{Scanner, Stopped};
use crate::store::Store;

/// What the workers have in common.
pub(crate) struct Crew<'a> {
    pub(crate) files: &'a Files,
    pub(crate) scanners: &'a ObjectCache<Scanner>,
    pub(crate) progress: &'a Progress,
    pub(crate) threads: usize,
    pub(crate) chunk: usize,
}

impl Crew<'_> {
    /// Indexes all files. Tells of those that cannot be read after all, and goes on.
    pub(crate) fn index<S: Store>(&self, index: &Index<'_, S>) -> Result<(), ZoneError> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.threads).map(|_| scope.spawn(|| self.work(&next, index))).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn work<S: Store>(&self, next: &AtomicUsize, index: &Index<'_, S>) -> Result<(), ZoneError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.files.piece(number) else { return Ok(()) };
            match self.scan(&piece, index) {
                Ok(()) => {}
                Err(Stopped::Read(error)) => self.progress.warn(piece.path, &error),
                Err(Stopped::Take(error)) => {
                    // The others need not go on either.
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }

    fn scan<S: Store>(
        &self,
        piece: &Piece<'_>,
        index: &Index<'_, S>,
    ) -> Result<(), Stopped<ZoneError>> {
        let file = File::open(piece.path).map_err(Stopped::Read)?;
        // Taken for each piece and put back after it: it comes out of a cache, constructed.
        let mut scanner = self.scanners.get().map_err(Stopped::Take)?;
        scanner
            .scan(&file, piece.range.clone(), self.chunk, |batch| index.add(piece.file, batch))?;
        self.progress.add(u64::from(piece.is_last), piece.len);
        Ok(())
    }
}
