//! What the kernel tells by sysctl(3), as a function.

use core::ffi::{c_char, c_int, c_ulong, c_void};
use core::ptr;
use std::fmt::{self, Write};

use uma::stream::StreamError;
use uma::{Host, Platform};

use super::boundary;
use super::{ZoneHandle, zone};
use crate::common::fork::Lock;
use crate::common::memory::{NoMemory, push};
use crate::common::text;
use crate::freebsd::malloc::nth;
use crate::freebsd::shared::WARNINGS;
use crate::freebsd::{SYSTEM, kmem_limit, kmem_total, set_kmem_limit};
use crate::sync::Ordering;

const NO_ENTRY: c_int = 2;
const NOT_PERMITTED: c_int = 1;
const NO_MEMORY: c_int = 12;
const INVALID: c_int = 22;

/// A limit or an occupancy that was given a name (`SYSCTL_UMA_MAX`, `SYSCTL_UMA_CUR`).
struct Named {
    name: String,
    zone: *mut *mut ZoneHandle,
    cur: bool,
}

// SAFETY: the pointer is to a variable of the program, which is there for good.
unsafe impl Send for Named {}

static NAMED: Lock<Vec<Named>> = Lock::new(Vec::new());

/// Gives a name to the limit, or the occupancy, of the zone in a variable: that of the parent (`_kern_ipc` reads
/// `kern.ipc`), a dot, and its own.
///
/// # Safety
///
/// Both names are strings that end in a zero. The variable stays, and holds null or a zone.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_sysctl_add(
    parent: *const c_char,
    name: *const c_char,
    zone: *mut *mut ZoneHandle,
    cur: c_int,
) {
    boundary("SYSCTL_UMA_MAX", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let (Some(parent), Some(name)) = (unsafe { (text(parent), text(name)) }) else { return };
        let put = |all: &mut Text| match parent.strip_prefix('_') {
            Some(symbol) => {
                let dots = |letter| if letter == '_' { '.' } else { letter };
                symbol.chars().map(dots).try_for_each(|letter| all.write_char(letter))
            }
            None => all.write_str(&parent),
        };
        let mut whole = Text::default();
        let named = put(&mut whole).and_then(|()| write!(whole, ".{name}"));
        let named = named.map(|()| Named { name: whole.0, zone, cur: cur != 0 });
        // Without memory it goes by no name.
        let told = named.is_ok_and(|named| push(&mut NAMED.lock(), named).is_ok());
        if !told {
            SYSTEM.report("SYSCTL_UMA_MAX", format_args!("{name}: {NoMemory}"));
        }
    });
}

/// Text that grows as long as there is memory.
#[derive(Default)]
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.0.try_reserve(more.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(more);
        Ok(())
    }
}

/// What a caller of sysctlbyname(3) has given.
struct Call {
    old: *mut c_void,
    length: *mut usize,
    new: *const c_void,
    new_length: usize,
}

impl Call {
    /// Gives out bytes.
    ///
    /// # Safety
    ///
    /// The pointers are as the manual has it.
    unsafe fn bytes(&self, bytes: &[u8]) -> c_int {
        if self.length.is_null() {
            return 0;
        }
        // SAFETY: the caller says so.
        unsafe {
            let room = self.length.read();
            self.length.write(bytes.len());
            if self.old.is_null() {
                return 0;
            }
            let fits = bytes.len().min(room);
            self.old.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), fits);
            if fits < bytes.len() {
                self.length.write(fits);
                return NO_MEMORY;
            }
        }
        0
    }

    /// Gives out text, with its zero.
    ///
    /// # Safety
    ///
    /// As [`bytes`](Self::bytes).
    unsafe fn text(&self, what: &dyn fmt::Display) -> c_int {
        let mut text = Text::default();
        if write!(text, "{what}\0").is_err() {
            return NO_MEMORY;
        }
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.bytes(text.0.as_bytes()) }
    }

    /// Gives out an `int`, and takes a new one.
    ///
    /// # Safety
    ///
    /// As [`bytes`](Self::bytes).
    unsafe fn int(&self, value: c_int, set: Option<&dyn Fn(c_int)>) -> c_int {
        // SAFETY: the caller's duty is passed on unchanged.
        let told = unsafe { self.bytes(&value.to_ne_bytes()) };
        if told != 0 || self.new.is_null() {
            return told;
        }
        let Some(set) = set else { return NOT_PERMITTED };
        if self.new_length != size_of::<c_int>() {
            return INVALID;
        }
        // SAFETY: the caller says that there are so many bytes.
        set(unsafe { self.new.cast::<c_int>().read_unaligned() });
        0
    }

    /// Gives out an `unsigned long`, and takes a new one.
    ///
    /// # Safety
    ///
    /// As [`bytes`](Self::bytes).
    unsafe fn long(&self, value: usize, set: Option<fn(usize)>) -> c_int {
        // SAFETY: the caller's duty is passed on unchanged.
        let told = unsafe { self.bytes(&(value as c_ulong).to_ne_bytes()) };
        if told != 0 || self.new.is_null() {
            return told;
        }
        let Some(set) = set else { return NOT_PERMITTED };
        if self.new_length != size_of::<c_ulong>() {
            return INVALID;
        }
        // SAFETY: the caller says that there are so many bytes.
        let value = unsafe { self.new.cast::<c_ulong>().read_unaligned() };
        set(usize::try_from(value).unwrap_or(usize::MAX));
        0
    }
}

/// sysctlbyname(3) for what UMA has there; returns the error number instead of setting `errno`.
///
/// # Safety
///
/// The name is null or a string that ends in a zero; the others are as the manual has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn uma_freebsd_sysctlbyname(
    name: *const c_char,
    old: *mut c_void,
    length: *mut usize,
    new: *const c_void,
    new_length: usize,
) -> c_int {
    boundary("uma_freebsd_sysctlbyname", || {
        // SAFETY: the caller's duty is passed on unchanged.
        let Some(name) = (unsafe { text(name) }) else { return INVALID };
        let call = Call { old, length, new, new_length };
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe {
            match &*name {
                "vm.zone_stats" => stream().map_or(NO_MEMORY, |bytes| call.bytes(&bytes)),
                "vm.zone_count" => {
                    let mut count = 0;
                    Host.registry().visit(&mut |_| count += 1);
                    call.int(count, None)
                }
                "vm.zone" => uma::try_stat().map_or(NO_MEMORY, |stat| call.text(&stat)),
                "vm.uma" => uma::try_stat().map_or(NO_MEMORY, |stat| call.text(&stat.json())),
                "vm.zone_warnings" => {
                    let now = c_int::from(WARNINGS.load(Ordering::Relaxed));
                    call.int(now, Some(&|new| WARNINGS.store(new != 0, Ordering::Relaxed)))
                }
                "vm.uma_kmem_limit" => call.long(kmem_limit(), Some(set_kmem_limit)),
                "vm.uma_kmem_total" => call.long(kmem_total(), None),
                "kern.malloc" => call.text(&MallocTable),
                other => named(other, &call),
            }
        }
    })
}

/// The figures of all zones in the binary form of `vm.zone_stats`, if there is memory for them.
fn stream() -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match Host.registry().stream(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Some(bytes);
            }
            Err(StreamError::Short { needed }) => {
                let room = needed + needed / 4;
                bytes.try_reserve(room.saturating_sub(bytes.len())).ok()?;
                bytes.resize(room, 0);
            }
            Err(_) => return None,
        }
    }
}

/// The table of `vmstat -m`.
struct MallocTable;

impl fmt::Display for MallocTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("            Type  InUse MemUse Requests  Size(s)\n")?;
        (0..).map_while(nth).try_for_each(|of| writeln!(f, "{}", of.stats()))
    }
}

/// # Safety
///
/// As [`Call::bytes`].
unsafe fn named(name: &str, call: &Call) -> c_int {
    let all = NAMED.lock();
    let Some(found) = all.iter().find(|named| named.name == name) else { return NO_ENTRY };
    let (variable, cur) = (found.zone, found.cur);
    drop(all);
    // SAFETY: whoever gave the name says that it holds null or a zone.
    let zone = unsafe {
        let handle = if variable.is_null() { ptr::null_mut() } else { variable.read() };
        if handle.is_null() {
            return NO_ENTRY;
        }
        zone("sysctlbyname", handle)
    };
    let Some(zone) = zone else { return NO_ENTRY };
    let value = if cur { zone.cur() } else { zone.max() };
    let set = |new: c_int| {
        zone.set_max(u64::try_from(new).unwrap_or(0));
    };
    let set: Option<&dyn Fn(c_int)> = if cur { None } else { Some(&set) };
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { call.int(c_int::try_from(value).unwrap_or(c_int::MAX), set) }
}
