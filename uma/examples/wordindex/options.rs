//! The command line.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use crate::scan::CHUNK;

pub(crate) const HELP: &str = "\
Indexes the words of files, in uma zones and on the heap, and compares the two.

usage: wordindex [options] [files or folders]

Without files it indexes the sources of this project. A word is a longest run of ASCII letters, in
lower case. In folders, symbolic links are not followed, and hidden entries and caches (folders with
a CACHEDIR.TAG, like cargo's target) are left out. What cannot be read is reported and left out.

options:
  --threads N       workers (default: as many as there are CPUs)
  --top N           how many of the most frequent words to print (default 20)
  --counts FILE     write `count word` for every word, in the order of `LC_ALL=C sort`
  --only zones|box  run on one only
  --chunk BYTES     read so many bytes at a time (default and most 65536); a file is worked on in
                    pieces of 16 such chunks
  --progress        show progress even if the standard error is no terminal
  --help            show this

It fails (with exit status 1) if items of a zone are in use after everything was freed, if the two
runs differ in their counts, or if the process is left with more than 4 MiB of memory (with more than
two threads, 2 MiB for each) beyond what it had before.
";

/// Which stores to run on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Only {
    Zones,
    Heap,
}

pub(crate) struct Options {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) threads: usize,
    pub(crate) top: usize,
    pub(crate) counts: Option<PathBuf>,
    pub(crate) only: Option<Only>,
    pub(crate) chunk: usize,
    pub(crate) progress: bool,
}

impl Options {
    /// Reads the arguments after the program's name; `None` if help is asked for.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut options = Self {
            paths: Vec::new(),
            threads: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            top: 20,
            counts: None,
            only: None,
            chunk: CHUNK,
            progress: false,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(name) = arg.to_str().filter(|name| name.starts_with('-')) else {
                options.paths.push(arg.into());
                continue;
            };
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name {
                "--threads" => options.threads = number(name, value()?, 1..=1024)?,
                "--top" => options.top = number(name, value()?, 0..=1_000_000)?,
                "--chunk" => options.chunk = number(name, value()?, 1..=CHUNK)?,
                "--counts" => options.counts = Some(value()?.into()),
                "--only" => {
                    options.only = Some(match value()?.to_str() {
                        Some("zones") => Only::Zones,
                        Some("box") => Only::Heap,
                        _ => return Err("--only is for zones or box".into()),
                    });
                }
                "--progress" => options.progress = true,
                "-h" | "--help" => return Ok(None),
                "--" => options.paths.extend(args.by_ref().map(PathBuf::from)),
                _ => return Err(format!("there is no option {name}; see --help")),
            }
        }
        if options.paths.is_empty() {
            options.paths.push(own_sources());
        }
        Ok(Some(options))
    }
}

fn number(
    name: &str,
    value: OsString,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let number = value.to_str().and_then(|value| value.parse().ok());
    number
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| format!("{name} is a number from {} to {}", allowed.start(), allowed.end()))
}

/// The workspace that this program was built from, or else the current folder.
fn own_sources() -> PathBuf {
    let mut workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    workspace.pop();
    if workspace.is_dir() { workspace } else { PathBuf::from(".") }
}
