//! The true order book of one symbol and the ring of its recent changes, from which a book as it was at an id, and the
//! changes since a point, are computed. Prices in ticks, quantities in lots.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Bids or asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Bid,
    Ask,
}

/// One level's change.
#[derive(Clone, Copy, Debug)]
struct Delta {
    id: u64,
    ms: i64,
    side: Side,
    price: i64,
    before: i64,
}

/// A full side of a book, price to quantity.
pub(crate) type Levels = BTreeMap<i64, i64>;

/// A book as it was at an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BookState {
    /// The id of the last change that it holds.
    pub id: u64,
    pub bids: Levels,
    pub asks: Levels,
}

/// What changed since a [`Mark`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Id of the first change.
    pub first: u64,
    /// Id of the last change.
    pub last: u64,
    /// Id of the change before the first.
    pub previous: u64,
    /// Price and new total of each changed level, best first.
    pub bids: Vec<(i64, i64)>,
    pub asks: Vec<(i64, i64)>,
}

/// A point in a book's life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    sequence: u64,
    id: u64,
}

const RING_MS: i64 = 75_000;
const RING_CAP: usize = 400_000;

/// The book.
#[derive(Debug, Default)]
pub(crate) struct Book {
    bids: Levels,
    asks: Levels,
    id: u64,
    ring: VecDeque<Delta>,
    /// Sequence number of the ring's first entry.
    ring_start: u64,
    /// Id before the ring's first entry.
    ring_base: u64,
}

impl Book {
    /// A book with its levels at `id`.
    pub(crate) fn new(id: u64, bids: Levels, asks: Levels) -> Self {
        Self { bids, asks, id, ring: VecDeque::new(), ring_start: 0, ring_base: id }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn side(&self, side: Side) -> &Levels {
        match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        }
    }

    pub(crate) fn best(&self, side: Side) -> Option<(i64, i64)> {
        match side {
            Side::Bid => self.bids.last_key_value(),
            Side::Ask => self.asks.first_key_value(),
        }
        .map(|(price, qty)| (*price, *qty))
    }

    /// The `depth` best levels, best first.
    pub(crate) fn top(&self, side: Side, depth: usize) -> Vec<(i64, i64)> {
        top_of(self.side(side), side, depth)
    }

    /// Sets the total at a price; 0 removes the level. `id` must grow.
    pub(crate) fn set(&mut self, side: Side, price: i64, qty: i64, id: u64, now_ms: i64) {
        let levels = match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        };
        let before = if qty == 0 { levels.remove(&price) } else { levels.insert(price, qty) }.unwrap_or(0);
        self.id = id;
        self.ring.push_back(Delta { id, ms: now_ms, side, price, before });
        self.trim(now_ms);
    }

    fn trim(&mut self, now_ms: i64) {
        while let Some(oldest) = self.ring.front() {
            if oldest.ms >= now_ms - RING_MS && self.ring.len() <= RING_CAP {
                return;
            }
            self.ring_base = oldest.id;
            self.ring_start += 1;
            self.ring.pop_front();
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { sequence: self.ring_start + self.ring.len() as u64, id: self.id }
    }

    /// What changed since `mark`, each level once with its present total; `None` without a change.
    pub(crate) fn since(&self, mark: Mark) -> Option<Changes> {
        let skip = usize::try_from(mark.sequence.saturating_sub(self.ring_start)).unwrap_or(usize::MAX);
        let first = self.ring.get(skip)?;
        let mut touched: Vec<(Side, i64)> = self.ring.iter().skip(skip).map(|d| (d.side, d.price)).collect();
        touched.sort_unstable();
        touched.dedup();
        let mut changes = Changes { first: first.id, last: self.id, previous: mark.id, ..Changes::default() };
        for (side, price) in touched {
            let qty = self.side(side).get(&price).copied().unwrap_or(0);
            match side {
                Side::Bid => changes.bids.push((price, qty)),
                Side::Ask => changes.asks.push((price, qty)),
            }
        }
        changes.bids.reverse();
        Some(changes)
    }

    /// First and last id of what changed since `mark`.
    pub(crate) fn ids_since(&self, mark: Mark) -> Option<(u64, u64)> {
        let skip = usize::try_from(mark.sequence.saturating_sub(self.ring_start)).unwrap_or(usize::MAX);
        Some((self.ring.get(skip)?.id, self.id))
    }

    /// The book with every change up to `id`; `None` when that is older than the ring, or in the future.
    pub(crate) fn at(&self, id: u64) -> Option<BookState> {
        if id < self.ring_base || id > self.id {
            return None;
        }
        let mut state = BookState { id: self.ring_base, bids: self.bids.clone(), asks: self.asks.clone() };
        for delta in self.ring.iter().rev() {
            if delta.id <= id {
                state.id = delta.id;
                break;
            }
            let levels = match delta.side {
                Side::Bid => &mut state.bids,
                Side::Ask => &mut state.asks,
            };
            match delta.before {
                0 => levels.remove(&delta.price),
                before => levels.insert(delta.price, before),
            };
        }
        Some(state)
    }

    /// The id that stood `age_ms` ago, as far as the ring remembers.
    pub(crate) fn id_before(&self, now_ms: i64, age_ms: i64) -> u64 {
        let newest = self.ring.iter().rev().find(|delta| delta.ms <= now_ms - age_ms);
        newest.map_or(if self.ring.is_empty() { self.id } else { self.ring_base }, |delta| delta.id)
    }

    /// Whether the best bid lies at or above the best ask.
    #[cfg(test)]
    pub(crate) fn crossed(&self) -> bool {
        matches!((self.best(Side::Bid), self.best(Side::Ask)), (Some(bid), Some(ask)) if bid.0 >= ask.0)
    }
}

/// The `depth` best levels of a side, best first.
pub(crate) fn top_of(levels: &Levels, side: Side, depth: usize) -> Vec<(i64, i64)> {
    let copy = |(price, qty): (&i64, &i64)| (*price, *qty);
    match side {
        Side::Bid => levels.iter().rev().take(depth).map(copy).collect(),
        Side::Ask => levels.iter().take(depth).map(copy).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The book at any id of the ring is the book that a plain replay reaches.
        #[test]
        fn the_past_is_reconstructed(changes in proptest::collection::vec((any::<bool>(), 1_i64..30, 0_i64..4, 1_u64..5), 1..120), pick in any::<prop::sample::Index>()) {
            let mut book = Book::new(100, Levels::from([(5, 1)]), Levels::from([(40, 1)]));
            let mut states = vec![book.at(100).unwrap()];
            let mut id = 100;
            for (bid, price, qty, step) in changes {
                id += step;
                let (side, price) = if bid { (Side::Bid, price) } else { (Side::Ask, price + 40) };
                book.set(side, price, qty, id, 0);
                states.push(book.at(id).unwrap());
            }
            let wanted = pick.get(&states);
            prop_assert_eq!(&book.at(wanted.id).unwrap(), wanted);
            prop_assert!(book.at(99).is_none() && book.at(id + 1).is_none());
        }
    }

    #[test]
    fn changes_hold_each_level_once_with_its_last_total() {
        let mut book = Book::new(10, Levels::new(), Levels::new());
        let mark = book.mark();
        assert!(book.since(mark).is_none());
        book.set(Side::Bid, 7, 3, 11, 0);
        book.set(Side::Bid, 7, 0, 12, 0);
        book.set(Side::Ask, 9, 2, 15, 0);
        let changes = book.since(mark).unwrap();
        assert_eq!((changes.first, changes.last, changes.previous), (11, 15, 10));
        assert_eq!((changes.bids, changes.asks), (vec![(7, 0)], vec![(9, 2)]));
    }

    #[test]
    fn the_ring_forgets_after_a_while() {
        let mut book = Book::new(1, Levels::new(), Levels::new());
        book.set(Side::Bid, 7, 3, 2, 0);
        book.set(Side::Bid, 7, 4, 3, RING_MS + 1);
        assert!(book.at(1).is_none());
        assert_eq!(book.at(2).unwrap().bids, Levels::from([(7, 3)]));
        assert_eq!(book.id_before(RING_MS + 1, 10), 2);
    }
}
