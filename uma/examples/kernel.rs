//! Zones in a kernel: boot memory first and the kernel's own pages later, slots that are reached with preemption
//! off, locks and a clock of its own; and, beside the zones of `uma`, a stack of layers picked by hand.
//!
//! ```sh
//! cargo run -p uma --example kernel
//! ```
//!
//! All but `main` is as it would be in a `no_std` kernel, which depends on `uma` with `default-features = false`,
//! and on nothing that needs a heap. What the machine does is played by a process: CPUs by threads, and the
//! kernel's pages by the process's. `ci/freestanding` links the layers without `std` or a C library.

use core::alloc::Layout;
use core::fmt;
use core::num::NonZeroU64;
use core::ptr::NonNull;

use uma::cache::{BucketCache, CacheConfig, Pin, Pinned};
use uma::core::{Handover, Limited, NoSleep, PageError, PageRun, PageSupplier};
use uma::keg::{Keg, MetaKegs, SlabConfig, SlabLayout};
use uma::{Hardening, Name, Platform, Reclaim, Registry, Request, Zone};
use uma_backend_static::{StaticMemory, StaticPages};

/// Any `lock_api::RawMutex`: a kernel has its own.
type Lock = spin::Mutex<()>;

// ------------------------------------------------------------------------------------------------ pages

type Boot = &'static StaticPages<Lock>;
type Pages = &'static Handover<Boot, Frames>;

static BOOT_MEMORY: StaticMemory<{ 512 << 10 }> = StaticMemory::new();
static BOOT: StaticPages<Lock> = StaticPages::new(&BOOT_MEMORY);
/// What all zones take their pages from: boot memory, until [`Handover::hand_over`] names something else.
static PAGES: Handover<Boot, Frames> = Handover::new(&BOOT);

/// The kernel's own allocator of page frames.
struct Frames;

// SAFETY: `machine::frames` gives memory of this layout to nobody else until it is given back.
unsafe impl PageSupplier for Frames {
    fn page_size(&self) -> usize {
        4096
    }

    fn alloc_pages(&self, layout: Layout, _: Request) -> Result<PageRun, PageError> {
        PageError::check(layout, self.page_size())?;
        let base = NonNull::new(machine::frames(layout)).ok_or(PageError::Exhausted)?;
        // SAFETY: as above; frames are not zeroed.
        Ok(unsafe { PageRun::from_parts(base, layout, false, 0) })
    }

    unsafe fn free_pages(&self, run: PageRun) {
        // SAFETY: the run came from `alloc_pages` above, with this layout.
        unsafe { machine::free_frames(run.base().as_ptr(), run.layout()) };
    }
}

// ------------------------------------------------------------------------------------------------- CPUs

#[derive(Clone, Copy)]
struct Cpus;

// SAFETY: `machine::pinned` keeps all others off this CPU number while the closure runs, and
// `machine::interrupt` returns when that CPU is in no such closure, with what it wrote visible.
unsafe impl Pin for Cpus {
    fn cpus(&self) -> usize {
        machine::CPUS
    }

    fn pinned<R>(&self, critical: impl FnOnce(usize) -> R) -> R {
        machine::pinned(critical)
    }

    fn quiesce(&self, cpu: usize) {
        machine::interrupt(cpu);
    }
}

// --------------------------------------------------------------------------------------------- platform

/// Memory for buckets, slots and the zones themselves.
static METADATA: MetaKegs<Pages, Lock> = MetaKegs::new(&PAGES);
/// The zones that there are.
static ZONES: Registry<Lock> = Registry::new();

#[derive(Clone, Copy)]
struct Kernel;

// SAFETY: every method leads to a static.
unsafe impl Platform for Kernel {
    type Pages = Pages;
    type Cpus = Pinned<Cpus>;
    type Lock = Lock;
    /// A kernel with a scheduler implements `Sleep`; here whoever meets a limit fails.
    type Sleep = NoSleep;
    type Metadata = &'static MetaKegs<Pages, Lock>;

    fn pages(&self) -> Pages {
        &PAGES
    }

    fn cpus(&self) -> Self::Cpus {
        Pinned::new(Cpus)
    }

    fn sleep(&self) -> NoSleep {
        NoSleep
    }

    fn metadata(&self) -> Self::Metadata {
        &METADATA
    }

    fn registry(&self) -> &Registry<Lock> {
        &ZONES
    }

    /// Small slabs: boot memory is little.
    fn largest_slab(&self) -> usize {
        16 << 10
    }

    fn hardening(&self, zone: &Name) -> Hardening {
        if zone.as_str() == "cred" { Hardening::HARDENED } else { Hardening::RELEASE }
    }

    fn report(&self, message: fmt::Arguments<'_>) {
        machine::console(message);
    }
}

struct Thread {
    id: u64,
    stack: [u64; 60],
}

static THREADS: Zone<Thread, Kernel> = Zone::new_in("thread", Kernel);

// ---------------------------------------------------------------------------------------- layers by hand

/// As `uma` would not put them together: at most 1000 frames, cached, without a platform or a registry, and with the
/// layout of slabs computed by the compiler.
type Packets = uma::core::Zone<
    BucketCache<
        Limited<Keg<Pages, Lock>, Lock, NoSleep>,
        Pinned<Cpus>,
        Lock,
        &'static MetaKegs<Pages, Lock>,
    >,
>;

const PACKET: Layout = Layout::new::<[u64; 192]>();
const PACKET_SLAB: SlabLayout =
    match SlabLayout::new(PACKET, SlabConfig::new().page_size(4096).inside_headers()) {
        Ok(layout) => layout,
        Err(_) => panic!("no slab holds a packet"),
    };

static PACKETS: Packets = uma::core::Zone::new(
    "packet",
    BucketCache::new(
        Limited::new(
            Keg::with_layout(&PAGES, uma::keg::NoMetadata, PACKET_SLAB),
            NonZeroU64::new(1000),
            NoSleep,
        ),
        Pinned::new(Cpus),
        &METADATA,
        CacheConfig::for_size(PACKET.size()),
    ),
);

// ------------------------------------------------------------------------------------------- the machine

/// What a process has in place of a machine.
mod machine {
    use std::alloc::{Layout, alloc, dealloc};
    use std::cell::Cell;
    use std::fmt;
    use std::sync::{Mutex, PoisonError};

    pub(super) const CPUS: usize = 2;

    /// Held by who runs on a CPU undisturbed.
    static QUIET: [Mutex<()>; CPUS] = [const { Mutex::new(()) }; CPUS];

    thread_local! {
        static CPU: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn run_on(cpu: usize) {
        CPU.set(cpu);
    }

    pub(super) fn pinned<R>(critical: impl FnOnce(usize) -> R) -> R {
        let cpu = CPU.get();
        let _quiet = QUIET[cpu].lock().unwrap_or_else(PoisonError::into_inner);
        critical(cpu)
    }

    pub(super) fn interrupt(cpu: usize) {
        drop(QUIET[cpu].lock());
    }

    pub(super) fn frames(layout: Layout) -> *mut u8 {
        // SAFETY: whoever asks has checked that the size is not zero.
        unsafe { alloc(layout) }
    }

    /// # Safety
    ///
    /// The memory came from [`frames`] with this layout, and is used no more.
    pub(super) unsafe fn free_frames(at: *mut u8, layout: Layout) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { dealloc(at, layout) };
    }

    pub(super) fn console(message: fmt::Arguments<'_>) {
        eprintln!("kernel: {message}");
    }
}

fn work(cpu: usize) {
    machine::run_on(cpu);
    for round in 0..1000 {
        let mut thread =
            THREADS.alloc(Thread { id: round, stack: [0; 60] }).expect("there are pages");
        thread.stack[59] = round;
        let packet = PACKETS.alloc(Request::NOWAIT).expect("no 1000 are in use");
        // SAFETY: the packet is ours.
        unsafe { packet.as_ptr().write_bytes(cpu as u8, PACKET.size()) };
        // SAFETY: it came from this zone and is used no more.
        unsafe { PACKETS.free(packet) };
        assert_eq!((thread.id, thread.stack[59]), (round, round));
    }
}

fn main() {
    // Early: one CPU, boot memory.
    let init = THREADS.alloc(Thread { id: 1, stack: [0; 60] }).expect("boot memory suffices");
    println!("boot: {:?}", BOOT.stats());

    // The kernel's pages are up. What lies in boot memory stays there, and goes back there.
    // SAFETY: frames are no boot memory.
    assert!(unsafe { PAGES.hand_over(Frames) }.is_ok(), "it is handed over once");
    std::thread::scope(|cpus| {
        for cpu in 0..machine::CPUS {
            cpus.spawn(move || work(cpu));
        }
    });
    drop(init);

    println!("{}", ZONES.table()); // for a debugger's `show uma`
    let packets = PACKETS.stats();
    println!("packets: {} allocated, {} in use", packets.allocs, packets.used());
    assert_eq!((THREADS.cur_items(), packets.used()), (0, 0));

    // When memory is short.
    ZONES.reclaim(Reclaim::DrainCpu);
    PACKETS.reclaim(Reclaim::DrainCpu);
    println!("{} slabs are left", THREADS.stats().slabs + PACKETS.stats().slabs);
}

#[cfg(test)]
#[test]
fn it_boots() {
    main();
}
