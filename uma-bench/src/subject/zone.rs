//! uma, in three ways: as a user of a static zone gets it, called from C, and as a bare stack of
//! layers.

use std::alloc::Layout;

use uma::Zone;
use uma::cache::BucketCache;
use uma::core::{Item, ItemSource, Request};
use uma::keg::{Keg, SlabConfig, SlabLayout};
use uma::mmap::HugePages;
use uma::{Host, Platform};

use crate::subject::{Block, Subject, out_of_memory};
use crate::sync::OnceLock;

/// Sizes that have a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size<const N: usize>;

/// That there is a zone of this size, in a static.
pub(crate) trait HasZone: Copy + Send + Sync + 'static {
    /// What the items of the zone hold.
    type Value: 'static;
    /// The zone.
    fn zone() -> &'static Zone<Self::Value>;
    /// A function that calls it as C would.
    fn alloc_from_c() -> *mut u8;
    /// The other one.
    ///
    /// # Safety
    ///
    /// The item came from `alloc_from_c`.
    unsafe fn free_from_c(at: *mut u8);
}

/// A zone per size, and what a C facade over it would be: two functions that are not inlined.
macro_rules! zones {
    ($($size:literal $zone:ident $alloc:ident $free:ident,)*) => {$(
        static $zone: Zone<[u64; $size / 8]> = Zone::new(concat!("bench ", $size));

        #[inline(never)]
        extern "C" fn $alloc() -> *mut u8 {
            match $zone.as_raw().alloc(Request::NOWAIT) {
                Ok(item) => item.as_ptr(),
                Err(_) => std::ptr::null_mut(),
            }
        }

        /// # Safety
        ///
        /// The item came from the function above.
        #[inline(never)]
        unsafe extern "C" fn $free(at: *mut u8) {
            if let Some(at) = std::ptr::NonNull::new(at) {
                // SAFETY: passed on to the caller.
                unsafe { $zone.as_raw().free(Item::new(at)) }
            }
        }

        impl HasZone for Size<$size> {
            type Value = [u64; $size / 8];
            #[inline(always)]
            fn zone() -> &'static Zone<[u64; $size / 8]> {
                &$zone
            }
            #[inline(always)]
            fn alloc_from_c() -> *mut u8 {
                $alloc()
            }
            #[inline(always)]
            unsafe fn free_from_c(at: *mut u8) {
                // SAFETY: passed on to the caller.
                unsafe { $free(at) }
            }
        }
    )*};
}

zones! {
    64 ZONE_64 alloc_64 free_64,
    200 ZONE_200 alloc_200 free_200,
    256 ZONE_256 alloc_256 free_256,
    1000 ZONE_1000 alloc_1000 free_1000,
    1024 ZONE_1024 alloc_1024 free_1024,
    4096 ZONE_4096 alloc_4096 free_4096,
}

/// A process whose zones lie on huge pages. It has no type of its own: what is measured in a process of its own can
/// ask for them there.
pub(crate) const UMA_HUGE: &str = "uma-huge";

/// The subject that a child process is to measure, given its name.
pub(crate) fn in_child(name: &str) -> &str {
    if name != UMA_HUGE {
        return name;
    }
    uma::set_huge_pages(HugePages::Wanted);
    "uma"
}

/// A static zone, inlined: what a Rust program gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uma<const N: usize>;

// SAFETY: a zone hands an item out once.
unsafe impl<const N: usize> Subject for Uma<N>
where
    Size<N>: HasZone,
{
    type Held = Block;

    #[inline(always)]
    fn take(self) -> Block {
        match Size::<N>::zone().as_raw().alloc(Request::NOWAIT) {
            // SAFETY: the item is ours, of at least eight bytes, and aligned for words.
            Ok(item) => unsafe { Block::returned(item.as_ptr()) },
            Err(_) => out_of_memory(),
        }
    }

    #[inline(always)]
    fn write(held: &mut Block, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Block) {
        // SAFETY: passed on to the caller.
        unsafe { Size::<N>::zone().as_raw().free(Item::new(held.0)) }
    }

    fn block(held: &Block) -> Option<Block> {
        Some(*held)
    }
}

/// The same zone through functions that are not inlined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UmaFromC<const N: usize>;

// SAFETY: as for `Uma`.
unsafe impl<const N: usize> Subject for UmaFromC<N>
where
    Size<N>: HasZone,
{
    type Held = Block;

    #[inline(always)]
    fn take(self) -> Block {
        // SAFETY: the item is ours, of at least eight bytes, and aligned for words.
        unsafe { Block::returned(Size::<N>::alloc_from_c()) }
    }

    #[inline(always)]
    fn write(held: &mut Block, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Block) {
        // SAFETY: passed on to the caller.
        unsafe { Size::<N>::free_from_c(held.0.as_ptr()) }
    }

    fn block(held: &Block) -> Option<Block> {
        Some(*held)
    }
}

type Lock = <Host as Platform>::Lock;
type Metadata = <Host as Platform>::Metadata;
type Pages = <Host as Platform>::Pages;

/// A bucket cache over a keg, without name, hooks, limit, registry or first use.
pub(crate) type Bare = BucketCache<Keg<Pages, Lock, Metadata>, Access, Lock, Metadata>;

#[cfg(target_arch = "x86_64")]
type Access = uma::cache::Rseq;
#[cfg(not(target_arch = "x86_64"))]
type Access = <Host as Platform>::Cpus;

/// How uma reaches its slots here.
pub(crate) fn mode() -> &'static str {
    uma::cache::PerCpu::mode(&Host.cpus())
}

/// The access that the host has chosen, without the choice.
#[cfg(target_arch = "x86_64")]
fn access() -> Option<Access> {
    let cpus = Host.cpus();
    let sequences = uma::cache::PerCpu::mode(&cpus) == "rseq";
    sequences.then(|| Access::available(uma::cache::PerCpu::cpus(&cpus))).flatten()
}

#[cfg(not(target_arch = "x86_64"))]
fn access() -> Option<Access> {
    Some(Host.cpus())
}

/// The bare stack, if the host has restartable sequences.
#[derive(Clone, Copy)]
pub(crate) struct UmaBare<const N: usize>(&'static Bare);

impl<const N: usize> UmaBare<N> {
    pub(crate) fn new() -> Option<Self> {
        static STACKS: [OnceLock<Bare>; 8] = [const { OnceLock::new() }; 8];
        let at = [64, 200, 256, 1000, 1024, 4096].iter().position(|&size| size == N)?;
        let access = access()?;
        let item = Layout::from_size_align(N, 8).ok()?;
        let layout = SlabLayout::new(item, SlabConfig::new()).ok()?;
        let make = || {
            let keg = Keg::with_layout(Host.pages(), Host.metadata(), layout);
            let config = uma::cache::CacheConfig::for_size(N);
            BucketCache::new(keg, access, Host.metadata(), config)
        };
        Some(Self(STACKS[at].get_or_init(make)))
    }
}

// SAFETY: as for `Uma`.
unsafe impl<const N: usize> Subject for UmaBare<N> {
    type Held = Block;

    #[inline(always)]
    fn take(self) -> Block {
        match self.0.alloc(Request::NOWAIT) {
            // SAFETY: the item is ours, of at least eight bytes, and aligned for words.
            Ok(item) => unsafe { Block::returned(item.as_ptr()) },
            Err(_) => out_of_memory(),
        }
    }

    #[inline(always)]
    fn write(held: &mut Block, word: u64) {
        held.write(word);
    }

    #[inline(always)]
    unsafe fn free(self, held: Block) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.free(Item::new(held.0)) }
    }

    fn block(held: &Block) -> Option<Block> {
        Some(*held)
    }
}
