//! When a book without its stream is fetched from the REST service instead. Pure: the actor asks.
//!
//! One request of a book is under way at most, and the venue's budget decides when it leaves: with many books away
//! the interval stretches by itself.

use std::time::Duration;

use crate::kernel::clock::micros;

/// The longest wait after failures.
const LONGEST_US: i64 = 60_000_000;
/// A first connection takes its time; it is not answered by polling before so many times the usual patience.
const FIRST_PATIENCE: i64 = 6;
/// A polled book is not believed for longer than so many intervals, and a minute.
const BELIEVED_INTERVALS: i64 = 6;
const BELIEVED_US: i64 = 60_000_000;
/// So many polls in a row without a change say that a silent stream has missed nothing.
const QUIET_POLLS: u32 = 6;

/// When books are polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollRules {
    /// A depth stream may be away for this long.
    pub after: Duration,
    /// Interval of the polls of one book.
    pub every: Duration,
    /// Levels a side.
    pub levels: usize,
}

/// The polling of one book.
#[derive(Debug)]
pub struct Polling {
    rules: Option<PollRules>,
    away_since_us: Option<i64>,
    /// The stream has been there before.
    was_open: bool,
    asked_us: Option<i64>,
    next_us: i64,
    failures: u32,
    unmoved: u32,
}

impl Polling {
    /// Nothing is away yet; without rules nothing is ever polled.
    pub const fn new(rules: Option<PollRules>) -> Self {
        Self {
            rules,
            away_since_us: None,
            was_open: false,
            asked_us: None,
            next_us: 0,
            failures: 0,
            unmoved: 0,
        }
    }

    /// The stream is there.
    pub const fn opened(&mut self) {
        self.was_open = true;
    }

    /// How many levels are to be asked for now, given whether the stream is away; `None` while nothing is.
    pub fn wants(&mut self, is_away: bool, now_us: i64) -> Option<usize> {
        let rules = self.rules?;
        if !is_away {
            *self = Self { was_open: self.was_open, ..Self::new(self.rules) };
            return None;
        }
        let since_us = *self.away_since_us.get_or_insert(now_us);
        let patience_us = micros(rules.after) * if self.was_open { 1 } else { FIRST_PATIENCE };
        let due = now_us - since_us >= patience_us && now_us >= self.next_us;
        (due && self.asked_us.is_none()).then_some(rules.levels)
    }

    /// True while an answer is awaited.
    pub const fn is_under_way(&self) -> bool {
        self.asked_us.is_some()
    }

    /// The request leaves.
    pub const fn asked(&mut self, now_us: i64) {
        self.asked_us = Some(now_us);
    }

    /// The answer is in use. `moved` tells whether it differs from the one before it.
    pub fn succeeded(&mut self, moved: bool, now_us: i64) {
        self.unmoved = if moved { 0 } else { self.unmoved + 1 };
        self.failures = 0;
        self.plan_next(now_us);
    }

    /// There was no answer, or none of use.
    pub fn failed(&mut self, now_us: i64) {
        self.failures = self.failures.saturating_add(1);
        self.plan_next(now_us);
    }

    fn plan_next(&mut self, now_us: i64) {
        let Some(rules) = self.rules else { return };
        let asked_us = self.asked_us.take().unwrap_or(now_us);
        let every_us = micros(rules.every);
        let wait_us = every_us.saturating_mul(1 << self.failures.min(16)).min(LONGEST_US.max(every_us));
        self.next_us = (asked_us + wait_us).max(now_us);
    }

    /// The venue's book stands still, so that a stream which is silent has missed nothing.
    pub const fn is_quiet(&self) -> bool {
        self.unmoved >= QUIET_POLLS
    }

    /// The silent stream gets another chance, and the count begins anew.
    pub const fn forgiven(&mut self) {
        self.unmoved = 0;
    }

    /// How long a polled book is believed, microseconds.
    pub fn believed_us(&self) -> i64 {
        self.rules.map_or(0, |rules| (micros(rules.every) * BELIEVED_INTERVALS).max(BELIEVED_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn polling() -> Polling {
        let seconds = Duration::from_secs;
        let mut polling = Polling::new(Some(PollRules { after: seconds(5), every: seconds(5), levels: 100 }));
        polling.opened();
        polling
    }

    #[test]
    fn a_stream_that_is_away_is_polled_after_a_while_one_request_at_a_time() {
        let mut polling = polling();
        let asks: Vec<_> = (0..30).filter(|s| polling.wants(true, s * S).is_some()).collect();
        assert_eq!(asks, (5..30).collect::<Vec<_>>(), "until it is asked");
        polling.asked(30 * S);
        assert!((30..90).all(|s| polling.wants(true, s * S).is_none()), "the budget has no room yet");
        polling.succeeded(true, 90 * S);
        assert_eq!(polling.wants(true, 90 * S), Some(100));
        polling.asked(90 * S);
        polling.succeeded(true, 91 * S);
        assert_eq!((polling.wants(true, 94 * S), polling.wants(true, 95 * S)), (None, Some(100)));
        assert_eq!(polling.wants(false, 96 * S), None);
        assert!((97..102).all(|s| polling.wants(true, s * S).is_none()), "away anew");
        assert_eq!(polling.wants(true, 102 * S), Some(100));
    }

    #[test]
    fn failures_slow_it_down_and_success_does_not() {
        let mut polling = polling();
        let (mut now, mut asked) = (0, Vec::new());
        while now < 300 {
            if polling.wants(true, now * S).is_some() {
                asked.push(now);
                polling.asked(now * S);
                polling.failed(now * S);
            }
            now += 1;
        }
        assert_eq!(asked, [5, 15, 35, 75, 135, 195, 255]);
        assert!(polling.wants(true, 315 * S).is_some());
        polling.asked(315 * S);
        polling.succeeded(false, 315 * S);
        assert!(polling.wants(true, 320 * S).is_some());
    }

    #[test]
    fn a_first_connection_has_more_time_and_without_rules_nothing_is_polled() {
        let rules = PollRules { after: Duration::from_secs(5), every: Duration::from_secs(5), levels: 100 };
        let mut first = Polling::new(Some(rules));
        assert_eq!((0..60).find(|s| first.wants(true, s * S).is_some()), Some(30));
        let mut off = Polling::new(None);
        assert!((0..600).all(|s| off.wants(true, s * S).is_none()));
    }

    #[test]
    fn a_book_that_stands_still_absolves_its_stream() {
        let mut polling = polling();
        for moved in [true, false, false, false, true, false, false, false, false, false] {
            polling.succeeded(moved, 0);
            assert!(!polling.is_quiet());
        }
        polling.succeeded(false, 0);
        assert!(polling.is_quiet());
        polling.forgiven();
        assert!(!polling.is_quiet());
    }
}
