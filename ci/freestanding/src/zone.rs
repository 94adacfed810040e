//! The zone: everything of it is a `static`, and nothing runs before `_start`.

use core::alloc::Layout;

use uma_backend_static::{StaticMemory, StaticPages};
use uma_core::Zone;
use uma_keg::{Keg, NoMetadata, SlabConfig, SlabLayout};

use crate::lock::SpinLock;

type Pages = StaticPages<SpinLock>;

static MEMORY: StaticMemory<{ 256 * 1024 }> = StaticMemory::new();

pub(crate) static PAGES: Pages = StaticPages::new(&MEMORY);

/// Items that no power of two fits, aligned more than their words.
#[repr(C, align(32))]
struct Node([u64; 12]);

const SLAB: SlabLayout = match SlabLayout::new(Layout::new::<Node>(), SlabConfig::new()) {
    Ok(layout) => layout,
    Err(_) => panic!("no slab holds such items"),
};

pub(crate) static ZONE: Zone<Keg<&Pages, SpinLock>> =
    Zone::new("node", Keg::with_layout(&PAGES, NoMetadata, SLAB));
