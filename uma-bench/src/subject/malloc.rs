//! The mallocs, each through its own functions.

use crate::subject::{Block, Subject};

/// A unit struct per malloc, generic over the size, and its two functions.
macro_rules! malloc {
    ($(#[$what:meta])* $name:ident, $alloc:expr, $free:expr $(,)?) => {
        $(#[$what])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name<const N: usize>;

        // SAFETY: it is a malloc.
        unsafe impl<const N: usize> Subject for $name<N> {
            type Held = Block;

            #[inline(always)]
            fn take(self) -> Block {
                // SAFETY: all these functions may be called with any size at any time, and return
                // memory that is aligned for words, or null.
                unsafe {
                    let pointer: *mut libc::c_void = $alloc(N);
                    Block::returned(pointer.cast())
                }
            }

            #[inline(always)]
            fn write(held: &mut Block, word: u64) {
                held.write(word);
            }

            #[inline(always)]
            unsafe fn free(self, held: Block) {
                let pointer: *mut libc::c_void = held.0.as_ptr().cast();
                // SAFETY: the pointer came from the function's counterpart, says the caller.
                unsafe { $free(pointer, N) }
            }

        fn block(held: &Block) -> Option<Block> {
            Some(*held)
        }
        }
    };
}

/// Size classes in zones, in a static.
static HEAP: uma_malloc::Malloc =
    uma_malloc::Malloc::new("bench", uma_malloc::SizeClasses::GENERAL);

/// What a malloc on them would be: two functions that are not inlined.
#[inline(never)]
extern "C" fn heap_alloc(size: usize) -> *mut libc::c_void {
    HEAP.alloc_or_null(size, uma_malloc::Request::NOWAIT).cast()
}

/// # Safety
///
/// The memory came from the function above.
#[inline(never)]
unsafe extern "C" fn heap_free(at: *mut libc::c_void) {
    if let Some(at) = std::ptr::NonNull::new(at.cast()) {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.free(at) }
    }
}

malloc!(
    /// Zones of size classes, called as from C.
    UmaMalloc,
    heap_alloc,
    |pointer, _| heap_free(pointer),
);

malloc!(
    /// The malloc of the C library.
    System,
    libc::malloc,
    |pointer, _| libc::free(pointer),
);

#[cfg(feature = "mimalloc")]
malloc!(
    /// mimalloc.
    Mimalloc,
    libmimalloc_sys::mi_malloc,
    |pointer, _| libmimalloc_sys::mi_free(pointer),
);

#[cfg(feature = "jemalloc")]
malloc!(
    /// jemalloc.
    Jemalloc,
    tikv_jemalloc_sys::malloc,
    |pointer, _| tikv_jemalloc_sys::free(pointer),
);

#[cfg(feature = "rpmalloc")]
malloc!(
    /// rpmalloc.
    Rpmalloc,
    rpmalloc_sys::rpmalloc,
    |pointer, _| rpmalloc_sys::rpfree(pointer),
);

#[cfg(feature = "snmalloc")]
malloc!(
    /// snmalloc, through the functions that its Rust crate uses.
    Snmalloc,
    |size| snmalloc_sys::sn_rust_alloc(8, size).cast(),
    |pointer: *mut libc::c_void, size| {
        snmalloc_sys::sn_rust_dealloc(pointer.cast(), 8, size);
    },
);

/// What some mallocs want to know at the beginning of a thread.
pub(crate) fn thread_begins() {
    #[cfg(feature = "rpmalloc")]
    // SAFETY: both may be called at any time, also again.
    unsafe {
        rpmalloc_sys::rpmalloc_initialize();
        rpmalloc_sys::rpmalloc_thread_initialize();
    }
}

/// The version that was built, where the library tells.
pub(crate) fn version(name: &str) -> Option<String> {
    match name {
        #[cfg(feature = "mimalloc")]
        "mimalloc" => {
            // SAFETY: it takes nothing and returns a constant.
            let version = unsafe { libmimalloc_sys::mi_version() };
            // 30203 is 3.2.3; older ones have one digit for each part.
            Some(if version > 9999 {
                format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
            } else {
                format!("{}.{}.{}", version / 1000, version / 100 % 10, version % 100)
            })
        }
        #[cfg(feature = "jemalloc")]
        "jemalloc" => {
            let mut text: *const libc::c_char = std::ptr::null();
            let mut size = size_of_val(&text);
            // SAFETY: the name is a C string, and `version` is of the type that is read.
            unsafe {
                tikv_jemalloc_sys::mallctl(
                    c"version".as_ptr(),
                    (&raw mut text).cast(),
                    &raw mut size,
                    std::ptr::null_mut(),
                    0,
                );
                (!text.is_null())
                    .then(|| std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        }
        #[cfg(target_env = "gnu")]
        "system" => {
            // SAFETY: it returns a C string that stays.
            let text = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
            Some(format!("glibc {}", text.to_string_lossy()))
        }
        _ => None,
    }
}

/// Whether a peer was compiled in.
pub(crate) fn is_there(name: &str) -> bool {
    let features = [
        ("mimalloc", cfg!(feature = "mimalloc")),
        ("jemalloc", cfg!(feature = "jemalloc")),
        ("rpmalloc", cfg!(feature = "rpmalloc")),
        ("snmalloc", cfg!(feature = "snmalloc")),
        ("opool", cfg!(feature = "pools")),
        ("lockfree-object-pool", cfg!(feature = "pools")),
        ("sharded-slab", cfg!(feature = "pools")),
        ("slab-in-mutex", cfg!(feature = "pools")),
        ("infinity_pool", cfg!(feature = "pools")),
    ];
    features.into_iter().all(|(feature, on)| feature != name || on)
}

/// Asks a malloc to give back what it can.
pub(crate) fn give_back(name: &str) {
    match name {
        "uma-malloc" => HEAP.reclaim(uma_malloc::Reclaim::DrainCpu),
        // SAFETY: it may be called at any time.
        #[cfg(target_env = "gnu")]
        "system" => unsafe {
            libc::malloc_trim(0);
        },
        // SAFETY: it may be called at any time.
        #[cfg(feature = "mimalloc")]
        "mimalloc" => unsafe { libmimalloc_sys::mi_collect(true) },
        #[cfg(feature = "jemalloc")]
        "jemalloc" => {
            for name in [c"thread.tcache.flush", c"arena.4096.decay", c"arena.4096.purge"] {
                let null = std::ptr::null_mut();
                // SAFETY: these take and return nothing; 4096 stands for all arenas.
                unsafe {
                    tikv_jemalloc_sys::mallctl(name.as_ptr(), null, null.cast(), null, 0);
                }
            }
        }
        // SAFETY: the thread was announced, see `thread_begins`.
        #[cfg(feature = "rpmalloc")]
        "rpmalloc" => unsafe { rpmalloc_sys::rpmalloc_thread_collect() },
        // snmalloc has no such function.
        _ => {}
    }
}
