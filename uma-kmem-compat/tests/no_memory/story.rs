//! How a story is told: once for each failure, in a process of its own, and then with memory again.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::failing::{BLOCKS, FAILED, LEFT, MOST, SHOWN};
use crate::hooks::{CONSTRUCTED, PATIENCE, REFUSED};

unsafe extern "C" {
    fn uma_compat_set_policy(key: *const c_char, value: *const c_char) -> c_int;
    fn uma_compat_set_reporter(reporter: Option<extern "C-unwind" fn(*const c_char)>);
}

pub(crate) fn policy(key: &CStr, value: &CStr) {
    // SAFETY: both are strings.
    let set = unsafe { uma_compat_set_policy(key.as_ptr(), value.as_ptr()) };
    assert_eq!(set, 0, "{key:?}");
}

extern "C-unwind" fn silent(_: *const c_char) {}

/// What a story has in use at its end.
pub(crate) type Used = fn() -> u64;

/// How a story of a face was told: whether it came to its end.
pub(crate) struct Told(bool);

impl Told {
    /// Something that may be missing.
    pub(crate) fn is<T>(&mut self, at: *mut T) -> bool {
        self.so(!at.is_null())
    }

    pub(crate) fn so(&mut self, so: bool) -> bool {
        self.0 &= so;
        so
    }

    /// Takes so many objects, of which any may be missing, and gives them back.
    pub(crate) fn round<const COUNT: usize>(
        &mut self,
        take: impl Fn() -> *mut c_void,
        give: impl Fn(*mut c_void),
    ) {
        let all = [(); COUNT].map(|()| take());
        for object in all {
            if self.is(object) {
                give(object);
            }
        }
    }
}

/// In a child: says what went wrong, and ends.
pub(crate) fn end(what: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "no_memory: {what}");
    // SAFETY: it ends the process.
    unsafe { libc::_exit(1) }
}

/// Runs `body` in a copy of the process. Returns the number that it ends with, or `None` if it does not end well.
pub(crate) fn child(body: impl FnOnce() -> u8) -> Option<u8> {
    // SAFETY: the library was not used here, and this test has no other thread that does.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        std::panic::set_hook(Box::new(|panic| end(&panic.to_string())));
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain numbers; and a process that hangs is ended.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::alarm(60);
            if !SHOWN.load(Ordering::Relaxed) {
                uma_compat_set_reporter(Some(silent));
            }
        }
        let said = body();
        // SAFETY: it ends the process.
        unsafe { libc::_exit(100 + i32::from(said)) }
    }
    let mut status = 0;
    // SAFETY: it is our child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let ended = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) >= 100;
    ended.then(|| (libc::WEXITSTATUS(status) - 100) as u8)
}

/// Tells the story twice with memory. Returns how many blocks there are then.
fn twice(story: fn(&mut Told), used: Used) -> i64 {
    for _ in 0..2 {
        let mut told = Told(true);
        story(&mut told);
        if !told.0 {
            end("with memory again, it fails");
        }
    }
    if used() != 0 {
        end(&format!("{} are still in use", used()));
    }
    let zones = uma::zones();
    if let Some(zone) = zones.iter().find(|zone| zone.name.as_str().starts_with("story")) {
        end(&format!("zone \"{}\" is left", zone.name));
    }
    let constructed = CONSTRUCTED.load(Ordering::Relaxed);
    if constructed != 0 {
        end(&format!("{constructed} objects were not taken apart"));
    }
    drop(zones);
    BLOCKS.load(Ordering::Relaxed)
}

const BEGIN: &str = "UMA_TEST_ALLOCATION";

/// The tests take turns: forks are copies of one thread.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn every_failure(prepare: fn(), story: fn(&mut Told), used: Used) {
    let _turn = turn();
    let picked: Option<i64> = std::env::var(BEGIN).ok().and_then(|wish| wish.parse().ok());
    SHOWN.store(picked.is_some(), Ordering::Relaxed);
    // How many blocks there are if nothing fails, by a pipe of one number.
    let mut ends = [0; 2];
    // SAFETY: there is room for two numbers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let [from, to] = ends;
    let base = child(|| {
        // In the child nobody else allocates.
        let before = BLOCKS.load(Ordering::Relaxed);
        prepare();
        let mut told = Told(true);
        story(&mut told);
        if !told.0 {
            end("it fails at once");
        }
        let blocks = (twice(story, used) - before).to_ne_bytes();
        // SAFETY: the pipe has room for 8 bytes.
        unsafe { libc::write(to, blocks.as_ptr().cast(), blocks.len()) };
        0
    });
    assert_eq!(base, Some(0));
    let mut blocks = [0; 8];
    // SAFETY: they were written before the child ended; there is room.
    assert_eq!(unsafe { libc::read(from, blocks.as_mut_ptr().cast(), 8) }, 8);
    let base = i64::from_ne_bytes(blocks);
    let mut counts = [0; 3];
    for (kind, count) in counts.iter_mut().enumerate() {
        let first = picked.unwrap_or(0);
        // Constructors are called often, and in the end always for the same.
        for at in (first..).filter(|at| kind != 2 || *at < 30 || at % 29 == 0) {
            let said = child(|| {
                let before = BLOCKS.load(Ordering::Relaxed);
                prepare();
                let mut told = Told(true);
                if kind == 2 {
                    PATIENCE.store(at, Ordering::Relaxed);
                } else {
                    MOST.set(if kind == 1 { u64::MAX } else { 1 });
                    LEFT.set(at);
                }
                story(&mut told);
                LEFT.set(-1);
                PATIENCE.store(-1, Ordering::Relaxed);
                let failed = FAILED.get() + REFUSED.load(Ordering::Relaxed);
                let blocks = twice(story, used) - before;
                if blocks > base {
                    end(&format!("{} blocks were lost", blocks - base));
                }
                u8::from(failed != 0)
            });
            let how = ["one failed", "all failed from there", "a constructor refused"][kind];
            let said = said.unwrap_or_else(|| {
                panic!("number {at}, {how}: it did not end well ({BEGIN}={at} shows where)")
            });
            if said == 0 || picked.is_some() {
                break;
            }
            *count += 1;
        }
    }
    // SAFETY: they are ours.
    unsafe { (libc::close(from), libc::close(to)) };
    if picked.is_none() {
        assert!(counts[0] >= 5 && counts[1] == counts[0], "nothing was to fail: {counts:?}");
        let [one, _, refused] = counts;
        let line = format!("no_memory: {one} allocations, {refused} calls of constructors\n");
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
}
