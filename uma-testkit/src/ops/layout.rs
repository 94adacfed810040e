//! Slab layouts to ask for.

/// Items, pages and wishes of a slab layout. Sizes and alignments go a little beyond what is served,
/// so that refusals are asked for too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Layouts {
    /// See [`Self::size`].
    pub size: u32,
    /// See [`Self::size`].
    pub shift: u8,
    /// See [`Self::align`].
    pub align: u8,
    /// See [`Self::page_size`].
    pub page: u8,
    /// See [`Self::largest`].
    pub largest: u32,
    /// Whether headers may lie outside.
    pub outside: bool,
    /// Whether slabs may not be touched.
    pub no_touch: bool,
}

impl Layouts {
    /// The item's size: 0 to 2 MiB, of any order of magnitude.
    pub const fn size(&self) -> usize {
        (self.size as usize & ((2 << 20) - 1)) >> (self.shift % 21)
    }

    /// The item's alignment: 1 to 4 MiB.
    pub const fn align(&self) -> usize {
        1 << (self.align % 23)
    }

    /// The page size: 0 to 4 MiB, a power of two except for 0 and the last.
    pub const fn page_size(&self) -> usize {
        match self.page % 25 {
            23 => 0,
            24 => 4097,
            power => 1 << power,
        }
    }

    /// The largest slab, if there is a wish: up to 128 KiB.
    pub const fn largest(&self) -> Option<usize> {
        let bytes = self.largest as usize & ((256 << 10) - 1);
        if bytes < 128 << 10 { Some(bytes) } else { None }
    }
}
