//! What a bar of each kind sums up, and the row that it becomes.

use super::{
    DepthChange,
    lane::{Bar, Facts},
    math::{TopOfBook, column_ratio, order_flow},
};
use crate::{
    event::{Level, Side},
    table::{DepthBarRow, QuoteBarRow, TradeBarRow},
};

#[derive(Clone, Copy, Debug)]
struct Ohlc {
    open: i64,
    high: i64,
    low: i64,
    close: i64,
}

impl Ohlc {
    const fn of(value: i64) -> Self {
        Self { open: value, high: value, low: value, close: value }
    }

    fn add(&mut self, value: i64) {
        self.high = self.high.max(value);
        self.low = self.low.min(value);
        self.close = value;
    }
}

/// Positive prices, and the microprice.
pub(super) struct QuoteItem {
    pub(super) bid: i64,
    pub(super) ask: i64,
    pub(super) micro: i64,
}

#[derive(Clone, Debug)]
pub(super) struct QuoteBar {
    bid: Ohlc,
    ask: Ohlc,
    spread: Ohlc,
    micro: Ohlc,
    ticks: i64,
}

impl Bar for QuoteBar {
    type Item = QuoteItem;
    type Row = QuoteBarRow;

    fn start(item: &QuoteItem) -> Self {
        Self {
            bid: Ohlc::of(item.bid),
            ask: Ohlc::of(item.ask),
            spread: Ohlc::of(item.ask - item.bid),
            micro: Ohlc::of(item.micro),
            ticks: 1,
        }
    }

    fn add(&mut self, item: &QuoteItem) -> bool {
        self.bid.add(item.bid);
        self.ask.add(item.ask);
        self.spread.add(item.ask - item.bid);
        self.micro.add(item.micro);
        self.ticks += 1;
        true
    }

    fn row(&self, facts: &Facts, second_ms: i64, partial: bool, _rounded: &mut u64) -> Option<QuoteBarRow> {
        Some(QuoteBarRow {
            instrument_id: facts.instrument_id,
            second_ms,
            price_scale: i64::from(facts.price_scale),
            bid_open_m: self.bid.open,
            bid_high_m: self.bid.high,
            bid_low_m: self.bid.low,
            bid_close_m: self.bid.close,
            ask_open_m: self.ask.open,
            ask_high_m: self.ask.high,
            ask_low_m: self.ask.low,
            ask_close_m: self.ask.close,
            spread_open_m: self.spread.open,
            spread_high_m: self.spread.high,
            spread_low_m: self.spread.low,
            spread_close_m: self.spread.close,
            micro_open_m: self.micro.open,
            micro_high_m: self.micro.high,
            micro_low_m: self.micro.low,
            micro_close_m: self.micro.close,
            ticks: self.ticks,
            partial,
        })
    }
}

/// Positive price and quantity.
pub(super) struct TradeItem {
    pub(super) price: i64,
    pub(super) qty: i64,
    pub(super) side: Side,
}

#[derive(Clone, Debug)]
pub(super) struct TradeBar {
    price: Ohlc,
    bought: i128,
    sold: i128,
    /// Sum of price times quantity, on the sum of both scales.
    quote: i128,
    trades: i64,
}

impl Bar for TradeBar {
    type Item = TradeItem;
    type Row = TradeBarRow;

    fn start(item: &TradeItem) -> Self {
        let mut bar = Self { price: Ohlc::of(item.price), bought: 0, sold: 0, quote: 0, trades: 0 };
        bar.add(item);
        bar
    }

    fn add(&mut self, item: &TradeItem) -> bool {
        let quote = i128::from(item.price) * i128::from(item.qty);
        let Some(quote) = self.quote.checked_add(quote) else { return false };
        self.quote = quote;
        self.price.add(item.price);
        match item.side {
            Side::Buy => self.bought += i128::from(item.qty),
            Side::Sell => self.sold += i128::from(item.qty),
        }
        self.trades += 1;
        true
    }

    fn row(&self, facts: &Facts, second_ms: i64, partial: bool, rounded: &mut u64) -> Option<TradeBarRow> {
        let (price_scale, qty_scale) = (u32::from(facts.price_scale), u32::from(facts.qty_scale));
        let volume = self.bought + self.sold;
        let mut column = |mantissa: i128, per: i128, scale: u32| column_ratio(mantissa, per, scale, rounded);
        Some(TradeBarRow {
            instrument_id: facts.instrument_id,
            second_ms,
            price_scale: i64::from(facts.price_scale),
            qty_scale: i64::from(facts.qty_scale),
            open_m: self.price.open,
            high_m: self.price.high,
            low_m: self.price.low,
            close_m: self.price.close,
            volume: column(volume, 1, qty_scale)?,
            buy_volume: column(self.bought, 1, qty_scale)?,
            sell_volume: column(self.sold, 1, qty_scale)?,
            quote_volume: column(self.quote, 1, price_scale + qty_scale)?,
            vwap: column(self.quote, volume, price_scale)?,
            trades: self.trades,
            partial,
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct DepthBar {
    updates: i64,
    bid_changes: i64,
    ask_changes: i64,
    bid_added: i128,
    bid_removed: i128,
    ask_added: i128,
    ask_removed: i128,
    flow: i128,
    top: TopOfBook,
    last_id: u64,
}

impl Bar for DepthBar {
    type Item = DepthChange;
    type Row = DepthBarRow;

    fn start(item: &DepthChange) -> Self {
        Self {
            updates: 1,
            bid_changes: i64::from(item.bid_changes),
            ask_changes: i64::from(item.ask_changes),
            bid_added: item.bid_added,
            bid_removed: item.bid_removed,
            ask_added: item.ask_added,
            ask_removed: item.ask_removed,
            flow: order_flow(item.before, item.after),
            top: item.after,
            last_id: item.last_id,
        }
    }

    fn add(&mut self, item: &DepthChange) -> bool {
        let sums = (|| {
            Some([
                self.bid_added.checked_add(item.bid_added)?,
                self.bid_removed.checked_add(item.bid_removed)?,
                self.ask_added.checked_add(item.ask_added)?,
                self.ask_removed.checked_add(item.ask_removed)?,
                self.flow.checked_add(order_flow(item.before, item.after))?,
            ])
        })();
        let Some([bid_added, bid_removed, ask_added, ask_removed, flow]) = sums else { return false };
        *self = Self {
            updates: self.updates + 1,
            bid_changes: self.bid_changes + i64::from(item.bid_changes),
            ask_changes: self.ask_changes + i64::from(item.ask_changes),
            bid_added,
            bid_removed,
            ask_added,
            ask_removed,
            flow,
            top: item.after,
            last_id: item.last_id,
        };
        true
    }

    fn row(&self, facts: &Facts, second_ms: i64, partial: bool, rounded: &mut u64) -> Option<DepthBarRow> {
        let (price_scale, qty_scale) = (u32::from(facts.price_scale), u32::from(facts.qty_scale));
        let mut column = |mantissa: i128, scale: u32| column_ratio(mantissa, 1, scale, rounded);
        let mut price = |level: Option<Level>| match level {
            Some(level) => column(i128::from(level.price), price_scale).map(Some),
            None => Some(None),
        };
        let (best_bid, best_ask) = (price(self.top.bid)?, price(self.top.ask)?);
        Some(DepthBarRow {
            instrument_id: facts.instrument_id,
            second_ms,
            updates: self.updates,
            bid_changes: self.bid_changes,
            ask_changes: self.ask_changes,
            bid_added: column(self.bid_added, qty_scale)?,
            bid_removed: column(self.bid_removed, qty_scale)?,
            ask_added: column(self.ask_added, qty_scale)?,
            ask_removed: column(self.ask_removed, qty_scale)?,
            ofi: column(self.flow, qty_scale)?,
            best_bid,
            best_ask,
            // Ids beyond 63 bits are not known of any venue; the column cannot hold them.
            last_id: i64::try_from(self.last_id).unwrap_or(i64::MAX),
            partial,
        })
    }
}
