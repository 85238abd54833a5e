//! Mark price, index and funding of a futures contract, derived from its seed. Eight decimals, no state.

use crate::number::mix;
use crate::universe::Listing;
use crate::wire::{Mark, futures};

const HOUR: i64 = 3_600_000;

/// The funding of one contract.
#[derive(Debug)]
pub(crate) struct Funding {
    seed: u64,
    interval_ms: i64,
    funded: bool,
}

impl Funding {
    pub(crate) const fn new(seed: u64, listing: &Listing) -> Self {
        Self { seed, interval_ms: listing.funding_hours * HOUR, funded: futures::has_funding(listing) }
    }

    /// The rate of a settlement, eight decimals: -0.0003 to 0.0007.
    pub(crate) fn rate(&self, settlement_ms: i64) -> i128 {
        let hash = mix(self.seed ^ 0xf0d1, settlement_ms.div_euclid(self.interval_ms).cast_unsigned());
        i128::from(hash % 100_000) - 30_000
    }

    fn next(&self, now_ms: i64) -> i64 {
        (now_ms.div_euclid(self.interval_ms) + 1) * self.interval_ms
    }

    pub(crate) fn mark(&self, listing: &Listing, bid: i64, ask: i64, now_ms: i64) -> Mark {
        let unit = 10_i128.pow(u32::from(8 - listing.price_scale.min(8)));
        let middle = (i128::from(bid) + i128::from(ask)) * unit / 2;
        let premium = i128::from(mix(self.seed, now_ms.div_euclid(60_000).cast_unsigned()) % 600) - 300;
        let next_funding_ms = self.next(now_ms);
        // The running rate closes in on the settlement's own.
        let done = i128::from(self.interval_ms - (next_funding_ms - now_ms));
        let rate = 10_000 + (self.rate(next_funding_ms) - 10_000) * done / i128::from(self.interval_ms);
        Mark {
            mark: middle,
            index: middle - middle * premium / 1_000_000,
            rate: self.funded.then_some(rate),
            next_funding_ms: if self.funded { next_funding_ms } else { 0 },
        }
    }

    /// Past settlements in `[from, to]`, oldest first, a few milliseconds past the hour as recorded ones are.
    pub(crate) fn settlements(&self, from_ms: i64, to_ms: i64, limit: usize) -> Vec<(i64, i128)> {
        if !self.funded {
            return Vec::new();
        }
        let first = from_ms.div_euclid(self.interval_ms) * self.interval_ms;
        let count = usize::try_from((to_ms - first).max(0) / self.interval_ms + 1).unwrap_or(0);
        let hours = (0..count).map(|slot| first + i64::try_from(slot).unwrap_or(0) * self.interval_ms);
        let late = |at: i64| at + i64::try_from(mix(self.seed, at.cast_unsigned()) % 45).unwrap_or(0);
        let rows = hours.map(|at| (late(at), self.rate(at)));
        rows.filter(|(at, _)| (from_ms..=to_ms).contains(at)).take(limit).collect()
    }

    /// The newest settlements up to `to_ms`, oldest first.
    pub(crate) fn newest(&self, to_ms: i64, limit: usize) -> Vec<(i64, i128)> {
        let span = self.interval_ms.saturating_mul(i64::try_from(limit).unwrap_or(1000) + 1);
        let mut rows = self.settlements(to_ms - span, to_ms, limit + 2);
        rows.drain(..rows.len().saturating_sub(limit));
        rows
    }
}
