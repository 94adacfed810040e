//! What zones of an ordinary process check if they do not choose, and what reports of misuse say of
//! threads and places.
//!
//! The environment variable `UMA_DEBUG` is read once, at the first zone that asks. It is a list of tiers,
//! each for all zones or for those whose names begin with some text; the first that fits counts:
//!
//! ```text
//!   UMA_DEBUG=debug                          all zones
//!   UMA_DEBUG=debug:conn,debug:req,sampled/1000     two kinds of zones, and a little of all others
//! ```

use std::boxed::Box;
use std::cell::Cell;
use std::fmt;
use std::string::String;
use std::vec::Vec;

use uma_core::Name;
use uma_debug::{FRAMES, Hardening};

use crate::access::complain;
use crate::sync::{AtomicPtr, Ordering};

/// One part of the list: a tier, and how the names of its zones begin.
struct Wish {
    tier: Hardening,
    prefix: String,
}

/// What `UMA_DEBUG` says of a zone; without it, what suits a program under AddressSanitizer if it is one.
pub(crate) fn wished(zone: &Name) -> Hardening {
    static WISHES: AtomicPtr<Vec<Wish>> = AtomicPtr::new(std::ptr::null_mut());
    /// Without the variable no memory is needed.
    static NONE: Vec<Wish> = Vec::new();
    // No lock and no waiting: a child of fork must not find another thread half way through.
    // SAFETY: if not null, it leads to a static, or to a list that was leaked below.
    let wishes = match unsafe { WISHES.load(Ordering::Acquire).as_ref() } {
        Some(wishes) => wishes,
        None => {
            let text = std::env::var("UMA_DEBUG").unwrap_or_default();
            let wishes = parse(&text);
            let none = wishes.is_empty();
            let new = if none {
                std::ptr::from_ref(&NONE).cast_mut()
            } else {
                Box::into_raw(Box::new(wishes))
            };
            let null = std::ptr::null_mut();
            match WISHES.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: it was made just now, and is never freed.
                Ok(_) => unsafe { &*new },
                // SAFETY: ours was seen by nobody, or is no box; the other one is never freed.
                Err(other) => unsafe {
                    if !none {
                        drop(Box::from_raw(new));
                    }
                    &*other
                },
            }
        }
    };
    let wish = wishes.iter().find(|wish| zone.as_str().starts_with(&wish.prefix));
    match wish {
        Some(wish) => wish.tier,
        None if uma_debug::has_sanitizer() => Hardening::ASAN,
        None => Hardening::RELEASE,
    }
}

fn parse(text: &str) -> Vec<Wish> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let wish = |part: &str| {
        let (tier, prefix) = part.split_once(':').unwrap_or((part, ""));
        let Some(tier) = Hardening::parse(tier) else {
            complain(format_args!(
                "UMA_DEBUG: \"{tier}\" is none of release, hardened, debug, asan, sampled/N"
            ));
            return None;
        };
        Some(Wish { tier, prefix: prefix.into() })
    };
    parts.filter_map(wish).collect()
}

/// The number that the system has for the calling thread.
pub(crate) fn thread() -> u64 {
    std::thread_local! {
        // Asked once. In a child of fork, its thread goes by the number that it had in the parent.
        static MINE: Cell<u64> = const { Cell::new(0) };
    }
    let mine = MINE.try_with(|mine| {
        if mine.get() == 0 {
            mine.set(new_thread());
        }
        mine.get()
    });
    mine.unwrap_or_else(|_| new_thread())
}

#[cfg(target_os = "linux")]
fn new_thread() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into()
}

/// Threads are numbered as they come.
#[cfg(not(target_os = "linux"))]
fn new_thread() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The return addresses of the calls that led here, without the innermost, which are ours.
#[cfg(feature = "backtrace")]
pub(crate) fn trace(frames: &mut [usize; FRAMES]) -> usize {
    /// Calls between the one that a trace is of and the unwinder.
    const OURS: usize = 4;
    let mut count = 0;
    let mut skip = OURS;
    let mut note = |frame: &backtrace::Frame| {
        if skip > 0 {
            skip -= 1;
            return true;
        }
        // Inside of the call, not behind it, where another line or function may begin.
        frames[count] = frame.ip().addr().saturating_sub(1);
        count += 1;
        count < FRAMES
    };
    // A lock here could be found taken in a child of fork.
    // SAFETY: where the unwinder is that of the C library or of LLVM, threads may use it at once.
    #[cfg(unix)]
    unsafe {
        backtrace::trace_unsynchronized(&mut note);
    }
    #[cfg(not(unix))]
    backtrace::trace(&mut note);
    count
}

/// None: that takes the feature `backtrace`.
#[cfg(not(feature = "backtrace"))]
pub(crate) const fn trace(_: &mut [usize; FRAMES]) -> usize {
    0
}

/// The functions that a return address lies in, inlined ones too, with file and line.
#[cfg(feature = "backtrace")]
pub(crate) fn show_frame(frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut result = Ok(());
    let mut found = false;
    backtrace::resolve(std::ptr::without_provenance_mut(frame), |symbol| {
        let Some(name) = symbol.name() else { return };
        found = true;
        result = result.and_then(|()| match (symbol.filename(), symbol.lineno()) {
            (Some(file), Some(line)) => {
                show_name(&name, f).and_then(|()| writeln!(f, " ({}:{line})", file.display()))
            }
            _ => show_name(&name, f).and_then(|()| writeln!(f)),
        });
    });
    if found { result } else { writeln!(f, "      {frame:#x}") }
}

/// A line's beginning and a function's name, without what its parameters stand for: of the layers below a zone
/// that would be several hundred bytes, each time.
#[cfg(feature = "backtrace")]
fn show_name(name: &dyn fmt::Display, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("      ")?;
    fmt::Write::write_fmt(
        &mut WithoutParameters { to: f, depth: 0, last: ' ' },
        format_args!("{name:#}"),
    )
}

/// Passes on text but for what is in angle brackets behind a name.
#[cfg(feature = "backtrace")]
struct WithoutParameters<'a> {
    to: &'a mut dyn fmt::Write,
    /// How many brackets are open, from the first that is behind a name.
    depth: usize,
    last: char,
}

#[cfg(feature = "backtrace")]
impl fmt::Write for WithoutParameters<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let behind_a_name = self.last.is_alphanumeric() || matches!(self.last, '_' | ':');
            let arrow = char == '>' && matches!(self.last, '-' | '=');
            self.last = char;
            match char {
                '<' if self.depth > 0 || behind_a_name => {
                    if self.depth == 0 {
                        self.to.write_str("<_")?;
                    }
                    self.depth += 1;
                }
                '>' if self.depth > 0 && !arrow => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.to.write_char('>')?;
                    }
                }
                _ if self.depth > 0 => {}
                _ => self.to.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// The bare address.
#[cfg(not(feature = "backtrace"))]
pub(crate) fn show_frame(frame: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "      {frame:#x}")
}

#[cfg(all(test, feature = "backtrace"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_their_parameters() {
        for (name, shown) in [
            ("plain::name", "plain::name"),
            ("refuse<uma::HostLock, &Kegs<&Pages<Lock, Kernel>, Lock>>", "refuse<_>"),
            ("<alloc::Box<dyn Fn(u8) -> Vec<u8>> as Drop>::drop", "<alloc::Box<_> as Drop>::drop"),
            ("call::<fn() -> Result<(), String>>::{closure#0}", "call::<_>::{closure#0}"),
        ] {
            let mut text = String::new();
            let mut to = WithoutParameters { to: &mut text, depth: 0, last: ' ' };
            fmt::Write::write_str(&mut to, name).unwrap();
            assert_eq!(text, shown);
        }
    }
}
