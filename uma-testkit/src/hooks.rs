//! Hooks that count, check the order of their calls, and fail or panic when told to.
//!
//! ```text
//!            init              ctor
//!   unknown ------> idle -------------> in use
//!           <------      <-------------
//!            fini              dtor
//! ```
//!
//! A hook that is called on an item in another state than the one its arrow leaves is a *violation*.
//! It is noted and not panicked about, since a panic would take a way of its own through the code
//! under test; [`CountingHooks::assert_balanced`] panics about it later.
//!
//! An init or ctor that refuses or panics leaves the item where it was; a fini or dtor that panics
//! counts as done, since the item must not see it again.

use std::collections::BTreeMap;

use uma_core::{Hooks, Item, Refused, Request};

use crate::sync::Mutex;

/// One of the four hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// [`Hooks::init`]
    Init,
    /// [`Hooks::fini`]
    Fini,
    /// [`Hooks::ctor`]
    Ctor,
    /// [`Hooks::dtor`]
    Dtor,
}

/// How often each hook did its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items initialised.
    pub init: u64,
    /// Items taken apart.
    pub fini: u64,
    /// Uses begun.
    pub ctor: u64,
    /// Uses ended.
    pub dtor: u64,
    /// Calls that refused by plan.
    pub refused: u64,
    /// Calls that panicked by plan.
    pub panicked: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    InUse,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Refuse,
    Panic,
}

#[derive(Debug, Default)]
struct Books {
    items: BTreeMap<usize, State>,
    counts: Counts,
    /// Calls of each hook since its fault was planned.
    calls: [u64; 4],
    faults: [Option<(u64, Way)>; 4],
    violations: Vec<String>,
}

/// Hooks that know the state of every item. Share them by reference: `&hooks` is [`Hooks`] too.
///
/// They do not touch the items.
#[derive(Debug)]
pub struct CountingHooks {
    books: Mutex<Books>,
    /// Whether `init` runs, so that an unknown item may not go through `ctor`.
    with_init: bool,
}

impl CountingHooks {
    /// For zones that run all four hooks.
    pub fn new() -> Self {
        Self { books: Mutex::default(), with_init: true }
    }

    /// For zones without [`Constructed`](uma_core::Constructed) below, which run only ctor and dtor.
    pub fn without_init() -> Self {
        Self { books: Mutex::default(), with_init: false }
    }

    /// The `k`-th call of `hook` from now (1 is the next) refuses.
    ///
    /// # Panics
    ///
    /// If it is a hook that cannot.
    pub fn refuse_at(&self, hook: Hook, k: u64) {
        assert!(matches!(hook, Hook::Init | Hook::Ctor), "{hook:?} cannot refuse");
        self.plan(hook, k, Way::Refuse);
    }

    /// The `k`-th call of `hook` from now (1 is the next) panics.
    pub fn panic_at(&self, hook: Hook, k: u64) {
        self.plan(hook, k, Way::Panic);
    }

    /// Nothing fails from now on.
    pub fn never(&self) {
        self.books.lock().faults = [None; 4];
    }

    /// How often each hook did its work.
    pub fn counts(&self) -> Counts {
        self.books.lock().counts
    }

    /// Items between init and fini.
    pub fn constructed(&self) -> usize {
        self.books.lock().items.len()
    }

    /// Items between ctor and dtor.
    pub fn in_use(&self) -> usize {
        self.books.lock().items.values().filter(|&&state| state == State::InUse).count()
    }

    /// Calls out of order so far, in words.
    pub fn violations(&self) -> Vec<String> {
        self.books.lock().violations.clone()
    }

    /// Checks that nothing was called out of order and nothing is in use. Items may be cached.
    ///
    /// # Panics
    ///
    /// If not.
    #[track_caller]
    pub fn assert_idle(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "hooks called out of order: {violations:#?}");
        let Counts { ctor, dtor, .. } = self.counts();
        assert_eq!(ctor, dtor, "{} items are still in use", self.in_use());
    }

    /// Checks that nothing was called out of order, that every ctor had its dtor, and every init its
    /// fini: what holds when the zone is gone.
    ///
    /// # Panics
    ///
    /// If not.
    #[track_caller]
    pub fn assert_balanced(&self) {
        self.assert_idle();
        let Counts { init, fini, .. } = self.counts();
        assert_eq!(init, fini, "{} items are still constructed", self.constructed());
    }

    fn plan(&self, hook: Hook, k: u64, way: Way) {
        let mut books = self.books.lock();
        books.calls[hook as usize] = 0;
        books.faults[hook as usize] = Some((k, way));
    }

    /// One call: notes a violation, fails if it is planned, else does the step.
    fn call(&self, hook: Hook, item: Item) -> Result<(), Refused> {
        let mut books = self.books.lock();
        let state = books.items.get(&item.addr()).copied();
        let in_order = match hook {
            Hook::Init => state.is_none() && self.with_init,
            Hook::Fini | Hook::Ctor if self.with_init => state == Some(State::Idle),
            Hook::Fini => false,
            Hook::Ctor => state.is_none(),
            Hook::Dtor => state == Some(State::InUse),
        };
        if !in_order {
            let state = state.map_or("unknown", |state| match state {
                State::Idle => "idle",
                State::InUse => "in use",
            });
            books.violations.push(format!("{hook:?} of {item:?}, which is {state}"));
        }
        books.calls[hook as usize] += 1;
        let number = books.calls[hook as usize];
        let way = books.faults[hook as usize].filter(|&(k, _)| k == number).map(|(_, way)| way);
        match way {
            Some(Way::Refuse) => books.counts.refused += 1,
            Some(Way::Panic) => books.counts.panicked += 1,
            None => {}
        }
        if way.is_none() || matches!(hook, Hook::Fini | Hook::Dtor) {
            self.step(&mut books, hook, item);
        }
        drop(books);
        match way {
            Some(Way::Refuse) => Err(Refused),
            Some(Way::Panic) => panic!("{hook:?} panics as planned"),
            None => Ok(()),
        }
    }

    fn step(&self, books: &mut Books, hook: Hook, item: Item) {
        let Books { items, counts, .. } = books;
        let to = match hook {
            Hook::Init => Some(State::Idle),
            Hook::Fini => None,
            Hook::Ctor => Some(State::InUse),
            Hook::Dtor => self.with_init.then_some(State::Idle),
        };
        match to {
            Some(state) => items.insert(item.addr(), state),
            None => items.remove(&item.addr()),
        };
        match hook {
            Hook::Init => counts.init += 1,
            Hook::Fini => counts.fini += 1,
            Hook::Ctor => counts.ctor += 1,
            Hook::Dtor => counts.dtor += 1,
        }
    }
}

impl Default for CountingHooks {
    fn default() -> Self {
        Self::new()
    }
}

impl Hooks for CountingHooks {
    unsafe fn init(&self, item: Item, _: Request) -> Result<(), Refused> {
        self.call(Hook::Init, item)
    }

    unsafe fn fini(&self, item: Item) {
        let _ = self.call(Hook::Fini, item);
    }

    unsafe fn ctor(&self, item: Item, _: *mut (), _: Request) -> Result<(), Refused> {
        self.call(Hook::Ctor, item)
    }

    unsafe fn dtor(&self, item: Item, _: *mut ()) {
        let _ = self.call(Hook::Dtor, item);
    }
}
