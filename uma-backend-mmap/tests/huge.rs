//! Huge pages: wanted or not, from the beginning or later; and that what they bring unasked goes back.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use uma_backend_mmap::sys::{Errno, Kernel, System, page_size};
use uma_backend_mmap::{Config, HugePages, MmapPages};
use uma_core::{PageRun, PageSupplier, RawMutex, Request};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PAGE: usize = 4 * KIB;
const HUGE: usize = 2 * MIB;
/// Pages of a block.
const BLOCK: usize = 512;

fn take<L: RawMutex, S: System>(pages: &MmapPages<L, S>, size: usize, align: usize) -> PageRun {
    let layout = Layout::from_size_align(size, align).unwrap();
    let run = pages.alloc_pages(layout, Request::NOWAIT).unwrap();
    assert!(!run.is_zeroed() || bytes(&run).iter().all(|&byte| byte == 0));
    // SAFETY: the run is ours.
    unsafe { run.base().write_bytes(1, size) };
    run
}

fn bytes(run: &PageRun) -> &[u8] {
    // SAFETY: the run is ours, and its memory is initialised by the system.
    unsafe { std::slice::from_raw_parts(run.base().as_ptr(), run.layout().size()) }
}

fn give<L: RawMutex, S: System>(pages: &MmapPages<L, S>, run: PageRun) {
    // SAFETY: a whole run of this supplier, given back once.
    unsafe { pages.free_pages(run) }
}

/// The huge page that an address lies in.
fn block_of(run: &PageRun) -> usize {
    run.base().as_ptr().expose_provenance() / HUGE * HUGE
}

/// Which pages of a huge page are resident.
fn resident(block: usize) -> Vec<usize> {
    let mut there = [0_u8; HUGE / PAGE];
    let start = std::ptr::with_exposed_provenance_mut(block);
    // SAFETY: there is a byte for each page.
    assert_eq!(unsafe { libc::mincore(start, HUGE, there.as_mut_ptr()) }, 0);
    (0..there.len()).filter(|&at| there[at] & 1 == 1).collect()
}

/// Whether this system gives a huge page to who wants one. It need not, even if it can.
fn are_there(pages: &MmapPages) -> bool {
    if pages.page_size() != PAGE {
        println!("NOT TESTED: huge pages are not 2 MiB here");
        return false;
    }
    for _ in 0..8 {
        let run = take(pages, HUGE, HUGE);
        let block = block_of(&run);
        give(pages, run);
        pages.trim();
        assert_eq!(resident(block), []);
        let run = take(pages, PAGE, HUGE);
        let whole = resident(block_of(&run)).len() == HUGE / PAGE;
        give(pages, run);
        pages.trim();
        if whole {
            return true;
        }
    }
    println!("NOT TESTED: this system gives no huge pages: {:?}", pages.stats());
    false
}

/// How many huge pages the system has taken apart so far, for whomever.
fn torn() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("thp_split_page ")?.parse().ok())
}

#[test]
fn what_a_huge_page_brings_beside_a_run_goes_back() {
    let pages = MmapPages::with_config(Config::DEFAULT.huge_pages(HugePages::Wanted));
    if !are_there(&pages) {
        return;
    }
    // One run in the middle, which stays, and one at the end, which does not.
    let first = take(&pages, 100 * PAGE, PAGE);
    let live = take(&pages, 10 * PAGE, PAGE);
    let last = take(&pages, 7 * PAGE, PAGE);
    let block = block_of(&first);
    assert_eq!(block_of(&last), block);
    if resident(block).len() != HUGE / PAGE {
        return println!("NOT TESTED: no huge page this time");
    }
    give(&pages, first);
    give(&pages, last);
    let (before, refused) = (torn(), pages.stats().hints_refused);
    pages.trim();
    match before.zip(torn()) {
        _ if pages.stats().hints_refused > refused => {
            println!("NOT TESTED: this system takes nothing apart");
        }
        Some((before, now)) => {
            assert!(now > before, "it was not taken apart, so its memory is lost");
        }
        None => println!("NOT TESTED: the system does not count what it takes apart"),
    }
    assert_eq!(resident(block), (100..110).collect::<Vec<_>>(), "what nobody uses was left");
    assert!(bytes(&live).iter().all(|&byte| byte == 1));
    // It was said once, and is not said again until somebody is there again.
    let advises = pages.stats().advises;
    pages.trim();
    assert_eq!(pages.stats().advises, advises);
    let again = take(&pages, PAGE, PAGE);
    assert!(again.is_zeroed());
    pages.trim();
    assert_eq!(resident(block), std::iter::once(0).chain(100..110).collect::<Vec<_>>());
    give(&pages, again);
    give(&pages, live);
    pages.trim();
    assert_eq!(resident(block), []);
}

#[test]
fn a_huge_page_that_is_wholly_free_goes_whole() {
    let config = Config::DEFAULT.huge_pages(HugePages::Wanted).dirty_max(16 * KIB);
    let pages = MmapPages::with_config(config);
    if !are_there(&pages) {
        return;
    }
    let live = take(&pages, HUGE, HUGE);
    let few = take(&pages, 5 * PAGE, PAGE);
    let block = block_of(&few);
    if resident(block).len() != HUGE / PAGE {
        return println!("NOT TESTED: no huge page this time");
    }
    // More than may stay, so this decommits by itself.
    give(&pages, few);
    assert_eq!(resident(block), []);
    give(&pages, live);
}

/// The flags in smaps of the mapping that an address lies in.
fn flags(at: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut here = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let number = |word| usize::from_str_radix(word, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (number(from), number(to))) {
            here = (from..to).contains(&at);
        } else if here && line.starts_with("VmFlags") {
            return line.to_owned();
        }
    }
    panic!("no mapping at {at:#x}");
}

#[test]
fn a_wish_changes_chunks_that_are_there() {
    let pages = MmapPages::with_config(Config::DEFAULT.chunks(4 * MIB, 4 * MIB));
    let runs = [take(&pages, 3 * MIB, PAGE), take(&pages, 3 * MIB, PAGE)];
    assert_eq!(pages.stats().chunks, 2);
    let all = |flag: &str| {
        let told = runs.iter().map(|run| flags(block_of(run) + HUGE));
        told.filter(|flags| flags.contains(flag)).count()
    };
    let before = pages.stats();
    assert_eq!((all(" hg"), all(" nh")), (0, 0));
    pages.set_huge_pages(HugePages::Wanted);
    let known = pages.stats().hints_refused == before.hints_refused;
    if !known {
        println!("NOT TESTED: this system knows no huge pages: {:?}", pages.stats());
    }
    assert!(!known || (all(" hg"), all(" nh")) == (2, 0));
    pages.set_huge_pages(HugePages::Unwanted);
    assert!(!known || (all(" hg"), all(" nh")) == (0, 2));
    pages.set_huge_pages(HugePages::System);
    assert!(!known || (all(" hg"), all(" nh")) == (0, 2), "it cannot be taken back");
    assert_eq!(pages.huge_pages(), HugePages::System);
    assert_eq!(pages.stats().hints, before.hints + 4, "once for each chunk and each wish");
    runs.into_iter().for_each(|run| give(&pages, run));
}

/// A system in which somebody else trims, or changes his mind, whenever a wish is told.
#[derive(Default)]
struct Meddler {
    pages: Mutex<Option<&'static Meddled>>,
    unmapped: Mutex<Vec<usize>>,
    wishes: Mutex<Vec<(usize, HugePages)>>,
    next: Mutex<Option<HugePages>>,
    torn: Mutex<Vec<usize>>,
    /// Whether everybody gets huge pages.
    unasked: AtomicBool,
    discarded: Mutex<Vec<(usize, usize)>>,
    /// How often it was asked what is resident, and whether it says that nothing is. Else all is.
    looks: AtomicUsize,
    nothing: AtomicBool,
    /// Who forks as soon as something is discarded.
    forks: Mutex<Option<&'static Meddled>>,
    forked: Mutex<Option<JoinHandle<()>>>,
}

impl Meddler {
    /// How much was discarded since the last call: calls, and pages.
    fn discarded(&self) -> (usize, usize) {
        let all = std::mem::take(&mut *self.discarded.lock().unwrap());
        (all.len(), all.iter().map(|&(_, len)| len / page_size()).sum())
    }
}

type Meddled = MmapPages<parking_lot::RawMutex, &'static Meddler>;

// SAFETY: forwards to the system, or does nothing and says so.
unsafe impl System for &'static Meddler {
    fn map(&self, len: usize) -> Result<NonNull<u8>, Errno> {
        Kernel.map(len)
    }

    fn reserve(&self, _: usize) -> Result<NonNull<u8>, Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn lock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unlock(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.unmapped.lock().unwrap().push(at.addr().get() + len);
        // SAFETY: passed on to the caller.
        unsafe { Kernel.unmap(at, len) }
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> Result<(), Errno> {
        self.discarded.lock().unwrap().push((at.addr().get(), len));
        let forks = self.forks.lock().unwrap().take();
        if let Some(pages) = forks {
            *self.forked.lock().unwrap() = Some(std::thread::spawn(|| {
                pages.prefork();
                // SAFETY: just now, on this thread.
                unsafe { pages.postfork() };
            }));
            // It waits for us, soon.
            std::thread::sleep(Duration::from_millis(100));
        }
        // SAFETY: as above.
        unsafe { Kernel.discard(at, len) }
    }

    unsafe fn wall(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Ok(())
    }

    unsafe fn protect(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn unwall(&self, _: NonNull<u8>, _: usize) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn huge(&self, at: NonNull<u8>, len: usize, huge: HugePages) -> Result<(), Errno> {
        let before = self.unmapped.lock().unwrap().len();
        let pages = *self.pages.lock().unwrap();
        if let Some(pages) = pages {
            let next = self.next.lock().unwrap().take();
            if let Some(next) = next {
                pages.set_huge_pages(next);
            }
            pages.trim();
        }
        let unmapped = self.unmapped.lock().unwrap();
        let ends = at.addr().get()..=at.addr().get() + len + HUGE;
        assert!(!unmapped[before..].iter().any(|end| ends.contains(end)), "unmapped under us");
        self.wishes.lock().unwrap().push((at.addr().get(), huge));
        Ok(())
    }

    fn huge_unasked(&self) -> bool {
        self.unasked.load(Ordering::Relaxed)
    }

    unsafe fn resident(&self, _: NonNull<u8>, _: usize, there: &mut [u8]) -> Result<(), Errno> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        there.fill(u8::from(!self.nothing.load(Ordering::Relaxed)));
        Ok(())
    }

    unsafe fn tear(&self, at: NonNull<u8>, _: usize) -> Result<(), Errno> {
        self.torn.lock().unwrap().push(at.addr().get());
        Err(libc::ENOSYS)
    }

    unsafe fn dump(&self, _: NonNull<u8>, _: usize, _: bool) -> Result<(), Errno> {
        Err(libc::ENOSYS)
    }

    unsafe fn name(&self, _: NonNull<u8>, _: usize, _: &CStr) -> Result<(), Errno> {
        Ok(())
    }
}

/// The chunks are wholly free, so `trim` would unmap all but one of them.
#[test]
fn a_chunk_stays_while_the_system_is_told_of_it() {
    let system: &'static Meddler = Box::leak(Box::default());
    let config = Config::DEFAULT.chunks(4 * MIB, 4 * MIB);
    let pages: &'static Meddled = Box::leak(Box::new(Meddled::with_system(config, system)));
    let runs: Vec<_> = (0..3).map(|_| take(pages, 3 * MIB, PAGE)).collect();
    runs.into_iter().for_each(|run| give(pages, run));
    assert_eq!((pages.stats().chunks, system.wishes.lock().unwrap().len()), (3, 0));
    *system.pages.lock().unwrap() = Some(pages);
    *system.next.lock().unwrap() = Some(HugePages::Unwanted);
    pages.set_huge_pages(HugePages::Wanted);
    // While it was told of the first, somebody changed his mind, and told it of the others.
    let wishes = system.wishes.lock().unwrap().clone();
    let first = wishes.iter().find(|&&(_, huge)| huge == HugePages::Wanted).unwrap().0;
    let (heard, others): (Vec<_>, Vec<_>) = wishes.iter().partition(|&&(at, _)| at == first);
    assert_eq!(heard, [(first, HugePages::Wanted), (first, HugePages::Unwanted)]);
    assert!(others.iter().all(|&(_, huge)| huge == HugePages::Unwanted), "{wishes:?}");
    *system.pages.lock().unwrap() = None;
    pages.trim();
    assert_eq!(pages.stats().chunks, 1);
    // Of a new chunk it is told once.
    let held = take(pages, PAGE, PAGE);
    let run = take(pages, 4 * MIB, PAGE);
    let now = system.wishes.lock().unwrap().clone();
    assert_eq!(now.len(), wishes.len() + 1);
    assert_eq!(now.last().unwrap().1, HugePages::Unwanted);
    give(pages, held);
    give(pages, run);
}

/// Once for each huge page of which a part goes, and never for one that goes whole.
#[test]
fn only_what_goes_in_part_is_taken_apart() {
    let system: &'static Meddler = Box::leak(Box::default());
    let config = Config::DEFAULT.huge_pages(HugePages::Wanted);
    let pages = Meddled::with_system(config, system);
    if pages.page_size() != PAGE {
        println!("NOT TESTED: huge pages are not 2 MiB here");
        return;
    }
    let run = take(&pages, 4 * HUGE, HUGE);
    let torn = |from: usize, to: usize| {
        // SAFETY: a part of our run, which nobody uses.
        unsafe { pages.decommit(run.base().add(from), to - from) };
        let start = run.base().addr().get();
        let torn = std::mem::take(&mut *system.torn.lock().unwrap());
        torn.into_iter().map(|at| at - start).collect::<Vec<_>>()
    };
    assert_eq!(torn(0, HUGE), []);
    assert_eq!(torn(HUGE, 3 * HUGE), []);
    assert_eq!(torn(0, PAGE), [0]);
    assert_eq!(torn(HUGE - 2 * PAGE, HUGE), [HUGE - 2 * PAGE]);
    assert_eq!(torn(0, HUGE + MIB), [HUGE + MIB - PAGE]);
    assert_eq!(torn(MIB, 3 * HUGE), [MIB]);
    assert_eq!(torn(MIB, 2 * HUGE + MIB), [MIB, 2 * HUGE + MIB - PAGE]);
    // They are there still.
    pages.set_huge_pages(HugePages::Unwanted);
    assert_eq!(torn(MIB, 2 * HUGE + MIB), [MIB, 2 * HUGE + MIB - PAGE]);
    give(&pages, run);
}

/// Nobody pays for it who never asked.
#[test]
fn nothing_is_taken_apart_where_nobody_asked() {
    for wish in [HugePages::System, HugePages::Unwanted] {
        let system: &'static Meddler = Box::leak(Box::default());
        let pages = Meddled::with_system(Config::DEFAULT.huge_pages(wish), system);
        let run = take(&pages, 4 * HUGE, HUGE);
        // SAFETY: a part of our run, which nobody uses.
        unsafe { pages.decommit(run.base(), page_size()) };
        give(&pages, run);
        pages.trim();
        assert_eq!(*system.torn.lock().unwrap(), []);
    }
}

/// A block of which every second page is in use, and what else is free was given back: the supplier, its system,
/// and who has the pages. All of that is leaked.
fn a_sieve(wish: HugePages, unasked: bool) -> (&'static Meddled, &'static Meddler) {
    let system: &'static Meddler = Box::leak(Box::default());
    system.unasked.store(unasked, Ordering::Relaxed);
    let config = Config::DEFAULT.huge_pages(wish);
    let pages: &'static Meddled = Box::leak(Box::new(Meddled::with_system(config, system)));
    let runs: Vec<_> = (0..BLOCK).map(|_| take(pages, page_size(), page_size())).collect();
    // The next block is in use, so that the first is the only one that something can be carved from.
    let next = take(pages, BLOCK * page_size(), page_size());
    for (at, run) in runs.into_iter().enumerate() {
        if at % 2 == 0 {
            give(pages, run);
        }
    }
    pages.trim();
    assert_eq!(system.discarded().1, BLOCK / 2);
    pages.trim();
    assert_eq!(system.discarded(), (0, 0));
    let _ = next;
    (pages, system)
}

/// It takes a batch for some of them; none is dirty.
#[test]
fn all_that_a_page_brought_goes_however_many_pieces_it_is_in() {
    for (wish, unasked) in [(HugePages::Wanted, false), (HugePages::System, true)] {
        let (pages, system) = a_sieve(wish, unasked);
        let _ = take(pages, page_size(), page_size());
        pages.trim();
        assert_eq!(system.discarded(), (BLOCK / 2 - 1, BLOCK / 2 - 1), "{wish:?}");
        pages.trim();
        assert_eq!(system.discarded(), (0, 0));
    }
}

/// It is asked once for each block what is there, and what is not does not go again.
#[test]
fn what_is_gone_already_does_not_go_again() {
    let (pages, system) = a_sieve(HugePages::Wanted, false);
    system.nothing.store(true, Ordering::Relaxed);
    system.looks.store(0, Ordering::Relaxed);
    let run = take(pages, page_size(), page_size());
    pages.trim();
    assert_eq!((system.discarded(), system.looks.load(Ordering::Relaxed)), ((0, 0), 1));
    // What is dirty is there, whatever it says.
    give(pages, run);
    pages.trim();
    assert_eq!((system.discarded(), system.looks.load(Ordering::Relaxed)), ((1, 1), 2));
}

/// A heap that is full of holes would take a call for each of them, whenever one is used.
#[test]
fn without_huge_pages_only_what_was_used_goes() {
    for (wish, unasked) in [(HugePages::System, false), (HugePages::Unwanted, true)] {
        let (pages, system) = a_sieve(wish, unasked);
        let run = take(pages, page_size(), page_size());
        pages.trim();
        assert_eq!(system.discarded(), (0, 0), "{wish:?}");
        give(pages, run);
        pages.trim();
        assert_eq!(system.discarded(), (1, 1), "{wish:?}");
    }
}

/// What the sweep did not come to is not forgotten.
#[test]
fn a_fork_interrupts_a_trim_and_the_next_one_goes_on() {
    let (pages, system) = a_sieve(HugePages::Wanted, false);
    let _ = take(pages, page_size(), page_size());
    *system.forks.lock().unwrap() = Some(pages);
    pages.trim();
    system.forked.lock().unwrap().take().unwrap().join().unwrap();
    let (calls, _) = system.discarded();
    if calls == BLOCK / 2 - 1 {
        return println!("NOT TESTED: the fork came too late");
    }
    // That block is gone through again, from its end.
    pages.trim();
    assert_eq!(system.discarded().0, BLOCK / 2 - 1, "{calls} before the fork");
}

/// A run that is first written to after a trim may bring a huge page then, of which the trim knew nothing.
#[test]
fn who_frees_a_run_may_have_written_to_it_late() {
    let system: &'static Meddler = Box::leak(Box::default());
    let config = Config::DEFAULT.huge_pages(HugePages::Wanted);
    let pages = Meddled::with_system(config, system);
    let late = take(&pages, 10 * page_size(), page_size());
    let live = take(&pages, 10 * page_size(), page_size());
    pages.trim();
    assert_eq!(system.discarded(), (1, BLOCK - 20));
    give(&pages, late);
    pages.trim();
    assert_eq!(system.discarded(), (2, BLOCK - 10));
    give(&pages, live);
}

/// The system may take the one and refuse the other, if some of a range is locked in memory: then all of it is as it was.
#[test]
fn taking_a_huge_page_apart_changes_nothing_in_it() {
    let pages = MmapPages::with_config(Config::DEFAULT.huge_pages(HugePages::Wanted));
    let run = take(&pages, 2 * HUGE, HUGE);
    let (at, page) = (run.base(), pages.page_size());
    // SAFETY: a page of ours.
    if let Err(error) = unsafe { Kernel.tear(at, page) } {
        println!("NOT TESTED: this system takes nothing apart: error {error}");
    }
    // What may be dropped is dropped now.
    // SAFETY: it changes no contents.
    if unsafe { libc::madvise(at.as_ptr().cast(), page, libc::MADV_PAGEOUT) } != 0 {
        println!("NOT TESTED: this system drops nothing when asked to");
    }
    assert!(bytes(&run).iter().all(|&byte| byte == 1));
    give(&pages, run);
}
