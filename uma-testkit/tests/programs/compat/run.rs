//! A program on a face: what each operation does, and what holds after it.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;

use uma_testkit::caught;
use uma_testkit::model::Ranges;
use uma_testkit::ops::compat::{CompatOp, CompatProgram, bytes};

use super::caches::Entry;
use super::engine;
use super::hooks::{self, PLACE, PLACES, Place};
use super::memory::Held;
use super::{Cache, Elements, Face};

/// Runs a program on a face, whoever it is.
pub fn drive(face: &dyn Face, program: &CompatProgram) {
    // A program that failed may have left some behind.
    let before = (face.used(), face.bytes().unwrap_or(0));
    hooks::complaints();
    let mut run = Run {
        face,
        checked: program.config.checked,
        places: [const { None }; PLACES],
        pool: None,
        ranges: Ranges::default(),
        memory: Vec::new(),
        before,
        beside: engine::Memory::new(face.classes()),
        tokens: 0,
        last: None,
        is_plain: true,
    };
    for (index, op) in program.ops.iter().enumerate() {
        let found = |what| -> ! { panic!("operation {index}, CompatOp::{op:?}: {what}") };
        let faults = hooks::faults();
        let result = caught(|| run.step(op));
        // What failed may count as handed out or not, and a pool has objects of its own.
        run.is_plain = result.is_ok()
            && faults == hooks::faults()
            && run.pool.is_none()
            && !matches!(op, CompatOp::Sheaf { .. } | CompatOp::PoolEnd);
        match result {
            Err(panic) if !panic.is_planned() => found(panic),
            _ => {}
        }
        if let Err(panic) = caught(|| run.settle()) {
            found(panic);
        }
    }
    run.finish();
}

pub(super) struct Run<'f> {
    pub(super) face: &'f dyn Face,
    pub(super) checked: bool,
    pub(super) places: [Option<Entry>; PLACES],
    /// Where its elements come from, the pool, and those that are out.
    pub(super) pool: Option<(usize, Box<dyn Elements>, Vec<Held>)>,
    /// Everything that is out.
    pub(super) ranges: Ranges,
    pub(super) memory: Vec<Held>,
    /// Pieces of memory, and bytes, that were in use before.
    before: (u64, u64),
    /// The same memory on the engine.
    pub(super) beside: engine::Memory,
    pub(super) tokens: u64,
    /// What was freed just now, with its size.
    pub(super) last: Option<(NonNull<u8>, usize)>,
    /// Whether the operation failed in nothing, and touched no objects but those that are written down.
    pub(super) is_plain: bool,
}

pub(super) fn pick(i: u8, len: usize) -> Option<usize> {
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
                let n = usize::from(n) % 33;
                self.sheaf(usize::from(cache) % PLACES, n, usize::from(used) % (n + 1));
            }
            CompatOp::SetLimit { cache, max } => {
                let max = Some(u64::from(max)).filter(|&max| max != 255);
                self.set_limit(usize::from(cache) % PLACES, max);
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
                self.reap(usize::from(cache) % PLACES, how);
            }
            CompatOp::ReapAll { how } => {
                self.face.reap_all(how);
                self.beside.reap();
            }
            CompatOp::Pool { cache, least } => {
                self.pool_begin(usize::from(cache) % PLACES, usize::from(least) % 9);
            }
            CompatOp::PoolAlloc { how } => self.pool_alloc(how),
            CompatOp::PoolFree { i } => self.pool_free(i),
            CompatOp::PoolResize { least } => self.pool_resize(usize::from(least) % 9),
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
            CompatOp::FreeMemory { i } => self.free_memory(i),
            CompatOp::Resize { i, base, shift, how } => self.resize(i, bytes(base, shift), how),
            CompatOp::WrongSize { i, base, shift } => self.wrong_size(i, bytes(base, shift)),
            CompatOp::Interior { i, offset } => self.interior(i, usize::from(offset)),
            CompatOp::Again => self.again(last),
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

    pub(super) fn cache(&self, place: usize) -> Option<&dyn Cache> {
        self.places[place].as_ref()?.cache.as_deref()
    }

    /// What holds after every operation.
    fn settle(&mut self) {
        let wrong = hooks::complaints();
        assert!(wrong.is_empty(), "{wrong:?}");
        let used = self.face.used() - self.before.0;
        assert_eq!(used, self.memory.len() as u64, "pieces of memory");
        self.beside.agrees(used, self.face.bytes().map(|bytes| bytes - self.before.1));
        let pool =
            self.pool.as_ref().map(|(place, pool, out)| (*place, pool.out(), pool.reserve(), out));
        if let Some((_, out, (least, kept), users)) = pool {
            assert_eq!(out, (kept + users.len()) as u64, "elements");
            assert!(kept <= least, "{kept} elements are in a reserve of {least}");
        }
        for (place, entry) in self.places.iter().enumerate() {
            let Some(Entry { cache: Some(cache), model, ends, each, .. }) = entry else { continue };
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
        for place in 0..PLACES {
            self.compare(place);
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
        self.beside.end();
    }
}
