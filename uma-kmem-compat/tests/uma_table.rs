//! `docs/uma.md` and the tree say the same: every test that it names is there, every symbol too, and nothing that the
//! headers of the FreeBSD face declare is missing in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page() -> String {
    read(&root().join("docs/uma.md"))
}

/// The rows of all tables: their cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    let leaked: &'static str = String::from(page).leak();
    let lines = leaked.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    lines.map(cells).filter(|row: &Vec<&str>| !matches!(row[0], "name" | "bug")).collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests that a cell names: a file, and functions in it.
fn tests(cell: &str) -> Vec<(PathBuf, Vec<&str>)> {
    let part = |part: &'_ str| {
        let file = quoted(part).next().unwrap_or_else(|| panic!("no file in {cell:?}")).to_owned();
        let path = match file.contains('/') {
            true => root().join(&file),
            false => root().join("uma-kmem-compat/tests/c/freebsd").join(&file),
        };
        (path, file)
    };
    cell.split(';')
        .map(|text| {
            let (path, file) = part(text);
            let after = &text[text.find(&file).unwrap_or(0) + file.len() + 1..];
            let names = after.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty());
            (path, names.collect())
        })
        .collect()
}

#[test]
fn every_test_that_it_names_exists() {
    let page = page();
    let mut count = 0;
    for row in rows(&page) {
        let cell = row.last().expect("a row has cells");
        for (path, names) in tests(cell) {
            let text = read(&path);
            assert!(!names.is_empty(), "{}: no test is named for {}", path.display(), row[0]);
            for name in names {
                let rust = text.contains(&format!("fn {name}("));
                let c = text.contains(&format!("void {name}("))
                    || text.contains(&format!("int {name}("));
                assert!(rust || c, "{}: no {name}, which is to show {}", path.display(), row[0]);
                count += 1;
            }
        }
    }
    assert!(count > 100, "only {count} tests are named");
}

/// Names of functions, types and macros that a header declares.
fn declared(header: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let known = [
        "uma_",
        "UMA_",
        "M_",
        "smr_",
        "SMR_",
        "pcpu_zone_",
        "zpcpu_",
        "UTH_",
        "SYSCTL_",
        "MALLOC_",
    ];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let without_comments =
        header.split("/*").map(|part| part.split_once("*/").map_or(part, |p| p.1));
    for text in without_comments {
        for name in text.split(|c| !word(c)) {
            let mine = known.iter().any(|prefix| name.starts_with(prefix) && name != *prefix);
            // What ends in an underscore is not for users, nor are guards.
            if mine && !name.ends_with('_') && !name.ends_with("_H") {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn nothing_of_the_headers_is_missing() {
    let page = page();
    let named: BTreeSet<&str> = rows(&page)
        .iter()
        .flat_map(|row| row.iter().flat_map(|cell| quoted(cell)))
        .flat_map(|name| name.split(['(', ' ']))
        .map(|name| String::from(name).leak() as &str)
        .collect();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/uma/freebsd");
    let ours =
        ["UMA_C_BEGIN", "UMA_C_END", "UMA_SYMBOL", "UMA_2002", "uma_zone", "uma_freebsd_startup"];
    for header in ["uma.h", "smr.h", "malloc9.h", "mflags.h"] {
        for name in declared(&read(&include.join(header))) {
            let parameter = name.starts_with("uma_sysctl");
            assert!(
                parameter || ours.contains(&&*name) || named.contains(&*name),
                "{header} has {name}, and docs/uma.md has not"
            );
        }
    }
}

#[test]
fn every_symbol_that_it_names_is_exported() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/freebsd/capi");
    let mut text = String::new();
    for entry in std::fs::read_dir(sources).expect("a directory") {
        text += &read(&entry.expect("an entry").path());
    }
    let page = page();
    for name in rows(&page).iter().flat_map(|row| row.iter().flat_map(|cell| quoted(cell))) {
        if name.starts_with("uma_freebsd_") && name != "uma_freebsd_malloc_stats" {
            let function = text.contains(&format!("fn {name}("));
            assert!(function || text.contains(&format!("static {name}:")), "there is no {name}");
        }
    }
}
