//! The symbols of a market in the order in which they were listed. Symbols may be added while the market runs; an index
//! once given stays good, and reading takes no lock.

use std::collections::HashMap;
use std::ops::Index;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::universe::Listing;

/// How many symbols may be added while the market runs.
pub(crate) const ROOM: usize = 256;

/// The symbols of a market.
pub(crate) struct Roster {
    slots: Box<[OnceLock<Listing>]>,
    len: AtomicUsize,
    by_lower: RwLock<HashMap<String, usize>>,
}

impl Roster {
    pub(crate) fn new(listings: Vec<Listing>) -> Self {
        let capacity = listings.len() + ROOM;
        let roster = Self {
            slots: std::iter::repeat_with(OnceLock::new).take(capacity).collect(),
            len: AtomicUsize::new(0),
            by_lower: RwLock::default(),
        };
        for listing in listings {
            roster.add(listing, |_| {});
        }
        roster
    }

    /// Most symbols that it can ever hold.
    pub(crate) const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Adds a symbol. `prepare` makes what belongs to its index before anyone can find it. `None` when there is no room.
    pub(crate) fn add(&self, listing: Listing, prepare: impl FnOnce(usize)) -> Option<usize> {
        let mut names = self.by_lower.write().unwrap_or_else(PoisonError::into_inner);
        let index = self.len.load(Ordering::Acquire);
        let lower = listing.lower.clone();
        self.slots.get(index)?.set(listing).ok()?;
        prepare(index);
        names.insert(lower, index);
        self.len.store(index + 1, Ordering::Release);
        Some(index)
    }

    /// Takes a symbol's name away: it is found no more, its index stays good.
    pub(crate) fn forget(&self, index: usize) {
        let mut names = self.by_lower.write().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, of| *of != index);
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The index of a symbol as stream names spell it.
    pub(crate) fn by_lower(&self, lower: &str) -> Option<usize> {
        self.by_lower.read().unwrap_or_else(PoisonError::into_inner).get(lower).copied()
    }

    /// The index of a native symbol; case matters.
    pub(crate) fn find(&self, native: &str) -> Option<usize> {
        self.by_lower(&native.to_ascii_lowercase()).filter(|index| self[*index].native == native)
    }

    /// Whether the symbol's name still stands.
    pub(crate) fn is_named(&self, index: usize) -> bool {
        self.by_lower(&self[index].lower) == Some(index)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Listing> {
        self.slots.get(index)?.get()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listing> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl Index<usize> for Roster {
    type Output = Listing;

    #[allow(clippy::expect_used, reason = "indexes come from the roster itself")]
    fn index(&self, index: usize) -> &Listing {
        self.get(index).expect("an index of this roster")
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::ids::Market;

    use super::*;
    use crate::config::Symbols;
    use crate::universe::listings;

    fn listing(name: &str) -> Listing {
        listings(Market::Spot, &Symbols::Named(vec![name.to_owned()]), 100).remove(0)
    }

    #[test]
    fn symbols_come_and_go_and_indexes_stay() {
        let roster = Roster::new(vec![listing("BTCUSDT")]);
        let index = roster.add(listing("ETHUSDT"), |index| assert_eq!(index, 1)).unwrap();
        assert_eq!((roster.len(), roster.find("ETHUSDT"), roster.find("ethusdt")), (2, Some(index), None));
        roster.forget(index);
        assert_eq!((roster.find("ETHUSDT"), roster.is_named(index)), (None, false));
        assert_eq!(roster[index].native, "ETHUSDT");
        assert_eq!(roster.add(listing("ETHUSDT"), |_| {}), Some(2), "listed anew");
        assert!((0..ROOM - 2).all(|_| roster.add(listing("SOLUSDT"), |_| {}).is_some()));
        assert_eq!(roster.add(listing("SOLUSDT"), |_| {}), None, "no more room");
    }
}
