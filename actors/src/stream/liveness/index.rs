//! Finds a stream by what it carries: two reads of small arrays instead of a hash, because every event asks.

use fathom_market::{event::Channel, instrument::InstrumentIdx, plan::StreamSpec, timeframe::Timeframe};

const NONE: u16 = u16::MAX;
const CHANNELS: usize = 5 + Timeframe::ALL.len();

/// Positions in a line's plan.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The row of each instrument.
    rows: Vec<u16>,
    /// The position of each channel of each row.
    positions: Vec<[u16; CHANNELS]>,
}

impl Index {
    /// For these streams. A line has fewer than 65535.
    pub(super) fn new(streams: &[StreamSpec]) -> Self {
        let mut index = Self::default();
        for (at, stream) in streams.iter().enumerate() {
            let row = index.row(stream.instrument);
            index.positions[row][column(stream.channel)] = u16::try_from(at).unwrap_or(NONE);
        }
        index
    }

    fn row(&mut self, instrument: InstrumentIdx) -> usize {
        let at = instrument.0 as usize;
        if at >= self.rows.len() {
            self.rows.resize(at + 1, NONE);
        }
        if self.rows[at] == NONE {
            self.rows[at] = u16::try_from(self.positions.len()).unwrap_or(NONE);
            self.positions.push([NONE; CHANNELS]);
        }
        self.rows[at] as usize
    }

    /// The position of a stream.
    #[inline]
    pub(super) fn get(&self, instrument: InstrumentIdx, channel: Channel) -> Option<usize> {
        let row = *self.rows.get(instrument.0 as usize)?;
        let at = self.positions.get(row as usize)?[column(channel)];
        (at != NONE).then_some(at as usize)
    }
}

#[inline]
const fn column(channel: Channel) -> usize {
    match channel {
        Channel::Quote => 0,
        Channel::Trade => 1,
        Channel::Depth => 2,
        Channel::Ticker => 3,
        Channel::Funding => 4,
        Channel::Candle(timeframe) => 5 + timeframe as usize,
    }
}
