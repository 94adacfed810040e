//! Policies that cannot be set.
#![cfg(feature = "linux")]

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
