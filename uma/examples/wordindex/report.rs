//! What is said about an index, and about two of them side by side.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use crate::index::{Index, Word, hash};
use crate::store::Store;

/// What an index contains, in so few numbers that it can be kept after the index is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) words: u64,
    pub(crate) distinct: u64,
    pub(crate) postings: u64,
    /// A sum over all words, each with its files and counts: two indexes of equal contents have the
    /// same, in whichever order they were made.
    pub(crate) digest: u64,
}

impl Summary {
    pub(crate) fn of<S: Store>(index: &mut Index<'_, S>) -> Self {
        let mut summary = Self { words: 0, distinct: 0, postings: 0, digest: 0 };
        for word in index.words() {
            let name = hash(word.text());
            let mut count = 0;
            for (file, times) in word.files() {
                let mut key = [0; 24];
                key[..8].copy_from_slice(&name.to_le_bytes());
                key[8..16].copy_from_slice(&(file as u64).to_le_bytes());
                key[16..].copy_from_slice(&times.to_le_bytes());
                summary.digest = summary.digest.wrapping_add(hash(&key));
                summary.postings += 1;
                count += times;
            }
            assert_eq!(count, word.count(), "the files of a word have as many as it has");
            summary.words += count;
            summary.distinct += 1;
        }
        summary
    }
}

/// Writes the most frequent words; among equals the first in the alphabet.
pub(crate) fn top<S: Store>(
    index: &mut Index<'_, S>,
    most: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    // The heap holds no more than it must: its greatest element is the first to go.
    let mut heap = BinaryHeap::new();
    for word in index.words() {
        heap.push((Reverse(word.count()), word.text(), word.files().count()));
        if heap.len() > most {
            heap.pop();
        }
    }
    writeln!(out, "{:>12} {:>8}  word", "count", "files")?;
    for (Reverse(count), text, files) in heap.into_sorted_vec() {
        writeln!(out, "{count:>12} {files:>8}  {}", letters(text))?;
    }
    Ok(())
}

/// Writes `count word` lines for all words, sorted by word, byte by byte.
pub(crate) fn write_counts<S: Store>(index: &mut Index<'_, S>, path: &Path) -> io::Result<()> {
    // Reserved at once and dropped soon: a large block that the heap maps and gives back.
    let mut words: Vec<Word<'_>> = Vec::with_capacity(index.words().count());
    words.extend(index.words());
    words.sort_unstable_by_key(Word::text);
    let mut out = BufWriter::new(File::create(path)?);
    for word in words {
        write!(out, "{} ", word.count())?;
        out.write_all(word.text())?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn letters(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("words are of ASCII letters")
}

/// One run.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) index: Duration,
    pub(crate) tear_down: Duration,
    pub(crate) summary: Summary,
    pub(crate) memory: Memory,
}

/// Resident memory at points of a run, where it is known.
pub(crate) struct Memory {
    pub(crate) before: Option<u64>,
    pub(crate) full: Option<u64>,
    pub(crate) torn_down: Option<u64>,
    pub(crate) reclaimed: Option<u64>,
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Writes times and memory of the runs, a line each, and a line of the ratio if there are two.
pub(crate) fn compare(runs: &[Outcome], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<10} {:>10} {:>10} {:>10}   {:>9} {:>9} {:>10} {:>10}",
        "", "index", "ns/word", "tear down", "before", "full", "torn down", "reclaimed"
    )?;
    let size = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{:.1}M", mebibytes(bytes)),
        None => "?".into(),
    };
    for run in runs {
        let Memory { before, full, torn_down, reclaimed } = run.memory;
        writeln!(
            out,
            "{:<10} {:>9.3}s {:>10.1} {:>9.3}s   {:>9} {:>9} {:>10} {:>10}",
            run.name,
            run.index.as_secs_f64(),
            run.index.as_secs_f64() * 1e9 / run.summary.words.max(1) as f64,
            run.tear_down.as_secs_f64(),
            size(before),
            size(full),
            size(torn_down),
            size(reclaimed),
        )?;
    }
    if let [a, b] = runs {
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        let (index, tear_down) = (ratio(a.index, b.index), ratio(a.tear_down, b.tear_down));
        let names = format!("{}/{}", a.name, b.name);
        writeln!(out, "{names:<10} {index:>10.2} {index:>10.2} {tear_down:>10.2}")?;
    }
    Ok(())
}
