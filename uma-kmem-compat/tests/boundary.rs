//! No panic leaves a function of C: every one that the sources define does its work in `boundary`, or leads to
//! one that does, or is a hit, which calls nothing that could unwind and leaves the rest to another function of C.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What lies between the first `open` in the text and the `close` that belongs to it, and what comes after.
fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    let from = text.find(open).expect("it opens");
    let mut depth = 0;
    for (at, letter) in text[from..].char_indices() {
        depth += i32::from(letter == open) - i32::from(letter == close);
        if depth == 0 {
            return (&text[from + 1..from + at], &text[from + at + 1..]);
        }
    }
    panic!("it does not close: {text}")
}

/// The functions after `marker` that have a body: names and bodies, without comments.
fn functions(text: &str, marker: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(marker) {
        let rest = &text[at + marker.len()..];
        let name = rest.split(['(', '<']).next().unwrap_or("").to_owned();
        let (_, after) = enclosed(rest, '(', ')');
        let body = after.find(['{', ';']).map(|at| &after[at..]);
        if !name.is_empty() && body.is_some_and(|body| body.starts_with('{')) {
            found.push((name, enclosed(after, '{', '}').0.to_owned()));
        }
    }
    found
}

/// The functions that a body calls.
fn calls(body: &str) -> BTreeSet<&str> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '$';
    let mut called = BTreeSet::new();
    for (at, _) in body.match_indices('(') {
        let name = body[..at].rsplit(|letter| !word(letter)).next().unwrap_or("");
        if !name.is_empty() && !matches!(name, "$" | "if" | "in" | "match" | "Ok" | "Some") {
            called.insert(name);
        }
    }
    called
}

/// What a hit may call.
const HARMLESS: &[&str] =
    &["addr", "bits", "flags", "handle", "is_null", "is_plain", "pop", "push"];

#[test]
fn every_function_of_c_ends_what_unwinds() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let (mut of_c, mut helpers) = (BTreeMap::new(), BTreeSet::new());
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a source");
        for marker in ["extern \"C\" fn ", "extern \"C-unwind\" fn "] {
            of_c.extend(functions(&text, marker));
        }
        // Helpers that stand for it: `with`, and what leads to that.
        for (name, body) in functions(&text, "fn ") {
            let called = calls(&body);
            if name.starts_with("with") && (called.contains("boundary") || called.contains("with"))
            {
                helpers.insert(name);
            }
        }
    }
    assert!(of_c.len() > 200, "only {} functions of C were found", of_c.len());
    let hits = of_c.iter().filter(|(name, body)| {
        let called = calls(body);
        let safe = |call: &&str| {
            *call == "boundary"
                || helpers.contains(*call)
                || of_c.contains_key(*call)
                || *call == "$name"
        };
        assert!(called.iter().any(safe), "{name} is not in `boundary`: {body}");
        let whole =
            called.contains("boundary") || called.iter().any(|call| call.starts_with("with"));
        if !whole {
            for call in called.iter().filter(|call| !safe(call)) {
                assert!(HARMLESS.contains(call), "{name} calls {call} outside of `boundary`");
            }
        }
        !whole && (called.contains("pop") || called.contains("push"))
    });
    assert_eq!(hits.count(), 10, "alloc and free of five faces");
}
