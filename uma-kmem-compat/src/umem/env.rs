//! `UMEM_DEBUG`, `UMEM_OPTIONS` and `UMEM_LOGGING`: lists of words, read once. Where one is not in the environment,
//! the program may have a function that returns such a list (see `init`).
//!
//! A word that is not known, or means nothing here, is told; it changes nothing else.

use std::sync::OnceLock;

use uma::Hardening;
use uma::debug::Fill;

use super::SYSTEM;
use crate::common::fork::once;
use crate::common::policy;
use crate::sync::{AtomicU64, Ordering};

/// What the words come to.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Who allocated and who freed is noted.
    audit: bool,
    /// Free objects are looked at before they are used again.
    contents: bool,
    /// There is room behind objects that must stay as it is.
    pub(super) guards: bool,
    lite: bool,
    /// From this size on, objects lie between guard pages.
    firewall: Option<usize>,
    /// One allocation in so many fails, or 0.
    mtbf: u64,
    pub(super) no_magazines: bool,
    /// Failed allocations are told.
    pub(super) tell_failures: bool,
    /// Seconds between two rounds of upkeep.
    interval: u64,
}

impl Settings {
    /// Those of the process.
    pub(super) fn get() -> &'static Self {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        once(&SETTINGS, || {
            let mut settings = Self { interval: 10, ..Self::default() };
            for (variable, take) in [
                ("UMEM_DEBUG", Self::debug as fn(&mut Self, &str, Option<&str>) -> Result<(), Odd>),
                ("UMEM_OPTIONS", Self::options),
                ("UMEM_LOGGING", Self::logging),
            ] {
                let set = std::env::var(variable).ok();
                let list = set.or_else(|| super::init::words(variable)).unwrap_or_default();
                settings.read(variable, &list, take);
            }
            settings
        })
    }

    fn read(
        &mut self,
        variable: &str,
        list: &str,
        take: fn(&mut Self, &str, Option<&str>) -> Result<(), Odd>,
    ) {
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            let what = match take(self, key, value) {
                Ok(()) => continue,
                Err(Odd::Unknown) => "is not known",
                Err(Odd::Nothing) => "has no effect here",
                Err(Odd::BadValue) => "has no value, or a bad one",
            };
            SYSTEM.report(variable, format_args!("\"{word}\" {what}"));
        }
    }

    fn debug(&mut self, key: &str, value: Option<&str>) -> Result<(), Odd> {
        match key {
            "default" => (self.audit, self.contents, self.guards) = (true, true, true),
            "audit" => self.audit = number(value, Some(15))? != 0,
            "contents" => self.contents = number(value, Some(256))? != 0,
            "guards" => self.guards = true,
            "lite" => self.lite = true,
            "firewall" => self.firewall = Some(number(value, None)?),
            "mtbf" => self.mtbf = number(value, None)? as u64,
            "noabort" => {
                // The policy exists.
                let _ = policy::set("umem.misuse", "report");
            }
            // Reports are always written, and never to a buffer alone.
            "verbose" => {}
            "nosignal" | "maxverify" | "random" | "allverbose" | "checknull" => {
                return Err(Odd::Nothing);
            }
            _ => return Err(Odd::Unknown),
        }
        Ok(())
    }

    fn options(&mut self, key: &str, value: Option<&str>) -> Result<(), Odd> {
        match key {
            "nomagazines" => self.no_magazines = true,
            "reap_interval" => self.interval = number(value, None)? as u64,
            "backend" | "allocator" | "perthread_cache" | "concurrency" | "max_contention"
            | "size_add" | "size_clear" | "size_remove" | "sbrk_minalloc" | "sbrk_pagesize" => {
                return Err(Odd::Nothing);
            }
            _ => return Err(Odd::Unknown),
        }
        Ok(())
    }

    fn logging(&mut self, key: &str, value: Option<&str>) -> Result<(), Odd> {
        let size = number(value, Some(64 << 10))?;
        match key {
            "transaction" => self.audit |= size != 0,
            "fail" => self.tell_failures = size != 0,
            "contents" | "slab" => return Err(Odd::Nothing),
            _ => return Err(Odd::Unknown),
        }
        Ok(())
    }

    pub(super) const fn interval(&self) -> u64 {
        self.interval
    }

    /// What is checked in a cache of objects of this size, if the words say so.
    pub(super) fn hardening(&self, size: usize) -> Option<Hardening> {
        let fenced = self.firewall.is_some_and(|least| size >= least);
        if !(self.audit || self.contents || self.guards || self.lite || fenced) {
            return None;
        }
        let mut hardening = Hardening::RELEASE.live(true).red_zones(self.guards).owners(self.audit);
        if self.contents {
            hardening = hardening.fill(Fill::Pattern).sums(true);
        }
        if fenced {
            hardening = hardening.sample(1);
        }
        Some(hardening)
    }

    /// Whether caches of the CPUs are in the way of what is to be seen.
    pub(super) const fn without_magazines(&self) -> bool {
        self.no_magazines || self.mtbf != 0
    }

    /// Whether this allocation is to fail.
    pub(super) fn fails(&self) -> bool {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.mtbf != 0 && COUNT.fetch_add(1, Ordering::Relaxed) % self.mtbf == self.mtbf - 1
    }
}

/// What is odd about a word.
enum Odd {
    Unknown,
    Nothing,
    BadValue,
}

/// A number, perhaps with K, M, G or T behind it. `absent` is for a word without one.
fn number(value: Option<&str>, absent: Option<usize>) -> Result<usize, Odd> {
    let Some(value) = value else { return absent.ok_or(Odd::BadValue) };
    let digits = value.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(Odd::BadValue),
    };
    let number: usize = digits.parse().map_err(|_| Odd::BadValue)?;
    number.checked_mul(1 << shift).ok_or(Odd::BadValue)
}
