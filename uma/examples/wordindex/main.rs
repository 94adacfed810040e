//! An index of the words of any files, all of it in zones: the words, in which files they are and how
//! often, and the objects that read them.
//!
//! ```text
//! cargo run --release -p uma --example wordindex -- --threads 2 --top 10 some/folder a-file
//! ```
//!
//! The same program then runs on `Box`, that is on the process's malloc, and the two are compared:
//! their counts must be equal; their times and memory are printed side by side. To be fair, every file
//! is read once before either run, so that both find it in the page cache.
//!
//! After the run on zones, no zone may have an item in use, and [`uma::reclaim`] must bring the
//! process's memory back to what it was.
//!
//! | module | what it is about |
//! |---|---|
//! | `files` | finding files, cutting them into pieces |
//! | `scan`, `batch` | from bytes to words, from words to batches of distinct words |
//! | `index`, `shard`, `stack` | the hash table of words and their postings |
//! | `store` | where its parts live: zones or boxes |
//! | `crew`, `progress` | the threads, and how far they are |
//! | `report`, `memory` | what is printed |

mod batch;
mod crew;
mod files;
mod index;
mod memory;
mod options;
mod progress;
mod report;
mod scan;
mod shard;
mod stack;
mod store;

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use uma::{ObjectCache, Reclaim};

use crate::crew::Crew;
use crate::files::Files;
use crate::index::Index;
use crate::memory::resident;
use crate::options::{HELP, Only, Options};
use crate::progress::Progress;
use crate::report::{Memory, Outcome, Summary, mebibytes};
use crate::scan::Scanner;
use crate::store::{Heap, Store, Zones};

/// Chunks in a piece of a file.
const CHUNKS: usize = 16;

/// How many scanners were made, as opposed to taken from their cache.
static SCANNERS: AtomicU64 = AtomicU64::new(0);

fn make_scanner() -> Scanner {
    SCANNERS.fetch_add(1, Ordering::Relaxed);
    Scanner::new()
}

fn main() -> ExitCode {
    let options = match Options::parse(env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("wordindex: {message}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &mut io::stdout().lock()) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("wordindex: FAILED: {fault}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("wordindex: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does everything, and returns what was found to be wrong.
fn run(options: &Options, out: &mut impl Write) -> Result<Vec<String>, Box<dyn Error>> {
    let progress = Progress::new(options.progress);
    progress.begin("reading once");
    let piece = (CHUNKS * options.chunk) as u64;
    let files = Files::find(&options.paths, piece, &progress);
    progress.end();
    if files.len() == 0 {
        return Err("there is no file to index".into());
    }
    writeln!(
        out,
        "{} files of {:.1} MB, each read once before the runs; {} unreadable; {} links not followed",
        files.len(),
        files.bytes as f64 / 1e6,
        files.unreadable,
        files.links
    )?;

    let scanners = ObjectCache::<Scanner>::builder("scanner")
        .init(make_scanner)
        .dtor(Scanner::reset)
        // Left to itself a cache keeps no objects so large; and it would make several ahead of need
        // if it took buckets of more than one.
        .bucket(1)
        .build()?;
    let crew = Crew {
        files: &files,
        scanners: &scanners,
        progress: &progress,
        threads: options.threads,
        chunk: options.chunk,
    };
    let mut runs = Vec::new();
    let mut faults = Vec::new();
    if options.only != Some(Only::Heap) {
        let zones = Zones::new()?;
        let outcome = one_run(&zones, &crew, |index, summary| {
            show(index, summary, options, out)?;
            writeln!(out, "\n{}", uma::stat())?;
            let (made, used) = (SCANNERS.load(Ordering::Relaxed), scanners.stats().allocs);
            writeln!(out, "{made} scanners were made, for {used} uses")
        })?;
        faults.extend(still_used());
        faults.extend(kept(&outcome.memory, options.threads, out)?);
        runs.push(outcome);
    }
    if options.only != Some(Only::Zones) {
        let outcome = one_run(&Heap, &crew, |index, summary| match options.only {
            Some(_) => show(index, summary, options, out),
            None => Ok(()),
        })?;
        runs.push(outcome);
    }

    writeln!(out)?;
    report::compare(&runs, out)?;
    if let [zones, heap] = &*runs {
        if zones.summary == heap.summary {
            writeln!(out, "both have the same words, files and counts")?;
        } else {
            faults.push(format!(
                "the runs differ (has a file changed meanwhile?): {:?} on zones, {:?} on the heap",
                zones.summary, heap.summary
            ));
        }
    }
    Ok(faults)
}

/// Indexes all files in a store, lets `look` at the index, and frees it.
fn one_run<S: Store>(
    store: &S,
    crew: &Crew<'_>,
    look: impl FnOnce(&mut Index<'_, S>, &Summary) -> io::Result<()>,
) -> Result<Outcome, Box<dyn Error>> {
    let before = resident();
    crew.progress.begin(S::NAME);
    let mut index = Index::new(store);
    let start = Instant::now();
    crew.index(&index)?;
    let index_time = start.elapsed();
    crew.progress.end();

    let full = resident();
    let summary = Summary::of(&mut index);
    look(&mut index, &summary)?;

    let start = Instant::now();
    index.tear_down(crew.threads);
    let tear_down = start.elapsed();
    drop(index);
    let torn_down = resident();
    uma::reclaim(Reclaim::Drain);
    let memory = Memory { before, full, torn_down, reclaimed: resident() };
    Ok(Outcome { name: S::NAME, index: index_time, tear_down, summary, memory })
}

/// What there is to say about an index.
fn show<S: Store>(
    index: &mut Index<'_, S>,
    summary: &Summary,
    options: &Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let Summary { words, distinct, postings, .. } = summary;
    writeln!(
        out,
        "{words} words, {distinct} distinct, {postings} postings, {} threads",
        options.threads
    )?;
    if options.top != 0 {
        writeln!(out)?;
        report::top(index, options.top, out)?;
    }
    match &options.counts {
        Some(path) => report::write_counts(index, path),
        None => Ok(()),
    }
}

/// The zones that have items in use: none should, after everything was freed.
fn still_used() -> impl Iterator<Item = String> {
    uma::zones().into_iter().filter(|zone| zone.stats.used() != 0).map(|zone| {
        format!(
            "zone \"{}\" has {} items in use after all were freed",
            zone.name,
            zone.stats.used()
        )
    })
}

/// Says what memory the process has kept, and returns a fault if it is too much.
fn kept(memory: &Memory, threads: usize, out: &mut impl Write) -> io::Result<Option<String>> {
    let (Some(before), Some(after)) = (memory.before, memory.reclaimed) else {
        writeln!(out, "resident memory is not known here: there is no /proc/self/statm")?;
        return Ok(None);
    };
    // For each thread there remain a stack, an arena of malloc, a scanner, and the buckets of a CPU.
    let allowed = (2 * threads as u64).max(4) << 20;
    let more = after.saturating_sub(before);
    writeln!(
        out,
        "resident memory: {:.1} MiB before, {:.1} MiB after reclaim: {:.1} MiB more, {:.1} allowed",
        mebibytes(before),
        mebibytes(after),
        mebibytes(more),
        mebibytes(allowed)
    )?;
    Ok((more > allowed).then(|| format!("{:.1} MiB were not given back", mebibytes(more))))
}
