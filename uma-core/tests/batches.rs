//! What becomes of a batch when two things go wrong in it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::mem::MaybeUninit;

use uma_core::{
    AllocError, Constructed, FnSource, Grouped, Item, ItemSource, LimitGroup, Name, NoSleep,
    Request, Zone,
};
use uma_testkit::Fake;
use uma_testkit::hooks::{CountingHooks, Hook};

use parking_lot::RawMutex;
use uma_keg::{Keg, SlabConfig};

fn keg(pages: &Fake) -> Keg<&Fake, RawMutex> {
    let item = std::alloc::Layout::from_size_align(64, 8).unwrap();
    Keg::new(pages, item, SlabConfig::new()).unwrap()
}

/// A ctor refuses in the middle of a batch, and the fini of an item behind it panics as it goes back: the
/// items before it are not lost.
#[test]
fn a_ctor_refuses_and_then_a_fini_panics() {
    let pages = Fake::new();
    let hooks = CountingHooks::new();
    {
        // SAFETY: these hooks do not touch the items.
        let made = unsafe { Constructed::new(keg(&pages), &hooks) };
        // SAFETY: as above.
        let zone = unsafe { Zone::with_hooks(Name::new("batch"), made, &hooks) };
        hooks.refuse_at(Hook::Ctor, 2);
        // The first fini is that of the item whose ctor refused.
        hooks.panic_at(Hook::Fini, 2);
        let mut items = [MaybeUninit::uninit(); 4];
        let result = catch_unwind(AssertUnwindSafe(|| zone.import(&mut items, Request::NOWAIT)));
        assert!(result.is_err(), "the panic goes on");
        assert_eq!((hooks.in_use(), zone.source().source().live()), (0, 0));
    }
    hooks.assert_balanced();
}

/// An init refuses in the middle of a batch, and the fini of the layer below panics as the rest goes back:
/// what was constructed is taken apart.
#[test]
fn an_init_refuses_and_then_a_fini_below_panics() {
    let pages = Fake::new();
    let (below, above) = (CountingHooks::new(), CountingHooks::new());
    {
        // SAFETY: these hooks do not touch the items.
        let inner = unsafe { Constructed::new(keg(&pages), &below) };
        // SAFETY: as above.
        let outer = unsafe { Constructed::new(inner, &above) };
        above.refuse_at(Hook::Init, 3);
        below.panic_at(Hook::Fini, 1);
        let mut items = [MaybeUninit::uninit(); 4];
        let result = catch_unwind(AssertUnwindSafe(|| outer.import(&mut items, Request::NOWAIT)));
        assert!(result.is_err(), "the panic goes on");
        assert_eq!((above.constructed(), outer.source().source().live()), (0, 0));
    }
    above.assert_balanced();
    below.assert_balanced();
}

/// Items so large that the batch that was wanted has more bytes than can be counted.
#[test]
fn a_batch_that_no_group_has_room_for() {
    unsafe fn import(_: *mut (), _: &mut [MaybeUninit<Item>], _: Request) -> usize {
        0
    }
    unsafe fn release(_: *mut (), _: &[Item]) {}
    let item = std::alloc::Layout::from_size_align(1 << (usize::BITS - 2), 1).unwrap();
    // SAFETY: there are no items.
    let none = unsafe { FnSource::new(item, std::ptr::null_mut(), import, release) };
    let group = LimitGroup::<RawMutex, _>::new("group", None, NoSleep);
    let grouped = Grouped::new(none, Some(&group));
    let imported = grouped.import(&mut [MaybeUninit::uninit(); 8], Request::NOWAIT);
    assert_eq!((imported, group.bytes()), (Err(AllocError::GroupLimit), 0));
}
