//! The fakes catch what they promise to catch.

use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use uma_core::{
    Decommit, Hooks, Item, Metadata, PageError, PageRun, PageSupplier, Protect, Regions, Request,
};
use uma_testkit::hooks::{CountingHooks, Hook};
use uma_testkit::{Budget, FailNth, Fake, HeapMeta, Outstanding};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 4096).unwrap()
}

fn take(pages: &impl PageSupplier, size: usize) -> Result<PageRun, PageError> {
    pages.alloc_pages(layout(size), Request::NOWAIT)
}

/// The message with which `f` panics.
#[track_caller]
fn complaint(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("nobody complained");
    *payload.downcast::<String>().expect("a message")
}

/// Frees a run that need not be one.
fn free(pages: &Fake, base: NonNull<u8>, layout: Layout, flag: u8) {
    // SAFETY: none: the fake is there to find out, before it touches any memory.
    unsafe { pages.free_pages(PageRun::from_parts(base, layout, false, flag)) }
}

#[test]
fn fake_finds_misuse() {
    let pages = Fake::new();
    let run = take(&pages, 8192).unwrap();
    let (base, flag) = (run.base(), run.flag());
    assert!(!run.is_zeroed());
    // SAFETY: the run is ours, and the fake has filled it.
    let bytes = unsafe { std::slice::from_raw_parts(base.as_ptr(), 8192) };
    assert!(bytes.iter().all(|&byte| byte != 0));
    assert_eq!(pages.outstanding(), Outstanding { runs: 1, bytes: 8192 });

    let inside =
        complaint(|| free(&pages, base.map_addr(|a| a.saturating_add(4096)), layout(4096), 0));
    assert!(inside.contains("never handed out"), "{inside}");
    free(&pages, base, layout(8192), flag);
    let again = complaint(|| free(&pages, base, layout(8192), flag));
    assert!(again.contains("double free"), "{again}");

    let run = take(&pages, 8192).unwrap();
    let short = complaint(|| free(&pages, run.base(), layout(4096), run.flag()));
    assert!(short.contains("given back as"), "{short}");
    let run = take(&pages, 8192).unwrap();
    let flagged = complaint(|| free(&pages, run.base(), layout(8192), run.flag() + 1));
    assert!(flagged.contains("flag"), "{flagged}");
    assert_eq!(pages.outstanding(), Outstanding::default());
}

#[test]
fn fakes_miss_what_is_not_given_back() {
    let pages = Fake::new();
    let _run = take(&pages, 4096).unwrap();
    assert!(complaint(move || drop(pages)).contains("never given back"));
    let pages = Fake::new();
    let _run = take(&pages, 4096).unwrap();
    pages.allow_leaks();

    let meta = HeapMeta::new();
    meta.alloc_meta(layout(10)).unwrap();
    assert_eq!(meta.outstanding(), Outstanding { runs: 1, bytes: 10 });
    assert!(complaint(move || drop(meta)).contains("never given back"));
}

#[test]
fn metadata_fails_by_plan_and_checks_layouts() {
    let meta = HeapMeta::new();
    meta.fail_at(2);
    let one = meta.alloc_meta(layout(10)).unwrap();
    assert_eq!(meta.alloc_meta(layout(10)), None);
    let two = meta.alloc_meta(layout(20)).unwrap();
    assert_eq!((meta.calls(), meta.failed()), (3, 1));
    // SAFETY: both came from there; the first layout is wrong, which is caught.
    let wrong = complaint(|| unsafe { meta.free_meta(one, layout(11)) });
    assert!(wrong.contains("given back as"), "{wrong}");
    // SAFETY: it came from there, with this layout.
    unsafe { meta.free_meta(two, layout(20)) };
}

#[test]
fn fail_nth_counts_from_its_plan() {
    let pages = FailNth::new(Fake::new());
    let outcome = |calls: usize| -> Vec<bool> {
        let once = |_| match take(&pages, 4096) {
            Ok(run) => {
                // SAFETY: a whole run, given back once.
                unsafe { pages.free_pages(run) };
                true
            }
            Err(error) => {
                assert_eq!(error, PageError::Exhausted);
                false
            }
        };
        (0..calls).map(once).collect()
    };
    assert_eq!(outcome(2), [true, true]);
    pages.fail_at(2);
    assert_eq!(outcome(4), [true, false, true, true]);
    pages.fail_from(3);
    assert_eq!(outcome(4), [true, true, false, false]);
    assert_eq!((pages.calls(), pages.failed()), (4, 2));
    pages.never();
    assert_eq!(outcome(2), [true, true]);
    assert_eq!(pages.inner().outstanding(), Outstanding::default());
}

#[test]
fn a_budget_is_kept_to_the_byte() {
    let pages = Budget::new(FailNth::new(Fake::new()), 3 * 4096);
    let two = take(&pages, 8192).unwrap();
    assert_eq!(take(&pages, 8192).unwrap_err(), PageError::Exhausted);
    assert_eq!(pages.used(), 8192);
    pages.inner().fail_at(1);
    assert_eq!(take(&pages, 4096).unwrap_err(), PageError::Exhausted);
    assert_eq!(pages.used(), 8192, "a failure below costs nothing");
    let one = take(&pages, 4096).unwrap();
    assert_eq!(take(&pages, 4096).unwrap_err(), PageError::Exhausted);
    pages.set_max(4 * 4096);
    let more = take(&pages, 4096).unwrap();
    for run in [one, two, more] {
        // SAFETY: whole runs, each given back once.
        unsafe { pages.free_pages(run) };
    }
    assert_eq!(pages.used(), 0);
}

fn item(address: usize) -> Item {
    Item::new(NonNull::dangling().map_addr(|_| address.try_into().unwrap()))
}

/// Calls hooks on addresses: they never touch the items.
struct Caller<'a>(&'a CountingHooks);

impl Caller<'_> {
    fn init(&self, at: usize) -> bool {
        // SAFETY: the hooks look at the address only.
        unsafe { self.0.init(item(at), Request::NOWAIT).is_ok() }
    }
    fn fini(&self, at: usize) {
        // SAFETY: as above.
        unsafe { self.0.fini(item(at)) }
    }
    fn ctor(&self, at: usize) -> bool {
        // SAFETY: as above.
        unsafe { self.0.ctor(item(at), std::ptr::null_mut(), Request::NOWAIT).is_ok() }
    }
    fn dtor(&self, at: usize) {
        // SAFETY: as above.
        unsafe { self.0.dtor(item(at), std::ptr::null_mut()) }
    }
}

#[test]
fn hooks_in_order_balance() {
    let hooks = CountingHooks::new();
    let call = Caller(&hooks);
    assert!(call.init(8) && call.init(16) && call.ctor(8));
    assert_eq!((hooks.constructed(), hooks.in_use()), (2, 1));
    assert!(complaint(|| hooks.assert_idle()).contains("still in use"));
    call.dtor(8);
    assert!(call.ctor(8));
    call.dtor(8);
    hooks.assert_idle();
    assert!(complaint(|| hooks.assert_balanced()).contains("still constructed"));
    call.fini(8);
    call.fini(16);
    hooks.assert_balanced();
}

#[test]
fn hooks_out_of_order_are_violations() {
    let wrong = [
        ("Ctor of Item(0x8), which is unknown", "c"),
        ("Fini of Item(0x8), which is unknown", "f"),
        ("Dtor of Item(0x8), which is unknown", "d"),
        ("Init of Item(0x8), which is idle", "ii"),
        ("Dtor of Item(0x8), which is idle", "id"),
        ("Init of Item(0x8), which is in use", "ici"),
        ("Ctor of Item(0x8), which is in use", "icc"),
        ("Fini of Item(0x8), which is in use", "icf"),
        ("Fini of Item(0x8), which is unknown", "iff"),
    ];
    for (expected, calls) in wrong {
        let hooks = CountingHooks::new();
        let call = Caller(&hooks);
        for letter in calls.chars() {
            match letter {
                'i' => assert!(call.init(8)),
                'c' => assert!(call.ctor(8)),
                'd' => call.dtor(8),
                _ => call.fini(8),
            }
        }
        assert_eq!(hooks.violations(), [expected]);
        assert!(complaint(|| hooks.assert_balanced()).contains(expected));
    }
}

#[test]
fn hooks_fail_by_plan() {
    let hooks = CountingHooks::new();
    let call = Caller(&hooks);
    hooks.refuse_at(Hook::Init, 2);
    assert!(call.init(8) && !call.init(16) && call.init(16));
    hooks.refuse_at(Hook::Ctor, 1);
    assert!(!call.ctor(8) && call.ctor(8));
    hooks.panic_at(Hook::Ctor, 1);
    complaint(|| assert!(call.ctor(16)));
    assert_eq!(hooks.in_use(), 1, "a ctor that panics has not run");
    hooks.panic_at(Hook::Dtor, 1);
    complaint(|| call.dtor(8));
    assert_eq!(hooks.in_use(), 0, "a dtor that panics has");
    hooks.panic_at(Hook::Fini, 2);
    call.fini(16);
    complaint(|| call.fini(8));
    hooks.panic_at(Hook::Init, 1);
    complaint(|| assert!(call.init(8)));
    hooks.refuse_at(Hook::Init, 1);
    hooks.never();
    assert!(call.init(8));
    call.fini(8);
    hooks.assert_balanced();
    assert_eq!((hooks.counts().refused, hooks.counts().panicked), (2, 4));
}

#[test]
fn hooks_without_init() {
    let hooks = CountingHooks::without_init();
    let call = Caller(&hooks);
    assert!(call.ctor(8));
    call.dtor(8);
    assert!(call.ctor(8));
    call.dtor(8);
    hooks.assert_balanced();
    call.fini(8);
    assert_eq!(hooks.violations().len(), 1);
}

#[test]
fn fake_checks_and_counts_decommits() {
    let pages = Fake::with_page_size(4096);
    let run = take(&pages, 16384).unwrap();
    let at = |offset: usize| run.base().map_addr(|at| at.saturating_add(offset));
    // SAFETY: whole pages of a run that is ours.
    unsafe {
        run.base().write_bytes(1, 16384);
        pages.decommit(at(4096), 8192);
        pages.decommit(at(16384), 0);
    }
    assert_eq!((pages.decommit_calls(), pages.decommitted()), (2, 8192));
    // SAFETY: the run is ours, and has been written.
    let bytes = unsafe { std::slice::from_raw_parts(run.base().as_ptr(), 16384) };
    for (offset, &byte) in bytes.iter().enumerate() {
        let expected = if (4096..12288).contains(&offset) { Fake::DECOMMITTED } else { 1 };
        assert_eq!(byte, expected, "byte {offset}");
    }
    let wrong =
        [(100, 4096), (0, 100), (12288, 8192), (16384, 4096), (0, 20480), (usize::MAX, 4096)];
    for (offset, len) in wrong {
        // SAFETY: none: the fake is there to find out, before it touches any memory.
        let message = complaint(|| unsafe { pages.decommit(at(offset), len) });
        assert!(message.contains("not whole pages of a run"), "{message}");
    }
    // SAFETY: no page.
    complaint(|| unsafe { pages.decommit(NonNull::dangling(), 4096) });
    let base = run.base();
    // SAFETY: a whole run, given back once.
    unsafe { pages.free_pages(run) };
    // SAFETY: none, as above.
    complaint(|| unsafe { pages.decommit(base, 4096) });
}

#[test]
fn adaptors_pass_decommits_on() {
    let pages = Budget::new(FailNth::new(Fake::new()), 8192);
    let run = take(&pages, 8192).unwrap();
    // By what they say they can, and by what they are.
    let reference = &pages;
    let said = PageSupplier::decommits(&reference).expect("a fake can");
    // SAFETY: whole pages of a run that is ours.
    unsafe {
        said.decommit(run.base(), 4096);
        Decommit::decommit(&reference, run.base(), 8192);
    }
    let fake = pages.inner().inner();
    assert_eq!((fake.decommit_calls(), fake.decommitted()), (2, 12288));
    assert_eq!((pages.used(), pages.inner().calls()), (8192, 1), "neither freed nor allocated");
    // SAFETY: a whole run, given back once.
    unsafe { pages.free_pages(run) };
    assert!(Budget::new(Plain(Fake::new()), 0).decommits().is_none());
}

/// A supplier with no more than the three methods.
struct Plain(Fake);

// SAFETY: as `Fake`.
unsafe impl PageSupplier for Plain {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }
    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        self.0.alloc_pages(layout, request)
    }
    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.free_pages(run) }
    }
}

#[test]
fn fake_guards_what_is_protected() {
    let pages = Fake::new();
    let run = take(&pages, 3 * 4096).unwrap();
    let (base, flag) = (run.base(), run.flag());
    // SAFETY: the run is ours and has three pages.
    let second = unsafe {
        base.write_bytes(7, 3 * 4096);
        base.add(4096)
    };
    // SAFETY: whole pages of a run that is ours, or what the fake is to notice before it touches it.
    unsafe {
        pages.protect(second, 4096).unwrap();
        assert_eq!((pages.protected(), second.read()), (1, Fake::PROTECTED));
        let decommit = complaint(|| pages.decommit(base, 2 * 4096));
        assert!(decommit.contains("1 pages are protected"), "{decommit}");
        let odd = complaint(|| pages.protect(base.add(64), 4096).unwrap());
        assert!(odd.contains("not whole pages"), "{odd}");
        let beyond = complaint(|| pages.unprotect(second, 3 * 4096).unwrap());
        assert!(beyond.contains("not whole pages"), "{beyond}");
        second.add(100).write(0);
        let written = complaint(|| pages.unprotect(second, 4096).unwrap());
        assert!(written.contains("was written while it was protected"), "{written}");
        assert_eq!((second.read(), second.add(100).read()), (7, 7));
    }
    // One that fails may have done half of its work, which is undone.
    pages.protections().fail_at(1);
    // SAFETY: as above.
    unsafe {
        assert_eq!(pages.protect(base, 2 * 4096), Err(PageError::System(12)));
        assert_eq!(pages.protected(), 1);
        pages.unprotect(base, 2 * 4096).unwrap();
        pages.protect(base, 3 * 4096).unwrap();
    }
    let free = complaint(|| free(&pages, base, layout(3 * 4096), flag));
    assert!(free.contains("with 3 pages protected"), "{free}");
    assert_eq!((pages.protected(), pages.outstanding()), (0, Outstanding::default()));
}

#[test]
fn fake_counts_generations_of_regions() {
    let pages = Fake::new();
    let count = || {
        let mut count = 0;
        pages.visit_regions(&mut |region| count += region.len);
        (pages.generation(), count)
    };
    assert_eq!(count(), (0, 0));
    let run = take(&pages, 8192).unwrap();
    assert_eq!(count(), (1, 8192));
    free(&pages, run.base(), run.layout(), run.flag());
    assert_eq!(count(), (2, 0));
}
