//! `docs/compat.md` and the tree say the same. For Solaris, libumem, Linux and NetBSD: every function, type and
//! flag that a header declares has a row; every row names tests in C, which are there and use what the row is about;
//! every symbol that a header binds a name to is exported, and every one that is exported is declared. For all: the
//! policies and their values are those of the sources, and have tests that set them. (FreeBSD's page is
//! `docs/uma.md`; `uma_table.rs` reads that.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page() -> String {
    read(&here().join("../docs/compat.md"))
}

/// A system: its heading, its directory, and what the names of its headers begin with.
struct System {
    heading: &'static str,
    directory: &'static str,
    prefixes: &'static [&'static str],
}

const SYSTEMS: &[System] = &[
    System {
        heading: "## Solaris",
        directory: "solaris",
        prefixes: &[
            "kmem_",
            "spl_",
            "vmem_",
            "KM_",
            "KMC_",
            "KMEM_",
            "VM_",
            "VMC_",
            "VMEM_",
            "mutex_",
            "cv_",
            "ddi_",
            "MUTEX_",
            "CV_",
            "ASSERT",
            "KSTAT_",
            "heap_arena",
        ],
    },
    System { heading: "## libumem", directory: "umem", prefixes: &["umem_", "UMEM_", "UMC_"] },
    System {
        heading: "## Linux",
        directory: "linux",
        prefixes: &[
            "kmem_",
            "KMEM_",
            "SLAB_",
            "kmalloc",
            "kzalloc",
            "kcalloc",
            "kfree",
            "kzfree",
            "krealloc",
            "ksize",
            "kv",
            "slab_",
            "KMALLOC_",
            "ARCH_KMALLOC",
            "ZERO_",
            "mempool_",
            "__GFP_",
            "GFP_",
            "gfp",
            "NUMA_",
        ],
    },
    System {
        heading: "## NetBSD",
        directory: "netbsd",
        prefixes: &[
            "pool_",
            "POOL_",
            "PR_",
            "PCG_",
            "IPL_",
            "kmem_",
            "KM_",
            "vmem_",
            "VMEM_",
            "VM_",
            "uvm_",
            "UVM_",
            "vm_map_",
            "kernel_map",
            "km_",
        ],
    },
];

/// The part of the page under a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let from = page.find(&format!("\n{heading}\n")).expect("the page has the heading") + 1;
    let rest = &page[from + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The rows of the tables in a text, without headings.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let heading = lines.peek().is_some_and(|next| next.starts_with("|--"));
        if line.starts_with('|') && !line.starts_with("|--") && !heading {
            rows.push(line.trim_matches('|').split('|').map(str::trim).collect());
        }
    }
    rows
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter| !is_word(letter)).filter(|word| !word.is_empty())
}

/// The tests that a cell names: files of the system's directory, and functions in them.
fn tests(cell: &str, directory: &str) -> Vec<(PathBuf, Vec<String>)> {
    let part = |text: &str| {
        let file = quoted(text).next().unwrap_or_else(|| panic!("no file in {cell:?}")).to_owned();
        let path = match file.strip_suffix(".rs") {
            Some(_) if file.starts_with("uma-") => here().join("..").join(&file),
            Some(_) => here().join("tests").join(&file),
            None if file.contains('/') => here().join("tests/c").join(&file),
            None => here().join("tests/c").join(directory).join(&file),
        };
        let after = &text[text.find(&file).unwrap_or(0) + file.len() + 1..];
        (path, words(after).map(str::to_owned).collect())
    };
    cell.split(';').map(part).collect()
}

/// Reads the tests of a cell, which must be there, and returns their files' texts.
fn texts(cell: &str, directory: &str, what: &str) -> String {
    let mut all = String::new();
    for (path, names) in tests(cell, directory) {
        let text = read(&path);
        assert!(!names.is_empty(), "{}: no test is named for {what}", path.display());
        for name in names {
            let there = [format!("void {name}("), format!("int {name}("), format!("fn {name}(")];
            let there = there.iter().any(|start| text.contains(start));
            assert!(there, "{}: no {name}, which is to show {what}", path.display());
        }
        all += &text;
    }
    all
}

fn without_comments(header: &str) -> String {
    header.split("/*").map(|part| part.split_once("*/").map_or(part, |p| p.1)).collect()
}

fn headers(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(here().join("include/uma").join(directory)).expect("headers") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "h") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, without_comments(&read(&path))));
        }
    }
    found
}

/// Names for users that the headers of a system declare: functions, macros, constants.
fn declared(system: &System) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in headers(system.directory) {
        for word in words(&text) {
            let mine =
                system.prefixes.iter().any(|prefix| word.starts_with(prefix) && word != *prefix)
                    || matches!(word, "ASSERT" | "heap_arena" | "kernel_map");
            // Types explain themselves, and what ends in an underscore is not for users.
            if mine && !word.ends_with('_') && !word.ends_with("_t") {
                names.insert(word.to_owned());
            }
        }
    }
    names
}

/// Structures, tags and members, which are no names of functions or flags.
const NO_ROW: &[&str] = &[
    "kmem_cache",
    "kmem_cbrc",
    "kmem_cache_args",
    "mempool",
    "pool_allocator",
    "pool_cache",
    "slab_sheaf",
    "umem_cache",
    "vm_map",
];

#[test]
fn nothing_of_the_headers_is_missing() {
    let page = page();
    let mut missing = Vec::new();
    for system in SYSTEMS {
        let rows = rows(section(&page, system.heading));
        let named: BTreeSet<&str> =
            rows.iter().flat_map(|row| quoted(row[0])).flat_map(words).collect();
        let mut declared = declared(system);
        declared.retain(|name| !named.contains(&**name) && !NO_ROW.contains(&&**name));
        missing.extend(declared.into_iter().map(|name| (system.directory, name)));
    }
    assert!(missing.is_empty(), "in headers, and not in docs/compat.md: {missing:?}");
}

#[test]
fn every_row_has_tests_that_use_it() {
    let page = page();
    let (mut count, mut unused) = (0, Vec::new());
    for system in SYSTEMS {
        let declared = declared(system);
        let mut variable = String::new();
        for row in rows(section(&page, system.heading)) {
            let cell = row.last().expect("a row has cells");
            let used = texts(cell, system.directory, row[0]);
            let used: BTreeSet<&str> = words(&used).collect();
            let mut names: Vec<&str> = quoted(row[0]).flat_map(words).collect();
            // Words in the environment stand in the second column.
            if row[0].is_empty() || row[0].starts_with("`UMEM_") && row[1].starts_with('`') {
                variable = if row[0].is_empty() { variable } else { row[0].to_owned() };
                names = quoted(row[1]).filter_map(|word| words(word).next()).collect();
                count += names.len();
                names.retain(|name| !used.contains(name));
                unused.extend(names.into_iter().map(|name| format!("{variable} {name}")));
                continue;
            }
            names.retain(|name| declared.contains(*name));
            count += names.len();
            names.retain(|name| !used.contains(name));
            unused.extend(names.into_iter().map(|name| format!("{}: {name}", system.directory)));
        }
    }
    assert!(unused.is_empty(), "not in the tests of their rows: {unused:?}");
    assert!(count > 330, "only {count} names have tests");
}

/// Symbols that the sources of a face export.
fn exported(directory: &str) -> BTreeSet<String> {
    let mut symbols = BTreeSet::new();
    let mut left = vec![here().join("src").join(directory)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(path).expect("sources").map(|entry| entry.expect("one").path()),
            );
            continue;
        }
        let text = read(&path);
        let prefix = format!("uma_{directory}_");
        let own = |word: &&str| word.starts_with(&prefix);
        for part in text.split("#[unsafe(no_mangle)]").skip(1) {
            let head = part.split(['{', ';']).next().unwrap_or("");
            symbols.extend(words(head).find(own).map(str::to_owned));
        }
        // Those that a macro makes.
        if let Some(list) = text.split("built_in! {").nth(1) {
            let list = list.split('}').next().unwrap_or("");
            symbols.extend(words(list).filter(own).map(str::to_owned));
        }
    }
    symbols
}

#[test]
fn symbols_are_declared_and_exported() {
    for system in SYSTEMS {
        let exported = exported(system.directory);
        let text: String = headers(system.directory).into_iter().map(|(_, text)| text).collect();
        let all: BTreeSet<&str> = words(&text).collect();
        for symbol in &exported {
            assert!(all.contains(&**symbol), "no header declares {symbol}");
        }
        for part in text.split("UMA_SYMBOL(").skip(1) {
            let symbol = part.split(')').next().unwrap_or("");
            assert!(exported.contains(symbol), "a header binds to {symbol}, which is not exported");
        }
        assert!(exported.len() > 10, "{}: only {} symbols", system.directory, exported.len());
    }
}

#[test]
fn what_programs_rely_on_has_tests() {
    let page = page();
    let table = rows(section(&page, "## What real programs rely on"));
    assert!(table.len() > 20);
    for row in table {
        texts(row[2], "", row[1]);
    }
}

/// Each test of the originals has a row, in order, and none is passed over.
#[test]
fn tests_of_other_systems_are_told_anew() {
    let page = page();
    let table = rows(section(&page, "## Tests of other systems, told anew"));
    let all = [("splat", 13), ("slub_kunit", 11), ("NetBSD", 3)];
    let wanted: Vec<String> = all
        .iter()
        .flat_map(|(suite, count)| (1..=*count).map(move |number| format!("{suite} {number}")))
        .collect();
    let told: Vec<&str> =
        table.iter().map(|row| row[0].split(',').next().unwrap_or_default()).collect();
    assert_eq!(told, wanted);
    for row in table {
        texts(row[2], "", row[0]);
    }
}

#[test]
fn promised_figures_have_tests() {
    let page = page();
    let table = rows(section(&page, "## Figures that are promised"));
    assert!(table.len() >= 10);
    for row in table {
        texts(row[2], "", row[1]);
    }
}

/// The policies of the sources: keys, and values as they are written there.
fn switches() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut left = vec![here().join("src")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(path).expect("sources").map(|entry| entry.expect("one").path()),
            );
            continue;
        }
        let text = read(&path);
        for part in text.split("Switch::new(\"").skip(1) {
            let (key, rest) = part.split_once('"').expect("a key");
            let list = rest.split(']').next().unwrap_or("");
            let values = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            found.insert(key.to_owned(), values);
        }
        for (start, values) in
            [("that_aborts(\"", ["abort", "report"]), ("that_reports(\"", ["report", "abort"])]
        {
            for part in text.split(start).skip(1) {
                let key = part.split('"').nth(2).expect("a key").to_owned();
                found.insert(key, values.map(str::to_owned).to_vec());
            }
        }
    }
    found
}

#[test]
fn policies_are_those_of_the_sources_and_tested() {
    let page = page();
    let table = page.split("### Policies").nth(1).expect("policies");
    let table = table.split("\n## ").next().unwrap_or("");
    let mut told = BTreeMap::new();
    for row in rows(table) {
        let key = quoted(row[0]).next().expect("a key").to_owned();
        let values: Vec<String> = quoted(row[1]).map(str::to_owned).collect();
        let system = key.split('.').next().unwrap_or("");
        let used = texts(row.last().expect("cells"), system, &key);
        // Each value but the default is set in a test; the default is what all the others run with.
        assert!(used.contains(&format!("\"{key}\"")), "no test sets {key}");
        for value in values.iter().skip(1) {
            assert!(used.contains(&format!("\"{value}\"")), "no test sets {key} to {value}");
        }
        told.insert(key, values);
    }
    assert_eq!(told, switches());
}
