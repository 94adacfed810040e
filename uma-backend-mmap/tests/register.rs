//! The example `register` runs to its end: every run lies in one of the regions that were told, and a new chunk is
//! noticed.

#[path = "../examples/register.rs"]
mod register;

#[test]
fn regions_can_be_registered() {
    register::main().unwrap();
}
