//! Names from C.

use core::ffi::{CStr, c_char};
use std::borrow::Cow;

/// The longest text that is read, in bytes. Zones keep 31 of them; names are also printed.
const MOST: usize = 255;

/// A name from C as text: cut after 255 bytes, with what is not UTF-8 replaced by U+FFFD. `None` if the
/// pointer is null.
///
/// # Safety
///
/// The pointer is null, or leads to a string that ends in a zero and is not written to while the result is
/// in use.
pub(crate) unsafe fn text<'a>(name: *const c_char) -> Option<Cow<'a, str>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a C string (see above).
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn names_are_read_as_they_come() {
        let read = |name: &std::ffi::CStr| {
            // SAFETY: it is a C string.
            unsafe { text(name.as_ptr()) }.map(|name| name.into_owned())
        };
        assert_eq!(read(c"node").as_deref(), Some("node"));
        assert_eq!(read(c"").as_deref(), Some(""));
        assert_eq!(read(c"a\xffb").as_deref(), Some("a\u{fffd}b"));
        let long = std::ffi::CString::new("x".repeat(1000)).unwrap();
        assert_eq!(read(&long).map(|name| name.len()), Some(255));
        // SAFETY: null is allowed.
        assert_eq!(unsafe { text(core::ptr::null()) }, None);
    }
}
