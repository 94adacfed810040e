//! What of a cache that is to end is still in use: so many are named in the report.

use core::fmt;
use core::ptr::NonNull;

const NAMED: usize = 8;

/// The first few objects, by address; printed with a space before each.
#[derive(Default)]
pub(crate) struct Sample {
    first: [usize; NAMED],
    count: usize,
}

impl Sample {
    pub(crate) fn add(&mut self, object: NonNull<u8>) {
        if let Some(place) = self.first.get_mut(self.count) {
            *place = object.addr().get();
        }
        self.count += 1;
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.iter().take(self.count).try_for_each(|object| write!(f, " {object:#x}"))?;
        f.write_str(if self.count > NAMED { " ..." } else { "" })
    }
}
