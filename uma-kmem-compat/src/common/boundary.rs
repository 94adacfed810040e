//! Where Rust ends and C begins: nothing unwinds across.

use core::mem;

use super::report;

/// Runs the body of a C function called `function`. If it unwinds, because of a panic here or an exception
/// thrown by a callback, says so and ends the process. It costs nothing otherwise.
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
