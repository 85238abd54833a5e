//! Which candle series have been caught up with the present.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use fathom_market::{instrument::InstrumentIdx, timeframe::Timeframe};

/// Which candle series have been caught up with the present. Until a series is, its live candles do not move what is
/// known to be stored without a hole.
#[derive(Clone, Debug)]
pub struct CaughtUp(Arc<[AtomicU32]>);

impl CaughtUp {
    /// For this many instruments; `done` where nothing is caught up with at all.
    pub fn new(instruments: usize, done: bool) -> Self {
        let bits = if done { u32::MAX } else { 0 };
        Self((0..instruments).map(|_| AtomicU32::new(bits)).collect())
    }

    /// The series is stored up to now.
    pub fn mark(&self, instrument: InstrumentIdx, timeframe: Timeframe) {
        if let Some(bits) = self.0.get(instrument.0 as usize) {
            bits.fetch_or(Self::bit(timeframe), Relaxed);
        }
    }

    /// Nothing of the instrument is known to be stored: it was not collected for a while.
    pub fn forget(&self, instrument: InstrumentIdx) {
        if let Some(bits) = self.0.get(instrument.0 as usize) {
            bits.store(0, Relaxed);
        }
    }

    /// True once the series is stored up to the start of its live candles.
    pub fn has(&self, instrument: InstrumentIdx, timeframe: Timeframe) -> bool {
        self.0.get(instrument.0 as usize).is_none_or(|bits| bits.load(Relaxed) & Self::bit(timeframe) != 0)
    }

    fn bit(timeframe: Timeframe) -> u32 {
        Timeframe::ALL.iter().position(|one| *one == timeframe).map_or(0, |at| 1 << at)
    }
}
