//! Values in the order in which they came, the last one first.

use std::ptr::NonNull;

/// A value that can be in a [`Stack`].
pub(crate) trait Stacked: Sized {
    /// The place for the value below. It belongs to the stack.
    fn below(&mut self) -> &mut Option<NonNull<Self>>;
}

/// A list of values in memory of their own, linked through themselves. It does not own them.
pub(crate) struct Stack<T> {
    top: Option<NonNull<T>>,
    len: usize,
}

impl<T: Stacked> Stack<T> {
    pub(crate) const fn new() -> Self {
        Self { top: None, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn top(&self) -> Option<NonNull<T>> {
        self.top
    }

    /// Puts a value on top.
    ///
    /// # Safety
    ///
    /// It is valid and nobody looks at it meanwhile; it is in no stack, and stays valid as long as
    /// this one is used.
    pub(crate) unsafe fn push(&mut self, mut value: NonNull<T>) {
        // SAFETY: the caller says so.
        *unsafe { value.as_mut() }.below() = self.top.replace(value);
        self.len += 1;
    }

    /// Takes the value on top, if there are more than `keep`.
    pub(crate) fn pop_above(&mut self, keep: usize) -> Option<NonNull<T>> {
        if self.len <= keep {
            return None;
        }
        let mut value = self.top?;
        // SAFETY: what is in the stack is valid, as whoever pushed it promised.
        self.top = unsafe { value.as_mut() }.below().take();
        self.len -= 1;
        Some(value)
    }
}
