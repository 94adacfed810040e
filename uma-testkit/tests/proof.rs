//! `docs/proof.md` and the tree say the same: the tests that it names are run, the models that it lists are those that
//! there are, and so are the planted faults, whose text is where the list says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page() -> String {
    fs::read_to_string(root().join("docs/proof.md")).unwrap()
}

/// The part of the page under a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    rest.split("\n## ").next().unwrap_or(rest)
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
}

/// Files and test functions that a line names in backticks: a function belongs to the file before it.
fn named(line: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let mut file = None;
    for word in quoted(line) {
        if word.starts_with("uma") && word.ends_with(".rs") {
            file = Some(word);
            found.push((word, None));
        } else if word.chars().all(is_word) && word.contains(char::is_lowercase) {
            found.extend(file.map(|file| (file, Some(word))));
        }
    }
    found
}

/// Whether a test of this name is run: of what stands between it and the item before, one line says so; or it is one
/// of several that a macro makes of a list.
fn is_run(source: &str, test: &str) -> bool {
    let in_list = ["models! {", "seeds! {"].iter().any(|list| source.contains(list))
        && [format!("    fn {test}<"), format!("    {test}: ")]
            .iter()
            .any(|start| source.contains(start.as_str()));
    let is_marked = source.split_once(&format!("\nfn {test}(")).is_some_and(|(before, _)| {
        let above = before.lines().rev().take_while(|line| line.starts_with(['#', '/']));
        above.into_iter().any(|line| line == "#[test]")
    });
    in_list || is_marked
}

#[test]
fn the_tests_it_names_are_there() {
    let page = page();
    let (mut count, mut missing) = (0, Vec::new());
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        for (file, test) in named(line) {
            count += 1;
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !test.map_or(!source.is_empty(), |test| is_run(&source, test)) {
                missing.push(format!("{file}: {}", test.unwrap_or("the file")));
            }
        }
    }
    assert!(missing.is_empty(), "docs/proof.md names what is not there: {missing:#?}");
    assert!(count > 100, "only {count} names were found");
    let classes = (1..=16).filter(|class| page.contains(&format!("\n| {class}. ")));
    assert_eq!(classes.count(), 16, "a class of faults has no row");
}

#[test]
fn the_models_it_lists_are_those_that_there_are() {
    let page = page();
    let rows = section(&page, "Model checking").lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<&str> = rows.flat_map(quoted).collect();
    let mut there = BTreeSet::new();
    for home in ["uma-core/tests", "uma-cache/tests"] {
        for entry in fs::read_dir(root().join(home)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What runs under shuttle alone is not in the list.
            if !name.starts_with("loom_") || !name.ends_with(".rs") {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            if !source.contains("#![cfg(any(loom, shuttle))]") {
                assert!(source.contains("#![cfg(shuttle)]") || source.contains("not(loom)"));
                continue;
            }
            let models = source.split("    fn ").filter(|part| part.contains("<C>("));
            let models = models.chain(source.split(" check(\"").skip(1));
            for model in models {
                there.insert(model.split(|letter| !is_word(letter)).next().unwrap().to_owned());
            }
        }
    }
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert!(there.len() > 30, "only {} models were found", there.len());
    let (new, gone): (Vec<_>, Vec<_>) =
        (there.difference(&listed).collect(), listed.difference(&there).collect());
    assert!(new.is_empty() && gone.is_empty(), "not listed: {new:?}; listed, but gone: {gone:?}");
}

/// The values of a key in a list of tables, in basic strings of TOML on one line.
fn values(list: &str, key: &str) -> Vec<String> {
    let lines = list.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
    lines
        .map(|line| {
            let line = line.strip_suffix('"').expect("a string ends");
            let mut value = String::new();
            let mut letters = line.chars();
            while let Some(letter) = letters.next() {
                value.push(match letter {
                    '\\' => match letters.next() {
                        Some('n') => '\n',
                        Some(other @ ('"' | '\\')) => other,
                        other => panic!("an escape that is not known here: {other:?} in {line}"),
                    },
                    letter => letter,
                });
            }
            value
        })
        .collect()
}

#[test]
fn the_faults_it_lists_can_be_planted() {
    let list = fs::read_to_string(root().join("ci/mutants.toml")).unwrap();
    let [what, file, from, to] = ["what", "file", "from", "to"].map(|key| values(&list, key));
    let count = list.matches("\n[[mutant]]\n").count();
    assert!(count >= 25, "only {count} faults");
    assert_eq!([what.len(), file.len(), from.len(), to.len()], [count; 4]);
    for (what, file, from) in std::iter::zip(&what, &file).zip(&from).map(|((a, b), c)| (a, b, c)) {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        let times = source.matches(from).count();
        assert_eq!(times, 1, "{what}: its text is {times} times in {file}");
    }
    let rows = |what: &String, file: &String| format!("| {what} | `{file}` | ");
    let listed: BTreeSet<String> =
        std::iter::zip(&what, &file).map(|(what, file)| rows(what, file)).collect();
    let page = page();
    let rows = section(&page, "Mutants").lines().filter(|line| line.starts_with("| "));
    let said: BTreeSet<String> = rows
        .filter(|line| !line.starts_with("| fault "))
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert!(cells.len() == 3 && cells[2].ends_with(" |"), "{line}");
            assert!(!cells[2].contains("not"), "{line}");
            format!("{} | {} | ", cells[0], cells[1])
        })
        .collect();
    let (missing, gone): (Vec<_>, Vec<_>) =
        (listed.difference(&said).collect(), said.difference(&listed).collect());
    assert!(missing.is_empty() && gone.is_empty(), "no row: {missing:#?}; a row alone: {gone:#?}");
}

/// The checks above see what they are to see.
#[test]
fn the_reader_reads() {
    let source = "#[test]\n/// Runs.\nfn one() {}\n\nfn helper() {}\n\n// fn three\n#[test]\nfn two_or_so() {}\n";
    assert!(is_run(source, "one") && is_run(source, "two_or_so"));
    assert!(!is_run(source, "helper") && !is_run(source, "two") && !is_run(source, "three"));
    let models = "models! {\n    /// A model.\n    fn four<C>(3) {}\n}\nfn five<C>() {}\n";
    assert!(is_run(models, "four") && !is_run(models, "five"));
    assert_eq!(
        values("what = \"a \\\"b\\\"\\\\n\\n\"\nwhatever = \"c\"", "what"),
        ["a \"b\"\\n\n"]
    );
}
