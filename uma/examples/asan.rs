//! Misuse that AddressSanitizer is to find inside a slab: for `ci/asan.sh`, which runs it with the name of one.

use uma::{RawZone, core::Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let misuse = std::env::args().nth(1).unwrap_or_default();
    // 61 bytes: the last byte is no multiple of what the sanitizer marks at a time.
    let layout = std::alloc::Layout::from_size_align(61, 1)?;
    let zone = RawZone::builder("victim", layout).build()?;
    let items = [zone.alloc(Request::NOWAIT)?, zone.alloc(Request::NOWAIT)?];
    let at = items[1].as_ptr();
    // SAFETY: inside the item, or the misuse that is asked for; its memory is there.
    unsafe {
        at.write_bytes(1, 61);
        match misuse.as_str() {
            "read-after-free" => {
                zone.free(items[1]);
                println!("read {}", at.read_volatile());
            }
            "write-after-free" => {
                zone.free(items[1]);
                at.add(60).write_volatile(2);
            }
            "overflow" => at.add(61).write_volatile(2),
            "underflow" => at.sub(1).write_volatile(2),
            _ => println!("nothing is wrong"),
        }
        if !misuse.contains("after-free") {
            zone.free(items[1]);
        }
        zone.free(items[0]);
    }
    Ok(())
}
