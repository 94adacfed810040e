//! The interfaces of other systems, each against the same model, and against the engine.
//!
//! Every face is brought to one vocabulary ([`Face`], [`Cache`], [`Elements`]), a few lines for each. Two things say
//! what must come of an operation:
//!
//! - The *model*: whether something may fail, and why; what a piece of memory holds; how many objects are in use,
//!   exist and are constructed; what is reported, and that nothing came of it.
//! - The *engine*, on which the same program is played with nothing of the face in between ([`engine`]): what both can
//!   be asked must agree.
//!
//! Two things are the process's own, and so a program has them for itself: what callbacks count, and the heaps of
//! `kmem_alloc` and its like. Programs run one after another, whatever thread they are on.

#![allow(clippy::missing_safety_doc, reason = "callbacks are called as their systems have it")]

pub mod hooks;

mod caches;
mod elements;
mod engine;
mod face;
mod freebsd;
mod linux;
mod memory;
pub mod netbsd;
mod run;
mod solaris;
mod umem;

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uma_kmem_compat::policy;
use uma_testkit::ops::compat::{CompatProgram, Face as Which};

pub use face::{Cache, Counts, Elements, Face, Made};
pub use run::drive;

static REPORTS: AtomicU64 = AtomicU64::new(0);
static LAST: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" {
    fn uma_compat_set_reporter(reporter: Option<unsafe extern "C-unwind" fn(*const c_char)>);
}

unsafe extern "C-unwind" fn reporter(text: *const c_char) {
    REPORTS.fetch_add(1, SeqCst);
    // SAFETY: it is text that ends in a zero.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// Runs a program on one face, and panics if that does anything that its page in `docs/compat.md` does not say.
pub fn compat(program: &CompatProgram) {
    let _one = alone(program.config.checked);
    let face: Box<dyn Face> = match program.config.face {
        Which::Solaris => Box::new(solaris::Solaris),
        Which::Umem => Box::new(umem::Umem),
        Which::Linux => Box::new(linux::Linux),
        Which::Netbsd => Box::new(netbsd::Netbsd),
        Which::Freebsd => Box::new(freebsd::Freebsd::new()),
    };
    drive(&*face, program);
    face.end();
}

/// Sets the policies that programs want, and sees to it that there is one program at a time.
pub fn alone(checked: bool) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, value) in [
        // Misuse is told, and harms nothing; nothing waits for memory; what is in use stays.
        ("solaris.misuse", "report"),
        ("umem.misuse", "report"),
        ("linux.misuse", "report"),
        ("netbsd.misuse", "report"),
        ("freebsd.misuse", "report"),
        ("solaris.destroy", "refuse"),
        ("umem.destroy", "refuse"),
        ("solaris.sleep", "null"),
        ("solaris.update", "off"),
        ("netbsd.waitok", "fail"),
        ("freebsd.waitok", "null"),
        ("solaris.kmem_flags", if checked { "on" } else { "off" }),
        ("linux.slab_debug", if checked { "on" } else { "off" }),
        ("netbsd.diagnostic", if checked { "on" } else { "off" }),
    ] {
        policy::set(key, value).expect("there is such a policy");
    }
    // SAFETY: it may be called from any thread.
    unsafe { uma_compat_set_reporter(Some(reporter)) };
    one
}
