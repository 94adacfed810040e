//! Owner tokens: a pattern over a whole piece of memory that only its owner knows.
//!
//! Each 8-byte word depends on the token and on its place, so memory that was moved, shared, or
//! written to by somebody else does not verify.

use std::ptr::NonNull;

const fn word(token: u64, index: usize) -> u64 {
    // The finaliser of splitmix64; never all zero bytes by chance worth speaking of.
    let mut x = token.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

// Whole words are written and read as such: most of the time of many a test is spent here.

/// Writes `token` over `len` bytes.
///
/// # Safety
///
/// The memory is valid for writes.
pub unsafe fn stamp(at: NonNull<u8>, len: usize, token: u64) {
    let (words, rest) = (len / 8, len % 8);
    for index in 0..words {
        // SAFETY: the word is inside the `len` bytes that the caller vouches for.
        unsafe { at.cast::<u64>().add(index).write_unaligned(word(token, index)) };
    }
    let last = word(token, words).to_ne_bytes();
    // SAFETY: these are the bytes after the last whole word.
    unsafe { at.add(words * 8).copy_from_nonoverlapping(NonNull::from(&last).cast(), rest) };
}

/// Whether `len` bytes still hold `token`.
///
/// # Errors
///
/// The offset of the first word that does not.
///
/// # Safety
///
/// The memory is valid for reads and was stamped in full.
pub unsafe fn verify(at: NonNull<u8>, len: usize, token: u64) -> Result<(), usize> {
    let (words, rest) = (len / 8, len % 8);
    for index in 0..words {
        // SAFETY: as for the write in `stamp`; the caller vouches for reads.
        let found = unsafe { at.cast::<u64>().add(index).read_unaligned() };
        if found != word(token, index) {
            return Err(index * 8);
        }
    }
    let mut found = [0; 8];
    // SAFETY: as above, of the bytes after the last whole word.
    unsafe { at.add(words * 8).copy_to_nonoverlapping(NonNull::from(&mut found).cast(), rest) };
    if found[..rest] != word(token, words).to_ne_bytes()[..rest] {
        return Err(words * 8);
    }
    Ok(())
}
