//! Policies that cannot be set.
#![cfg(all(feature = "linux", feature = "solaris"))]

use uma_kmem_compat::policy::{self, PolicyError};

#[test]
fn what_is_no_policy_is_refused() {
    assert_eq!(policy::set("linux.moon", "full"), Err(PolicyError::NoSuchKey));
    let error = policy::set("linux.misuse", "perhaps").unwrap_err();
    assert!(matches!(error, PolicyError::NoSuchValue(values) if values.contains(&"abort")));
    assert!(error.to_string().contains("\"abort\""), "{error}");
    // Nothing has changed: a value that it has is taken still.
    policy::set("linux.misuse", "abort").unwrap();
}

/// The manual allows letters and digits only; the implementation takes anything, unless it is told otherwise.
#[test]
fn names_by_the_manual() {
    use uma_kmem_compat::solaris::{CreateError, Kmc, KmemCache};

    let make = |name| KmemCache::create(name, 64, 0, Kmc::empty());
    make("a name").unwrap().destroy().unwrap();
    policy::set("solaris.name", "manual").unwrap();
    assert_eq!(make("a name").unwrap_err(), CreateError::BadName);
    make("a_name").unwrap().destroy().unwrap();
}
