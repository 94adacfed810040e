//! Registers all memory that page runs lie in with the kernel (io_uring's registered buffers), and reads
//! a file into a run: the kernel need not look up and pin its pages for each operation.
//!
//! ```text
//! cargo run -p uma-backend-mmap --example register
//! ```
//!
//! It runs anywhere, and says so where there is no io_uring.

use std::alloc::Layout;
use std::error::Error;

use uma_backend_mmap::{Config, MmapPages};
use uma_core::{PageRun, PageSupplier, Region, Regions, Request};

/// Small chunks: what is registered is pinned, all of it, and counts against `RLIMIT_MEMLOCK`.
static PAGES: MmapPages = MmapPages::with_config(Config::DEFAULT.chunks(1 << 20, 1 << 20));

/// The regions as they were at one moment.
struct Registered {
    generation: u64,
    regions: Vec<Region>,
}

impl Registered {
    /// All regions there are. Whoever registers them does it once, and again when the generation is
    /// another.
    fn now(pages: &impl Regions) -> Self {
        let generation = pages.generation();
        let mut regions = Vec::new();
        pages.visit_regions(&mut |region| regions.push(region));
        Self { generation, regions }
    }

    /// Whether they are still all.
    fn is_current(&self, pages: &impl Regions) -> bool {
        self.generation == pages.generation()
    }

    /// The number of the region that a run lies in, as the kernel numbers them.
    fn index_of(&self, run: &PageRun) -> Option<usize> {
        let (at, len) = (run.base().as_ptr(), run.layout().size());
        self.regions.iter().position(|region| region.contains(at, len))
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let layout = Layout::from_size_align(64 << 10, 64 << 10)?;
    let run = PAGES.alloc_pages(layout, Request::NOWAIT)?;
    let registered = Registered::now(&PAGES);
    for (index, Region { base, len }) in registered.regions.iter().enumerate() {
        println!("region {index}: {} KiB at {:p}", len >> 10, base.as_ptr());
    }
    let index = registered.index_of(&run).ok_or("a run lies in no region")?;
    println!("the run at {:p} lies in region {index}", run.base());

    match ring::read(&registered.regions, index, &run) {
        Ok(bytes) => println!("read {bytes} bytes by io_uring into the registered region"),
        Err(error) => println!("no io_uring for us here: {error}"),
    }

    // As long as no chunk comes or goes, what was registered holds for every run.
    let more = PAGES.alloc_pages(layout, Request::NOWAIT)?;
    println!("another run, register again: {}", !registered.is_current(&PAGES));
    let large = PAGES.alloc_pages(Layout::from_size_align(4 << 20, 4096)?, Request::NOWAIT)?;
    println!("one that needed a chunk, register again: {}", !registered.is_current(&PAGES));
    let registered = Registered::now(&PAGES);
    assert!([&run, &more, &large].iter().all(|run| registered.index_of(run).is_some()));

    for run in [run, more, large] {
        // SAFETY: whole runs of this supplier, which the kernel has let go of.
        unsafe { PAGES.free_pages(run) }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod ring {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;

    use io_uring::{IoUring, opcode, types};
    use uma_core::{PageRun, Region};

    /// Reads the beginning of this program into a run that lies in the region `index`. Returns how
    /// many bytes.
    pub(super) fn read(regions: &[Region], index: usize, run: &PageRun) -> io::Result<usize> {
        let mut ring = IoUring::new(2)?;
        let buffers: Vec<libc::iovec> = regions
            .iter()
            .map(|region| libc::iovec {
                iov_base: region.base.as_ptr().cast(),
                iov_len: region.len,
            })
            .collect();
        // SAFETY: the regions stay mapped while a run in them is live, and `run` is in the one that is
        // used. The kernel holds the others' memory itself.
        unsafe { ring.submitter().register_buffers(&buffers)? };
        let file = File::open(std::env::current_exe()?)?;
        let (at, len) = (run.base().as_ptr(), run.layout().size() as u32);
        let entry = opcode::ReadFixed::new(types::Fd(file.as_raw_fd()), at, len, index as u16);
        // SAFETY: file and run outlive the operation, which is waited for below; nobody else uses the run.
        unsafe { ring.submission().push(&entry.build()) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        let done = ring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?;
        if done.result() < 0 {
            return Err(io::Error::from_raw_os_error(-done.result()));
        }
        Ok(done.result() as usize)
    }
}

#[cfg(not(target_os = "linux"))]
mod ring {
    use std::io;

    use uma_core::{PageRun, Region};

    pub(super) fn read(_: &[Region], _: usize, _: &PageRun) -> io::Result<usize> {
        Err(io::Error::other("this is not Linux"))
    }
}
