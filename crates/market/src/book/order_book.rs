//! The levels of one instrument, and how far they are known. It knows nothing of sequence numbers: a caller that
//! applies updates out of order gets a wrong book.

use thiserror::Error;

use super::side::{Side, Work, ordered};
use crate::event::Level;

/// The greatest `max_levels` that a book accepts.
pub const MAX_LEVELS_LIMIT: usize = 1 << 20;
/// Price times quantity of a level stays below this, so that the sums over [`MAX_LEVELS_LIMIT`] levels fit an `i128`.
const NOTIONAL_LIMIT: i128 = 1 << 106;
/// Two factors below `2^53` are below [`NOTIONAL_LIMIT`] without multiplying.
const SMALL_BITS: u32 = 53;

/// Why levels were refused; the book is as it was. The remedy is a new snapshot.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BookError {
    /// A price is zero or negative.
    #[error("price mantissa {price} is not positive")]
    BadPrice {
        /// The price mantissa.
        price: i64,
    },
    /// A quantity is negative.
    #[error("quantity mantissa {qty} at price mantissa {price} is negative")]
    NegativeQty {
        /// The price mantissa.
        price: i64,
        /// The quantity mantissa.
        qty: i64,
    },
    /// Price times quantity is beyond any real level, so that sums would not be safe.
    #[error("quantity mantissa {qty} at price mantissa {price} is absurdly large")]
    TooLarge {
        /// The price mantissa.
        price: i64,
        /// The quantity mantissa.
        qty: i64,
    },
    /// A side would hold more levels than allowed.
    #[error("{levels} levels on a side exceed the limit of {limit}")]
    TooManyLevels {
        /// Levels that the side would have.
        levels: usize,
        /// Levels that a side may have.
        limit: usize,
    },
}

/// Checks levels of a snapshot or an update, removals included.
///
/// # Errors
/// The first level that cannot be right, see [`BookError`].
pub(crate) fn check_levels(levels: &[Level]) -> Result<(), BookError> {
    let mut bits = 0;
    let mut zero_price = false;
    for level in levels {
        bits |= level.price | level.qty;
        zero_price |= level.price == 0;
    }
    // A negative number has its highest bit set, so it is not small either.
    if !zero_price && bits.cast_unsigned() >> SMALL_BITS == 0 {
        return Ok(());
    }
    levels.iter().try_for_each(check_level)
}

fn check_level(&Level { price, qty }: &Level) -> Result<(), BookError> {
    if price <= 0 {
        return Err(BookError::BadPrice { price });
    }
    if qty < 0 {
        return Err(BookError::NegativeQty { price, qty });
    }
    if i128::from(price) * i128::from(qty) >= NOTIONAL_LIMIT {
        return Err(BookError::TooLarge { price, qty });
    }
    Ok(())
}

/// What an update added to and took from each side, quantities on the quantity scale; a changed level counts by the
/// difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Added to bids.
    pub bid_added: i128,
    /// Taken from bids.
    pub bid_removed: i128,
    /// Added to asks.
    pub ask_added: i128,
    /// Taken from asks.
    pub ask_removed: i128,
}

/// An order book: both sides sorted from the best, as mantissas on the instrument's scales.
#[derive(Clone, Debug)]
pub struct OrderBook {
    pub(crate) bids: Side<true>,
    pub(crate) asks: Side<false>,
    known_bid: Option<i64>,
    known_ask: Option<i64>,
    max_levels: usize,
    scratch: Scratch,
}

/// Working memory of [`OrderBook::apply`], kept so that an update allocates nothing.
#[derive(Clone, Debug, Default)]
struct Scratch {
    bids: Vec<Level>,
    asks: Vec<Level>,
    work: Work,
}

impl OrderBook {
    /// An empty book that holds at most `max_levels` a side (itself at most [`MAX_LEVELS_LIMIT`]).
    pub fn new(max_levels: usize) -> Self {
        Self {
            bids: Side::default(),
            asks: Side::default(),
            known_bid: None,
            known_ask: None,
            max_levels: max_levels.min(MAX_LEVELS_LIMIT),
            scratch: Scratch::default(),
        }
    }

    /// Applies one update, whole or not at all. A quantity of zero removes the level, present or not; the order of
    /// changes does not matter, but of several changes of one price the last one wins.
    ///
    /// # Errors
    /// See [`BookError`]; nothing has changed then, and the caller has to resynchronise.
    pub fn apply(&mut self, bids: &[Level], asks: &[Level]) -> Result<Flow, BookError> {
        check_levels(bids)?;
        check_levels(asks)?;
        let Scratch { bids: bid_scratch, asks: ask_scratch, work } = &mut self.scratch;
        let bids = ordered::<true>(bids, bid_scratch);
        let asks = ordered::<false>(asks, ask_scratch);
        check_room(&self.bids, bids, self.max_levels)?;
        check_room(&self.asks, asks, self.max_levels)?;
        work.begin();
        self.bids.apply(bids, work);
        let (bid_added, bid_removed) = (work.added, work.removed);
        work.begin();
        self.asks.apply(asks, work);
        Ok(Flow { bid_added, bid_removed, ask_added: work.added, ask_removed: work.removed })
    }

    /// Replaces the book by a snapshot for which `limit` levels a side were asked. A side that has fewer is known
    /// whole, any other one as far as its worst level. Levels without quantity are left out.
    ///
    /// # Errors
    /// See [`BookError`]; the book is as it was.
    pub fn load(&mut self, bids: &[Level], asks: &[Level], limit: usize) -> Result<(), BookError> {
        check_levels(bids)?;
        check_levels(asks)?;
        let bids_known_whole = bids.len() < limit;
        let asks_known_whole = asks.len() < limit;
        let bids = ordered::<true>(bids, &mut self.scratch.bids);
        let asks = ordered::<false>(asks, &mut self.scratch.asks);
        for levels in [bids.len(), asks.len()] {
            if levels > self.max_levels {
                return Err(BookError::TooManyLevels { levels, limit: self.max_levels });
            }
        }
        self.known_bid = bids.last().filter(|_| !bids_known_whole).map(|level| level.price);
        self.known_ask = asks.last().filter(|_| !asks_known_whole).map(|level| level.price);
        self.bids.load(bids);
        self.asks.load(asks);
        Ok(())
    }

    /// Changes the quantity of one bid behind the caller's back, three quarters down the known range: the level as it is
    /// now. `None` without a bid.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn corrupt_level(&mut self) -> Option<Level> {
        let known =
            self.bids().take_while(|bid| self.known_bid.is_none_or(|known| bid.price >= known)).count();
        let Level { price, qty } = self.bids.nth(known * 3 / 4)?;
        let level = Level { price, qty: qty + 1 };
        self.apply(&[level], &[]).ok()?;
        Some(level)
    }

    /// Removes every level and forgets the known range.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.known_bid = None;
        self.known_ask = None;
    }

    /// The highest bid.
    #[inline]
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.best()
    }

    /// The lowest ask.
    #[inline]
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.best()
    }

    /// True when the best bid is at or above the best ask: between two complete updates a sign of corruption.
    #[inline]
    pub fn is_crossed(&self) -> bool {
        matches!((self.best_bid(), self.best_ask()), (Some(bid), Some(ask)) if bid.price >= ask.price)
    }

    /// Bids from the highest price down.
    pub fn bids(&self) -> impl Iterator<Item = Level> {
        self.bids.iter()
    }

    /// Asks from the lowest price up.
    pub fn asks(&self) -> impl Iterator<Item = Level> {
        self.asks.iter()
    }

    /// The best `n` bids and asks, best first.
    pub fn top(&self, n: usize) -> (Vec<Level>, Vec<Level>) {
        (self.bids().take(n).collect(), self.asks().take(n).collect())
    }

    /// Number of levels on both sides.
    pub fn len(&self) -> usize {
        self.n_bids() + self.n_asks()
    }

    /// Number of bid levels.
    pub fn n_bids(&self) -> usize {
        self.bids.len()
    }

    /// Number of ask levels.
    pub fn n_asks(&self) -> usize {
        self.asks.len()
    }

    /// True when neither side has a level.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lowest bid price down to which every level is known; `None` when the whole side is. Levels below it are
    /// real where they appear, but neighbours may be missing.
    pub fn known_bid(&self) -> Option<i64> {
        self.known_bid
    }

    /// The highest ask price up to which every level is known; `None` when the whole side is.
    pub fn known_ask(&self) -> Option<i64> {
        self.known_ask
    }

    /// True when the best `n` levels of each side lie within the known range, so that none can be missing between.
    pub fn knows_top(&self, n: usize) -> bool {
        let Some(last) = n.checked_sub(1) else { return true };
        let bids =
            self.known_bid.is_none_or(|known| self.bids.nth(last).is_some_and(|level| level.price >= known));
        let asks =
            self.known_ask.is_none_or(|known| self.asks.nth(last).is_some_and(|level| level.price <= known));
        bids && asks
    }
}

fn check_room<const BIDS: bool>(side: &Side<BIDS>, changes: &[Level], limit: usize) -> Result<(), BookError> {
    if side.len() + changes.len() <= limit {
        return Ok(());
    }
    let levels = side.len_after(changes);
    if levels > limit { Err(BookError::TooManyLevels { levels, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn level(price: i64, qty: i64) -> Level {
        Level { price, qty }
    }

    #[derive(Clone, Default)]
    struct Model {
        bids: BTreeMap<i64, i64>,
        asks: BTreeMap<i64, i64>,
    }

    fn change(side: &mut BTreeMap<i64, i64>, changes: &[Level]) {
        for level in changes {
            if level.qty == 0 {
                side.remove(&level.price);
            } else {
                side.insert(level.price, level.qty);
            }
        }
    }

    fn assert_same(book: &OrderBook, model: &Model) {
        let bids: Vec<Level> = model.bids.iter().rev().map(|(&price, &qty)| level(price, qty)).collect();
        let asks: Vec<Level> = model.asks.iter().map(|(&price, &qty)| level(price, qty)).collect();
        assert_eq!(book.bids().collect::<Vec<_>>(), bids);
        assert_eq!(book.asks().collect::<Vec<_>>(), asks);
        assert_eq!((book.best_bid(), book.best_ask()), (bids.first().copied(), asks.first().copied()));
        assert_eq!(book.len(), bids.len() + asks.len());
        assert_eq!((0..=bids.len()).map(|n| book.bids.nth(n)).collect::<Vec<_>>(), {
            bids.iter().copied().map(Some).chain([None]).collect::<Vec<_>>()
        });
        book.bids.assert_sound();
        book.asks.assert_sound();
    }

    fn changes(prices: i64, n: usize) -> impl Strategy<Value = Vec<Level>> {
        let qty = prop_oneof![2 => Just(0), 3 => 1_i64..1000];
        proptest::collection::vec((1..=prices, qty).prop_map(|(price, qty)| level(price, qty)), 0..n)
    }

    fn both_sides(prices: i64, n: usize) -> impl Strategy<Value = Vec<(Vec<Level>, Vec<Level>)>> {
        proptest::collection::vec((changes(prices, n), changes(prices, n)), 1..24)
    }

    fn check_against_model(
        snapshot: (Vec<Level>, Vec<Level>),
        updates: &[(Vec<Level>, Vec<Level>)],
        sorted: bool,
    ) {
        let mut book = OrderBook::new(100_000);
        let mut model = Model::default();
        book.load(&snapshot.0, &snapshot.1, usize::MAX).unwrap();
        change(&mut model.bids, &snapshot.0);
        change(&mut model.asks, &snapshot.1);
        assert_same(&book, &model);
        for (bids, asks) in updates {
            let (mut bids, mut asks) = (bids.clone(), asks.clone());
            if sorted {
                bids.sort_by_key(|level| -level.price);
                asks.sort_by_key(|level| level.price);
            }
            let flow = book.apply(&bids, &asks).unwrap();
            let before = (model.bids.clone(), model.asks.clone());
            change(&mut model.bids, &bids);
            change(&mut model.asks, &asks);
            assert_same(&book, &model);
            assert_eq!((flow.bid_added, flow.bid_removed), moved(&before.0, &model.bids));
            assert_eq!((flow.ask_added, flow.ask_removed), moved(&before.1, &model.asks));
        }
    }

    /// Quantity added to and taken from a side.
    fn moved(before: &BTreeMap<i64, i64>, after: &BTreeMap<i64, i64>) -> (i128, i128) {
        let prices: BTreeSet<i64> = before.keys().chain(after.keys()).copied().collect();
        let qty = |side: &BTreeMap<i64, i64>, price| i128::from(side.get(price).copied().unwrap_or(0));
        let changes = prices.iter().map(|price| qty(after, price) - qty(before, price));
        changes.fold((0, 0), |(added, removed), change| (added + change.max(0), removed - change.min(0)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // 40 prices: many duplicates and emptied chunks. 3000 prices: chunks are divided and joined.
        #[test]
        fn small_books_equal_the_model(updates in both_sides(40, 60), sorted in any::<bool>()) {
            check_against_model((Vec::new(), Vec::new()), &updates, sorted);
        }

        #[test]
        fn large_books_equal_the_model(
            bids in changes(3000, 1500), asks in changes(3000, 1500), updates in both_sides(3000, 700), sorted in any::<bool>(),
        ) {
            check_against_model((bids, asks), &updates, sorted);
        }

        #[test]
        fn a_refused_update_changes_nothing(
            start in changes(50, 60), update in changes(50, 60), at in any::<prop::sample::Index>(), kind in 0_usize..4,
        ) {
            let mut book = OrderBook::new(1000);
            book.apply(&start, &start).unwrap();
            let before = (book.top(usize::MAX), book.known_bid());
            let bad = [level(0, 1), level(-5, 1), level(7, -1), level(i64::MAX, i64::MAX)][kind];
            let mut asks = update.clone();
            asks.insert(at.index(asks.len() + 1), bad);
            prop_assert!(book.apply(&update, &asks).is_err());
            prop_assert!(book.load(&update, &asks, 10).is_err());
            prop_assert_eq!((book.top(usize::MAX), book.known_bid()), before);
        }

        #[test]
        fn the_level_limit_is_exact(start in changes(60, 40), update in changes(60, 60), limit in 1_usize..40) {
            let mut book = OrderBook::new(limit);
            let mut model = BTreeMap::new();
            let fits = |model: &BTreeMap<i64, i64>| model.len() <= limit;
            for changes in [start, update] {
                let mut next = model.clone();
                change(&mut next, &changes);
                let outcome = book.apply(&[], &changes);
                prop_assert_eq!(outcome.is_ok(), fits(&next));
                if outcome.is_ok() {
                    model = next;
                }
                prop_assert_eq!(book.n_asks(), model.len());
            }
        }
    }

    #[test]
    fn levels_that_cannot_be_right_are_named() {
        let mut book = OrderBook::new(10);
        let cases = [
            (level(0, 1), BookError::BadPrice { price: 0 }),
            (level(0, 0), BookError::BadPrice { price: 0 }),
            (level(-1, 1), BookError::BadPrice { price: -1 }),
            (level(1, -1), BookError::NegativeQty { price: 1, qty: -1 }),
            (level(i64::MAX, 1 << 44), BookError::TooLarge { price: i64::MAX, qty: 1 << 44 }),
        ];
        for (bad, error) in cases {
            assert_eq!(book.apply(&[level(5, 5), bad], &[]), Err(error));
            assert!(book.is_empty());
        }
        assert_eq!(book.apply(&[level(i64::MAX, 1 << 42)], &[level(1, i64::MAX)]).map(drop), Ok(()));
    }

    #[test]
    fn the_last_of_two_changes_of_a_price_wins() {
        let mut book = OrderBook::new(10);
        book.apply(&[level(5, 1), level(7, 1), level(5, 2)], &[level(9, 1), level(9, 0)]).unwrap();
        assert_eq!(book.top(9), (vec![level(7, 1), level(5, 2)], Vec::new()));
    }

    #[test]
    fn a_locked_book_is_crossed() {
        let mut book = OrderBook::new(10);
        book.apply(&[level(5, 1)], &[level(6, 1)]).unwrap();
        assert!(!book.is_crossed());
        book.apply(&[level(6, 1)], &[]).unwrap();
        assert!(book.is_crossed());
        book.apply(&[level(7, 1)], &[]).unwrap();
        assert!(book.is_crossed());
        book.apply(&[], &[level(6, 0)]).unwrap();
        assert!(!book.is_crossed(), "one side alone is not crossed");
    }

    #[test]
    fn a_snapshot_is_known_as_far_as_it_reaches() {
        let mut book = OrderBook::new(10);
        let bids = [level(9, 1), level(8, 1), level(7, 1)];
        let asks = [level(10, 1), level(11, 1)];
        book.load(&bids, &asks, 3).unwrap();
        assert_eq!((book.known_bid(), book.known_ask()), (Some(7), None));
        assert!(book.knows_top(3) && !book.knows_top(4));

        book.apply(&[level(8, 0), level(3, 1)], &[]).unwrap();
        assert_eq!(book.known_bid(), Some(7), "an update does not widen the known range");
        assert!(book.knows_top(2) && !book.knows_top(3), "level 3 at price 3 may have unknown neighbours");

        book.clear();
        assert_eq!((book.known_bid(), book.known_ask(), book.is_empty()), (None, None, true));
    }
}
