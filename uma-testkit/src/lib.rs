//! Fakes, conformance suites and models that prove the uma crates
