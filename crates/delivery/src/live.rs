//! What the collecting side makes, as it is to be published.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use fathom_market::{
    instrument::Instrument,
    sample::SampleState,
    table::{CandleRow, OrderbookRow, TickerRow},
    ticks::Tick,
};

/// One thing that was made of an instrument's events, in the form in which it is stored.
#[derive(Clone, Debug)]
pub struct Live {
    /// The instrument.
    pub instrument: Arc<Instrument>,
    /// What it is.
    pub body: Body,
}

/// What was made.
#[derive(Clone, Debug)]
pub enum Body {
    /// A candle as it came from its stream, open or closed.
    Candle(CandleRow),
    /// The top of a book that may be believed: live or polled.
    Book(SampleState, OrderbookRow),
    /// The book has come into doubt. Nothing of it may be shown as live.
    Doubt {
        /// Its state.
        state: SampleState,
        /// Since when, milliseconds.
        at_ms: i64,
    },
    /// 24 hour statistics.
    Ticker(TickerRow),
}

/// A best bid and ask, for the mirror of the tick rings.
#[derive(Clone, Debug)]
pub struct LiveTick {
    /// The instrument.
    pub instrument: Arc<Instrument>,
    /// The tick.
    pub tick: Tick,
}

impl Live {
    /// Of two with the same key only the newer is worth anything. The last word on a candle has a key of its own, so that
    /// no candle that follows takes its place.
    pub fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.instrument.id.hash(&mut hasher);
        match &self.body {
            Body::Candle(row) => (0_u8, row.timeframe.as_str(), row.closed).hash(&mut hasher),
            Body::Book(..) | Body::Doubt { .. } => 1_u8.hash(&mut hasher),
            Body::Ticker(_) => 2_u8.hash(&mut hasher),
        }
        hasher.finish()
    }
}
