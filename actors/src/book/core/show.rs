//! The top of the book that is stored at intervals, and what is shown to those who publish: candles, statistics, the top at
//! the same interval, and that the book has come into doubt.

use std::sync::Arc;

use fathom_delivery::live::{Body, Live, LiveTick};
use fathom_market::{
    sample::SampleState,
    table::{CandleRow, TickerRow},
    ticks::Tick,
};

use super::BookCore;
use crate::{
    book::{rows, sample},
    derived::Derived,
    kernel::clock::micros,
};

/// Levels a side that are shown while none are stored.
const LEVELS: usize = 20;

/// Where it is shown, and what was shown last.
#[derive(Default)]
pub(super) struct Show {
    derived: Arc<Derived>,
    /// The interval of the last book, counted from the epoch.
    interval: i64,
    state: Option<SampleState>,
}

impl BookCore {
    /// What is made from here on is shown there.
    #[must_use]
    pub fn showing(mut self, derived: Arc<Derived>) -> Self {
        self.show = Show { derived, ..Show::default() };
        self
    }

    pub(super) fn store_book(&mut self, now_us: i64) {
        let every_ms = i64::try_from(self.settings.stored_every.as_millis()).unwrap_or(i64::MAX).max(1);
        let now_ms = now_us / 1000;
        let interval = now_ms / every_ms;
        if self.settings.stored_levels == 0 || interval == self.last_stored {
            return;
        }
        let (Some(book), Some(last_id)) = (self.keeper.live_book(), self.keeper.last_id()) else { return };
        self.last_stored = interval;
        let (bids, asks) = book.top(self.settings.stored_levels);
        self.outbox.push(rows::orderbook(&self.instrument, &bids, &asks, last_id, now_ms));
    }

    pub(super) fn show_candle(&self, row: &CandleRow) {
        self.show_body(|| Body::Candle(row.clone()));
    }

    pub(super) fn show_ticker(&self, row: &TickerRow) {
        self.show_body(|| Body::Ticker(row.clone()));
    }

    pub(super) fn show_tick(&self, tick: &Tick) {
        self.show
            .derived
            .ticks
            .publish(|| Arc::new(LiveTick { instrument: self.instrument.clone(), tick: *tick }));
    }

    /// Shows the top of the book once an interval while it may be believed, and once that it no longer may.
    pub(super) fn show_book(&mut self, now_us: i64) {
        if self.show.derived.live.is_idle() {
            return;
        }
        let (state, at_ms) = (sample::sample_state(self.keeper.state()), now_us / 1000);
        let interval = now_us / micros(self.settings.stored_every).max(1);
        let changed = self.show.state != Some(state);
        let Some(last_id) = self.keeper.last_id().filter(|_| state.is_usable()) else {
            self.show.state = Some(state);
            return if changed {
                self.show_body(|| Body::Doubt { state, at_ms })
            };
        };
        if !changed && interval == self.show.interval {
            return;
        }
        (self.show.state, self.show.interval) = (Some(state), interval);
        let levels = if self.settings.stored_levels == 0 { LEVELS } else { self.settings.stored_levels };
        self.show_body(|| {
            let (bids, asks) = self.keeper.book().top(levels);
            Body::Book(state, rows::orderbook(&self.instrument, &bids, &asks, last_id, at_ms))
        });
    }

    fn show_body(&self, body: impl FnOnce() -> Body) {
        let make = || Arc::new(Live { instrument: self.instrument.clone(), body: body() });
        self.show.derived.live.publish(make);
    }
}
