//! How often a stream speaks: its inter-arrival times in a histogram of fixed size that forgets slowly. Pure.
//!
//! What one read of the socket brings is one arrival: a burst says nothing of how long the stream may be silent.

/// Buckets of an octave.
const STEPS: u32 = 4;
/// Intervals below this share the first bucket: no silence is judged that finely.
const SHORTEST_US: i64 = 1 << 14;
const OCTAVES: u32 = 18;
/// From 16 ms to 71 minutes; the last bucket takes the longer ones.
const BUCKETS: usize = (OCTAVES * STEPS) as usize + 1;
/// With this many intervals all counts are halved: the past fades.
const FULL: u16 = 32_768;
/// Arrivals and time after which a pace is known.
const LEARNED_INTERVALS: u16 = 64;
const LEARNED_US: i64 = 10_000_000;

/// The learned pace of one stream, about 160 bytes.
#[derive(Clone, Debug)]
pub struct Pace {
    counts: [u16; BUCKETS],
    total: u16,
    observed_us: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0, observed_us: 0 }
    }
}

impl Pace {
    /// Adds the time between two arrivals.
    #[inline]
    pub fn add(&mut self, interval_us: i64) {
        self.counts[bucket(interval_us)] += 1;
        self.total += 1;
        self.observed_us = self.observed_us.saturating_add(interval_us);
        if self.total == FULL {
            self.fade();
        }
    }

    #[cold]
    fn fade(&mut self) {
        for count in &mut self.counts {
            *count /= 2;
        }
        self.total = self.counts.iter().sum();
    }

    /// The interval that one of a thousand exceeds, microseconds, rounded down by at most a fifth; the longest one while
    /// fewer are known. `None` until enough was seen to tell.
    pub fn p999_us(&self) -> Option<i64> {
        if self.total < LEARNED_INTERVALS || self.observed_us < LEARNED_US {
            return None;
        }
        let (mut above, beyond) = (0, self.total / 1000);
        let found = self.counts.iter().rposition(|count| {
            above += count;
            above > beyond
        });
        found.map(lower_edge)
    }
}

/// A quarter of an octave each: the exponent and the two bits after the leading one.
#[inline]
fn bucket(interval_us: i64) -> usize {
    if interval_us < SHORTEST_US {
        return 0;
    }
    let octave = interval_us.ilog2();
    let step = (interval_us >> (octave - 2)) & 3;
    let at = (octave - SHORTEST_US.ilog2()) * STEPS + step as u32 + 1;
    (at as usize).min(BUCKETS - 1)
}

fn lower_edge(bucket: usize) -> i64 {
    let Some(at) = bucket.checked_sub(1) else { return 0 };
    let (octave, step) = (at / STEPS as usize, at % STEPS as usize);
    (SHORTEST_US << octave) / 4 * (4 + step as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_begins_at_most_a_fifth_below_what_it_holds(interval_us in SHORTEST_US..(1 << 32)) {
            let edge = lower_edge(bucket(interval_us));
            prop_assert!(edge <= interval_us && interval_us < edge + edge / 4, "{edge}");
        }

        #[test]
        fn the_quantile_is_that_of_the_sorted_intervals(
            intervals in proptest::collection::vec(SHORTEST_US..(1 << 32), 64..3000),
        ) {
            let mut pace = Pace::default();
            intervals.iter().for_each(|interval| pace.add(*interval));
            let mut sorted = intervals;
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let exact = sorted[sorted.len() / 1000];
            prop_assert_eq!(pace.p999_us(), Some(lower_edge(bucket(exact))));
        }
    }

    #[test]
    fn nothing_is_known_of_a_stream_that_was_hardly_heard() {
        let mut pace = Pace::default();
        (0..63).for_each(|_| pace.add(1_000_000));
        assert_eq!(pace.p999_us(), None);
        pace.add(1_000_000);
        assert_eq!(pace.p999_us(), Some(917_504));
        let mut burst = Pace::default();
        (0..1000).for_each(|_| burst.add(5000));
        assert_eq!(burst.p999_us(), None, "a thousand in five seconds");
    }

    #[test]
    fn the_past_fades_and_the_counts_stay_bounded() {
        let mut pace = Pace::default();
        (0..10_000).for_each(|_| pace.add(60_000_000));
        (0..400_000).for_each(|_| pace.add(1_000_000));
        assert_eq!(pace.p999_us(), Some(917_504));
        pace.add(i64::MAX);
        assert!(pace.p999_us().is_some());
        assert!(size_of::<Pace>() <= 168, "{}", size_of::<Pace>());
    }
}
