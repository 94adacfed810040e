//! Memory behind a part of a range of addresses, and away again.

use std::ptr::NonNull;

use uma_core::RawMutex;

use super::space::Space;
use super::stats::{less, more};
use super::{MapFault, MapType};
use crate::sys::System;

impl<L: RawMutex, S: System + Clone> Space<L, S> {
    /// The pages of a part of a range of addresses.
    fn part(&self, addr: usize, offset: usize, len: usize) -> Result<(usize, usize), MapFault> {
        let index = self.find(addr, len)?;
        let head = self.marks.head(index).ok_or(MapFault::NotAllocated { addr, size: len })?;
        let (given, allocated) = (MapType::VaOnly, head.of_type);
        if allocated != given {
            return Err(MapFault::WrongType { addr, given, allocated });
        }
        let fits = offset.is_multiple_of(self.page)
            && len.is_multiple_of(self.page)
            && offset.checked_add(len).is_some_and(|end| end <= head.pages * self.page);
        if !fits {
            return Err(MapFault::Foreign { addr: addr.saturating_add(offset), size: len });
        }
        Ok((index, index + offset / self.page))
    }

    /// # Safety
    ///
    /// As [`Map::enter`](super::Map::enter).
    pub(super) unsafe fn enter(
        &self,
        addr: usize,
        offset: usize,
        len: usize,
    ) -> Result<NonNull<u8>, MapFault> {
        let (head, first) = self.part(addr, offset, len)?;
        let at = self.at(addr + offset);
        if len == 0 {
            return Ok(at);
        }
        let _inside = self.gate.enter();
        // SAFETY: the range is the caller's.
        if let Err(errno) = unsafe { self.show(at, len) } {
            let pages = first..first + len / self.page;
            for page in pages.filter(|&page| !self.marks.is_entered(page)) {
                // SAFETY: a page of the caller's in which nothing is.
                let _ = unsafe { self.hide(self.at(self.min() + page * self.page), self.page) };
            }
            return Err(MapFault::System { call: "mprotect", size: len, errno });
        }
        let pages = first..first + len / self.page;
        let new = pages.filter(|&page| self.marks.enter(head, page, true)).count();
        more(&self.figures.committed, new * self.page);
        Ok(at)
    }

    /// # Safety
    ///
    /// As [`Map::remove`](super::Map::remove).
    pub(super) unsafe fn remove(
        &self,
        addr: usize,
        offset: usize,
        len: usize,
    ) -> Result<(), MapFault> {
        let (head, first) = self.part(addr, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let _inside = self.gate.enter();
        let at = self.at(addr + offset);
        let pages = first..first + len / self.page;
        // SAFETY: the range is the caller's, who gives up what is in it.
        let discarded = unsafe { self.figures.discard.count(self.system.discard(at, len)) };
        if discarded.is_err() {
            for page in pages.clone().filter(|&page| self.marks.is_entered(page)) {
                // SAFETY: as above; what is entered is accessible.
                unsafe { self.at(self.min() + page * self.page).write_bytes(0, self.page) };
            }
        }
        // SAFETY: nobody uses the range any more.
        unsafe { self.hide(at, len) }.map_err(|errno| MapFault::System {
            call: "mprotect",
            size: len,
            errno,
        })?;
        let gone = pages.filter(|&page| self.marks.enter(head, page, false)).count();
        less(&self.figures.committed, gone * self.page);
        Ok(())
    }
}
