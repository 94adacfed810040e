//! What C holds by a pointer: checked, and never unmapped.
//!
//! ```text
//!   first --> [live | cache A] --> [dead | -] --> [live | cache B]
//! ```
//!
//! All handles of one kind that were ever made are in a list, which only grows. A handle that is removed stays
//! where it is, marked dead, and is used again when a certain number of others are dead, too, and those before it
//! were: a hand goes round the list. So looking at a
//! handle through a stale pointer is never an access to memory that is not there, and finds it dead, or,
//! after long, alive again as another. A pointer that never was a handle is found out if it leads to memory
//! that can be read.
//!
//! # The short way
//!
//! What a hit needs of a cache is in its handle, on one cache line, so that a hit follows no pointer but that of the
//! CPU's bucket:
//!
//! ```text
//!   0 mask, 4 mark | 8 next | 16 - | 32 front: way, slots, - | 64 ... the value
//! ```
//!
//! `<uma/hit.h>` compiles the same into programs that ask for it. So this layout, the marks, the slots and the buckets
//! behind the front are part of the ABI: if any of them changes, so does [`ABI`], and with it every mark. What was compiled with an
//! older header then finds no handle live, and calls the function.
//!
//! No lock: marks change by compare-and-exchange, so a child of fork(2) finds nothing half done but at most
//! one handle that is never used again.

use core::ffi::c_void;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use uma::core::Item;

use super::memory::{NoMemory, boxed};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, UnsafeCell};

/// A handle is used again only while at least so many are dead.
const KEPT_DEAD: usize = 32;

/// The version of what `<uma/hit.h>` compiles into programs.
const ABI: u16 = 2;

/// The short way to a zone of any face: all are on the host's CPUs.
pub(crate) type Front = uma::cache::Front<<uma::Host as uma::Platform>::Cpus>;

/// One thing that C holds by a pointer.
#[repr(C, align(64))]
pub(crate) struct Handle<T> {
    /// What it is, in the upper half; in the lower one the alignment of its objects, less one, while it is live. One
    /// word, so that a free loads both at once. It does not change while the handle may be used.
    mark: AtomicUsize,
    next: AtomicPtr<Handle<T>>,
    /// Leads nowhere until `shorten`. Written to as a whole only while the mark says that the handle is being made.
    front: UnsafeCell<Front>,
    /// Initialised while the mark says live.
    value: UnsafeCell<MaybeUninit<T>>,
}

/// All handles of one kind, which `KIND` tells from others: every kind has its own, two letters.
pub(crate) struct Handles<T, const KIND: u16> {
    first: AtomicPtr<Handle<T>>,
    /// The last, or one before it; null for the beginning.
    last: AtomicPtr<Handle<T>>,
    dead: AtomicUsize,
    /// Where a dead one is looked for first; null for the beginning.
    hand: AtomicPtr<Handle<T>>,
}

// SAFETY: values are reached only through `get`, `insert` and `remove`, which may be used from any thread if
// the values may.
unsafe impl<T: Send + Sync, const KIND: u16> Sync for Handles<T, KIND> {}

/// Why a pointer is no good as a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHandle {
    Null,
    Misaligned,
    Destroyed,
    Foreign,
}

impl fmt::Display for BadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "the pointer is null",
            Self::Misaligned => "the pointer is misaligned, so it is none that was handed out here",
            Self::Destroyed => "it was destroyed before",
            Self::Foreign => "the pointer is none that was handed out here",
        })
    }
}

/// What is wrong with a pointer to something that the caller lets be read or written, as far as it shows.
pub(crate) fn unusable<T>(at: *const T) -> Option<&'static str> {
    match at {
        at if at.is_null() => Some("null"),
        at if !at.is_aligned() => Some("misaligned"),
        _ => None,
    }
}

/// Half of the bits of a mark.
const HALF: u32 = usize::BITS / 2;

/// Has the function that this is compiled into begin on a line of the cache. It takes no instruction.
///
/// A call costs a cycle for each line of code that it goes over: where functions began as they came, a pair took
/// 3.6 ns, and takes 3.3. Rust has no word for it yet, but each function is a section of its own, and a
/// section begins at a multiple of the largest alignment in it, here of nothing behind the function.
#[inline(always)]
fn on_a_line() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!(
            ".subsection 1",
            ".p2align 6",
            ".previous",
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Has the compiler keep what follows in a block near by. It takes no instruction.
///
/// What follows a miss is a jump to another function, and each condition of a hit would become such a jump, of six bytes
/// in place of two, so that the hit goes over a line more.
#[inline(always)]
fn near_by() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("", options(nomem, nostack, preserves_flags));
    }
}

impl<T, const KIND: u16> Handles<T, KIND> {
    /// The upper half of the mark of handles that are live.
    const LIVE: usize =
        (0x756d_6148 ^ ((ABI as usize) << 18) ^ ((KIND as usize) << 2)) & (usize::MAX >> HALF);
    /// The marks of handles that are dead, or being made.
    const DEAD: usize = (Self::LIVE ^ 1) << HALF;
    const UNDERWAY: usize = (Self::LIVE ^ 2) << HALF;

    /// None yet.
    pub(crate) const fn new() -> Self {
        let [first, last, hand] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];
        Self { first, last, dead: AtomicUsize::new(0), hand }
    }

    /// A handle for `value`, which is dropped if there is no memory for one.
    pub(crate) fn insert(&self, value: T) -> Result<*mut Handle<T>, NoMemory> {
        self.insert_aligned(value, 1)
    }

    /// A handle for a zone of objects that are so aligned, which [`push`](Self::push) then knows.
    pub(crate) fn insert_aligned(
        &self,
        value: T,
        align: usize,
    ) -> Result<*mut Handle<T>, NoMemory> {
        let handle = self.revive().map_or_else(|| self.add(), Ok)?;
        // SAFETY: handles are never freed, and this one is marked as being made, by us: nobody reads its
        // value.
        unsafe { self.give(handle, value, align) };
        Ok(handle)
    }

    /// Makes a handle live.
    ///
    /// # Safety
    ///
    /// The handle is in the list, and the caller has marked it as being made.
    unsafe fn give(&self, handle: *mut Handle<T>, value: T, align: usize) {
        // An item has a gibibyte at most.
        let mask = (align - 1) & (usize::MAX >> HALF);
        // SAFETY: handles are never freed, and while one is being made nobody else reads or writes more of it than
        // the mark.
        unsafe {
            *(*handle).front.get() = Front::new();
            (*(*handle).value.get()).write(value);
            (*handle).mark.store(Self::LIVE << HALF | mask, Ordering::Release);
        }
    }

    /// Where the value of a handle lies, also when it is dead.
    ///
    /// # Safety
    ///
    /// `insert` returned the handle.
    pub(crate) unsafe fn value(&self, handle: *mut Handle<T>) -> *mut T {
        // SAFETY: handles are never freed.
        unsafe { (*handle).value.get().cast() }
    }

    /// Takes a dead handle, if there are many: the next behind the one that was taken last.
    fn revive(&self) -> Option<*mut Handle<T>> {
        if self.dead.load(Ordering::Relaxed) <= KEPT_DEAD {
            return None;
        }
        let hand = self.hand.load(Ordering::Acquire);
        let revived = self.revive_from(hand);
        if revived.is_none() && !hand.is_null() {
            return self.revive_from(ptr::null_mut());
        }
        revived
    }

    /// Takes the first dead handle from `at` on, or of all if that is null.
    fn revive_from(&self, mut at: *mut Handle<T>) -> Option<*mut Handle<T>> {
        if at.is_null() {
            at = self.first.load(Ordering::Acquire);
        }
        // SAFETY: handles in the list are never freed.
        while let Some(handle) = unsafe { at.as_ref() } {
            let next = handle.next.load(Ordering::Acquire);
            let mark = &handle.mark;
            let (dead, underway) = (Self::DEAD, Self::UNDERWAY);
            if mark.compare_exchange(dead, underway, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                self.dead.fetch_sub(1, Ordering::Relaxed);
                // Release: who goes on from there finds it whole.
                self.hand.store(next, Ordering::Release);
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// Adds a handle at the end of the list, marked as being made.
    fn add(&self) -> Result<*mut Handle<T>, NoMemory> {
        let new = Box::into_raw(boxed(Handle {
            mark: AtomicUsize::new(Self::UNDERWAY),
            next: AtomicPtr::new(ptr::null_mut()),
            front: UnsafeCell::new(Front::new()),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        })?);
        // SAFETY: handles in the list are never freed.
        let mut end = match unsafe { self.last.load(Ordering::Acquire).as_ref() } {
            Some(last) => &last.next,
            None => &self.first,
        };
        let null = ptr::null_mut();
        // Release: who finds the handle finds it whole.
        while let Err(other) = end.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: as above.
            end = unsafe { &(*other).next };
        }
        self.last.store(new, Ordering::Release);
        Ok(new)
    }

    /// Whether a pointer is a live handle, as far as can be told at the cost of two comparisons.
    ///
    /// # Safety
    ///
    /// The pointer is null, or memory of the size of a handle can be read there, at any alignment.
    #[inline(always)]
    pub(crate) unsafe fn is_live(&self, handle: *const Handle<T>) -> bool {
        // SAFETY: passed on.
        !handle.is_null() && unsafe { Self::mark(handle) } >> HALF == Self::LIVE
    }

    /// The mark of what may be a handle.
    ///
    /// # Safety
    ///
    /// As [`is_live`](Self::is_live), and the pointer is not null.
    #[inline(always)]
    unsafe fn mark(handle: *const Handle<T>) -> usize {
        // SAFETY: passed on; it is read without the assumption that it is a handle, or aligned as one.
        unsafe { (&raw const (*handle).mark).cast::<usize>().read_unaligned() }
    }

    /// The value of a handle.
    ///
    /// # Errors
    ///
    /// What is wrong with the pointer.
    ///
    /// # Safety
    ///
    /// The pointer is null, or memory of the size of a handle can be read there, at any alignment. The handle is
    /// not removed while the result is in use.
    #[inline(always)]
    pub(crate) unsafe fn get<'a>(&self, handle: *const Handle<T>) -> Result<&'a T, BadHandle> {
        // SAFETY: the caller's duty is passed on; a live handle has a value, which stays (see above).
        unsafe {
            if self.is_live(handle) {
                Ok((*(*handle).value.get()).assume_init_ref())
            } else {
                Err(self.fault(handle))
            }
        }
    }

    /// An object of the zone behind a handle, if it is live and has one at hand, or null: the whole of a hit.
    ///
    /// # Safety
    ///
    /// As [`get`](Self::get).
    #[inline(always)]
    pub(crate) unsafe fn pop(&self, handle: *const Handle<T>) -> *mut c_void {
        on_a_line();
        // SAFETY: passed on; of a live handle the front is only shared, and it leads to a zone that is there.
        let item =
            unsafe { if self.is_live(handle) { (*(*handle).front.get()).pop() } else { None } };
        match item {
            Some(item) => item.as_ptr().cast(),
            None => {
                near_by();
                ptr::null_mut()
            }
        }
    }

    /// Frees an object into the zone behind a handle, and returns whether it was taken: if the handle is live, the
    /// object is aligned, and there is room at hand. The whole of a hit.
    ///
    /// # Safety
    ///
    /// As [`get`](Self::get). If the handle is live and the object is not null, and aligned as those of the zone,
    /// then it came from there, and is used no more.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, handle: *const Handle<T>, object: *mut c_void) -> bool {
        on_a_line();
        let Some(item) = NonNull::new(object.cast()) else { return false };
        if handle.is_null() {
            return false;
        }
        // SAFETY: as in `pop`; the caller gives the object up.
        unsafe {
            let mark = Self::mark(handle);
            let mask = mark & (usize::MAX >> HALF);
            item.addr().get() & mask == 0
                && mark >> HALF == Self::LIVE
                && (*(*handle).front.get()).push(Item::new(item))
        }
    }

    /// Opens the short way of a handle: `lend` has the front lead to the zone, which is that of the value.
    ///
    /// # Safety
    ///
    /// As [`get`](Self::get), and the handle is live.
    #[inline]
    pub(crate) unsafe fn shorten(&self, handle: *const Handle<T>, lend: impl FnOnce(&Front)) {
        // SAFETY: passed on; of a live handle the front is only shared.
        lend(unsafe { &*(*handle).front.get() });
    }

    /// What is wrong with a pointer that is no live handle.
    ///
    /// # Safety
    ///
    /// As [`get`](Self::get).
    #[cold]
    #[inline(never)]
    unsafe fn fault(&self, handle: *const Handle<T>) -> BadHandle {
        if handle.is_null() {
            BadHandle::Null
        } else if !handle.is_aligned() {
            BadHandle::Misaligned
        } else if Self::DEAD == {
            // SAFETY: the caller's duty is passed on unchanged.
            unsafe { Self::mark(handle) }
        } {
            BadHandle::Destroyed
        } else {
            BadHandle::Foreign
        }
    }

    /// Takes the value back; the handle is dead from now on. Of two callers one gets it.
    ///
    /// # Errors
    ///
    /// What is wrong with the pointer.
    ///
    /// # Safety
    ///
    /// As [`get`](Self::get), and nobody uses the value of the handle any more.
    pub(crate) unsafe fn remove(&self, handle: *mut Handle<T>) -> Result<T, BadHandle> {
        if handle.is_null() || !handle.is_aligned() {
            // SAFETY: the caller's duty is passed on unchanged.
            return Err(unsafe { self.fault(handle) });
        }
        // SAFETY: the caller says that a handle can be read there, and a live one is one of ours.
        unsafe {
            // Looked at first, because what is no handle may be memory that cannot be written.
            if !self.is_live(handle) {
                return Err(self.fault(handle));
            }
            let mark = &(*handle).mark;
            let begin = |now| (now >> HALF == Self::LIVE).then_some(Self::UNDERWAY);
            if mark.fetch_update(Ordering::Acquire, Ordering::Relaxed, begin).is_err() {
                return Err(self.fault(handle));
            }
            let value = (*(*handle).value.get()).assume_init_read();
            self.dead.fetch_add(1, Ordering::Relaxed);
            mark.store(Self::DEAD, Ordering::Release);
            Ok(value)
        }
    }

    /// Gives a handle a value again that was removed from it, before anybody else got it: it is live as before, if the
    /// alignment is that of before.
    /// Where it was used for another value meanwhile, the value is kept for ever, out of reach.
    ///
    /// # Safety
    ///
    /// `insert` returned the handle, and its value was removed.
    pub(crate) unsafe fn restore(&self, handle: *mut Handle<T>, value: T, align: usize) {
        // SAFETY: handles are never freed; the mark says that it is ours before it is written to.
        unsafe {
            let mark = &(*handle).mark;
            let (dead, underway) = (Self::DEAD, Self::UNDERWAY);
            if mark.compare_exchange(dead, underway, Ordering::Acquire, Ordering::Relaxed).is_err()
            {
                core::mem::forget(value);
                return;
            }
            self.dead.fetch_sub(1, Ordering::Relaxed);
            self.give(handle, value, align);
        }
    }
}

// What `<uma/hit.h>` has.
#[cfg(all(target_pointer_width = "64", target_endian = "little"))]
const _: () = assert!(
    core::mem::offset_of!(Handle<u8>, mark) == 0
        && core::mem::offset_of!(Handle<u8>, front) == 32
        && Handles::<u8, 0x636c>::LIVE == 0x7564_ecf8
);

#[cfg(test)]
mod tests {
    use core::ptr::{NonNull, null_mut};
    use std::alloc::Layout;

    use uma::RawZone;
    use uma::core::{Item, Request};

    use super::{BadHandle, Handle, Handles, KEPT_DEAD, Ordering, c_void};

    #[test]
    fn what_is_no_handle_is_found_out() {
        let numbers: Handles<u32, 1> = Handles::new();
        let others: Handles<u32, 2> = Handles::new();
        let one = numbers.insert(1).unwrap();
        let other = others.insert(2).unwrap();
        // SAFETY: all are handles, of one kind or the other, or null or misaligned.
        unsafe {
            assert_eq!(numbers.get(one), Ok(&1));
            assert_eq!(numbers.get(other), Err(BadHandle::Foreign));
            assert_eq!(numbers.get(core::ptr::null()), Err(BadHandle::Null));
            let misaligned = one.cast::<u8>().add(1).cast::<Handle<u32>>();
            assert_eq!(numbers.get(misaligned), Err(BadHandle::Misaligned));
            assert_eq!(numbers.remove(misaligned), Err(BadHandle::Misaligned));
            assert_eq!(numbers.remove(other), Err(BadHandle::Foreign));
            assert_eq!(numbers.remove(one), Ok(1));
            assert_eq!(numbers.get(one), Err(BadHandle::Destroyed));
            assert_eq!(numbers.remove(one), Err(BadHandle::Destroyed));
            assert_eq!(others.remove(other), Ok(2));
        }
    }

    #[test]
    fn dead_handles_are_used_again_late() {
        let numbers: Handles<usize, 3> = Handles::new();
        let mut seen = Vec::new();
        for value in 0..10 * KEPT_DEAD {
            let handle = numbers.insert(value).unwrap();
            let late = seen.len().saturating_sub(KEPT_DEAD);
            assert!(!seen[late..].contains(&handle), "one of the {KEPT_DEAD} that died last");
            seen.push(handle);
            // SAFETY: it is a handle.
            assert_eq!(unsafe { numbers.remove(handle) }, Ok(value));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), KEPT_DEAD + 1);
    }

    /// The values in the list, in its order.
    fn listed(numbers: &Handles<usize, 5>) -> Vec<usize> {
        let mut values = Vec::new();
        let mut at = numbers.first.load(Ordering::Acquire);
        // SAFETY: handles in the list are never freed, and all of these are live.
        while let Some(handle) = unsafe { at.as_ref() } {
            // SAFETY: as above.
            values.push(unsafe { *numbers.get(at).unwrap() });
            at = handle.next.load(Ordering::Acquire);
        }
        values
    }

    /// Between its two steps an addition has put its handle in the list, and `last` is behind.
    #[test]
    fn others_go_on_from_where_an_addition_is_under_way() {
        let numbers: Handles<usize, 5> = Handles::new();
        let behind = [0, 1, 2].map(|value| numbers.insert(value).unwrap());
        for (value, last) in behind.into_iter().chain([null_mut()]).enumerate() {
            numbers.last.store(last, Ordering::Release);
            let new = numbers.insert(3 + value).unwrap();
            assert_eq!(numbers.last.load(Ordering::Acquire), new);
        }
        assert_eq!(listed(&numbers), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn all_that_threads_add_is_in_the_list() {
        const EACH: usize = if cfg!(miri) { 20 } else { 2000 };
        let numbers: Handles<usize, 5> = Handles::new();
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (numbers, together) = (&numbers, &together);
                scope.spawn(move || {
                    together.wait();
                    for value in 0..EACH {
                        numbers.insert(thread * EACH + value).unwrap();
                    }
                });
            }
        });
        let mut values = listed(&numbers);
        values.sort_unstable();
        assert!(values.into_iter().eq(0..4 * EACH));
    }

    #[test]
    fn a_handle_that_is_used_again_leads_to_its_own_zone() {
        let zones: Handles<RawZone, 4> = Handles::new();
        let short = uma::stat().to_string().contains("by rseq");
        // They stay, so that a way to a wrong one is found there.
        let mut removed = Vec::new();
        for _ in 0..3 * KEPT_DEAD {
            let layout = Layout::from_size_align(64, 8).unwrap();
            let zone = RawZone::builder("handle", layout).build().unwrap();
            let handle = zones.insert_aligned(zone, 8).unwrap();
            // SAFETY: it is a handle, and the items come from its zone.
            unsafe {
                assert!(zones.pop(handle).is_null());
                let zone = zones.get(handle).unwrap();
                let mut item: *mut c_void = zone.alloc(Request::NOWAIT).unwrap().as_ptr().cast();
                assert!(!zones.push(handle, item));
                zones.shorten(handle, |front| zone.lend_front(front));
                assert!(!zones.push(handle, item.byte_add(1)) && !zones.push(handle, null_mut()));
                // While another test forks, nothing is cached, and no slots are made; a CPU that is new to the zone
                // has no bucket yet. The long way sees to all that, sooner or later.
                let again = (0..if short { 60_000 } else { 3 }).any(|round| {
                    if round > 100 {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    if !zones.push(handle, item) {
                        zone.free(Item::new(NonNull::new(item.cast()).unwrap()));
                        item = zone.alloc(Request::NOWAIT).unwrap().as_ptr().cast();
                        zones.shorten(handle, |front| zone.lend_front(front));
                        return false;
                    }
                    let again = zones.pop(handle);
                    item = NonNull::new(again.cast())
                        .unwrap_or_else(|| zone.alloc(Request::NOWAIT).unwrap().as_non_null())
                        .as_ptr()
                        .cast();
                    !again.is_null()
                });
                assert_eq!(
                    again, short,
                    "restartable sequences have the short way, and nothing else"
                );
                zone.free(Item::new(NonNull::new(item.cast()).unwrap()));
                removed.push(zones.remove(handle).unwrap());
                assert!(zones.pop(handle).is_null() && !zones.push(handle, item));
            }
        }
    }
}
