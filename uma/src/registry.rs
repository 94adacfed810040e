//! The list of all zones of a platform.
//!
//! ```text
//!   first --> [node of zone A] <--> [node of zone B] <--> [node of zone C] <-- last
//!              visitors = 0          visitors = 1          visitors = 0
//! ```
//!
//! A node lies in its zone's pinned part and is in the list from the zone's first use until it is
//! destroyed. Looking at a zone (its figures, a reclaim) may take long and runs the user's hooks, so
//! it happens without the lock: the visitor counts itself into the node, which keeps the node in the
//! list. Whoever destroys the zone first *closes* the node, so that no visitor enters it any more, and
//! waits until the last has left; nothing can then race with what is done to the zone. A closed node
//! stays in the list as long as other zones use the zone's slabs: forks still have to lock them.
//!
//! Lock order: the registry's lock is a leaf, but for `prefork`, which takes all locks under it.

use core::ptr;

use lock_api::RawMutex;
use uma_core::{Name, Process, Reclaim, Stats};

use crate::ZoneFlags;
use crate::sync::{Mutex, UnsafeCell};

/// What the registry can ask of a zone whose type it does not know.
#[derive(Clone, Copy)]
pub(crate) struct Vtable {
    pub(crate) name: unsafe fn(*const ()) -> Name,
    pub(crate) stats: unsafe fn(*const ()) -> Stats,
    pub(crate) visit_cpus: unsafe fn(*const (), &mut dyn FnMut(usize, u64)),
    pub(crate) reclaim: unsafe fn(*const (), Reclaim),
    pub(crate) prefork: unsafe fn(*const ()),
    pub(crate) postfork: unsafe fn(*const (), Process),
    pub(crate) settle: unsafe fn(*const ()),
    pub(crate) holds: unsafe fn(*const (), usize) -> bool,
    pub(crate) primary: unsafe fn(*const ()) -> Option<Name>,
}

/// A zone's place in the registry. It is part of every zone, so it holds no more than it must.
pub(crate) struct Node {
    zone: *const (),
    vtable: &'static Vtable,
    flags: ZoneFlags,
    links: UnsafeCell<Links>,
}

// SAFETY: the links are touched under the registry's lock only; the zone behind the pointer may be
// used from any thread, as `Node::new` demands.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

struct Links {
    next: *const Node,
    previous: *const Node,
    visitors: usize,
    closed: bool,
}

impl Node {
    /// # Safety
    ///
    /// While the node is in a registry, the functions of `vtable` may be called with `zone` from any
    /// thread.
    pub(crate) const unsafe fn new(
        zone: *const (),
        vtable: &'static Vtable,
        flags: ZoneFlags,
    ) -> Self {
        let links = Links { next: ptr::null(), previous: ptr::null(), visitors: 0, closed: false };
        Self { zone, vtable, flags, links: UnsafeCell::new(links) }
    }

    /// The zone's flags.
    pub(crate) const fn flags(&self) -> ZoneFlags {
        self.flags
    }
}

struct List {
    first: *const Node,
    last: *const Node,
}

// SAFETY: the nodes are reached only under the lock or while counted in, and `Node::new` demands that
// what they point to may be used from any thread.
unsafe impl Send for List {}

impl List {
    /// Shows every node to `each`, under the registry's lock, the last one first.
    fn for_each_back(&self, mut each: impl FnMut(&Node)) {
        let mut at = self.last;
        // SAFETY: the nodes in the list are alive, and their links are ours under the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            each(node);
            // SAFETY: as above.
            at = unsafe { (*node.links.get()).previous };
        }
    }

    /// Shows every node to `each`, under the registry's lock.
    fn for_each(&self, mut each: impl FnMut(&Node)) {
        let mut at = self.first;
        // SAFETY: the nodes in the list are alive, and their links are ours under the lock.
        while let Some(node) = unsafe { at.as_ref() } {
            each(node);
            // SAFETY: as above.
            at = unsafe { (*node.links.get()).next };
        }
    }
}

/// The zones of one platform, in the order in which they were first used.
pub struct Registry<L: RawMutex> {
    list: Mutex<L, List>,
}

impl<L: RawMutex> core::fmt::Debug for Registry<L> {
    /// Without a look at the zones, which would take the lock.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// One zone, while it is looked at.
#[derive(Clone, Copy)]
pub struct ZoneRef<'a> {
    node: &'a Node,
}

impl ZoneRef<'_> {
    /// The zone's name.
    pub fn name(&self) -> Name {
        // SAFETY: the node is in the registry and counted in (see `visit`).
        unsafe { (self.node.vtable.name)(self.node.zone) }
    }

    /// The zone's flags.
    pub const fn flags(&self) -> ZoneFlags {
        self.node.flags
    }

    /// The name of the zone on whose slabs it stands, if it is a secondary zone.
    pub fn primary(&self) -> Option<Name> {
        // SAFETY: as in `name`.
        unsafe { (self.node.vtable.primary)(self.node.zone) }
    }

    /// The zone's figures.
    pub fn stats(&self) -> Stats {
        // SAFETY: as in `name`.
        unsafe { (self.node.vtable.stats)(self.node.zone) }
    }

    /// Shows to `each`, for every CPU that has a slot, how many free items its buckets hold.
    pub fn visit_cpus(&self, each: &mut dyn FnMut(usize, u64)) {
        // SAFETY: as in `name`.
        unsafe { (self.node.vtable.visit_cpus)(self.node.zone, each) }
    }

    /// Whether an address lies in an item of the zone that is in use; for a zone without checks, whether it
    /// is that of an item that is in use or in a cache.
    pub fn holds(&self, address: usize) -> bool {
        // SAFETY: as in `name`.
        unsafe { (self.node.vtable.holds)(self.node.zone, address) }
    }

    /// Makes the zone give memory back. If that runs a hook which destroys this very zone, it waits for
    /// itself.
    pub fn reclaim(&self, mode: Reclaim) {
        // SAFETY: as in `name`.
        unsafe { (self.node.vtable.reclaim)(self.node.zone, mode) }
    }
}

impl<L: RawMutex> Registry<L> {
    /// An empty registry.
    #[expect(clippy::new_without_default, reason = "registries are statics")]
    pub const fn new() -> Self {
        let list = List { first: ptr::null(), last: ptr::null() };
        Self { list: Mutex::const_new(L::INIT, list) }
    }

    /// Lists a zone.
    ///
    /// # Safety
    ///
    /// The node is in no registry, and stays where it is and alive until `remove` returned.
    pub(crate) unsafe fn add(&self, node: &Node) {
        let mut list = self.list.lock();
        // SAFETY: links are only touched under the lock; the last node is alive, as all in the list.
        unsafe {
            (*node.links.get()).previous = list.last;
            if list.last.is_null() {
                list.first = node;
            } else {
                (*(*list.last).links.get()).next = node;
            }
        }
        list.last = node;
    }

    /// Shows the zone to nobody any more, and waits until nobody looks at it; `relax` passes the time.
    ///
    /// # Safety
    ///
    /// The node is in this registry.
    pub(crate) unsafe fn close(&self, node: &Node, relax: impl Fn()) {
        loop {
            let list = self.list.lock();
            // SAFETY: links are only touched under the lock.
            let links = unsafe { &mut *node.links.get() };
            links.closed = true;
            if links.visitors == 0 {
                return;
            }
            drop(list);
            relax();
        }
    }

    /// Shows a closed zone again.
    ///
    /// # Safety
    ///
    /// The node is in this registry.
    pub(crate) unsafe fn reopen(&self, node: &Node) {
        let _list = self.list.lock();
        // SAFETY: links are only touched under the lock.
        unsafe { (*node.links.get()).closed = false };
    }

    /// Takes a closed zone off the list.
    ///
    /// # Safety
    ///
    /// The node is in this registry, and was closed.
    pub(crate) unsafe fn remove(&self, node: &Node) {
        let mut list = self.list.lock();
        // SAFETY: links are only touched under the lock; neighbours are alive, as all in the list.
        unsafe {
            let links = &*node.links.get();
            debug_assert!(links.closed && links.visitors == 0);
            match links.previous.as_ref() {
                Some(previous) => (*previous.links.get()).next = links.next,
                None => list.first = links.next,
            }
            match links.next.as_ref() {
                Some(next) => (*next.links.get()).previous = links.previous,
                None => list.last = links.previous,
            }
        }
    }

    /// Takes the locks of the registry and of every zone in it, and keeps them. See
    /// [`ItemSource::prefork`](uma_core::ItemSource::prefork).
    ///
    /// The zones made last come first: they may stand on those made before them, whose locks must be
    /// free while their caches come to rest.
    pub fn prefork(&self) {
        let list = self.list.lock();
        list.for_each_back(|node| {
            // SAFETY: the zone is in the registry, whose lock keeps it there.
            unsafe { (node.vtable.prefork)(node.zone) }
        });
        core::mem::forget(list);
    }

    /// Lets go of what [`prefork`](Self::prefork) took.
    ///
    /// # Safety
    ///
    /// As [`ItemSource::postfork`](uma_core::ItemSource::postfork).
    pub unsafe fn postfork(&self, process: Process) {
        // SAFETY: `prefork` locked and forgot the guard, so the list is ours until it is unlocked.
        unsafe {
            let list = &*self.list.data_ptr();
            list.for_each(|node| {
                (node.vtable.postfork)(node.zone, process);
                // Those who looked at zones are not in the copy. (This thread is, if a hook of a zone that it
                // looks at has forked; it is not counted from here on, which nobody notices: in its
                // own copy only it could destroy that zone, and may not.)
                if process == Process::Copy {
                    (*node.links.get()).visitors = 0;
                }
            });
            self.list.force_unlock();
        }
    }

    /// Passes items on for which somebody began to wait meanwhile. For the original process, after
    /// [`postfork`](Self::postfork) and when every other lock has been let go of, too.
    pub fn settle(&self) {
        // SAFETY: the node is in the registry and counted in.
        self.visit(&mut |zone| unsafe { (zone.node.vtable.settle)(zone.node.zone) });
    }

    /// Makes every zone give memory back (`uma_reclaim`), but for those that are
    /// [`UNMANAGED`](ZoneFlags::UNMANAGED), and those that are [`NOTRIM`](ZoneFlags::NOTRIM) unless it
    /// is a drain. With `std`, a fini that panics keeps no other zone from giving back: the panic goes on when all
    /// have done so, and of several the first.
    pub fn reclaim(&self, mode: Reclaim) {
        let spared = match mode {
            Reclaim::Idle | Reclaim::Trim => ZoneFlags::UNMANAGED | ZoneFlags::NOTRIM,
            Reclaim::Drain | Reclaim::DrainCpu => ZoneFlags::UNMANAGED,
        };
        let one = |zone: ZoneRef<'_>| {
            if !zone.flags().intersects(spared) {
                zone.reclaim(mode);
            }
        };
        #[cfg(feature = "std")]
        {
            let mut panicked = None;
            self.visit(&mut |zone| {
                let one = std::panic::AssertUnwindSafe(|| one(zone));
                if let Err(panic) = std::panic::catch_unwind(one) {
                    panicked.get_or_insert(panic);
                }
            });
            if let Some(panic) = panicked {
                std::panic::resume_unwind(panic);
            }
        }
        #[cfg(not(feature = "std"))]
        self.visit(&mut |zone| one(zone));
    }

    /// Shows every zone to `visit`, without holding the lock: it may use zones, also make new ones.
    /// It must not destroy the zone that it is being shown, which would wait for itself.
    pub fn visit(&self, visit: &mut dyn FnMut(ZoneRef<'_>)) {
        let mut at = Visit { registry: self, node: ptr::null() };
        while let Some(node) = at.advance() {
            visit(ZoneRef { node });
        }
    }
}

/// A walk through the list: counted into at most one node. Counts itself out if a visit unwinds.
struct Visit<'a, L: RawMutex> {
    registry: &'a Registry<L>,
    node: *const Node,
}

impl<'a, L: RawMutex> Visit<'a, L> {
    /// Leaves the node it is at and enters the next.
    fn advance(&mut self) -> Option<&'a Node> {
        let list = self.registry.list.lock();
        // SAFETY: links are only touched under the lock. The node we are counted into is still in
        // the list, so it and its successor are alive; and the successor stays so once counted into.
        unsafe {
            let mut next = match self.node.as_ref() {
                Some(node) => {
                    let links = &mut *node.links.get();
                    links.visitors = links.visitors.saturating_sub(1);
                    links.next
                }
                None => list.first,
            };
            while let Some(closed) = next.as_ref().filter(|node| (*node.links.get()).closed) {
                next = (*closed.links.get()).next;
            }
            self.node = next;
            let node = next.as_ref()?;
            (*node.links.get()).visitors += 1;
            Some(node)
        }
    }
}

impl<L: RawMutex> Drop for Visit<'_, L> {
    fn drop(&mut self) {
        let _list = self.registry.list.lock();
        // SAFETY: as in `advance`.
        if let Some(node) = unsafe { self.node.as_ref() } {
            // SAFETY: links are only touched under the lock.
            let links = unsafe { &mut *node.links.get() };
            links.visitors = links.visitors.saturating_sub(1);
        }
    }
}
