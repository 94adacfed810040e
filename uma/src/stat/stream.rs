//! The binary form that FreeBSD's kernel gives out as the sysctl `vm.zone_stats`, and a reader of it.
//!
//! ```text
//!   header         version = 1 | maxcpus | count | 0                     4 x u32 =  16 bytes
//!   zone 1         name[32], 10 x u32, 6 x u64                                   = 120 bytes
//!     CPU 0        allocs, frees, cache_free, 5 x 0                      8 x u64 =  64 bytes
//!     ...
//!     CPU maxcpus-1
//!   zone 2 ...
//! ```
//!
//! Everything is in the machine's byte order, as a C program finds it with the structures
//! `uma_stream_header`, `uma_type_header` and `uma_percpu_stat` of `uma.h`. Numbers that do not fit
//! into 32 bits read `u32::MAX`.
//!
//! FreeBSD's zones count traffic per CPU, and a reader sums it up. Here it is summed up already,
//! as exact figures need, so the CPUs' `allocs` and `frees` read 0; the sums come out the same.

use uma_core::{Name, RawMutex, Stats};

use crate::{Registry, ZoneRef};

/// The version of the format (`UMA_STREAM_VERSION`).
pub const VERSION: u32 = 1;
/// Bytes of the header, of a zone's record, and of a CPU's record.
pub const SIZES: (usize, usize, usize) = (16, 120, 64);
/// The bit in a zone's flags which says that its slabs are another zone's (`UTH_ZONE_SECONDARY`).
pub const SECONDARY: u32 = 1;
/// Bytes of what `pages` and `maxpages` count, whatever the machine's pages are.
pub const PAGE: u64 = 4096;

/// What is wrong with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// There is room for less than the zones need (`ENOMEM` of the sysctl).
    Short {
        /// Bytes that are needed at present.
        needed: usize,
    },
    /// A stream to read ends in the middle of a record.
    Truncated,
    /// A stream to read is of another version.
    Version(u32),
}

impl core::fmt::Display for StreamError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { needed } => write!(f, "the zones' statistics need {needed} bytes"),
            Self::Truncated => f.write_str("the statistics end in the middle of a record"),
            Self::Version(version) => {
                write!(f, "the statistics are of version {version}, not {VERSION}")
            }
        }
    }
}

impl core::error::Error for StreamError {}

impl<L: RawMutex> Registry<L> {
    /// Writes the statistics of all zones into a buffer, and returns how many bytes they take. See
    /// [`stream`](self) for the format.
    ///
    /// # Errors
    ///
    /// [`StreamError::Short`] if the buffer is too small; what it holds then means nothing. There may be
    /// more zones the next time, so whoever tries again should bring some room to spare.
    pub fn stream(&self, into: &mut [u8]) -> Result<usize, StreamError> {
        let (mut count, mut cpus) = (0, 0);
        self.visit(&mut |zone| {
            count += 1;
            cpus = cpus.max(zone.stats().slots as usize);
        });
        let (header, zone, cpu) = SIZES;
        let each = zone + cpus * cpu;
        let needed = header + count * each;
        if into.len() < needed {
            return Err(StreamError::Short { needed });
        }
        let mut rest = &mut into[header..needed];
        let mut written = 0;
        self.visit(&mut |zone| {
            // Zones that were made since the count are left for the next time.
            let Some((record, tail)) = core::mem::take(&mut rest).split_at_mut_checked(each) else {
                return;
            };
            write_zone(record, &zone);
            (rest, written) = (tail, written + 1);
        });
        let mut head = Writer(&mut into[..header]);
        for word in [VERSION as usize, cpus, written, 0] {
            head.u32(word as u64);
        }
        Ok(header + written * each)
    }
}

fn write_zone(into: &mut [u8], zone: &ZoneRef<'_>) {
    let stats = zone.stats();
    let (record, cpus) = into.split_at_mut(SIZES.1);
    cpus.fill(0);
    let (mut slots, mut held) = (cpus.chunks_exact_mut(SIZES.2), 0);
    zone.visit_cpus(&mut |_, items| {
        // A zone that is used for the first time just now has slots since the count.
        if let Some(slot) = slots.next() {
            let mut slot = Writer(slot);
            for value in [0, 0, items] {
                slot.u64(value);
            }
            held += items;
        }
    });
    Writer(record).zone(&zone.name(), &stats, held);
}

/// Writes a record from front to back.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        // The records have the sizes of `SIZES`, which a test adds up.
        if let Some((room, rest)) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len()) {
            room.copy_from_slice(bytes);
            self.0 = rest;
        }
    }

    fn u32(&mut self, value: u64) {
        self.bytes(&u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    fn zone(&mut self, name: &Name, stats: &Stats, on_cpus: u64) {
        let mut text = [0; 32];
        let name = name.as_str().as_bytes();
        text[..name.len()].copy_from_slice(name);
        self.bytes(&text);
        // FreeBSD's limit in pages; here limits are in items, so it follows from theirs.
        let slabs = match stats.per_slab {
            0 => 0,
            each => stats.limit.div_ceil(u64::from(each)),
        };
        let most = slabs.saturating_mul(stats.slab_bytes as u64);
        for value in [
            stats.align.saturating_sub(1) as u64,
            stats.size as u64,
            stats.stride.max(stats.size) as u64,
            most / PAGE,
            stats.limit,
            stats.bytes / PAGE,
            stats.keg_free,
            stats.cached.saturating_sub(on_cpus),
            u64::from(stats.bucket_size),
            u64::from(if stats.secondary { SECONDARY } else { 0 }),
        ] {
            self.u32(value);
        }
        for value in [stats.allocs, stats.frees, stats.fails, stats.sleeps, 0, 0] {
            self.u64(value);
        }
    }
}

/// A stream, to read.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    cpus: usize,
    count: usize,
    records: &'a [u8],
}

impl<'a> Stream<'a> {
    /// Looks at the header of a stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Version`] or [`StreamError::Truncated`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, StreamError> {
        let mut head = Reader(bytes);
        let [version, cpus, count, _] = [head.u32()?, head.u32()?, head.u32()?, head.u32()?];
        if version != VERSION {
            return Err(StreamError::Version(version));
        }
        let (cpus, count) = (cpus as usize, count as usize);
        let each = cpus.checked_mul(SIZES.2).and_then(|cpus| cpus.checked_add(SIZES.1));
        let needed = each.and_then(|each| each.checked_mul(count));
        if needed.is_none_or(|needed| needed > head.0.len()) {
            return Err(StreamError::Truncated);
        }
        Ok(Self { cpus, count, records: head.0 })
    }

    /// CPUs that every zone has a record of.
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// The zones.
    pub fn zones(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        self.records.chunks_exact(SIZES.1 + self.cpus * SIZES.2).take(self.count).map(Record)
    }
}

/// The record of one zone, and those of its CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// The zone's name, as bytes.
    pub fn name(&self) -> &'a [u8] {
        let text = &self.0[..32];
        &text[..text.iter().position(|&byte| byte == 0).unwrap_or(32)]
    }

    /// The 32-bit fields after the name: align (a mask), size, rsize, maxpages, limit, pages, keg_free,
    /// zone_free, bucketsize, zone_flags.
    pub fn words(&self) -> [u32; 10] {
        let mut words = [0; 10];
        for (word, bytes) in words.iter_mut().zip(self.0[32..72].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    /// The 64-bit fields: allocs, frees, fails, sleeps, xdomain, reserved.
    pub fn counts(&self) -> [u64; 6] {
        let mut counts = [0; 6];
        for (count, bytes) in counts.iter_mut().zip(self.0[72..120].as_chunks().0) {
            *count = u64::from_ne_bytes(*bytes);
        }
        counts
    }

    /// For each CPU: allocs, frees, and free items in its buckets.
    pub fn cpus(&self) -> impl Iterator<Item = [u64; 3]> + use<'a> {
        self.0[SIZES.1..].as_chunks::<64>().0.iter().map(|record| {
            let words = record.as_chunks().0;
            [words[0], words[1], words[2]].map(u64::from_ne_bytes)
        })
    }

    /// Items in use, as `vmstat -z` counts them: all allocations less all frees, at least 0.
    pub fn used(&self) -> u64 {
        let [allocs, frees, ..] = self.counts();
        let (allocs, frees) = self.cpus().fold((allocs, frees), |(allocs, frees), [a, f, _]| {
            (allocs.wrapping_add(a), frees.wrapping_add(f))
        });
        allocs.saturating_sub(frees)
    }

    /// Free items: on CPUs, in full buckets and in slabs.
    pub fn free(&self) -> u64 {
        let [.., keg_free, zone_free, _, flags] = self.words();
        let slabs = if flags & SECONDARY == 0 { u64::from(keg_free) } else { 0 };
        let cpus = self.cpus().map(|[.., cached]| cached).fold(0, u64::wrapping_add);
        slabs + u64::from(zone_free) + cpus
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Result<u32, StreamError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(StreamError::Truncated)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*bytes))
    }
}
