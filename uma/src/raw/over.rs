//! Zones over a source of the user's: cache zones.

use core::alloc::Layout;
use core::mem::MaybeUninit;

use uma_core::{
    AllocError, ConfigFault, Item, ItemSource, NoHooks, Process, Reclaim, Request, Stats,
};

use super::{Config, Origin, RawZone, RawZoneBuilder, Slabs, Wishes};
use crate::{DefaultPlatform, Platform, ZoneFlags};

/// A zone over the source `S` instead of slabs: see [`RawZone::over`].
pub type CacheZone<S, P = DefaultPlatform, H = NoHooks> = RawZone<P, H, Over<S>>;

/// A source of the user's, as an [`Origin`].
#[derive(Clone, Copy, Debug)]
pub struct Over<S>(S);

#[cfg(feature = "std")]
impl<S> RawZone<DefaultPlatform, NoHooks, Over<S>>
where
    S: ItemSource + Clone + Send + Sync + 'static,
{
    /// Describes a zone over `source` (`uma_zcache_create`): per-CPU buckets, a limit, hooks and figures for
    /// items that come from there. It is listed, reclaimed and forked as any other; and unlike those of
    /// FreeBSD it runs init and fini on what it imports and releases.
    ///
    /// The zone uses one clone of `source`. For a pool that has no clones give a reference to a `static`;
    /// if the pool has locks of its own, a [`Share`](uma_core::Share) of it, so that they are taken in a
    /// fork. For two functions there is [`FnSource`](uma_core::FnSource).
    ///
    /// ```
    /// use std::alloc::Layout;
    /// use uma::{RawZone, core::Request};
    ///
    /// // A zone is a source, too: what this one caches counts against the limit of the other.
    /// static CLUSTERS: RawZone = RawZone::builder("cluster", Layout::new::<[u64; 256]>()).lazy();
    /// let mine = RawZone::over("my clusters", &CLUSTERS).bucket(8).build()?;
    /// let cluster = mine.alloc(Request::NOWAIT)?;
    /// // SAFETY: the item came from this zone and is not used any more.
    /// unsafe { mine.free(cluster) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn over(name: &str, source: S) -> RawZoneBuilder<DefaultPlatform, NoHooks, Over<S>> {
        RawZone::over_in(name, source, DefaultPlatform::new())
    }
}

impl<S, P: Platform> RawZone<P, NoHooks, Over<S>>
where
    S: ItemSource + Clone + Send + Sync + 'static,
{
    /// The same on a given platform.
    pub const fn over_in(
        name: &str,
        source: S,
        platform: P,
    ) -> RawZoneBuilder<P, NoHooks, Over<S>> {
        // The layout is that of the origin.
        let config = Config::new(name, Layout::new::<()>());
        RawZoneBuilder { config, platform, hooks: NoHooks, origin: Over(source) }
    }
}

/// A source of the user's inside a zone: the same, with the item's layout among the figures.
#[derive(Debug)]
pub struct Foreign<S>(S);

// SAFETY: forwards every method to an implementation that keeps the contract.
unsafe impl<S: ItemSource> ItemSource for Foreign<S> {
    fn layout(&self) -> Layout {
        self.0.layout()
    }

    fn import(
        &self,
        into: &mut [MaybeUninit<Item>],
        request: Request,
    ) -> Result<usize, AllocError> {
        self.0.import(into, request)
    }

    unsafe fn release(&self, items: &[Item]) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.release(items) };
    }

    fn alloc(&self, request: Request) -> Result<Item, AllocError> {
        self.0.alloc(request)
    }

    fn alloc_or_flush(
        &self,
        request: Request,
        flush: &mut dyn FnMut(),
    ) -> Result<Item, AllocError> {
        self.0.alloc_or_flush(request, flush)
    }

    unsafe fn free(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.free(item) };
    }

    unsafe fn discard(&self, item: Item) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.discard(item) };
    }

    fn wanted(&self) -> bool {
        self.0.wanted()
    }

    fn reclaim(&self, mode: Reclaim) {
        self.0.reclaim(mode);
    }

    fn visit_stats(&self, stats: &mut Stats) {
        let item = self.layout();
        self.0.visit_stats(stats);
        (stats.size, stats.align) = (item.size(), item.align());
    }

    fn prefork(&self) {
        self.0.prefork();
    }

    unsafe fn postfork(&self, process: Process) {
        // SAFETY: the caller's duty is passed on unchanged.
        unsafe { self.0.postfork(process) };
    }

    fn settle(&self) {
        self.0.settle();
    }
}

impl<P: Platform, S> Origin<P> for Over<S>
where
    S: ItemSource + Clone + Send + Sync + 'static,
{
    type Source = Foreign<S>;
    const KIND: ZoneFlags = ZoneFlags::CACHE;

    fn open(&self, _: &P, _: Wishes) -> Result<Foreign<S>, ConfigFault> {
        Ok(Foreign(self.0.clone()))
    }

    fn layout(&self) -> Option<Layout> {
        Some(self.0.layout())
    }

    fn slabs(_: &Foreign<S>) -> Option<&Slabs<P>> {
        None
    }

    /// What the source has in its items is not ours to overwrite.
    fn keeps_state(_: &Foreign<S>) -> bool {
        true
    }
}
