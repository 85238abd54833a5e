//! The seeded market: which symbol steps next, and the beat of everything that is pushed by the clock.

pub(crate) mod alter;
pub(crate) mod book;
pub(crate) mod cell;
mod depth;
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

/// How often the pace is set to the messages that were asked for.
const PACE_EVERY_MS: i64 = 250;
/// Steps a second are held below this, whatever was asked for.
const MOST_STEPS: f64 = 2_000_000.0;

/// Drives a seeded market.
pub(crate) struct Runner {
    state: Arc<MarketState>,
    rng: SmallRng,
    /// Upper bounds of the symbols' shares, and the change of the market's symbols that they are of.
    shares: Vec<f64>,
    shares_of: u64,
    credit: f64,
    last_ms: i64,
    /// When the pace was last looked at, and the frames sent by then.
    paced: (i64, u64),
}

impl Runner {
    pub(crate) fn new(state: Arc<MarketState>, config: &SeededConfig, now_ms: i64) -> Self {
        Self {
            shares: state.shares(),
            shares_of: state.changes(),
            rng: SmallRng::seed_from_u64(seed_of(config.seed, state.market.as_str())),
            credit: 0.0,
            last_ms: now_ms,
            paced: (now_ms, 0),
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
        self.look(now_ms);
        let passed = (now_ms - self.last_ms).clamp(0, CATCH_UP_MS);
        self.last_ms = now_ms;
        self.credit += passed as f64 * self.state.rate.steps() / 1000.0;
        while self.credit >= 1.0 {
            self.credit -= 1.0;
            let Some(symbol) = self.pick() else { break };
            self.state.with_cell(symbol, now_ms, |cell, ctx| cell.step(ctx));
        }
        for symbol in 0..self.state.roster.len() {
            self.state.with_cell(symbol, now_ms, |cell, ctx| cell.tick(ctx));
        }
        self.state.tick_globals(now_ms);
    }

    /// Follows listings and the pace that was asked for.
    #[allow(clippy::cast_precision_loss, reason = "a pace")]
    fn look(&mut self, now_ms: i64) {
        let changes = self.state.changes();
        if changes != self.shares_of {
            self.shares = self.state.shares();
            self.shares_of = changes;
        }
        let (since, before) = self.paced;
        if now_ms - since < PACE_EVERY_MS {
            return;
        }
        let sent = self.state.memory.sent();
        self.paced = (now_ms, sent);
        if let Some(wanted) = self.state.rate.messages() {
            let measured = (sent - before) as f64 * 1000.0 / (now_ms - since) as f64;
            self.state.rate.follow(paced(self.state.rate.steps(), wanted, measured));
        }
    }

    fn pick(&mut self) -> Option<usize> {
        let total = *self.shares.last().filter(|total| **total > 0.0)?;
        let drawn = self.rng.random_range(0.0..total);
        Some(self.shares.partition_point(|bound| *bound <= drawn))
    }
}

/// The steps a second that bring the messages a second from `measured` towards `wanted`.
fn paced(steps: f64, wanted: f64, measured: f64) -> f64 {
    // Nobody listens: there is nothing to measure.
    if measured < 1.0 {
        return steps;
    }
    (steps.max(1.0) * (wanted / measured).clamp(0.5, 2.0)).min(MOST_STEPS)
}

#[cfg(test)]
mod tests {
    use super::paced;

    #[test]
    fn the_pace_nears_the_messages_that_were_asked_for() {
        let mut steps = 400.0;
        for _ in 0..20 {
            let measured = 300.0 + steps * 1.7;
            steps = paced(steps, 20_000.0, measured);
        }
        let measured = 300.0 + steps * 1.7;
        assert!((measured - 20_000.0).abs() < 400.0, "{measured}");
        assert!((paced(400.0, 20_000.0, 0.0) - 400.0).abs() < f64::EPSILON, "nobody listens");
    }
}
