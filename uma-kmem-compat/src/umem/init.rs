//! `_umem_debug_init`, `_umem_options_init` and `_umem_logging_init`: functions of the program that return the words
//! that are not in the environment.
//!
//! A program need not have them, so they are referred to weakly: the linker leaves null in the table where there is
//! none. Where that cannot be said, and without the C ABI, there are none.

#[cfg(all(feature = "capi", target_os = "linux", target_pointer_width = "64", not(miri)))]
mod imp {
    use core::arch::global_asm;
    use core::ffi::{CStr, c_char};

    type Init = unsafe extern "C" fn() -> *const c_char;

    global_asm!(
        ".weak _umem_debug_init",
        ".weak _umem_options_init",
        ".weak _umem_logging_init",
        ".pushsection .data.rel.uma_umem_inits, \"aw\"",
        ".balign 8",
        ".hidden uma_umem_inits",
        ".globl uma_umem_inits",
        "uma_umem_inits:",
        ".8byte _umem_debug_init",
        ".8byte _umem_options_init",
        ".8byte _umem_logging_init",
        ".popsection",
    );

    unsafe extern "C" {
        static uma_umem_inits: [Option<Init>; 3];
    }

    pub(in crate::umem) fn words(variable: &str) -> Option<String> {
        let at = match variable {
            "UMEM_DEBUG" => 0,
            "UMEM_OPTIONS" => 1,
            _ => 2,
        };
        // SAFETY: the table above, which the linker fills before anything runs, and nobody writes to. A function
        // of such a name has that type: it belongs to libumem's interface.
        let list = unsafe { uma_umem_inits[at]?() };
        if list.is_null() {
            return None;
        }
        // SAFETY: not null, it is a string, by that interface.
        Some(unsafe { CStr::from_ptr(list) }.to_string_lossy().into_owned())
    }
}

#[cfg(not(all(feature = "capi", target_os = "linux", target_pointer_width = "64", not(miri))))]
mod imp {
    pub(in crate::umem) const fn words(_: &str) -> Option<String> {
        None
    }
}

/// The list of words that the program's function for a variable returns, if it has one.
pub(super) use imp::words;
