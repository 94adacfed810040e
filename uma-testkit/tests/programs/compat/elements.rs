//! Pools of elements with a reserve, on top of a cache.

use uma_testkit::ops::compat::How;
use uma_testkit::token;

use super::hooks::{PLACE, construct};
use super::memory::Held;
use super::run::{Run, pick};

impl Run<'_> {
    pub(super) fn pool_begin(&mut self, place: usize, least: usize) {
        if self.pool.is_none()
            && let Some(cache) = self.cache(place)
            && let Some(pool) = cache.elements(least)
        {
            self.pool = Some((place, pool, Vec::new()));
        }
    }

    pub(super) fn pool_alloc(&mut self, how: How) {
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

    pub(super) fn pool_free(&mut self, i: u8) {
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

    pub(super) fn pool_resize(&self, least: usize) {
        if let Some((_, pool, _)) = &self.pool {
            assert!(pool.resize(least), "a handful of elements cannot be listed");
            assert_eq!(pool.reserve().0, least.max(1));
        }
    }

    pub(super) fn pool_end(&mut self) {
        if self.pool.as_ref().is_some_and(|(.., out)| out.is_empty()) {
            self.pool = None;
        }
    }
}
