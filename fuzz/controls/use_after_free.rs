//! A control, and no target: an item is read after it was freed, inside its slab. What the fuzz targets are built
//! with must find that, or that they found no such thing means nothing. `ci/fuzz.sh` runs it with one byte, which
//! says whose item it is.
#![no_main]

use std::alloc::Layout;

use libfuzzer_sys::fuzz_target;
use uma::core::Request;
use uma::{Hardening, RawZone};
use uma_kmem_compat::{freebsd, linux, netbsd, solaris, umem};

fuzz_target!(|data: &[u8]| {
    let [which] = *data else { return };
    let layout = Layout::from_size_align(61, 1).expect("a layout");
    // Zones as `typed` and `mt_replay` make them, and those of each face as `kmem_compat` does.
    let zone = RawZone::builder("control", layout).hardening(Hardening::ASAN.quarantine(0));
    let zone = zone.build().expect("there is memory");
    // SAFETY: each item is freed once; and the read after that is what this is for.
    unsafe {
        let at = match which {
            0 => {
                let item = zone.alloc(Request::NOWAIT).expect("there is memory");
                zone.free(item);
                item.as_non_null()
            }
            1 => {
                let cache = solaris::KmemCache::create("control", 61, 0, solaris::Kmc::empty());
                let cache = Box::leak(Box::new(cache.expect("there is memory")));
                let at = cache.alloc(solaris::Km::NOSLEEP).expect("there is memory");
                cache.free(at);
                at
            }
            2 => {
                let cache = umem::UmemCache::create("control", 61, 0, umem::Umc::empty());
                let cache = Box::leak(Box::new(cache.expect("there is memory")));
                let at = cache.alloc(umem::Umem::DEFAULT).expect("there is memory");
                cache.free(at);
                at
            }
            3 => {
                let none = linux::SlabFlags::empty();
                let cache = linux::KmemCache::create("control", 61, 0, none);
                let cache = Box::leak(Box::new(cache.expect("there is memory")));
                let at = cache.alloc(linux::Gfp::NOWAIT).expect("there is memory");
                cache.free(at);
                at
            }
            4 => {
                let pool = netbsd::Pool::create("control", 61, netbsd::PoolArgs::default());
                let pool = Box::leak(Box::new(pool.expect("there is memory")));
                let at = pool.get(netbsd::PoolFlags::NOWAIT).expect("there is memory");
                pool.put(at);
                at
            }
            5 => {
                let none = freebsd::ZoneFlags::empty();
                let zone = freebsd::Zone::create("control", 61, 0, none);
                let zone = Box::leak(Box::new(zone.expect("there is memory")));
                let at = zone.alloc(freebsd::M::NOWAIT).expect("there is memory");
                zone.free(at);
                at
            }
            _ => return,
        };
        std::hint::black_box(at.read_volatile());
    }
});
