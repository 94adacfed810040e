//! The one place from which misuse is reported.

use core::ffi::CStr;
use core::fmt;
use std::io::Write;

use super::Switch;
use crate::sync::{AtomicPtr, Ordering};

/// One of the systems whose interface this crate has: its name, and what misuse leads to.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// `abort` or `report`, the first of which is the default of the system.
    pub(crate) misuse: Switch,
}

impl System {
    /// A system that stops at misuse, as Solaris and the BSDs do; `key` is `"<name>.misuse"`.
    pub(crate) const fn that_aborts(name: &'static str, key: &'static str) -> Self {
        Self { name, misuse: Switch::new(key, &["abort", "report"]) }
    }

    /// A system that tells of misuse and goes on, as Linux does.
    pub(crate) const fn that_reports(name: &'static str, key: &'static str) -> Self {
        Self { name, misuse: Switch::new(key, &["report", "abort"]) }
    }

    /// Reports that the caller of `function` did something wrong. Returns if the policy is to go on; what
    /// the function does then must harm nothing.
    #[cold]
    #[inline(never)]
    pub(crate) fn misuse(&self, function: &str, what: fmt::Arguments<'_>) {
        self.report(function, what);
        if self.misuse.get() == "abort" {
            std::process::abort();
        }
    }

    /// Tells of something that the original also only tells of, whatever the policy.
    #[cold]
    #[inline(never)]
    pub(crate) fn report(&self, function: &str, what: fmt::Arguments<'_>) {
        say(format_args!("{}: {function}: {what}", self.name));
    }

    /// Reports, and ends the process whatever the policy: for what cannot be gone on from.
    #[cold]
    #[inline(never)]
    pub(crate) fn fatal(&self, function: &str, what: fmt::Arguments<'_>) -> ! {
        self.report(function, what);
        std::process::abort()
    }
}

/// Takes one report, as text that ends in a zero, without an end of line.
pub(crate) type Reporter = unsafe extern "C-unwind" fn(*const core::ffi::c_char);

/// Null for the standard error output.
static REPORTER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Reports go to `reporter` from now on, or to the standard error output.
///
/// # Safety
///
/// The function may be called from any thread at any time, while no lock of this library is held.
#[cfg(feature = "capi")]
pub(crate) unsafe fn set_reporter(reporter: Option<Reporter>) {
    let reporter = reporter.map_or(core::ptr::null_mut(), |reporter| reporter as *mut ());
    REPORTER.store(reporter, Ordering::Release);
}

/// What a report may have: an item's story has the calls that found it, and those that had it, line by line.
const ROOM: usize = 8192;

/// Says a line, without allocating: the caller may be an allocator in trouble. Cut after [`ROOM`].
pub(super) fn say(what: fmt::Arguments<'_>) {
    let mut line = Line::of(format_args!("uma: {what}"));
    let reporter = REPORTER.load(Ordering::Acquire);
    if reporter.is_null() {
        line.bytes[line.len] = b'\n';
        // In one piece, so that lines of threads do not mix.
        let _ = std::io::stderr().write_all(&line.bytes[..=line.len]);
    } else {
        // SAFETY: it was stored by `set_reporter` from a function of that type.
        let reporter = unsafe { core::mem::transmute::<*mut (), Reporter>(reporter) };
        // SAFETY: the caller of `set_reporter` allows the call, and the text ends in a zero: the last two
        // bytes are never written.
        unsafe { reporter(line.bytes.as_ptr().cast()) };
    }
}

/// Text on the stack, which ends in a zero. Zeros in it are question marks.
pub(crate) struct Line {
    bytes: [u8; ROOM],
    len: usize,
}

impl Line {
    pub(crate) fn of(what: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; ROOM], len: 0 };
        // Cut if it is too long.
        let _ = fmt::Write::write_fmt(&mut line, what);
        line.bytes[..line.len].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
        line
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..ROOM - 2];
        let mut fits = text.len().min(room.len());
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
