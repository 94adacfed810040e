//! The interfaces of other systems, each against the same model.
//!
//! Every face is brought to one vocabulary ([`Face`], [`Cache`], [`Elements`]), a few lines for each, and the
//! model knows what must come of an operation: whether something may fail, and why; what a piece of memory holds;
//! how many objects are in use, exist and are constructed; what is reported, and that nothing came of it.
//!
//! Two things are the process's own, and so a program has them for itself: what callbacks count, and the heaps of
//! `kmem_alloc` and its like. Programs run one after another, whatever thread they are on.

#![allow(clippy::missing_safety_doc, reason = "callbacks are called as their systems have it")]

pub mod hooks;

mod freebsd;
mod linux;
pub mod netbsd;
mod solaris;
mod umem;

use std::alloc::Layout;
use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uma_core::Item;
use uma_kmem_compat::policy;
use uma_testkit::model::{Model, Ranges};
use uma_testkit::ops::compat::{CacheConfig, CompatOp, CompatProgram, Face as Which, How, bytes};
use uma_testkit::{caught, token};

use hooks::{PLACE, PLACES, Place, construct, is_constructed};

/// What is counted of a cache.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub used: u64,
    pub cached: u64,
}

/// A cache, pool or zone.
pub trait Cache {
    fn take(&self, how: How) -> Option<NonNull<u8>>;

    /// # Safety
    ///
    /// The object came from here, and is used no more. Likewise below.
    unsafe fn give(&self, object: NonNull<u8>);

    /// All of `n`, or none or fewer as the face has it.
    fn take_many(&self, how: How, n: usize) -> Vec<NonNull<u8>> {
        let mut all = Vec::new();
        while all.len() < n {
            match caught(|| self.take(how)) {
                Ok(Some(object)) => all.push(object),
                Err(panic) if !panic.is_planned() => panic!("{panic}"),
                _ => break,
            }
        }
        all
    }

    unsafe fn give_many(&self, objects: &[NonNull<u8>]) {
        for &object in objects {
            // SAFETY: passed on to the caller.
            match caught(|| unsafe { self.give(object) }) {
                Err(panic) if !panic.is_planned() => panic!("{panic}"),
                _ => {}
            }
        }
    }

    unsafe fn discard(&self, object: NonNull<u8>) {
        // SAFETY: passed on to the caller.
        unsafe { self.give(object) };
    }

    fn counts(&self) -> Counts;

    /// Changes the limit, and says what it is now; `None` where there are none.
    fn set_limit(&self, _max: Option<u64>) -> Option<Option<u64>> {
        None
    }

    fn prime(&self, _items: u64) {}
    fn low_water(&self, _items: u64) {}
    fn reap(&self, how: u8);

    /// The objects in use, where the face can say.
    fn in_use(&self) -> Option<Vec<usize>> {
        None
    }

    /// Whether it finds a second free of an object at once, with nothing coming of it.
    fn finds_twice(&self, _checked: bool) -> bool {
        false
    }

    /// `used` of `n` objects that were set aside.
    fn sheaf(&self, _n: usize, _used: usize) -> Option<Vec<NonNull<u8>>> {
        None
    }

    fn elements(&self, _least: usize) -> Option<Box<dyn Elements>> {
        None
    }

    fn second(&self, _place: usize, _config: &CacheConfig) -> Option<Box<dyn Cache>> {
        None
    }

    /// Ends it; with objects in use it stays, and says how many.
    fn destroy(self: Box<Self>) -> Result<(), (Box<dyn Cache>, u64)>;
}

/// A pool of elements with a reserve.
pub trait Elements {
    fn take(&self, wait: bool) -> Option<NonNull<u8>>;

    /// # Safety
    ///
    /// The element came from here, and is used no more.
    unsafe fn give(&self, element: NonNull<u8>);
    fn resize(&self, least: usize) -> bool;
    /// How many elements are to be in reserve, and are.
    fn reserve(&self) -> (usize, usize);
    /// Elements that came from the cache and did not go back.
    fn out(&self) -> u64;
    /// From the `k`-th on there is no element any more.
    fn fails_from(&self, k: Option<u64>);
    fn refused(&self) -> u64;
}

/// What was made.
pub struct Made {
    pub cache: Box<dyn Cache>,
    pub layout: Layout,
    /// Whether objects are constructed, and taken apart.
    pub begins: bool,
    pub ends: bool,
    /// Whether something is called at each allocation and free.
    pub each: bool,
    /// Whether zeros can be asked for.
    pub zeroes: bool,
}

/// The rest of an interface.
pub trait Face {
    fn create(&self, place: usize, config: &CacheConfig) -> Result<Made, String>;
    /// Memory, and what it is aligned to at least.
    fn memory(&self, size: usize, align: usize, how: How) -> (*mut u8, usize);
    /// # Safety
    ///
    /// If it is memory in use, nobody uses it any more. Likewise below.
    unsafe fn free(&self, at: *mut u8, size: usize);

    /// `None` where sizes do not change.
    unsafe fn resize(&self, _at: *mut u8, _old: usize, _size: usize, _how: How) -> Option<*mut u8> {
        None
    }

    /// Bytes that may be used, at least `size`.
    fn usable(&self, _at: *mut u8, size: usize) -> usize {
        size
    }

    /// Pieces of memory in use.
    fn used(&self) -> u64;

    /// Whether a free of memory of `size` bytes with `other` is found.
    fn finds_size(&self, _size: usize, _other: usize, _checked: bool) -> bool {
        false
    }

    fn reap_all(&self, how: u8);
    /// Describes what cannot be, and looks at the answer.
    fn bad(&self, what: u8);
    fn end(&self) {}
}

static REPORTS: AtomicU64 = AtomicU64::new(0);
static LAST: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" {
    fn uma_compat_set_reporter(reporter: Option<unsafe extern "C-unwind" fn(*const c_char)>);
}

unsafe extern "C-unwind" fn reporter(text: *const c_char) {
    REPORTS.fetch_add(1, SeqCst);
    // SAFETY: it is text that ends in a zero.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// Runs a program on one face, and panics if that does anything that its page in `docs/compat.md` does not say.
pub fn compat(program: &CompatProgram) {
    let _one = alone(program.config.checked);
    let face: Box<dyn Face> = match program.config.face {
        Which::Solaris => Box::new(solaris::Solaris),
        Which::Umem => Box::new(umem::Umem),
        Which::Linux => Box::new(linux::Linux),
        Which::Netbsd => Box::new(netbsd::Netbsd),
        Which::Freebsd => Box::new(freebsd::Freebsd::new()),
    };
    drive(&*face, program);
    face.end();
}

/// Sets the policies that programs want, and sees to it that there is one program at a time.
pub fn alone(checked: bool) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, value) in [
        // Misuse is told, and harms nothing; nothing waits for memory; what is in use stays.
        ("solaris.misuse", "report"),
        ("umem.misuse", "report"),
        ("linux.misuse", "report"),
        ("netbsd.misuse", "report"),
        ("freebsd.misuse", "report"),
        ("solaris.destroy", "refuse"),
        ("umem.destroy", "refuse"),
        ("solaris.sleep", "null"),
        ("solaris.update", "off"),
        ("netbsd.waitok", "fail"),
        ("freebsd.waitok", "null"),
        ("solaris.kmem_flags", if checked { "on" } else { "off" }),
        ("linux.slab_debug", if checked { "on" } else { "off" }),
        ("netbsd.diagnostic", if checked { "on" } else { "off" }),
    ] {
        policy::set(key, value).expect("there is such a policy");
    }
    // SAFETY: it may be called from any thread.
    unsafe { uma_compat_set_reporter(Some(reporter)) };
    one
}

/// Runs a program on a face, whoever it is.
pub fn drive(face: &dyn Face, program: &CompatProgram) {
    // A program that failed may have left some behind.
    let before = face.used();
    hooks::complaints();
    let mut run = Run {
        face,
        checked: program.config.checked,
        places: [const { None }; PLACES],
        pool: None,
        ranges: Ranges::default(),
        memory: Vec::new(),
        before,
        tokens: 0,
        last: None,
    };
    for (index, op) in program.ops.iter().enumerate() {
        let found = |what| -> ! { panic!("operation {index}, CompatOp::{op:?}: {what}") };
        match caught(|| run.step(op)) {
            Err(panic) if !panic.is_planned() => found(panic),
            _ => {}
        }
        if let Err(panic) = caught(|| run.settle()) {
            found(panic);
        }
    }
    run.finish();
}

struct Held {
    at: NonNull<u8>,
    size: usize,
    token: u64,
}

impl Held {
    #[track_caller]
    fn check(&self, size: usize) {
        // SAFETY: the memory is ours, and was stamped when it was had.
        let result = unsafe { token::verify(self.at, self.size.min(size), self.token) };
        assert_eq!(result, Ok(()), "offset at which memory changed while it was out");
    }
}

/// What is in one of the places.
struct Entry {
    /// Gone, if only secondary zones still stand on it.
    cache: Option<Box<dyn Cache>>,
    of: Option<usize>,
    model: Model,
    layout: Layout,
    begins: bool,
    ends: bool,
    each: bool,
    zeroes: bool,
    limit: Option<u64>,
}

struct Run<'f> {
    face: &'f dyn Face,
    checked: bool,
    places: [Option<Entry>; PLACES],
    /// Where its elements come from, the pool, and those that are out.
    pool: Option<(usize, Box<dyn Elements>, Vec<Held>)>,
    /// Everything that is out.
    ranges: Ranges,
    memory: Vec<Held>,
    before: u64,
    tokens: u64,
    /// What was freed just now, with its size.
    last: Option<(NonNull<u8>, usize)>,
}

fn pick(i: u8, len: usize) -> Option<usize> {
    usize::from(i).checked_rem(len)
}

impl Run<'_> {
    fn step(&mut self, op: &CompatOp) {
        let last = self.last.take();
        match *op {
            CompatOp::Create { cache, config } => self.create(usize::from(cache) % PLACES, &config),
            CompatOp::Second { of, cache, config } => {
                self.second(usize::from(of) % PLACES, usize::from(cache) % PLACES, &config);
            }
            CompatOp::Destroy { cache } => self.destroy(usize::from(cache) % PLACES),
            CompatOp::Alloc { cache, how, times } => {
                for _ in 0..=times % 8 {
                    self.alloc(usize::from(cache) % PLACES, how);
                }
            }
            CompatOp::AllocBulk { cache, how, n } => {
                self.alloc_bulk(usize::from(cache) % PLACES, how, usize::from(n) % 33);
            }
            CompatOp::Free { cache, i, times } => {
                for _ in 0..=times % 8 {
                    let place = usize::from(cache) % PLACES;
                    // SAFETY: it is given up.
                    self.give(place, i, |cache, object| unsafe { cache.give(object) });
                }
            }
            CompatOp::FreeBulk { cache, i, n } => {
                let place = usize::from(cache) % PLACES;
                let all: Vec<_> = (0..n % 33).map_while(|_| self.put_down(place, i)).collect();
                if let Some(cache) = self.cache(place) {
                    // SAFETY: they are given up.
                    unsafe { cache.give_many(&all) };
                }
            }
            CompatOp::Discard { cache, i } => {
                let place = usize::from(cache) % PLACES;
                // SAFETY: it is given up.
                self.give(place, i, |cache, object| unsafe { cache.discard(object) });
            }
            CompatOp::FreeTwice { cache, i } => self.free_twice(usize::from(cache) % PLACES, i),
            CompatOp::Sheaf { cache, n, used } => {
                let place = usize::from(cache) % PLACES;
                let n = usize::from(n) % 33;
                let used = usize::from(used) % (n + 1);
                let faults = PLACE[place].faults();
                let Some(cache) = self.cache(place) else { return };
                match cache.sheaf(n, used) {
                    Some(all) => {
                        all.into_iter().for_each(|object| self.took(place, object, false));
                    }
                    None => assert!(
                        self.face_has_none(place) || PLACE[place].faults() != faults,
                        "no sheaf, for no reason"
                    ),
                }
            }
            CompatOp::SetLimit { cache, max } => {
                let place = usize::from(cache) % PLACES;
                let Some(cache) = self.cache(place) else { return };
                let max = Some(u64::from(max)).filter(|&max| max != 255);
                // What a drain unwinds with comes after the limit is set; the second time says which it is.
                let limit = caught(|| cache.set_limit(max)).unwrap_or_else(|panic| {
                    assert!(panic.is_planned(), "{panic}");
                    cache.set_limit(max)
                });
                if let Some(limit) = limit {
                    self.places[place].as_mut().expect("it is there").limit = limit;
                }
            }
            CompatOp::Prime { cache, items } => {
                if let Some(cache) = self.cache(usize::from(cache) % PLACES) {
                    cache.prime(u64::from(items % 64));
                }
            }
            CompatOp::LowWater { cache, items } => {
                if let Some(cache) = self.cache(usize::from(cache) % PLACES) {
                    cache.low_water(u64::from(items % 64));
                }
            }
            CompatOp::Reap { cache, how } => {
                if let Some(cache) = self.cache(usize::from(cache) % PLACES) {
                    cache.reap(how);
                }
            }
            CompatOp::ReapAll { how } => self.face.reap_all(how),
            CompatOp::Pool { cache, least } => {
                let place = usize::from(cache) % PLACES;
                if self.pool.is_none()
                    && let Some(cache) = self.cache(place)
                    && let Some(pool) = cache.elements(usize::from(least) % 9)
                {
                    self.pool = Some((place, pool, Vec::new()));
                }
            }
            CompatOp::PoolAlloc { how } => self.pool_alloc(how),
            CompatOp::PoolFree { i } => {
                let Some((_, pool, out)) = &mut self.pool else { return };
                let Some(index) = pick(i, out.len()) else { return };
                let held = out.swap_remove(index);
                held.check(usize::MAX);
                self.ranges.remove(held.at.addr().get());
                // SAFETY: it is given up; it is an object of a cache, which may have a constructor.
                unsafe {
                    construct(held.at, held.size);
                    pool.give(held.at);
                }
            }
            CompatOp::PoolResize { least } => {
                if let Some((_, pool, _)) = &self.pool {
                    let least = usize::from(least) % 9;
                    assert!(pool.resize(least), "a handful of elements cannot be listed");
                    assert_eq!(pool.reserve().0, least.max(1));
                }
            }
            CompatOp::PoolFails { k } => {
                if let Some((_, pool, _)) = &self.pool {
                    pool.fails_from(Some(u64::from(k % 8) + 1));
                }
            }
            CompatOp::PoolEnd => self.pool_end(),
            CompatOp::Memory { base, shift, align, how } => {
                let align = if align % 10 == 0 { 0 } else { 1 << (align % 10 - 1) };
                self.take_memory(bytes(base, shift), align, how);
            }
            CompatOp::FreeMemory { i } => {
                let Some(index) = pick(i, self.memory.len()) else { return };
                let held = self.memory.swap_remove(index);
                held.check(usize::MAX);
                self.ranges.remove(held.at.addr().get());
                // SAFETY: it is given up.
                unsafe { self.face.free(held.at.as_ptr(), held.size) };
                self.last = Some((held.at, held.size));
            }
            CompatOp::Resize { i, base, shift, how } => self.resize(i, bytes(base, shift), how),
            CompatOp::WrongSize { i, base, shift } => {
                let Some(index) = pick(i, self.memory.len()) else { return };
                let (at, size, other) =
                    (self.memory[index].at, self.memory[index].size, bytes(base, shift));
                if other != size && self.face.finds_size(size, other, self.checked) {
                    // SAFETY: it is found out, and nothing is done.
                    self.refused(|face| unsafe { face.free(at.as_ptr(), other) });
                }
            }
            CompatOp::Interior { i, offset } => {
                let Some(index) = pick(i, self.memory.len()) else { return };
                let Held { at, size, .. } = self.memory[index];
                if size > 1 {
                    let offset = 1 + usize::from(offset) % (size - 1);
                    // SAFETY: it lies in the memory; as above.
                    let inside = unsafe { at.add(offset) }.as_ptr();
                    // SAFETY: as above.
                    self.refused(|face| unsafe { face.free(inside, size) });
                }
            }
            CompatOp::Again => {
                if let Some((at, size)) = last {
                    // SAFETY: it is free, and that is found out.
                    self.refused(|face| unsafe { face.free(at.as_ptr(), size) });
                }
            }
            CompatOp::CtorRefuses { cache, k } => {
                PLACE[usize::from(cache) % PLACES].refuses.fail_at(u64::from(k % 16) + 1);
            }
            CompatOp::CtorPanics { cache, k } => {
                self.no_panics();
                PLACE[usize::from(cache) % PLACES].panics.fail_at(u64::from(k % 16) + 1);
            }
            CompatOp::DtorPanics { cache, k } => {
                self.no_panics();
                PLACE[usize::from(cache) % PLACES].end_panics.fail_at(u64::from(k % 16) + 1);
            }
            CompatOp::PagesFail { cache, k } => {
                PLACE[usize::from(cache) % PLACES].pages_fail.fail_from(u64::from(k % 4) + 1);
            }
            CompatOp::NoFaults => self.no_faults(),
            CompatOp::BadCreate { what } => self.face.bad(what),
            CompatOp::Verify => self.verify(),
        }
    }

    /// One panic is planned at a time: a second on top of it would end the process.
    fn no_panics(&self) {
        for place in &PLACE {
            place.panics.never();
            place.end_panics.never();
        }
    }

    fn no_faults(&self) {
        PLACE.iter().for_each(Place::no_faults);
        if let Some((_, pool, _)) = &self.pool {
            pool.fails_from(None);
        }
    }

    fn cache(&self, place: usize) -> Option<&dyn Cache> {
        self.places[place].as_ref()?.cache.as_deref()
    }

    /// Whether there are no sheaves.
    fn face_has_none(&self, place: usize) -> bool {
        self.cache(place).is_none_or(|cache| cache.sheaf(0, 0).is_none())
    }

    fn create(&mut self, place: usize, config: &CacheConfig) {
        if self.places[place].is_some() {
            return;
        }
        PLACE[place].reset(config.size());
        match self.face.create(place, config) {
            Ok(made) => self.places[place] = Some(Entry::new(made, None)),
            Err(why) => panic!("it cannot be made: {why}"),
        }
    }

    fn second(&mut self, of: usize, place: usize, config: &CacheConfig) {
        if self.places[place].is_some() {
            return;
        }
        let Some(Entry { cache: Some(cache), of: None, layout, begins, .. }) = &self.places[of]
        else {
            return;
        };
        let (layout, begins) = (*layout, *begins);
        PLACE[place].reset(layout.size());
        if let Some(cache) = cache.second(place, config) {
            let begins = begins || config.constructed;
            let (ends, each, zeroes) = (config.constructed, config.each, true);
            let made = Made { cache, layout, begins, ends, each, zeroes };
            self.places[place] = Some(Entry::new(made, Some(of)));
        }
    }

    fn destroy(&mut self, place: usize) {
        if self.pool.as_ref().is_some_and(|(of, ..)| *of == place) {
            return;
        }
        // One that unwinds would take the cache with it, whatever is in use.
        PLACE[place].end_panics.never();
        let Some(entry) = &mut self.places[place] else { return };
        let Some(cache) = entry.cache.take() else { return };
        let live = entry.model.live();
        match cache.destroy() {
            Ok(()) => assert_eq!(live, 0, "it was ended with objects in use"),
            Err((cache, used)) => {
                entry.cache = Some(cache);
                assert_eq!(used, live, "objects that are said to be in use");
                assert_ne!(live, 0, "it cannot be ended, for no reason");
            }
        }
        self.sweep();
    }

    /// Places are free again when nothing stands on them.
    fn sweep(&mut self) {
        // Twice: a secondary zone may be the last that stood on its primary.
        for place in (0..PLACES).chain(0..PLACES) {
            let stands =
                |entry: &Option<Entry>| entry.as_ref().is_some_and(|it| it.of == Some(place));
            let Some(Entry { cache: None, .. }) = &self.places[place] else { continue };
            if self.places.iter().any(stands) {
                continue;
            }
            let entry = self.places[place].take().expect("it is there");
            let Place { made, used, pages, .. } = &PLACE[place];
            if entry.ends {
                assert_eq!(
                    made.load(SeqCst),
                    0,
                    "objects of place {place} that were not taken apart"
                );
            }
            assert_eq!(used.load(SeqCst), 0, "ctors of place {place} without a dtor");
            assert_eq!(pages.load(SeqCst), 0, "pages of place {place} that did not come back");
        }
    }

    fn alloc(&mut self, place: usize, how: How) {
        let Some(entry) = &self.places[place] else { return };
        let Some(cache) = &entry.cache else { return };
        let (full, faults) = (entry.is_full(), self.faults(place));
        // Nobody is there to wait for.
        let how = How { wait: how.wait && !full, ..how };
        match cache.take(how) {
            Some(object) => {
                assert!(!full, "an object beyond the limit of {:?}", entry.limit);
                let zeroed = how.zero && entry.zeroes;
                self.took(place, object, zeroed);
            }
            None => {
                assert!(full || self.faults(place) != faults, "there is nothing, for no reason");
            }
        }
    }

    /// What failed so far where objects of a place come from.
    fn faults(&self, place: usize) -> u64 {
        let below = self.places[place].as_ref().and_then(|entry| entry.of);
        PLACE[place].faults() + below.map_or(0, |below| PLACE[below].faults())
    }

    fn alloc_bulk(&mut self, place: usize, how: How, n: usize) {
        let Some(entry) = &self.places[place] else { return };
        let Some(cache) = &entry.cache else { return };
        let faults = self.faults(place);
        let room = entry.limit.map_or(u64::MAX, |max| max.saturating_sub(entry.model.live()));
        let how = How { wait: false, ..how };
        let all = cache.take_many(how, n);
        assert!(all.len() as u64 <= room, "objects beyond the limit");
        assert!(
            all.len() == n || all.len() as u64 == room || self.faults(place) != faults,
            "there are {} of {n}, for no reason",
            all.len()
        );
        let zeroed = how.zero && entry.zeroes;
        all.into_iter().for_each(|object| self.took(place, object, zeroed));
    }

    /// An object was handed out.
    fn took(&mut self, place: usize, object: NonNull<u8>, zeroed: bool) {
        let entry = self.places[place].as_mut().expect("it came from there");
        let size = entry.layout.size();
        self.ranges.insert(object.addr().get(), size);
        if entry.begins && !zeroed {
            // SAFETY: the object is ours, and was constructed.
            let result = unsafe { is_constructed(object, size) };
            assert_eq!(result, Ok(()), "offset at which {object:p} is not as it was constructed");
        }
        entry.model.took(Item::new(object), zeroed);
    }

    /// Picks an object, which is out no more.
    fn put_down(&mut self, place: usize, i: u8) -> Option<NonNull<u8>> {
        let entry = self.places[place].as_mut()?;
        entry.cache.as_ref()?;
        let object = entry.model.give(i.into())?.as_non_null();
        self.ranges.remove(object.addr().get());
        if entry.begins {
            // SAFETY: the object is ours still.
            unsafe { construct(object, entry.layout.size()) };
        }
        Some(object)
    }

    fn give(&mut self, place: usize, i: u8, how: impl FnOnce(&dyn Cache, NonNull<u8>)) {
        if let Some(object) = self.put_down(place, i)
            && let Some(cache) = self.cache(place)
        {
            how(cache, object);
        }
    }

    fn free_twice(&mut self, place: usize, i: u8) {
        let checked = self.checked;
        if !self.cache(place).is_some_and(|cache| cache.finds_twice(checked)) {
            return;
        }
        let Some(object) = self.put_down(place, i) else { return };
        let Some(cache) = self.cache(place) else { return };
        // SAFETY: it is given up; the second time is found out.
        unsafe { cache.give(object) };
        let before = REPORTS.load(SeqCst);
        // SAFETY: as above.
        let panic = caught(|| unsafe { cache.give(object) }).is_err();
        assert!(panic || REPORTS.load(SeqCst) != before, "a second free was let through");
    }

    fn pool_alloc(&mut self, how: How) {
        let Some((place, pool, _)) = &self.pool else { return };
        let (place, refused, faults) = (*place, pool.refused(), PLACE[*place].faults());
        let before = pool.reserve().1;
        let got = pool.take(how.wait && before != 0);
        let size = self.places[place].as_ref().expect("it is there").layout.size();
        let Some(at) = got else {
            let reason = pool.refused() != refused || PLACE[place].faults() != faults;
            assert!(before == 0 && reason, "no element, with {before} in reserve");
            return;
        };
        self.ranges.insert(at.addr().get(), size);
        self.tokens += 1;
        let held = Held { at, size, token: !self.tokens };
        // SAFETY: the element is ours.
        unsafe { token::stamp(at, size, held.token) };
        self.pool.as_mut().expect("it is there").2.push(held);
    }

    fn pool_end(&mut self) {
        if self.pool.as_ref().is_some_and(|(.., out)| out.is_empty()) {
            self.pool = None;
        }
    }

    fn take_memory(&mut self, size: usize, align: usize, how: How) {
        let (at, align) = self.face.memory(size, align, how);
        if size == 0 {
            // Nothing, or as good as nothing; it may be freed.
            // SAFETY: as the face has it.
            return unsafe { self.face.free(at, 0) };
        }
        let at = NonNull::new(at).expect("there is memory");
        assert!(at.addr().get().is_multiple_of(align), "{at:p} is not aligned to {align}");
        if how.zero {
            // SAFETY: the memory is ours, and has so many bytes of zeros.
            let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), size) };
            assert_eq!(
                bytes.iter().position(|&byte| byte != 0),
                None,
                "first byte that is not zero"
            );
        }
        self.hold(at, size);
    }

    fn hold(&mut self, at: NonNull<u8>, size: usize) {
        let usable = self.face.usable(at.as_ptr(), size);
        assert!(usable >= size, "{usable} bytes are usable of {size}");
        self.ranges.insert(at.addr().get(), usable);
        self.tokens += 1;
        let held = Held { at, size, token: !self.tokens };
        // SAFETY: the memory is ours.
        unsafe { token::stamp(at, size, held.token) };
        self.memory.push(held);
    }

    fn resize(&mut self, i: u8, size: usize, how: How) {
        let Some(index) = pick(i, self.memory.len()) else { return };
        if size == 0 {
            return;
        }
        let held = &self.memory[index];
        held.check(usize::MAX);
        let how = How { zero: false, ..how };
        // SAFETY: the memory is ours; if it moves, the old pointer is used no more.
        let new = unsafe { self.face.resize(held.at.as_ptr(), held.size, size, how) };
        let Some(new) = new else { return };
        let new = NonNull::new(new).expect("there is memory");
        let held = self.memory.swap_remove(index);
        self.ranges.remove(held.at.addr().get());
        Held { at: new, ..held }.check(size);
        self.hold(new, size);
    }

    /// A call that is misuse: it is reported, and nothing comes of it.
    fn refused(&self, call: impl FnOnce(&dyn Face)) {
        let (before, used) = (REPORTS.load(SeqCst), self.face.used());
        call(self.face);
        assert_ne!(REPORTS.load(SeqCst), before, "misuse was not reported");
        assert_eq!(self.face.used(), used, "something came of misuse");
    }

    /// What holds after every operation.
    fn settle(&mut self) {
        let wrong = hooks::complaints();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(self.face.used() - self.before, self.memory.len() as u64, "pieces of memory");
        let pool =
            self.pool.as_ref().map(|(place, pool, out)| (*place, pool.out(), pool.reserve(), out));
        if let Some((_, out, (least, kept), users)) = pool {
            assert_eq!(out, (kept + users.len()) as u64, "elements");
            assert!(kept <= least, "{kept} elements are in a reserve of {least}");
        }
        for (place, entry) in self.places.iter().enumerate() {
            let Some(Entry { cache: Some(cache), model, begins: _, ends, each, .. }) = entry else {
                continue;
            };
            let elements = pool.filter(|(of, ..)| *of == place).map_or(0, |(_, out, ..)| out);
            let used = model.live() + elements;
            assert_eq!(cache.counts().used, used, "objects in use of place {place}");
            if *each {
                let users = PLACE[place].used.load(SeqCst);
                assert_eq!(users, model.live() as i64, "ctors and dtors of place {place}");
            }
            if *ends {
                self.balance(place);
            }
        }
    }

    /// As many objects are constructed as exist. Others may reap meanwhile: the faces have threads for that.
    fn balance(&self, place: usize) {
        let exist = || -> i64 {
            let on = |entry: &&Entry| entry.of == Some(place);
            let above =
                self.places.iter().flatten().filter(on).filter_map(|it| it.cache.as_deref());
            let caches = self.cache(place).into_iter().chain(above);
            caches.map(Cache::counts).map(|counts| (counts.used + counts.cached) as i64).sum()
        };
        let mut seen = (0, 0);
        for _ in 0..1000 {
            seen = (PLACE[place].made.load(SeqCst), exist());
            if seen.0 == seen.1 {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{} objects of place {place} are constructed, and {} exist", seen.0, seen.1);
    }

    fn verify(&self) {
        for entry in self.places.iter().flatten() {
            entry.model.verify();
            if let (Some(cache), None) = (&entry.cache, &self.pool)
                && let Some(mut said) = cache.in_use()
            {
                said.sort_unstable();
                let known: Vec<_> = entry.model.ranges().starts().collect();
                assert_eq!(said, known, "objects that are said to be in use");
            }
        }
        self.memory.iter().for_each(|held| held.check(usize::MAX));
        if let Some((.., out)) = &self.pool {
            out.iter().for_each(|held| held.check(usize::MAX));
        }
    }

    /// Gives everything back, and ends everything.
    fn finish(&mut self) {
        self.no_faults();
        self.verify();
        let all = u8::MAX;
        while self.pool.as_ref().is_some_and(|(.., out)| !out.is_empty()) {
            self.step(&CompatOp::PoolFree { i: 0 });
        }
        self.pool_end();
        while !self.memory.is_empty() {
            self.step(&CompatOp::FreeMemory { i: 0 });
        }
        // Primary zones first: that is the way that is not obvious.
        for cache in 0..PLACES as u8 {
            let live = |run: &Self| {
                run.places[usize::from(cache)].as_ref().map_or(0, |entry| entry.model.live())
            };
            while live(self) != 0 {
                let before = live(self);
                self.step(&CompatOp::Free { cache, i: 0, times: all });
                assert!(live(self) < before, "objects that cannot be given back");
            }
        }
        self.settle();
        for cache in 0..PLACES as u8 {
            self.step(&CompatOp::Destroy { cache });
        }
        self.settle();
        assert!(self.places.iter().all(Option::is_none), "a place that is not free");
    }
}

impl Entry {
    fn new(made: Made, of: Option<usize>) -> Self {
        let Made { cache, layout, begins, ends, each, zeroes } = made;
        let model = Model::new(layout, false);
        Self { cache: Some(cache), of, model, layout, begins, ends, each, zeroes, limit: None }
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|max| self.model.live() >= max)
    }
}
