//! One update of 120 changes on books of 1000 and 5000 levels a side, with and without the sums of six depth bands
//! after it; the reference is what most collectors keep, a `BTreeMap` of decimals.
//!
//! `cargo bench -p fathom-market --bench book`

#![allow(missing_docs, reason = "criterion's macros write undocumented items")]

use std::{collections::BTreeMap, hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fathom_market::{
    book::OrderBook,
    depth::{DepthBands, DepthReference},
    event::Level,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rust_decimal::Decimal;

const CHANGES_A_SIDE: usize = 60;
const UPDATES: usize = 512;
const MID: i64 = 6_000_000;
const PRICE_SCALE: u32 = 2;
const QTY_SCALE: u32 = 5;
const PERCENTS: [(i64, u32); 6] = [(15, 1), (3, 0), (5, 0), (8, 0), (15, 0), (30, 0)];

struct Update {
    bids: Vec<Level>,
    asks: Vec<Level>,
}

/// Slots of one side, every second one taken at the start, the outermost 30 % from the middle.
struct Market {
    rng: SmallRng,
    step: i64,
    taken: [Vec<bool>; 2],
}

impl Market {
    fn new(levels: usize) -> Self {
        let n_slots = levels * 2;
        let step = MID * 30 / 100 / i64::try_from(n_slots).unwrap_or(i64::MAX);
        let side: Vec<bool> = (0..n_slots).map(|slot| slot % 2 == 0).collect();
        Self { rng: SmallRng::seed_from_u64(7), step, taken: [side.clone(), side] }
    }

    fn price(&self, side: usize, slot: usize) -> i64 {
        let away = self.step * i64::try_from(slot + 1).unwrap_or(i64::MAX);
        if side == 0 { MID - away } else { MID + away }
    }

    fn qty(&mut self) -> i64 {
        self.rng.random_range(1..50_000_000)
    }

    fn snapshot(&mut self) -> Update {
        let [bids, asks] = [0, 1].map(|side| {
            let slots: Vec<usize> =
                (0..self.taken[side].len()).filter(|&slot| self.taken[side][slot]).collect();
            slots.into_iter().map(|slot| Level { price: self.price(side, slot), qty: self.qty() }).collect()
        });
        Update { bids, asks }
    }

    /// Four changes of five lie within the 100 slots next to the middle; of ten changes of a taken slot three remove
    /// it, of a free one three fill it, and removals of absent levels occur. In the venue's order, best first.
    fn changes(&mut self, side: usize) -> Vec<Level> {
        let n_slots = self.taken[side].len();
        let mut slots = std::collections::BTreeSet::new();
        while slots.len() < CHANGES_A_SIDE {
            let reach = if self.rng.random_ratio(4, 5) { 100 } else { n_slots };
            slots.insert(self.rng.random_range(0..reach));
        }
        let change = |slot| {
            let flip = self.rng.random_ratio(3, 10);
            let taken = self.taken[side][slot] != flip;
            self.taken[side][slot] = taken;
            Level { price: self.price(side, slot), qty: if taken { self.qty() } else { 0 } }
        };
        slots.into_iter().map(change).collect()
    }

    fn updates(&mut self) -> Vec<Update> {
        (0..UPDATES).map(|_| Update { bids: self.changes(0), asks: self.changes(1) }).collect()
    }
}

type DecimalChanges = Vec<(Decimal, Decimal)>;

fn decimals(levels: &[Level]) -> DecimalChanges {
    let decimal =
        |level: &Level| (Decimal::new(level.price, PRICE_SCALE), Decimal::new(level.qty, QTY_SCALE));
    levels.iter().map(decimal).collect()
}

/// The reference.
#[derive(Default)]
struct DecimalBook {
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
}

impl DecimalBook {
    fn apply(&mut self, (bids, asks): &(DecimalChanges, DecimalChanges)) {
        for (side, changes) in [(&mut self.bids, bids), (&mut self.asks, asks)] {
            for &(price, qty) in changes {
                if qty.is_zero() {
                    side.remove(&price);
                } else {
                    side.insert(price, qty);
                }
            }
        }
    }

    /// Twelve notional sums, each level visited once. (Ours gives the twelve quantities as well.)
    fn depth(&self, fractions: &[Decimal]) -> Option<Vec<(Decimal, Decimal)>> {
        let mid = (self.bids.last_key_value()?.0 + self.asks.first_key_value()?.0) / Decimal::TWO;
        let (mut bids, mut asks) = (self.bids.iter().rev().peekable(), self.asks.iter().peekable());
        let (mut bid, mut ask) = (Decimal::ZERO, Decimal::ZERO);
        let sums = fractions.iter().map(|fraction| {
            let (low, high) = (mid * (Decimal::ONE - fraction), mid * (Decimal::ONE + fraction));
            while let Some((price, qty)) = bids.next_if(|(price, _)| **price >= low) {
                bid += price * qty;
            }
            while let Some((price, qty)) = asks.next_if(|(price, _)| **price <= high) {
                ask += price * qty;
            }
            (bid, ask)
        });
        Some(sums.collect())
    }
}

fn assert_same(ours: &OrderBook, bands: &DepthBands, theirs: &DecimalBook, fractions: &[Decimal]) {
    let sums = ours.depth(bands, DepthReference::Mid).map(|depth| depth.bands);
    let ours = sums.into_iter().flatten().map(|band| (band.bid_notional, band.ask_notional));
    let decimal = |sum| Decimal::from_i128_with_scale(sum, PRICE_SCALE + QTY_SCALE);
    let ours: Vec<_> = ours.map(|(bid, ask)| (decimal(bid), decimal(ask))).collect();
    assert_eq!(Some(ours), theirs.depth(fractions));
}

fn bench(criterion: &mut Criterion) {
    let percents = PERCENTS.map(|(mantissa, scale)| Decimal::new(mantissa, scale));
    let fractions = percents.map(|percent| percent / Decimal::ONE_HUNDRED);
    let Ok(bands) = DepthBands::new(&percents) else { return };
    let mut group = criterion.benchmark_group("book");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(60);
    for levels in [1000_usize, 5000] {
        let mut market = Market::new(levels);
        let snapshot = market.snapshot();
        let updates = market.updates();
        let decimal_updates: Vec<_> =
            updates.iter().map(|update| (decimals(&update.bids), decimals(&update.asks))).collect();
        let mut ours = OrderBook::new(100_000);
        assert_eq!(ours.load(&snapshot.bids, &snapshot.asks, usize::MAX), Ok(()));
        let mut theirs = DecimalBook::default();
        theirs.apply(&(decimals(&snapshot.bids), decimals(&snapshot.asks)));
        for (update, decimal_update) in updates.iter().zip(&decimal_updates) {
            assert!(ours.apply(&update.bids, &update.asks).is_ok());
            theirs.apply(decimal_update);
        }
        assert_same(&ours, &bands, &theirs, &fractions);

        let mut cycle = updates.iter().cycle();
        group.bench_function(BenchmarkId::new("apply/chunked", levels), |bencher| {
            bencher.iter(|| {
                cycle.next().map(|update| ours.apply(black_box(&update.bids), black_box(&update.asks)))
            });
        });
        let mut cycle = decimal_updates.iter().cycle();
        group.bench_function(BenchmarkId::new("apply/btreemap_decimal", levels), |bencher| {
            bencher.iter(|| cycle.next().map(|update| theirs.apply(black_box(update))));
        });
        let mut cycle = updates.iter().cycle();
        group.bench_function(BenchmarkId::new("apply_and_sums/chunked", levels), |bencher| {
            bencher.iter(|| {
                let applied =
                    cycle.next().map(|update| ours.apply(black_box(&update.bids), black_box(&update.asks)));
                (applied, ours.depth(black_box(&bands), DepthReference::Mid))
            });
        });
        let mut cycle = decimal_updates.iter().cycle();
        group.bench_function(BenchmarkId::new("apply_and_sums/btreemap_decimal", levels), |bencher| {
            bencher.iter(|| {
                if let Some(update) = cycle.next() {
                    theirs.apply(black_box(update));
                }
                theirs.depth(black_box(&fractions))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
