//! The layer rule: arrows between crates point down only. `docs/layers.md` says what it is for.
//!
//! Read from `cargo metadata --no-deps`, that is, from what the manifests say: optional dependencies
//! and those of other systems count too. Development dependencies do not.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// One crate of the family, and what it may stand on.
struct Place {
    name: &'static str,
    published: bool,
    /// Crates of the family that it may depend on.
    may_use: &'static [&'static str],
    /// Crates from outside that it may depend on, if that is restricted.
    outside: Option<&'static [&'static str]>,
}

const fn published(name: &'static str, may_use: &'static [&'static str]) -> Place {
    Place { name, published: true, may_use, outside: None }
}

const fn unpublished(name: &'static str, may_use: &'static [&'static str]) -> Place {
    Place { name, published: false, may_use, outside: None }
}

/// The layers, from the bottom up: a crate may use only rows above its own. A row may be there before
/// its crate is.
const PLACES: &[Place] = &[
    Place { outside: Some(&["lock_api"]), ..published("uma-core", &[]) },
    published("uma-vmem", &["uma-core"]),
    published("uma-keg", &["uma-core"]),
    published("uma-cache", &["uma-core"]),
    Place { outside: Some(&["lock_api"]), ..published("uma-debug", &["uma-core"]) },
    published("uma-backend-mmap", &["uma-core", "uma-vmem"]),
    published("uma-backend-static", &["uma-core", "uma-vmem"]),
    published("uma", ENGINE),
    published("uma-malloc", ENGINE_AND_UMA),
    published("uma-kmem-compat", ENGINE_UMA_AND_MALLOC),
    unpublished("uma-testkit", &["uma-core", "uma-cache"]),
    unpublished("uma-bench", EVERYTHING),
];

const ENGINE: &[&str] = &[
    "uma-core",
    "uma-vmem",
    "uma-keg",
    "uma-cache",
    "uma-debug",
    "uma-backend-mmap",
    "uma-backend-static",
];

const ENGINE_AND_UMA: &[&str] = &[
    "uma-core",
    "uma-vmem",
    "uma-keg",
    "uma-cache",
    "uma-debug",
    "uma-backend-mmap",
    "uma-backend-static",
    "uma",
];

const ENGINE_UMA_AND_MALLOC: &[&str] = &[
    "uma-core",
    "uma-vmem",
    "uma-keg",
    "uma-cache",
    "uma-debug",
    "uma-backend-mmap",
    "uma-backend-static",
    "uma",
    "uma-malloc",
];

const EVERYTHING: &[&str] = &[
    "uma-core",
    "uma-vmem",
    "uma-keg",
    "uma-cache",
    "uma-debug",
    "uma-backend-mmap",
    "uma-backend-static",
    "uma",
    "uma-malloc",
    "uma-kmem-compat",
    "uma-testkit",
];

fn place(name: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.name == name)
}

/// What is wrong with a dependency of one crate on another, if anything is.
fn fault(from: &str, to: &str) -> Option<String> {
    let Some(place) = place(from) else {
        return Some(format!("{from} has no row in the table of tests/layers.rs: give it one"));
    };
    let ours = self::place(to).is_some() || to == "uma" || to.starts_with("uma-");
    if ours && !place.may_use.contains(&to) {
        let allowed = match place.may_use {
            [] => "none of the family".to_owned(),
            some => some.join(", "),
        };
        return Some(format!("wrong arrow: {from} -> {to}. {from} may use: {allowed}"));
    }
    match place.outside {
        Some(outside) if !ours && !outside.contains(&to) => {
            Some(format!("wrong arrow: {from} -> {to}. {from} may use: {}", outside.join(", ")))
        }
        _ => None,
    }
}

/// What a feature leads to: features of the same crate, `crate/feature`, `dep:crate`.
fn reach<'a>(package: &'a Package, feature: &'a str) -> Vec<&'a str> {
    let mut found = vec![feature];
    let mut next = 0;
    while let Some(&name) = found.get(next) {
        next += 1;
        for leads_to in package.features.get(name).into_iter().flatten() {
            if !found.contains(&leads_to.as_str()) {
                found.push(leads_to);
            }
        }
    }
    found
}

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata runs")
}

/// Dependencies other than those for tests, examples and benchmarks, and other than model checkers, which
/// are compiled only where a model is checked.
fn dependencies(package: &Package) -> impl Iterator<Item = &cargo_metadata::Dependency> {
    let modelled = ["cfg(loom)", "cfg(shuttle)"];
    package.dependencies.iter().filter(move |dependency| {
        let target = dependency.target.as_ref().map(ToString::to_string);
        dependency.kind != DependencyKind::Development
            && !target.is_some_and(|target| modelled.contains(&target.as_str()))
    })
}

#[track_caller]
fn accept(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\nThe rule is in docs/layers.md.\n", faults.join("\n"));
}

#[test]
fn arrows_point_down() {
    let workspace = workspace();
    assert!(!workspace.packages.is_empty());
    let mut faults = Vec::new();
    for package in &workspace.packages {
        faults.extend(dependencies(package).filter_map(|to| fault(&package.name, &to.name)));
    }
    accept(&faults);
}

#[test]
fn crates_have_a_place() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/layers.md");
    let page = std::fs::read_to_string(page).expect("docs/layers.md can be read");
    let mut faults = Vec::new();
    for package in &workspace().packages {
        let name = package.name.as_str();
        let Some(place) = place(name) else {
            faults.push(format!("{name} has no row in the table of tests/layers.rs: give it one"));
            continue;
        };
        // Absent means that it may be published anywhere, an empty list that it may not at all.
        let published = package.publish.as_ref().is_none_or(|registries| !registries.is_empty());
        if published != place.published {
            let not = if place.published { "" } else { "not " };
            faults.push(format!("{name} is {not}to be published: set `publish` accordingly"));
        }
        if !page.contains(&format!("| `{name}` |")) {
            faults.push(format!("{name} has no line in docs/layers.md: give it one"));
        }
    }
    accept(&faults);
}

/// Nothing but a feature that says so in its name turns a nightly feature of another crate on.
#[test]
fn nightly_only_by_name() {
    let mut faults = Vec::new();
    for package in &workspace().packages {
        let name = package.name.as_str();
        for dependency in &package.dependencies {
            if dependency.features.iter().any(|feature| feature == "nightly") {
                faults.push(format!("{name} turns on {}/nightly", dependency.name));
            }
        }
        for feature in package.features.keys().filter(|feature| !feature.contains("nightly")) {
            let mut reach = reach(package, feature).into_iter();
            if let Some(nightly) = reach.find(|reached| reached.contains("nightly")) {
                faults.push(format!("feature {feature} of {name} turns on {nightly}"));
            }
        }
    }
    accept(&faults);
}

#[test]
fn the_table_itself_points_down() {
    for (row, place) in PLACES.iter().enumerate() {
        for lower in place.may_use {
            let found = PLACES[..row].iter().find(|place| place.name == *lower);
            let found = found.unwrap_or_else(|| panic!("{} -> {lower} does not", place.name));
            assert!(found.published || !place.published, "{} -> {lower}", place.name);
        }
    }
}

/// The arrows that the rule is there to refuse are refused.
#[test]
fn planted_faults_are_found() {
    let planted = [
        ("uma-core", "uma-keg"),
        ("uma-core", "hashbrown"),
        ("uma-vmem", "uma-keg"),
        ("uma-keg", "uma-backend-mmap"),
        ("uma-keg", "uma-cache"),
        ("uma-cache", "uma-keg"),
        ("uma-backend-mmap", "uma-keg"),
        ("uma-backend-mmap", "uma-cache"),
        ("uma-backend-static", "uma-backend-mmap"),
        ("uma", "uma-malloc"),
        ("uma", "uma-testkit"),
        ("uma-malloc", "uma-kmem-compat"),
        ("uma-testkit", "uma-keg"),
        ("uma", "uma-unheard-of"),
        ("uma-unheard-of", "uma-core"),
    ];
    for (from, to) in planted {
        assert!(fault(from, to).is_some(), "{from} -> {to} was let through");
    }
    assert_eq!(fault("uma-keg", "uma-core"), None);
    assert_eq!(fault("uma-keg", "hashbrown"), None);
    assert_eq!(fault("uma-core", "lock_api"), None);
    assert_eq!(fault("uma-kmem-compat", "uma-malloc"), None);
}
