//! What free memory and red zones are filled with, and how that is looked at again: to the last byte.

use core::arch::asm;
use core::ptr;

/// Free items (FreeBSD's `uma_junk`).
pub(crate) const FREE: u32 = 0xdead_c0de;
/// Items that were not written since they were allocated (libumem).
pub(crate) const FRESH: u32 = 0xbadd_cafe;
/// Red zones (libumem).
pub(crate) const RED: u32 = 0xfeed_face;

const WORD: usize = size_of::<u64>();

const fn word(pattern: u32) -> u64 {
    (pattern as u64) << 32 | pattern as u64
}

/// Fills `len` bytes with a pattern.
///
/// # Safety
///
/// The range is valid for writes, and the caller's alone.
pub(crate) unsafe fn fill(at: *mut u8, len: usize, pattern: u32) {
    let word = word(pattern);
    let whole = len / WORD * WORD;
    let mut done = 0;
    while done < whole {
        // SAFETY: inside the range.
        unsafe { at.add(done).cast::<u64>().write_unaligned(word) };
        done += WORD;
    }
    // SAFETY: the rest of the range, less than a word.
    unsafe { ptr::copy_nonoverlapping((&raw const word).cast(), at.add(whole), len - whole) };
}

/// A byte that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) offset: usize,
    pub(crate) found: u8,
}

/// The first byte that differs from a pattern.
///
/// # Safety
///
/// The range is valid for reads, was written by [`fill`], and is the caller's alone.
pub(crate) unsafe fn differs(at: *const u8, len: usize, pattern: u32) -> Option<Bad> {
    let expected = word(pattern);
    let bytes = expected.to_ne_bytes();
    let mut done = 0;
    while len - done >= WORD {
        // SAFETY: inside the range.
        if unsafe { at.add(done).cast::<u64>().read_unaligned() } != expected {
            break;
        }
        done += WORD;
    }
    while done < len {
        // SAFETY: inside the range.
        let found = unsafe { at.add(done).read() };
        if found != bytes[done % WORD] {
            return Some(Bad { offset: done, found });
        }
        done += 1;
    }
    None
}

/// A sum of bytes whose meaning is not known, padding included.
///
/// # Safety
///
/// The range is valid for reads and writes, and the caller's alone.
pub(crate) unsafe fn sum(at: *mut u8, len: usize) -> u64 {
    // Bytes that nobody wrote are not to be read; after this the compiler must take them for written.
    // SAFETY: it does nothing.
    unsafe { asm!("/* {0} */", in(reg) at, options(nostack, preserves_flags)) };
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    while len - done >= WORD {
        // SAFETY: inside the range.
        add(unsafe { at.add(done).cast::<u64>().read_unaligned() });
        done += WORD;
    }
    while done < len {
        // SAFETY: inside the range.
        add(u64::from(unsafe { at.add(done).read() }));
        done += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Every byte counts, also the last ones of a length that is no multiple of a word: FreeBSD's checks
    /// skip those.
    #[test]
    fn every_byte_of_every_length_is_looked_at() {
        for len in 0..40 {
            for phase in 0..3 {
                let mut memory = [0x11_u8; 64];
                let at = memory[phase..].as_mut_ptr();
                // SAFETY: `phase + len` is below 64.
                unsafe {
                    fill(at, len, FREE);
                    assert_eq!(differs(at, len, FREE), None, "{len}");
                    for offset in 0..len {
                        let good = at.add(offset).read();
                        at.add(offset).write(good ^ 0x40);
                        let bad = Bad { offset, found: good ^ 0x40 };
                        assert_eq!(differs(at, len, FREE), Some(bad), "{len}");
                        at.add(offset).write(good);
                    }
                    assert_eq!(at.add(len).read(), 0x11, "one byte too many of {len}");
                }
            }
        }
    }

    #[test]
    fn every_byte_changes_the_sum() {
        for len in 1..40 {
            let mut memory = vec![7_u8; len];
            // SAFETY: the whole vector.
            let before = unsafe { sum(memory.as_mut_ptr(), len) };
            for offset in 0..len {
                memory[offset] ^= 1;
                // SAFETY: as above.
                assert_ne!(unsafe { sum(memory.as_mut_ptr(), len) }, before, "{offset} of {len}");
                memory[offset] ^= 1;
            }
        }
    }
}
