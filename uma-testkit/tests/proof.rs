//! `docs/proof.md` names tests that are there.

use std::fs;
use std::path::Path;

/// Files and test functions that a line names in backticks: a function belongs to the file before it.
fn named(line: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let mut file = None;
    for word in line.split('`').skip(1).step_by(2) {
        let is_name =
            word.chars().all(|char| char.is_ascii_lowercase() || "_0123456789".contains(char));
        if word.starts_with("uma") && word.ends_with(".rs") {
            file = Some(word);
            found.push((word, None));
        } else if is_name && word.contains(char::is_lowercase) {
            found.extend(file.map(|file| (file, Some(word))));
        }
    }
    found
}

#[test]
fn the_tests_it_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/proof.md")).unwrap();
    let (mut count, mut missing) = (0, Vec::new());
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        for (file, test) in named(line) {
            count += 1;
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            // A function, or a model of a macro: the whole name.
            let whole = |test: &str| {
                source.match_indices(&format!(" {test}")).any(|(at, start)| {
                    let rest = &source[at + start.len()..];
                    !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
                })
            };
            let is_there = test.map_or(!source.is_empty(), whole);
            if !is_there {
                missing.push(format!("{file}: {}", test.unwrap_or("the file")));
            }
        }
    }
    assert!(missing.is_empty(), "docs/proof.md names what is not there: {missing:#?}");
    assert!(count > 100, "only {count} names were found");
    let classes = (1..=16).filter(|class| page.contains(&format!("\n| {class}. ")));
    assert_eq!(classes.count(), 16, "a class of faults has no row");
}
