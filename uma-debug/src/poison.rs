//! Telling AddressSanitizer what is free, with the feature `asan`; nothing without it.
//!
//! Whether the program is built with the sanitizer is known only when it is linked. So its functions are
//! referred to weakly: where they are missing their address is zero. The word that makes a name weak stands
//! at each use, because it counts for one object file only, and uses are inlined into others.

#[cfg(all(
    feature = "asan",
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
))]
mod imp {
    use core::arch::asm;
    use core::ffi::c_void;
    use core::mem::transmute;

    type Mark = unsafe extern "C" fn(*const c_void, usize);

    macro_rules! weak {
        ($name:literal) => {{
            let address: usize;
            // SAFETY: loads the address that the linker put into the table for this name, or zero.
            unsafe {
                asm!(
                    concat!(".weak ", $name),
                    concat!("mov {}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                    out(reg) address,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            // SAFETY: not zero, it is the address of the sanitizer's function of this name, which has this
            // signature; and an `Option` of a function is null where it is zero.
            unsafe { transmute::<*const c_void, Option<Mark>>(core::ptr::with_exposed_provenance(address)) }
        }};
    }

    fn poisoner() -> Option<Mark> {
        weak!("__asan_poison_memory_region")
    }

    fn unpoisoner() -> Option<Mark> {
        weak!("__asan_unpoison_memory_region")
    }

    pub(crate) fn is_on() -> bool {
        poisoner().is_some()
    }

    pub(crate) fn poison(at: *const u8, len: usize) {
        if let Some(mark) = poisoner() {
            // SAFETY: it only writes to the sanitizer's own memory.
            unsafe { mark(at.cast(), len) };
        }
    }

    pub(crate) fn unpoison(at: *const u8, len: usize) {
        if let Some(mark) = unpoisoner() {
            // SAFETY: as above.
            unsafe { mark(at.cast(), len) };
        }
    }
}

#[cfg(not(all(
    feature = "asan",
    target_os = "linux",
    target_arch = "x86_64",
    target_pointer_width = "64"
)))]
mod imp {
    pub(crate) const fn is_on() -> bool {
        false
    }

    pub(crate) const fn poison(_: *const u8, _: usize) {}

    pub(crate) const fn unpoison(_: *const u8, _: usize) {}
}

pub(crate) use imp::{is_on, poison, unpoison};
