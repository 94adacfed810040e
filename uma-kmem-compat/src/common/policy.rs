//! What the faces do where the originals disagree with each other, or with their own manuals.
//!
//! A policy has a key, `<system>.<what>`, and one of a few values. It is fixed at its first use, from the
//! environment variable `UMA_COMPAT`, a list as in `UMA_COMPAT=linux.misuse=abort,solaris.misuse=report`; or it
//! is set before by [`set`]. `docs/compat.md` lists them with their values, the first of which is the default.

use core::fmt;

use crate::sync::{AtomicBool, AtomicU8, Ordering};

/// One policy.
#[derive(Debug)]
pub(crate) struct Switch {
    key: &'static str,
    /// The first is the default.
    values: &'static [&'static str],
    /// Which it is, or `UNKNOWN` while nobody has asked.
    chosen: AtomicU8,
}

const UNKNOWN: u8 = u8::MAX;

impl Switch {
    pub(crate) const fn new(key: &'static str, values: &'static [&'static str]) -> Self {
        Self { key, values, chosen: AtomicU8::new(UNKNOWN) }
    }

    /// The value chosen.
    pub(crate) fn get(&self) -> &'static str {
        let mut chosen = self.chosen.load(Ordering::Relaxed);
        if chosen == UNKNOWN {
            // Threads that come here together find the same value, unless it is being set.
            let wish = std::env::var("UMA_COMPAT").unwrap_or_default();
            check(&wish);
            let wish = wishes(&wish).filter(|(key, _)| *key == self.key).last();
            let wish = wish.and_then(|(_, value)| self.index(value)).unwrap_or(0);
            let now =
                self.chosen.compare_exchange(UNKNOWN, wish, Ordering::Relaxed, Ordering::Relaxed);
            chosen = now.map_or_else(|set| set, |_| wish);
        }
        self.values[usize::from(chosen)]
    }

    fn index(&self, value: &str) -> Option<u8> {
        let at = self.values.iter().position(|known| *known == value)?;
        u8::try_from(at).ok()
    }
}

/// The policies of the faces that are compiled in.
fn switches() -> impl Iterator<Item = &'static Switch> {
    [
        #[cfg(feature = "solaris")]
        crate::solaris::SWITCHES,
        #[cfg(feature = "umem")]
        crate::umem::SWITCHES,
        #[cfg(feature = "linux")]
        crate::linux::SWITCHES,
        #[cfg(feature = "netbsd")]
        crate::netbsd::SWITCHES,
        #[cfg(feature = "freebsd")]
        crate::freebsd::SWITCHES,
        &[],
    ]
    .into_iter()
    .flatten()
    .copied()
}

fn wishes(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = list.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.split_once('=').unwrap_or((word, "")))
}

/// Tells the operator, once, of what is in the environment and means nothing.
fn check(list: &str) {
    static CHECKED: AtomicBool = AtomicBool::new(false);
    if list.is_empty() || CHECKED.swap(true, Ordering::Relaxed) {
        return;
    }
    for (key, value) in wishes(list) {
        if let Err(error) = find(key, value) {
            super::report::say(format_args!("UMA_COMPAT: {error}"));
        }
    }
}

fn find(key: &str, value: &str) -> Result<(&'static Switch, u8), PolicyError> {
    let switch = switches().find(|switch| switch.key == key).ok_or(PolicyError::NoSuchKey)?;
    let value = switch.index(value).ok_or(PolicyError::NoSuchValue(switch.values))?;
    Ok((switch, value))
}

/// Sets the policy `key`, of this process and from now on. What was decided by it before stays as it is.
///
/// ```
/// # #[cfg(feature = "linux")] {
/// use uma_kmem_compat::policy;
/// policy::set("linux.misuse", "abort").unwrap();
/// assert!(policy::set("linux.misuse", "perhaps").is_err());
/// # }
/// ```
///
/// # Errors
///
/// If there is no such policy, or it has no such value.
pub fn set(key: &str, value: &str) -> Result<(), PolicyError> {
    let (switch, value) = find(key, value)?;
    switch.chosen.store(value, Ordering::Relaxed);
    Ok(())
}

/// Why a policy could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// No face that is compiled in has such a policy.
    NoSuchKey,
    /// The policy has these values only.
    NoSuchValue(&'static [&'static str]),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchKey => f.write_str("there is no such policy"),
            Self::NoSuchValue(values) => write!(f, "its values are {values:?}"),
        }
    }
}

impl core::error::Error for PolicyError {}
