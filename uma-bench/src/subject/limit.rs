//! The limit: the least code that could do it, a bare array of pointers in thread-local storage.
//!
//! Nothing is checked or counted, threads that end take their memory with them, and nothing ever goes
//! back to the system. When the array is empty it gets new memory or what another thread left; when it
//! is full, half of it is left to others under a lock.

use std::ptr::NonNull;

use crate::subject::{Block, Subject, out_of_memory};
use crate::sync::{AtomicUsize, Mutex, Ordering, UnsafeCell};

/// Sizes that have an array, and how many pointers it holds.
const SIZES: [usize; 6] = [64, 200, 256, 1000, 1024, 4096];
const ROOM: usize = 10_240;
const HALF: usize = ROOM / 2;

struct Stack {
    count: usize,
    blocks: [*mut u8; ROOM],
}

thread_local! {
    static STACKS: UnsafeCell<[Stack; SIZES.len()]> = const {
        UnsafeCell::new([const { Stack { count: 0, blocks: [std::ptr::null_mut(); ROOM] } };
            SIZES.len()])
    };
}

/// What threads left to others, by size.
static LEFT: Mutex<[Vec<Vec<Block>>; SIZES.len()]> =
    Mutex::new([const { Vec::new() }; SIZES.len()]);

/// The array in thread-local storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit<const N: usize>;

impl<const N: usize> Limit<N> {
    const AT: usize = {
        let mut at = 0;
        while SIZES[at] != N {
            at += 1;
        }
        at
    };

    #[inline(always)]
    fn stack() -> *mut Stack {
        // The constant index is in range, see `AT`.
        STACKS.with(|stacks| {
            // SAFETY: the index is below the length.
            let mut stack = unsafe { stacks.get().cast::<Stack>().add(Self::AT) };
            // By way of a register: where the address is an offset in thread-local storage alone, a processor may not
            // see that a load is of what was stored just now, and the pair takes twice as long.
            // SAFETY: it does nothing.
            unsafe {
                core::arch::asm!("/* {0} */", inout(reg) stack, options(nostack, preserves_flags));
            }
            stack
        })
    }

    /// Fills an empty array and takes one block.
    ///
    /// # Safety
    ///
    /// `stack` is this thread's, and empty.
    #[cold]
    #[inline(never)]
    unsafe fn fill(stack: *mut Stack) -> *mut u8 {
        let left = LEFT.lock().ok().and_then(|mut left| left[Self::AT].pop());
        let blocks = left.unwrap_or_else(|| fresh(N, HALF.min((1 << 20) / N)));
        let Some((last, rest)) = blocks.split_last() else { out_of_memory() };
        for (at, block) in rest.iter().enumerate() {
            // SAFETY: the array is the caller's, and has room for so many.
            unsafe { (*stack).blocks[at] = block.0.as_ptr() };
        }
        // SAFETY: as above.
        unsafe { (*stack).count = rest.len() };
        last.0.as_ptr()
    }

    /// Leaves half of a full array to others.
    ///
    /// # Safety
    ///
    /// `stack` is this thread's, and full.
    #[cold]
    #[inline(never)]
    unsafe fn leave(stack: *mut Stack) {
        // SAFETY: the array is the caller's.
        let stack = unsafe { &mut *stack };
        let half = stack.blocks[HALF..].iter().copied().filter_map(NonNull::new).map(Block);
        let half = half.collect::<Vec<_>>();
        stack.count = HALF;
        if let Ok(mut left) = LEFT.lock() {
            left[Self::AT].push(half);
        }
    }
}

/// Brings this thread's free blocks, and those that were left, into the order of addresses: the next
/// to be popped is the lowest.
pub(crate) fn refresh() {
    STACKS.with(|stacks| {
        // SAFETY: the arrays are this thread's, and no call uses them now.
        for stack in unsafe { &mut *stacks.get() } {
            let count = stack.count;
            stack.blocks[..count].sort_unstable_by(|a, b| b.cmp(a));
        }
    });
    if let Ok(mut left) = LEFT.lock() {
        for blocks in left.iter_mut() {
            let mut all: Vec<Block> = blocks.drain(..).flatten().collect();
            all.sort_unstable_by_key(|block| std::cmp::Reverse(block.0));
            blocks.extend(all.chunks(HALF).map(<[Block]>::to_vec));
        }
    }
}

/// New blocks from a region that is reserved once and touched as it is used.
fn fresh(size: usize, count: usize) -> Vec<Block> {
    const REGION: usize = 16 << 30;
    static BASE: Mutex<Option<Block>> = Mutex::new(None);
    static USED: AtomicUsize = AtomicUsize::new(0);
    let base = {
        let Ok(mut base) = BASE.lock() else { out_of_memory() };
        *base.get_or_insert_with(|| {
            // SAFETY: a new mapping, at a place that the system chooses.
            let region = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    REGION,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            match NonNull::new(region.cast::<u8>()) {
                Some(at) if region != libc::MAP_FAILED => Block(at),
                _ => out_of_memory(),
            }
        })
    };
    let bytes = (size * count).next_multiple_of(4096);
    let from = USED.fetch_add(bytes, Ordering::Relaxed);
    if from + bytes > REGION {
        out_of_memory();
    }
    // Highest first, so that they are popped in the order of addresses.
    // SAFETY: all within the region.
    (0..count).rev().map(|at| Block(unsafe { base.0.add(from + at * size) })).collect()
}

// SAFETY: a pointer is in one array, or out.
unsafe impl<const N: usize> Subject for Limit<N> {
    type Held = Block;

    #[inline(always)]
    fn take(self) -> Block {
        let stack = Self::stack();
        // SAFETY: the array is this thread's, used by one call at a time; the blocks below the count
        // are ours, and large enough for a word.
        unsafe {
            let count = (*stack).count;
            let pointer = if count == 0 {
                Self::fill(stack)
            } else {
                (*stack).count = count - 1;
                *(*stack).blocks.as_ptr().add(count - 1)
            };
            Block::returned(pointer)
        }
    }

    #[inline(always)]
    fn write(held: &mut Block, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Block) {
        let stack = Self::stack();
        // SAFETY: as above; after `leave` there is room.
        unsafe {
            if (*stack).count == ROOM {
                Self::leave(stack);
            }
            let count = (*stack).count;
            *(*stack).blocks.as_mut_ptr().add(count) = held.0.as_ptr();
            (*stack).count = count + 1;
        }
    }

    fn block(held: &Block) -> Option<Block> {
        Some(*held)
    }
}
