//! How long data is on its way: a histogram that many actors count in and anybody reads, without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets, microseconds; a last bucket takes what is beyond.
pub const BOUNDS_US: [u64; 16] = [
    50, 100, 200, 500, 1000, 2000, 3000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    5_000_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a [`Latency`] has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyCounts {
    /// Counts at or below each of [`BOUNDS_US`], then all of them.
    pub cumulative: Vec<u64>,
    /// Sum of the durations, microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// Counts one duration; a negative one (the clock was set back) counts as none.
    pub fn record(&self, duration_us: i64) {
        let duration_us = u64::try_from(duration_us).unwrap_or(0);
        let at = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        self.buckets[at].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(duration_us, Relaxed);
    }

    /// What has been counted.
    pub fn counts(&self) -> LatencyCounts {
        let mut sum = 0;
        let cumulative = self.buckets.iter().map(|bucket| {
            sum += bucket.load(Relaxed);
            sum
        });
        LatencyCounts { cumulative: cumulative.collect(), sum_us: self.sum_us.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let latency = Latency::default();
        [-5, 50, 51, 5_000_000, 5_000_001].into_iter().for_each(|us| latency.record(us));
        let counts = latency.counts();
        assert_eq!(counts.cumulative[..2], [2, 3]);
        assert_eq!(counts.cumulative[BOUNDS_US.len() - 1..], [4, 5]);
        assert_eq!(counts.sum_us, 50 + 51 + 5_000_000 + 5_000_001);
    }
}
