//! Paces connection attempts to what a venue allows, for all lines of one host together. Pure but for its lock.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::kernel::clock::micros;

/// The gate of one venue and market.
#[derive(Debug)]
pub struct ConnectGate {
    attempts: usize,
    window_us: i64,
    reserved: Mutex<VecDeque<i64>>,
}

impl ConnectGate {
    /// Lets this many attempts pass in any window.
    pub fn new(attempts: u32, window: Duration) -> Self {
        let attempts = usize::try_from(attempts.max(1)).unwrap_or(usize::MAX);
        Self { attempts, window_us: micros(window), reserved: Mutex::default() }
    }

    /// Reserves the next attempt at or after `at_us` and gives its time.
    pub fn reserve(&self, at_us: i64) -> i64 {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = match reserved.len() {
            full if full >= self.attempts => reserved[full - self.attempts] + self.window_us,
            _ => at_us,
        };
        let at_us = at_us.max(earliest);
        // Kept in order, so that the one that leaves the window first is found at its place.
        let position = reserved.partition_point(|reserved| *reserved <= at_us);
        reserved.insert(position, at_us);
        while reserved.len() > self.attempts {
            reserved.pop_front();
        }
        at_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_window_holds_more_than_allowed(gaps in proptest::collection::vec(0_i64..20, 1..200)) {
            let gate = ConnectGate::new(5, Duration::from_micros(100));
            let (mut now, mut times) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                let at = gate.reserve(now);
                prop_assert!(at >= now);
                times.push(at);
            }
            times.sort_unstable();
            for window in times.windows(6) {
                prop_assert!(window[5] - window[0] >= 100, "{window:?}");
            }
        }
    }

    #[test]
    fn an_idle_gate_lets_pass_at_once() {
        assert_eq!(ConnectGate::new(300, Duration::from_secs(300)).reserve(7), 7);
    }
}
