//! The sequences for x86-64.
//!
//! Each is one `asm!` block:
//!
//! ```text
//!   2:  store the descriptor's address in the thread's rseq area     (arms the sequence)
//!   3:  first instruction  ........................................
//!       ... loads, compares; a miss jumps to 5, or away ...         :  restarted if interrupted
//!       the commit                                                  :
//!   4:  ............................................................
//!   5:  after
//!
//!   section __rseq_cs:       { version, flags, 3, 4 - 3, 6 }         the descriptor
//!   section __rseq_failure:  signature; 6: jmp 2                     where the kernel sends us
//! ```
//!
//! The kernel looks for the signature in the four bytes before the abort target; the first three
//! bytes make it the end of an undefined instruction, so that nothing runs into it. The area's fields:
//! `cpu_id` at 4, `rseq_cs` at 8. The slot's: `alloc` at 0, `free` at 8. The bucket's: header at 0
//! (its lowest byte is the count, the next one the room), items at 16. Numbers of labels avoid 0 and 1, which the assembler may take for
//! binary numbers.

use core::arch::asm;
use core::ptr::NonNull;

use uma_core::Item;

use crate::bucket::{Bucket, POP, PUSH, ROOM};
use crate::{Slots, Which};

/// The descriptor and the abort target of a sequence with the labels above.
macro_rules! sequence {
    ($($code:literal),* $(,)?) => {
        concat!(
            "2:\n",
            "lea {scratch}, [rip + 7f]\n",
            "mov qword ptr fs:[{offset} + 8], {scratch}\n",
            "3:\n",
            $($code, "\n",)*
            "4:\n",
            "5:\n",
            ".pushsection __rseq_cs, \"aw\", @progbits\n",
            ".balign 32\n",
            "7:\n",
            ".long 0, 0\n",
            ".quad 3b, 4b - 3b, 6f\n",
            ".popsection\n",
            ".pushsection __rseq_failure, \"ax\", @progbits\n",
            ".byte 0x0f, 0xb9, 0x3d\n",
            ".long 0x53053053\n",
            "6:\n",
            "jmp 2b\n",
            ".popsection\n",
        )
    };
}

/// The CPU that the calling thread runs on, by its rseq area: too large a number if it has none.
///
/// # Safety
///
/// `offset` leads from the thread pointer to the rseq area.
pub(super) unsafe fn cpu(offset: isize) -> usize {
    let cpu: u32;
    // SAFETY: reads the field `cpu_id` of the thread's area.
    unsafe {
        asm!("mov {cpu:e}, dword ptr fs:[{offset} + 4]", offset = in(reg) offset, cpu = out(reg) cpu,
            options(nostack, readonly, preserves_flags));
    }
    cpu as usize
}

/// See [`Slot::pop`](crate::Slot::pop).
///
/// # Safety
///
/// `offset` leads from the thread pointer to the rseq area.
#[inline(always)]
pub(super) unsafe fn pop(offset: isize, slots: Slots<'_>) -> Option<Item> {
    let item: *mut u8;
    // SAFETY: the CPU number is compared with the count before a slot is touched; a slot's bucket is
    // alive and this CPU's (see `PerCpu`), and EMPTY has a count of 0, so it is only read.
    unsafe {
        asm!(
            sequence!(
                "xor {item:e}, {item:e}",
                "mov {scratch:e}, dword ptr fs:[{offset} + 4]",
                "cmp {scratch}, {count}",
                "jae 5f",
                "shl {scratch}, 6",
                "mov {bucket}, qword ptr [{slots} + {scratch}]",
                "mov {header}, qword ptr [{bucket}]",
                "movzx {scratch:e}, {header:l}",
                "test {scratch:e}, {scratch:e}",
                "jz 5f",
                "mov {item}, qword ptr [{bucket} + {scratch} * 8 + 8]",
                "add {header}, {pop}",
                "mov qword ptr [{bucket}], {header}",
            ),
            offset = in(reg) offset,
            slots = in(reg) slots.as_ptr(),
            count = in(reg) slots.count(),
            pop = const POP,
            scratch = out(reg) _,
            bucket = out(reg) _,
            header = out(reg) _,
            item = out(reg) item,
            options(nostack),
        );
    }
    NonNull::new(item).map(Item::new)
}

/// See [`Slot::push`](crate::Slot::push).
///
/// # Safety
///
/// As [`pop`]; and the caller owns the item, and gives it up if `true`.
#[inline(always)]
pub(super) unsafe fn push(offset: isize, slots: Slots<'_>, item: Item) -> bool {
    // SAFETY: as in `pop`; the item is stored above the top only if the header says that there is room,
    // which EMPTY's does not.
    unsafe {
        asm!(
            sequence!(
                "mov {scratch:e}, dword ptr fs:[{offset} + 4]",
                "cmp {scratch}, {count}",
                "jae {miss}",
                "shl {scratch}, 6",
                "mov {bucket}, qword ptr [{slots} + {scratch}]",
                "mov {header}, qword ptr [{bucket}]",
                "test {header:e}, {room}",
                "jnz 8f",
                "mov {bucket}, qword ptr [{slots} + {scratch} + 8]",
                "mov {header}, qword ptr [{bucket}]",
                "test {header:e}, {room}",
                "jz {miss}",
                "8:",
                "movzx {scratch:e}, {header:l}",
                "mov qword ptr [{bucket} + {scratch} * 8 + 16], {item}",
                "sub {header}, {push}",
                "mov qword ptr [{bucket}], {header}",
            ),
            offset = in(reg) offset,
            slots = in(reg) slots.as_ptr(),
            count = in(reg) slots.count(),
            item = in(reg) item.as_ptr(),
            room = const ROOM,
            push = const PUSH,
            scratch = out(reg) _,
            bucket = out(reg) _,
            header = out(reg) _,
            miss = label { return false },
            options(nostack),
        );
    }
    true
}

/// See [`Slot::swap`](crate::Slot::swap). Null if the CPU has no slot.
///
/// # Safety
///
/// As [`pop`]; and the caller owns the new bucket, and gives it up unless null is returned.
pub(super) unsafe fn swap(
    offset: isize,
    slots: Slots<'_>,
    which: Which,
    new: NonNull<Bucket>,
) -> *mut Bucket {
    let field: usize = match which {
        Which::Alloc => 0,
        Which::Free => 8,
    };
    let mut old: *mut Bucket;
    let done: u32;
    // SAFETY: the CPU number is compared with the count before the slot is touched. An `xchg` with
    // memory is atomic, which other CPUs rely on that detach buckets.
    unsafe {
        asm!(
            sequence!(
                "xor {done:e}, {done:e}",
                "mov {scratch:e}, dword ptr fs:[{offset} + 4]",
                "cmp {scratch}, {count}",
                "jae 5f",
                "shl {scratch}, 6",
                "add {scratch}, {slots}",
                "inc {done:e}",
                "xchg qword ptr [{scratch} + {field}], {bucket}",
            ),
            offset = in(reg) offset,
            slots = in(reg) slots.as_ptr(),
            count = in(reg) slots.count(),
            field = in(reg) field,
            bucket = inout(reg) new.as_ptr() => old,
            scratch = out(reg) _,
            done = out(reg) done,
            options(nostack),
        );
    }
    if done == 0 {
        old = core::ptr::null_mut();
    }
    old
}

// A model checker's cells have other sizes; its models do not come here.
const _: () = assert!(
    cfg!(any(loom, shuttle))
        || core::mem::offset_of!(crate::Slot, alloc) == 0
            && core::mem::offset_of!(crate::Slot, free) == 8
            && size_of::<crate::Slot>() == 1 << 6
            && Bucket::ITEMS == 16
);
