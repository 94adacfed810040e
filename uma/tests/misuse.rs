//! The matrix of misuse and tiers: what each tier promises to find, it finds, at the moment and with the words
//! that `docs/hardening.md` says; and where it promises nothing, the test says that nothing was found, so
//! that the table cannot be better than the code.
//!
//! Each cell runs in a process of its own, which is this program again with [`CELL`] set: most end by a
//! signal. Those of the tier `asan` run in a program that is built with the sanitizer, which `ci/asan.sh` does.

#![cfg(all(target_os = "linux", feature = "std"))]

use std::alloc::Layout;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr::NonNull;

use uma::core::{Item, Request};
use uma::{Hardening, RawZone, Reclaim};

/// Names the cell that a child is to run.
const CELL: &str = "UMA_MISUSE_CELL";

/// What a child says when it has come to the end of a cell.
const NOTHING: &str = "nothing was found";

/// Sizes that are no multiple of a word: the last bytes count, too.
const SIZE: usize = 61;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tier {
    Release,
    Hardened,
    Debug,
    /// Every item is a sampled one.
    Sampled,
    Asan,
}

const TIERS: [Tier; 5] = [Tier::Release, Tier::Hardened, Tier::Debug, Tier::Sampled, Tier::Asan];

impl Tier {
    fn hardening(self) -> Hardening {
        match self {
            Self::Release => Hardening::RELEASE,
            Self::Hardened => Hardening::HARDENED,
            Self::Debug => Hardening::DEBUG,
            Self::Sampled => Hardening::sampled(1),
            Self::Asan => Hardening::ASAN,
        }
    }

    /// Whether this program can show what the tier does.
    fn can_run(self) -> bool {
        self != Self::Asan || uma::debug::has_sanitizer()
    }
}

/// How a cell ends.
enum End<'a> {
    /// By SIGABRT, after these words were written.
    Abort(&'a [&'a str]),
    /// By a panic of the keg, with these words.
    Panic(&'a [&'a str]),
    /// By SIGSEGV at the access.
    Fault,
    /// By the sanitizer at the access.
    Sanitizer,
    /// At its own end, after these words were written.
    Report(&'a [&'a str]),
    /// At its own end, and nobody noticed.
    Nothing,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn zone(name: &str, tier: Tier) -> RawZone {
    RawZone::builder(name, layout(SIZE)).hardening(tier.hardening()).build().unwrap()
}

fn alloc(zone: &RawZone) -> Item {
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: taken just now.
    unsafe { item.as_ptr().write_bytes(0x41, SIZE) };
    item
}

fn free(zone: &RawZone, item: Item) {
    // SAFETY: the misuse under test, or none. What follows it runs in a process that is about to end.
    unsafe { zone.free(item) };
}

/// An item at an offset from another.
fn beside(item: Item, offset: isize) -> Item {
    Item::new(NonNull::new(item.as_ptr().wrapping_offset(offset)).unwrap())
}

/// What runs in the children.
mod cells {
    use std::mem::forget;

    use super::*;

    pub(super) fn double_free(tier: Tier) {
        let zone = zone("victim", tier);
        let (item, other) = (alloc(&zone), alloc(&zone));
        free(&zone, item);
        free(&zone, other);
        free(&zone, item);
        zone.reclaim(Reclaim::DrainCpu);
    }

    pub(super) fn wild_free(tier: Tier) {
        let zone = zone("victim", tier);
        let item = alloc(&zone);
        let heap = Box::leak(vec![0_u8; 1 << 16].into_boxed_slice());
        free(&zone, beside(Item::new(NonNull::from_mut(heap).cast()), 4096));
        free(&zone, item);
        zone.reclaim(Reclaim::DrainCpu);
    }

    pub(super) fn wrong_zone(tier: Tier) {
        let (zone, other) = (zone("victim", tier), zone("owner", tier));
        let (item, theirs) = (alloc(&zone), alloc(&other));
        free(&zone, theirs);
        free(&zone, item);
        zone.reclaim(Reclaim::DrainCpu);
    }

    /// The owner is a zone without checks.
    pub(super) fn wrong_plain_zone(tier: Tier) {
        let (zone, other) = (zone("victim", tier), zone("owner", Tier::Release));
        let (item, theirs) = (alloc(&zone), alloc(&other));
        free(&zone, theirs);
        free(&zone, item);
        zone.reclaim(Reclaim::DrainCpu);
    }

    pub(super) fn interior_free(tier: Tier) {
        let zone = zone("victim", tier);
        let item = alloc(&zone);
        free(&zone, beside(item, 8));
        zone.reclaim(Reclaim::DrainCpu);
    }

    /// A free of the middle of an item that is free itself.
    pub(super) fn interior_free_of_a_free_item(tier: Tier) {
        let zone = zone("victim", tier);
        let (item, _other) = (alloc(&zone), alloc(&zone));
        free(&zone, item);
        free(&zone, beside(item, 8));
        zone.reclaim(Reclaim::DrainCpu);
    }

    fn use_after_free(tier: Tier, offset: isize) {
        let zone = zone("victim", tier);
        let items: Vec<Item> = (0..3).map(|_| alloc(&zone)).collect();
        items.iter().for_each(|&item| free(&zone, item));
        // SAFETY: the misuse under test. The memory is there, or faults.
        unsafe { items[1].as_ptr().offset(offset).write_volatile(0x42) };
        zone.reclaim(Reclaim::Drain);
        for _ in 0..100 {
            alloc(&zone);
        }
        forget(zone);
    }

    pub(super) fn write_after_free(tier: Tier) {
        use_after_free(tier, 20);
    }

    /// The last byte, which FreeBSD's check passes over: the size is no multiple of four.
    pub(super) fn write_after_free_to_the_last_byte(tier: Tier) {
        use_after_free(tier, SIZE as isize - 1);
    }

    pub(super) fn read_after_free(tier: Tier) {
        let zone = zone("victim", tier);
        let item = alloc(&zone);
        free(&zone, item);
        // SAFETY: the misuse under test. The memory is there, or faults.
        let read = unsafe { item.as_ptr().read_volatile() };
        eprintln!("read {read:#04x}");
    }

    pub(super) fn overflow(tier: Tier) {
        let zone = zone("victim", tier);
        // Sampled, the first item ends where its page ends, but for the size's rounding up.
        let item = alloc(&zone);
        // SAFETY: the misuse under test. Without red zones, it is the next item's byte.
        unsafe { item.as_ptr().add(SIZE).write_volatile(0x42) };
        free(&zone, item);
    }

    pub(super) fn underflow(tier: Tier) {
        let zone = zone("victim", tier);
        let (_first, item) = (alloc(&zone), alloc(&zone));
        // SAFETY: as above.
        unsafe { item.as_ptr().sub(1).write_volatile(0x42) };
        free(&zone, item);
        forget(zone);
    }

    /// Zones that do not choose; what the environment says counts.
    pub(super) fn wished(_: Tier) {
        let zone = RawZone::builder("conn 1", layout(SIZE)).build().unwrap();
        let other = RawZone::builder("other", layout(SIZE)).build().unwrap();
        let chosen = RawZone::builder("conn 2", layout(SIZE));
        let chosen = chosen.hardening(Hardening::RELEASE).build().unwrap();
        for zone in [&other, &chosen, &zone] {
            let item = alloc(zone);
            free(zone, item);
            free(zone, item);
            eprintln!("past \"{}\"", zone.name());
        }
        std::process::exit(0);
    }

    /// An item with another slab of the zone behind its own, so that what runs out of the one runs into the other.
    fn before_a_slab(zone: &RawZone) -> Item {
        let mut items: Vec<Item> = (0..20_000).map(|_| alloc(zone)).collect();
        items.sort_unstable_by_key(|item| item.addr());
        // Between two slabs there is no more than a header.
        let mut rows = items.chunk_by(|a, b| b.addr() - a.addr() < 4096);
        let long = |row: &&[Item]| row[row.len() - 1].addr() - row[0].addr() > far(zone);
        rows.find(long).expect("no two slabs in a row")[0]
    }

    /// Far enough to write to the next slab, wherever in its own an item begins.
    fn far(zone: &RawZone) -> usize {
        zone.stats().slab_bytes + SIZE
    }

    pub(super) fn long_overflow(tier: Tier) {
        let zone = zone("victim", tier);
        let item = match tier {
            Tier::Release | Tier::Debug => before_a_slab(&zone),
            Tier::Hardened | Tier::Sampled | Tier::Asan => alloc(&zone),
        };
        for offset in 0..far(&zone) {
            // SAFETY: the misuse under test. A guard page comes, or all of it is memory of the zone, of which
            // nothing is used after this but what a free looks at.
            unsafe { item.as_ptr().add(offset).write_volatile(0x42) };
        }
        free(&zone, item);
        forget(zone);
    }

    pub(super) fn leak(tier: Tier) {
        let zone = zone("victim", tier);
        let items = [alloc(&zone), alloc(&zone)];
        eprintln!("leaking {:#x} and {:#x}", items[0].addr(), items[1].addr());
        drop(zone);
    }
}

type Cell = fn(Tier);

const CELLS: &[(&str, Cell)] = &[
    ("double_free", cells::double_free),
    ("wild_free", cells::wild_free),
    ("wrong_zone", cells::wrong_zone),
    ("wrong_plain_zone", cells::wrong_plain_zone),
    ("interior_free", cells::interior_free),
    ("interior_free_of_a_free_item", cells::interior_free_of_a_free_item),
    ("write_after_free", cells::write_after_free),
    ("write_after_free_to_the_last_byte", cells::write_after_free_to_the_last_byte),
    ("read_after_free", cells::read_after_free),
    ("overflow", cells::overflow),
    ("underflow", cells::underflow),
    ("long_overflow", cells::long_overflow),
    ("leak", cells::leak),
    ("wished", cells::wished),
];

/// Not a test: what the children run.
#[test]
fn child() {
    let Ok(wish) = std::env::var(CELL) else { return };
    let (name, tier) = wish.split_once('/').unwrap();
    let tier = TIERS.into_iter().find(|known| format!("{known:?}") == tier).unwrap();
    let (_, cell) = CELLS.iter().find(|(known, _)| *known == name).unwrap();
    cell(tier);
    eprintln!("{NOTHING}");
}

/// Runs a cell, and returns how it ended and what it wrote.
fn run(name: &str, tier: Tier) -> (ExitStatus, String) {
    run_with(name, tier, "")
}

/// The same with a value of `UMA_DEBUG`.
fn run_with(name: &str, tier: Tier, wish: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CELL, format!("{name}/{tier:?}"))
        .env("UMA_DEBUG", wish)
        .output()
        .unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `docs/hardening.md` says of a test, in the order of `TIERS`.
fn documented(test: &str) -> [String; 5] {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hardening.md");
    let page = std::fs::read_to_string(path).unwrap();
    let row = page.lines().find(|line| line.ends_with(&format!("| `{test}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/hardening.md has no row of {test}"));
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    // It has the tiers in another order.
    [2, 4, 5, 3, 6].map(|column| cells[column].to_owned())
}

/// Whether a cell of the table says what the test is about to see.
fn says(cell: &str, end: &End<'_>) -> bool {
    let letter = cell.split([' ', ',']).next().unwrap_or_default();
    match end {
        End::Abort(_) => {
            let by_others = cell.contains("faults") || cell.contains("sanitizer");
            matches!(letter, "D" | "F" | "L" | "S") && !by_others
        }
        End::Panic(_) => cell.starts_with("L (at the slab)"),
        End::Fault => matches!(letter, "D" | "S") && cell.contains("faults"),
        End::Sanitizer => cell == "D, by the sanitizer",
        // Of a read, which nobody reports, and of leaks.
        End::Report(_) => letter == "-" || !matches!(letter, "D" | "F" | "L" | "S"),
        End::Nothing => letter == "-",
    }
}

/// Runs one row of the matrix, which is a row of `docs/hardening.md`, or one of several that are the same there.
#[track_caller]
fn row(name: &str, ends: [End<'_>; 5]) {
    let test = match name {
        "wrong_plain_zone" => "wrong_zone",
        "interior_free_of_a_free_item" => "interior_free",
        "write_after_free_to_the_last_byte" => "write_after_free",
        name => name,
    };
    for ((tier, end), cell) in TIERS.into_iter().zip(&ends).zip(documented(test)) {
        assert!(says(&cell, end), "docs/hardening.md says of {name} in {tier:?}: {cell}");
    }
    for (tier, end) in TIERS.into_iter().zip(ends).filter(|(tier, _)| tier.can_run()) {
        let (status, text) = run(name, tier);
        let told = |words: &[&str]| {
            for word in words {
                assert!(text.contains(word), "{name} in {tier:?} does not say \"{word}\":\n{text}");
            }
        };
        let over = text.contains(NOTHING);
        match end {
            End::Abort(words) => {
                told(words);
                assert_eq!(status.signal(), Some(libc::SIGABRT), "{name} in {tier:?}:\n{text}");
                assert!(!over, "{name} in {tier:?} was found too late:\n{text}");
            }
            End::Panic(words) => {
                told(words);
                assert_eq!(status.code(), Some(101), "{name} in {tier:?}: {status}\n{text}");
            }
            End::Fault => {
                assert_eq!(
                    status.signal(),
                    Some(libc::SIGSEGV),
                    "{name} in {tier:?}: {status}\n{text}"
                );
            }
            End::Sanitizer => {
                told(&["AddressSanitizer: use-after-poison"]);
                assert!(!over && !status.success(), "{name} in {tier:?}: {status}\n{text}");
            }
            End::Report(words) => {
                told(words);
                assert!(over && status.success(), "{name} in {tier:?}: {status}\n{text}");
            }
            End::Nothing => {
                assert!(over && status.success(), "{name} in {tier:?}: {status}\n{text}");
                assert!(!text.contains("uma"), "{name} in {tier:?}:\n{text}");
            }
        }
    }
}

const ZONE: &str = "uma: zone \"victim\" of 61-byte items: ";

#[test]
fn double_free() {
    let found = End::Abort(&[ZONE, "double free of the item at 0x", "in the slab at 0x"]);
    row(
        "double_free",
        [
            End::Panic(&["uma-keg: double free of the item at 0x", "(61-byte items)"]),
            found,
            End::Abort(&[
                ZONE,
                "double free of the item at 0x",
                "found by thread",
                "allocated by",
                "freed by",
            ]),
            End::Abort(&[ZONE, "double free of the item at 0x"]),
            End::Abort(&[ZONE, "double free of the item at 0x", "allocated by", "freed by"]),
        ],
    );
}

#[test]
fn wild_free() {
    let found = || End::Abort(&[ZONE, "free of 0x", "which is no item of any zone"]);
    let late = || End::Panic(&["uma-keg: free of 0x", "which is no item of this keg"]);
    row("wild_free", [late(), found(), found(), late(), found()]);
}

#[test]
fn wrong_zone() {
    let found = || End::Abort(&[ZONE, "free of 0x", "which is an item of zone \"owner\""]);
    let late = || End::Panic(&["uma-keg: free of 0x", "which is no item of this keg"]);
    row("wrong_zone", [late(), found(), found(), late(), found()]);
    row("wrong_plain_zone", [late(), found(), found(), late(), found()]);
}

#[test]
fn interior_free() {
    let found = || End::Abort(&[ZONE, "free of 0x", "8 bytes into the item at 0x"]);
    let late = || End::Panic(&["uma-keg: free of 0x", "which is not the start of an item"]);
    row("interior_free", [late(), found(), found(), found(), found()]);
    row("interior_free_of_a_free_item", [late(), found(), found(), found(), found()]);
}

#[test]
fn write_after_free() {
    let at_20 = "memory modified after free: 0x42 at offset 20 of the item at 0x";
    let found = End::Abort(&[ZONE, at_20]);
    let with_owners = End::Abort(&[ZONE, at_20, "allocated by thread", "freed by thread"]);
    row("write_after_free", [End::Nothing, found, with_owners, End::Fault, End::Sanitizer]);
    let last: &[&str] = &[ZONE, "memory modified after free: 0x42 at offset 60 of the item at 0x"];
    row(
        "write_after_free_to_the_last_byte",
        [End::Nothing, End::Abort(last), End::Abort(last), End::Fault, End::Sanitizer],
    );
}

#[test]
fn read_after_free() {
    row(
        "read_after_free",
        [
            End::Report(&["read 0x41"]),
            End::Report(&["read 0x00"]),
            End::Report(&["read 0xde"]),
            End::Fault,
            End::Sanitizer,
        ],
    );
}

#[test]
fn overflow() {
    let found: &[&str] =
        &[ZONE, "overflow of the item at 0x", "0x42 written 0 bytes behind its end"];
    row("overflow", [End::Nothing, End::Nothing, End::Abort(found), End::Fault, End::Sanitizer]);
}

/// Where no guard page stops it, it is as an overflow by a byte: what it did to the slabs behind is found only as
/// far as their items are looked at, and without checks not at all.
#[test]
fn long_overflow() {
    let found: &[&str] =
        &[ZONE, "overflow of the item at 0x", "0x42 written 0 bytes behind its end"];
    row("long_overflow", [End::Nothing, End::Fault, End::Abort(found), End::Fault, End::Sanitizer]);
}

#[test]
fn underflow() {
    let found: &[&str] = &[ZONE, "underflow of the item at 0x", "0x42 written 1 bytes before it"];
    row("underflow", [End::Nothing, End::Nothing, End::Abort(found), End::Fault, End::Sanitizer]);
}

#[test]
fn leak() {
    let counted = "uma: zone \"victim\" was destroyed with 2 items in use, whose memory stays: 0x";
    let listed =
        "uma: zone \"victim\" was destroyed with 2 items in use, whose memory stays:\n  item at 0x";
    row(
        "leak",
        [
            End::Report(&[counted, ", 0x"]),
            End::Report(&[listed]),
            End::Report(&[listed, "allocated by thread"]),
            // What is held back in the slabs, and the items themselves.
            End::Report(&[counted, ", 0x", "\n  item at 0x", "allocated by thread"]),
            End::Report(&[listed, "allocated by thread"]),
        ],
    );
    // And the addresses are the right ones.
    for tier in TIERS.into_iter().filter(|tier| tier.can_run()) {
        let (_, text) = run("leak", tier);
        let (first, second) = text
            .split_once("leaking ")
            .and_then(|(_, rest)| rest.lines().next()?.split_once(" and "))
            .unwrap();
        let report = text.split_once("whose memory stays").unwrap().1;
        assert!(report.contains(first) && report.contains(second), "{tier:?}: {text}");
    }
}

#[test]
fn the_environment_chooses_for_zones_that_do_not() {
    if uma::debug::has_sanitizer() {
        eprintln!("NOT RUN: under the sanitizer zones that do not choose are checked anyway");
        return;
    }
    let conn = "uma: zone \"conn 1\" of 61-byte items: double free";
    let other = "uma: zone \"other\" of 61-byte items: double free";
    for (wish, found, past) in [
        ("", None, "past \"conn 1\""),
        ("release", None, "past \"conn 1\""),
        ("debug", Some(other), ""),
        ("hardened", Some(other), ""),
        ("sampled/1", Some(other), ""),
        (" debug:conn , sampled/1000", Some(conn), "past \"conn 2\""),
        ("release:conn,debug:c,hardened:o", Some(other), ""),
        ("release:conn,debug:c", None, "past \"conn 1\""),
        ("debugg,debug:conn", Some(conn), "\"debugg\" is none of release, hardened, debug"),
    ] {
        let (status, text) = run_with("wished", Tier::Release, wish);
        assert!(text.contains(past), "{wish}: {text}");
        match found {
            Some(found) => {
                assert!(text.contains(found), "{wish}: {text}");
                assert_eq!(status.signal(), Some(libc::SIGABRT), "{wish}: {text}");
            }
            None => assert!(status.success() && !text.contains("double free"), "{wish}: {text}"),
        }
    }
}

/// With the feature, reports say in which functions an item was allocated, freed, and misused, and in which lines
/// if the program says where these are.
#[cfg(feature = "backtrace")]
#[test]
fn reports_name_functions() {
    let (_, text) = run("double_free", Tier::Debug);
    for start in ["found by thread", "allocated by thread", "freed by thread"] {
        let part = text.split(start).nth(1).unwrap_or_else(|| panic!("no \"{start}\":\n{text}"));
        let part = part.split(" by thread").next().unwrap_or_default();
        assert!(part.contains("double_free"), "{start} no function:\n{text}");
        if cfg!(debug_assertions) {
            assert!(part.contains("misuse.rs:"), "{start} no line:\n{text}");
        }
    }
    let (_, text) = run("leak", Tier::Debug);
    let list = text.split("whose memory stays").nth(1).unwrap_or_default();
    // Of a function that was inlined there is the last part of the name.
    let named = |line: &&str| line.split_whitespace().next().is_some_and(|at| at.ends_with("leak"));
    assert_eq!(list.lines().filter(named).count(), 2, "{text}");
}
