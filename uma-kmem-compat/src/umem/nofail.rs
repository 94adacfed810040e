//! What happens when `UMEM_NOFAIL` finds no memory.

use core::ffi::c_int;
use core::ptr;
use core::time::Duration;

use uma::{Host, Platform};

use super::SYSTEM;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// Says what to do: [`RETRY`], or [`exit`] with a status. It need not return.
pub type NofailCallback = unsafe extern "C-unwind" fn() -> c_int;

/// Another try (`UMEM_CALLBACK_RETRY`).
pub const RETRY: c_int = 0;

const EXIT: c_int = 0x100;

/// The end of the process with a status, of which the low 8 bits count (`UMEM_CALLBACK_EXIT`).
pub const fn exit(status: c_int) -> c_int {
    EXIT | (status & 0xff)
}

/// Null: there is none.
static CALLBACK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets the function that is called when `UMEM_NOFAIL` finds no memory; the last one set counts. With `None`
/// the process ends with status 255.
///
/// # Safety
///
/// The function may be called on any thread.
pub unsafe fn umem_nofail_callback(callback: Option<NofailCallback>) {
    let callback = callback.map_or(ptr::null_mut(), |callback| callback as *mut ());
    CALLBACK.store(callback, Ordering::Release);
}

/// Asks what to do. Returns if it is to be tried again. No lock is held.
#[cold]
pub(super) fn ask() {
    let callback = CALLBACK.load(Ordering::Acquire);
    let said = if callback.is_null() {
        exit(255)
    } else {
        // SAFETY: `umem_nofail_callback` stored a function of this type, which may be called.
        unsafe { core::mem::transmute::<*mut (), NofailCallback>(callback)() }
    };
    match said {
        RETRY => {}
        said if said & !0xff == EXIT => end(said & 0xff),
        said => {
            SYSTEM.report(
                "umem_nofail_callback",
                format_args!("the callback returned {said:#x}; taken for UMEM_CALLBACK_EXIT(255)"),
            );
            end(255)
        }
    }
}

/// Ends the process. One thread does it, others wait for the end; one that comes again from what runs at the end
/// would wait for itself.
fn end(status: c_int) -> ! {
    static WHO: AtomicU64 = AtomicU64::new(0);
    let me = Host.thread();
    match WHO.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => std::process::exit(status),
        Err(other) if other == me => SYSTEM.fatal(
            "umem_nofail_callback",
            format_args!("no memory while the process ends for want of it"),
        ),
        Err(_) => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
    }
}
