//! Zones that end while something unwinds: everything goes back, and the panic goes on, once.

use std::alloc::Layout;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use uma::cache::CpuLocks;
use uma::core::{Hooks, Item, Refused, Request};
use uma::debug::{Report, Verdict};
use uma::{Hardening, RawZone};
use uma_testkit::hooks::{CountingHooks, Hook};
use uma_testkit::{Fake, caught};

use crate::platforms::{CPUS, Chosen, Machine, On, run_on};
use crate::suite::{free, take};

type Made<H> = RawZone<On<'static, Fake, CpuLocks<Chosen>>, H>;
type Test = Machine<Fake, CpuLocks<Chosen>>;

/// Calls `test` with a machine, and looks that nothing of it is left in use.
fn on_a_machine(tier: Hardening, test: impl FnOnce(&'static Test)) {
    let mut machine = Box::new(Machine::new(Fake::new(), CpuLocks::new(Chosen)));
    machine.tier = tier;
    let machine = Box::into_raw(machine);
    // SAFETY: it is there until the zones that `test` makes are gone.
    test(unsafe { &*machine });
    // SAFETY: made above, and nobody else has it.
    let machine = unsafe { Box::from_raw(machine) };
    assert_eq!(machine.reports.lock().unwrap()[..], [""; 0]);
    assert!(machine.zones().is_empty(), "zones are left: {:?}", machine.zones());
    assert_eq!(machine.metadata.outstanding(), 0, "metadata is left");
    assert_eq!(machine.pages.outstanding().runs, 0, "pages are left");
}

const TIERS: [Hardening; 4] =
    [Hardening::RELEASE, Hardening::HARDENED, Hardening::DEBUG, Hardening::sampled(2)];
const ITEM: Layout = Layout::new::<[u64; 13]>();

fn zone<H: Hooks + Clone + Send + Sync + 'static>(machine: &'static Test, hooks: H) -> Made<H> {
    let builder = RawZone::builder_in("ending", ITEM, On(machine)).bucket(4);
    // SAFETY: the hooks do not touch the items.
    unsafe { builder.hooks(hooks) }.build().unwrap()
}

/// Has items in the buckets of all CPUs, in the depot and in quarantine.
fn use_it<H: Hooks + Clone + Send + Sync + 'static>(zone: &Made<H>) {
    let items = take(zone, 100);
    for (at, item) in items.into_iter().enumerate() {
        run_on(at % CPUS);
        free(zone, item);
    }
}

fn must_unwind(end: impl FnOnce()) {
    // First, or what it keeps quiet would not come to `caught`.
    crate::quiet_planned_panics();
    assert!(caught(end).expect_err("a hook unwinds").is_planned());
}

#[test]
fn a_fini_that_unwinds() {
    for tier in TIERS {
        for k in [1, 7, 90] {
            on_a_machine(tier, |machine| {
                let hooks: &CountingHooks = Box::leak(Box::default());
                let zone = zone(machine, hooks);
                use_it(&zone);
                hooks.panic_at(Hook::Fini, k);
                must_unwind(|| drop(zone));
                hooks.assert_balanced();
                assert_eq!(hooks.counts().panicked, 1);
            });
            // A zone that is asked to end, if it can, is gone as well: nothing of it was in use.
            on_a_machine(tier, |machine| {
                let hooks: &CountingHooks = Box::leak(Box::default());
                let zone = zone(machine, hooks);
                use_it(&zone);
                hooks.panic_at(Hook::Fini, k);
                must_unwind(|| zone.try_destroy().unwrap());
                hooks.assert_balanced();
            });
        }
    }
}

/// The same of a zone on another's slabs, whichever goes first.
#[test]
fn a_fini_that_unwinds_over_the_slabs_of_another() {
    for primary_first in [false, true] {
        on_a_machine(Hardening::RELEASE, |machine| {
            let hooks: &CountingHooks = Box::leak(Box::default());
            let primary = zone(machine, hooks);
            let secondary = primary.secondary("on it").bucket(4).build().unwrap();
            use_it(&primary);
            let items: Vec<_> =
                (0..50).map(|_| secondary.alloc(Request::NOWAIT).unwrap()).collect();
            // SAFETY: the items came from there.
            items.into_iter().for_each(|item| unsafe { secondary.free(item) });
            for k in [3, 5] {
                hooks.panic_at(Hook::Fini, k);
                if (k == 3) == primary_first {
                    must_unwind(|| primary.reclaim(uma::Reclaim::DrainCpu));
                } else {
                    must_unwind(|| secondary.reclaim(uma::Reclaim::DrainCpu));
                }
                use_it(&primary);
                let items: Vec<_> =
                    (0..50).map(|_| secondary.alloc(Request::NOWAIT).unwrap()).collect();
                // SAFETY: as above.
                items.into_iter().for_each(|item| unsafe { secondary.free(item) });
            }
            hooks.panic_at(Hook::Fini, 3);
            if primary_first {
                must_unwind(|| drop(primary));
                hooks.panic_at(Hook::Fini, 3);
                must_unwind(|| drop(secondary));
            } else {
                must_unwind(|| drop(secondary));
                hooks.panic_at(Hook::Fini, 3);
                must_unwind(|| drop(primary));
            }
            hooks.assert_balanced();
        });
    }
}

/// Hooks that unwind when they themselves are dropped, once.
struct Fragile(&'static AtomicUsize);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl Hooks for Fragile {
    unsafe fn init(&self, _: Item, _: Request) -> Result<(), Refused> {
        Ok(())
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        assert_ne!(left, 1, "as planned");
    }
}

/// A zone has three copies of its hooks, and the end of each may unwind.
#[test]
fn hooks_that_unwind_at_their_end() {
    for tier in TIERS {
        for k in 1..=3 {
            on_a_machine(tier, |machine| {
                let left: &AtomicUsize = Box::leak(Box::default());
                let zone = zone(machine, Fragile(left));
                use_it(&zone);
                left.store(k, Ordering::Relaxed);
                must_unwind(|| drop(zone));
            });
        }
    }
}

/// A report that unwinds out of a free leaves the item in use, also between guard pages.
#[test]
fn a_report_of_a_sampled_item_that_unwinds() {
    static UNWINDS: AtomicBool = AtomicBool::new(false);
    fn on_misuse(_: &Report<'_>) -> Verdict {
        assert!(!UNWINDS.load(Ordering::Relaxed), "as planned");
        Verdict::Ignore
    }
    on_a_machine(Hardening::sampled(1), |machine| {
        let hooks: &CountingHooks = Box::leak(Box::default());
        let builder = RawZone::builder_in("watched", ITEM, On(machine)).on_misuse(on_misuse);
        // SAFETY: the hooks do not touch the items.
        let zone = unsafe { builder.hooks(hooks) }.build().unwrap();
        let items = take(&zone, 2);
        // The second lies at the beginning of its page.
        // SAFETY: the misuse under test: the page is there.
        let behind = unsafe { items[1].as_ptr().add(ITEM.size()) };
        // SAFETY: as above.
        unsafe { ptr::write(behind, 1) };
        UNWINDS.store(true, Ordering::Relaxed);
        must_unwind(|| free(&zone, items[1]));
        UNWINDS.store(false, Ordering::Relaxed);
        assert_eq!(zone.stats().used(), 2, "it is in use still");
        items.into_iter().for_each(|item| free(&zone, item));
        assert_eq!(zone.stats().used(), 0);
        drop(zone);
        hooks.assert_balanced();
    });
}

/// Whoever notes who allocates and frees may unwind: the item goes back, or is in use still.
#[test]
fn notes_that_unwind() {
    on_a_machine(Hardening::DEBUG, |machine| {
        let hooks: &CountingHooks = Box::leak(Box::default());
        let zone = zone(machine, hooks);
        let secretive = |on| machine.secretive.store(on, Ordering::Relaxed);
        secretive(true);
        must_unwind(|| _ = zone.alloc(Request::NOWAIT));
        secretive(false);
        assert_eq!((zone.stats().used(), hooks.counts().ctor, hooks.counts().dtor), (0, 1, 1));
        let item = zone.alloc(Request::NOWAIT).unwrap();
        secretive(true);
        must_unwind(|| free(&zone, item));
        secretive(false);
        assert_eq!(zone.stats().used(), 1);
        free(&zone, item);
        assert_eq!(zone.stats().used(), 0);
        drop(zone);
        hooks.assert_balanced();
    });
}
