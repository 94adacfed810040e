//! Panics that are part of a test: caught, kept quiet, and told apart.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A panic that was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// What it said.
    pub message: String,
    /// Where it came from.
    pub place: String,
}

impl Caught {
    /// Whether it came from a hook that was told to panic.
    pub fn is_planned(&self) -> bool {
        self.message.contains("as planned")
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.place)
    }
}

thread_local! {
    /// How many calls of `caught` this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static LAST: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// Runs `body` and catches its panic, without a word to standard error, and without the abort by which
/// a fuzzer's panic hook ends the process.
///
/// # Errors
///
/// The panic.
pub fn caught<R>(body: impl FnOnce() -> R) -> Result<R, Caught> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 {
                return usual(panic);
            }
            // A second panic before the first was caught ends the process: then both are told.
            if let Some(first) = LAST.take() {
                eprintln!("while a panic is under way: {first}");
                usual(panic);
            }
            let message = panic.payload_as_str().unwrap_or("a panic without words").to_owned();
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            LAST.set(Some(Caught { message, place }));
        }));
    });
    // Before what the body may leave to the thread's end, so that it is still there then.
    LAST.with(|_| ());
    DEPTH.set(DEPTH.get() + 1);
    // A stack that unwound is looked at afterwards on purpose: that is the test.
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|_| {
        LAST.take().unwrap_or_else(|| Caught { message: String::new(), place: String::new() })
    })
}
