//! Bad input gets an error that names the zone, what was asked, and what is wrong with it.

use std::alloc::Layout;
use std::ptr::NonNull;

use uma::core::{AllocError, ConfigError, ConfigFault, PageError, Request};
use uma::{Hardening, ObjectCache, RawZone, Zone};

/// Tries to build a raw zone and returns why that failed.
fn refused(size: usize, align: usize) -> ConfigError {
    let builder = RawZone::builder("bad", Layout::new::<u8>()).size_align(size, align);
    // With red zones as without.
    let error = builder.clone().hardening(Hardening::RELEASE).build();
    let error = error.expect_err("such a zone cannot be");
    assert_eq!(builder.hardening(Hardening::DEBUG).build().unwrap_err(), error);
    error
}

#[track_caller]
fn assert_says(error: &ConfigError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "\"{text}\" does not say {word}");
    }
}

#[test]
fn a_size_of_zero() {
    let error = refused(0, 8);
    assert_eq!(error.fault, ConfigFault::ZeroSize);
    assert_says(&error, &["\"bad\"", "0-byte", "must have a size"]);
}

#[test]
fn an_alignment_that_is_no_power_of_two() {
    for align in [0, 3, 24] {
        let error = refused(64, align);
        assert_eq!(error.fault, ConfigFault::BadAlign);
        assert_says(
            &error,
            &["\"bad\"", "64-byte", &format!("aligned to {align}"), "power of two"],
        );
    }
}

#[test]
fn a_size_that_overflows() {
    let error = refused(usize::MAX - 3, 8);
    assert_eq!(error.fault, ConfigFault::Overflow);
    assert_says(&error, &["\"bad\"", &(usize::MAX - 3).to_string(), "overflows"]);
}

#[test]
fn a_size_or_alignment_beyond_what_slabs_do() {
    let error = refused((1 << 30) + 1, 8);
    assert_eq!(error.fault, ConfigFault::SizeTooLarge(1 << 30));
    assert_says(&error, &["\"bad\"", "1073741825", "1073741824"]);
    let error = refused(64, 4 << 20);
    assert_eq!(error.fault, ConfigFault::AlignTooLarge(2 << 20));
    assert_says(&error, &["\"bad\"", "4194304", "2097152"]);
}

#[test]
fn a_limit_of_zero() {
    let error = Zone::<u64>::builder("none").max_items(0).build().unwrap_err();
    assert_eq!(error.fault, ConfigFault::ZeroLimit);
    assert_says(&error, &["\"none\"", "8-byte", "limit of 0"]);
    let cache = ObjectCache::<u64>::builder("none").init(|| 1).max_items(0).build();
    assert_eq!(cache.unwrap_err().fault, ConfigFault::ZeroLimit);
}

/// A static zone has nobody to return a bad description to: its allocations fail.
#[test]
fn a_static_zone_of_values_too_large() {
    static HUGE: Zone<[u8; 2 << 30]> = Zone::new("huge");
    let item = HUGE.as_raw().alloc(Request::NOWAIT);
    let error = item.unwrap_err();
    assert_eq!(error.reason(), AllocError::Unsupported);
    let text = error.to_string();
    assert!(text.contains("\"huge\"") && text.contains("2147483648 bytes"), "{text}");
}

#[test]
fn an_exhausted_region() {
    mod board {
        //! A platform over 256 KiB.

        use uma::cache::{CpuLocks, CurrentCpu};
        use uma::core::NoSleep;
        use uma::keg::MetaKegs;
        use uma::{Platform, Registry};
        use uma_backend_static::{StaticMemory, StaticPages};

        type Lock = spin::Mutex<()>;
        type Pages = &'static StaticPages<Lock>;

        static MEMORY: StaticMemory<{ 256 << 10 }> = StaticMemory::new();
        static PAGES: StaticPages<Lock> = StaticPages::new(&MEMORY);
        static METADATA: MetaKegs<Pages, Lock> = MetaKegs::with_slabs(&PAGES, 4096, 4096);
        static REGISTRY: Registry<Lock> = Registry::new();

        #[derive(Clone, Copy, Debug)]
        pub(super) struct One;

        impl CurrentCpu for One {
            fn cpus(&self) -> usize {
                1
            }
            fn current(&self) -> usize {
                0
            }
        }

        #[derive(Clone, Copy, Debug)]
        pub(super) struct Board;

        // SAFETY: every method leads to a static.
        unsafe impl Platform for Board {
            type Pages = Pages;
            type Cpus = CpuLocks<One>;
            type Lock = Lock;
            type Sleep = NoSleep;
            type Metadata = &'static MetaKegs<Pages, Lock>;
            fn pages(&self) -> Pages {
                &PAGES
            }
            fn cpus(&self) -> Self::Cpus {
                CpuLocks::new(One)
            }
            fn sleep(&self) -> NoSleep {
                NoSleep
            }
            fn metadata(&self) -> Self::Metadata {
                &METADATA
            }
            fn registry(&self) -> &Registry<Lock> {
                &REGISTRY
            }
            fn largest_slab(&self) -> usize {
                4096
            }
        }
    }

    static BLOCKS: Zone<[u8; 1000], board::Board> = Zone::new_in("block", board::Board);
    let mut blocks = Vec::new();
    let rejected = loop {
        match BLOCKS.alloc([blocks.len() as u8; 1000]) {
            Ok(block) => blocks.push(block),
            Err(rejected) => break rejected,
        }
    };
    assert!(blocks.len() > 200, "only {} blocks", blocks.len());
    assert_eq!(rejected.value, [blocks.len() as u8; 1000]);
    assert_eq!(rejected.error.reason(), AllocError::Pages(PageError::Exhausted));
    let text = rejected.to_string();
    assert!(text.contains("\"block\"") && text.contains("1000 bytes"), "{text}");
    assert!(text.contains("exhausted"), "{text}");
    // And nothing else is wrong.
    blocks.pop();
    blocks.push(BLOCKS.alloc([7; 1000]).unwrap());
    for (n, block) in blocks.iter().enumerate().take(blocks.len() - 1) {
        assert_eq!(**block, [n as u8; 1000]);
    }
}

/// Frees that cannot be right panic with what and where; the zone goes on.
#[test]
fn a_double_free_is_found_when_the_item_reaches_its_slab() {
    let layout = Layout::from_size_align(64, 8).unwrap();
    let plain = RawZone::builder("twice", layout).hardening(Hardening::RELEASE);
    let zone = plain.bucket(0).build().unwrap();
    let item = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: the second free is the misuse under test; without caches it is found at once, and
    // changes nothing.
    let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
        zone.free(item);
        zone.free(item);
    }));
    let message = second.unwrap_err().downcast::<String>().expect("a message");
    assert!(message.contains(&format!("{:#x}", item.addr())), "{message}");
    assert!(message.contains("free"), "{message}");
    let again = zone.alloc(Request::NOWAIT).unwrap();
    // SAFETY: taken just now.
    unsafe { zone.free(again) };
}

#[test]
fn values_without_a_size() {
    let zone = Zone::<()>::builder("unit").build().unwrap();
    let (a, b) = (zone.alloc(()).unwrap(), zone.alloc(()).unwrap());
    assert_ne!(NonNull::from(&*a), NonNull::from(&*b));
    #[repr(align(64))]
    struct Aligned;
    let zone = Zone::<Aligned>::builder("aligned").build().unwrap();
    let one = zone.alloc(Aligned).unwrap();
    assert_eq!(NonNull::from(&*one).addr().get() % 64, 0);
}
