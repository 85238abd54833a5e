//! The seeded market: which symbol steps next, and the beat of everything that is pushed by the clock.

pub(crate) mod book;
pub(crate) mod cell;
pub(crate) mod funding;
pub(crate) mod interval;
pub(crate) mod klines;
pub(crate) mod path;
pub(crate) mod symbol;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::MissedTickBehavior;

use crate::config::SeededConfig;
use crate::market::MarketState;
use crate::number::{now_ms, seed_of};

const TICK: Duration = Duration::from_millis(10);
/// After a pause of the process at most this much is caught up.
const CATCH_UP_MS: i64 = 250;

/// Drives a seeded market.
pub(crate) struct Runner {
    state: Arc<MarketState>,
    rng: SmallRng,
    /// Upper bounds of the symbols' shares.
    shares: Vec<f64>,
    per_ms: f64,
    credit: f64,
    last_ms: i64,
}

impl Runner {
    pub(crate) fn new(state: Arc<MarketState>, config: &SeededConfig, now_ms: i64) -> Self {
        let shares = state.listings.iter().scan(0.0, |sum, listing| {
            *sum += if listing.status == "TRADING" { listing.weight } else { 0.0 };
            Some(*sum)
        });
        Self {
            shares: shares.collect(),
            rng: SmallRng::seed_from_u64(seed_of(config.seed, state.market.as_str())),
            per_ms: config.events_per_second.max(0.0) / 1000.0,
            credit: 0.0,
            last_ms: now_ms,
            state,
        }
    }

    /// Runs until the runtime ends.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.tick(now_ms());
        }
    }

    /// Steps that are due, then what the clock pushes.
    #[allow(clippy::cast_precision_loss, reason = "a few milliseconds")]
    fn tick(&mut self, now_ms: i64) {
        let passed = (now_ms - self.last_ms).clamp(0, CATCH_UP_MS);
        self.last_ms = now_ms;
        self.credit += passed as f64 * self.per_ms;
        while self.credit >= 1.0 {
            self.credit -= 1.0;
            let Some(symbol) = self.pick() else { break };
            self.state.with_cell(symbol, now_ms, |cell, ctx| cell.step(ctx));
        }
        for symbol in 0..self.state.listings.len() {
            self.state.with_cell(symbol, now_ms, |cell, ctx| cell.tick(ctx));
        }
        self.state.tick_globals(now_ms);
    }

    fn pick(&mut self) -> Option<usize> {
        let total = *self.shares.last().filter(|total| **total > 0.0)?;
        let drawn = self.rng.random_range(0.0..total);
        Some(self.shares.partition_point(|bound| *bound <= drawn))
    }
}
