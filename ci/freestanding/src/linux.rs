//! All that the program needs of a system: an entry point, two system calls (x86-64 Linux), a panic
//! handler, and the five memory functions that compiled code calls by name.

use core::arch::{asm, naked_asm};
use core::fmt::{self, Write};

const WRITE: usize = 1;
const EXIT_GROUP: usize = 231;

const STDOUT: usize = 1;
const STDERR: usize = 2;

/// Where the kernel enters: arguments at the stack pointer, nothing set up. The name is the linker's.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main)
}

extern "C" fn main() -> ! {
    crate::run();
    exit(0)
}

/// Makes a system call of three arguments.
///
/// # Safety
///
/// The call must be one that is sound with these arguments.
unsafe fn syscall(number: usize, arguments: [usize; 3]) -> isize {
    let result;
    // SAFETY: the registers are those of the system call convention; the kernel overwrites only rcx,
    // r11 and the result. What the call does is the caller's duty.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

fn exit(status: u8) -> ! {
    loop {
        // SAFETY: ending the process is always allowed.
        unsafe { syscall(EXIT_GROUP, [usize::from(status), 0, 0]) };
    }
}

/// A file that is open since the start of the process.
struct Stream(usize);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: the kernel reads `rest` and no more.
            let count = unsafe { syscall(WRITE, [self.0, rest.as_ptr().addr(), rest.len()]) };
            let count = usize::try_from(count).map_err(|_| fmt::Error)?;
            rest = rest.get(count..).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

/// Writes a line to the standard output.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    if writeln!(Stream(STDOUT), "{line}").is_err() {
        exit(2);
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing can be done if this fails too; the exit status still tells.
    let _ = writeln!(Stream(STDERR), "freestanding: {info}");
    exit(1)
}

/// Named by the unwind tables of the prebuilt `core`. Nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// # Safety
///
/// As `memcpy` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: copies `count` bytes upwards, which the caller allows; the direction flag is clear by
    // the calling convention.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
///
/// As `memmove` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: `to` does not lie inside the source, so copying upwards reads each byte before it
        // is overwritten.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: copies `count` bytes downwards from the last one (`count` is not 0 here), and leaves
    // the direction flag clear.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count - 1) => _,
            inout("rsi") from.wrapping_add(count - 1) => _,
            options(nostack),
        );
    }
    to
}

/// # Safety
///
/// As `memset` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: writes `count` bytes upwards, which the caller allows. C converts `byte` to a char.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            in("al") byte as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// # Safety
///
/// As `memcmp` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: both are readable for `count` bytes. The reads are volatile so that the loop is not
        // compiled into a call of this function.
        let (left, right) =
            unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
///
/// As `bcmp` of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's duty is passed on unchanged.
    unsafe { memcmp(left, right, count) }
}
