//! `kmem_cache_stat`: the figures of a cache, by the names of its kstat.

use super::KmemCache;
use crate::common::objects::Answer;
use crate::sync::{AtomicU64, Ordering};

impl KmemCache {
    /// A figure by its name in the kstat of the class `kmem_cache`, or `None` if there is no such name
    /// (`kmem_cache_stat`). What has no meaning here is 0.
    ///
    /// Two differ from the original: `alloc` counts allocations and nothing else, and `buf_inuse` is what is in
    /// use, so that `buf_total` is the sum of `buf_inuse` and `buf_avail`.
    pub fn stat(&self, field: &str) -> Option<u64> {
        let stats = self.stats();
        let objects = self.objects();
        let (moves, counts) = (&objects.moves().counts, objects.counts());
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let answer = |answer: Answer| count(&moves.answers[answer as usize]);
        let total = stats.used() + stats.free();
        Some(match field {
            "buf_size" => stats.size as u64,
            "align" => stats.align as u64,
            "chunk_size" if stats.stride == 0 => stats.size as u64,
            "chunk_size" => stats.stride as u64,
            "slab_size" => stats.slab_bytes as u64,
            "alloc" => stats.allocs,
            "alloc_fail" => stats.fails,
            "free" => stats.frees,
            "buf_constructed" => stats.cached,
            "buf_avail" => stats.free(),
            "buf_inuse" => stats.used(),
            "buf_total" => total,
            "buf_max" => objects.most(total),
            // Those in existence: how many came and went nobody counts.
            "slab_create" => stats.slabs,
            "magazine_size" => u64::from(stats.bucket_size),
            "reap" => count(&counts.reaps),
            "defrag" | "scan" => count(&counts.scans),
            "move_callbacks" => count(&moves.callbacks),
            "move_yes" => answer(Answer::Yes),
            "move_no" => answer(Answer::No),
            "move_later" => answer(Answer::Later),
            "move_dont_need" => answer(Answer::DontNeed),
            "move_dont_know" => answer(Answer::DontKnow),
            "move_slabs_freed" => count(&moves.slabs_freed),
            "move_reclaimable" => count(&moves.reclaimable),
            "depot_alloc" | "depot_free" | "depot_contention" | "slab_alloc" | "slab_free"
            | "slab_destroy" | "vmem_source" | "hash_size" | "hash_lookup_depth"
            | "hash_rescale" | "full_magazines" | "empty_magazines" | "move_hunt_found" => 0,
            _ => return None,
        })
    }
}
