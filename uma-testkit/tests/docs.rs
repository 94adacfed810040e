//! What the pages for people name is there: files, tests in them, and what links lead to. Files of C programs that are named
//! by their system alone are looked after by `uma-kmem-compat/tests/compat_table.rs` and `uma_table.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All pages, at the root and anywhere below `docs`: names from the root, and text.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut homes = vec![String::new(), "docs/".to_owned()];
    while let Some(home) = homes.pop() {
        for entry in fs::read_dir(root().join(&home)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{home}{}", path.file_name().unwrap().to_string_lossy());
            if path.is_dir() && home.starts_with("docs/") {
                homes.push(name + "/");
            } else if name.ends_with(".md") {
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "only {} pages were found", found.len());
    found
}

/// Lines outside of examples.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    page.split("\n```").step_by(2).flat_map(str::lines)
}

/// The paths in backticks of a line: from the root, or of a kind of which every crate has one.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let tops = ["ci/", "docs/", "fuzz/", ".ci/"];
    let parts = ["tests/", "src/", "examples/", "benches/"];
    line.split('`').skip(1).step_by(2).filter_map(move |code| {
        let word = code.split([' ', ':']).next()?;
        let is_path = tops.iter().chain(&parts).any(|start| word.starts_with(start))
            || word.starts_with("uma") && word.contains('/');
        is_path.then_some(word)
    })
}

/// Whether a path is there, from the root or from a crate's directory.
fn is_there(path: &str, crates: &[PathBuf]) -> bool {
    root().join(path).exists() || crates.iter().any(|home| home.join(path).exists())
}

fn crates() -> Vec<PathBuf> {
    let homes = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    homes.filter(|home| home.join("Cargo.toml").exists()).collect()
}

#[test]
fn the_files_they_name_are_there() {
    let crates = crates();
    let (mut count, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        for path in prose(&page).flat_map(paths) {
            // What is installed has other places, and a part in angle brackets stands for several.
            let header = || {
                let place = Path::new("uma-kmem-compat/include").join(path);
                root().join(place).exists()
            };
            if path.contains(['<', '*']) {
                continue;
            }
            count += 1;
            if !is_there(path, &crates) && !header() {
                missing.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "pages name what is not there: {missing:#?}");
    assert!(count > 150, "only {count} paths were found");
}

/// The anchor of a heading, as the sites that show these pages make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|&char| char.is_alphanumeric() || " -_".contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

#[test]
fn their_links_lead_somewhere() {
    let pages = pages();
    let anchors = |page: &str| -> BTreeSet<String> {
        prose(page).filter(|line| line.starts_with('#')).map(anchor).collect()
    };
    let (mut count, mut dead) = (0, Vec::new());
    for (name, page) in &pages {
        let home = Path::new(name).parent().unwrap();
        let targets = prose(page)
            .flat_map(|line| line.split("](").skip(1))
            .filter_map(|rest| rest.split(')').next());
        for target in
            targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            count += 1;
            let (path, part) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { PathBuf::from(name) } else { home.join(path) };
            let text = || fs::read_to_string(root().join(&path)).unwrap_or_default();
            if !root().join(&path).exists() || !part.is_empty() && !anchors(&text()).contains(part)
            {
                dead.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "links lead nowhere: {dead:#?}");
    assert!(count > 20, "only {count} links were found");
}

/// The checks above see what they are to see.
#[test]
fn the_reader_reads() {
    let line =
        "see `uma/src/lib.rs`, `tests/x.rs: a_test`, `Zone::new` and `uma::core`, `ci/test.sh 5`";
    assert_eq!(paths(line).collect::<Vec<_>>(), ["uma/src/lib.rs", "tests/x.rs", "ci/test.sh"]);
    assert!(is_there("uma/src/lib.rs", &[]) && is_there("src/lib.rs", &crates()));
    assert!(!is_there("uma/src/nowhere.rs", &crates()) && !is_there("tests/x.rs", &crates()));
    assert_eq!(anchor("## What is *not* proved, yet"), "what-is-not-proved-yet");
    assert_eq!(prose("one\n```sh\ntwo\n```\nthree").collect::<Vec<_>>(), ["one", "", "three"]);
}
