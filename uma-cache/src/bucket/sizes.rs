//! How many items a bucket has room for.

/// Bucket sizes and the largest item that starts with each: FreeBSD's bucket zones, whose memory
/// fills powers of two from 30 on.
const SIZES: [(u16, usize); 8] =
    [(254, 64), (126, 128), (62, 256), (30, 512), (16, 1024), (8, 2048), (4, 3072), (2, 4096)];

/// The largest bucket, in items.
pub const MAX_CAPACITY: u16 = SIZES[0].0;

/// How many items of `size` bytes a bucket starts with: many small ones, few large ones, and none
/// above 64 KiB, where a cached item costs more than it saves.
pub const fn capacity_for(size: usize) -> u16 {
    let mut at = 0;
    while at < SIZES.len() {
        if size <= SIZES[at].1 {
            return SIZES[at].0;
        }
        at += 1;
    }
    if size <= 64 << 10 { 1 } else { 0 }
}

/// The bucket size after this one, for buckets that grow.
pub(crate) fn next_capacity(capacity: u16) -> u16 {
    let larger = SIZES.iter().rev().map(|&(size, _)| size).find(|&size| size > capacity);
    larger.unwrap_or(MAX_CAPACITY)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::bucket::Bucket;

    #[test]
    fn sizes_follow_the_table() {
        assert_eq!(
            [1, 64, 65, 128, 512, 1024, 4096, 4097, 65536, 65537].map(capacity_for),
            [254, 254, 126, 126, 30, 16, 2, 1, 1, 0]
        );
        // With its header of two words a bucket of 30, 62, 126 or 254 fills a power of two.
        for capacity in [30, 62, 126, 254] {
            assert!(Bucket::layout(capacity).size().is_power_of_two());
        }
    }
}
