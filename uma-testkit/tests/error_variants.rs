//! Every variant of every public error is asserted by a test.
//!
//! Read from the sources: the enums are those that implement `core::error::Error` or whose names end as those
//! of errors do, and a variant counts as asserted where it stands alone in an assertion (not as one of several
//! that would do), or in a value with a name that an assertion of the same file uses. That is less than a proof
//! that the error was really provoked, but a new variant that no test names is found.

use std::fs;
use std::path::{Path, PathBuf};

/// The published crates, and the names by which tests reach them. The faces of `uma-kmem-compat` stand apart: their
/// errors have the same names.
const CRATES: &[(&str, &[&str])] = &[
    ("uma-core", &["uma_core", "uma::core"]),
    ("uma-vmem", &["uma_vmem"]),
    ("uma-keg", &["uma_keg", "uma::keg"]),
    ("uma-cache", &["uma_cache", "uma::cache"]),
    ("uma-debug", &["uma_debug", "uma::debug"]),
    ("uma-backend-mmap", &["uma_backend_mmap", "uma::mmap"]),
    ("uma-backend-static", &["uma_backend_static"]),
    ("uma", &["uma::"]),
    ("uma-malloc", &["uma_malloc"]),
    ("uma-kmem-compat/src/common", &["uma_kmem_compat::policy"]),
    ("uma-kmem-compat/src/solaris", &["uma_kmem_compat::solaris"]),
    ("uma-kmem-compat/src/umem", &["uma_kmem_compat::umem"]),
    ("uma-kmem-compat/src/linux", &["uma_kmem_compat::linux"]),
    ("uma-kmem-compat/src/netbsd", &["uma_kmem_compat::netbsd"]),
    ("uma-kmem-compat/src/freebsd", &["uma_kmem_compat::freebsd"]),
];

/// Variants of C alone, where a name or an arena is a pointer; in Rust none can be missing or of another kind. Each
/// with the C program that provokes it, and the line that does.
const IN_C: &[(&str, &str, &str)] = &[
    ("solaris::CreateError::NoName", "solaris/misuse.c", "CHECK_ABORTS(\"it has no name\","),
    (
        "solaris::CreateError::BadArena",
        "solaris/vmem.c",
        "CHECK_ABORTS(\"the arena is none of memory\",",
    ),
    ("linux::CreateError::NoName", "linux/misuse.c", "\"no cache \\\"\\\": it has no name\""),
    ("umem::CreateError::NoName", "umem/cache.c", "with(NULL, 8, 0, 0) == NULL && errno == EINVAL"),
    (
        "umem::CreateError::Source",
        "umem/cache.c",
        "NULL, NULL, (vmem_t *)&errno, 0) == NULL);\n\tCHECK_EQ(errno, EINVAL);",
    ),
];

/// Where the sources of an entry of `CRATES` lie.
fn home(name: &str) -> PathBuf {
    let home = root().join(name);
    if name.contains('/') { home } else { home.join("src") }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust sources below a directory, if there is one.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A source without its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::with_capacity(text.len()), |all, line| all + line + "\n")
}

/// The text from an opening bracket at the beginning to the one that closes it.
fn bracketed(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, char) in text.char_indices() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

/// The text up to a semicolon that stands in no bracket.
fn statement(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, char) in text.char_indices() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return &text[..at],
            _ => {}
        }
    }
    text
}

/// Names of the variants between the braces of an enum.
fn variants(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = body.trim_start_matches('{');
    while let Some(begin) = rest.find(|char: char| char.is_alphabetic() || char == '#') {
        rest = &rest[begin..];
        if let Some(attribute) = rest.strip_prefix('#') {
            rest = &attribute[bracketed(attribute).len()..];
            continue;
        }
        let end = rest.find(|char: char| !char.is_alphanumeric()).unwrap_or(rest.len());
        found.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
        if rest.starts_with(['(', '{']) {
            rest = &rest[bracketed(rest).len()..];
        }
        rest = rest.split_once(',').map_or("", |(_, rest)| rest);
    }
    found
}

/// The public errors of a source, given all code of its crate: names of enums, and of their variants.
fn errors(source: &str, whole: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for part in source.split("pub enum ").skip(1) {
        let name: String = part.chars().take_while(|char| char.is_alphanumeric()).collect();
        let by_name = ["Error", "Fault", "Refused", "Misuse"].iter().any(|end| name.ends_with(end));
        let by_trait =
            [' ', '<'].iter().any(|end| whole.contains(&format!("error::Error for {name}{end}")));
        if by_name || by_trait {
            let body = &part[part.find('{').unwrap()..];
            found.push((name, variants(bracketed(body))));
        }
    }
    found
}

/// What a source asserts: the arguments of its assertions, and the values of names that are used in them.
fn asserted(source: &str) -> String {
    let mut all = String::new();
    for start in ["assert!", "assert_eq!", "assert_ne!", "assert_says", "matches!", "refused"] {
        for (at, _) in source.match_indices(start) {
            let rest = &source[at + start.len()..];
            if rest.starts_with('(') {
                all += bracketed(rest);
                all.push('\n');
            }
        }
    }
    let mut named = String::new();
    for (at, _) in source.match_indices("let ") {
        let value = statement(&source[at + 4..]);
        let name: String =
            value.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
        let used = |char: char| !char.is_alphanumeric() && char != '_';
        if !name.is_empty() && all.split(used).any(|word| word == name) {
            named += value;
            named.push('\n');
        }
    }
    all + &named
}

/// Whether assertions name a variant, and not as one of several that would do.
fn names_it_alone(asserted: &str, wanted: &str) -> bool {
    asserted.match_indices(wanted).any(|(at, _)| {
        let rest = &asserted[at + wanted.len()..];
        let is_whole = !rest.starts_with(|char: char| char.is_alphanumeric());
        let after = rest.trim_start();
        let after = match after.starts_with(['(', '{']) {
            true => &after[bracketed(after).len()..],
            false => after,
        };
        let path = |char: char| char.is_alphanumeric() || "_:".contains(char);
        let before = asserted[..at].trim_end_matches(path).trim_end();
        is_whole && !after.trim_start().starts_with('|') && !before.ends_with('|')
    })
}

/// `crate::Enum::Variant` of all public errors.
fn all_variants() -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    for (name, _) in CRATES {
        let mut files = Vec::new();
        sources(&home(name), &mut files);
        assert!(!files.is_empty(), "{name} has no sources?");
        let texts: Vec<String> = files.iter().map(|file| code(file)).collect();
        let whole = texts.concat();
        for (error, names) in texts.iter().flat_map(|text| errors(text, &whole)) {
            found.extend(names.into_iter().map(|variant| (*name, error.clone(), variant)));
        }
    }
    found
}

/// What is asserted, and where: `(the source, if it is a unit test's, text, assertions)`.
fn all_asserted() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let home = entry.unwrap().path();
        let name = home.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("uma") {
            continue;
        }
        let mut files = Vec::new();
        sources(&home.join("tests"), &mut files);
        for file in files.iter().filter(|file| !file.ends_with("error_variants.rs")) {
            let text = code(file);
            found.push((PathBuf::new(), text.clone(), asserted(&text)));
        }
        // Unit tests, which need not name their crate.
        let mut files = Vec::new();
        sources(&home.join("src"), &mut files);
        for file in files {
            let text = code(&file);
            if let Some((_, tests)) = text.split_once("#[cfg(test)]") {
                found.push((file, tests.to_owned(), asserted(tests)));
            }
        }
    }
    found
}

#[test]
fn every_variant_of_every_error_is_asserted() {
    let variants = all_variants();
    assert!(variants.len() > 60, "only {} variants were found", variants.len());
    let tests = all_asserted();
    let mut open = Vec::new();
    for (name, error, variant) in &variants {
        let paths = CRATES.iter().find(|(other, _)| other == name).unwrap().1;
        let wanted = format!("{error}::{variant}");
        let is_asserted = tests.iter().any(|(own, text, asserted)| {
            (own.starts_with(home(name)) || paths.iter().any(|path| text.contains(path)))
                && names_it_alone(asserted, &wanted)
        });
        if !is_asserted {
            let face = name.rsplit('/').next().unwrap_or(name);
            open.push(format!("{face}::{wanted}"));
        }
    }
    let missing: Vec<_> =
        open.iter().filter(|open| !IN_C.iter().any(|(name, ..)| name == open)).collect();
    assert!(missing.is_empty(), "no test asserts: {missing:#?}");
    for (name, program, line) in IN_C {
        assert!(open.iter().any(|open| open == name), "{name} is asserted in Rust: not of C alone");
        let path = root().join("uma-kmem-compat/tests/c").join(program);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(line).count(), 1, "{program} does not provoke {name}");
    }
}

/// The checks above see what they are to see.
#[test]
fn the_reader_reads() {
    let source = "pub enum ReadError {\n #[doc(hidden)]\n One,\n Two(usize, &'static str),\n \
         Three {\n a: usize,\n b: usize,\n },\n}\npub enum Place { Here }\npub enum Odd { Left }\n\
         impl core::error::Error for Odd {}\n";
    let found = errors(source, source);
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = [
        ("ReadError".to_owned(), names(&["One", "Two", "Three"])),
        ("Odd".to_owned(), names(&["Left"])),
    ];
    assert_eq!(found, expected);
    let test = "let expected = ReadError::Two(1, \"a\"); let other = ReadError::Three;\n\
                f(ReadError::One);\n assert_eq!(g(), expected); assert!(matches!(h(), Odd::Left));";
    let asserted = asserted(test);
    assert!(asserted.contains("ReadError::Two") && asserted.contains("Odd::Left"));
    assert!(!asserted.contains("ReadError::One") && !asserted.contains("ReadError::Three"));
    let either =
        "matches!(a, AnError::One(1) | an::AnError::Two { .. })\nassert_eq!(b, AnError::TwoOrSo)";
    assert!(!names_it_alone(either, "AnError::One") && !names_it_alone(either, "AnError::Two"));
    assert!(names_it_alone(either, "AnError::TwoOrSo"));
}
