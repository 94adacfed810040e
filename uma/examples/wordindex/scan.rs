//! From bytes to words.
//!
//! A word is a longest run of ASCII letters, in lower case; every other byte parts words. That is
//! what `tr -cs 'A-Za-z' '\n' | tr 'A-Z' 'a-z'` makes of a text.
//!
//! A piece of a file has the words that *begin* in it. So its scanner looks at the byte before, skips
//! the end of a word that began there, and reads past its own end to finish the last one:
//!
//! ```text
//!        chunk          chunk         chunk
//!   |.............|.............|.............|
//!       ...over th|e quick brown fox jum|ps over...
//!                 ^ piece begins        ^ piece ends
//!          skipped `e`           "jumps" is finished
//! ```
//!
//! A word that reaches the end of a chunk is kept until the next chunk shows where it ends.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::batch::Batch;

/// The most bytes that are read at once.
pub(crate) const CHUNK: usize = 64 << 10;

/// What a worker needs to scan: costly to make, and left by each use as it was made. An object for a
/// cache.
pub(crate) struct Scanner {
    input: [u8; CHUNK],
    /// The beginning of a word that the last chunk ended in.
    begun: Vec<u8>,
    batch: Batch,
}

/// Why a scan ended early.
pub(crate) enum Stopped<E> {
    /// The file could not be read on. The words up to there have been handed over.
    Read(io::Error),
    /// The words could not be handed over.
    Take(E),
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self { input: [0; CHUNK], begun: Vec::with_capacity(256), batch: Batch::new() }
    }

    /// Makes it as it was when new.
    pub(crate) fn reset(&mut self) {
        self.begun.clear();
        self.begun.shrink_to(CHUNK);
        self.batch.clear();
    }

    /// Scans the words of `file` that begin in `range` and hands them to `take` in batches. Reads at
    /// most `chunk` bytes at a time, and no more than [`CHUNK`].
    pub(crate) fn scan<E>(
        &mut self,
        file: &File,
        range: Range<u64>,
        chunk: usize,
        mut take: impl FnMut(&Batch) -> Result<(), E>,
    ) -> Result<(), Stopped<E>> {
        let Self { input, begun, batch } = self;
        let mut flush = |batch: &mut Batch| {
            let taken = take(batch).map_err(Stopped::Take);
            batch.clear();
            taken
        };
        let stopped = each_word(file, range, &mut input[..chunk.clamp(1, CHUNK)], begun, |word| {
            if batch.is_full() {
                flush(batch)?;
            }
            batch.add(word);
            Ok(())
        });
        // What was found before a file stopped to be readable counts.
        if !matches!(stopped, Err(Stopped::Take(_))) {
            flush(batch)?;
        }
        stopped
    }
}

fn each_word<E>(
    file: &File,
    range: Range<u64>,
    input: &mut [u8],
    begun: &mut Vec<u8>,
    mut add: impl FnMut(&[u8]) -> Result<(), Stopped<E>>,
) -> Result<(), Stopped<E>> {
    let mut at = range.start.saturating_sub(1);
    let mut skipping = range.start != 0;
    loop {
        let count = read_at(file, input, at).map_err(Stopped::Read)?;
        if count == 0 {
            break;
        }
        let bytes = &mut input[..count];
        bytes.make_ascii_lowercase();
        let mut here = 0;
        if skipping || !begun.is_empty() {
            here = letters(bytes);
            if !skipping {
                begun.extend_from_slice(&bytes[..here]);
            }
            if here < count {
                if !begun.is_empty() {
                    add(begun)?;
                    begun.clear();
                }
                skipping = false;
            }
        }
        while here < count {
            here += bytes[here..].iter().take_while(|byte| !is_letter(**byte)).count();
            if here == count || at + here as u64 >= range.end {
                break;
            }
            let len = letters(&bytes[here..]);
            let word = &bytes[here..here + len];
            here += len;
            if here < count {
                add(word)?;
            } else {
                begun.extend_from_slice(word);
            }
        }
        at += count as u64;
        if at >= range.end && begun.is_empty() {
            return Ok(());
        }
    }
    if !begun.is_empty() {
        add(begun)?;
        begun.clear();
    }
    Ok(())
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase()
}

/// How many letters `bytes` begin with.
fn letters(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_letter(**byte)).count()
}

fn read_at(file: &File, input: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(input, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
