//! What may go to another thread, and what may be used by two: every public type of the crates, asserted both
//! ways. A bound that is missing from a hand-written `Send` or `Sync` has been the most frequent
//! fault of Rust's allocators and containers.
//!
//! A generic type is tried with a parameter that lacks what it needs. `every_public_type_is_here` fails
//! when a crate exports a type of which this file says nothing. The faces of `uma-kmem-compat` have a test like
//! this one among their own: `uma-kmem-compat/tests/send_sync.rs`.
//!
//! Each parameter is one of these: `Tied` is bound to its thread, `Own` may be sent but not shared
//! (as `Cell`), `Lent` may be shared but not sent (as `MutexGuard`).

use std::alloc::Layout;
use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::MutexGuard;

use parking_lot::RawMutex as Lock;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use uma::cache::bucket::{Bucket, Owned};
use uma::cache::{
    BucketCache, CacheConfig, CpuLocks, CurrentCpu, Front, PerCpu, Pinned, Rseq, Slot, Slots, Which,
};
use uma::core::{
    AllocError, ConfigError, ConfigFault, Constructed, Counting, Deadline, Fallback, FnHooks,
    FnSource, GroupPlace, Grouped, Handover, HandoverError, Item, ItemSource, LimitGroup,
    LimitPlace, Limited, Metadata, Name, NoHooks, NoSleep, PageCounts, PageError, PageRun,
    PageSupplier, Process, Quota, RawMutex, Reclaim, Refused, Region, Request, Share, Shared,
    Sleep, Spin, Stats,
};
use uma::debug::{
    Checked, Checks, Fill, GuardPool, Hardening, Known, Padded, Pads, Report, Subject, Trace,
    Verdict, Watched, Witness,
};
use uma::keg::{HeaderPlace, Keg, Leak, MetaKegs, NoMetadata, SlabConfig, SlabLayout};
use uma::mmap::sys::Kernel;
use uma::mmap::{Config, HugePages, MmapPages, MmapStats};
use uma::stream::{Record, Stream, StreamError};
use uma::{
    AllocPages, AtLimit, Busy, CacheZone, Cached, FnObject, FnPages, Foreign, ForkLocks, FreePages,
    GroupIn, Hold, Host, HostAccess, HostCpus, HostLock, InUse, Json, Maintenance, ObjectCache,
    ObjectCacheBuilder, ObjectHooks, Over, OwnSlabs, PaddedSlabs, Park, Prefilled, Primary,
    Prometheus, RawZone, RawZoneBuilder, Registry, Rejected, Reserved, SecondaryZone, Slabs, Stack,
    Stat, Supply, Table, Wishes, WithPages, Zone, ZoneBox, ZoneBuilder, ZoneError, ZoneFlags,
    ZoneGroup, ZoneInfo, ZoneRef, ZoneWitness,
};
use uma_backend_mmap::map::{
    KmFlags, Map, MapConfig, MapError, MapFault, MapFlags, MapLeaked, MapSegment, MapStats, MapType,
};
use uma_backend_static::{AddError, StaticMemory, StaticPages, StaticStats};
use uma_malloc::{
    Alignment, Malloc, MallocError, MallocFault, MallocStats, MallocType, Misuse, SizeClasses,
    TableFault, TypeLeak, TypeStats,
};
use uma_testkit::HeapMeta;
use uma_vmem::{
    Arena, ArenaConfig, ArenaStats, Constraints, Import, Leaked, NoParent, Policy, QuantumSource,
    Segment, SegmentKind, Span, VmemError, VmemFault,
};

/// Neither sent nor shared. It stands for whatever a type is generic over; nothing of it is ever called.
#[derive(Clone, Copy, Debug)]
struct Tied(PhantomData<*mut ()>);
/// Sent, but not shared.
type Own = Cell<u8>;
/// Shared, but not sent.
type Lent = MutexGuard<'static, u8>;

assert_not_impl_any!(Tied: Send, Sync);
assert_impl_all!(Own: Send);
assert_not_impl_any!(Own: Sync);
assert_impl_all!(Lent: Sync);
assert_not_impl_any!(Lent: Send);

// SAFETY: nothing is ever supplied.
unsafe impl PageSupplier for Tied {
    fn page_size(&self) -> usize {
        4096
    }
    fn alloc_pages(&self, _: Layout, _: Request) -> Result<PageRun, PageError> {
        Err(PageError::Exhausted)
    }
    unsafe fn free_pages(&self, _: PageRun) {}
}

// SAFETY: nothing is ever supplied.
unsafe impl Metadata for Tied {
    fn alloc_meta(&self, _: Layout) -> Option<NonNull<u8>> {
        None
    }
    unsafe fn free_meta(&self, _: NonNull<u8>, _: Layout) {}
}

// SAFETY: nothing is ever supplied.
unsafe impl ItemSource for Tied {
    fn layout(&self) -> Layout {
        Layout::new::<u64>()
    }
    fn import(&self, _: &mut [MaybeUninit<Item>], _: Request) -> Result<usize, AllocError> {
        Err(AllocError::Source)
    }
    unsafe fn release(&self, _: &[Item]) {}
}

// SAFETY: it never has an item, and never takes one.
unsafe impl PerCpu for Tied {
    fn cpus(&self) -> usize {
        1
    }
    fn pop(&self, _: Slots<'_>) -> Option<Item> {
        None
    }
    unsafe fn push(&self, _: Slots<'_>, _: Item) -> bool {
        false
    }
    fn swap(&self, _: Slots<'_>, _: Which, new: Owned) -> Result<Owned, Owned> {
        Err(new)
    }
    fn fence(&self, _: Slots<'_>, _: usize) -> bool {
        true
    }
    fn mode(&self) -> &'static str {
        "none"
    }
}

impl CurrentCpu for Tied {
    fn cpus(&self) -> usize {
        1
    }
    fn current(&self) -> usize {
        0
    }
}

impl Sleep for Tied {
    type Waker = ();
    fn now(&self) -> u64 {
        0
    }
    fn waker(&self) {}
    fn sleep(&self, _: Deadline) {}
    fn wake(&self, (): &()) {}
}

impl Import for Tied {
    fn import(&self, _: usize, _: usize, _: Request) -> Option<Span> {
        None
    }
    fn release(&self, _: Span) -> Result<(), VmemError> {
        Ok(())
    }
}

impl Witness for Tied {
    fn misuse(&self, _: &Report<'_>) -> Verdict {
        Verdict::Ignore
    }
}

impl<T> ObjectHooks<T> for Tied {
    fn init(&self) -> Result<T, Refused> {
        Err(Refused)
    }
}

/// A lock for one thread.
struct TiedLock(Cell<bool>, PhantomData<Rc<()>>);

// SAFETY: one thread at most can use it, and it tells whether it is taken.
unsafe impl RawMutex for TiedLock {
    const INIT: Self = Self(Cell::new(false), PhantomData);
    type GuardMarker = *mut ();
    fn lock(&self) {
        assert!(self.try_lock(), "nobody else could unlock it");
    }
    fn try_lock(&self) -> bool {
        !self.0.replace(true)
    }
    unsafe fn unlock(&self) {
        self.0.set(false);
    }
}

macro_rules! shared {
    ($($type:ty),* $(,)?) => { $(assert_impl_all!($type: Send, Sync);)* };
}
macro_rules! tied {
    ($($type:ty),* $(,)?) => { $(assert_not_impl_any!($type: Send, Sync);)* };
}
macro_rules! not_shared {
    ($($type:ty),* $(,)?) => { $(assert_not_impl_any!($type: Sync);)* };
}
macro_rules! not_sent {
    ($($type:ty),* $(,)?) => { $(assert_not_impl_any!($type: Send);)* };
}

type Meta = HeapMeta;
type Cpus = CpuLocks<HostCpus>;
type Pages = MmapPages;
type KegOf<P = &'static Pages, L = Lock, M = NoMetadata> = Keg<P, L, M>;

// --- uma-core

shared![
    AllocError,
    ConfigError,
    ConfigFault,
    Deadline,
    FnHooks,
    FnSource,
    HandoverError<u8>,
    Item,
    Name,
    NoHooks,
    NoSleep,
    PageCounts,
    PageError,
    Process,
    Reclaim,
    Refused,
    Region,
    Request,
    Spin,
    Stats,
];
// A run is owned by one at a time.
assert_impl_all!(PageRun: Send);
not_shared![PageRun];

shared![
    Constructed<KegOf, NoHooks>,
    Counting<Pages>,
    Fallback<Pages, Pages>,
    Handover<Pages, Pages>,
    Quota<Pages>,
    Shared<KegOf>,
    Share<'static, KegOf>,
    uma::core::Zone<KegOf>,
    Limited<KegOf, Lock, Park>,
    LimitPlace<'static, KegOf, Lock, Park>,
    LimitGroup<'static, Lock, Park>,
    Grouped<'static, KegOf, Lock, Park>,
    GroupPlace<'static, 'static, Lock, Park>,
];
tied![
    Constructed<Tied, NoHooks>,
    Constructed<KegOf, Tied>,
    Counting<Tied>,
    Fallback<Tied, Pages>,
    Fallback<Pages, Tied>,
    Handover<Tied, Pages>,
    Handover<Pages, Tied>,
    HandoverError<Tied>,
    Quota<Tied>,
    Shared<Tied>,
    Share<'static, Tied>,
    uma::core::Zone<Tied>,
    uma::core::Zone<KegOf, Tied>,
    Limited<Tied, Lock, Park>,
    Limited<KegOf, TiedLock, Park>,
    Limited<KegOf, Lock, Tied>,
    LimitPlace<'static, Tied, Lock, Park>,
    LimitPlace<'static, KegOf, TiedLock, Park>,
    LimitPlace<'static, KegOf, Lock, Tied>,
    LimitGroup<'static, TiedLock, Park>,
    LimitGroup<'static, Lock, Tied>,
    Grouped<'static, Tied, Lock, Park>,
    Grouped<'static, KegOf, TiedLock, Park>,
    Grouped<'static, KegOf, Lock, Tied>,
    GroupPlace<'static, 'static, TiedLock, Park>,
    GroupPlace<'static, 'static, Lock, Tied>,
];
// The later supplier is put in through a shared reference, so sharing the place sends it.
not_shared![Handover<Pages, Lent>, Handover<Pages, Own>, Handover<Own, Pages>];
not_sent![Handover<Pages, Lent>, Share<'static, Own>];

// --- uma-keg

shared![HeaderPlace, Leak, NoMetadata, SlabConfig, SlabLayout];
shared![KegOf, KegOf<Pages, Lock, Meta>, MetaKegs<&'static Pages, Lock>];
tied![KegOf<Tied>, KegOf<Pages, TiedLock>, KegOf<Pages, Lock, Tied>];
tied![MetaKegs<Tied, Lock>, MetaKegs<&'static Pages, TiedLock>];

// --- uma-cache

shared![CacheConfig, Cpus, Rseq, Slot, Which, Pinned<u8>, Front<Cpus>];
shared![BucketCache<KegOf, Cpus, Lock, Meta>];
tied![CpuLocks<Tied>, Pinned<Tied>, Front<Tied>, Slots<'static>];
not_shared![Front<Own>, Front<Lent>];
tied![
    BucketCache<Tied, Cpus, Lock, Meta>,
    BucketCache<KegOf, Tied, Lock, Meta>,
    BucketCache<KegOf, Cpus, TiedLock, Meta>,
    BucketCache<KegOf, Cpus, Lock, Tied>,
];
// The header of a bucket is changed by its owner alone, who holds an `Owned`.
assert_impl_all!(Bucket: Sync);
not_sent![Bucket];
assert_impl_all!(Owned: Send);
not_shared![Owned];

// --- uma-vmem

shared![
    ArenaConfig,
    ArenaStats,
    Constraints,
    Leaked,
    NoParent,
    Policy,
    Segment,
    SegmentKind,
    Span,
    VmemError,
    VmemFault,
    Arena<Lock, Meta, Park>,
    QuantumSource<'static, Lock, Meta, Park, NoParent>,
];
tied![
    Arena<TiedLock, Meta, Park>,
    Arena<Lock, Tied, Park>,
    Arena<Lock, Meta, Tied>,
    Arena<Lock, Meta, Park, Tied>,
    QuantumSource<'static, TiedLock, Meta, Park, NoParent>,
    QuantumSource<'static, Lock, Tied, Park, NoParent>,
    QuantumSource<'static, Lock, Meta, Tied, NoParent>,
    QuantumSource<'static, Lock, Meta, Park, Tied>,
];

// --- uma-debug

type W = ZoneWitness<Host>;

shared![uma::debug::Fault, Fill, Hardening, Known, Pads, Subject, Trace, Verdict];
shared![
    Checks<Lock, Meta, W>,
    Checked<'static, KegOf, Lock, Meta, W>,
    Padded<KegOf>,
    Watched<KegOf, Lock, Meta, W>,
    GuardPool<Lock, Pages>,
];
tied![
    // It shows a witness, of which it is not said that it may be shared.
    Report<'static>,
    Checks<TiedLock, Meta, W>,
    Checks<Lock, Tied, W>,
    Checks<Lock, Meta, Tied>,
    Checked<'static, Tied, Lock, Meta, W>,
    Checked<'static, KegOf, TiedLock, Meta, W>,
    Checked<'static, KegOf, Lock, Tied, W>,
    Checked<'static, KegOf, Lock, Meta, Tied>,
    Padded<Tied>,
    Watched<Tied, Lock, Meta, W>,
    Watched<KegOf, TiedLock, Meta, W>,
    Watched<KegOf, Lock, Tied, W>,
    Watched<KegOf, Lock, Meta, Tied>,
    GuardPool<TiedLock, Pages>,
    GuardPool<Lock, Tied>,
];

// --- uma-backend-mmap, uma-backend-static

shared![Config, HugePages, Kernel, MmapStats, Pages, AddError, StaticStats, StaticMemory<4096>];
shared![StaticPages<Lock>, StaticPages<Lock, 16384>];
tied![MmapPages<TiedLock>, StaticPages<TiedLock>];
shared![KmFlags, Map, MapConfig, MapError, MapFault, MapFlags, MapLeaked, MapSegment, MapStats];
shared![MapType];
tied![Map<TiedLock>];

// --- uma

shared![
    AllocPages,
    AtLimit,
    FnPages,
    ForkLocks,
    FreePages,
    GroupIn<Host>,
    Host,
    HostAccess,
    HostCpus,
    HostLock,
    InUse,
    Json<'static, [ZoneInfo]>,
    OwnSlabs,
    Park,
    Prometheus<'static>,
    Record<'static>,
    Registry<Lock>,
    Stat,
    Stream<'static>,
    StreamError,
    Table<'static, [ZoneInfo]>,
    Wishes,
    ZoneError,
    ZoneFlags,
    ZoneGroup,
    ZoneInfo,
];
// A thread's handle has one owner.
assert_impl_all!(Maintenance: Send);
// Only the visit during which one sees it counts it in.
shared![ZoneRef<'static>];
tied![Registry<TiedLock>, Json<'static, Registry<TiedLock>>, Table<'static, Registry<TiedLock>>,];

// Values are sent to whoever takes them out and not shared by the zone, so that a zone of anything may be shared.
shared![Zone<u64>, Zone<Tied>, Zone<Own>, Zone<Lent>, ZoneBuilder<u64>, ZoneBuilder<Tied>];
shared![ZoneBox<'static, u64>, Rejected<u64>, Busy<RawZone>];
tied![ZoneBox<'static, Tied>, Rejected<Tied>, Busy<Tied>];
assert_impl_all!(ZoneBox<'static, Own>: Send);
not_shared![ZoneBox<'static, Own>];
assert_impl_all!(ZoneBox<'static, Lent>: Sync);
not_sent![ZoneBox<'static, Lent>];
// Room may be filled on another thread; who fills it has it to himself.
assert_impl_all!(Reserved<'static, Tied>: Send);
not_shared![Reserved<'static, u64>, Prefilled<'static>];
assert_impl_all!(Prefilled<'static>: Send);

// Their bounds ask of the hooks, the objects and the platform what threads need.
shared![
    RawZone,
    RawZone<Host, FnHooks>,
    CacheZone<KegRef>,
    SecondaryZone<Host>,
    ObjectCache<u64>,
    ObjectCache<Own>,
    Cached<'static, u64>,
    FnObject<Tied>,
    Foreign<KegRef>,
    Hold<Host, NoHooks>,
    Over<KegRef>,
    PaddedSlabs<Host>,
    Primary<Host, NoHooks>,
    Slabs<Host>,
    Stack<Host, NoHooks>,
    Supply<Host, NoHooks>,
    W,
    WithPages<Host, &'static Pages>,
    RawZoneBuilder,
    ObjectCacheBuilder<u64>,
];
type KegRef = &'static KegOf;
tied![
    RawZoneBuilder<Host, Tied>,
    RawZoneBuilder<Host, NoHooks, Over<Tied>>,
    ObjectCacheBuilder<u64, Tied>,
    Over<Tied>,
    Foreign<Tied>,
    WithPages<Tied, &'static Pages>,
    WithPages<Host, Tied>,
];
assert_impl_all!(Cached<'static, Own>: Send);
not_shared![Cached<'static, Own>];

// --- uma-malloc

shared![
    Alignment,
    Malloc,
    MallocError,
    MallocFault,
    MallocStats,
    MallocType,
    Misuse,
    SizeClasses,
    TableFault,
    TypeLeak,
    TypeStats,
    uma_malloc::Fault,
];

// --- what owns something has one owner: no second one by `Clone` or `Copy`

macro_rules! not_copied {
    ($($type:ty),* $(,)?) => { $(assert_not_impl_any!($type: Clone, Copy);)* };
}
not_copied![
    PageRun,
    Owned,
    Slot,
    LimitPlace<'static, KegOf, Lock, Park>,
    GroupPlace<'static, 'static, Lock, Park>,
    KegOf,
    BucketCache<KegOf, Cpus, Lock, Meta>,
    Front<Cpus>,
    Arena<Lock, Meta, Park>,
    Checks<Lock, Meta, W>,
    GuardPool<Lock, Pages>,
    Pages,
    Map,
    StaticPages<Lock>,
    RawZone,
    Zone<u64>,
    ZoneBox<'static, u64>,
    ObjectCache<u64>,
    Cached<'static, u64>,
    Prefilled<'static>,
    Reserved<'static, u64>,
    Maintenance,
    Malloc,
    MallocType,
];

impl uma::core::Hooks for Tied {}

/// Whether a value can be sent, asked of a value whose type has no name.
macro_rules! is_sent {
    ($value:expr) => {{
        #[allow(dead_code, reason = "one of the two answers")]
        trait Otherwise {
            fn sent(&self) -> bool {
                false
            }
        }
        impl<T> Otherwise for &Probe<T> {}
        struct Probe<T>(PhantomData<T>);
        #[allow(dead_code, reason = "one of the two answers")]
        impl<T: Send> Probe<T> {
            fn sent(&self) -> bool {
                true
            }
        }
        fn probe<F: Future>(_: &F) -> Probe<F> {
            Probe(PhantomData)
        }
        let value = $value;
        (&probe(&value)).sent()
    }};
}

#[test]
fn futures_are_sent_as_what_they_hold() {
    let zone = Zone::<u64>::builder("of numbers").build().unwrap();
    assert!(is_sent!(zone.alloc_async(1)));
    assert!(is_sent!(zone.as_raw().alloc_async(Request::NOWAIT)));
    let tied = Zone::<Tied>::builder("of tied values").build().unwrap();
    assert!(!is_sent!(tied.alloc_async(Tied(PhantomData))));
    let cache = ObjectCache::<Own>::builder("of cells").init(|| Cell::new(1)).build().unwrap();
    assert!(is_sent!(cache.get_async()));

    let limited = Limited::<_, Lock, _>::new(Tied(PhantomData), None, Park);
    assert!(!is_sent!(limited.place(|| ())));
    let pages = &*Box::leak(Box::new(MmapPages::new()));
    let keg = KegOf::<_, Lock>::new(pages, Layout::new::<u64>(), SlabConfig::new()).unwrap();
    let limited = Limited::<_, Lock, _>::new(keg, None, Park);
    assert!(is_sent!(limited.place(|| ())));
}

/// Names that `pub use` lines of a crate's root or a public module export, and the public types that it defines itself.
fn exported(source: &str) -> Vec<String> {
    let defined = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")))
        .filter_map(|rest| rest.split(|char: char| !char.is_alphanumeric()).next())
        .map(str::to_owned);
    let text: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    text.split(';')
        .filter_map(|statement| statement.split("pub use ").nth(1))
        .flat_map(|used| {
            let list = used.rsplit_once('{').map_or(used, |(_, list)| list);
            list.trim_end_matches('}')
                .split(',')
                .map(|name| name.rsplit("::").next().unwrap_or_default().trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|name| name.starts_with(char::is_uppercase))
        .filter(|name| name.contains(char::is_lowercase))
        .chain(defined)
        .collect()
}

/// Traits, and types that other platforms have instead.
const NO_TYPES_HERE: &[&str] = &[
    "CurrentCpu",
    "Decommit",
    "Hooks",
    "Import",
    "ItemSource",
    "Metadata",
    "NoLock",
    "ObjectHooks",
    "Origin",
    "PageSupplier",
    "PerCpu",
    "Pin",
    "Platform",
    "Protect",
    "RawMutex",
    "Regions",
    "Sleep",
    "Unset",
    "Witness",
    "Zones",
];

#[test]
fn every_public_type_is_here() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let here = include_str!("send_sync.rs");
    let asserted = here.split("// --- uma-core").nth(1).unwrap();
    let asserted = asserted.split("fn exported").next().unwrap();
    let words: Vec<&str> = asserted.split(|char: char| !char.is_alphanumeric()).collect();
    let mut missing = Vec::new();
    let mut exports = Vec::new();
    for name in [
        "uma-core/src/lib.rs",
        "uma-vmem/src/lib.rs",
        "uma-keg/src/lib.rs",
        "uma-cache/src/lib.rs",
        "uma-cache/src/bucket.rs",
        "uma-debug/src/lib.rs",
        "uma-backend-mmap/src/lib.rs",
        "uma-backend-mmap/src/map/mod.rs",
        "uma-backend-mmap/src/sys.rs",
        "uma-backend-static/src/lib.rs",
        "uma/src/lib.rs",
        "uma/src/stat/stream.rs",
        "uma-malloc/src/lib.rs",
    ] {
        let lib = std::fs::read_to_string(format!("{root}/{name}")).unwrap();
        let found = exported(&lib);
        assert!(!found.is_empty(), "{name} exports nothing?");
        for export in found {
            let known = NO_TYPES_HERE.contains(&&*export)
                || words.contains(&&*export)
                || asserted.contains(&format!("type {export}"));
            if !known {
                missing.push(format!("{name}: {export}"));
            }
            exports.push(export);
        }
    }
    missing.sort_unstable();
    assert!(missing.is_empty(), "assert of these whether they are Send and Sync: {missing:?}");
    for name in NO_TYPES_HERE {
        assert!(exports.iter().any(|export| export == name), "{name} is exported no more");
    }
}
