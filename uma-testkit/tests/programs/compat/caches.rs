//! Caches, pools and zones in their places: what they hand out and take back, each beside a zone of the engine.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;

use uma_core::Item;
use uma_testkit::caught;
use uma_testkit::model::Model;
use uma_testkit::ops::compat::{CacheConfig, How};

use super::hooks::{PLACE, PLACES, Place, construct, is_constructed};
use super::run::Run;
use super::{Cache, Made, REPORTS, engine};

/// What is in one of the places.
pub(super) struct Entry {
    /// Gone, if only secondary zones still stand on it.
    pub(super) cache: Option<Box<dyn Cache>>,
    pub(super) of: Option<usize>,
    pub(super) model: Model,
    pub(super) layout: Layout,
    pub(super) begins: bool,
    pub(super) ends: bool,
    pub(super) each: bool,
    pub(super) zeroes: bool,
    pub(super) limit: Option<u64>,
    /// The same on the engine.
    pub(super) beside: engine::Objects,
}

impl Run<'_> {
    /// Whether there are no sheaves.
    fn face_has_none(&self, place: usize) -> bool {
        self.cache(place).is_none_or(|cache| cache.sheaf(0, 0).is_none())
    }

    pub(super) fn create(&mut self, place: usize, config: &CacheConfig) {
        if self.places[place].is_some() {
            return;
        }
        PLACE[place].reset(config.size());
        match self.face.create(place, config) {
            Ok(made) => {
                let beside = engine::Objects::new(made.layout, made.ends);
                self.places[place] = Some(Entry::new(made, None, beside));
            }
            Err(why) => panic!("it cannot be made: {why}"),
        }
    }

    pub(super) fn second(&mut self, of: usize, place: usize, config: &CacheConfig) {
        if self.places[place].is_some() {
            return;
        }
        let Some(Entry { cache: Some(cache), of: None, layout, begins, beside, .. }) =
            &self.places[of]
        else {
            return;
        };
        let (layout, begins) = (*layout, *begins);
        PLACE[place].reset(layout.size());
        if let Some(cache) = cache.second(place, config) {
            let begins = begins || config.constructed;
            let (ends, each, zeroes) = (config.constructed, config.each, true);
            let made = Made { cache, layout, begins, ends, each, zeroes };
            let beside = beside.second(config.constructed);
            self.places[place] = Some(Entry::new(made, Some(of), beside));
        }
    }

    pub(super) fn destroy(&mut self, place: usize) {
        if self.pool.as_ref().is_some_and(|(of, ..)| *of == place) {
            return;
        }
        // One that unwinds would take the cache with it, whatever is in use.
        PLACE[place].end_panics.never();
        let Some(entry) = &mut self.places[place] else { return };
        let Some(cache) = entry.cache.take() else { return };
        let live = entry.model.live();
        match cache.destroy() {
            Ok(()) => {
                assert_eq!(live, 0, "it was ended with objects in use");
                assert_eq!(entry.beside.destroy(), 0, "objects in use on the engine");
            }
            Err((cache, used)) => {
                entry.cache = Some(cache);
                assert_eq!(used, live, "objects that are said to be in use");
                assert_ne!(live, 0, "it cannot be ended, for no reason");
                assert_eq!(entry.beside.destroy(), used, "objects in use on the engine");
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
            assert_eq!(entry.beside.constructed(), 0, "objects of the engine not taken apart");
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

    pub(super) fn alloc(&mut self, place: usize, how: How) {
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
                if full {
                    entry.beside.is_full();
                }
            }
        }
    }

    /// What failed so far where objects of a place come from.
    fn faults(&self, place: usize) -> u64 {
        let below = self.places[place].as_ref().and_then(|entry| entry.of);
        PLACE[place].faults() + below.map_or(0, |below| PLACE[below].faults())
    }

    pub(super) fn alloc_bulk(&mut self, place: usize, how: How, n: usize) {
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
        let (zeroed, full) = (how.zero && entry.zeroes, all.len() < n && all.len() as u64 == room);
        all.into_iter().for_each(|object| self.took(place, object, zeroed));
        if full && let Some(entry) = &self.places[place] {
            entry.beside.is_full();
        }
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
        entry.beside.took(object);
    }

    /// Picks an object, which is out no more.
    pub(super) fn put_down(&mut self, place: usize, i: u8) -> Option<NonNull<u8>> {
        let entry = self.places[place].as_mut()?;
        entry.cache.as_ref()?;
        let object = entry.model.give(i.into())?.as_non_null();
        self.ranges.remove(object.addr().get());
        entry.beside.gave(object);
        if entry.begins {
            // SAFETY: the object is ours still.
            unsafe { construct(object, entry.layout.size()) };
        }
        Some(object)
    }

    pub(super) fn give(&mut self, place: usize, i: u8, how: impl FnOnce(&dyn Cache, NonNull<u8>)) {
        if let Some(object) = self.put_down(place, i)
            && let Some(cache) = self.cache(place)
        {
            how(cache, object);
        }
    }

    pub(super) fn free_twice(&mut self, place: usize, i: u8) {
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

    pub(super) fn set_limit(&mut self, place: usize, max: Option<u64>) {
        let Some(cache) = self.cache(place) else { return };
        // What a drain unwinds with comes after the limit is set; the second time says which it is.
        let limit = caught(|| cache.set_limit(max)).unwrap_or_else(|panic| {
            assert!(panic.is_planned(), "{panic}");
            cache.set_limit(max)
        });
        if let Some(limit) = limit {
            let entry = self.places[place].as_mut().expect("it is there");
            entry.limit = limit;
            entry.beside.set_limit(limit);
        }
    }

    pub(super) fn sheaf(&mut self, place: usize, n: usize, used: usize) {
        let faults = PLACE[place].faults();
        let Some(cache) = self.cache(place) else { return };
        match cache.sheaf(n, used) {
            Some(all) => all.into_iter().for_each(|object| self.took(place, object, false)),
            None => assert!(
                self.face_has_none(place) || PLACE[place].faults() != faults,
                "no sheaf, for no reason"
            ),
        }
    }

    /// Has a cache give back what is free, and the engine: then as many objects are constructed on both.
    pub(super) fn reap(&mut self, place: usize, how: u8) {
        let Some(cache) = self.cache(place) else { return };
        let (drained, cached) = (cache.reap(how), cache.counts().cached);
        let Some(entry) = &self.places[place] else { return };
        entry.beside.drain();
        let on = |other: &Option<Entry>| other.as_ref().is_some_and(|it| it.of == Some(place));
        if drained && !self.places.iter().any(on) && self.pool.is_none() {
            assert_eq!(cached, 0, "objects in caches that were drained");
            if entry.ends {
                let made = PLACE[place].made.load(SeqCst);
                assert_eq!(made, entry.beside.constructed(), "constructed, and on the engine");
            }
        }
    }

    /// What the face says of a place agrees with what the engine says.
    pub(super) fn compare(&mut self, place: usize) {
        let (plain, counted) = (self.is_plain, self.pool.as_ref().is_none_or(|it| it.0 != place));
        let Some(Entry { cache: Some(cache), each, beside, .. }) = &mut self.places[place] else {
            return;
        };
        if counted {
            beside.agrees(&cache.counts(), plain);
        }
        if *each {
            let Place { ctors, dtors, .. } = &PLACE[place];
            beside.agrees_on_uses(ctors.load(SeqCst), dtors.load(SeqCst));
        }
    }
}

impl Entry {
    fn new(made: Made, of: Option<usize>, beside: engine::Objects) -> Self {
        let Made { cache, layout, begins, ends, each, zeroes } = made;
        let model = Model::new(layout, false);
        let (cache, limit) = (Some(cache), None);
        Self { cache, of, model, layout, begins, ends, each, zeroes, limit, beside }
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|max| self.model.live() >= max)
    }
}
