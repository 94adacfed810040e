//! Names: from C, and kept.

use core::ffi::{CStr, c_char};
use core::fmt;
use core::ops::Deref;

use super::memory::NoMemory;

/// The longest text that is read, in bytes. Zones keep 31 of them; names are also printed.
const MOST: usize = 255;

/// Text from C. It is where it was, unless it is none: then it is here, without the odd bytes. No memory is
/// needed for it.
#[allow(clippy::large_enum_variant, reason = "it is on the stack, and a box may fail")]
pub(crate) enum Text<'a> {
    There(&'a str),
    Here([u8; MOST * char::REPLACEMENT_CHARACTER.len_utf8()], usize),
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        if let Ok(text) = str::from_utf8(bytes) {
            return Self::There(text);
        }
        let mut room = [0; MOST * char::REPLACEMENT_CHARACTER.len_utf8()];
        let mut len = 0;
        let mut put = |text: &str| {
            room[len..len + text.len()].copy_from_slice(text.as_bytes());
            len += text.len();
        };
        for chunk in bytes.utf8_chunks() {
            put(chunk.valid());
            if !chunk.invalid().is_empty() {
                put(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]));
            }
        }
        Self::Here(room, len)
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::There(text) => text,
            // It was put together from text.
            Self::Here(room, len) => str::from_utf8(&room[..*len]).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// A name from C as text: cut after 255 bytes, with what is not UTF-8 replaced by U+FFFD. `None` if the
/// pointer is null.
///
/// # Safety
///
/// The pointer is null, or leads to a string that ends in a zero and is not written to while the result is
/// in use.
pub(crate) unsafe fn text<'a>(name: *const c_char) -> Option<Text<'a>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a C string (see above).
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(Text::of(&bytes[..bytes.len().min(MOST)]))
}

/// A name that is kept, whole, with a zero at its end.
#[derive(Debug)]
pub(crate) struct Kept(Vec<u8>);

impl Kept {
    /// A copy, in which zeros are question marks.
    pub(crate) fn new(name: &str) -> Result<Self, NoMemory> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(name.len() + 1).map_err(|_| NoMemory)?;
        bytes.extend(name.bytes().map(|byte| if byte == 0 { b'?' } else { byte }));
        bytes.push(0);
        Ok(Self(bytes))
    }

    pub(crate) fn as_text(&self) -> &str {
        // It was text, and still is.
        str::from_utf8(&self.0[..self.0.len() - 1]).unwrap_or_default()
    }
}

impl Deref for Kept {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        // The only zero is the last byte.
        CStr::from_bytes_with_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, text};

    #[test]
    fn names_are_read_as_they_come() {
        let read = |name: &std::ffi::CStr| {
            // SAFETY: it is a C string.
            unsafe { text(name.as_ptr()) }.map(|name| name.to_string())
        };
        assert_eq!(read(c"node").as_deref(), Some("node"));
        assert_eq!(read(c"").as_deref(), Some(""));
        assert_eq!(read(c"a\xffb").as_deref(), Some("a\u{fffd}b"));
        let long = std::ffi::CString::new("x".repeat(1000)).unwrap();
        assert_eq!(read(&long).map(|name| name.len()), Some(255));
        let odd = std::ffi::CString::new([0xff_u8; 1000]).unwrap();
        assert_eq!(read(&odd), Some("\u{fffd}".repeat(255)));
        // A character that is cut in two.
        let cut = std::ffi::CString::new("x".repeat(254) + "\u{e9}").unwrap();
        assert_eq!(read(&cut), Some("x".repeat(254) + "\u{fffd}"));
        // SAFETY: null is allowed.
        assert!(unsafe { text(core::ptr::null()) }.is_none());
    }

    #[test]
    fn a_name_that_is_kept_has_one_zero() {
        let name = Kept::new("a\0b\u{e9}").unwrap();
        assert_eq!(&*name, c"a?b\xc3\xa9");
        assert_eq!(name.as_text(), "a?b\u{e9}");
        assert_eq!(&*Kept::new("").unwrap(), c"");
    }
}
