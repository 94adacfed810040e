//! Many zones, one after the other at random: in each an item is freed and one allocated. A malloc
//! serves all from its one heap.

use crate::rounds::{Contest, Random};
use crate::subject::{Block, Subject, Uma, Visit, each_malloc, out_of_memory};
use crate::sync::OnceLock;
use crate::team::Member;
use crate::work::Bench;
use uma::Zone;
use uma::core::{Item, Request};

const STEPS: usize = 50_000;
const SIZE: usize = 256;
/// The most there are.
pub(crate) const MOST: usize = 1000;

type Item256 = [u64; SIZE / 8];

pub(crate) fn run(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        row(bench, "zones at random", 64, threads);
    }
}

/// One row: so many zones, items of 256 bytes.
pub(crate) fn row(bench: &mut Bench, name: &'static str, zones: usize, threads: usize) {
    let mut lanes = Lanes { contest: Contest::new(threads), zones };
    each_malloc::<SIZE>(&bench.filter, &mut lanes);
    bench.contest(name, zones, threads, lanes.contest);
}

/// Subjects by number.
trait Family: Copy + Send + Sync + 'static {
    type Held: Send;
    fn alloc(self, zone: usize, word: u64) -> Self::Held;
    /// # Safety
    ///
    /// It came from `alloc` of this zone.
    unsafe fn free(self, zone: usize, held: Self::Held);
}

/// One heap for all.
#[derive(Clone, Copy)]
struct OneHeap<S>(S);

impl<S: Subject> Family for OneHeap<S> {
    type Held = S::Held;

    #[inline(always)]
    fn alloc(self, _: usize, word: u64) -> S::Held {
        self.0.alloc(word)
    }

    #[inline(always)]
    unsafe fn free(self, _: usize, held: S::Held) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.free(held) }
    }
}

/// A zone each.
#[derive(Clone, Copy)]
struct Zones(&'static [Zone<Item256>]);

impl Zones {
    fn get() -> Self {
        static ZONES: OnceLock<Vec<Zone<Item256>>> = OnceLock::new();
        let make = |at| Zone::builder(&format!("zone {at}")).build();
        let make = || (0..MOST).map(make).collect::<Result<_, _>>();
        Self(ZONES.get_or_init(|| make().unwrap_or_else(|_| out_of_memory())))
    }
}

impl Family for Zones {
    type Held = Block;

    #[inline(always)]
    fn alloc(self, zone: usize, word: u64) -> Block {
        match self.0[zone].as_raw().alloc(Request::NOWAIT) {
            Ok(item) => {
                // SAFETY: the item is ours, of at least eight bytes, and aligned for words.
                let mut block = unsafe { Block::returned(item.as_ptr()) };
                Uma::<SIZE>::write(&mut block, word);
                block
            }
            Err(_) => out_of_memory(),
        }
    }

    #[inline(always)]
    unsafe fn free(self, zone: usize, held: Block) {
        // SAFETY: passed on to the caller.
        unsafe { self.0[zone].as_raw().free(Item::new(held.0)) }
    }
}

struct Lanes {
    contest: Contest,
    zones: usize,
}

impl Visit for Lanes {
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S) {
        match name {
            "uma" => self.lane(name, Zones::get()),
            // The other faces of uma have no static to call.
            "uma-from-c" | "uma-bare" => {}
            _ => self.lane(name, OneHeap(subject)),
        }
    }
}

impl Lanes {
    fn lane<F: Family>(&mut self, name: &'static str, family: F) {
        let zones = self.zones;
        let begin = move |member: &Member| {
            let held = (0..zones).map(|zone| Some(family.alloc(zone, 0))).collect::<Vec<_>>();
            (held, Random::new(member.index as u64 + 1))
        };
        let job = move |(held, random): &mut (Vec<Option<F::Held>>, Random), member: &Member| {
            let mut work = |steps| {
                for _ in 0..steps {
                    let zone = random.below(zones);
                    let place = &mut held[zone];
                    if let Some(old) = place.take() {
                        // SAFETY: it came from this zone.
                        unsafe { family.free(zone, old) };
                    }
                    *place = Some(family.alloc(zone, 0));
                }
            };
            work(STEPS / 5);
            member.time(|| work(STEPS)).as_nanos() as f64 / STEPS as f64
        };
        let end = move |(held, _): (Vec<Option<F::Held>>, Random)| {
            for (zone, held) in held.into_iter().enumerate() {
                if let Some(held) = held {
                    // SAFETY: it came from this zone.
                    unsafe { family.free(zone, held) };
                }
            }
        };
        self.contest.lane_with(name, begin, job, end);
    }
}
