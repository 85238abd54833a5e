//! Whether an instrument's candles follow each other without a hole. Pure.

use std::collections::BTreeMap;

use fathom_market::{event::Candle, timeframe::Timeframe};

/// A hole that a request did not fill is asked for again after this time.
const ASK_AGAIN_US: i64 = 60_000_000;

/// The ends of one instrument's candle series.
#[derive(Debug, Default)]
pub struct Series {
    /// Start of the last closed candle up to which nothing is missing.
    stored: BTreeMap<Timeframe, i64>,
    /// The hole last asked for, and when.
    asked: BTreeMap<Timeframe, (i64, i64)>,
    /// Start of the first live candle.
    first: BTreeMap<Timeframe, i64>,
    /// Start of the last closed candle.
    closed: BTreeMap<Timeframe, i64>,
    resumed: bool,
}

impl Series {
    /// An earlier instance has collected before: what came just before its successor's first candle may be missing.
    pub const fn resume(&mut self) {
        self.resumed = true;
    }

    /// Where a series begins of which nothing was stored before: at the start of the candle before its first live one.
    /// Said once, so that a stop before its first closed candle leaves no hole that nobody knows of.
    pub fn begins(&mut self, candle: &Candle, caught_up: bool) -> Option<i64> {
        let first = *self.first.entry(candle.timeframe).or_insert(candle.open_ms);
        if !caught_up || self.resumed || self.stored.contains_key(&candle.timeframe) {
            return None;
        }
        let before = first - candle.timeframe.fixed_ms().unwrap_or(1);
        self.reach(candle.timeframe, before);
        Some(before)
    }

    /// An earlier instance, or process, had the series up to the candle that starts then: what follows is a hole.
    pub fn goes_on(&mut self, timeframe: Timeframe, open_ms: i64) {
        self.stored.entry(timeframe).or_insert(open_ms);
    }

    /// All is stored up to the candle that starts then.
    pub fn caught_up(&mut self, timeframe: Timeframe, open_ms: i64) {
        self.reach(timeframe, open_ms);
    }

    /// The start of what has to be fetched because of this live candle: one that ended without its last word, or what
    /// lies between the last closed one and this. While the series is being caught up, the catch-up will come by.
    pub fn missing(
        &mut self,
        candle: &Candle,
        unfinished: Option<i64>,
        caught_up: bool,
        now_us: i64,
    ) -> Option<i64> {
        let length = candle.timeframe.fixed_ms();
        let hole = match (self.stored.get(&candle.timeframe), length) {
            (Some(&last), Some(length)) if caught_up && candle.open_ms > last + length => Some(last + length),
            (None, Some(length)) if self.resumed => Some(candle.open_ms - length),
            _ => None,
        };
        let from_ms = match (hole, unfinished) {
            (Some(hole), Some(unfinished)) => hole.min(unfinished),
            (hole, unfinished) => hole.or(unfinished)?,
        };
        let asked = self.asked.get(&candle.timeframe);
        if asked.is_some_and(|(asked, at)| *asked == from_ms && now_us - at < ASK_AGAIN_US) {
            return None;
        }
        self.asked.insert(candle.timeframe, (from_ms, now_us));
        Some(from_ms)
    }

    /// True when this candle, or a later one, has closed: nothing but another closed one follows it.
    pub fn is_closed(&self, candle: &Candle) -> bool {
        self.closed.get(&candle.timeframe).is_some_and(|last| *last >= candle.open_ms)
    }

    /// A live candle closed.
    pub fn closed_live(&mut self, candle: &Candle) {
        self.note_closed(candle);
        let follows = match (self.stored.get(&candle.timeframe), candle.timeframe.fixed_ms()) {
            (Some(&last), Some(length)) => candle.open_ms <= last + length,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if follows {
            self.reach(candle.timeframe, candle.open_ms);
        }
    }

    /// A fetched candle: the venue lists all that there are, in order.
    pub fn fetched(&mut self, candle: &Candle) {
        if candle.closed {
            self.note_closed(candle);
            self.reach(candle.timeframe, candle.open_ms);
        }
    }

    /// True when nothing is missing up to and with this candle.
    pub fn is_stored_up_to(&self, candle: &Candle) -> bool {
        self.stored.get(&candle.timeframe).is_some_and(|last| *last >= candle.open_ms)
    }

    /// Start of the last closed candle up to which nothing is missing.
    pub fn stored_ms(&self, timeframe: Timeframe) -> Option<i64> {
        self.stored.get(&timeframe).copied()
    }

    fn note_closed(&mut self, candle: &Candle) {
        let last = self.closed.entry(candle.timeframe).or_insert(candle.open_ms);
        *last = candle.open_ms.max(*last);
    }

    fn reach(&mut self, timeframe: Timeframe, open_ms: i64) {
        let last = self.stored.entry(timeframe).or_insert(open_ms);
        *last = open_ms.max(*last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const MINUTE: i64 = 60_000;

    fn candle(minute: i64, closed: bool) -> Candle {
        fixtures::candle(minute * MINUTE, closed)
    }

    #[test]
    fn a_series_without_a_hole_asks_for_nothing() {
        let mut series = Series::default();
        series.begins(&candle(1, false), true);
        for minute in 1..10 {
            assert_eq!(series.missing(&candle(minute, false), None, true, 0), None);
            assert_eq!(series.missing(&candle(minute, true), None, true, 0), None);
            series.closed_live(&candle(minute, true));
            assert!(series.is_stored_up_to(&candle(minute, true)));
        }
    }

    #[test]
    fn minutes_lost_with_a_line_are_asked_for_and_hold_the_end_back() {
        let mut series = Series::default();
        assert_eq!(series.begins(&candle(1, true), true), Some(0));
        assert_eq!(series.begins(&candle(1, true), true), None, "said once");
        series.closed_live(&candle(1, true));
        assert_eq!(series.missing(&candle(4, false), None, true, 0), Some(2 * MINUTE));
        assert_eq!(series.missing(&candle(4, false), None, true, 1), None, "asked once");
        series.closed_live(&candle(4, true));
        assert!(!series.is_stored_up_to(&candle(4, true)), "two minutes are missing");
        assert_eq!(
            series.missing(&candle(5, false), None, true, ASK_AGAIN_US),
            Some(2 * MINUTE),
            "asked again"
        );
        (2..=4).for_each(|minute| series.fetched(&candle(minute, true)));
        assert!(series.is_stored_up_to(&candle(4, true)));
        assert_eq!(series.missing(&candle(5, false), None, true, 2 * ASK_AGAIN_US), None);
    }

    #[test]
    fn what_the_catch_up_could_not_see_yet_is_asked_for() {
        let mut series = Series::default();
        series.closed_live(&candle(7, true));
        assert!(!series.is_stored_up_to(&candle(7, true)));
        series.fetched(&candle(5, true));
        assert_eq!(series.missing(&candle(8, false), None, false, 0), None, "the catch-up goes on");
        assert_eq!(series.missing(&candle(8, false), None, true, 0), Some(6 * MINUTE));
    }

    #[test]
    fn a_later_instance_looks_one_candle_back() {
        let mut series = Series::default();
        series.resume();
        assert_eq!(series.missing(&candle(7, false), None, true, 0), Some(6 * MINUTE));
        series.closed_live(&candle(7, true));
        assert!(!series.is_stored_up_to(&candle(7, true)));
        series.fetched(&candle(6, true));
        series.closed_live(&candle(7, true));
        assert!(series.is_stored_up_to(&candle(7, true)));
    }

    #[test]
    fn what_has_closed_does_not_open_again() {
        let mut series = Series::default();
        assert!(!series.is_closed(&candle(3, false)));
        series.closed_live(&candle(3, true));
        assert_eq!([2, 3, 4].map(|minute| series.is_closed(&candle(minute, false))), [true, true, false]);
        series.fetched(&candle(4, true));
        assert!(series.is_closed(&candle(4, false)));
    }

    #[test]
    fn a_later_instance_that_knows_of_a_hole_asks_for_all_of_it() {
        let mut series = Series::default();
        series.resume();
        series.goes_on(Timeframe::M1, 3 * MINUTE);
        assert_eq!(series.begins(&candle(7, false), true), None);
        assert_eq!(series.missing(&candle(7, false), None, true, 0), Some(4 * MINUTE));
        series.closed_live(&candle(7, true));
        assert!(!series.is_stored_up_to(&candle(7, true)));
        series.goes_on(Timeframe::M1, 6 * MINUTE);
        assert_eq!(series.stored_ms(Timeframe::M1), Some(3 * MINUTE), "once");
    }

    #[test]
    fn a_candle_without_its_last_word_is_asked_for() {
        let mut series = Series::default();
        assert_eq!(series.missing(&candle(3, false), Some(2 * MINUTE), true, 0), Some(2 * MINUTE));
    }
}
