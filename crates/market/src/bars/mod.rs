//! One-second bars of quotes, trades and depth of one instrument, made from memory.
//!
//! An item belongs to the second `[s, s + 1)` of its **receive** time. A second without items has no bar. What arrives
//! for a second that is over goes to the open bar, or to the next one, and is counted as late: a finished bar is never
//! issued twice. Sums are integers throughout; rows are rounded half-even to twelve decimals where a column needs it.

mod kinds;
mod lane;
mod math;

pub use self::math::{MICRO_DECIMALS, TopOfBook, microprice, order_flow};
use self::{
    kinds::{DepthBar, QuoteBar, QuoteItem, TradeBar, TradeItem},
    lane::{Bar as _, Facts, Lane},
};
use crate::{
    event::{Level, Side},
    instrument::Instrument,
    table::{DepthBarRow, QuoteBarRow, TradeBarRow},
};

/// Finished bars of a kind that wait for [`SecondBars::roll`]; of more, the oldest are dropped and counted.
pub const PENDING_BARS: usize = 120;
const SECOND_US: i64 = 1_000_000;

/// What one depth update did to a book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DepthChange {
    /// Bid levels that changed.
    pub bid_changes: u32,
    /// Ask levels that changed.
    pub ask_changes: u32,
    /// Quantity added to bids, mantissa, not negative.
    pub bid_added: i128,
    /// Quantity taken from bids, mantissa, not negative.
    pub bid_removed: i128,
    /// Quantity added to asks, mantissa, not negative.
    pub ask_added: i128,
    /// Quantity taken from asks, mantissa, not negative.
    pub ask_removed: i128,
    /// Best levels before the update.
    pub before: TopOfBook,
    /// Best levels after it.
    pub after: TopOfBook,
    /// The venue's id of the update.
    pub last_id: u64,
}

/// What happened to items and bars; every count only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarCounts {
    /// Items of a second that was over, put into a later bar.
    pub late: u64,
    /// Items that no bar can hold: without positive values, or beyond what sums hold.
    pub rejected: u64,
    /// Bars dropped because a value does not fit its column.
    pub unfit: u64,
    /// Values rounded to fit their column.
    pub rounded: u64,
    /// Finished bars dropped because nobody fetched them.
    pub overflowed: u64,
}

/// Finished bars, ascending by second within each kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FinishedBars {
    /// Best bid and ask.
    pub quotes: Vec<QuoteBarRow>,
    /// Trades.
    pub trades: Vec<TradeBarRow>,
    /// Depth updates.
    pub depths: Vec<DepthBarRow>,
}

impl FinishedBars {
    /// True when there is no bar of any kind.
    pub fn is_empty(&self) -> bool {
        self.quotes.is_empty() && self.trades.is_empty() && self.depths.is_empty()
    }
}

/// The open bars of one instrument.
///
/// The first bar of each kind after the start, and after [`SecondBars::interrupt`], is marked partial, since the
/// beginning of its second may have been missed.
#[derive(Clone, Debug)]
pub struct SecondBars {
    facts: Facts,
    quotes: Lane<QuoteBar>,
    trades: Lane<TradeBar>,
    depths: Lane<DepthBar>,
    counts: BarCounts,
}

impl SecondBars {
    /// Bars of an instrument, on its scales of now; when its scales change, flush and begin anew.
    pub fn new(instrument: &Instrument) -> Self {
        let facts = Facts {
            instrument_id: instrument.id.0,
            price_scale: instrument.price_scale,
            qty_scale: instrument.qty_scale,
        };
        Self {
            facts,
            quotes: Lane::default(),
            trades: Lane::default(),
            depths: Lane::default(),
            counts: BarCounts::default(),
        }
    }

    /// Takes a best bid and ask that was received at `time_us`. False when it is rejected.
    pub fn on_quote(&mut self, bid: Level, ask: Level, time_us: i64) -> bool {
        let item = microprice(bid, ask).map(|micro| QuoteItem { bid: bid.price, ask: ask.price, micro });
        self.quotes.take(item, time_us, &self.facts, &mut self.counts)
    }

    /// Takes a trade that was received at `time_us`: mantissas, both positive. False when it is rejected.
    pub fn on_trade(&mut self, price: i64, qty: i64, side: Side, time_us: i64) -> bool {
        let item = (price > 0 && qty > 0).then_some(TradeItem { price, qty, side });
        self.trades.take(item, time_us, &self.facts, &mut self.counts)
    }

    /// Takes what a depth update, received at `time_us`, did to the book. False when it is rejected.
    pub fn on_depth(&mut self, change: &DepthChange, time_us: i64) -> bool {
        self.depths.take(Some(*change), time_us, &self.facts, &mut self.counts)
    }

    /// Finishes the bars of all seconds before that of `now_us` and gives those that wait. What is received for such a
    /// second and comes in later is late, so `now_us` should lag behind the clock by as much as the inbox may.
    pub fn roll(&mut self, now_us: i64) -> FinishedBars {
        let second = now_us.div_euclid(SECOND_US);
        FinishedBars {
            quotes: self.quotes.roll(second, &self.facts, &mut self.counts),
            trades: self.trades.roll(second, &self.facts, &mut self.counts),
            depths: self.depths.roll(second, &self.facts, &mut self.counts),
        }
    }

    /// Finishes everything at a shutdown: a bar whose second is not over at `now_us` is partial.
    pub fn flush(&mut self, now_us: i64) -> FinishedBars {
        let mut finished = self.roll(now_us);
        self.interrupt();
        finished.quotes.extend(self.quotes.finish(&self.facts, &mut self.counts));
        finished.trades.extend(self.trades.finish(&self.facts, &mut self.counts));
        finished.depths.extend(self.depths.finish(&self.facts, &mut self.counts));
        finished
    }

    /// Says that items may have been missed from now on, as when a line is lost: the open bars are partial, and so is
    /// the next bar of each kind.
    pub fn interrupt(&mut self) {
        self.quotes.interrupt();
        self.trades.interrupt();
        self.depths.interrupt();
    }

    /// What happened to items and bars so far.
    pub const fn counts(&self) -> BarCounts {
        self.counts
    }
}

/// A bar made afterwards, of all trades of its second in their order: price and quantity as mantissas on these scales, and
/// the taker's side. `None` without a trade, for a trade without positive values, and beyond what a bar holds.
pub fn bar_of_trades(
    instrument_id: i64,
    second_ms: i64,
    (price_scale, qty_scale): (u8, u8),
    trades: impl IntoIterator<Item = (i64, i64, Side)>,
    partial: bool,
) -> Option<TradeBarRow> {
    let mut bar: Option<TradeBar> = None;
    for (price, qty, side) in trades {
        let item = (price > 0 && qty > 0).then_some(TradeItem { price, qty, side })?;
        match &mut bar {
            Some(bar) => bar.add(&item).then_some(())?,
            None => bar = Some(TradeBar::start(&item)),
        }
    }
    bar?.row(&Facts { instrument_id, price_scale, qty_scale }, second_ms, partial, &mut 0)
}

#[cfg(test)]
mod tests;
