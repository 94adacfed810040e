//! Zone names: short, copied, without a lifetime.

use core::fmt;

/// The longest name kept, in bytes: the originals keep 31 characters and a zero.
const MAX: usize = 31;

/// A zone's name, copied into the zone.
///
/// Names longer than 31 bytes are cut at a character boundary, as `kmem_cache_create` of illumos and
/// the `uma_type_header` of FreeBSD cut theirs. Two zones may share a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    len: u8,
    bytes: [u8; MAX],
}

impl Name {
    /// Copies a name, cutting it at 31 bytes.
    pub const fn new(name: &str) -> Self {
        let from = name.as_bytes();
        let mut len = if from.len() < MAX { from.len() } else { MAX };
        // A byte of the form 10xxxxxx continues a character: step back to where one starts.
        while len < from.len() && len > 0 && from[len] & 0xc0 == 0x80 {
            len -= 1;
        }
        let mut bytes = [0; MAX];
        let mut at = 0;
        while at < len {
            bytes[at] = from[at];
            at += 1;
        }
        // `len` is at most 31.
        Self { len: len as u8, bytes }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.len)];
        // `new` copied whole characters, so the fallback is never taken; it is there because a name
        // is not worth a panic.
        core::str::from_utf8(bytes).unwrap_or("?")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use std::string::ToString;

    #[test]
    fn keeps_short_names_and_cuts_long_ones() {
        assert_eq!(Name::new("node").as_str(), "node");
        assert_eq!(Name::new("").as_str(), "");
        assert_eq!(Name::new(&"x".repeat(31)).as_str().len(), 31);
        assert_eq!(Name::new(&"x".repeat(200)).as_str().len(), 31);
    }

    #[test]
    fn cuts_between_characters() {
        // 30 bytes, then a two-byte character that straddles the cut.
        let name = Name::new(&("x".repeat(30) + "é"));
        assert_eq!(name.to_string(), "x".repeat(30));
        let name = Name::new(&("x".repeat(29) + "é" + "y"));
        assert_eq!(name.to_string(), "x".repeat(29) + "é");
    }
}
