//! Owner tokens: a pattern over a whole piece of memory that only its owner knows.
//!
//! Each 8-byte word depends on the token and on its place, so memory that was moved, shared, or
//! written to by somebody else does not verify.

use std::ptr::NonNull;

const fn word(token: u64, index: u64) -> [u8; 8] {
    // The finaliser of splitmix64; never all zero bytes by chance worth speaking of.
    let mut x = token.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).to_ne_bytes()
}

/// Writes `token` over `len` bytes.
///
/// # Safety
///
/// The memory is valid for writes.
pub unsafe fn stamp(at: NonNull<u8>, len: usize, token: u64) {
    for (index, offset) in (0..len).step_by(8).enumerate() {
        let bytes = word(token, index as u64);
        // SAFETY: the offset and the bytes written from there are inside the `len` bytes that the
        // caller vouches for.
        unsafe {
            at.add(offset)
                .copy_from_nonoverlapping(NonNull::from(&bytes).cast(), 8.min(len - offset));
        };
    }
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
    for (index, offset) in (0..len).step_by(8).enumerate() {
        let expected = word(token, index as u64);
        let count = 8.min(len - offset);
        let mut found = [0; 8];
        // SAFETY: as for the write in `stamp`; the caller vouches for reads.
        unsafe { at.add(offset).copy_to_nonoverlapping(NonNull::from(&mut found).cast(), count) };
        if found[..count] != expected[..count] {
            return Err(offset);
        }
    }
    Ok(())
}
