//! What is given back wrongly is named in a panic, and costs nobody anything else.

mod common;

use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Heap, Lock, give, layout, stats, take_all};
use uma_core::{Item, ItemSource, Metadata, PageError, PageRun, PageSupplier, Reclaim, Request};
use uma_keg::{Keg, SlabConfig};

/// Gives `bad` back between good items, and checks the panic and that the keg is none the worse.
fn caught<M: Metadata>(keg: &Keg<&Heap, Lock, M>, bad: Item, message: &str) {
    let good = take_all(keg, 9);
    let (live, free) = (keg.live(), stats(keg).keg_free);
    let mut batch = good[..5].to_vec();
    batch.push(bad);
    batch.extend(&good[5..]);
    let panic = catch_unwind(AssertUnwindSafe(|| give(keg, &batch))).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains(message), "{text}");
    assert!(text.contains(&format!("{:#x}", bad.addr())), "{text}");
    assert!(text.contains(&format!("({}-byte items)", keg.layout().size())), "{text}");
    common::assert_no_lock();
    assert_eq!(keg.live(), live - 9, "the others are back");
    assert_eq!(stats(keg).keg_free, free + 9);
    let again = take_all(keg, 20);
    give(keg, &again);
}

fn every_misuse<M: Metadata>(keg: Keg<&Heap, Lock, M>, pages: &Heap) {
    let items = take_all(&keg, 300);
    give(&keg, &items[100..200]);
    // `caught` takes the lowest free items of the fullest slab; so one that stays free is the last
    // of a wholly free slab, or one of a slab that is not the fullest.
    keg.prealloc(1).unwrap();
    let mut free = take_all(&keg, stats(&keg).keg_free as usize);
    let spare = free.split_off(free.len() - 1)[0];
    give(&keg, &free);
    give(&keg, &[spare]);
    caught(&keg, spare, "double free");
    let size = keg.layout().size();
    for offset in [1, size / 2, size - 1] {
        // SAFETY: inside the item.
        let inner = unsafe { items[0].as_non_null().add(offset) };
        caught(
            &keg,
            inner.into(),
            if keg.slab_layout().items() == 1 { "no item" } else { "not the start" },
        );
    }
    // Where the next item would be, if the slab held one more.
    let slab = *keg.slab_layout();
    let beyond = slab.items() * slab.stride();
    if beyond < slab.slab_size() && slab.items() > 1 {
        let base = items[0].addr() & !(slab.slab_align() - 1);
        let after = items[0].as_non_null().map_addr(|_| (base + beyond).try_into().unwrap());
        caught(&keg, after.into(), "not the start");
    }
    give(&keg, &items[..100]);
    give(&keg, &items[200..]);
    // Twice in one batch.
    let one = take_all(&keg, 1)[0];
    let panic = catch_unwind(AssertUnwindSafe(|| give(&keg, &[one, one]))).unwrap_err();
    assert!(panic.downcast::<String>().unwrap().contains("double free"));
    keg.reclaim(Reclaim::Drain);
    assert_eq!((keg.live(), pages.outstanding()), (0, 0));
}

#[test]
fn headers_inside() {
    for size in [16, 64, 1000, 4096] {
        let pages = Heap::new();
        let keg = Keg::<_, Lock>::new(&pages, layout(size, 8), SlabConfig::new()).unwrap();
        every_misuse(keg, &pages);
    }
}

#[test]
fn items_of_another_keg() {
    // The same layout, so that a header is where one is looked for.
    let pages = Heap::new();
    let keg = || Keg::<_, Lock>::new(&pages, layout(64, 64), SlabConfig::new()).unwrap();
    let (mine, other) = (keg(), keg());
    let never_used = keg();
    let theirs = take_all(&other, 1)[0];
    caught(&mine, theirs, "no item of this keg");
    assert!(!mine.contains(theirs) && other.contains(theirs));
    let panic = catch_unwind(AssertUnwindSafe(|| give(&never_used, &[theirs]))).unwrap_err();
    assert!(panic.downcast::<String>().unwrap().contains("no item of this keg"));
    give(&other, &[theirs]);
}

/// A supplier that gives out pages once and never lets go of them, so that they can be read later.
struct Parked<'a>(&'a Heap);

// SAFETY: as `Heap`; that runs stay allocated harms nobody.
unsafe impl PageSupplier for Parked<'_> {
    fn page_size(&self) -> usize {
        self.0.page_size()
    }

    fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
        self.0.alloc_pages(layout, request)
    }

    unsafe fn free_pages(&self, _: PageRun) {}
}

#[test]
fn items_of_a_slab_that_has_gone_back() {
    let pages = Heap::new();
    let keg = Keg::<_, Lock>::new(Parked(&pages), layout(64, 64), SlabConfig::new()).unwrap();
    let items = take_all(&keg, 2 * keg.slab_layout().items());
    let (late, rest) = items.split_first().unwrap();
    give(&keg, &[*late]);
    give(&keg, &rest[..keg.slab_layout().items() - 1]);
    keg.reclaim(Reclaim::Drain);
    assert_eq!(stats(&keg).slabs, 1);
    let panic = catch_unwind(AssertUnwindSafe(|| give(&keg, &[*late]))).unwrap_err();
    assert!(panic.downcast::<String>().unwrap().contains("no item of this keg"));
    assert_eq!(stats(&keg).keg_free, 0);
}

#[test]
#[cfg(feature = "hashbrown")]
fn headers_outside() {
    for size in [16, 64, 1000, 4096, 70_000] {
        let (pages, meta) = (Heap::new(), Heap::new());
        let config = SlabConfig::new().no_touch();
        let keg = Keg::<_, Lock, _>::with_metadata(&pages, &meta, layout(size, 8), config).unwrap();
        // With the table no memory is looked at, so any pointer will do.
        let mut local = [0_u64; 4];
        let foreign = std::ptr::NonNull::new(local.as_mut_ptr()).unwrap().cast();
        for bad in
            [foreign, std::ptr::NonNull::dangling(), std::ptr::NonNull::<u64>::dangling().cast()]
        {
            assert!(!keg.contains(bad.into()));
            caught(&keg, bad.into(), "no item of this keg");
        }
        // An item whose slab has gone back.
        let late = take_all(&keg, 1)[0];
        give(&keg, &[late]);
        keg.reclaim(Reclaim::Drain);
        let panic = catch_unwind(AssertUnwindSafe(|| give(&keg, &[late]))).unwrap_err();
        assert!(panic.downcast::<String>().unwrap().contains("no item of this keg"));
        every_misuse(keg, &pages);
        assert_eq!(meta.outstanding(), 0);
    }
}
