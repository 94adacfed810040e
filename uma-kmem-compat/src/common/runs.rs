//! Runs of pages that nobody uses just now.
//!
//! What comes back must find room here, for it has nowhere else to go: pages that somebody may look at. So there is
//! room for a run before it is handed out ([`promise`](Runs::promise)), and a free needs no memory.
//!
//! ```text
//!   | here, marked ... | here ..... | room for what is promised ... |     the list
//! ```
//!
//! Who has to wait before runs may go marks them first, and takes those with his mark afterwards: what
//! came meanwhile, or was taken and came back, is not among them.
//!
//! The lock is a leaf, and one of those that forks take.

use core::alloc::Layout;

use uma::core::PageRun;

use super::fork::{Guard, Lock};
use super::memory::NoMemory;

#[derive(Debug)]
pub(crate) struct Runs(Lock<List>);

#[derive(Debug)]
struct List {
    /// Each with its mark, or 0. There is room for `promised` more.
    here: Vec<(PageRun, u64)>,
    promised: usize,
    marks: u64,
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self(Lock::new(List { here: Vec::new(), promised: 0, marks: 0 }))
    }

    fn list(&self) -> Guard<'_, List> {
        self.0.lock()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.list().here.len()
    }

    /// How many there are without a mark.
    pub(crate) fn unmarked(&self) -> usize {
        self.list().here.iter().filter(|(_, mark)| *mark == 0).count()
    }

    /// Sees to it that a run that is about to be handed out can come back.
    pub(crate) fn promise(&self) -> Result<(), NoMemory> {
        let mut list = self.list();
        let more = list.promised + 1;
        list.here.try_reserve(more).map_err(|_| NoMemory)?;
        list.promised = more;
        Ok(())
    }

    /// A run for which there is room does not come back, or was not to be had.
    pub(crate) fn release(&self) {
        self.list().promised -= 1;
    }

    /// A run comes back, as was promised.
    pub(crate) fn push(&self, run: PageRun) {
        let mut list = self.list();
        list.promised = list.promised.saturating_sub(1);
        list.here.push((run, 0));
    }

    /// Takes a run for which nothing was promised, if there is memory for it.
    pub(crate) fn offer(&self, run: PageRun) -> Result<(), PageRun> {
        let mut list = self.list();
        let more = list.promised + 1;
        if list.here.try_reserve(more).is_err() {
            return Err(run);
        }
        list.here.push((run, 0));
        Ok(())
    }

    /// A run of this layout, if there is one. It does not come back.
    pub(crate) fn find(&self, layout: Layout) -> Option<PageRun> {
        let mut list = self.list();
        let place = list.here.iter().rposition(|(run, _)| run.layout() == layout)?;
        Some(list.here.swap_remove(place).0)
    }

    /// The same, for one that comes back.
    pub(crate) fn find_promised(&self, layout: Layout) -> Option<PageRun> {
        let mut list = self.list();
        let place = list.here.iter().rposition(|(run, _)| run.layout() == layout)?;
        list.promised += 1;
        Some(list.here.swap_remove(place).0)
    }

    /// Whether there is a run of this layout.
    pub(crate) fn has(&self, layout: Layout) -> bool {
        self.list().here.iter().any(|(run, _)| run.layout() == layout)
    }

    /// Takes any.
    pub(crate) fn pop(&self) -> Option<PageRun> {
        self.list().here.pop().map(|(run, _)| run)
    }

    /// Marks those that have no mark yet. `None` if there are none.
    pub(crate) fn mark(&self) -> Option<u64> {
        let mut list = self.list();
        let mark = list.marks + 1;
        let mut marked = None;
        for (_, place) in list.here.iter_mut().filter(|(_, place)| *place == 0) {
            (*place, marked) = (mark, Some(mark));
        }
        list.marks = marked.unwrap_or(list.marks);
        marked
    }

    /// Takes one with this mark.
    pub(crate) fn pop_marked(&self, mark: u64) -> Option<PageRun> {
        let mut list = self.list();
        let place = list.here.iter().rposition(|(_, has)| *has == mark)?;
        Some(list.here.swap_remove(place).0)
    }

    /// Those that are left with this mark have none.
    pub(crate) fn unmark(&self, mark: u64) {
        let mut list = self.list();
        list.here.iter_mut().filter(|(_, has)| *has == mark).for_each(|(_, has)| *has = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::{self, NonNull};

    fn run(at: usize, bytes: usize) -> PageRun {
        let base = NonNull::new(ptr::without_provenance_mut(at * 4096)).unwrap();
        // SAFETY: nobody follows it.
        unsafe {
            PageRun::from_parts(base, Layout::from_size_align(bytes, 4096).unwrap(), false, 7)
        }
    }

    fn all(runs: &Runs) -> Vec<usize> {
        let mut all: Vec<_> = core::iter::from_fn(|| runs.pop()).map(|run| page(&run)).collect();
        all.sort_unstable();
        all
    }

    fn page(run: &PageRun) -> usize {
        run.base().addr().get() / 4096
    }

    #[test]
    fn the_others_stay_wherever_one_is_found() {
        for place in 0..5 {
            let runs = Runs::new();
            for at in 0..5 {
                let bytes = if at == place { 8192 } else { 4096 };
                assert!(runs.offer(run(at + 1, bytes)).is_ok());
            }
            let two = Layout::from_size_align(8192, 4096).unwrap();
            let found = runs.find(two).unwrap();
            assert_eq!((page(&found), found.flag()), (place + 1, 7));
            assert!(runs.find(two).is_none() && !runs.has(two));
            assert_eq!(runs.count(), 4);
            assert_eq!(all(&runs), (1..=5).filter(|at| *at != place + 1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_promised_finds_room() {
        let runs = Runs::new();
        (0..100).for_each(|_| runs.promise().unwrap());
        assert!(runs.offer(run(200, 4096)).is_ok());
        let room = runs.list().here.capacity();
        assert!(room > 100);
        (1..=60).for_each(|at| runs.push(run(at, 4096)));
        let again = runs.find_promised(run(1, 4096).layout()).unwrap();
        runs.push(again);
        (61..=100).for_each(|at| runs.push(run(at, 4096)));
        let list = runs.list();
        assert_eq!((list.here.capacity(), list.here.len(), list.promised), (room, 101, 0));
    }

    #[test]
    fn what_comes_after_a_mark_has_none() {
        let runs = Runs::new();
        assert_eq!(runs.mark(), None);
        (1..=4).for_each(|at| assert!(runs.offer(run(at, 4096)).is_ok()));
        let first = runs.mark().unwrap();
        assert_eq!(runs.mark(), None);
        // One is taken, and comes back.
        let again = runs.find_promised(run(1, 4096).layout()).unwrap();
        let back = page(&again);
        runs.push(again);
        assert_eq!(runs.unmarked(), 1);
        let second = runs.mark().unwrap();
        let gone: Vec<_> = core::iter::from_fn(|| runs.pop_marked(first)).collect();
        assert_eq!(gone.len(), 3);
        assert!(gone.iter().all(|run| page(run) != back));
        runs.unmark(second);
        assert_eq!((runs.unmarked(), runs.count()), (1, 1));
        assert_eq!(all(&runs), [back]);
    }

    /// Threads that find and push at once lose none and get none twice.
    #[test]
    fn threads_lose_no_run() {
        let runs = Runs::new();
        for at in 1..=64 {
            assert!(runs.offer(run(at, if at % 4 == 0 { 8192 } else { 4096 })).is_ok());
        }
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let runs = &runs;
                scope.spawn(move || {
                    let mine = Layout::from_size_align(4096 << (thread % 2), 4096).unwrap();
                    let mut have = Vec::new();
                    for round in 0..20_000 {
                        match runs.find_promised(mine) {
                            Some(run) if round % 3 != 0 => have.push(run),
                            Some(run) => runs.push(run),
                            None => have.drain(..).for_each(|run| runs.push(run)),
                        }
                    }
                    have.into_iter().for_each(|run| runs.push(run));
                });
            }
        });
        assert_eq!(runs.count(), 64);
        assert_eq!(all(&runs), (1..=64).collect::<Vec<_>>());
    }
}
