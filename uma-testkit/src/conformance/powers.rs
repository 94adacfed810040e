//! The suites for what some page suppliers can do beside.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma_core::{PageRun, PageSupplier, Region, Regions, Request};

use crate::token;

/// Pages of the runs that the suites take.
const PAGES: usize = 8;

/// A run of [`PAGES`] pages, stamped page by page.
struct Whole<'a, P: ?Sized> {
    supplier: &'a P,
    run: PageRun,
    page: usize,
}

impl<'a, P: PageSupplier + ?Sized> Whole<'a, P> {
    fn take(supplier: &'a P) -> Self {
        let page = supplier.page_size();
        let layout = Layout::from_size_align(PAGES * page, page).expect("a small layout");
        let run = supplier.alloc_pages(layout, Request::NOWAIT).expect("8 pages");
        let whole = Self { supplier, run, page };
        (0..PAGES).for_each(|index| whole.stamp(index, index as u64));
        whole
    }

    fn at(&self, index: usize) -> NonNull<u8> {
        // SAFETY: the run is ours, and ends no sooner.
        unsafe { self.run.base().add(index * self.page) }
    }

    fn stamp(&self, index: usize, token: u64) {
        // SAFETY: the run is ours and has such a page.
        unsafe { token::stamp(self.at(index), self.page, token) };
    }

    #[track_caller]
    fn verify(&self, index: usize, token: u64) {
        // SAFETY: as above, and the page was stamped.
        let result = unsafe { token::verify(self.at(index), self.page, token) };
        assert_eq!(result, Ok(()), "contents of page {index} of {:?}", self.run);
    }

    fn give(self) {
        // SAFETY: the run came from there, whole, and is used no more.
        unsafe { self.supplier.free_pages(self.run) };
    }
}

/// Checks that parts of a live run can be decommitted: what is around them stays, and they can be
/// written at once.
///
/// # Panics
///
/// If the supplier says that it cannot, or does not keep the contract of
/// [`Decommit`](uma_core::Decommit).
pub fn decommit(supplier: &(impl PageSupplier + ?Sized)) {
    let power = supplier.decommits().expect("a supplier that can decommit");
    let whole = Whole::take(supplier);
    for (from, len) in [(2, 3), (3, 1), (7, 1), (2, 0)] {
        // SAFETY: pages of a run that is ours.
        unsafe { power.decommit(whole.at(from), len * whole.page) };
    }
    [0, 1, 5, 6].into_iter().for_each(|index| whole.verify(index, index as u64));
    (0..PAGES).for_each(|index| whole.stamp(index, 100 + index as u64));
    (0..PAGES).for_each(|index| whole.verify(index, 100 + index as u64));
    whole.give();
}

/// Checks that pages of a live run can be protected and used again with what they held. That an access
/// is stopped meanwhile it does not check: it would end the test.
///
/// # Panics
///
/// If the supplier says that it cannot, or does not keep the contract of
/// [`Protect`](uma_core::Protect).
pub fn protect(supplier: &(impl PageSupplier + ?Sized)) {
    let power = supplier.protects().expect("a supplier that can protect");
    let whole = Whole::take(supplier);
    let page = whole.page;
    // SAFETY: in all of these: pages of a run that is ours, not touched while they are protected.
    unsafe {
        // One at the end, some in the middle, one of these twice, none at all.
        for (from, len) in [(7, 1), (2, 3), (3, 1), (5, 0), (PAGES, 0)] {
            power.protect(whole.at(from), len * page).expect("protected");
        }
        for index in [0, 1, 5, 6] {
            whole.verify(index, index as u64);
            whole.stamp(index, 50 + index as u64);
        }
        // In other pieces than they were protected in, with one that never was.
        for (from, len) in [(3, 1), (4, 2), (2, 1), (6, 2), (0, 0)] {
            power.unprotect(whole.at(from), len * page).expect("accessible again");
        }
        [2, 3, 4, 7].into_iter().for_each(|index| whole.verify(index, index as u64));
        [0, 1, 5, 6].into_iter().for_each(|index| whole.verify(index, 50 + index as u64));
        // The whole run, and it goes back in order.
        power.protect(whole.at(0), PAGES * page).expect("protected");
        power.unprotect(whole.at(0), PAGES * page).expect("accessible again");
    }
    (0..PAGES).for_each(|index| whole.stamp(index, 100 + index as u64));
    (0..PAGES).for_each(|index| whole.verify(index, 100 + index as u64));
    whole.give();
}

/// Checks that every run lies in one region, that regions stay while runs lie in them, and that the
/// generation tells of each change. Nobody else may use the supplier meanwhile.
///
/// # Panics
///
/// If the supplier says that it cannot tell, or does not keep the contract of [`Regions`].
pub fn regions(supplier: &(impl PageSupplier + ?Sized)) {
    let power = supplier.regions().expect("a supplier that tells its regions");
    let mut held: Vec<Whole<'_, _>> = Vec::new();
    let mut known: Option<(u64, Vec<Region>)> = None;
    for step in 0..40 {
        if step % 3 == 2 {
            held.swap_remove(step % held.len()).give();
        } else {
            held.push(Whole::take(supplier));
        }
        let now = survey(power);
        for whole in &held {
            let (base, len) = (whole.run.base(), whole.run.layout().size());
            let around: Vec<_> =
                now.1.iter().filter(|region| region.contains(base.as_ptr(), len)).collect();
            let [region] = &around[..] else {
                panic!("{:?} lies in {} regions", whole.run, around.len());
            };
            // What was there when the run was taken, and is the same memory, is the same region.
            if let Some((_, before)) = &known
                && let Some(other) = before.iter().find(|other| other.base == region.base)
            {
                assert_eq!(other, *region, "a region changed with a run inside");
            }
        }
        if let Some((generation, before)) = known {
            let same = before == now.1;
            assert!(same || generation != now.0, "regions changed within generation {generation}");
        }
        known = Some(now);
    }
    held.into_iter().for_each(Whole::give);
}

/// The generation and the regions, by address.
fn survey(power: &dyn Regions) -> (u64, Vec<Region>) {
    let mut regions = Vec::new();
    let generation = power.generation();
    power.visit_regions(&mut |region| regions.push(region));
    assert_eq!(power.generation(), generation, "nobody else uses the supplier");
    regions.sort_by_key(|region| region.base);
    for pair in regions.windows(2) {
        let end = pair[0].base.addr().get() + pair[0].len;
        assert!(end <= pair[1].base.addr().get(), "{pair:?} overlap");
    }
    (generation, regions)
}
