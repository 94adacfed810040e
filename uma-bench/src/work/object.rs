//! An object of 640 bytes with a mutex and a vector: kept constructed in a cache, or constructed for
//! each use in memory from a malloc, as is the vector's buffer. Each use locks, changes the object and
//! adds two elements to the vector.

use std::ptr::NonNull;

use uma::ObjectCache;

use crate::rounds::Contest;
use crate::subject::{self, Block, Subject, out_of_memory};
use crate::sync::Mutex;
use crate::team::Member;
use crate::work::Bench;

const SIZE: usize = 640;
const BUFFER: usize = 256;
const USES: u64 = 50_000;

/// The object. The vector is written out, so that its buffer can come from any malloc.
struct Object {
    lock: Mutex<u64>,
    elements: NonNull<u64>,
    count: usize,
    room: usize,
    state: [u64; 75],
}

const _: () = assert!(size_of::<Object>() == SIZE);

// SAFETY: the object owns its buffer.
unsafe impl Send for Object {}

impl Object {
    fn new(buffer: Block) -> Self {
        let (elements, room) = (buffer.0.cast(), BUFFER / size_of::<u64>());
        Self { lock: Mutex::new(0), elements, count: 0, room, state: [0; 75] }
    }

    /// What a user does.
    #[inline(always)]
    fn serve(&mut self, word: u64) {
        if let Ok(mut value) = self.lock.lock() {
            *value = word;
        }
        for element in [word, word + 1] {
            if self.count < self.room {
                // SAFETY: the index is below the room in the buffer.
                unsafe { self.elements.add(self.count).write_volatile(element) };
                self.count += 1;
            }
        }
        let state = &mut self.state[word as usize % 75];
        *state = state.wrapping_add(word);
    }

    /// Makes it as it was.
    fn clear(&mut self) {
        self.count = 0;
    }
}

pub(crate) fn run(bench: &mut Bench) {
    for threads in bench.threads.clone() {
        let mut contest = Contest::new(threads);
        contest.lane("uma", cached);
        contest.lane("system", |member| {
            constructed(subject::System::<SIZE>, subject::System::<BUFFER>, member)
        });
        #[cfg(feature = "mimalloc")]
        contest.lane("mimalloc", |member| {
            constructed(subject::Mimalloc::<SIZE>, subject::Mimalloc::<BUFFER>, member)
        });
        #[cfg(feature = "pools")]
        contest.lane("opool", pooled);
        let begin = |_: &Member| Object::new(subject::System::<BUFFER>.alloc(0));
        contest.lane_with("limit", begin, kept, drop);
        let figures = contest.run(&mut bench.team, bench.rounds);
        bench.keep("object with mutex and vector", SIZE, threads, "ns", figures);
    }
}

fn time(member: &Member, work: impl Fn(u64)) -> f64 {
    (0..USES / 10).for_each(&work);
    member.time(|| (0..USES).for_each(&work)).as_nanos() as f64 / USES as f64
}

/// Kept by uma.
fn cached(member: &Member) -> f64 {
    static CACHE: crate::sync::OnceLock<ObjectCache<Object>> = crate::sync::OnceLock::new();
    let make = || {
        ObjectCache::<Object>::builder("object")
            .init(|| Object::new(subject::System::<BUFFER>.alloc(0)))
            .dtor(Object::clear)
            .build()
            .unwrap_or_else(|_| out_of_memory())
    };
    let cache = CACHE.get_or_init(make);
    time(member, |word| match cache.try_get() {
        Ok(mut object) => object.serve(word),
        Err(_) => out_of_memory(),
    })
}

/// The least: one object that nobody else can get, used again and again. (Its buffer is leaked.)
fn kept(object: &mut Object, member: &Member) -> f64 {
    let object = crate::sync::Cell::from_mut(object).as_ptr();
    time(member, |word| {
        // SAFETY: the object is this thread's, and nothing else refers to it during the call.
        let object = unsafe { &mut *std::hint::black_box(object) };
        object.serve(word);
        object.clear();
    })
}

/// Constructed for each use.
fn constructed(
    objects: impl Subject<Held = Block>,
    buffers: impl Subject<Held = Block>,
    member: &Member,
) -> f64 {
    time(member, |word| {
        let memory = objects.alloc(0);
        let at = memory.0.cast::<Object>();
        // SAFETY: the memory is ours and of the size of an object; all mallocs align to 8 bytes at
        // least, which is its alignment. What was written is dropped before it is freed, and the
        // buffer is one of these.
        unsafe {
            at.write(Object::new(buffers.alloc(0)));
            (*at.as_ptr()).serve(word);
            let buffer = Block((*at.as_ptr()).elements.cast());
            at.drop_in_place();
            buffers.free(buffer);
            objects.free(memory);
        }
    })
}

/// Kept by opool.
#[cfg(feature = "pools")]
fn pooled(member: &Member) -> f64 {
    struct Objects;
    impl opool::PoolAllocator<Box<Object>> for Objects {
        fn allocate(&self) -> Box<Object> {
            Box::new(Object::new(subject::System::<BUFFER>.alloc(0)))
        }
        fn reset(&self, object: &mut Box<Object>) {
            object.clear();
        }
    }
    static POOL: crate::sync::OnceLock<opool::Pool<Objects, Box<Object>>> =
        crate::sync::OnceLock::new();
    let pool = POOL.get_or_init(|| opool::Pool::new(64, Objects));
    time(member, |word| pool.get().serve(word))
}
