//! What is to be indexed: the files, and the pieces they are worked on in.
//!
//! Folders are searched without following symbolic links. Every file is then read once from end to
//! end, before anything is measured: that finds out which can be read and how long they are, and
//! leaves them in the page cache for all runs alike.
//!
//! A large file is cut into pieces of equal length, so that all workers can take part in it:
//!
//! ```text
//!   piece      0        1        2        3        4        5
//!          +--------+--------+--+    +---------+-+      +--------+-
//!          |      file 0        |    |  file 1   |      | file 2
//!          +--------------------+    +-----------+      +----------
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::progress::Progress;

/// A file that could be read.
struct Source {
    path: PathBuf,
    len: u64,
    /// The number of its first piece, counted over all files.
    first_piece: usize,
}

/// The files, in the order of their numbers.
pub(crate) struct Files {
    sources: Vec<Source>,
    pieces: usize,
    piece_len: u64,
    /// Bytes in all of them.
    pub(crate) bytes: u64,
    /// How many files and folders could not be read.
    pub(crate) unreadable: usize,
    /// How many symbolic links were found in folders.
    pub(crate) links: usize,
}

/// Part of a file: the words that begin in a range of its bytes.
pub(crate) struct Piece<'a> {
    pub(crate) file: usize,
    pub(crate) path: &'a Path,
    pub(crate) range: Range<u64>,
    /// How many bytes of its file it is, as far as is known.
    pub(crate) len: u64,
    pub(crate) is_last: bool,
}

impl Files {
    /// Finds the files in `paths` and reads each once.
    pub(crate) fn find(paths: &[PathBuf], piece_len: u64, progress: &Progress) -> Self {
        let mut files =
            Self { sources: Vec::new(), pieces: 0, piece_len, bytes: 0, unreadable: 0, links: 0 };
        let mut buffer = vec![0; 1 << 16];
        for path in paths {
            files.visit(path.clone(), true, &mut buffer, progress);
        }
        files.sources.shrink_to_fit();
        files
    }

    /// A file, or a folder and what is in it. `named` says that the user named it, not a folder.
    fn visit(&mut self, root: PathBuf, named: bool, buffer: &mut [u8], progress: &Progress) {
        // A stack of our own: folders can be nested deeper than a thread's stack bears.
        let mut left = vec![(root, named)];
        while let Some((path, named)) = left.pop() {
            // A link that the user names is followed; one that a folder contains is not, so that
            // there are no loops and nothing is counted twice.
            let kind = if named { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            let done = match kind.map(|metadata| metadata.file_type()) {
                Ok(kind) if kind.is_dir() => entries(&path).map(|inside| {
                    // Backwards, so that they are popped in order.
                    left.extend(inside.into_iter().rev().map(|path| (path, false)));
                }),
                Ok(kind) if kind.is_file() => read_through(&path, buffer).map(|len| {
                    progress.add(1, len);
                    self.add(path.clone(), len);
                }),
                Ok(kind) if kind.is_symlink() => {
                    self.links += 1;
                    Ok(())
                }
                // Pipes and devices cannot be read twice, as the comparison needs.
                Ok(_) if named => Err(io::Error::other("neither a file nor a folder")),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                progress.warn(&path, &error);
                self.unreadable += 1;
            }
        }
    }

    fn add(&mut self, path: PathBuf, len: u64) {
        self.sources.push(Source { path, len, first_piece: self.pieces });
        let pieces = usize::try_from(len.div_ceil(self.piece_len)).expect("pieces fit in memory");
        self.pieces += pieces.max(1);
        self.bytes += len;
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Piece number `number` of all files, if there are so many.
    pub(crate) fn piece(&self, number: usize) -> Option<Piece<'_>> {
        if number >= self.pieces {
            return None;
        }
        let file = self.sources.partition_point(|source| source.first_piece <= number) - 1;
        let Source { path, len, first_piece } = &self.sources[file];
        let start = (number - first_piece) as u64 * self.piece_len;
        let next = self.sources.get(file + 1).map_or(self.pieces, |next| next.first_piece);
        // The last piece goes to the end of the file, wherever that is by then.
        let is_last = number + 1 == next;
        let end = if is_last { u64::MAX } else { start + self.piece_len };
        Some(Piece { file, path, range: start..end, len: end.min(*len) - start, is_last })
    }
}

/// What is in a folder, sorted. Hidden entries are left out, and so is everything in a folder that
/// says it is a cache, as cargo's `target` does.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if folder.join("CACHEDIR.TAG").is_file() {
        return Ok(Vec::new());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            inside.push(entry.path());
        }
    }
    inside.sort_unstable();
    Ok(inside)
}

/// Reads a file to its end and returns its length.
fn read_through(path: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut len = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(len),
            Ok(count) => len += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
