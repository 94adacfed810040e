//! Which of all layouts is chosen: the steps that `layout` tells of.

use super::{HeaderPlace, MAX_SHARED, SMALL_SLAB};
use crate::slab::header_size;

/// One way to lay out a slab.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) slab: usize,
    pub(super) items: usize,
    pub(super) place: HeaderPlace,
    pub(super) header: usize,
    /// Bytes of items, and of all that is taken for them.
    used: u64,
    total: u64,
}

impl Choice {
    /// Whether it wastes at most 1 %.
    const fn is_good(&self) -> bool {
        self.used * 100 >= self.total * 99
    }

    /// Whether it wastes less than 2 %.
    const fn is_fair(&self) -> bool {
        self.used * 50 > self.total * 49
    }

    const fn wastes_less_than(&self, other: &Self) -> bool {
        self.used * other.total > other.used * self.total
    }
}

/// Keeps the better of two, the earlier if they are equal.
const fn better(old: Option<Choice>, new: Option<Choice>) -> Option<Choice> {
    match (old, new) {
        (Some(a), Some(b)) if b.wastes_less_than(&a) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

pub(super) struct Search {
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) page: usize,
    pub(super) inside: bool,
    pub(super) outside: bool,
    pub(super) largest: usize,
    /// The smallest slab that holds an item, whatever it wastes.
    pub(super) one_run: bool,
}

impl Search {
    pub(super) const fn best(&self) -> Choice {
        let small = if self.size > self.most() { self.alone() } else { self.small() };
        let Some(small) = small else {
            // `new` sees to it that one of the two header places is allowed.
            panic!("some slab holds one item");
        };
        if self.one_run || self.largest < SMALL_SLAB {
            return small;
        }
        if small.is_fair() || self.stride <= SMALL_SLAB / 4 {
            return self.unpinned(small);
        }
        self.larger(small)
    }

    /// Step 5.
    const fn unpinned(&self, choice: Choice) -> Choice {
        let may = self.outside && choice.place.is_inside() && choice.items > 1;
        let pins = choice.slab > self.page && self.stride >= self.page / 16;
        match self.fill(choice.slab, HeaderPlace::Outside) {
            Some(other) if may && pins && (other.is_good() || !choice.wastes_less_than(&other)) => {
                other
            }
            _ => choice,
        }
    }

    /// The largest slab of steps 1 to 3.
    const fn most(&self) -> usize {
        if self.one_run || self.page > self.largest { self.page } else { self.largest }
    }

    /// Steps 1 to 3, and the least waste of all.
    const fn small(&self) -> Option<Choice> {
        // An item of nearly 64 KiB with a header inside needs a little more.
        let mut least = self.alone();
        let mut pass = 0;
        while pass < 4 {
            let place = if pass % 2 == 0 { HeaderPlace::Inside } else { HeaderPlace::Outside };
            let powers = pass < 2;
            let mut fair = None;
            let mut slab = self.page;
            while slab <= self.most() && self.allows(place) {
                let choice = self.fill(slab, place);
                if let Some(choice) = choice {
                    if choice.is_good() {
                        return Some(choice);
                    }
                    if fair.is_none() && choice.is_fair() {
                        fair = Some(choice);
                    }
                }
                least = better(choice, least);
                slab = if powers { slab * 2 } else { slab + self.page };
            }
            if fair.is_some() {
                return fair;
            }
            pass += 1;
        }
        least
    }

    /// A slab of one item.
    const fn alone(&self) -> Option<Choice> {
        let mut inside = None;
        if self.inside {
            let slab = (self.size + header_size(1)).next_multiple_of(self.page);
            inside = self.put(slab, 1, HeaderPlace::Inside);
        }
        match inside {
            Some(choice) if choice.is_fair() => return inside,
            _ => {}
        }
        let mut outside = None;
        if self.outside {
            let slab = self.size.next_multiple_of(self.page);
            outside = self.put(slab, 1, HeaderPlace::Outside);
        }
        better(inside, outside)
    }

    /// Powers of two above 64 KiB, up to eight items, where they waste less.
    const fn larger(&self, small: Choice) -> Choice {
        let mut best = small;
        let mut slab = SMALL_SLAB * 2;
        while slab <= MAX_SHARED && slab <= self.stride * 8 {
            let mut place = HeaderPlace::Inside;
            loop {
                if slab.is_multiple_of(self.page)
                    && self.allows(place)
                    && let Some(choice) = self.fill(slab, place)
                    && choice.wastes_less_than(&best)
                {
                    if choice.is_fair() {
                        return choice;
                    }
                    best = choice;
                }
                if !place.is_inside() {
                    break;
                }
                place = HeaderPlace::Outside;
            }
            slab *= 2;
        }
        best
    }

    const fn allows(&self, place: HeaderPlace) -> bool {
        if place.is_inside() { self.inside } else { self.outside }
    }

    /// As many items as a slab of this size holds, or `None` if not one.
    const fn fill(&self, slab: usize, place: HeaderPlace) -> Option<Choice> {
        if place.is_inside() {
            let Some(room) = slab.checked_sub(header_size(0) + self.size) else {
                return None;
            };
            // Of n items all but the last take a stride, and each at least one bit of header: this
            // is never too few, and too many only by what the header is rounded up.
            let mut items = (room + self.stride) * 8 / (self.stride * 8 + 1);
            while items != 0 && (items - 1) * self.stride + self.size + header_size(items) > slab {
                items -= 1;
            }
            self.put(slab, items, place)
        } else {
            let Some(room) = slab.checked_sub(self.size) else {
                return None;
            };
            self.put(slab, room / self.stride + 1, place)
        }
    }

    const fn put(&self, slab: usize, items: usize, place: HeaderPlace) -> Option<Choice> {
        if items == 0 {
            return None;
        }
        let header = header_size(items);
        let outside = if place.is_inside() { 0 } else { header };
        let (used, total) = ((items * self.size) as u64, (slab + outside) as u64);
        Some(Choice { slab, items, place, header, used, total })
    }
}
