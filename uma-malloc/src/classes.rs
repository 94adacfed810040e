//! Size classes: which zone serves a size.
//!
//! ```text
//!   size <= 1024    small[(size + 7) / 8]                           one load
//!   larger          large[leading bits of size - 1] = first class   one load, then a step or two up
//!                   that holds the smallest size with these bits
//! ```
//!
//! The second table has eight entries for each doubling, so with four classes to a doubling it leads
//! straight to the class. Tables with more classes than that cost a comparison for each of the others.
//!
//! A table is made at compile time and never changes. That every size goes to the smallest class that
//! holds it is tested for every size and every table of this crate.

use core::fmt;

/// Most classes that a table can have.
pub const MAX_CLASSES: usize = 120;

/// Largest size that a class can have, in bytes. Larger ones are better had as runs of pages.
pub const MAX_CLASS_SIZE: usize = 1 << 20;

/// Most that a class is aligned to by its size, in bytes.
const PAGE: usize = 4096;
/// Sizes of classes are multiples of this, which is also the least alignment.
const UNIT: usize = 8;
/// Up to this size the class is found by one load.
const SMALL: usize = 1024;
/// Entries of the second table for each doubling.
const STEPS: usize = 8;
const BINS: usize = (MAX_CLASS_SIZE.ilog2() - SMALL.ilog2()) as usize * STEPS;

/// How the items of a class are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// To the largest power of two that divides the size, up to 4096: as much as can be had for
    /// nothing. `kmem_alloc` promises part of this (64 for multiples of 64, pages for multiples of pages).
    Natural,
    /// Powers of two to their size, up to 4096, and all other sizes to so much: `kmalloc` and malloc(9).
    PowersOfTwo(usize),
    /// All to the same.
    Fixed(usize),
}

/// What is wrong with a table of size classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// There is no class.
    Empty,
    /// There are more than [`MAX_CLASSES`].
    TooMany,
    /// A size is 0, no multiple of 8, or above [`MAX_CLASS_SIZE`].
    BadSize(usize),
    /// A size is not above the one before it.
    NotRising(usize),
    /// An alignment is not a power of two from 8 to 4096.
    BadAlign(usize),
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a table needs a size class"),
            Self::TooMany => write!(f, "a table has at most {MAX_CLASSES} size classes"),
            Self::BadSize(size) => {
                write!(f, "{size} is no multiple of {UNIT} from {UNIT} to {MAX_CLASS_SIZE}")
            }
            Self::NotRising(size) => write!(f, "{size} is not above the size before it"),
            Self::BadAlign(align) => {
                write!(f, "{align} is not a power of two from {UNIT} to {PAGE}")
            }
        }
    }
}

impl core::error::Error for TableFault {}

/// A table of size classes.
///
/// ```
/// use uma_malloc::{Alignment, SizeClasses};
///
/// static TABLE: SizeClasses =
///     SizeClasses::checked(&[16, 32, 64, 128, 1024], Alignment::Natural);
/// let class = TABLE.class_of(65).unwrap();
/// assert_eq!((TABLE.size(class), TABLE.align(class)), (128, 128));
/// assert_eq!(TABLE.class_of(1025), None);
/// ```
#[derive(Clone, Debug)]
pub struct SizeClasses {
    /// The largest size that is found in `small`.
    small_max: u32,
    max: u32,
    min_align: u32,
    count: u8,
    small: [u8; SMALL / UNIT + 1],
    large: [u8; BINS],
    sizes: [u32; MAX_CLASSES],
    aligns: [u16; MAX_CLASSES],
}

impl SizeClasses {
    /// A table of these sizes, which rise.
    ///
    /// # Errors
    ///
    /// [`TableFault`] names the first size or alignment that cannot be.
    pub const fn new(sizes: &[usize], alignment: Alignment) -> Result<Self, TableFault> {
        if sizes.is_empty() {
            return Err(TableFault::Empty);
        }
        if sizes.len() > MAX_CLASSES {
            return Err(TableFault::TooMany);
        }
        if let Alignment::PowersOfTwo(align) | Alignment::Fixed(align) = alignment
            && (!align.is_power_of_two() || align < UNIT || align > PAGE)
        {
            return Err(TableFault::BadAlign(align));
        }
        let mut table = Self {
            small_max: 0,
            max: 0,
            min_align: PAGE as u32,
            // At most 120.
            count: sizes.len() as u8,
            small: [0; SMALL / UNIT + 1],
            large: [0; BINS],
            sizes: [0; MAX_CLASSES],
            aligns: [0; MAX_CLASSES],
        };
        let mut class = 0;
        while class < sizes.len() {
            let size = sizes[class];
            if size == 0 || !size.is_multiple_of(UNIT) || size > MAX_CLASS_SIZE {
                return Err(TableFault::BadSize(size));
            }
            if size <= table.max as usize {
                return Err(TableFault::NotRising(size));
            }
            let align = align_of_class(size, alignment);
            // All fit: sizes are at most 1 MiB, alignments at most 4096.
            table.sizes[class] = size as u32;
            table.aligns[class] = align as u16;
            table.max = size as u32;
            if (align as u32) < table.min_align {
                table.min_align = align as u32;
            }
            class += 1;
        }
        table.small_max = if table.max < SMALL as u32 { table.max } else { SMALL as u32 };
        let mut entry = 0;
        while entry <= table.small_max as usize / UNIT {
            table.small[entry] = table.first_from(0, entry * UNIT) as u8;
            entry += 1;
        }
        let mut bin = 0;
        while bin < BINS {
            let start = (SMALL << (bin / STEPS)) / STEPS * (STEPS + bin % STEPS);
            if start < table.max as usize {
                table.large[bin] = table.first_from(0, start + 1) as u8;
            }
            bin += 1;
        }
        Ok(table)
    }

    /// [`new`](Self::new), for statics.
    ///
    /// # Panics
    ///
    /// If the table cannot be; in a static that is an error of the compiler.
    pub const fn checked(sizes: &[usize], alignment: Alignment) -> Self {
        match Self::new(sizes, alignment) {
            Ok(table) => table,
            Err(TableFault::Empty) => panic!("a table needs a size class"),
            Err(TableFault::TooMany) => panic!("too many size classes"),
            Err(TableFault::BadSize(_)) => panic!("sizes are multiples of 8 up to 1 MiB"),
            Err(TableFault::NotRising(_)) => panic!("sizes rise"),
            Err(TableFault::BadAlign(_)) => panic!("alignments are powers of two from 8 to 4096"),
        }
    }

    /// How many classes there are.
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// The largest class, in bytes.
    pub const fn max(&self) -> usize {
        self.max as usize
    }

    /// What every class is aligned to at least, in bytes.
    pub const fn min_align(&self) -> usize {
        self.min_align as usize
    }

    /// The size of a class, in bytes.
    ///
    /// # Panics
    ///
    /// If there is no such class.
    #[inline]
    pub const fn size(&self, class: usize) -> usize {
        assert!(class < self.count());
        self.sizes[class] as usize
    }

    /// The alignment of a class, in bytes.
    ///
    /// # Panics
    ///
    /// If there is no such class.
    #[inline]
    pub const fn align(&self, class: usize) -> usize {
        assert!(class < self.count());
        self.aligns[class] as usize
    }

    /// The smallest class that holds `size` bytes (for 0, the first), or `None` above the largest.
    #[inline(always)]
    pub const fn class_of(&self, size: usize) -> Option<usize> {
        if size <= self.small_max as usize {
            return Some(self.small[size.div_ceil(UNIT)] as usize);
        }
        self.larger_class_of(size)
    }

    #[inline]
    const fn larger_class_of(&self, size: usize) -> Option<usize> {
        if size > self.max as usize {
            return None;
        }
        let last = size - 1;
        // A table whose largest class is below 1024 has no sizes left here.
        let power = last.ilog2();
        let step = (last >> (power - STEPS.ilog2())) % STEPS;
        let bin = (power - SMALL.ilog2()) as usize * STEPS + step;
        Some(self.first_from(self.large[bin] as usize, size))
    }

    /// The smallest class from `class` on that holds `size` bytes. There is one.
    #[inline]
    const fn first_from(&self, mut class: usize, size: usize) -> usize {
        while (self.sizes[class] as usize) < size {
            class += 1;
        }
        class
    }

    /// The smallest class that holds `size` bytes at an alignment (a power of two), or `None`.
    #[inline(always)]
    pub const fn class_for(&self, size: usize, align: usize) -> Option<usize> {
        if align <= self.min_align as usize {
            return self.class_of(size);
        }
        self.aligned_class_of(size, align)
    }

    #[inline(never)]
    const fn aligned_class_of(&self, size: usize, align: usize) -> Option<usize> {
        let Some(mut class) = self.class_of(size) else {
            return None;
        };
        while class < self.count() {
            if self.aligns[class] as usize >= align {
                return Some(class);
            }
            class += 1;
        }
        None
    }
}

const fn align_of_class(size: usize, alignment: Alignment) -> usize {
    let natural = 1 << size.trailing_zeros();
    let natural = if natural > PAGE { PAGE } else { natural };
    match alignment {
        Alignment::Natural => natural,
        Alignment::PowersOfTwo(others) if !size.is_power_of_two() => others,
        Alignment::PowersOfTwo(_) => natural,
        Alignment::Fixed(align) => align,
    }
}

impl fmt::Display for SizeClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} size classes up to {} bytes", self.count(), self.max())
    }
}
