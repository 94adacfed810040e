//! Threads that take turns: real threads, of which one runs at a time, and a program says which.
//!
//! ```text
//!   conductor --job--> thread ... finished, asleep, or interrupted --turn--> conductor
//!                        ^                                                       |
//!                        `------------------------- go on ----------------------'
//! ```
//!
//! A thread gives its turn back when its job is done, when it goes to sleep ([`TurnSleep`]), or at a step where it
//! is told to ([`pause`], by way of [`machine::interrupt_after`]). So what happens is the same each time, with
//! everything that only real threads have: identities, stacks, thread-locals and their destructors. It finds
//! orders of events in which something goes wrong, such as a free by another thread while one is in the middle of
//! an allocation, a thread that ends, a wake-up that is lost. It finds no data races: only one thread runs, and
//! each turn is handed on under a lock.
//!
//! A step is a place where the thread asks which CPU it is on, or calls [`machine::step`]. Nobody is interrupted
//! with a lock held, as a kernel's preemption would not care to; the others would only wait for it.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use uma_core::{Deadline, Sleep};

use crate::{Caught, caught, machine};

/// What a thread is given to do.
pub type Job = Box<dyn FnOnce() + Send>;

/// How a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has nothing to do.
    Idle,
    /// It was interrupted.
    Interrupted,
    /// It sleeps until it is woken, or until this time.
    Asleep(Deadline),
}

struct Place {
    thread: Option<JoinHandle<()>>,
    job: Option<Job>,
    standing: Standing,
    woken: bool,
    /// What its last job came to, if it unwound.
    panic: Option<Caught>,
    ends: bool,
}

impl Place {
    const fn new() -> Self {
        let standing = Standing::Idle;
        Self { thread: None, job: None, standing, woken: false, panic: None, ends: false }
    }
}

struct Books {
    places: Vec<Place>,
    /// Whose turn it is; nobody's means the conductor's.
    turn: Option<usize>,
    clock: u64,
}

struct Shared {
    books: Mutex<Books>,
    handed_on: Condvar,
}

thread_local! {
    static MINE: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// The calling thread's place, if it takes turns.
fn mine() -> Option<(Arc<Shared>, usize)> {
    MINE.try_with(|mine| mine.borrow().clone()).ok().flatten()
}

impl Shared {
    /// Gives the turn back and waits for it.
    fn pass(&self, place: usize, standing: Standing) {
        let mut books = self.books.lock();
        books.places[place].standing = standing;
        books.turn = None;
        self.handed_on.notify_all();
        while books.turn != Some(place) {
            self.handed_on.wait(&mut books);
        }
    }
}

/// Gives the turn back, in the middle of something. Does nothing on a thread that takes no turns.
pub fn pause() {
    if let Some((shared, place)) = mine() {
        shared.pass(place, Standing::Interrupted);
    }
}

/// The threads, and whose turn it is. Whoever has this is the conductor.
pub struct Turns {
    shared: Arc<Shared>,
}

impl Turns {
    /// So many threads, each of which is there when it first gets something to do.
    pub fn new(threads: usize) -> Self {
        let places = (0..threads).map(|_| Place::new()).collect();
        let books = Mutex::new(Books { places, turn: None, clock: 0 });
        Self { shared: Arc::new(Shared { books, handed_on: Condvar::new() }) }
    }

    /// How these threads sleep.
    pub fn sleep(&self) -> TurnSleep {
        TurnSleep(Arc::clone(&self.shared))
    }

    /// How many there are.
    pub fn threads(&self) -> usize {
        self.shared.books.lock().places.len()
    }

    /// How a thread stands.
    pub fn standing(&self, thread: usize) -> Standing {
        self.shared.books.lock().places[thread].standing
    }

    /// Whether a thread can go on: it was interrupted, or sleeps and was woken, or its time has come.
    pub fn can_go_on(&self, thread: usize) -> bool {
        let books = self.shared.books.lock();
        let Place { standing, woken, .. } = &books.places[thread];
        match standing {
            Standing::Idle => false,
            Standing::Interrupted => true,
            Standing::Asleep(until) => *woken || until.passed(books.clock),
        }
    }

    /// The time passes by so much.
    pub fn tick(&self, by: u64) {
        self.shared.books.lock().clock += by;
    }

    /// Has an idle thread do something, until it gives the turn back.
    ///
    /// # Errors
    ///
    /// The panic with which it ended.
    ///
    /// # Panics
    ///
    /// If the thread is not idle.
    pub fn give(&self, thread: usize, job: Job) -> Result<(), Caught> {
        let mut books = self.shared.books.lock();
        let place = &mut books.places[thread];
        assert_eq!(place.standing, Standing::Idle, "thread {thread} is busy");
        place.job = Some(job);
        if place.thread.is_none() {
            place.ends = false;
            let shared = Arc::clone(&self.shared);
            place.thread = Some(std::thread::spawn(move || work(&shared, thread)));
        }
        drop(books);
        self.go_on(thread)
    }

    /// Has a thread go on, whether it can or not: a sleep may end for nothing.
    ///
    /// # Errors
    ///
    /// The panic with which its job ended.
    pub fn go_on(&self, thread: usize) -> Result<(), Caught> {
        let mut books = self.shared.books.lock();
        books.turn = Some(thread);
        self.shared.handed_on.notify_all();
        while books.turn.is_some() {
            self.shared.handed_on.wait(&mut books);
        }
        books.places[thread].panic.take().map_or(Ok(()), Err)
    }

    /// Has an idle thread end, thread-locals and all. There is another when it next gets something to do.
    ///
    /// # Panics
    ///
    /// If it is not idle, or a destructor of a thread-local unwinds.
    pub fn end(&self, thread: usize) {
        let mut books = self.shared.books.lock();
        let place = &mut books.places[thread];
        assert_eq!(place.standing, Standing::Idle, "thread {thread} is busy");
        let Some(handle) = place.thread.take() else { return };
        place.ends = true;
        books.turn = Some(thread);
        self.shared.handed_on.notify_all();
        drop(books);
        handle.join().expect("a thread ends in peace");
        self.shared.books.lock().turn = None;
    }
}

/// Threads that are idle end; what others were at stays as it is, for ever.
impl Drop for Turns {
    fn drop(&mut self) {
        for thread in 0..self.threads() {
            if self.standing(thread) == Standing::Idle && !std::thread::panicking() {
                self.end(thread);
            }
        }
    }
}

/// What each of the threads does.
fn work(shared: &Arc<Shared>, place: usize) {
    // First, so that they are there when destructors of what comes later run.
    machine::reset();
    MINE.with(|mine| *mine.borrow_mut() = Some((Arc::clone(shared), place)));
    loop {
        let mut books = shared.books.lock();
        while books.turn != Some(place) {
            shared.handed_on.wait(&mut books);
        }
        if books.places[place].ends {
            return;
        }
        let job = books.places[place].job.take();
        drop(books);
        let result = job.map_or(Ok(()), |job| caught(|| machine::while_interrupted(&pause, job)));
        let mut books = shared.books.lock();
        books.places[place].panic = result.err();
        books.places[place].standing = Standing::Idle;
        books.turn = None;
        shared.handed_on.notify_all();
    }
}

/// Sleeps by giving the turn back, on a clock that [`Turns::tick`] moves.
#[derive(Clone)]
pub struct TurnSleep(Arc<Shared>);

impl Sleep for TurnSleep {
    type Waker = usize;

    fn now(&self) -> u64 {
        self.0.books.lock().clock
    }

    fn waker(&self) -> usize {
        mine().map_or(usize::MAX, |(_, place)| place)
    }

    fn sleep(&self, until: Deadline) {
        machine::outside_locks("a caller sleeps");
        let (_, place) = mine().expect("the conductor does not sleep");
        let mut books = self.0.books.lock();
        let now = books.clock;
        if !std::mem::take(&mut books.places[place].woken) && !until.passed(now) {
            drop(books);
            self.0.pass(place, Standing::Asleep(until));
            self.0.books.lock().places[place].woken = false;
        }
    }

    fn wake(&self, waker: &usize) {
        machine::outside_locks("a caller is woken");
        // A thread that has ended since is woken for nothing, and so is the one in its place.
        if let Some(place) = self.0.books.lock().places.get_mut(*waker) {
            place.woken = true;
        }
    }
}
