//! A circuit breaker in the common electrical words: closed = passing, open = tripped, half open = one probe.
//!
//! Pure: time is an argument. Used for restarts, and by actors for whatever they connect to.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::backoff::SpecError;
use super::clock::{Micros, micros};

/// So many failures inside a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Threshold {
    /// The failure that trips, counted from 1.
    pub failures: u32,
    /// The sliding window they are counted in.
    pub window: Duration,
}

/// How long a tripped breaker stays open: from `open_min`, doubled by each failed probe, up to `open_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSpec {
    open_min: Duration,
    open_max: Duration,
}

impl BreakerSpec {
    /// A checked specification.
    ///
    /// # Errors
    /// When `open_min` is zero or above `open_max`.
    pub fn try_new(open_min: Duration, open_max: Duration) -> Result<Self, SpecError> {
        if open_min.is_zero() {
            return Err(SpecError::Zero("breaker open_min"));
        }
        if open_min > open_max {
            return Err(SpecError::Order("breaker open_min", "breaker open_max"));
        }
        Ok(Self { open_min, open_max })
    }
}

impl BreakerSpec {
    /// The longest it stays open.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.open_max
    }
}

impl Default for BreakerSpec {
    /// 10 s, doubling to 2 min.
    fn default() -> Self {
        Self { open_min: Duration::from_secs(10), open_max: Duration::from_secs(120) }
    }
}

/// The state at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BreakerState {
    /// Passing.
    Closed,
    /// Tripped: nothing is tried before `until_us`.
    Open {
        /// Microseconds UTC.
        until_us: Micros,
    },
    /// One probe may go; its result decides.
    HalfOpen,
}

/// See the head of the module.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: Threshold,
    spec: BreakerSpec,
    failures: VecDeque<Micros>,
    tripped: Option<Trip>,
}

#[derive(Clone, Copy, Debug)]
struct Trip {
    until_us: Micros,
    lasts: Duration,
}

impl Breaker {
    /// A closed breaker. A threshold of zero failures is taken as one.
    #[must_use]
    pub fn new(threshold: Threshold, spec: BreakerSpec) -> Self {
        let threshold = Threshold { failures: threshold.failures.max(1), ..threshold };
        Self { threshold, spec, failures: VecDeque::new(), tripped: None }
    }

    /// The state at `now`.
    #[must_use]
    pub fn state(&self, now: Micros) -> BreakerState {
        match self.tripped {
            None => BreakerState::Closed,
            Some(trip) if now < trip.until_us => BreakerState::Open { until_us: trip.until_us },
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// A failure at `now`. Trips at the threshold; a failed probe opens again for twice as long, to the cap. A
    /// failure while open (of an attempt that somebody forced) starts the same time again.
    pub fn on_failure(&mut self, now: Micros) {
        match (self.state(now), self.tripped) {
            (BreakerState::HalfOpen, Some(trip)) => self.trip(now, (trip.lasts * 2).min(self.spec.open_max)),
            (_, Some(trip)) => self.trip(now, trip.lasts),
            (_, None) => self.count(now),
        }
    }

    /// A success at `now`: closes a tripped breaker and forgets its failures. While closed it changes nothing, so
    /// that a thing which works for a moment between failures still trips.
    pub fn on_success(&mut self, _now: Micros) {
        if self.tripped.take().is_some() {
            self.failures.clear();
        }
    }

    /// Closes and forgets everything.
    pub fn reset(&mut self) {
        self.tripped = None;
        self.failures.clear();
    }

    /// Failures inside the window that ends at `now`.
    #[must_use]
    pub fn recent(&self, now: Micros) -> u32 {
        let from = now.saturating_sub(micros(self.threshold.window));
        u32::try_from(self.failures.iter().filter(|&&at| at > from).count()).unwrap_or(u32::MAX)
    }

    fn count(&mut self, now: Micros) {
        let from = now.saturating_sub(micros(self.threshold.window));
        self.failures.retain(|&at| at > from);
        self.failures.push_back(now);
        if self.failures.len() >= self.threshold.failures as usize {
            self.trip(now, self.spec.open_min);
        }
    }

    fn trip(&mut self, now: Micros, lasts: Duration) {
        self.tripped = Some(Trip { until_us: now.saturating_add(micros(lasts)), lasts });
    }
}

impl Default for Breaker {
    /// 5 failures in 60 s.
    fn default() -> Self {
        Self::new(Threshold { failures: 5, window: Duration::from_secs(60) }, BreakerSpec::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn transitions() {
        let mut breaker = Breaker::default();
        for n in 0..4 {
            breaker.on_failure(n * S);
            assert_eq!(breaker.state(n * S), BreakerState::Closed);
        }
        breaker.on_failure(4 * S);
        assert_eq!(breaker.state(4 * S), BreakerState::Open { until_us: 14 * S });
        assert_eq!(breaker.state(14 * S), BreakerState::HalfOpen);
        breaker.on_failure(14 * S);
        assert_eq!(breaker.state(15 * S), BreakerState::Open { until_us: 34 * S });
        breaker.on_success(40 * S);
        assert_eq!(breaker.state(40 * S), BreakerState::Closed);
        breaker.on_failure(41 * S);
        assert_eq!(breaker.state(41 * S), BreakerState::Closed, "failures before the closing are forgotten");
    }

    #[test]
    fn open_time_doubles_to_the_cap_and_starts_again_after_closing() {
        let spec = BreakerSpec::try_new(Duration::from_secs(1), Duration::from_secs(3)).unwrap();
        let mut breaker = Breaker::new(Threshold { failures: 1, window: Duration::from_secs(1) }, spec);
        let mut now = 0;
        for lasts in [1, 2, 3, 3] {
            breaker.on_failure(now);
            assert_eq!(breaker.state(now), BreakerState::Open { until_us: now + lasts * S });
            now += lasts * S;
        }
        breaker.on_success(now);
        breaker.on_failure(now);
        assert_eq!(breaker.state(now), BreakerState::Open { until_us: now + S });
    }

    #[test]
    fn a_failure_leaves_the_window_at_its_edge() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.on_failure(0);
        }
        breaker.on_failure(60 * S);
        assert_eq!(breaker.state(60 * S), BreakerState::Closed);
        assert_eq!(breaker.recent(60 * S), 1);

        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.on_failure(0);
        }
        breaker.on_failure(60 * S - 1);
        assert!(matches!(breaker.state(60 * S - 1), BreakerState::Open { .. }));
    }

    #[test]
    fn a_forced_failure_while_open_keeps_the_open_time() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| breaker.on_failure(0));
        breaker.on_failure(5 * S);
        assert_eq!(breaker.state(5 * S), BreakerState::Open { until_us: 15 * S });
    }
}
