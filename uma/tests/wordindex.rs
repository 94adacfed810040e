//! The example `wordindex` against a naive count: every way to cut the text, several threads, on
//! zones and on the heap; and nothing in use afterwards.
#![cfg(feature = "std")]
#![expect(dead_code, reason = "the modules are the example's, which uses the rest of them")]

#[path = "../examples/wordindex/batch.rs"]
mod batch;
#[path = "../examples/wordindex/crew.rs"]
mod crew;
#[path = "../examples/wordindex/files.rs"]
mod files;
#[path = "../examples/wordindex/index.rs"]
mod index;
#[path = "../examples/wordindex/progress.rs"]
mod progress;
#[path = "../examples/wordindex/report.rs"]
mod report;
#[path = "../examples/wordindex/scan.rs"]
mod scan;
#[path = "../examples/wordindex/shard.rs"]
mod shard;
#[path = "../examples/wordindex/stack.rs"]
mod stack;
#[path = "../examples/wordindex/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use crate::crew::Crew;
use crate::files::Files;
use crate::index::Index;
use crate::progress::Progress;
use crate::report::Summary;
use crate::scan::Scanner;
use crate::store::{Heap, Store, Zones};

/// Words, and how often each is in which file.
type Counts = BTreeMap<Vec<u8>, BTreeMap<usize, u64>>;

/// An empty folder of this name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn naive(texts: &[&[u8]]) -> Counts {
    let mut counts = Counts::new();
    for (file, text) in texts.iter().enumerate() {
        for word in text.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            *counts.entry(word.to_ascii_lowercase()).or_default().entry(file).or_default() += 1;
        }
    }
    counts
}

fn contents<S: Store>(index: &mut Index<'_, S>) -> Counts {
    let mut counts = Counts::new();
    for word in index.words() {
        let files = word.files().collect::<BTreeMap<_, _>>();
        assert_eq!(files.values().sum::<u64>(), word.count());
        assert_eq!(files.len(), word.files().count(), "a file has one posting");
        assert!(counts.insert(word.text().to_vec(), files).is_none(), "a word is there once");
    }
    counts
}

/// Indexes `paths` and compares with what `texts` has.
fn check<S: Store>(store: &S, paths: &[PathBuf], chunk: usize, threads: usize, texts: &[&[u8]]) {
    let progress = Progress::new(false);
    let files = Files::find(paths, 4 * chunk as u64, &progress);
    assert_eq!((files.len(), files.unreadable), (texts.len(), 0));
    let scanners = uma::ObjectCache::<Scanner>::builder("scanner")
        .init(Scanner::new)
        .dtor(Scanner::reset)
        .bucket(1)
        .build()
        .unwrap();
    let crew = Crew { files: &files, scanners: &scanners, progress: &progress, threads, chunk };
    let mut index = Index::new(store);
    crew.index(&index).unwrap();
    let expected = naive(texts);
    assert!(contents(&mut index) == expected, "chunks of {chunk}, {threads} threads");
    let summary = Summary::of(&mut index);
    assert_eq!(summary.distinct, expected.len() as u64);
    assert_eq!(summary.postings, expected.values().map(|files| files.len() as u64).sum::<u64>());

    let list = folder("counts").join(format!("{}-{chunk}-{threads}", S::NAME));
    report::write_counts(&mut index, &list).unwrap();
    let lines: Vec<u8> = expected
        .iter()
        .flat_map(|(word, files)| {
            let count = format!("{} ", files.values().sum::<u64>());
            [count.as_bytes(), word, b"\n"].concat()
        })
        .collect();
    assert!(fs::read(&list).unwrap() == lines);

    index.tear_down(threads);
    assert_eq!(index.words().count(), 0);
    drop(index);
    assert_eq!(scanners.stats().used(), 0);
    assert!(scanners.stats().allocs >= texts.len() as u64);
}

/// One test, since it looks at all zones of the process.
#[test]
fn it_counts_as_a_naive_map_does() {
    let root = folder("corpus");
    let long = "Long".repeat(700);
    let repeated = "one two Three four FIVE six; ".repeat(40);
    let many: String = (0..9000u32)
        .flat_map(|n| {
            // A word for each number, in letters.
            let letters =
                n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            [letters, String::from(" ")]
        })
        .collect();
    let texts: [(&str, &[u8]); 8] = [
        ("a-empty", b""),
        ("b-no-words", b"\n\n 12 ... \xff\xfe\n"),
        ("c-no-newline-at-the-end", b"The end of one file is no"),
        ("d-joins-nothing", b"thing: a word ends with its file\n"),
        ("e-other-bytes", b"caf\xc3\xa9 na\xefve\0nul x@y[z`a{b \xe2\x80\x9cQuoted\xe2\x80\x9d\n"),
        ("f-long", long.as_bytes()),
        ("g/h/repeated", repeated.as_bytes()),
        ("i-many", many.as_bytes()),
    ];
    for (name, text) in texts {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    // None of these is to be found.
    symlink(&root, root.join("g/loop")).unwrap();
    symlink("nowhere", root.join("g/dangling")).unwrap();
    fs::write(root.join(".hidden"), "hidden").unwrap();
    fs::create_dir(root.join("cache")).unwrap();
    fs::write(root.join("cache/CACHEDIR.TAG"), "Signature").unwrap();
    let found = Files::find(&[root.join("not-there"), root.clone()], 4096, &Progress::new(false));
    assert_eq!((found.len(), found.unreadable, found.links), (texts.len(), 1, 2));
    let paths = [root];
    let texts = texts.map(|(_, text)| text);

    let zones = Zones::new().unwrap();
    for chunk in [1, 2, 3, 7, 64, 4096, 1 << 16] {
        for threads in [1, 4] {
            check(&zones, &paths, chunk, threads, &texts);
            check(&Heap, &paths, chunk, threads, &texts);
        }
    }

    // A word larger than any item, and more words than a batch and a shard's first chains hold.
    let huge =
        ["Huge".repeat(400_000).as_bytes(), b" ", "tiny".repeat(200_000).as_bytes()].concat();
    let alphabet = |n: u32| char::from(b'a' + (n % 26) as u8);
    let distinct: String = (0..100_000)
        .flat_map(|n| [' ', alphabet(n), alphabet(n / 26), alphabet(n / 676), alphabet(n / 17_576)])
        .collect();
    let root = folder("huge");
    fs::write(root.join("a"), &huge).unwrap();
    fs::write(root.join("b"), &distinct).unwrap();
    for threads in [1, 3] {
        check(&zones, from_ref(&root), 4096, threads, &[&huge, distinct.as_bytes()]);
    }

    let zones = uma::zones();
    for name in ["word node", "posting", "text 8", "text 1048576", "heads 512", "heads 8192"] {
        let zone = zones.iter().find(|zone| zone.name.as_str() == name);
        assert!(zone.is_some_and(|zone| zone.stats.allocs > 0), "{name}");
    }
    assert!(zones.iter().all(|zone| zone.stats.used() == 0), "{}", uma::stat());
}
