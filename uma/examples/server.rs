//! Zones in a server: rows and pages of a table, connections that are bounded and stay set up, a budget for
//! queries, and a test that lets memory run out at every point.
//!
//! ```sh
//! cargo run -p uma --example server
//! cargo test -p uma --example server
//! ```
//!
//! The server is generic over its [`Platform`], so that a test can put other pages below it; a program that
//! does not want this leaves out `P` and uses `Zone::builder` for `Zone::builder_in`.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use uma::{Host, ObjectCache, ObjectHooks, Platform, Reclaim, Refused, Zone, ZoneBox, ZoneError};

/// How many clients are served at once.
const CLIENTS: u64 = 2;

/// How long a client waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);

struct Row {
    key: u64,
    text: [u8; 120],
}

/// The zone of a table's rows is made before the table and lives longer, so rows are boxes that borrow it. For
/// other ways see "How long values live" at [`Zone`].
struct Table<'z, P: Platform> {
    rows: Mutex<HashMap<u64, ZoneBox<'z, Row, P>>>,
    zone: &'z Zone<Row, P>,
}

impl<'z, P: Platform> Table<'z, P> {
    fn new(zone: &'z Zone<Row, P>) -> Self {
        Self { rows: Mutex::default(), zone }
    }

    /// Fails without a change if there is no memory.
    fn put(&self, row: Row) -> Result<(), ZoneError> {
        // The error of `alloc` also has the row, for those who want it back; `?` passes on the reason alone.
        let row = self.zone.alloc(row)?;
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).insert(row.key, row);
        Ok(())
    }

    fn text(&self, key: u64) -> Option<String> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let text = &rows.get(&key)?.text;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').into())
    }

    fn len(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What serves one client: costly to set up, the same after every use.
#[derive(Debug)]
struct Connection {
    input: Vec<u8>,
    served: u64,
}

/// How connections are made. It has a field that is known at run time only; without one, closures given to the
/// builder's `init`, `ctor` and `dtor` would do.
#[derive(Clone)]
struct Connecting {
    buffer: usize,
}

impl ObjectHooks<Connection> for Connecting {
    /// Once, when memory enters the cache.
    fn init(&self) -> Result<Connection, Refused> {
        let mut input = Vec::new();
        input.try_reserve_exact(self.buffer).map_err(|_| Refused)?;
        Ok(Connection { input, served: 0 })
    }

    /// After every use. What is not reset, here the count, stays.
    fn dtor(&self, connection: &mut Connection) {
        connection.input.clear();
    }
}

type Connections<P> = ObjectCache<Connection, Connecting, P>;

fn connections<P: Platform>(platform: P) -> Result<Connections<P>, uma::ConfigError> {
    ObjectCache::builder_in("connection", platform)
        .hooks(Connecting { buffer: 64 << 10 })
        .bucket(1) // one at a time: each owns much memory that the zone does not see
        .max_items(CLIENTS)
        .build()
}

/// Serves one client, as soon as fewer than [`CLIENTS`] are served.
fn serve<P: Platform>(
    client: u64,
    connections: &Connections<P>,
    table: &Table<'_, P>,
) -> Result<u64, ZoneError> {
    let mut connection = connections.get_for(PATIENCE)?;
    connection.input.extend_from_slice(format!("put {client}").as_bytes());
    let mut text = [0; 120];
    text[..connection.input.len()].copy_from_slice(&connection.input);
    table.put(Row { key: client, text })?;
    connection.served += 1;
    Ok(connection.served)
}

fn main() -> Result<(), Box<dyn Error>> {
    let zone = Zone::<Row>::builder("row").build()?;
    let table = Table::new(&zone);
    let connections = connections(Host)?;

    std::thread::scope(|threads| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                threads.spawn({
                    let (connections, table) = (&connections, &table);
                    move || serve(client, connections, table)
                })
            })
            .collect();
        for client in clients {
            // It says which zone, for what size, and why.
            match client.join().expect("no client panics") {
                Ok(served) => println!("a connection has served {served}"),
                Err(error) => println!("a client was not served: {error}"),
            }
        }
    });
    println!("{} rows; the last says {:?}", table.len(), table.text(7));

    // Queries share a budget in bytes, whatever zones they allocate from.
    static QUERIES: uma::ZoneGroup =
        uma::ZoneGroup::new("queries", NonZeroU64::new(1 << 20), uma::Park);
    let pages = Zone::<[u8; 4096]>::builder("query page").group(&QUERIES).build()?;
    let mut sorted = Vec::new();
    let error = loop {
        match pages.try_alloc([0; 4096]) {
            Ok(page) => sorted.push(page),
            Err(rejected) => break rejected.error,
        }
    };
    println!("{} pages for one query, then: {error}", sorted.len());

    println!("{}", uma::stat()); // for an operator; `.json()` and `.prometheus()` for machines
    drop(sorted);
    uma::reclaim(Reclaim::Drain); // on memory pressure; `uma::Maintenance` does it from time to time
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;
    use std::sync::atomic::{AtomicU64, Ordering};

    use uma::core::{PageError, PageRun, PageSupplier};
    use uma::mmap::MmapPages;
    use uma::{AllocError, Hardening, Request, WithPages};

    use super::*;

    /// Pages of the system's, but only so many runs.
    struct Failing {
        system: MmapPages,
        left: AtomicU64,
    }

    // SAFETY: runs are those of `system`, which keeps the contract.
    unsafe impl PageSupplier for Failing {
        fn page_size(&self) -> usize {
            self.system.page_size()
        }

        fn alloc_pages(&self, layout: Layout, request: Request) -> Result<PageRun, PageError> {
            self.left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .map_err(|_| PageError::Exhausted)?;
            self.system.alloc_pages(layout, request)
        }

        unsafe fn free_pages(&self, run: PageRun) {
            // SAFETY: the run came from there.
            unsafe { self.system.free_pages(run) }
        }
    }

    static PAGES: Failing = Failing { system: MmapPages::new(), left: AtomicU64::new(0) };

    /// The server on pages that run out after `runs` runs, with all checks on.
    #[test]
    fn nothing_is_lost_where_memory_runs_out() {
        let platform = WithPages::new(Host, &PAGES);
        for runs in 0..8 {
            PAGES.left.store(runs, Ordering::Relaxed);
            let zone =
                Zone::builder_in("row", platform).hardening(Hardening::DEBUG).build().unwrap();
            let table = Table::new(&zone);
            let connections = connections(platform).unwrap();
            let failed = (0..).find_map(|key| serve(key, &connections, &table).err());
            let failed = failed.expect("no memory for ever");
            assert_eq!(failed.reason(), AllocError::Pages(PageError::Exhausted), "{failed}");
            assert_eq!(zone.cur_items(), table.len() as u64);
            assert_eq!(connections.cur_items(), 0);
            drop(table);
            assert_eq!(zone.cur_items(), 0);
        }
    }

    #[test]
    fn clients_beyond_the_limit_are_told_so() {
        let connections = connections(Host).unwrap();
        let held: Vec<_> = (0..CLIENTS).map(|_| connections.get().unwrap()).collect();
        let error = connections.get_for(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.reason(), AllocError::TimedOut);
        drop(held);
        assert!(connections.try_get().is_ok());
    }
}
