//! An arena beside a plain set of intervals: the same operations at random on both, and after each the
//! same answers.
//!
//! The model knows nothing of free lists, tags or neighbours: it has spans, and allocated ranges in a map;
//! what is free it works out anew each time, and places it tries one after the other, in 128 bits. The
//! fuzz target `vmem_ops` runs this very file.

// Each of those that include it uses a part.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use uma_core::{NoSleep, Request};
use uma_testkit::machine::{self, OneThread, Unlocked};
use uma_testkit::{HeapMeta, Rng};
use uma_vmem::{Arena, ArenaConfig, Constraints, Policy, Segment, SegmentKind, VmemFault};

/// Where decisions come from: a generator, or the bytes of a fuzzer.
pub trait Choices {
    /// A number below `bound`, or `None` at the end.
    fn below(&mut self, bound: usize) -> Option<usize>;
}

/// So many decisions of a generator.
pub struct Random {
    pub rng: Rng,
    pub left: usize,
}

impl Choices for Random {
    fn below(&mut self, bound: usize) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        Some(self.rng.below(bound))
    }
}

/// Decisions of one or two bytes each.
pub struct Bytes<'a>(pub &'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: usize) -> Option<usize> {
        let (&low, rest) = self.0.split_first()?;
        self.0 = rest;
        if bound <= 256 {
            return Some(usize::from(low) % bound);
        }
        let (&high, rest) = self.0.split_first()?;
        self.0 = rest;
        Some((usize::from(high) << 8 | usize::from(low)) % bound)
    }
}

/// A free segment: first address and last.
type Range = (usize, usize);

#[derive(Clone, Copy, Debug)]
struct Asked {
    size: usize,
    align: usize,
    phase: usize,
    nocross: usize,
    min: usize,
    max: usize,
    policy: Policy,
}

struct Model {
    quantum: usize,
    spans: Vec<Range>,
    /// First address to size as asked for.
    allocated: BTreeMap<usize, usize>,
    /// Where next fit goes on: a span, and an address in it.
    rotor: Option<(usize, usize)>,
}

fn list(size: u128) -> u32 {
    size.ilog2()
}

impl Model {
    fn round(&self, size: usize) -> u128 {
        (size as u128).next_multiple_of(self.quantum as u128)
    }

    /// The last address of what an allocated segment takes up.
    fn last(&self, at: usize, size: usize) -> usize {
        (at as u128 + self.round(size) - 1) as usize
    }

    /// All segments, as a walk has them.
    fn segments(&self) -> Vec<Segment> {
        let mut found = Vec::new();
        for &(first, last) in &self.spans {
            let mut at = first as u128;
            let free = |from: u128, to: u128| Segment {
                kind: SegmentKind::Free,
                addr: from as usize,
                size: (to - from) as usize,
            };
            for (&addr, &size) in self.allocated.range(first..=last) {
                if at < addr as u128 {
                    found.push(free(at, addr as u128));
                }
                found.push(Segment { kind: SegmentKind::Allocated, addr, size });
                at = addr as u128 + self.round(size);
            }
            if at <= last as u128 {
                found.push(free(at, last as u128 + 1));
            }
        }
        found
    }

    fn free(&self) -> Vec<Range> {
        let free = |s: &Segment| s.kind == SegmentKind::Free;
        self.segments()
            .iter()
            .filter(|s| free(s))
            .map(|s| (s.addr, s.addr + (s.size - 1)))
            .collect()
    }

    fn in_use(&self) -> u128 {
        self.allocated.values().map(|&size| self.round(size)).sum()
    }

    /// The first place from `from` on in a free segment.
    fn place(&self, asked: &Asked, (first, last): Range, from: usize) -> Option<usize> {
        let (align, phase) = (asked.align as u128, asked.phase as u128);
        let low = first.max(from).max(asked.min) as u128;
        let mut at = low / align * align + phase;
        while at < low {
            at += align;
        }
        let tries = if asked.nocross == 0 { 1 } else { asked.nocross / asked.align + 1 };
        for _ in 0..tries {
            let end = at + asked.size as u128 - 1;
            let inside = at + self.round(asked.size) - 1 <= last as u128;
            if !inside || end > asked.max as u128 {
                return None;
            }
            let window = asked.nocross as u128;
            if window == 0 || at / window == end / window {
                return Some(at as usize);
            }
            at += align;
        }
        None
    }

    fn fault(&self, asked: &Asked) -> Option<VmemFault> {
        let Asked { size, align, phase, nocross, min, max, .. } = *asked;
        let q = self.quantum;
        let real = self.round(size);
        if size == 0 {
            Some(VmemFault::ZeroSize)
        } else if real > usize::MAX as u128 {
            Some(VmemFault::Overflow(size))
        } else if !align.is_power_of_two() || align % q != 0 {
            Some(VmemFault::BadAlign(align))
        } else if phase >= align || phase % q != 0 {
            Some(VmemFault::BadPhase(phase))
        } else if nocross != 0 && (!nocross.is_power_of_two() || nocross % q != 0) {
            Some(VmemFault::BadNocross(nocross))
        } else if nocross != 0
            && (align > nocross
                || (phase as u128 + real).next_multiple_of(align as u128) > nocross as u128)
        {
            Some(VmemFault::Overconstrained)
        } else if min > max {
            Some(VmemFault::BadRange { min, max })
        } else {
            None
        }
    }

    /// Free segments from the rotor on, once around, and that of the rotor twice.
    fn next_fit(&self, asked: &Asked) -> Option<usize> {
        let Some((span, rotor)) = self.rotor else {
            return self.free().iter().find_map(|&range| self.place(asked, range, 0));
        };
        let span_of = |at| self.spans.iter().position(|&(low, high)| low <= at && at <= high);
        // In the order of the spans already.
        let free: Vec<_> = self.free().iter().map(|&r| (span_of(r.0).unwrap(), r)).collect();
        let after = |&&(s, (_, last)): &&(usize, Range)| (s, last) >= (span, rotor);
        let holds =
            |&(s, (first, last)): &(usize, Range)| s == span && first <= rotor && rotor <= last;
        let from = |entry: &(usize, Range)| if holds(entry) { rotor } else { 0 };
        let ahead =
            free.iter().filter(after).find_map(|entry| self.place(asked, entry.1, from(entry)));
        let behind = |entry: &&(usize, Range)| !after(entry) || holds(entry);
        ahead.or_else(|| free.iter().filter(behind).find_map(|entry| self.place(asked, entry.1, 0)))
    }

    /// Whether the arena's answer is right.
    fn judge(&self, asked: &Asked, answer: Option<usize>) {
        let free = self.free();
        let fitting: Vec<Range> =
            free.iter().copied().filter(|&r| self.place(asked, r, 0).is_some()).collect();
        let Some(at) = answer else {
            assert!(fitting.is_empty(), "{asked:?} failed, but would fit in {fitting:x?}");
            return;
        };
        let length = |&(first, last): &Range| last as u128 - first as u128 + 1;
        let holds = |&&(first, last): &&Range| first <= at && at <= last;
        let taken = fitting.iter().find(holds).copied();
        let taken =
            taken.unwrap_or_else(|| panic!("{asked:?} at {at:#x}: not free, or does not fit"));
        if asked.policy == Policy::Next {
            assert_eq!(Some(at), self.next_fit(asked), "{asked:?}: not the next");
            return;
        }
        assert_eq!(
            Some(at),
            self.place(asked, taken, 0),
            "{asked:?}: not the first place in {taken:x?}"
        );
        let first_list = |of: &[Range]| of.iter().map(|r| list(length(r))).min();
        match asked.policy {
            Policy::Best => {
                assert_eq!(
                    Some(length(&taken)),
                    fitting.iter().map(length).min(),
                    "{asked:?}: not the best"
                );
            }
            Policy::First => {
                assert_eq!(Some(list(length(&taken))), first_list(&fitting), "{asked:?}");
            }
            Policy::Instant => {
                let enough = self.round(asked.size) + (asked.align - self.quantum) as u128;
                let sure: Vec<Range> =
                    free.iter().copied().filter(|r| 1 << list(length(r)) >= enough).collect();
                let bound = asked.nocross != 0 || asked.min != 0 || asked.max != usize::MAX;
                if !sure.is_empty() && !bound {
                    assert_eq!(Some(list(length(&taken))), first_list(&sure), "{asked:?}");
                } else if sure.is_empty() {
                    assert_eq!(Some(list(length(&taken))), first_list(&fitting), "{asked:?}");
                }
            }
            Policy::Next => {}
        }
    }

    fn allocate(&mut self, asked: &Asked, at: usize) {
        self.allocated.insert(at, asked.size);
        if asked.policy != Policy::Next {
            return;
        }
        let holds = |&(low, high): &Range| low <= at && at <= high;
        let span = self.spans.iter().position(holds).unwrap();
        let last = self.last(at, asked.size);
        self.rotor = if last < self.spans[span].1 {
            Some((span, last + 1))
        } else {
            self.spans.get(span + 1).map(|&(first, _)| (span + 1, first))
        };
    }
}

/// The spans of an arena to try: at both ends of all addresses, touching, and far apart.
fn layout(choice: usize, quantum: usize) -> Vec<(usize, usize)> {
    let top = |units: usize| (0usize.wrapping_sub(units * quantum), units * quantum);
    match choice {
        0 => vec![(0, 64 * quantum)],
        1 => vec![top(64)],
        2 => vec![(0, 32 * quantum), top(32), (1000 * quantum, 5 * quantum)],
        3 => vec![(64 * quantum, 64 * quantum), (128 * quantum, 33 * quantum), (0, 64 * quantum)],
        4 => vec![(0, 1024 * quantum)],
        // All there is, but for one quantum.
        _ => vec![(quantum, 0usize.wrapping_sub(quantum))],
    }
}

/// Sizes and addresses of all kinds, sensible ones mostly.
struct Picks<'a, C: Choices> {
    from: &'a mut C,
    quantum: usize,
    base: usize,
    reach: usize,
}

impl<C: Choices> Picks<'_, C> {
    fn size(&mut self) -> Option<usize> {
        let q = self.quantum;
        let units = match self.from.below(16)? {
            0 => return self.from.below(3).map(|which| [0, usize::MAX, usize::MAX - q][which]),
            1 => self.from.below(self.reach)? + 1,
            2..6 => 1 << self.from.below(6)?,
            _ => self.from.below(9)? + 1,
        };
        let less = if self.from.below(4)? == 0 { self.from.below(q)? } else { 0 };
        Some(units * q - less)
    }

    fn power(&mut self) -> Option<usize> {
        let odd = self.from.below(64)? == 0;
        Some(if odd { self.from.below(5)? * 3 } else { self.quantum << self.from.below(6)? })
    }

    fn address(&mut self) -> Option<usize> {
        let offset =
            self.from.below(self.reach)? * self.quantum + self.from.below(self.quantum.min(3))?;
        Some(self.base.wrapping_add(offset))
    }

    fn asked(&mut self) -> Option<Asked> {
        let policy =
            [Policy::Instant, Policy::Best, Policy::First, Policy::Next][self.from.below(4)?];
        let size = self.size()?;
        let (min, max, nocross) = (0, usize::MAX, 0);
        let mut asked = Asked { size, align: self.quantum, phase: 0, nocross, min, max, policy };
        if self.from.below(2)? == 0 {
            return Some(asked);
        }
        if self.from.below(2)? == 0 {
            asked.align = self.power()?;
        }
        if self.from.below(3)? == 0 {
            asked.phase = self.quantum * self.from.below(8)?;
        }
        if self.from.below(3)? == 0 {
            asked.nocross = self.power()?;
        }
        if self.from.below(3)? == 0 {
            asked.min = self.address()?;
        }
        if self.from.below(3)? == 0 {
            asked.max = self.address()?;
        }
        Some(asked)
    }
}

/// Runs a program to the end of its decisions, and returns how many operations it had.
pub fn run(choices: &mut impl Choices) -> usize {
    machine::reset();
    let meta = HeapMeta::new();
    let operations = program(choices, &meta).unwrap_or_else(|operations| operations);
    assert_eq!(meta.outstanding().runs, 0, "tags were not given back");
    assert!(machine::complaints().is_empty(), "{:?}", machine::complaints());
    operations
}

fn program(choices: &mut impl Choices, meta: &HeapMeta) -> Result<usize, usize> {
    let mut operations = 0;
    macro_rules! choose {
        ($choice:expr) => {
            match $choice {
                Some(value) => value,
                None => return Err(operations),
            }
        };
    }
    let quantum = [1, 1, 16, 4096][choose!(choices.below(4))];
    let wanted_spans = layout(choose!(choices.below(6)), quantum);
    // How many allocations there may be at once, so that arenas full and empty are seen.
    let most = [4, 16, 64, 300][choose!(choices.below(4))];
    let config = ArenaConfig::new("model", quantum).unwrap();
    let arena = Arena::<OneThread, _, _>::new(config, Unlocked(meta), NoSleep);
    let mut model = Model { quantum, spans: Vec::new(), allocated: BTreeMap::new(), rotor: None };
    let mut peak = 0;
    for (base, size) in wanted_spans {
        arena.add(base, size).unwrap();
        model.spans.push((base, base + (size - 1)));
        let overlap = arena.add(base, quantum).unwrap_err().fault;
        assert_eq!(overlap, VmemFault::Overlap { base, size: quantum });
    }
    loop {
        let span = model.spans[choose!(choices.below(model.spans.len()))];
        let length = (span.1 - span.0) / quantum + 1;
        let base = span.0.wrapping_sub(quantum * choose!(choices.below(2)));
        let reach = length.min(1200) + 2;
        let mut picks = Picks { from: choices, quantum, base, reach };
        let mut what = choose!(picks.from.below(16));
        if model.allocated.len() >= most {
            what = 8;
        }
        match what {
            0..8 => {
                let asked = choose!(picks.asked());
                let plain = Asked {
                    align: quantum,
                    phase: 0,
                    nocross: 0,
                    min: 0,
                    max: usize::MAX,
                    ..asked
                };
                let constraints = Constraints::new()
                    .align(asked.align)
                    .phase(asked.phase)
                    .nocross(asked.nocross)
                    .range(asked.min, asked.max);
                // An alignment of 0 stands for the quantum.
                let align = if asked.align == 0 { quantum } else { asked.align };
                let asked = Asked { align, ..asked };
                let simple = format!("{plain:?}") == format!("{asked:?}");
                let got = if simple {
                    arena.alloc(asked.size, asked.policy, Request::NOWAIT)
                } else {
                    arena.xalloc(asked.size, constraints, asked.policy, Request::NOWAIT)
                };
                match (got.map_err(|error| error.fault), model.fault(&asked)) {
                    (got, Some(fault)) => assert_eq!(got, Err(fault), "{asked:?}"),
                    (Ok(at), None) => {
                        model.judge(&asked, Some(at));
                        model.allocate(&asked, at);
                    }
                    (Err(VmemFault::Exhausted { size, free }), None) => {
                        model.judge(&asked, None);
                        assert_eq!((size, free), (asked.size, arena.size(SegmentKind::Free)));
                    }
                    (Err(fault), None) => panic!("{asked:?}: {fault}"),
                }
            }
            8..14 => {
                let which = choose!(picks.from.below(model.allocated.len().max(1)));
                if let Some((&at, &size)) = model.allocated.iter().nth(which) {
                    let wrong = size.wrapping_add(1);
                    let fault = arena.free(at, wrong).unwrap_err().fault;
                    assert_eq!(
                        fault,
                        VmemFault::WrongSize { addr: at, size: wrong, allocated: size }
                    );
                    arena.free(at, size).unwrap();
                    model.allocated.remove(&at);
                    let fault = arena.free(at, size).unwrap_err().fault;
                    assert_eq!(fault, VmemFault::NotAllocated { addr: at, size });
                }
            }
            14 => {
                let (addr, size) = (choose!(picks.address()), choose!(picks.size()));
                let last = addr.checked_add(size.wrapping_sub(1)).filter(|_| size != 0);
                let within =
                    |last| model.spans.iter().any(|&(low, high)| low <= addr && last <= high);
                assert_eq!(
                    arena.contains(addr, size),
                    last.is_some_and(within),
                    "{addr:#x} {size:#x}"
                );
                if !model.allocated.contains_key(&addr) {
                    let fault = arena.free(addr, size).unwrap_err().fault;
                    let ours = if within(addr) {
                        VmemFault::NotAllocated { addr, size }
                    } else {
                        VmemFault::Foreign { addr, size }
                    };
                    assert_eq!(fault, ours);
                }
            }
            _ => {
                let mut seen = Vec::new();
                let report = |segment| {
                    machine::outside_locks("a segment is reported");
                    seen.push(segment);
                };
                arena.walk(report).unwrap();
                assert_eq!(seen, model.segments());
            }
        }
        operations += 1;
        let stats = arena.stats();
        let in_use = model.in_use() as usize;
        peak = peak.max(in_use);
        assert_eq!((stats.in_use, stats.peak), (in_use, peak));
        assert_eq!(stats.segments, model.allocated.len());
        assert_eq!(stats.allocs - stats.frees, model.allocated.len() as u64);
    }
}
