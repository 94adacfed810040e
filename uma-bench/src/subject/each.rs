//! Which subjects there are, and which of them are wanted.

use crate::subject::Subject;
use crate::subject::limit::Limit;
use crate::subject::malloc::{self, System};
#[cfg(feature = "pools")]
use crate::subject::pools::{Infinity, Linear, Locked, Opool, Sharded};
use crate::subject::zone::{HasZone, Size, UMA_HUGE, Uma, UmaBare, UmaFromC};

/// All names that a subject can have, in the order of tables.
pub(crate) const NAMES: [&str; 15] = [
    "uma",
    "uma-from-c",
    "uma-bare",
    "uma-malloc",
    "mimalloc",
    "system",
    "jemalloc",
    "snmalloc",
    "rpmalloc",
    "opool",
    "lockfree-object-pool",
    "sharded-slab",
    "slab-in-mutex",
    "infinity_pool",
    "limit",
];

/// Which subjects take part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// The names that were asked for; none means all.
    pub(crate) names: Vec<String>,
    /// Whether no other takes part.
    pub(crate) alone: bool,
}

impl Filter {
    /// Whether a subject takes part. uma and mimalloc do unless others are alone: everything is a
    /// ratio of the two.
    pub(crate) fn has(&self, name: &str) -> bool {
        let wanted = self.names.is_empty() || self.names.iter().any(|wanted| wanted == name);
        let always = !self.alone && (name == "uma" || name == "mimalloc");
        malloc::is_there(name) && (wanted || always)
    }
}

/// The subjects that are wanted of those measured in processes of their own.
pub(crate) fn each_process(filter: &Filter) -> impl Iterator<Item = &'static str> {
    let wanted = |name: &&str| !name.starts_with("uma-") && filter.has(name);
    let huge = filter.has("uma").then_some(UMA_HUGE);
    let (uma, others) = NAMES.split_at(1);
    let names = uma.iter().copied().filter(wanted).chain(huge);
    names.chain(others.iter().copied().filter(wanted))
}

/// Something to be done with every subject: a closure that is generic over it.
pub(crate) trait Visit {
    /// Does it.
    fn visit<S: Subject>(&mut self, name: &'static str, subject: S);
}

/// Visits a subject if it is wanted.
macro_rules! one {
    ($filter:ident, $visit:ident, $name:literal, $subject:expr) => {
        if $filter.has($name) {
            $visit.visit($name, $subject);
        }
    };
}

/// Visits all subjects that deal in pointers, uma first.
pub(crate) fn each_malloc<const N: usize>(filter: &Filter, visit: &mut impl Visit)
where
    Size<N>: HasZone,
{
    one!(filter, visit, "uma", Uma::<N>);
    one!(filter, visit, "uma-from-c", UmaFromC::<N>);
    if let Some(bare) = UmaBare::<N>::new() {
        one!(filter, visit, "uma-bare", bare);
    }
    one!(filter, visit, "uma-malloc", malloc::UmaMalloc::<N>);
    #[cfg(feature = "mimalloc")]
    one!(filter, visit, "mimalloc", malloc::Mimalloc::<N>);
    one!(filter, visit, "system", System::<N>);
    #[cfg(feature = "jemalloc")]
    one!(filter, visit, "jemalloc", malloc::Jemalloc::<N>);
    #[cfg(feature = "snmalloc")]
    one!(filter, visit, "snmalloc", malloc::Snmalloc::<N>);
    #[cfg(feature = "rpmalloc")]
    one!(filter, visit, "rpmalloc", malloc::Rpmalloc::<N>);
    one!(filter, visit, "limit", Limit::<N>);
}

/// Visits all subjects.
pub(crate) fn each_subject<const N: usize>(filter: &Filter, visit: &mut impl Visit)
where
    Size<N>: HasZone,
{
    each_malloc::<N>(filter, visit);
    #[cfg(feature = "pools")]
    {
        one!(filter, visit, "opool", Opool::<N>::new());
        one!(filter, visit, "lockfree-object-pool", Linear::<N>::new());
        one!(filter, visit, "sharded-slab", Sharded::<N>::new());
        one!(filter, visit, "slab-in-mutex", Locked::<N>::new());
        one!(filter, visit, "infinity_pool", Infinity::<N>::new());
    }
}
