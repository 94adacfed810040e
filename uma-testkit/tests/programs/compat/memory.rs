//! Memory of any size: what a face gives, changes and takes back, and refuses to.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;

use uma_testkit::ops::compat::How;
use uma_testkit::token;

use super::run::{Run, pick};
use super::{Face, REPORTS};

pub(super) struct Held {
    pub(super) at: NonNull<u8>,
    pub(super) size: usize,
    pub(super) token: u64,
}

impl Held {
    #[track_caller]
    pub(super) fn check(&self, size: usize) {
        // SAFETY: the memory is ours, and was stamped when it was had.
        let result = unsafe { token::verify(self.at, self.size.min(size), self.token) };
        assert_eq!(result, Ok(()), "offset at which memory changed while it was out");
    }
}

impl Run<'_> {
    pub(super) fn take_memory(&mut self, size: usize, align: usize, how: How) {
        let (at, align) = self.face.memory(size, align, how);
        if size == 0 {
            // Nothing, or as good as nothing; it may be freed.
            // SAFETY: as the face has it.
            return unsafe { self.face.free(at, 0) };
        }
        let at = NonNull::new(at).expect("there is memory");
        assert!(at.addr().get().is_multiple_of(align), "{at:p} is not aligned to {align}");
        if how.zero {
            // SAFETY: the memory is ours, and has so many bytes of zeros.
            let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), size) };
            assert_eq!(
                bytes.iter().position(|&byte| byte != 0),
                None,
                "first byte that is not zero"
            );
        }
        self.hold(at, size);
        self.beside.took(at, size, align, self.face.usable(at.as_ptr()));
    }

    fn hold(&mut self, at: NonNull<u8>, size: usize) {
        let usable = self.face.usable(at.as_ptr()).unwrap_or(size);
        assert!(usable >= size, "{usable} bytes are usable of {size}");
        self.ranges.insert(at.addr().get(), usable);
        self.tokens += 1;
        let held = Held { at, size, token: !self.tokens };
        // SAFETY: the memory is ours.
        unsafe { token::stamp(at, size, held.token) };
        self.memory.push(held);
    }

    pub(super) fn resize(&mut self, i: u8, size: usize, how: How) {
        let Some(index) = pick(i, self.memory.len()) else { return };
        if size == 0 {
            return;
        }
        let held = &self.memory[index];
        held.check(usize::MAX);
        let how = How { zero: false, ..how };
        // SAFETY: the memory is ours; if it moves, the old pointer is used no more.
        let new = unsafe { self.face.resize(held.at.as_ptr(), held.size, size, how) };
        let Some(new) = new else { return };
        let new = NonNull::new(new).expect("there is memory");
        let held = self.memory.swap_remove(index);
        self.ranges.remove(held.at.addr().get());
        Held { at: new, ..held }.check(size);
        self.hold(new, size);
        self.beside.resized(
            held.at,
            new,
            size,
            self.face.realigned(size),
            self.face.usable(new.as_ptr()),
        );
    }

    pub(super) fn free_memory(&mut self, i: u8) {
        let Some(index) = pick(i, self.memory.len()) else { return };
        let held = self.memory.swap_remove(index);
        held.check(usize::MAX);
        self.ranges.remove(held.at.addr().get());
        // SAFETY: it is given up.
        unsafe { self.face.free(held.at.as_ptr(), held.size) };
        self.beside.gave(held.at);
        self.last = Some((held.at, held.size));
    }

    /// Memory is freed with another size, where that is found out.
    pub(super) fn wrong_size(&self, i: u8, other: usize) {
        let Some(index) = pick(i, self.memory.len()) else { return };
        let Held { at, size, .. } = self.memory[index];
        if other != size && self.face.finds_size(size, other, self.checked) {
            // SAFETY: it is found out, and nothing is done.
            self.refused(|face| unsafe { face.free(at.as_ptr(), other) });
        }
    }

    /// What lies within memory is freed.
    pub(super) fn interior(&self, i: u8, offset: usize) {
        let Some(index) = pick(i, self.memory.len()) else { return };
        let Held { at, size, .. } = self.memory[index];
        if size > 1 {
            let offset = 1 + offset % (size - 1);
            // SAFETY: it lies in the memory; as above.
            let inside = unsafe { at.add(offset) }.as_ptr();
            // SAFETY: as above.
            self.refused(|face| unsafe { face.free(inside, size) });
            self.beside.refuses(at, offset);
        }
    }

    /// What was freed just now is freed.
    pub(super) fn again(&self, last: Option<(NonNull<u8>, usize)>) {
        if let Some((at, size)) = last {
            // SAFETY: it is free, and that is found out.
            self.refused(|face| unsafe { face.free(at.as_ptr(), size) });
            self.beside.refuses_again();
        }
    }

    /// A call that is misuse: it is reported, and nothing comes of it.
    fn refused(&self, call: impl FnOnce(&dyn Face)) {
        let (before, used) = (REPORTS.load(SeqCst), self.face.used());
        call(self.face);
        assert_ne!(REPORTS.load(SeqCst), before, "misuse was not reported");
        assert_eq!(self.face.used(), used, "something came of misuse");
    }
}
