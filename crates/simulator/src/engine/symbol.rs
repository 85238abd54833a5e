//! One symbol of a seeded market: books and takers drawn step by step from its own dice. No IO, no clock: time is an
//! argument and decides no number, so equal seeds give equal markets.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::book::{Book, Levels, Side};
use crate::universe::Listing;

/// A single fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trade {
    pub id: i64,
    pub price: i64,
    pub qty: i64,
    pub ms: i64,
    /// The buyer was the maker.
    pub taker_sold: bool,
}

/// What a step did beyond changing the book.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Fills of one taker order, in order.
    pub trades: Vec<Trade>,
    /// The best bid or ask, or its quantity, changed.
    pub top_changed: bool,
}

/// The dice and the state of a symbol.
#[derive(Debug)]
pub(crate) struct SymbolEngine {
    rng: SmallRng,
    futures: bool,
    levels: usize,
    /// Typical quantity of a level near the top, in lots.
    lots: f64,
    /// Where the market is heading, in ticks.
    target: f64,
    anchor: f64,
    next_trade: i64,
}

impl SymbolEngine {
    /// Draws the first book around `price` ticks.
    pub(crate) fn new(
        listing: &Listing,
        futures: bool,
        seed: u64,
        first_id: u64,
        price: i64,
    ) -> (Self, Book) {
        let mut engine = Self {
            rng: SmallRng::seed_from_u64(seed),
            futures,
            levels: listing.levels,
            lots: typical_lots(listing),
            #[allow(clippy::cast_precision_loss, reason = "a drawn price")]
            target: price as f64,
            #[allow(clippy::cast_precision_loss, reason = "a drawn price")]
            anchor: price as f64,
            next_trade: i64::try_from(first_id / 100).unwrap_or(1).max(1),
        };
        let book = engine.first_book(price, first_id);
        (engine, book)
    }

    fn first_book(&mut self, price: i64, id: u64) -> Book {
        let (mut bids, mut asks) = (Levels::new(), Levels::new());
        let reach = self.rng.random_range(0.12..0.55) * self.anchor;
        for level in 0..self.levels {
            let offset = self.offset(level, reach);
            let qty = self.level_qty(level);
            if price > offset + 1 {
                bids.entry(price - 1 - offset).or_insert(qty);
            }
            asks.entry(price + offset).or_insert(self.rng.random_range(1..=qty.saturating_mul(2)));
        }
        Book::new(id, bids, asks)
    }

    /// Distance of a level from the best: every tick near the top, ever wider towards `reach`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "drawn, whole ticks")]
    fn offset(&mut self, level: usize, reach: f64) -> i64 {
        let share = level as f64 / self.levels as f64;
        let wide = share.powi(3) * reach * self.rng.random_range(0.97..1.03);
        level as i64 + wide as i64
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "drawn, whole lots")]
    fn level_qty(&mut self, level: usize) -> i64 {
        let far = 1.0 + level as f64 / 40.0;
        let spread: f64 = self.rng.random_range(-1.6..1.6);
        ((self.lots * far.min(25.0) * spread.exp()) as i64).max(1)
    }

    /// One step: a change of the book or a taker order.
    pub(crate) fn step(&mut self, book: &mut Book, now_ms: i64, out: &mut Step) {
        out.trades.clear();
        let before = (book.best(Side::Bid), book.best(Side::Ask));
        self.wander();
        match self.rng.random_range(0..100_u32) {
            0..44 => self.requote(book, now_ms),
            44..62 => self.improve(book, now_ms),
            62..70 => self.cancel(book, now_ms),
            70..92 => self.take(book, now_ms, out),
            _ => self.deep(book, now_ms),
        }
        self.tend(book, now_ms);
        out.top_changed = before != (book.best(Side::Bid), book.best(Side::Ask));
    }

    /// The target walks, held near where it began.
    fn wander(&mut self) {
        let stride = self.anchor * 0.000_04 * self.rng.random_range(-1.0..1.0);
        self.target = (self.target + stride).clamp(self.anchor * 0.8, self.anchor * 1.2);
    }

    fn next_id(&mut self, book: &Book) -> u64 {
        // Futures ids count the whole venue: those of one symbol are not consecutive.
        book.id() + if self.futures { self.rng.random_range(1..400) } else { 1 }
    }

    fn set(&mut self, book: &mut Book, side: Side, price: i64, qty: i64, now_ms: i64) {
        let id = self.next_id(book);
        book.set(side, price, qty, id, now_ms);
    }

    fn side(&mut self) -> Side {
        if self.rng.random() { Side::Bid } else { Side::Ask }
    }

    /// The price of an existing level, near the top more often than not.
    fn pick(&mut self, book: &Book, side: Side, within: u32) -> Option<i64> {
        let nth = self.rng.random_range(0..within).min(self.rng.random_range(0..within)) as usize;
        let levels = book.side(side);
        let found = match side {
            Side::Bid => levels.keys().rev().nth(nth).or_else(|| levels.keys().next()),
            Side::Ask => levels.keys().nth(nth).or_else(|| levels.keys().next_back()),
        };
        found.copied()
    }

    fn requote(&mut self, book: &mut Book, now_ms: i64) {
        let side = self.side();
        if let Some(price) = self.pick(book, side, 4) {
            let qty = self.level_qty(0);
            self.set(book, side, price, qty, now_ms);
        }
    }

    /// A better price inside the spread, else a new level just behind the best.
    fn improve(&mut self, book: &mut Book, now_ms: i64) {
        let (Some(bid), Some(ask)) = (book.best(Side::Bid), book.best(Side::Ask)) else { return };
        let side = self.heading(bid.0, ask.0);
        let inside = ask.0 - bid.0 > 1;
        let price = match (inside, side) {
            (true, Side::Bid) => self.rng.random_range(bid.0 + 1..ask.0),
            (true, Side::Ask) => self.rng.random_range(bid.0 + 1..ask.0),
            (false, Side::Bid) => bid.0 - self.rng.random_range(1..6),
            (false, Side::Ask) => ask.0 + self.rng.random_range(1..6),
        };
        if price > 0 {
            let qty = self.level_qty(0);
            self.set(book, side, price, qty, now_ms);
        }
    }

    /// Bid while the market lies below its target.
    #[allow(clippy::cast_precision_loss, reason = "a drawn price")]
    fn heading(&mut self, bid: i64, ask: i64) -> Side {
        let below = (i64::midpoint(bid, ask) as f64) < self.target;
        if self.rng.random_bool(if below { 0.68 } else { 0.32 }) { Side::Bid } else { Side::Ask }
    }

    fn cancel(&mut self, book: &mut Book, now_ms: i64) {
        let side = self.side();
        if book.side(side).len() <= self.levels / 3 + 10 {
            return;
        }
        if let Some(price) = self.pick(book, side, 12) {
            self.set(book, side, price, 0, now_ms);
        }
    }

    /// A taker order: it eats the best levels, one fill each.
    fn take(&mut self, book: &mut Book, now_ms: i64, out: &mut Step) {
        let (Some(bid), Some(ask)) = (book.best(Side::Bid), book.best(Side::Ask)) else { return };
        let towards = self.heading(bid.0, ask.0);
        let maker = if towards == Side::Bid { Side::Ask } else { Side::Bid };
        let mut left = (self.level_qty(0) / self.rng.random_range(1..8)).max(1);
        for _ in 0..4 {
            let Some((price, resting)) = book.best(maker) else { return };
            if book.side(maker).len() < 10 {
                return;
            }
            let qty = left.min(resting);
            self.set(book, maker, price, resting - qty, now_ms);
            out.trades.push(Trade {
                id: self.next_trade,
                price,
                qty,
                ms: now_ms,
                taker_sold: maker == Side::Bid,
            });
            self.next_trade += 1;
            left -= qty;
            if left == 0 {
                return;
            }
        }
    }

    fn deep(&mut self, book: &mut Book, now_ms: i64) {
        let side = self.side();
        let Some((best, _)) = book.best(side) else { return };
        let level = self.rng.random_range(1..self.levels.max(2));
        let offset = self.offset(level, self.anchor * 0.3) + 1;
        let price = if side == Side::Bid { best - offset } else { best + offset };
        if price > 0 {
            let qty = if self.rng.random_bool(0.3) { 0 } else { self.level_qty(level) };
            if qty > 0 || book.side(side).contains_key(&price) {
                self.set(book, side, price, qty, now_ms);
            }
        }
    }

    /// Keeps each side's number of levels near what it should be.
    fn tend(&mut self, book: &mut Book, now_ms: i64) {
        for side in [Side::Bid, Side::Ask] {
            let levels = book.side(side);
            let farthest = match side {
                Side::Bid => levels.keys().next(),
                Side::Ask => levels.keys().next_back(),
            };
            let Some(&farthest) = farthest else { continue };
            if levels.len() > self.levels + self.levels / 4 + 5 {
                self.set(book, side, farthest, 0, now_ms);
            } else if levels.len() < self.levels / 2 {
                let gap = self.rng.random_range(1..12);
                let price = if side == Side::Bid { farthest - gap } else { farthest + gap };
                if price > 0 {
                    let qty = self.level_qty(self.levels);
                    self.set(book, side, price, qty, now_ms);
                }
            }
        }
    }
}

/// About 2 000 USD in lots, whatever a lot is worth.
pub(crate) fn typical_lots(listing: &Listing) -> f64 {
    let price = listing.anchor / 10_f64.powi(i32::from(listing.price_scale)) * listing.quote_usd;
    let lot_usd = price / 10_f64.powi(i32::from(listing.qty_scale));
    (2000.0 / lot_usd).max(3.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fathom_market::ids::Market;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Symbols;
    use crate::universe::listings;

    fn engine(market: Market, name: &str, seed: u64) -> (SymbolEngine, Book) {
        let listing = listings(market, &Symbols::Named(vec![name.to_owned()]), 1200).remove(0);
        #[allow(clippy::cast_possible_truncation)]
        let price = listing.anchor as i64;
        SymbolEngine::new(&listing, market == Market::Futures, seed, 1_000_000, price)
    }

    fn run(market: Market, name: &str, seed: u64, steps: usize) -> (Book, Vec<Trade>) {
        let (mut engine, mut book) = engine(market, name, seed);
        let (mut step, mut trades) = (Step::default(), Vec::new());
        for _ in 0..steps {
            engine.step(&mut book, 0, &mut step);
            trades.extend_from_slice(&step.trades);
        }
        (book, trades)
    }

    #[test]
    fn the_same_seed_gives_the_same_market() {
        let (book, trades) = run(Market::Futures, "BTCUSDT", 7, 3000);
        let (again, trades_again) = run(Market::Futures, "BTCUSDT", 7, 3000);
        assert_eq!(book.at(book.id()), again.at(again.id()));
        assert_eq!(trades, trades_again);
        assert!(trades.len() > 400);
        let (other, _) = run(Market::Futures, "BTCUSDT", 8, 3000);
        assert_ne!(book.at(book.id()), other.at(other.id()));
    }

    #[test]
    fn tiny_prices_keep_a_two_sided_book() {
        for name in ["LUNCXUSDT", "PEPEUSDT", "USDCUSDT"] {
            let (book, _) = run(Market::Spot, name, 3, 20_000);
            assert!(book.best(Side::Bid).is_some() && book.best(Side::Ask).is_some(), "{name}");
            assert!(!book.crossed(), "{name}");
            assert!(book.side(Side::Bid).values().all(|qty| *qty > 0));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Diffs cut at any points, replayed on a snapshot, give the book; ids chain; the book is never crossed.
        #[test]
        fn diffs_on_a_snapshot_give_the_book(seed in any::<u64>(), spot in any::<bool>(), cuts in proptest::collection::vec(1_usize..60, 1..25)) {
            let market = if spot { Market::Spot } else { Market::Futures };
            let (mut engine, mut book) = engine(market, "ETHUSDT", seed);
            let start = book.at(book.id()).unwrap();
            let mut sides: [BTreeMap<i64, i64>; 2] = [start.bids, start.asks];
            let (mut mark, mut last, mut step) = (book.mark(), start.id, Step::default());
            let mut trade_id = None;
            for cut in cuts {
                for _ in 0..cut {
                    engine.step(&mut book, 0, &mut step);
                    prop_assert!(!book.crossed());
                    for trade in &step.trades {
                        prop_assert!(trade_id.is_none_or(|id: i64| trade.id == id + 1) && trade.qty > 0);
                        trade_id = Some(trade.id);
                    }
                }
                let Some(changes) = book.since(mark) else { continue };
                mark = book.mark();
                prop_assert_eq!(changes.previous, last);
                prop_assert!(changes.first > last && changes.last >= changes.first);
                if spot { prop_assert_eq!(changes.first, last + 1); }
                last = changes.last;
                for (side, levels) in sides.iter_mut().zip([&changes.bids, &changes.asks]) {
                    for (price, qty) in levels {
                        if *qty == 0 { side.remove(price); } else { side.insert(*price, *qty); }
                    }
                }
            }
            prop_assert_eq!(&sides[0], book.side(Side::Bid));
            prop_assert_eq!(&sides[1], book.side(Side::Ask));
        }
    }
}
