//! What stands for the table of outside headers where there are none (without feature `hashbrown`).

use core::marker::PhantomData;

use uma_core::Metadata;

use crate::slab::SlabPtr;

/// Always empty, and never asked: [`SlabLayout`](crate::SlabLayout) puts every header inside.
pub(crate) struct Map<M: Metadata>(PhantomData<M>);

impl<M: Metadata> Map<M> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }

    pub(crate) fn with_room_for(_: &M, _: usize) -> Option<Self> {
        None
    }

    pub(crate) fn free(self, _: &M) {}

    pub(crate) fn len(&self) -> usize {
        0
    }

    pub(crate) fn has_room(&self) -> bool {
        false
    }

    pub(crate) fn adopt(&mut self, larger: Self) -> Self {
        larger
    }

    pub(crate) fn retire_if_empty(&mut self) -> Self {
        Self::new()
    }

    pub(crate) fn insert(&mut self, _: usize, _: SlabPtr) {}

    pub(crate) fn remove(&mut self, _: usize) {}

    #[inline]
    pub(crate) fn find(&self, _: usize) -> Option<SlabPtr> {
        None
    }
}
