//! What of the faces may go to another thread, and what may be used by two: every public type, asserted both ways, as
//! `uma-testkit/tests/send_sync.rs` does it for the other crates. What owns something cannot be copied.
//!
//! `every_public_type_is_here` fails when a face exports a type of which its module here says nothing.
#![cfg(all(
    feature = "solaris",
    feature = "umem",
    feature = "linux",
    feature = "netbsd",
    feature = "freebsd"
))]

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::MutexGuard;

use static_assertions::{assert_impl_all, assert_not_impl_any};

/// Sent, but not shared.
type Own = Cell<u8>;
/// Shared, but not sent.
type Lent = MutexGuard<'static, u8>;

macro_rules! shared {
    ($($type:ty),* $(,)?) => { $(assert_impl_all!($type: Send, Sync);)* };
}
macro_rules! not_copied {
    ($($type:ty),* $(,)?) => { $(assert_not_impl_any!($type: Clone, Copy);)* };
}

mod common {
    use uma_kmem_compat::policy::PolicyError;

    use super::*;

    shared![PolicyError];
}

mod solaris {
    use uma_kmem_compat::solaris::{
        Answer, Callbacks, Constructor, CreateError, Destructor, Km, Kmc, KmemCache, Leaked,
        MoveCallback, ReclaimCallback,
    };

    use super::*;

    // Who makes a cache vouches for the callbacks and their argument on any thread.
    shared![Answer, Callbacks, Constructor, Destructor, MoveCallback, ReclaimCallback];
    shared![CreateError, Km, Kmc, KmemCache, Leaked];
    not_copied![KmemCache, Leaked];
}

mod umem {
    use uma_kmem_compat::umem::{
        Callbacks, Constructor, CreateError, Destructor, Leaked, NofailCallback, ReclaimCallback,
        Umc, Umem, UmemCache,
    };

    use super::*;

    shared![Callbacks, Constructor, Destructor, NofailCallback, ReclaimCallback];
    shared![CreateError, Leaked, Umc, Umem, UmemCache];
    not_copied![Leaked, UmemCache];
}

mod linux {
    use uma_kmem_compat::linux::{
        AllocElement, CacheArgs, Constructor, CreateError, Elements, FreeElement, Gfp, GracePeriod,
        KmemCache, Mempool, NoReserve, Sheaf, SlabFlags, StillUsed,
    };

    use super::*;

    shared![AllocElement, CacheArgs, Constructor, CreateError, Elements, FreeElement];
    shared![Gfp, GracePeriod, KmemCache, Mempool, NoReserve, SlabFlags, StillUsed];
    // A sheaf is its owner's, who may be on any thread.
    assert_impl_all!(Sheaf<'static>: Send);
    assert_not_impl_any!(Sheaf<'static>: Sync);
    not_copied![KmemCache, Mempool, Sheaf<'static>, StillUsed];
}

mod netbsd {
    use uma_kmem_compat::netbsd::{
        Callbacks, Constructor, CreateVmem, Destructor, DrainHook, HardLimitWarning, ImportFn,
        KmFlags, Map, PageAllocator, PassiveSerialize, Pool, PoolArgs, PoolCache, PoolFlags,
        PoolStats, ReleaseFn, StillOut, VmFlags, Vmem, VmemSource, XimportFn,
    };

    use super::*;

    shared![Callbacks, Constructor, Destructor, DrainHook, ImportFn, PassiveSerialize, ReleaseFn];
    shared![CreateVmem, HardLimitWarning, KmFlags, Map, PageAllocator, Pool, PoolArgs, PoolCache];
    shared![PoolFlags, PoolStats, StillOut<Pool>, VmFlags, Vmem, VmemSource, XimportFn];
    assert_not_impl_any!(StillOut<Own>: Sync);
    assert_not_impl_any!(StillOut<Lent>: Send);
    not_copied![Map, Pool, PoolCache, StillOut<Pool>, Vmem];
}

mod freebsd {
    use uma_kmem_compat::freebsd::{
        AllocPages, AllocPages2002, Callbacks, Callbacks2002, CreateError, Ctor, Ctor2002, Dtor,
        Fini, FreePages, FreePages2002, Import, Init, Init2002, M, Maxaction, Release, Section,
        Smr, Type, Zone, ZoneFlags, ZoneFlags2002,
    };

    use super::*;

    shared![AllocPages, AllocPages2002, Ctor, Ctor2002, Dtor, Fini, FreePages, FreePages2002];
    shared![Callbacks, Callbacks2002, CreateError, Import, Init, Init2002, M, Maxaction, Release];
    shared![Smr, Type, Zone, ZoneFlags, ZoneFlags2002];
    // The thread that entered leaves.
    assert_not_impl_any!(Section<'static>: Send, Sync);
    not_copied![Section<'static>, Zone];
}

/// Names that the `pub use` lines of a source export.
fn exported(source: &str) -> Vec<String> {
    let text: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let names = text.split(';').filter_map(|statement| statement.split("pub use ").nth(1));
    let names = names.flat_map(|used| {
        let list = used.rsplit_once('{').map_or(used, |(_, list)| list).trim_end_matches('}');
        list.split(',').map(|name| name.rsplit("::").next().unwrap_or_default().trim().to_owned())
    });
    let is_type = |name: &String| name.starts_with(char::is_uppercase);
    // Constants have no small letters; the flags `M` have none either, but are one.
    names
        .filter(is_type)
        .filter(|name| name.contains(char::is_lowercase) || name.len() == 1)
        .collect()
}

#[test]
fn every_public_type_is_here() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let here = include_str!("send_sync.rs");
    let mut missing = Vec::new();
    for face in ["solaris", "umem", "linux", "netbsd", "freebsd"] {
        let module = here.split(&format!("\nmod {face} {{")).nth(1).unwrap();
        let asserted = module.split("use super::*;").nth(1).unwrap().split("\n}\n").next().unwrap();
        let words: Vec<&str> = asserted.split(|char: char| !char.is_alphanumeric()).collect();
        let exports = exported(&fs::read_to_string(sources.join(face).join("mod.rs")).unwrap());
        assert!(exports.len() > 5, "{face} exports only {exports:?}?");
        let open = exports.iter().filter(|export| !words.contains(&&***export));
        missing.extend(open.map(|export| format!("{face}::{export}")));
    }
    assert!(missing.is_empty(), "assert of these whether they are Send and Sync: {missing:?}");
}
