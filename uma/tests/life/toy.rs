//! The platform of these tests.

use std::alloc::Layout;
use std::cell::RefCell;
use std::fmt;
use std::sync::Mutex;

use uma::cache::CpuLocks;
use uma::core::{FnHooks, Item, Request};
use uma::{Origin, Platform, RawZone, Registry};
use uma_testkit::hooks::CountingHooks;
use uma_testkit::machine::{self, Cpus, OneThread, Sleeper, Unlocked};
use uma_testkit::{Budget, Fake, HeapMeta};

pub(crate) const CPUS: usize = 3;

pub(crate) struct Toy {
    pub pages: Unlocked<Budget<Fake>>,
    pub metadata: Unlocked<HeapMeta>,
    pub registry: Registry<OneThread>,
    pub reports: Mutex<Vec<String>>,
}

impl Toy {
    pub(crate) fn new() -> Self {
        machine::reset();
        Self {
            pages: Unlocked(Budget::new(Fake::new(), 64 << 20)),
            metadata: Unlocked(HeapMeta::new()),
            registry: Registry::new(),
            reports: Mutex::default(),
        }
    }

    /// One for zones that must be `static`, or live as long.
    pub(crate) fn leaked() -> On<'static> {
        On(Box::leak(Box::new(Self::new())))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.registry.visit(&mut |zone| names.push(zone.name().to_string()));
        names
    }

    /// Bytes of pages in use.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.0.used()
    }

    /// What must hold when all zones are gone.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(machine::complaints(), [""; 0]);
        assert_eq!(*self.reports.lock().unwrap(), [""; 0]);
        assert_eq!((self.bytes(), self.metadata.0.outstanding().runs), (0, 0));
        assert_eq!(self.names(), [""; 0]);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct On<'a>(pub &'a Toy);

// SAFETY: every method leads to the same toy.
unsafe impl<'a> Platform for On<'a> {
    type Pages = &'a Unlocked<Budget<Fake>>;
    type Cpus = CpuLocks<Cpus>;
    type Lock = OneThread;
    type Sleep = Sleeper;
    type Metadata = &'a Unlocked<HeapMeta>;

    fn pages(&self) -> Self::Pages {
        &self.0.pages
    }

    fn cpus(&self) -> Self::Cpus {
        CpuLocks::new(Cpus(CPUS))
    }

    fn sleep(&self) -> Sleeper {
        Sleeper
    }

    fn metadata(&self) -> Self::Metadata {
        &self.0.metadata
    }

    fn registry(&self) -> &Registry<OneThread> {
        &self.0.registry
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        self.0.reports.lock().unwrap().push(message.to_string());
    }
}

pub(crate) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

pub(crate) type Counting = &'static CountingHooks;

/// Hooks that count, for ever.
pub(crate) fn counting() -> Counting {
    Box::leak(Box::new(CountingHooks::new()))
}

/// Takes so many items.
pub(crate) fn take<'a, H, O>(zone: &RawZone<On<'a>, H, O>, count: usize) -> Vec<Item>
where
    H: uma::core::Hooks + Clone + Send + Sync + 'static,
    O: Origin<On<'a>>,
{
    (0..count).map(|_| zone.alloc(Request::NOWAIT).unwrap()).collect()
}

/// Gives items back.
pub(crate) fn give<'a, H, O>(zone: &RawZone<On<'a>, H, O>, items: Vec<Item>)
where
    H: uma::core::Hooks + Clone + Send + Sync + 'static,
    O: Origin<On<'a>>,
{
    for item in items {
        // SAFETY: the items came from this zone, and the tests use them no more.
        unsafe { zone.free(item) };
    }
}

pub(crate) fn bytes(item: Item, size: usize) -> &'static mut [u8] {
    // SAFETY: the tests own the items, and look at them one at a time.
    unsafe { std::slice::from_raw_parts_mut(item.as_ptr(), size) }
}

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What the hooks of [`telling`] were called for since this was asked last.
pub(crate) fn told() -> Vec<String> {
    LOG.take()
}

fn tell(context: *mut (), what: &str) {
    machine::outside_locks(what);
    // SAFETY: `telling` put it there.
    let name = unsafe { *context.cast::<&'static str>() };
    LOG.with(|log| log.borrow_mut().push(format!("{name} {what}")));
}

/// Hooks that note each call, under a name.
pub(crate) fn telling(name: &'static str) -> FnHooks {
    FnHooks {
        context: std::ptr::from_mut(Box::leak(Box::new(name))).cast(),
        init: Some(|context, _, _| {
            tell(context, "init");
            Ok(())
        }),
        fini: Some(|context, _| tell(context, "fini")),
        ctor: Some(|context, _, _, _| {
            tell(context, "ctor");
            Ok(())
        }),
        dtor: Some(|context, _, _| tell(context, "dtor")),
    }
}
