//! What is measured: things that give memory of a fixed size and take it back.

mod each;
mod limit;
mod malloc;
#[cfg(feature = "pools")]
mod pools;
mod zone;

use std::ptr::NonNull;

pub(crate) use each::{Filter, NAMES, Visit, each_malloc, each_process, each_subject};
#[cfg(feature = "mimalloc")]
pub(crate) use malloc::Mimalloc;
pub(crate) use malloc::{System, give_back, is_there, thread_begins, version};
pub(crate) use zone::{HasZone, Size, UMA_HUGE, Uma, in_child, mode};

/// An allocator of memory of one size, called through its own functions.
///
/// Every workload is one generic function over this trait, so all subjects run the same loop, with
/// their calls resolved at compile time. A value is a handle: a unit struct, or a reference.
///
/// # Safety
///
/// What `take` returns is not handed out again before it was freed.
pub(crate) unsafe trait Subject: Copy + Send + Sync + 'static {
    /// What the user holds: a pointer, or what a pool gives in its place.
    type Held: Send;

    /// Takes memory.
    fn take(self) -> Self::Held;

    /// Writes the first word of memory that was taken.
    fn write(held: &mut Self::Held, word: u64);

    /// Takes memory and writes its first word, as any user would.
    #[inline(always)]
    fn alloc(self, word: u64) -> Self::Held {
        let mut held = self.take();
        Self::write(&mut held, word);
        held
    }

    /// Gives memory back, on any thread.
    ///
    /// # Safety
    ///
    /// It came from `take` or `alloc` of this subject.
    unsafe fn free(self, held: Self::Held);

    /// The memory itself, to be filled, if it can be had.
    fn block(held: &Self::Held) -> Option<Block> {
        let _ = held;
        None
    }
}

/// A pointer to a block of memory, whose holder has it to itself.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Block(pub(crate) NonNull<u8>);

// SAFETY: the holder of a block has its memory to itself, on whichever thread it is.
unsafe impl Send for Block {}

impl Block {
    /// The block that a function returned, its pointer passed through an empty piece of assembly: the
    /// compiler can neither leave an allocation out nor merge it with the free that follows.
    /// (`black_box` would do that too, but by way of memory, which costs more than some subjects do.)
    ///
    /// # Safety
    ///
    /// `pointer` is null or leads to at least eight bytes, aligned for a `u64`, that are the caller's.
    #[inline(always)]
    pub(crate) unsafe fn returned(mut pointer: *mut u8) -> Self {
        // SAFETY: it does nothing.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) pointer, options(nostack, preserves_flags));
        }
        let Some(pointer) = NonNull::new(pointer) else { out_of_memory() };
        Self(pointer)
    }

    /// Writes the first word. In a `Subject` it may do so because whoever holds a block has it.
    #[inline(always)]
    fn write(self, word: u64) {
        // SAFETY: the memory is the holder's, see `returned`.
        unsafe { self.0.cast::<u64>().write_volatile(word) }
    }
}

/// Makes every subject as fresh as it can be on this thread: free memory goes back, so that what one
/// workload did to the order of free items does not slow the next.
pub(crate) fn refresh() {
    uma::reclaim(uma::Reclaim::DrainCpu);
    NAMES.into_iter().filter(|name| is_there(name)).for_each(give_back);
    limit::refresh();
}

#[cold]
#[inline(never)]
pub(crate) fn out_of_memory() -> ! {
    eprintln!("out of memory");
    std::process::abort()
}
