//! Allocations: what is asked, taken, and given back.

use std::ptr::NonNull;

use uma_core::{Deadline, RawMutex, Request, Sleep};
use uma_vmem::{Constraints, Policy};

use super::host::Park;
use super::marks::Head;
use super::space::{Space, whole};
use super::stats::{less, more};
use super::{KmFlags, MapFault, MapFlags, MapType};
use crate::sync::Ordering;
use crate::sys::System;

/// An allocation that makes sense.
struct Want {
    of_type: MapType,
    /// In whole pages, without a guard page and with it.
    size: usize,
    len: usize,
    /// The first address is `phase` behind a multiple of `align`.
    align: usize,
    phase: usize,
}

/// The smallest address from `from` on that is `phase` behind a multiple of `align`, a power of two.
fn phase_up(from: usize, align: usize, phase: usize) -> Option<usize> {
    from.checked_add(phase.wrapping_sub(from) & (align - 1))
}

impl<L: RawMutex, S: System + Clone> Space<L, S> {
    fn check(&self, size: usize, align: usize, flags: KmFlags) -> Result<Want, MapFault> {
        let page = self.page;
        let of_type = flags.of_type().ok_or(MapFault::BadFlags(flags))?;
        if flags.contains(KmFlags::ZERO) && of_type != MapType::Wired {
            return Err(MapFault::ZeroNotWired(flags));
        }
        let may_page = self.config.flags.contains(MapFlags::PAGEABLE) && !self.intrsafe();
        if of_type == MapType::Pageable && !may_page {
            return Err(MapFault::NotPageable);
        }
        let too_large = MapFault::TooLarge { size, map: self.size };
        let asked = size;
        let size = whole(asked, page).map_err(|fault| match fault {
            MapFault::TooLarge { .. } => too_large,
            fault => fault,
        })?;
        let len = size + if self.config.guards { page } else { 0 };
        let (align, phase) = if flags.contains(KmFlags::COLORMATCH) {
            let all = self.config.colors * page;
            if !align.is_multiple_of(page) || align >= all {
                return Err(MapFault::BadColor(align));
            }
            (all, align)
        } else if align == 0 {
            (page, 0)
        } else if align.is_power_of_two() && align >= page {
            (align, 0)
        } else {
            return Err(MapFault::BadAlign(align));
        };
        let first = phase_up(self.min(), align, phase).ok_or(too_large)?;
        if first.checked_add(len).is_none_or(|end| end > self.max()) {
            return Err(too_large);
        }
        Ok(Want { of_type, size, len, align, phase })
    }

    fn intrsafe(&self) -> bool {
        self.config.flags.contains(MapFlags::INTRSAFE)
    }

    /// Takes a range, which is nobody else's then. Returns its first address.
    fn take(&self, want: &Want, flags: KmFlags, waits: bool) -> Result<usize, MapFault> {
        let phase = if self.config.flags.contains(MapFlags::TOPDOWN) {
            // The mirrored place of an address that is `phase` behind a multiple of `align`.
            let mirror = self.min().wrapping_add(self.max()).wrapping_sub(want.len);
            mirror.wrapping_sub(want.phase) & (want.align - 1)
        } else {
            want.phase
        };
        let constraints = Constraints::new().align(want.align).phase(phase);
        let place = if flags.contains(KmFlags::TRYLOCK) {
            self.arena.try_xalloc(want.len, constraints, Policy::Instant)
        } else {
            let request = if waits { Request::WAIT } else { Request::NOWAIT };
            self.arena.xalloc(want.len, constraints, Policy::Instant, request)
        };
        let place = place.map_err(|error| self.refused(want.size, error))?;
        Ok(self.place(place, want.len))
    }

    /// Before the system is asked again.
    fn pause(&self) {
        more(&self.figures.retries, 1);
        let park = Park::new();
        park.sleep(Deadline::at(park.now().saturating_add(self.config.retry)));
    }

    pub(super) fn alloc(
        &self,
        size: usize,
        align: usize,
        flags: KmFlags,
    ) -> Result<NonNull<u8>, MapFault> {
        let want = self.check(size, align, flags)?;
        let never = flags.intersects(KmFlags::NOWAIT | KmFlags::TRYLOCK) || self.intrsafe();
        let may_fail = never || flags.contains(KmFlags::CANFAIL);
        let waits = flags.contains(KmFlags::WAITVA) && !never;
        let (addr, mut inside) = loop {
            // Who waits for room does so outside, and what it got comes in with it.
            let inside = if waits {
                None
            } else if flags.contains(KmFlags::TRYLOCK) {
                Some(self.gate.try_enter().ok_or(MapFault::Busy)?)
            } else {
                Some(self.gate.enter())
            };
            match self.take(&want, flags, waits) {
                Err(MapFault::Metadata) if !may_fail => {
                    drop(inside);
                    self.pause();
                }
                taken => break (taken?, inside.unwrap_or_else(|| self.gate.enter())),
            }
        };
        let (at, exposed) = (self.at(addr), self.exposed.load(Ordering::Relaxed));
        let bare = want.of_type == MapType::VaOnly;
        if exposed {
            let from = if bare { 0 } else { want.size };
            // SAFETY: the range is ours, and nothing is in it.
            let _ = unsafe { self.hide(at.add(from), want.len - from) };
        }
        let mut locked = false;
        if !bare {
            // SAFETY: the range is ours.
            while let Err(errno) = unsafe { self.show(at, want.size) } {
                if may_fail || !matches!(errno, libc::ENOMEM | libc::EAGAIN) {
                    // A part of it may be accessible.
                    // SAFETY: as above, and nothing is in it.
                    let _ = unsafe { self.hide(at, want.size) };
                    self.give_back(addr, want.len);
                    return Err(MapFault::System { call: "mprotect", size: want.size, errno });
                }
                drop(inside);
                self.pause();
                inside = self.gate.enter();
            }
            more(&self.figures.committed, want.size);
            // SAFETY: the range is ours, and accessible.
            locked = want.of_type == MapType::Wired && unsafe { self.lock(at, want.size) }.is_ok();
        }
        let head = Head { of_type: want.of_type, locked, pages: want.size / self.page };
        self.marks.set(self.index(addr), Some(head));
        drop(inside);
        Ok(at)
    }

    /// The page at which what is asked about begins, if it lies in the map.
    pub(super) fn find(&self, addr: usize, size: usize) -> Result<usize, MapFault> {
        if addr < self.min() || addr >= self.max() || !addr.is_multiple_of(self.page) {
            return Err(MapFault::Foreign { addr, size });
        }
        Ok(self.index(addr))
    }

    /// Claims an allocation for a change of all of it.
    fn claim(&self, addr: usize, size: usize, given: MapType) -> Result<Head, MapFault> {
        let index = self.find(addr, size)?;
        let none = MapFault::NotAllocated { addr, size };
        self.marks.claim(index, none, MapFault::InUse { addr }, |head| {
            let allocated = head.pages * self.page;
            if head.of_type != given {
                return Err(MapFault::WrongType { addr, given, allocated: head.of_type });
            }
            if size.checked_next_multiple_of(self.page) != Some(allocated) {
                return Err(MapFault::WrongSize { addr, size, allocated });
            }
            Ok(())
        })
    }

    /// # Safety
    ///
    /// As [`Map::free`](super::Map::free).
    pub(super) unsafe fn free(
        &self,
        addr: usize,
        size: usize,
        flags: KmFlags,
    ) -> Result<(), MapFault> {
        let given = flags.of_type().ok_or(MapFault::BadFlags(flags))?;
        if flags.iter().count() != 1 {
            return Err(MapFault::BadFlags(flags));
        }
        let _inside = self.gate.enter();
        let head = self.claim(addr, size, given)?;
        let (index, size) = (self.index(addr), head.pages * self.page);
        let at = self.at(addr);
        if given == MapType::VaOnly {
            let pages = self.marks.count(index);
            if pages != 0 {
                self.marks.set(index, Some(head));
                return Err(MapFault::Entered { addr, pages });
            }
        } else {
            // SAFETY: the range is claimed, so it is what was allocated, and accessible; the caller
            // gives it up.
            unsafe {
                if head.locked {
                    self.unlock(at, size);
                }
                self.clear(at, size);
                let _ = self.hide(at, size);
            }
            less(&self.figures.committed, size);
        }
        self.marks.set(index, None);
        self.give_back(addr, size + if self.config.guards { self.page } else { 0 });
        Ok(())
    }

    pub(super) fn set_pageable(
        &self,
        addr: usize,
        size: usize,
        pageable: bool,
    ) -> Result<(), MapFault> {
        let _inside = self.gate.enter();
        let head = self.claim(addr, size, MapType::Pageable)?;
        let (at, size) = (self.at(addr), head.pages * self.page);
        // SAFETY: a range that is allocated, and accessible; it is claimed, so it stays so.
        let done = unsafe {
            match (pageable, head.locked) {
                (true, true) => {
                    self.unlock(at, size);
                    Ok(())
                }
                (false, false) => self.lock(at, size),
                _ => Ok(()),
            }
        };
        let locked = if done.is_ok() { !pageable } else { head.locked };
        self.marks.set(self.index(addr), Some(Head { locked, ..head }));
        done.map_err(|errno| MapFault::System { call: "mlock", size, errno })
    }
}
