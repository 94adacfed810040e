//! `docs/uma.md` and the tree say the same: every test that it names is run, every symbol and every name in Rust is
//! there, and nothing that FreeBSD's headers or those of the face declare is missing in it.

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
    lines
        .map(cells)
        .filter(|row: &Vec<&str>| !matches!(row[0], "name" | "bug" | "zone(9) says"))
        .collect()
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

/// Whether Rust's test harness runs a function of this name: of what stands between it and the item before, one line
/// says so.
fn is_test(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    let above = before.lines().rev().map(str::trim).skip_while(|line| line.is_empty());
    above.take_while(|line| line.starts_with(['#', '/'])).any(|line| line == "#[test]")
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
                let is = match path.extension() {
                    Some(rust) if rust == "rs" => is_test(&text, name),
                    // What is static and not called, the compiler does not let pass.
                    _ => {
                        text.contains(&format!("static void {name}("))
                            || name == "main" && text.contains("int main(")
                    }
                };
                assert!(is, "{}: no {name}, which is to show {}", path.display(), row[0]);
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

/// What the page calls things in Rust: what stands between backquotes in the columns "in Rust".
fn rust_names(page: &str) -> BTreeSet<String> {
    let (mut names, mut column) = (BTreeSet::new(), None);
    for line in page.lines() {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        if !line.starts_with('|') {
            column = None;
        } else if line.starts_with("| name ") {
            column = cells.position(|cell| cell == "in Rust");
        } else if let Some(cell) = column.and_then(|column| cells.nth(column)) {
            names.extend(quoted(cell).map(str::to_owned));
        }
    }
    names
}

/// All sources below a directory, one behind the other.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("capi") {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &read(&path);
        }
    }
    text
}

#[test]
fn every_name_in_rust_is_there() {
    let face = sources(&root().join("uma-kmem-compat/src/freebsd"));
    let engine = sources(&root().join("uma/src")) + &sources(&root().join("uma-core/src"));
    let names = rust_names(&page());
    assert!(names.len() > 100, "only {} names", names.len());
    for name in names {
        let (text, last) = match name.strip_prefix("uma::") {
            Some(name) => (&engine, name.rsplit("::").next().unwrap_or(name)),
            None => (&face, name.rsplit("::").next().unwrap_or(&name)),
        };
        let ways =
            ["fn @(", "fn @<", "type @ ", "struct @ ", "struct @<", "const @ =", "mod @;", " @,\n"];
        let is = ways.iter().any(|way| text.contains(&way.replace('@', last)));
        assert!(is, "there is no {name} in Rust");
    }
}

/// What the first header, of March 2002, declares.
const OF_2002: &str = "
    UMA_SMALLEST_UNIT uma_zone_t uma_ctor uma_dtor uma_init uma_fini uma_zcreate UMA_ZONE_PAGEABLE UMA_ZONE_ZINIT
    UMA_ZONE_STATIC UMA_ZONE_OFFPAGE UMA_ZONE_MALLOC UMA_ZONE_NOFREE UMA_ALIGN_PTR UMA_ALIGN_LONG UMA_ALIGN_INT
    UMA_ALIGN_SHORT UMA_ALIGN_CHAR UMA_ALIGN_CACHE uma_zdestroy uma_zalloc_arg uma_zalloc uma_zfree_arg uma_zfree
    uma_alloc uma_free uma_startup uma_startup2 uma_reclaim uma_zone_set_obj uma_zone_set_allocf uma_zone_set_freef
    UMA_SLAB_BOOT UMA_SLAB_KMEM UMA_SLAB_KMAP UMA_SLAB_PRIV UMA_SLAB_OFFP UMA_SLAB_MALLOC uma_prealloc
    uma_zone_set_max";

/// What today's declares, and what came and went in between.
const SINCE: &str = "
    uma_import uma_release uma_maxaction_t uma_zsecond_create uma_zcache_create uma_zsecond_add uma_find_refcnt
    uma_zalloc_domain uma_zfree_domain uma_zalloc_pcpu uma_zalloc_pcpu_arg uma_zfree_pcpu uma_zfree_pcpu_arg
    uma_zalloc_smr uma_zfree_smr uma_zone_set_smr uma_zone_get_smr uma_zwait uma_zone_set_maxcache uma_zone_get_max
    uma_zone_get_cur uma_zone_set_warning uma_zone_set_maxaction uma_zone_reserve uma_zone_reserve_kva
    uma_zone_set_init uma_zone_set_fini uma_zone_set_zinit uma_zone_set_zfini uma_reclaim_domain uma_zone_reclaim
    uma_zone_reclaim_domain uma_reclaim_wakeup uma_reclaim_worker uma_zone_memory uma_zone_exhausted uma_limit
    uma_set_limit uma_size uma_avail uma_get_cache_align_mask uma_set_cache_align_mask UMA_ALIGN_CACHE_AND_MASK
    UMA_ALIGNOF SYSCTL_UMA_MAX SYSCTL_ADD_UMA_MAX SYSCTL_UMA_CUR SYSCTL_ADD_UMA_CUR pcpu_zone_4 pcpu_zone_8
    pcpu_zone_16 pcpu_zone_32 pcpu_zone_64 UMA_ANYDOMAIN UMA_RECLAIM_DRAIN UMA_RECLAIM_DRAIN_CPU UMA_RECLAIM_TRIM
    UMA_ZONE_UNMANAGED UMA_ZONE_CONTIG UMA_ZONE_NOTOUCH UMA_ZONE_MTXCLASS UMA_ZONE_VM UMA_ZONE_NOTPAGE
    UMA_ZONE_SECONDARY UMA_ZONE_NOBUCKET UMA_ZONE_MAXBUCKET UMA_ZONE_MINBUCKET UMA_ZONE_CACHESPREAD UMA_ZONE_NODUMP
    UMA_ZONE_PCPU UMA_ZONE_FIRSTTOUCH UMA_ZONE_ROUNDROBIN UMA_ZONE_SMR UMA_ZONE_NOKASAN UMA_ZONE_NOTRIM
    UMA_ZONE_REFCNT UMA_ZONE_HASH UMA_ZONE_VTOSLAB UMA_ZONE_NUMA UMA_ZONE_NOBUCKETCACHE UMA_SLAB_KERNEL
    UMA_STREAM_VERSION uma_stream_header uma_type_header uma_percpu_stat UTH_MAX_NAME UTH_ZONE_SECONDARY M_NOWAIT
    M_WAITOK M_ZERO M_NOVM M_USE_RESERVE M_NODUMP M_NEVERFREED M_EXEC";

#[test]
fn nothing_of_the_originals_is_missing() {
    let page = page();
    let named: BTreeSet<&str> = quoted(&page).flat_map(|name| name.split(['(', ' '])).collect();
    for name in OF_2002.split_whitespace().chain(SINCE.split_whitespace()) {
        assert!(named.contains(name), "FreeBSD has {name}, and docs/uma.md has not");
    }
}
