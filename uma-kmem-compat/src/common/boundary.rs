//! Where Rust ends and C begins: nothing unwinds across. It stands also around functions of the program from which
//! nothing may unwind because the engine has it so, as suppliers of pages.

use core::mem;

use super::{System, report};

/// Runs the body of a C function called `function`, of a system if it is one's. If it unwinds, because of a panic here or an exception
/// thrown by a callback, says so and ends the process. It costs a few instructions otherwise.
///
/// A function whose hit should cost nothing does that first, outside, and leaves the rest to a function of its
/// own, `extern "C"` and out of line, which is called last.
#[inline(always)]
pub(crate) fn boundary<R>(
    system: Option<&'static System>,
    function: &'static str,
    body: impl FnOnce() -> R,
) -> R {
    let unwinds = Unwinds { system, function };
    let result = body();
    mem::forget(unwinds);
    result
}

/// Dropped only where the body unwinds.
struct Unwinds {
    system: Option<&'static System>,
    function: &'static str,
}

impl Drop for Unwinds {
    #[cold]
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            "a panic (see above)"
        } else {
            "an exception thrown by a callback"
        };
        let what = format_args!("{why} would leave the function; the process ends");
        match self.system {
            Some(system) => system.report(self.function, what),
            None => report::say(format_args!("{}: {what}", self.function)),
        }
        std::process::abort();
    }
}
