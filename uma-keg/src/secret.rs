//! What a keg signs its slabs with.

use crate::sync::{AtomicUsize, Ordering};

static KEGS: AtomicUsize = AtomicUsize::new(0);

/// A number that no other keg of this program is likely to have, and not zero.
///
/// It must not depend on the keg's own address, because a keg may be moved. The count keeps kegs
/// apart, the address of the first slab makes it hard to guess where addresses are random.
pub(crate) fn new(first_slab: usize) -> usize {
    let count = KEGS.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let mixed =
        (first_slab ^ count.rotate_right(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
    // Odd, so that no signature is the plain address of a slab.
    (mixed ^ (mixed >> (usize::BITS / 2))) | 1
}
