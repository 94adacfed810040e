//! Controls: a program finds what is wrong with a source that is wrong on purpose.

#[allow(dead_code, reason = "the controls need two of them")]
mod programs;

use std::alloc::Layout;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use programs::compat::netbsd::Netbsd;
use programs::compat::{Cache, Counts, Face, Made, alone, drive};
use programs::mt::{Flaw, mt_with};
use uma_core::{AllocError, Item, ItemSource, PageError, Request, Stats};
use uma_malloc::SizeClasses;
use uma_testkit::ops::Op;
use uma_testkit::ops::compat::{
    CacheConfig, CompatConfig, CompatOp, CompatProgram, Face as Which, How,
};
use uma_testkit::ops::mt::{MtConfig, MtOp, MtProgram, Patience};
use uma_testkit::{Pool, Rig, caught, machine, run};

#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    SameItemTwice,
    SaysMore,
    ScribblesOnLive,
    FailsForNothing,
    LosesCount,
    StaysWanted,
    KeepsLock,
}

/// A pool with one fault.
struct Bad {
    pool: Pool,
    wrong: Wrong,
    last: Cell<Option<Item>>,
    allocs: Cell<u64>,
    frees: Cell<u64>,
}

// SAFETY: it keeps none of the promises, which harms nobody: the test stops at the first that is broken.
unsafe impl ItemSource for Bad {
    fn layout(&self) -> Layout {
        self.pool.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        if self.wrong == Wrong::FailsForNothing {
            return Err(PageError::Exhausted.into());
        }
        if let (Wrong::SameItemTwice, Some(last)) = (self.wrong, self.last.get()) {
            into[0].write(last);
            return Ok(1);
        }
        let count = self.pool.import(into, request)?;
        // SAFETY: so many were initialised.
        self.last.set(Some(unsafe { into[0].assume_init() }));
        self.allocs.set(self.allocs.get() + count as u64);
        if self.wrong == Wrong::KeepsLock {
            use uma_core::RawMutex;
            let lock = Box::leak(Box::new(machine::OneThread::INIT));
            lock.lock();
        }
        Ok(if self.wrong == Wrong::SaysMore { count + 1 } else { count })
    }

    unsafe fn release(&self, items: &[Item]) {
        self.frees.set(self.frees.get() + items.len() as u64);
        // SAFETY: passed on from the caller.
        unsafe { self.pool.release(items) };
    }

    fn wanted(&self) -> bool {
        self.wrong == Wrong::StaysWanted
    }

    fn visit_stats(&self, stats: &mut Stats) {
        let wrong = u64::from(self.wrong == Wrong::LosesCount);
        (stats.allocs, stats.frees) = (self.allocs.get(), self.frees.get() + wrong);
        if let (Wrong::ScribblesOnLive, Some(last)) = (self.wrong, self.last.get()) {
            // SAFETY: the item is out: it is memory, though not ours to write to.
            unsafe { last.as_ptr().write(!last.as_ptr().read()) };
        }
    }
}

/// What a program of a few lines says of it.
fn verdict(wrong: Wrong) -> Result<(), String> {
    machine::reset();
    let layout = Layout::from_size_align(24, 8).expect("a layout");
    let pool = Pool::new(layout, 100, 2);
    let (last, allocs, frees) = Default::default();
    let bad = Bad { pool, wrong, last, allocs, frees };
    let rig = Rig {
        source: &bad,
        is_zone: false,
        keeps_contents: false,
        checks: false,
        closely: false,
        pages: None,
        metadata: None,
        hooks: None,
        limit: 0,
        set_limit: None,
        set_reserve: None,
        prealloc: None,
        want: None,
        check: &|_, stats, _| {
            assert!(stats.allocs != 0, "it fails, though it has items");
        },
    };
    let ops = [
        Op::AllocBatch { cpu: 0, n: 2 },
        Op::Alloc { cpu: 0, times: 1 },
        Op::Stats,
        Op::Verify,
        Op::Free { cpu: 0, i: 0, times: 0 },
    ];
    let result = caught(|| run(&ops, &rig, false)).map_err(|panic| panic.message);
    if result.is_err() {
        // What it lost is lost on purpose.
        bad.pool.allow_leaks();
    }
    result
}

#[test]
fn faults_are_found() {
    assert_eq!(verdict(Wrong::Nothing), Ok(()));
    for (wrong, message) in [
        (Wrong::SameItemTwice, "overlaps"),
        (Wrong::SaysMore, "returned 3"),
        (Wrong::ScribblesOnLive, "changed while it was out"),
        (Wrong::FailsForNothing, "it fails, though it has items"),
        (Wrong::LosesCount, "items in use"),
        (Wrong::StaysWanted, "nobody waits"),
        (Wrong::KeepsLock, "locks that are held"),
    ] {
        let said = verdict(wrong).expect_err("the program found nothing wrong");
        assert!(said.contains(message) && said.starts_with("operation "), "{said}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Odd {
    Nothing,
    SameObjectTwice,
    ForgetsTheLimit,
    Miscounts,
    NoZeros,
    NotConstructed,
    FailsForNothing,
    SaysNothing,
    EndsInUse,
    /// What only the engine beside it knows.
    CountsTwice,
    SaysMoreBytes,
}

/// A face with one fault.
struct OddFace(Odd);

struct OddCache {
    cache: Option<Box<dyn Cache>>,
    odd: Odd,
    last: Cell<Option<NonNull<u8>>>,
}

impl OddCache {
    fn inner(&self) -> &dyn Cache {
        self.cache.as_deref().expect("it is there")
    }
}

impl Face for OddFace {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        let made = Netbsd.create(place, config)?;
        let cache = OddCache { cache: Some(made.cache), odd: self.0, last: Cell::new(None) };
        Ok(Made { cache: Box::new(cache), ..made })
    }

    fn memory(&self, size: usize, align: usize, how: How) -> (*mut u8, usize) {
        Netbsd.memory(size, align, how)
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        if self.0 != Odd::SaysNothing {
            // SAFETY: passed on to the caller.
            unsafe { Netbsd.free(at, size) };
        }
    }

    fn classes(&self) -> &'static SizeClasses {
        Netbsd.classes()
    }

    fn bytes(&self) -> Option<u64> {
        let more = if self.0 == Odd::SaysMoreBytes { 2 } else { 1 };
        Netbsd.bytes().map(|bytes| more * bytes)
    }

    fn used(&self) -> u64 {
        Netbsd.used()
    }

    fn finds_size(&self, size: usize, other: usize, checked: bool) -> bool {
        Netbsd.finds_size(size, other, checked)
    }

    fn reap_all(&self, how: u8) {
        Netbsd.reap_all(how);
    }

    fn bad(&self, what: u8) {
        Netbsd.bad(what);
    }
}

impl Cache for OddCache {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        match (self.odd, self.last.get()) {
            (Odd::SameObjectTwice, Some(last)) => return Some(last),
            (Odd::FailsForNothing, Some(_)) => return None,
            _ => {}
        }
        let how = How { zero: how.zero && self.odd != Odd::NoZeros, ..how };
        let object = self.inner().take(how)?;
        self.last.set(Some(object));
        if matches!(self.odd, Odd::NotConstructed | Odd::NoZeros) {
            // SAFETY: the object is ours, and has a byte.
            unsafe { object.write(object.read() ^ 0x55) };
        }
        Some(object)
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        self.last.set(None);
        // SAFETY: passed on to the caller.
        unsafe { self.inner().give(object) };
    }

    fn counts(&self) -> Counts {
        let counts = self.inner().counts();
        let one = u64::from(self.odd == Odd::Miscounts && counts.used != 0);
        let twice = u64::from(self.odd == Odd::CountsTwice) + 1;
        Counts { used: counts.used - one, allocs: twice * counts.allocs, ..counts }
    }

    fn set_limit(&self, max: Option<u64>) -> Option<Option<u64>> {
        match self.odd {
            Odd::ForgetsTheLimit => Some(max),
            _ => self.inner().set_limit(max),
        }
    }

    fn reap(&self, how: u8) -> bool {
        self.inner().reap(how)
    }

    fn destroy(mut self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        let cache = self.cache.take().expect("it is there");
        cache.destroy().or_else(|(cache, used)| {
            self.cache = Some(cache);
            if self.odd == Odd::EndsInUse { Ok(()) } else { Err((self as _, used)) }
        })
    }
}

/// What a program of a few lines says of it, with objects that are constructed or not.
fn face_verdict(odd: Odd) -> Result<(), String> {
    let _one = alone(false);
    let how = How::default();
    let config =
        CacheConfig { size: 99, constructed: odd == Odd::NotConstructed, ..CacheConfig::default() };
    let ops = vec![
        CompatOp::Create { cache: 0, config },
        CompatOp::SetLimit { cache: 0, max: 2 },
        CompatOp::Alloc { cache: 0, how: How { zero: true, ..how }, times: 2 },
        CompatOp::Memory { base: 100, shift: 0, align: 0, how },
        CompatOp::WrongSize { i: 0, base: 500, shift: 0 },
        CompatOp::Destroy { cache: 0 },
        CompatOp::Verify,
    ];
    let program =
        CompatProgram { config: CompatConfig { face: Which::Netbsd, checked: false }, ops };
    let result = caught(|| drive(&OddFace(odd), &program)).map_err(|panic| panic.message);
    if result.is_err() {
        // What it was at is lost on purpose, and so are the counts of its callbacks.
        programs::compat::hooks::complaints();
    }
    result
}

#[test]
fn faults_of_faces_are_found() {
    assert_eq!(face_verdict(Odd::Nothing), Ok(()));
    for (odd, message) in [
        (Odd::SameObjectTwice, "overlaps"),
        (Odd::ForgetsTheLimit, "an object beyond the limit"),
        (Odd::Miscounts, "objects in use"),
        (Odd::NoZeros, "not zero"),
        (Odd::NotConstructed, "not as it was constructed"),
        (Odd::FailsForNothing, "there is nothing, for no reason"),
        (Odd::SaysNothing, "misuse was not reported"),
        (Odd::EndsInUse, "ended with objects in use"),
        (Odd::CountsTwice, "handed out more often than on the engine"),
        (Odd::SaysMoreBytes, "bytes of memory in use, and on the engine"),
    ] {
        let said = face_verdict(odd).expect_err("the program found nothing wrong");
        assert!(said.contains(message) && said.starts_with("operation "), "{said}");
    }
}

/// Two threads at a limit of one, one of which leaves its item to the other.
fn turns_verdict(flaw: Flaw) -> Result<(), String> {
    let config = MtConfig { items: [1, 0], bucket: 2, slabs: 3, cpus: 1, ..MtConfig::default() };
    let ops = vec![
        MtOp::Alloc { thread: 0, cpu: 0, zone: 0, patience: Patience::Nowait },
        MtOp::Keep { thread: 0, zone: 0, i: 0 },
        MtOp::Alloc { thread: 1, cpu: 1, zone: 0, patience: Patience::Wait },
        MtOp::End { thread: 0 },
        MtOp::Go { thread: 1 },
        MtOp::Free { thread: 0, cpu: 0, zone: 0, i: 0, times: 0 },
        MtOp::Verify,
    ];
    caught(|| mt_with(&MtProgram { config, ops }, flaw)).map_err(|panic| panic.message)
}

#[test]
fn faults_of_threads_are_found() {
    assert_eq!(turns_verdict(Flaw::None), Ok(()));
    for (flaw, message) in [
        (Flaw::Deaf, "threads sleep, and there is room"),
        (Flaw::SkipsDtor, "out of order"),
        (Flaw::KeepsItems, "operation 3"),
    ] {
        let said = turns_verdict(flaw).expect_err("the program found nothing wrong");
        assert!(said.contains(message), "{said}");
    }
}
