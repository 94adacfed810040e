//! An arena of identifiers in a `static`, with tags from boot memory: filled by each policy, checked, freed.

use uma_backend_static::{StaticMemory, StaticPages};
use uma_core::{NoSleep, Request};
use uma_keg::MetaKegs;
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, SegmentKind, VmemFault};

use crate::lock::SpinLock;

type Pages = StaticPages<SpinLock>;
type Tags = MetaKegs<&'static Pages, SpinLock>;

static MEMORY: StaticMemory<{ 128 * 1024 }> = StaticMemory::new();
static PAGES: Pages = StaticPages::new(&MEMORY);
static TAGS: Tags = MetaKegs::with_slabs(&PAGES, 4096, 8 * 1024);

const CONFIG: ArenaConfig = match ArenaConfig::new("identifiers", 1) {
    Ok(config) => config,
    Err(_) => panic!("1 is a power of two"),
};

static IDS: Arena<SpinLock, &Tags, NoSleep> = Arena::new(CONFIG, &TAGS, NoSleep);

const COUNT: usize = 1024;

/// Which identifiers are out.
struct Out([bool; COUNT]);

impl Out {
    /// Notes that `size` identifiers from `at` on go out, or come back.
    fn mark(&mut self, at: usize, size: usize, out: bool) {
        for id in &mut self.0[at..at + size] {
            assert!(*id != out, "identifier {at} is in two segments, or in none");
            *id = out;
        }
    }
}

/// Some rounds. Returns how many segments there were.
pub(crate) fn run() -> usize {
    assert!(IDS.add(0, COUNT).is_ok(), "there is memory for tags");
    let mut segments = 0;
    for policy in [Policy::Instant, Policy::Best, Policy::First, Policy::Next] {
        let mut out = Out([false; COUNT]);
        let mut held = [(0, 0); COUNT];
        let mut count = 0;
        loop {
            let size = count % 5 + 1;
            let align = Constraints::new().align(1 << (count % 3));
            let error = match IDS.xalloc(size, align, policy, Request::NOWAIT) {
                Ok(at) => {
                    assert!(at.is_multiple_of(1 << (count % 3)), "{at} is not aligned");
                    out.mark(at, size, true);
                    held[count] = (at, size);
                    count += 1;
                    continue;
                }
                Err(error) => error,
            };
            assert!(matches!(error.fault, VmemFault::Exhausted { .. }), "{error}");
            break;
        }
        assert!(count > COUNT / 5, "only {count} segments");
        assert_eq!(IDS.stats().segments, count);
        for which in (0..count).step_by(2).chain((1..count).step_by(2)) {
            let (at, size) = held[which];
            assert!(IDS.free(at, size).is_ok(), "a segment that is allocated can be freed");
            out.mark(at, size, false);
            let again = IDS.free(at, size).err().map(|error| error.fault);
            assert_eq!(again, Some(VmemFault::NotAllocated { addr: at, size }));
        }
        assert_eq!(IDS.size(SegmentKind::Free), COUNT, "an identifier was lost");
        segments += count;
    }
    let mut free = 0;
    assert!(IDS.walk(|segment| free += segment.size).is_ok());
    assert_eq!(free, COUNT);
    segments
}
