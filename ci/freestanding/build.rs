//! Linker options: no start files, no libraries, nothing for a dynamic linker to do.

fn main() {
    for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={option}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
