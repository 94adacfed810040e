//! The part of an instance that stays in place: the map, and a zone for each class.
//!
//! ```text
//!   | map | secret | counters | platform |  class 0  |  class 1  |  class 2  | ...
//!                                        | cut| zone |
//! ```
//!
//! It comes into being at the first use, in memory from the platform's metadata, because the zones'
//! suppliers lead to the map. The zones come into being at their own first use.

use core::alloc::Layout;
use core::fmt::Write;
use core::ptr::NonNull;

use uma::core::{ConfigFault, Metadata, Name, PageSupplier};
use uma::keg::{SlabConfig, SlabLayout};
use uma::{Hardening, Platform, RawZone};

use crate::classes::SizeClasses;
use crate::map::{GRANULE, PageMap};
use crate::stats::Counters;
use crate::supply::{ClassPlatform, Marks};

/// The zone of a class.
pub(crate) type ClassZone<P> = RawZone<ClassPlatform<P>, Marks>;

/// How slabs of a class are cut into items: what it takes to tell where items begin.
///
/// A slab's base is the address with the low bits masked off. An offset from there is a multiple of the
/// stride if and only if its product with the inverse of the stride's odd part (modulo 2^32), turned right
/// by the power of two in the stride, is small; and then that is the quotient. So one multiplication
/// and one comparison tell whether an item begins there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    mask: u32,
    inverse: u32,
    turn: u32,
    items: u32,
}

impl Cut {
    pub(crate) const fn new(slab: &SlabLayout) -> Self {
        // Slabs are at most 8 MiB, aligned to no more than that.
        let stride = slab.stride() as u32;
        let turn = stride.trailing_zeros();
        let odd = stride >> turn;
        // Newton's method: three bits are right to begin with, and each step doubles them.
        let mut inverse = odd;
        let mut right = 3;
        while right < 32 {
            inverse = inverse.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(inverse)));
            right *= 2;
        }
        let alone = slab.items() == 1;
        let mask = if alone { GRANULE as u32 - 1 } else { slab.slab_align() as u32 - 1 };
        Self { mask, inverse, turn, items: slab.items() as u32 }
    }

    /// Whether an item begins at `addr`, which lies in a slab (if items are alone, in its first granule).
    #[inline(always)]
    pub(crate) const fn begins_at(self, addr: usize) -> bool {
        let offset = addr as u32 & self.mask;
        offset.wrapping_mul(self.inverse).rotate_right(self.turn) < self.items
    }
}

/// One class. Its size is a power of two, so that a shift leads to it.
#[repr(C, align(256))]
pub(crate) struct Class<P: Platform> {
    pub(crate) zone: ClassZone<P>,
    pub(crate) cut: Cut,
}

/// The pinned part of an instance; the classes follow it.
#[repr(C)]
pub(crate) struct Core<P: Platform> {
    pub(crate) map: PageMap<P::Metadata>,
    pub(crate) marks: Marks,
    pub(crate) table: &'static SizeClasses,
    pub(crate) counters: Counters,
    pub(crate) platform: P,
    first: [Class<P>; 0],
}

/// A pointer to a core, whose provenance is that of all of its memory.
pub(crate) struct CorePtr<P: Platform>(pub(crate) NonNull<Core<P>>);

impl<P: Platform> Clone for CorePtr<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for CorePtr<P> {}

fn layout<P: Platform>(classes: usize) -> Option<Layout> {
    let all = Layout::array::<Class<P>>(classes).ok()?;
    Some(Layout::new::<Core<P>>().extend(all).ok()?.0)
}

/// Text of at most so many bytes.
struct Text([u8; 48], usize);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for &byte in text.as_bytes() {
            let Some(place) = self.0.get_mut(self.1) else { break };
            *place = byte;
            self.1 += 1;
        }
        Ok(())
    }
}

/// The name of a class's zone: the instance's, a hyphen, and the size.
fn zone_name(name: &Name, size: usize) -> Name {
    let mut text = Text([0; 48], 0);
    // It does not fail.
    let _ = write!(text, "{name}-{size}");
    Name::new(core::str::from_utf8(&text.0[..text.1]).unwrap_or("?"))
}

impl<P: Platform> CorePtr<P> {
    /// Makes a core.
    pub(crate) fn make(
        name: &Name,
        table: &'static SizeClasses,
        platform: &P,
    ) -> Result<Self, ConfigFault> {
        let meta = platform.metadata();
        let layout = layout::<P>(table.count()).ok_or(ConfigFault::Overflow)?;
        let map = PageMap::new(platform.metadata()).ok_or(ConfigFault::NoMemory)?;
        let memory = meta.alloc_meta(layout).ok_or(ConfigFault::NoMemory)?;
        let core = memory.cast::<Core<P>>();
        let marks = Marks::new(secret(memory.addr().get()));
        let counters = Counters::new();
        // SAFETY: the memory is ours and has the layout of a core and its classes.
        unsafe {
            core.write(Core { map, marks, table, counters, platform: platform.clone(), first: [] });
        }
        let this = Self(core);
        let page = platform.pages().page_size().max(GRANULE);
        for class in 0..table.count() {
            match this.make_class(name, class, page) {
                // SAFETY: as above.
                Ok(made) => unsafe { this.class_ptr(class).write(made) },
                Err(fault) => {
                    // SAFETY: nobody has seen it, and so many classes are there.
                    unsafe { this.destroy(class) };
                    return Err(fault);
                }
            }
        }
        Ok(this)
    }

    fn make_class(self, name: &Name, class: usize, page: usize) -> Result<Class<P>, ConfigFault> {
        // SAFETY: the core was written.
        let core = unsafe { self.0.as_ref() };
        let (size, align) = (core.table.size(class), core.table.align(class));
        let item = Layout::from_size_align(size, align).map_err(|_| ConfigFault::BadAlign)?;
        let slab = SlabConfig::new()
            .page_size(page)
            .outside_headers()
            .largest_slab(core.platform.largest_slab());
        let slabs = SlabLayout::new(item, slab)?;
        // SAFETY: the core goes only after its zones; and a zone that was dropped with items in use, whose
        // slabs stay, neither gets pages any more nor gives any back.
        let map = unsafe { NonNull::new_unchecked((&raw const (*self.0.as_ptr()).map).cast_mut()) };
        // SAFETY: as above.
        let platform =
            unsafe { ClassPlatform::new(core.platform.clone(), map, class, slabs.items() == 1) };
        // Checks may pad items; but the cut, and the marks, are those of plain slabs.
        let zone = RawZone::builder_in(zone_name(name, size).as_str(), item, platform)
            .slab(slab)
            .hardening(Hardening::RELEASE);
        // SAFETY: marks take a word of items, which have one, and run anywhere.
        let zone = unsafe { zone.hooks(core.marks) }.lazy();
        Ok(Class { zone, cut: Cut::new(&slabs) })
    }

    #[inline(always)]
    fn class_ptr(self, class: usize) -> *mut Class<P> {
        // SAFETY: the core's memory goes on with the classes; whoever uses the pointer names one that is.
        unsafe { (&raw mut (*self.0.as_ptr()).first).cast::<Class<P>>().wrapping_add(class) }
    }

    /// # Safety
    ///
    /// The core is there for as long as `'a`, and has such a class.
    #[inline(always)]
    pub(crate) unsafe fn class<'a>(self, class: usize) -> &'a Class<P> {
        // SAFETY: passed on to the caller.
        unsafe { &*self.class_ptr(class) }
    }

    /// Takes a core apart, of which the first `classes` classes were made. What is in use stays.
    ///
    /// # Safety
    ///
    /// Nobody uses it.
    pub(crate) unsafe fn destroy(self, classes: usize) {
        // SAFETY: passed on to the caller; the memory came from there with this layout.
        unsafe {
            for class in 0..classes {
                self.class_ptr(class).drop_in_place();
            }
            let meta = self.0.as_ref().platform.metadata();
            let layout = layout::<P>(self.0.as_ref().table.count());
            self.0.drop_in_place();
            if let Some(layout) = layout {
                meta.free_meta(self.0.cast(), layout);
            }
        }
    }
}

/// What the marks of an instance are made of: hard to guess where addresses are random, and different for
/// instances.
fn secret(addr: usize) -> usize {
    let near = core::ptr::from_ref(&addr).addr();
    let mixed = (addr ^ near.rotate_right(13)).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
    // Odd, while items are even: a mark is neither 0 nor a pointer to an item.
    (mixed ^ (mixed >> (usize::BITS / 2))) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_begin_where_the_stride_says() {
        let tables = [SizeClasses::GENERAL, SizeClasses::KMEM_ALLOC, SizeClasses::UMEM_ALLOC];
        for table in tables {
            for class in 0..table.count() {
                let item = Layout::from_size_align(table.size(class), table.align(class)).unwrap();
                let slab = SlabConfig::new().outside_headers();
                let slab = SlabLayout::new(item, slab).unwrap();
                let cut = Cut::new(&slab);
                let end = if slab.items() == 1 { GRANULE } else { slab.slab_size() };
                let step = if cfg!(debug_assertions) && end > 1 << 16 { 8 } else { 1 };
                for offset in (0..end).step_by(step) {
                    let begins =
                        offset % slab.stride() == 0 && offset / slab.stride() < slab.items();
                    let addr = slab.slab_align() * 5 + offset;
                    assert_eq!(cut.begins_at(addr), begins, "{offset} in {slab:?}");
                }
            }
        }
    }
}
