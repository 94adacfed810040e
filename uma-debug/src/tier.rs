//! How much is checked: the tiers, and what each is made of.

/// What a free item is filled with, and must still hold when it is allocated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing: free items are left as they are.
    Nothing,
    /// Zeros: what an item held cannot be read by its next user either.
    Zeros,
    /// `0xdeadc0de` over and over (`trash_dtor` of FreeBSD's uma_dbg.c), to the last byte. Fresh items are
    /// filled with `0xbaddcafe`, so that who reads what it never wrote sees it.
    Pattern,
}

/// What a zone checks, and what it does to make misuse show.
///
/// Four tiers are ready made; each part can also be chosen by itself. `docs/hardening.md` has what each
/// tier finds and what it costs.
///
/// ```
/// use uma_debug::Hardening;
///
/// let debug = Hardening::DEBUG.quarantine(10_000).divisor(8);
/// assert!(debug.is_checking() && !Hardening::RELEASE.is_checking());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardening {
    pub(crate) live: bool,
    pub(crate) red_zones: bool,
    pub(crate) fill: Fill,
    pub(crate) sums: bool,
    pub(crate) owners: bool,
    pub(crate) quarantine: u32,
    pub(crate) divisor: u32,
    pub(crate) sample: u32,
    pub(crate) poison: bool,
    outside_headers: bool,
    random_slots: bool,
    guard_slabs: bool,
}

impl Hardening {
    /// Nothing beyond what kegs check by themselves when an item reaches its slab.
    pub const RELEASE: Self = Self {
        live: false,
        red_zones: false,
        fill: Fill::Nothing,
        sums: false,
        owners: false,
        quarantine: 0,
        divisor: 1,
        sample: 0,
        poison: false,
        outside_headers: false,
        random_slots: false,
        guard_slabs: false,
    };

    /// For production where an attacker is expected: every free is looked up, free items are zeroed and
    /// looked at when they are allocated again, and reused late and in no order; slab headers lie outside, and
    /// a guard page behind every slab.
    pub const HARDENED: Self = Self {
        live: true,
        fill: Fill::Zeros,
        quarantine: 256,
        outside_headers: true,
        random_slots: true,
        guard_slabs: true,
        ..Self::RELEASE
    };

    /// For finding mistakes: red zones around items, patterns, sums of constructed items, and for each item
    /// who allocated and who freed it.
    pub const DEBUG: Self = Self {
        live: true,
        red_zones: true,
        fill: Fill::Pattern,
        sums: true,
        owners: true,
        quarantine: 256,
        outside_headers: true,
        ..Self::RELEASE
    };

    /// For a program that runs under AddressSanitizer: it is told which items are free.
    pub const ASAN: Self = Self {
        live: true,
        red_zones: true,
        owners: true,
        quarantine: 256,
        outside_headers: true,
        poison: true,
        ..Self::RELEASE
    };

    /// For production: one allocation in `one_in` lies on pages of its own between guard pages, which become
    /// inaccessible when it is freed (FreeBSD's memguard(9), Linux' KFENCE). 0 samples none.
    pub const fn sampled(one_in: u32) -> Self {
        Self { sample: one_in, ..Self::RELEASE }
    }

    /// Whether every free is checked to be that of an item in use.
    pub const fn live(self, yes: bool) -> Self {
        Self { live: yes, ..self }
    }

    /// Whether there are red zones before and behind each item, looked at when it is freed. Items aligned
    /// to more than 64 bytes have none before them.
    pub const fn red_zones(self, yes: bool) -> Self {
        Self { red_zones: yes, live: self.live || yes, ..self }
    }

    /// What free items are filled with. Zones whose items keep their state between uses fill nothing,
    /// whatever this says.
    pub const fn fill(self, fill: Fill) -> Self {
        Self { fill, live: self.live || !matches!(fill, Fill::Nothing), ..self }
    }

    /// Whether free items that keep their state are summed up when they are freed and again when they are
    /// allocated. Not for zones whose items somebody may rightly touch while they are free.
    pub const fn sums(self, yes: bool) -> Self {
        Self { sums: yes, live: self.live || yes, owners: self.owners || yes, ..self }
    }

    /// Whether it is noted, for each item, which thread allocated and which freed it, and where.
    pub const fn owners(self, yes: bool) -> Self {
        Self { owners: yes, live: self.live || yes, ..self }
    }

    /// About so many items are not allocated again at once when they are freed, but wait for as many frees
    /// after theirs.
    pub const fn quarantine(self, items: u32) -> Self {
        Self { quarantine: items, live: self.live || items != 0, ..self }
    }

    /// Red zones, contents and owners are looked after for one item in `divisor` only
    /// (`vm.debug.divisor`); 0 and 1 mean all.
    pub const fn divisor(self, divisor: u32) -> Self {
        Self { divisor, ..self }
    }

    /// One allocation in so many lies between guard pages; 0 means none.
    pub const fn sample(self, one_in: u32) -> Self {
        Self { sample: one_in, ..self }
    }

    /// Whether slab headers lie outside of slabs, where no overflow reaches them.
    pub const fn outside_headers(self, yes: bool) -> Self {
        Self { outside_headers: yes, ..self }
    }

    /// Whether items are taken from a slab in no order.
    pub const fn random_slots(self, yes: bool) -> Self {
        Self { random_slots: yes, ..self }
    }

    /// Leaves free items alone: they are neither filled nor summed up nor shown to a sanitizer. For memory
    /// that others may rightly look at, or have a lock in, after it was freed (`SLAB_TYPESAFE_BY_RCU`).
    pub const fn hands_off(self) -> Self {
        Self { fill: Fill::Nothing, sums: false, poison: false, ..self }
    }

    /// Whether each slab ends at a guard page, where pages can be protected.
    pub const fn guard_slabs(self, yes: bool) -> Self {
        Self { guard_slabs: yes, ..self }
    }

    /// Whether allocations and frees are looked at at all, so that a zone cannot take the shortest way.
    pub const fn is_checking(&self) -> bool {
        self.live || self.sample != 0
    }

    /// Whether every free is checked, see [`live`](Self::live).
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// See [`quarantine`](Self::quarantine).
    pub const fn quarantined(&self) -> u32 {
        self.quarantine
    }

    /// See [`sample`](Self::sample).
    pub const fn one_in(&self) -> u32 {
        self.sample
    }

    /// See [`outside_headers`](Self::outside_headers).
    pub const fn has_outside_headers(&self) -> bool {
        self.outside_headers
    }

    /// See [`random_slots`](Self::random_slots).
    pub const fn has_random_slots(&self) -> bool {
        self.random_slots
    }

    /// See [`guard_slabs`](Self::guard_slabs).
    pub const fn has_guard_slabs(&self) -> bool {
        self.guard_slabs
    }

    /// See [`red_zones`](Self::red_zones).
    pub const fn has_red_zones(&self) -> bool {
        self.red_zones
    }

    /// The tier that a word names: `release`, `hardened`, `debug`, `asan`, or `sampled/N` for one in N.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "release" => Self::RELEASE,
            "hardened" => Self::HARDENED,
            "debug" => Self::DEBUG,
            "asan" => Self::ASAN,
            "sampled" => Self::sampled(5000),
            _ => Self::sampled(word.strip_prefix("sampled/")?.parse().ok()?),
        })
    }
}

impl Default for Hardening {
    fn default() -> Self {
        Self::RELEASE
    }
}
