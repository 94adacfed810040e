//! What zones stand on, in one bundle.

use core::fmt;

use uma_cache::PerCpu;
use uma_core::{Metadata, Name, PageSupplier, RawMutex, Sleep};

use uma_debug::{FRAMES, Hardening, Report, Verdict};

use crate::Registry;

/// Everything that a zone needs from its surroundings: pages, CPUs, locks, a way to wait, memory for
/// its own bookkeeping, and the registry it is listed in.
///
/// A platform is a handle, cheap to clone: a unit struct, or a reference. `Host` (feature `std`) is
/// the one for processes. A kernel writes its own, and so does a test: swapping what a zone stands on
/// is swapping the platform.
///
/// # Safety
///
/// The methods of a platform and of all its clones always lead to the same pages, metadata and registry:
/// what is taken through one handle is given back through another. Pages, metadata and what `cpus` leads
/// to live as long as the registry does, since a zone that is forgotten instead of dropped stays in it. Of a
/// platform that is `'static` they live as long as any handle of it, since such a zone stays in its group, too.
///
/// # Example
///
/// A platform over a fixed array, for one CPU, that never sleeps:
///
/// ```
/// use uma::{Platform, Registry, Zone};
/// use uma::core::NoSleep;
/// use uma::cache::{CpuLocks, CurrentCpu};
/// use uma::keg::MetaKegs;
/// use uma_backend_static::{StaticMemory, StaticPages};
///
/// type Lock = spin::Mutex<()>;
/// type Pages = &'static StaticPages<Lock>;
///
/// static MEMORY: StaticMemory<{ 1 << 20 }> = StaticMemory::new();
/// static PAGES: StaticPages<Lock> = StaticPages::new(&MEMORY);
/// static METADATA: MetaKegs<Pages, Lock> = MetaKegs::new(&PAGES);
/// static REGISTRY: Registry<Lock> = Registry::new();
///
/// #[derive(Clone, Copy)]
/// struct OneCpu;
///
/// impl CurrentCpu for OneCpu {
///     fn cpus(&self) -> usize { 1 }
///     fn current(&self) -> usize { 0 }
/// }
///
/// #[derive(Clone, Copy)]
/// struct Board;
///
/// // SAFETY: every method leads to a static.
/// unsafe impl Platform for Board {
///     type Pages = Pages;
///     type Cpus = CpuLocks<OneCpu>;
///     type Lock = Lock;
///     type Sleep = NoSleep;
///     type Metadata = &'static MetaKegs<Pages, Lock>;
///     fn pages(&self) -> Pages { &PAGES }
///     fn cpus(&self) -> Self::Cpus { CpuLocks::new(OneCpu) }
///     fn sleep(&self) -> NoSleep { NoSleep }
///     fn metadata(&self) -> Self::Metadata { &METADATA }
///     fn registry(&self) -> &Registry<Lock> { &REGISTRY }
/// }
///
/// static NODES: Zone<[u64; 4], Board> = Zone::new_in("node", Board);
/// let node = NODES.alloc([1, 2, 3, 4]).unwrap();
/// assert_eq!(node[3], 4);
/// ```
pub unsafe trait Platform: Clone + Send + Sync {
    /// Supplies pages.
    type Pages: PageSupplier + Clone + Send + Sync;
    /// Reaches the slot of the running CPU.
    type Cpus: PerCpu + Copy + Send + Sync;
    /// Locks kegs, depots, limit queues and the registry.
    type Lock: RawMutex + Send + Sync + 'static;
    /// Puts callers to sleep at a limit.
    type Sleep: Sleep + Clone + Send + Sync + 'static;
    /// Supplies memory for buckets, slots, slab headers and the zones themselves.
    type Metadata: Metadata + Clone + Send + Sync;

    /// The page supplier.
    fn pages(&self) -> Self::Pages;
    /// The way to the running CPU's slot.
    fn cpus(&self) -> Self::Cpus;
    /// The way to sleep.
    fn sleep(&self) -> Self::Sleep;
    /// The memory for bookkeeping.
    fn metadata(&self) -> Self::Metadata;
    /// Where zones are listed.
    fn registry(&self) -> &Registry<Self::Lock>;

    /// The largest slab for small items, in bytes, at most 64 KiB. Less suits a platform with little
    /// memory: slabs waste a little more, but a zone takes less of it at once.
    fn largest_slab(&self) -> usize {
        64 << 10
    }

    /// Passes a moment, while a zone that is to be destroyed is still being looked at.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// What a zone of this name checks if its description does not say. Asked once, when it is made.
    /// [`Hardening::RELEASE`] unless implemented.
    fn hardening(&self, zone: &Name) -> Hardening {
        let _ = zone;
        Hardening::RELEASE
    }

    /// Takes notice of misuse that checks have found, and says how to go on; unless implemented, reports it
    /// and ends the process. Called without a lock, on the thread that found it.
    fn misuse(&self, report: &Report<'_>) -> Verdict {
        self.report(format_args!("{report}"));
        Verdict::Abort
    }

    /// A number for the calling thread, or 0. For reports of misuse.
    fn thread(&self) -> u64 {
        0
    }

    /// Writes the return addresses of the calls that led here, innermost first, and returns how many; none
    /// unless implemented. It may run in any allocation or free of a zone that notes owners.
    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        let _ = frames;
        0
    }

    /// Writes what is known of a return address, on lines of its own; the bare address unless implemented.
    ///
    /// # Errors
    ///
    /// As the formatter.
    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "      {frame:#x}")
    }

    /// Tells the operator of something that went wrong without anybody to return it to (a zone that
    /// was destroyed with items in use), or that a limit was reached, where a zone is to
    /// [warn](crate::RawZoneBuilder::warning) of that. Does nothing unless implemented.
    fn report(&self, message: fmt::Arguments<'_>) {
        let _ = message;
    }
}

// SAFETY: forwards to an implementation that keeps the contract.
unsafe impl<P: Platform> Platform for &P {
    type Pages = P::Pages;
    type Cpus = P::Cpus;
    type Lock = P::Lock;
    type Sleep = P::Sleep;
    type Metadata = P::Metadata;

    fn pages(&self) -> Self::Pages {
        (**self).pages()
    }

    fn cpus(&self) -> Self::Cpus {
        (**self).cpus()
    }

    fn sleep(&self) -> Self::Sleep {
        (**self).sleep()
    }

    fn metadata(&self) -> Self::Metadata {
        (**self).metadata()
    }

    fn registry(&self) -> &Registry<Self::Lock> {
        (**self).registry()
    }

    fn largest_slab(&self) -> usize {
        (**self).largest_slab()
    }

    fn relax(&self) {
        (**self).relax();
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        (**self).hardening(zone)
    }

    fn misuse(&self, report: &Report<'_>) -> Verdict {
        (**self).misuse(report)
    }

    fn thread(&self) -> u64 {
        (**self).thread()
    }

    fn trace(&self, frames: &mut [usize; FRAMES]) -> usize {
        (**self).trace(frames)
    }

    fn show_frame(&self, frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).show_frame(frame, f)
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        (**self).report(message);
    }
}
