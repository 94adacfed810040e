//! Caches whose memory stays what it is, in a process that looks at everything (`UMA_DEBUG=debug`). It is a
//! process of its own, since the environment is looked at once.
#![cfg(feature = "linux")]

use std::ffi::c_void;

use uma_kmem_compat::linux::{CacheArgs, Gfp, KmemCache, SlabFlags};
use uma_kmem_compat::policy;

unsafe extern "C-unwind" fn construct(object: *mut c_void) {
    // SAFETY: objects have 64 bytes.
    unsafe { object.cast::<u64>().write(7) };
}

/// Who reads under RCU may take a lock in an object that was freed meanwhile. That is no misuse.
#[test]
fn free_objects_that_stay_what_they_are_may_change() {
    // SAFETY: there is no other thread that looks at the environment.
    unsafe { std::env::set_var("UMA_DEBUG", "debug") };
    // A report ends the process.
    policy::set("linux.misuse", "abort").unwrap();
    let flags = SlabFlags::TYPESAFE_BY_RCU;
    // SAFETY: the constructor takes memory of 64 bytes.
    let cache = unsafe {
        KmemCache::create_with("typesafe", 64, CacheArgs::default(), Some(construct), flags)
    };
    let cache = cache.unwrap();
    let object = cache.alloc(Gfp::KERNEL).unwrap();
    // SAFETY: the object is the cache's; its memory stays.
    unsafe {
        cache.free(object);
        object.cast::<u64>().add(1).write(1);
    }
    // Out of quarantine, and up again.
    cache.shrink();
    let again: Vec<_> = (0..1000).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
    assert!(again.contains(&object));
    // SAFETY: they came from this cache, and are used no more.
    again.into_iter().for_each(|object| unsafe { cache.free(object) });
}
