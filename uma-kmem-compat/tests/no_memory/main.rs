//! Without memory for books the faces fail as the originals do, and lose nothing.
//!
//! Each face is a short story of C calls that make, use and end everything that it has. A process is forked for
//! every allocation of that story from the global allocator: there, this one fails, or this and all after it. What
//! comes back is null or an error, and whoever sees one goes on without. Then the story is told twice with memory, and
//! must come to its end, with nothing in use, no zone left, and not a block more than where all went well. The same for
//! calls of a constructor, which refuses: the first ones, and some later.
#![cfg(all(
    feature = "capi",
    feature = "solaris",
    feature = "umem",
    feature = "linux",
    feature = "netbsd",
    feature = "freebsd",
    target_os = "linux"
))]

mod failing;
mod freebsd;
mod hooks;
mod linux;
mod netbsd;
mod solaris;
mod story;
mod umem;

use uma_kmem_compat as _;
