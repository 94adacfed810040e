//! The suite for item sources.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use uma_core::{AllocError, Item, ItemSource, Reclaim, Request, Stats};

use super::THREADS;
use super::extents::Extents;
use crate::sync::Mutex;
use crate::{Rng, token};

/// Most items and bytes taken from a source at once: a source that has more counts as endless.
const MOST_ITEMS: usize = 2048;
const MOST_BYTES: usize = 4 << 20;

/// Checks a source of items, alone on one thread: that items are aligned, do not overlap and keep
/// their contents while out, that every way to give them back works, and that a source that ran out
/// can be filled and emptied again.
///
/// It works on any source, kegs, caches, limits and zones: an item gets back the contents that it
/// had before it is freed, so constructed items stay constructed. The source must be at rest, be able
/// to give one item, and be used by nobody else.
///
/// # Panics
///
/// If the source does not keep the contract of [`ItemSource`].
pub fn item_source(source: &(impl ItemSource + ?Sized)) {
    let items = Items::new(source);
    items.at_rest();
    let most = items.fill_and_empty(0);
    items.one_at_a_time();
    items.batches();
    items.flush_helps();
    for mode in [Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu] {
        items.reclaim_spares_items_in_use(mode);
    }
    for seed in 1..=3 {
        items.interleaving(&mut Rng::new(seed), 3000, None);
    }
    items.fill_and_empty(most);
    items.at_rest();
}

/// Checks a source that several threads use at once, with items freed on other threads than they
/// were taken on.
///
/// # Panics
///
/// If the source does not keep the contract of [`ItemSource`].
pub fn item_source_threads(source: &(impl ItemSource + Sync + ?Sized)) {
    let items = Items::new(source);
    let most = items.fill_and_empty(0);
    let shared = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (items, shared) = (&items, &shared);
            scope.spawn(move || {
                items.interleaving(&mut Rng::new(100 + seed), 3000, Some(shared));
            });
        }
    });
    items.give(shared.into_inner());
    items.fill_and_empty(most);
    items.at_rest();
}

/// An item that is out, the token over it, and what was in it before.
struct Held {
    item: Item,
    token: u64,
    before: Box<[MaybeUninit<u8>]>,
}

struct Items<'a, S: ?Sized> {
    source: &'a S,
    layout: Layout,
    extents: Extents,
}

impl<'a, S: ItemSource + ?Sized> Items<'a, S> {
    fn new(source: &'a S) -> Self {
        Self { source, layout: source.layout(), extents: Extents::default() }
    }

    /// Notes an item that was handed out and stamps it.
    #[track_caller]
    fn accept(&self, item: Item, token: u64) -> Held {
        let (align, size) = (self.layout.align(), self.layout.size());
        assert!(item.addr().is_multiple_of(align), "{item:?} is not aligned to {align}");
        self.extents.insert("item", item.addr(), size);
        let mut before = Box::new_uninit_slice(size);
        // SAFETY: the item is ours and has this many bytes, and so has the box. Bytes that are not
        // initialised are copied as they are.
        unsafe {
            let bytes = item.as_non_null().cast::<MaybeUninit<u8>>();
            bytes.copy_to_nonoverlapping(NonNull::new_unchecked(before.as_mut_ptr()), size);
            token::stamp(item.as_non_null(), size, token);
        }
        Held { item, token, before }
    }

    #[track_caller]
    fn verify(&self, held: &Held) {
        // SAFETY: the item is ours and was stamped.
        let result =
            unsafe { token::verify(held.item.as_non_null(), self.layout.size(), held.token) };
        assert_eq!(result, Ok(()), "offset at which {:?} changed while it was out", held.item);
    }

    /// Verifies an item, restores it, and notes that it goes back.
    #[track_caller]
    fn relinquish(&self, held: Held) -> Item {
        self.verify(&held);
        let bytes = held.item.as_non_null().cast::<MaybeUninit<u8>>();
        // SAFETY: the item is ours, and `before` is of its size.
        unsafe { bytes.as_ptr().copy_from_nonoverlapping(held.before.as_ptr(), held.before.len()) };
        self.extents.remove(held.item.addr());
        held.item
    }

    #[track_caller]
    fn alloc(&self, token: u64) -> Result<Held, AllocError> {
        let item = self.source.alloc(Request::NOWAIT).inspect_err(|&error| shortage(error))?;
        Ok(self.accept(item, token))
    }

    #[track_caller]
    fn import(&self, count: usize, token: u64) -> Result<Vec<Held>, AllocError> {
        let nowhere = Item::new(NonNull::dangling());
        let mut into = vec![MaybeUninit::new(nowhere); count];
        let got = self.source.import(&mut into, Request::NOWAIT).inspect_err(|&error| {
            shortage(error);
        })?;
        assert!((1..=count).contains(&got), "import of {count} items returned {got}");
        let held = into[..got].iter().enumerate().map(|(index, item)| {
            // SAFETY: all elements were initialised above.
            let item = unsafe { item.assume_init() };
            assert!(item != nowhere, "import returned {got}, but item {index} was not filled in");
            self.accept(item, token.wrapping_add(index as u64))
        });
        Ok(held.collect())
    }

    #[track_caller]
    fn give(&self, held: Vec<Held>) {
        let items: Vec<Item> = held.into_iter().map(|held| self.relinquish(held)).collect();
        // SAFETY: items of this source, each once, which are given up here.
        unsafe { self.source.release(&items) };
    }

    #[track_caller]
    fn give_one(&self, held: Held, rng: &mut Rng) {
        let item = self.relinquish(held);
        // SAFETY: an item of this source, which is given up here.
        unsafe {
            match rng.below(3) {
                0 => self.source.release(&[item]),
                1 => self.source.free(item),
                _ => self.source.discard(item),
            }
        }
    }

    fn at_rest(&self) {
        assert!(self.layout.size() > 0, "items have a size");
        assert_eq!(self.source.layout(), self.layout, "the layout is always the same");
        assert!(!self.source.wanted(), "nobody waits, but an item is wanted");
        let mut stats = Stats::default();
        self.source.visit_stats(&mut stats);
    }

    fn one_at_a_time(&self) {
        let mut rng = Rng::new(5);
        // SAFETY: nothing is given back.
        unsafe { self.source.release(&[]) };
        for token in 0..300 {
            let held = self.alloc(token).expect("a source at rest has an item to give");
            self.give_one(held, &mut rng);
            let item = self.source.alloc_or_flush(Request::NOWAIT, &mut || {});
            let item = item.expect("a source at rest has an item to give");
            self.give_one(self.accept(item, token), &mut rng);
        }
    }

    fn batches(&self) {
        for count in (1..=20).chain([31, 64, 100, 257]).filter(|&count| count <= self.most()) {
            let mut held = self.import(count, count as u64).expect("an item of a source at rest");
            held.extend(self.import(count, 99).into_iter().flatten());
            held.iter().for_each(|held| self.verify(held));
            // In two halves, the later one first.
            let later = held.split_off(held.len() / 2);
            self.give(later);
            self.give(held);
        }
    }

    /// Takes items until there are no more (or enough) and gives them back, several times, and
    /// returns how many there were. There must be at least `least`, and never less than before.
    fn fill_and_empty(&self, least: usize) -> usize {
        let mut rng = Rng::new(9);
        let mut most = least;
        for round in 0..3 {
            let mut held = self.fill();
            assert!(
                held.len() >= most,
                "only {} items in round {round}, though {most} were to be had",
                held.len()
            );
            most = held.len();
            held.iter().for_each(|held| self.verify(held));
            while held.len() > most / 2 {
                let index = rng.below(held.len());
                self.give_one(held.swap_remove(index), &mut rng);
            }
            self.give(held);
            assert!(!self.source.wanted(), "nobody waits, but an item is wanted");
        }
        most
    }

    fn most(&self) -> usize {
        MOST_ITEMS.min((MOST_BYTES / self.layout.size()).max(2))
    }

    fn fill(&self) -> Vec<Held> {
        let mut held = Vec::new();
        while held.len() < self.most() {
            match self.alloc(held.len() as u64) {
                Ok(new) => held.push(new),
                Err(_) => break,
            }
        }
        held
    }

    /// At the end of a source that has one, `flush` is asked for items before the call fails, and
    /// what it gives back is used.
    fn flush_helps(&self) {
        let mut held = self.fill();
        if held.len() == self.most() {
            return self.give(held);
        }
        let mut flushed = 0;
        let result = self.source.alloc_or_flush(Request::NOWAIT, &mut || flushed += 1);
        assert!(result.is_err(), "an item from a source that had just run out");
        assert!(flushed > 0, "alloc_or_flush failed with {result:?} without a call of flush");
        let result = self.source.alloc_or_flush(Request::NOWAIT, &mut || {
            self.give(held.pop().into_iter().collect());
        });
        let item = result.expect("flush gave an item back, but alloc_or_flush fails");
        held.push(self.accept(item, 1));
        self.give(held);
    }

    fn reclaim_spares_items_in_use(&self, mode: Reclaim) {
        let mut held = Vec::new();
        for token in 0..100 {
            held.extend(self.alloc(token));
        }
        // Every second one goes back, so that slabs and buckets are partly in use.
        let mut out = Vec::new();
        let mut kept = Vec::new();
        for (index, held) in held.into_iter().enumerate() {
            if index.is_multiple_of(2) { kept.push(held) } else { out.push(held) }
        }
        self.give(out);
        self.source.reclaim(mode);
        kept.iter().for_each(|held| self.verify(held));
        self.give(kept);
        self.source.reclaim(mode);
        self.give(vec![self.alloc(1).expect("an item after reclaim")]);
    }

    /// Takes and gives at random. What is in `shared` is anybody's to give back.
    fn interleaving(&self, rng: &mut Rng, steps: usize, shared: Option<&Mutex<Vec<Held>>>) {
        let most = self.most().min((MOST_BYTES / 8 / self.layout.size()).clamp(2, 500));
        let mut held = Vec::new();
        for _ in 0..steps {
            match rng.below(10) {
                0..4 if held.len() < most => held.extend(self.alloc(rng.bits())),
                4 if held.len() < most => {
                    let count = 1 + rng.below(most.min(40));
                    held.extend(self.import(count, rng.bits()).into_iter().flatten());
                }
                0..8 if !held.is_empty() => {
                    let index = rng.below(held.len());
                    let old = held.swap_remove(index);
                    match shared {
                        Some(shared) if rng.one_in(2) => shared.lock().push(old),
                        _ => self.give_one(old, rng),
                    }
                }
                8 => {
                    let batch = held.split_off(held.len() - rng.below(held.len().min(40) + 1));
                    self.give(batch);
                }
                _ => {}
            }
            if let Some(shared) = shared
                && rng.one_in(3)
            {
                let taken = shared.lock().pop();
                taken.into_iter().for_each(|held| self.give_one(held, rng));
            }
            if rng.one_in(500) {
                self.source.reclaim(rng.pick(&[Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu]));
                held.iter().for_each(|held| self.verify(held));
            }
        }
        self.give(held);
    }
}

/// Checks that a source fails only for want of items.
#[track_caller]
fn shortage(error: AllocError) {
    assert!(
        error.is_shortage() || error == AllocError::Metadata,
        "{error:?} from a source of which nothing special was asked"
    );
}
