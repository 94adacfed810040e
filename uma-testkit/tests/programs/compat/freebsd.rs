//! FreeBSD: zones, secondary zones, and malloc(9) with its types.

use std::alloc::Layout;
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use uma::core::{ConfigFault, Deadline, Reclaim};
use uma::debug::has_sanitizer;
use uma_kmem_compat::freebsd::{
    self, Callbacks, CreateError, Ctor, Dtor, Fini, Init, M, Type, Zone, ZoneFlags,
    malloc_usable_size,
};
use uma_malloc::SizeClasses;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::hooks::{
    faults, of_each_place, uma_ctor, uma_dtor, uma_fini, uma_init, uma_no_pages, uma_pages,
};
use super::{Cache, Counts, Face, Made};

pub struct Freebsd {
    /// Memory of an odd size is of the second.
    types: [Type; 2],
}

impl Freebsd {
    pub fn new() -> Self {
        Self { types: ["one", "two"].map(|name| Type::new(name, "memory of a program")) }
    }

    fn of(&self, size: usize) -> &Type {
        &self.types[size % 2]
    }
}

fn flags(how: How) -> M {
    let mut flags = if how.wait { M::WAITOK } else { M::NOWAIT };
    flags.set(M::ZERO, how.zero);
    flags.set(M::USE_RESERVE, how.more);
    flags
}

fn callbacks(place: usize, config: &CacheConfig) -> Callbacks {
    let mut callbacks = Callbacks::default();
    if config.constructed {
        callbacks.init = Some(of_each_place!(uma_init: Init)[place]);
        callbacks.fini = Some(of_each_place!(uma_fini: Fini)[place]);
    }
    if config.each {
        callbacks.ctor = Some(of_each_place!(uma_ctor: Ctor)[place]);
        callbacks.dtor = Some(of_each_place!(uma_dtor: Dtor)[place]);
    }
    callbacks
}

fn mode(how: u8) -> Reclaim {
    [Reclaim::Trim, Reclaim::Drain, Reclaim::DrainCpu][usize::from(how) % 3]
}

type Alloc = unsafe extern "C-unwind" fn(*mut c_void, usize, c_int, *mut u8, c_int) -> *mut c_void;
type Free = unsafe extern "C-unwind" fn(*mut c_void, usize, u8);

impl Face for Freebsd {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String> {
        let all = [
            ZoneFlags::NOFREE,
            ZoneFlags::NOBUCKET,
            ZoneFlags::MAXBUCKET,
            ZoneFlags::MINBUCKET,
            ZoneFlags::CONTIG,
            ZoneFlags::VM,
            ZoneFlags::NOTRIM,
            ZoneFlags::NOTOUCH,
        ];
        let mut wanted = ZoneFlags::empty();
        // Those of buckets exclude each other, and so do some of the others.
        for (bit, flag) in all.into_iter().enumerate() {
            if config.has(bit as u32) && wanted.is_empty() {
                wanted = flag;
            }
        }
        let size = config.size();
        let align = config.align().max(1);
        let callbacks = callbacks(place, config);
        // SAFETY: the callbacks take items of this size.
        let zone = unsafe { Zone::create_with("compat", size, callbacks, align - 1, wanted) };
        let zone = zone.map_err(|error| error.to_string())?;
        if config.pages {
            let (alloc, free) = (
                of_each_place!(uma_pages: Alloc)[place],
                of_each_place!(uma_no_pages: Free)[place],
            );
            // SAFETY: the functions give pages, and take them back.
            assert!(unsafe { zone.set_pages(Some(alloc), Some(free)) }, "the zone is cold");
        }
        let layout = Layout::from_size_align(size, align).expect("it was made");
        let (begins, ends, each) = (config.constructed, config.constructed, config.each);
        Ok(Made { cache: Box::new(zone), layout, begins, ends, each, zeroes: true })
    }

    fn memory(&self, size: usize, _: usize, how: How) -> (*mut u8, usize) {
        let how = How { more: false, ..how };
        (freebsd::malloc(size, self.of(size), flags(how)).cast(), 8)
    }

    unsafe fn free(&self, at: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { freebsd::free(at.cast(), self.of(size)) };
    }

    unsafe fn resize(&self, at: *mut u8, old: usize, size: usize, how: How) -> Option<*mut u8> {
        // Its type stays what it is.
        let same = old % 2 == size % 2;
        let how = How { more: false, ..how };
        // SAFETY: passed on to the caller.
        same.then(|| unsafe { freebsd::realloc(at.cast(), size, self.of(size), flags(how)) }.cast())
    }

    fn usable(&self, at: *mut u8) -> Option<usize> {
        Some(malloc_usable_size(at.cast()))
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.types.iter().map(|of| of.stats().bytes).sum())
    }

    fn classes(&self) -> &'static SizeClasses {
        SizeClasses::MALLOC9
    }

    fn used(&self) -> u64 {
        self.types.iter().map(|of| of.stats().used()).sum()
    }

    fn reap_all(&self, how: u8) {
        freebsd::reclaim(mode(how));
    }

    fn bad(&self, what: u8) {
        let none = ZoneFlags::empty();
        let fault = |size, align, flags| match Zone::create("bad", size, align, flags).unwrap_err()
        {
            CreateError::Config(error) => error.fault,
            other => panic!("{other}"),
        };
        match what % 4 {
            0 => assert_eq!(fault(0, 7, none), ConfigFault::ZeroSize),
            1 => assert_eq!(fault(64, 8, none), ConfigFault::BadAlign),
            2 => assert!(matches!(fault(1 << 40, 7, none), ConfigFault::SizeTooLarge(_))),
            _ => {
                let unknown = ZoneFlags::from_bits_retain(1 << 31);
                let error = Zone::create("bad", 64, 7, unknown).unwrap_err();
                assert_eq!(error, CreateError::UnknownFlags(1 << 31));
            }
        }
    }

    fn end(&self) {
        for of in &self.types {
            assert_eq!((of.stats().used(), of.stats().bytes), (0, 0), "memory of a type that ends");
            of.end();
        }
    }
}

impl Cache for Zone {
    fn take(&self, how: How) -> Option<NonNull<u8>> {
        self.alloc(flags(how))
    }

    unsafe fn give(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.free(object) };
    }

    fn counts(&self) -> Counts {
        let stats = self.stats();
        assert_eq!(self.cur(), stats.used());
        Counts { used: stats.used(), cached: stats.cached, allocs: stats.allocs }
    }

    fn set_limit(&self, max: Option<u64>) -> Option<Option<u64>> {
        // 0 changes nothing, and there is no way to lift it.
        let now = self.set_max(max.unwrap_or(0));
        assert_eq!(now, self.max());
        Some(Some(now).filter(|&now| now != 0))
    }

    fn prime(&self, items: u64) {
        let failed = faults();
        let result = self.prealloc(items);
        let now = faults();
        assert!(result.is_ok() || now != failed || self.stats().secondary, "{result:?}");
    }

    fn low_water(&self, items: u64) {
        self.set_max_cached(items);
        // With the sanitizer, there is a quarantine beside the caches.
        let most = self.stats().cached <= items || has_sanitizer();
        assert!(most, "more is cached than may be");
    }

    fn reap(&self, how: u8) -> bool {
        self.reclaim(mode(how));
        mode(how) == Reclaim::DrainCpu
    }

    fn second(&self, place: usize, config: &CacheConfig) -> Option<Box<dyn Cache>> {
        // SAFETY: the callbacks take items of the primary's size.
        match unsafe { self.second_create("second", callbacks(place, config)) } {
            Ok(zone) => Some(Box::new(zone)),
            Err(error) => panic!("a secondary zone cannot be made: {error}"),
        }
    }

    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)> {
        let used = self.cur();
        assert_eq!(self.wait_unused(Deadline::at(0)), used == 0, "with {used} in use");
        if used != 0 {
            // It would be told and its memory stay, which is nothing to do over and over.
            return Err((self, used));
        }
        (*self).destroy();
        Ok(())
    }
}
