//! The spans by address: a tree in which a span is found, or an overlap, in steps that grow with the
//! logarithm of their number.
//!
//! It is a treap: a search tree by first address, and by a hash of it a heap, which keeps it as flat as
//! a random tree. The children are the tags' `left` and `right`.

use crate::table::scatter;
use crate::tag::Seg;

pub(crate) struct Spans {
    root: Option<Seg>,
    count: usize,
}

/// A place in the tree that a subtree hangs from.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Left(Seg),
    Right(Seg),
}

fn weight(span: Seg) -> usize {
    scatter(scatter(span.start.get()))
}

impl Spans {
    pub(crate) const fn new() -> Self {
        Self { root: None, count: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    fn get(&self, link: Link) -> Option<Seg> {
        match link {
            Link::Root => self.root,
            Link::Left(span) => span.left.get(),
            Link::Right(span) => span.right.get(),
        }
    }

    fn set(&mut self, link: Link, to: Option<Seg>) {
        match link {
            Link::Root => self.root = to,
            Link::Left(span) => span.left.set(to),
            Link::Right(span) => span.right.set(to),
        }
    }

    /// The last span that starts at or below `address`.
    pub(crate) fn at_or_below(&self, address: usize) -> Option<Seg> {
        let mut found = None;
        let mut at = self.root;
        while let Some(span) = at {
            if span.start.get() <= address {
                found = at;
                at = span.right.get();
            } else {
                at = span.left.get();
            }
        }
        found
    }

    /// The span that has all addresses from `first` to `last`.
    pub(crate) fn containing(&self, first: usize, last: usize) -> Option<Seg> {
        self.at_or_below(first).filter(|span| last <= span.last())
    }

    /// Whether a span has one of the addresses from `first` to `last`.
    pub(crate) fn overlaps(&self, first: usize, last: usize) -> bool {
        // The last one that starts at or below `last` is the only one that can reach up to `first`.
        self.at_or_below(last).is_some_and(|span| first <= span.last())
    }

    /// Puts in a span that overlaps none of the others.
    pub(crate) fn insert(&mut self, new: Seg) {
        let start = new.start.get();
        let mut link = Link::Root;
        while let Some(span) = self.get(link).filter(|&span| weight(span) >= weight(new)) {
            link = if span.start.get() < start { Link::Right(span) } else { Link::Left(span) };
        }
        // What hangs here goes below the new one, each to its side.
        let mut rest = self.get(link);
        self.set(link, Some(new));
        let (mut left, mut right) = (Link::Left(new), Link::Right(new));
        while let Some(span) = rest {
            if span.start.get() < start {
                rest = span.right.get();
                self.set(left, Some(span));
                left = Link::Right(span);
            } else {
                rest = span.left.get();
                self.set(right, Some(span));
                right = Link::Left(span);
            }
        }
        self.set(left, None);
        self.set(right, None);
        self.count += 1;
    }

    /// Takes a span out that is in it.
    pub(crate) fn remove(&mut self, old: Seg) {
        let mut link = Link::Root;
        while let Some(span) = self.get(link).filter(|&span| span != old) {
            let right = span.start.get() < old.start.get();
            link = if right { Link::Right(span) } else { Link::Left(span) };
        }
        // Its two subtrees become one: the heavier root stays on top.
        let (mut left, mut right) = (old.left.get(), old.right.get());
        loop {
            match (left, right) {
                (Some(low), Some(high)) if weight(low) >= weight(high) => {
                    self.set(link, Some(low));
                    link = Link::Right(low);
                    left = low.right.get();
                }
                (Some(_), Some(high)) => {
                    self.set(link, Some(high));
                    link = Link::Left(high);
                    right = high.left.get();
                }
                _ => break,
            }
        }
        self.set(link, left.or(right));
        self.count -= 1;
    }
}
