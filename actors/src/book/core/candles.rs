//! Candles: which are stored, live or fetched, and which are missed.

use fathom_market::{event::Candle, timeframe::Timeframe, validate::check_candle};

use super::{Action, BookCore, Origin, Pending};
use crate::book::rows;

impl BookCore {
    pub(super) fn on_candle(&mut self, candle: Candle, updated_us: i64, actions: &mut Vec<Action>) {
        let timeframe = candle.timeframe;
        if !candle.closed && self.series.is_closed(&candle) {
            return self.reject("candle_reopened", 1);
        }
        let unfinished = self.open_candles.get(&timeframe).map(|open| open.candle.open_ms);
        let unfinished = unfinished.filter(|open_ms| *open_ms < candle.open_ms);
        if unfinished.is_some() {
            self.open_candles.remove(&timeframe);
        }
        let caught_up = self.is_caught_up(timeframe);
        let before = self.gaps.lock().candles_before(timeframe);
        if let Some(open_ms) = before {
            self.series.goes_on(timeframe, open_ms);
        }
        if let Some(open_ms) = self.series.begins(&candle, caught_up) {
            self.outbox.push(rows::collector_state(&self.instrument, timeframe, open_ms, updated_us, true));
        }
        if let Some(from_ms) = self.series.missing(&candle, unfinished, caught_up, updated_us) {
            actions.push(Action::FetchCandle(timeframe, from_ms));
        }
        if candle.closed {
            self.series.closed_live(&candle);
            self.open_candles.remove(&timeframe);
            self.store_candle(&candle, updated_us, Origin::Live);
        } else {
            self.open_candles.insert(timeframe, Pending { candle, updated_us, stored: false });
        }
        self.settle_candles(timeframe, updated_us);
    }

    pub(super) fn store_candle(&mut self, candle: &Candle, updated_us: i64, origin: Origin) {
        match rows::candle(&self.instrument, candle, updated_us) {
            Ok(stored) => {
                if stored.rounded {
                    self.reject("candle_rounded", 1);
                }
                let live = origin == Origin::Live;
                if live {
                    self.show_candle(&stored.row);
                }
                self.outbox.push(stored.row);
                if candle.closed && (!live || self.series.is_stored_up_to(candle)) {
                    self.outbox.push(rows::collector_state(
                        &self.instrument,
                        candle.timeframe,
                        candle.open_ms,
                        updated_us,
                        live,
                    ));
                }
            }
            Err(_) => self.reject("candle_out_of_range", 1),
        }
    }

    pub(super) fn on_fetched_candle(&mut self, candle: &Candle, updated_us: i64) {
        if let Err(flag) = check_candle(candle) {
            return self.reject(flag.as_str(), 1);
        }
        self.series.fetched(candle);
        self.store_candle(candle, updated_us, Origin::Fetched);
        self.settle_candles(candle.timeframe, updated_us);
    }

    pub(super) fn is_caught_up(&self, timeframe: Timeframe) -> bool {
        self.caught_up.as_ref().is_none_or(|(caught_up, idx)| caught_up.has(*idx, timeframe))
    }

    /// Stores open candles that changed.
    pub(super) fn flush_candles(&mut self) {
        let due: Vec<_> = self
            .open_candles
            .values_mut()
            .filter(|open| !open.stored)
            .map(|open| {
                open.stored = true;
                (open.candle.clone(), open.updated_us)
            })
            .collect();
        for (candle, updated_us) in due {
            self.store_candle(&candle, updated_us, Origin::Live);
        }
    }
}
