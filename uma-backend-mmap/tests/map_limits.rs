//! Maps at the limits of the system. Each case is a process of its own, which this program starts with
//! its name in the environment, so that limits end with it.
#![cfg(target_os = "linux")]

use std::process::Command;
use std::ptr::NonNull;

use uma_backend_mmap::map::{KmFlags, Map, MapConfig, MapFault};

const PAGE: usize = 4 << 10;
const MIB: usize = 1 << 20;

/// Runs `case` in a process of its own, or is that process.
fn alone(name: &str, case: fn()) {
    const CASE: &str = "UMA_MAP_LIMITS_CASE";
    if std::env::var_os(CASE).is_some_and(|wanted| wanted == name) {
        return case();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{error}", output.status);
    assert!(text.contains("1 passed"), "{name} did not run: {text}");
    print!("{text}");
}

fn limit(which: libc::__rlimit_resource_t, bytes: usize) {
    let limit = libc::rlimit { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
    // SAFETY: the structure is readable.
    assert_eq!(unsafe { libc::setrlimit(which, &raw const limit) }, 0);
}

fn free(map: &Map, at: NonNull<u8>, size: usize, flags: KmFlags) {
    // SAFETY: whole, and used by nobody any more.
    unsafe { map.free(at, size, flags) }.unwrap();
}

/// RLIMIT_AS: there is an error, with the size and the system's words; what there is works.
#[test]
fn address_space() {
    alone("address_space", || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = text.split(' ').next().unwrap().parse().unwrap();
        limit(libc::RLIMIT_AS, pages * PAGE + 300 * MIB);
        let config = MapConfig::new("test");
        let error = Map::new(config, 400 * MIB).unwrap_err();
        let size = 400 * MIB + 2 * PAGE;
        assert_eq!(error.fault, MapFault::System { call: "mmap", size, errno: libc::ENOMEM });
        let mut maps = Vec::new();
        let error = loop {
            match Map::new(config, 50 * MIB) {
                Ok(map) => maps.push(map),
                Err(error) => break error,
            }
        };
        assert!(maps.len() >= 4, "{error} after {}", maps.len());
        // Wherever it stopped, nothing is lost.
        let count = maps.len();
        for map in &maps {
            let flags = KmFlags::PAGEABLE | KmFlags::CANFAIL;
            let at = map.alloc(MIB, 0, flags).unwrap();
            free(map, at, MIB, KmFlags::PAGEABLE);
        }
        maps.clear();
        maps.extend((0..count).map(|_| Map::new(config, 50 * MIB).unwrap()));
    });
}

/// vm.max_map_count: pages are not made accessible any more, and can be again when others are not.
#[test]
fn mappings() {
    alone("mappings", || {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let most: usize = text.trim().parse().unwrap();
        if most > 200_000 {
            println!("not tested: {most} mappings are allowed, too many to use up in a test");
            return;
        }
        let map = Map::new(MapConfig::new("test").guards(true), most * 2 * PAGE).unwrap();
        let flags = KmFlags::PAGEABLE | KmFlags::CANFAIL;
        let mut held = Vec::new();
        let error = loop {
            match map.alloc(PAGE, 0, flags) {
                Ok(at) => held.push(at),
                Err(error) => break error,
            }
        };
        let (call, size, errno) = ("mprotect", PAGE, libc::ENOMEM);
        assert_eq!(error.fault, MapFault::System { call, size, errno });
        assert!(held.len() > most / 4, "{}", held.len());
        let stats = map.stats();
        assert_eq!((stats.segments, stats.committed), (held.len(), held.len() * PAGE));
        // Addresses need no mapping.
        map.alloc(PAGE, 0, KmFlags::VAONLY).unwrap();
        for at in held.drain(held.len() / 2..) {
            free(&map, at, PAGE, KmFlags::PAGEABLE);
        }
        for _ in 0..100 {
            held.push(map.alloc(PAGE, 0, flags).unwrap());
        }
        held.into_iter().for_each(|at| free(&map, at, PAGE, KmFlags::PAGEABLE));
        assert_eq!(map.stats().committed, 0);
    });
}

/// RLIMIT_MEMLOCK: what is beyond it is wired in name only, and counted; what is freed can be locked anew.
#[test]
fn locked_memory() {
    alone("locked_memory", || {
        limit(libc::RLIMIT_MEMLOCK, 64 * PAGE);
        // SAFETY: whoever may do everything is not bound by the limit; nobody may do little.
        let nobody = unsafe { libc::geteuid() != 0 || libc::setuid(65534) == 0 };
        if !nobody {
            println!("not tested: the process may lock what it wants");
            return;
        }
        let map = Map::new(MapConfig::new("test"), MIB).unwrap();
        for _ in 0..3 {
            let held = [0; 5].map(|_| map.alloc(16 * PAGE, 0, KmFlags::WIRED).unwrap());
            for at in held {
                // SAFETY: the memory is ours.
                unsafe { at.write_bytes(1, 16 * PAGE) };
            }
            assert_eq!(map.stats().locked, 64 * PAGE);
            let at = map.alloc(PAGE, 0, KmFlags::PAGEABLE).unwrap();
            let error = map.set_pageable(at, PAGE, false).unwrap_err();
            assert!(matches!(error.fault, MapFault::System { call: "mlock", .. }), "{error}");
            free(&map, at, PAGE, KmFlags::PAGEABLE);
            held.into_iter().for_each(|at| free(&map, at, 16 * PAGE, KmFlags::WIRED));
            assert_eq!((map.stats().locked, map.stats().discards_refused), (0, 0));
        }
        assert_eq!(map.stats().locks_refused, 6);
    });
}
