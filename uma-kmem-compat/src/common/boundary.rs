//! Where Rust ends and C begins: nothing unwinds across.

use core::mem;

use super::report;

/// Runs the body of a C function called `function`. If it unwinds, because of a panic here or an exception
/// thrown by a callback, says so and ends the process. It costs a few instructions otherwise.
///
/// A function whose hit should cost nothing does that first, outside, and leaves the rest to a function of its
/// own, `extern "C"` and out of line, which is called last.
#[inline(always)]
pub(crate) fn boundary<R>(function: &'static str, body: impl FnOnce() -> R) -> R {
    let unwinds = Unwinds(function);
    let result = body();
    mem::forget(unwinds);
    result
}

/// Dropped only where the body unwinds.
struct Unwinds(&'static str);

impl Drop for Unwinds {
    #[cold]
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            "a panic (see above)"
        } else {
            "an exception thrown by a callback"
        };
        report::say(format_args!("{}: {why} would leave the function; the process ends", self.0));
        std::process::abort();
    }
}
