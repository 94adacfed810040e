//! Objects that move, so that slabs with few of them become free.
//!
//! ```text
//!   sparse slab   | o . . . o . . . |     their objects fit into the free places of the others
//!   others        | o o . o o o . o |     each is offered: move(old, new)
//! ```
//!
//! A scan empties the caches, sorts the objects in use by slab, and picks the sparsest slabs as long as their
//! objects fit elsewhere without a new slab. Each of these objects is offered to its owner together with a
//! constructed one from another slab; the answer says which of the two is free now. What is free goes back
//! at the end, so that it is not offered again at once.
//!
//! The owner may free an object at any time, also while it is being offered; so for the whole scan no memory
//! that comes back from slabs leaves the cache (`Shared::hold`), and what is offered can be looked at.
//!
//! There is one scan at a time in the process, so no two callbacks run at once. That is a flag and no lock:
//! a callback that causes another scan finds the flag taken, and that scan is left out. In a copy of the process that
//! is made in the middle of a scan, no scan is under way: the objects that it had in hand stay in use there, and all
//! else goes on.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use std::collections::{HashMap, HashSet, TryReserveError};
use std::sync::OnceLock;

use uma::Reclaim;
use uma::core::Request;

use super::lock::{Guard, Guarded};
use super::underway::Underway;
use super::{Objects, upkeep};
use crate::common::memory::{Counted, NoMemory, push};
use crate::sync::{AtomicU64, Ordering};

/// Moves an object: of the old one, the new one, their size and the cache's private value.
pub type MoveCallback =
    unsafe extern "C-unwind" fn(*mut c_void, *mut c_void, usize, *mut c_void) -> c_int;

/// What a move callback may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Answer {
    /// It was moved, and the old object is free.
    Yes,
    /// It cannot be moved; its slab is left alone until the owner says otherwise.
    No,
    /// Not now. The third time for an object is a no.
    Later,
    /// Nobody needs it: both objects are free.
    DontNeed,
    /// The owner does not know such an object; it may be free.
    DontKnow,
}

impl Answer {
    fn of(value: c_int) -> Option<Self> {
        use Answer::{DontKnow, DontNeed, Later, No, Yes};
        [Yes, No, Later, DontNeed, DontKnow].into_iter().find(|answer| *answer as c_int == value)
    }
}

/// How often what was answered, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct MoveCounts {
    /// Objects that were offered.
    pub(crate) callbacks: AtomicU64,
    /// By [`Answer`].
    pub(crate) answers: [AtomicU64; 5],
    /// Slabs that went back by a scan.
    pub(crate) slabs_freed: AtomicU64,
    /// Slabs that the last scan picked.
    pub(crate) reclaimable: AtomicU64,
}

/// What a cache knows of moving.
pub(crate) struct Moves {
    callback: OnceLock<MoveCallback>,
    pub(crate) counts: MoveCounts,
    known: Guarded<Known>,
}

#[derive(Default)]
struct Known {
    /// Slabs with an object that cannot be moved, by base.
    pinned: HashSet<usize>,
    /// How often the owner has put off an object.
    later: HashMap<usize, u32>,
}

impl Known {
    /// Room for what an answer may add.
    fn make_room(&mut self) -> Result<(), TryReserveError> {
        self.pinned.try_reserve(1)?;
        self.later.try_reserve(1)
    }
}

/// So often an object is put off before that is a no.
const PATIENCE: u32 = 3;

impl Moves {
    pub(super) fn new() -> Self {
        Self {
            callback: OnceLock::new(),
            counts: MoveCounts::default(),
            known: Guarded::new(Known::default()),
        }
    }

    fn known(&self) -> Guard<'_, Known> {
        self.known.lock()
    }
}

impl Objects {
    /// Says how to move objects. Returns whether it makes a difference: not where no slab holds two.
    ///
    /// # Safety
    ///
    /// The callback may be called on any thread as long as the cache exists, with two objects of this cache
    /// of which the first may be free, and does with them what its answer says.
    pub(crate) unsafe fn set_move(&self, callback: MoveCallback) -> bool {
        if self.stats().per_slab < 2 {
            return false;
        }
        self.shared().track();
        self.moves().callback.set(callback).is_ok()
    }

    /// An object that could not be moved can be now.
    pub(crate) fn move_notify(this: &Counted<Self>, object: NonNull<u8>) {
        if this.moves().callback.get().is_none() {
            return;
        }
        let address = object.addr().get();
        let run = this.shared().run_of(address);
        {
            let mut known = this.moves().known();
            known.later.remove(&address);
            run.map(|run| known.pinned.remove(&run));
        }
        upkeep::defragment_later(this);
    }
}

/// One scan at a time.
struct Scan;

static SCANNING: Underway = Underway::new();

impl Scan {
    fn begin() -> Option<Self> {
        SCANNING.begin().then_some(Self)
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        SCANNING.end();
    }
}

/// Objects of a cache that are ours, by allocation or by their owner's answer. They go back at the end, also if
/// that is a callback that unwinds.
struct Free<'a>(&'a Objects, Vec<NonNull<u8>>);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        for object in self.1.drain(..) {
            // SAFETY: it is an object of this cache, and ours.
            unsafe { self.0.free(object) };
        }
    }
}

/// Whether a scan is likely to find something.
pub(super) fn worth_while(objects: &Objects) -> bool {
    let stats = objects.stats();
    objects.moves().callback.get().is_some()
        && stats.slabs > 1
        && stats.free() > (stats.used() + stats.free()) / 4
}

/// Has objects of a cache moved together, if they can be. Without memory to write down which, it is left.
pub(super) fn defragment(objects: &Objects) {
    let Some(callback) = objects.moves().callback.get() else { return };
    let Some(_scan) = Scan::begin() else { return };
    objects.counts().scans.fetch_add(1, Ordering::Relaxed);
    let counts = &objects.moves().counts;
    let before = {
        let _hold = objects.shared().hold();
        let Ok(sparse) = Sparse::of(objects) else { return };
        let before = objects.stats().slabs;
        counts.reclaimable.store(sparse.slabs.len() as u64, Ordering::Relaxed);
        let mut free = Free(objects, Vec::new());
        'slabs: for slab in &sparse.slabs {
            for (_, old) in &sparse.objects[slab.first..][..slab.used] {
                // What is learned of the offer finds room.
                if objects.moves().known().make_room().is_err() {
                    break 'slabs;
                }
                let Some(new) = elsewhere(objects, &sparse, &mut free.1) else { break 'slabs };
                if !offer(objects, *callback, slab.base, *old, new, &mut free.1) {
                    continue 'slabs;
                }
            }
        }
        drop(free);
        objects.reclaim(Reclaim::DrainCpu);
        before
    };
    let freed = before.saturating_sub(objects.stats().slabs);
    counts.slabs_freed.fetch_add(freed, Ordering::Relaxed);
}

/// A slab with objects in use.
struct Slab {
    base: usize,
    /// The place of its first object, and how many there are.
    first: usize,
    used: usize,
}

/// The slabs that can be emptied, in the order of their addresses.
struct Sparse {
    slabs: Vec<Slab>,
    /// The objects in use of all slabs, by slab.
    objects: Vec<(usize, NonNull<u8>)>,
}

impl Sparse {
    fn of(cache: &Objects) -> Result<Self, NoMemory> {
        let mut objects = Vec::new();
        let mut found = Ok(());
        cache.for_each_used(|object| {
            if let Some(slab) = cache.shared().run_of(object.addr().get()) {
                found = found.and_then(|()| push(&mut objects, (slab, object)));
            }
        });
        found?;
        objects.sort_unstable_by_key(|(slab, object)| (*slab, object.addr()));
        let mut slabs: Vec<Slab> = Vec::new();
        for (place, (base, _)) in objects.iter().enumerate() {
            match slabs.last_mut() {
                Some(slab) if slab.base == *base => slab.used += 1,
                _ => push(&mut slabs, Slab { base: *base, first: place, used: 1 })?,
            }
        }
        let mut known = cache.moves().known();
        known.pinned.retain(|base| slabs.binary_search_by_key(base, |slab| slab.base).is_ok());
        let each = cache.stats().per_slab as usize;
        slabs.sort_unstable_by_key(|slab| (slab.used, slab.base));
        let mut room: usize = slabs.iter().map(|slab| each.saturating_sub(slab.used)).sum();
        let (mut moved, mut full) = (0, false);
        slabs.retain(|Slab { base, used, .. }| {
            if full || *used >= each || known.pinned.contains(base) {
                return false;
            }
            // Its own free places are no place to go.
            let left = room - (each - used);
            full = moved + used > left;
            if !full {
                (room, moved) = (left, moved + used);
            }
            !full
        });
        slabs.sort_unstable_by_key(|slab| slab.base);
        Ok(Self { slabs, objects })
    }

    fn contains(&self, base: usize) -> bool {
        self.slabs.binary_search_by_key(&base, |slab| slab.base).is_ok()
    }
}

/// A constructed object that is in none of the sparse slabs. What is in one goes to `free`, where there is room for
/// two more then: for this one, and for the one that it takes the place of.
fn elsewhere(
    objects: &Objects,
    sparse: &Sparse,
    free: &mut Vec<NonNull<u8>>,
) -> Option<NonNull<u8>> {
    // At most as many as there are free places in sparse slabs, so it ends.
    loop {
        free.try_reserve(2).ok()?;
        let new = objects.alloc(Request::NOWAIT.without_pages()).ok()?;
        match objects.shared().run_of(new.addr().get()) {
            Some(slab) if !sparse.contains(slab) => return Some(new),
            _ => free.push(new),
        }
    }
}

/// Offers an object. Returns whether to go on with its slab.
fn offer(
    objects: &Objects,
    callback: MoveCallback,
    slab: usize,
    old: NonNull<u8>,
    new: NonNull<u8>,
    free: &mut Vec<NonNull<u8>>,
) -> bool {
    let counts = &objects.moves().counts;
    counts.callbacks.fetch_add(1, Ordering::Relaxed);
    let private = objects.callbacks().private;
    // Should the callback unwind, the new object is nobody else's.
    free.push(new);
    // SAFETY: `set_move` was promised that it takes two objects of this cache, and the memory of the old one
    // stays where it is (`hold`), whether or not it is in use.
    let said =
        unsafe { callback(old.as_ptr().cast(), new.as_ptr().cast(), objects.size(), private) };
    let address = old.addr().get();
    let mut known = objects.moves().known();
    let Some(answer) = Answer::of(said) else {
        known.pinned.insert(slab);
        drop(known);
        objects.system().misuse(
            "kmem_move",
            format_args!("{objects}: the move callback returned {said}, which is no answer"),
        );
        return false;
    };
    counts.answers[answer as usize].fetch_add(1, Ordering::Relaxed);
    match answer {
        Answer::Yes => {
            known.later.remove(&address);
            // The new object is its owner's now, and the old one is free.
            free.pop();
            free.push(old);
            true
        }
        Answer::DontNeed => {
            known.later.remove(&address);
            free.push(old);
            true
        }
        Answer::DontKnow => true,
        Answer::No => {
            known.later.remove(&address);
            known.pinned.insert(slab);
            false
        }
        Answer::Later => {
            let times = known.later.entry(address).or_insert(0);
            *times += 1;
            if *times >= PATIENCE {
                known.later.remove(&address);
                known.pinned.insert(slab);
            }
            true
        }
    }
}
