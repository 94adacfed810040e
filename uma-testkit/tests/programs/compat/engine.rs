//! The engine beside a face: the same program on a zone for each cache, and on a heap, with nothing of the face.
//!
//! ```text
//!   operation --> face ----> its zone       object, or nothing      what both can be asked:
//!           `---> Objects -> a zone         object, or an error     in use, handed out, hooks, limit, drained
//!           `---> Memory --> a heap         memory, or misuse       alignment, usable bytes, bytes in use
//! ```
//!
//! The engine has the size, alignment, hooks and limit of the face's, and moves in step with it: what a face fails in
//! because its callback refused, or its pages ran out, is not asked of the engine. Not compared is what depends on
//! addresses, or on the CPU on which the thread happens to be: how many free objects are cached, unless all were
//! drained.

use std::alloc::Layout;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use uma::core::{AllocError, Hooks, Item, Reclaim, Refused, Request, Stats};
use uma::{DefaultPlatform, RawZone, SecondaryZone};
use uma_malloc::{Malloc, SizeClasses};

use super::Counts;

/// What the hooks of a zone count.
#[derive(Debug, Default)]
struct Tally {
    constructed: AtomicI64,
    ctors: AtomicU64,
    dtors: AtomicU64,
}

/// The hooks of a zone, which do nothing but count.
#[derive(Clone)]
struct Counting {
    tally: Arc<Tally>,
    constructs: bool,
}

impl Hooks for Counting {
    fn keeps_state(&self) -> bool {
        self.constructs
    }

    unsafe fn init(&self, _: Item, _: Request) -> Result<(), Refused> {
        self.tally.constructed.fetch_add(1, SeqCst);
        Ok(())
    }

    unsafe fn fini(&self, _: Item) {
        self.tally.constructed.fetch_sub(1, SeqCst);
    }

    unsafe fn ctor(&self, _: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        self.tally.ctors.fetch_add(1, SeqCst);
        Ok(())
    }

    unsafe fn dtor(&self, _: Item, _: *mut ()) {
        self.tally.dtors.fetch_add(1, SeqCst);
    }
}

type Own = RawZone<DefaultPlatform, Counting>;
type Second = SecondaryZone<DefaultPlatform, Counting, Counting>;

enum Zone {
    Own(Own),
    Second(Second),
    /// Ended, as that of the face.
    Gone,
}

/// Does the same with a zone of either kind.
macro_rules! on {
    ($zone:expr, $it:ident => $body:expr) => {
        match $zone {
            Zone::Own($it) => $body,
            Zone::Second($it) => $body,
            Zone::Gone => panic!("the zone was ended"),
        }
    };
}

/// A zone beside a cache.
pub(super) struct Objects {
    zone: Zone,
    tally: Arc<Tally>,
    align: usize,
    /// By the addresses of the face's.
    items: HashMap<usize, Item>,
    /// Whether it has the limit of the face's: none of 0 can be set.
    has_limit: bool,
    /// How many more objects the face says it handed out.
    more: u64,
}

impl Objects {
    pub(super) fn new(layout: Layout, constructs: bool) -> Self {
        let tally = Arc::new(Tally::default());
        let hooks = Counting { tally: tally.clone(), constructs };
        // SAFETY: the hooks touch no item.
        let zone = unsafe { RawZone::builder("beside", layout).hooks(hooks) }.build();
        Self::of(Zone::Own(zone.expect("the face has such a zone")), tally, layout.align())
    }

    /// A secondary zone.
    pub(super) fn second(&self, constructs: bool) -> Self {
        let Zone::Own(primary) = &self.zone else { panic!("no primary zone") };
        let tally = Arc::new(Tally::default());
        let hooks = Counting { tally: tally.clone(), constructs };
        // SAFETY: as above.
        let zone = unsafe { primary.secondary("beside, second").hooks(hooks) }.build();
        Self::of(Zone::Second(zone.expect("the face has such a zone")), tally, self.align)
    }

    fn of(zone: Zone, tally: Arc<Tally>, align: usize) -> Self {
        Self { zone, tally, align, items: HashMap::new(), has_limit: true, more: 0 }
    }

    fn stats(&self) -> Stats {
        on!(&self.zone, zone => zone.stats())
    }

    fn alloc(&self) -> Result<Item, AllocError> {
        on!(&self.zone, zone => zone.alloc(Request::NOWAIT)).map_err(|error| error.reason())
    }

    /// # Safety
    ///
    /// The item is the zone's, and is used no more.
    unsafe fn free(&self, item: Item) {
        // SAFETY: passed on to the caller.
        on!(&self.zone, zone => unsafe { zone.free(item) });
    }

    /// The face has handed out an object.
    pub(super) fn took(&mut self, object: NonNull<u8>) {
        let address = object.addr().get();
        assert!(address.is_multiple_of(self.align), "{object:p} is not aligned to {}", self.align);
        match self.alloc() {
            Ok(item) => assert!(self.items.insert(address, item).is_none(), "it is out twice"),
            // The face's limit of 0 lets nothing out, so there is none that this zone could lack.
            Err(error) => panic!("the face has an object, and the engine none: {error}"),
        }
    }

    /// The face gets an object back.
    pub(super) fn gave(&mut self, object: NonNull<u8>) {
        let item = self.items.remove(&object.addr().get()).expect("it is out");
        // SAFETY: it is out of this zone, and not written down any more.
        unsafe { self.free(item) };
    }

    /// The face has no object, because of its limit.
    pub(super) fn is_full(&self) {
        if self.has_limit {
            match self.alloc() {
                Err(error) => assert_eq!(error, AllocError::Limit, "on the engine"),
                Ok(item) => {
                    // SAFETY: it came just now.
                    unsafe { self.free(item) };
                    panic!("the limit of the face is reached, and that of the engine is not");
                }
            }
        }
    }

    pub(super) fn set_limit(&mut self, max: Option<u64>) {
        self.has_limit = max != Some(0);
        let max = max.and_then(NonZeroU64::new);
        on!(&self.zone, zone => zone.set_max_items(max)).expect("it was made");
    }

    pub(super) fn drain(&self) {
        on!(&self.zone, zone => zone.reclaim(Reclaim::DrainCpu));
        assert_eq!(self.stats().cached, 0, "items in caches of the engine that were drained");
    }

    /// Objects that are constructed.
    pub(super) fn constructed(&self) -> i64 {
        self.tally.constructed.load(SeqCst)
    }

    /// What the face counts agrees. `plain` is whether nothing happened that the face may count or not.
    pub(super) fn agrees(&mut self, counts: &Counts, plain: bool) {
        let stats = self.stats();
        assert_eq!(counts.used, stats.used(), "objects in use, and on the engine");
        let more = counts.allocs.wrapping_sub(stats.allocs);
        if plain {
            assert_eq!(more, self.more, "objects handed out more often than on the engine");
        }
        self.more = more;
    }

    /// As many uses began and ended.
    pub(super) fn agrees_on_uses(&self, ctors: u64, dtors: u64) {
        let Tally { ctors: began, dtors: ended, .. } = &*self.tally;
        let own = (began.load(SeqCst), ended.load(SeqCst));
        assert_eq!((ctors, dtors), own, "calls of ctor and dtor, and on the engine");
    }

    /// Ends it if nothing is in use. Returns how much is.
    pub(super) fn destroy(&mut self) -> u64 {
        let used = self.stats().used();
        let busy = match std::mem::replace(&mut self.zone, Zone::Gone) {
            Zone::Own(zone) => zone.try_destroy().err().map(|busy| Zone::Own(busy.zone)),
            Zone::Second(zone) => zone.try_destroy().err().map(|busy| Zone::Second(busy.zone)),
            Zone::Gone => None,
        };
        assert_eq!(busy.is_some(), used != 0, "a zone of the engine is ended if it is not in use");
        self.zone = busy.unwrap_or(Zone::Gone);
        used
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for item in std::mem::take(&mut self.items).into_values() {
            // SAFETY: it is out of this zone.
            unsafe { self.free(item) };
        }
    }
}

/// A heap beside that of a face.
pub(super) struct Memory {
    heap: Malloc,
    /// By the addresses of the face's.
    pieces: HashMap<usize, NonNull<u8>>,
    /// What was freed just now.
    last: Option<NonNull<u8>>,
}

impl Memory {
    pub(super) fn new(classes: &'static SizeClasses) -> Self {
        Self { heap: Malloc::new("beside", classes), pieces: HashMap::new(), last: None }
    }

    fn enter(&mut self, at: NonNull<u8>, piece: NonNull<u8>, align: usize, usable: Option<usize>) {
        assert!(piece.addr().get().is_multiple_of(align), "{piece:p} is not aligned to {align}");
        if let Some(usable) = usable {
            assert_eq!(Ok(usable), self.heap.usable_size(piece), "usable bytes, and on the engine");
        }
        self.pieces.insert(at.addr().get(), piece);
        self.last = None;
    }

    fn piece(&mut self, at: NonNull<u8>) -> NonNull<u8> {
        self.pieces.remove(&at.addr().get()).expect("it is out")
    }

    /// The face has given memory of so many bytes, of which so many may be used.
    pub(super) fn took(
        &mut self,
        at: NonNull<u8>,
        size: usize,
        align: usize,
        usable: Option<usize>,
    ) {
        let piece = self.heap.alloc_aligned(size, align, Request::NOWAIT);
        self.enter(at, piece.expect("the face has such memory"), align, usable);
    }

    /// Its size was changed.
    pub(super) fn resized(
        &mut self,
        old: NonNull<u8>,
        at: NonNull<u8>,
        size: usize,
        align: usize,
        usable: Option<usize>,
    ) {
        let piece = self.piece(old);
        // SAFETY: it is in use, and the old pointer is used no more.
        let piece = unsafe { self.heap.realloc_aligned(piece, size, align, Request::NOWAIT) };
        self.enter(at, piece.expect("the face has such memory"), align, usable);
    }

    pub(super) fn gave(&mut self, at: NonNull<u8>) {
        let piece = self.piece(at);
        // SAFETY: it is in use, and is used no more.
        unsafe { self.heap.free(piece) };
        self.last = Some(piece);
    }

    /// The face has refused to free what lies so far behind the beginning of memory in use.
    pub(super) fn refuses(&self, at: NonNull<u8>, offset: usize) {
        let piece = self.pieces[&at.addr().get()];
        // SAFETY: it lies in the memory; the engine finds out that none begins there.
        let freed = unsafe { self.heap.try_free(piece.add(offset)) };
        assert!(freed.is_err(), "the engine frees what lies within memory");
    }

    /// The face has refused to free what was freed just now.
    pub(super) fn refuses_again(&self) {
        if let Some(piece) = self.last {
            // SAFETY: it is free, and the engine finds that out.
            assert!(unsafe { self.heap.try_free(piece) }.is_err(), "the engine frees it again");
        }
    }

    pub(super) fn reap(&self) {
        self.heap.reclaim(Reclaim::DrainCpu);
    }

    /// As many pieces are in use, and bytes, where the face can say.
    pub(super) fn agrees(&self, used: u64, bytes: Option<u64>) {
        let stats = self.heap.stats();
        assert_eq!(stats.used(), used, "pieces of memory on the engine, and in use");
        if let Some(bytes) = bytes {
            assert_eq!(bytes, stats.bytes, "bytes of memory in use, and on the engine");
        }
    }

    /// All is given back.
    pub(super) fn end(&self) {
        assert_eq!(self.heap.stats().bytes, 0);
        self.reap();
        assert_eq!(self.heap.stats().held, 0, "pages of the engine that are held for nothing");
    }
}
