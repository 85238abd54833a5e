//! Events and books as lines of JSON. Amounts are strings: exact, without trailing zeros, never scientific.

use std::io::Write as _;

use fathom_market::{
    book::{BookState, OrderBook},
    decimal::power_of_ten,
    event::{
        Body, BookDelta, BookSnapshot, Candle, Event, Funding, Level, Quote, Ticker, Trade, TradeId,
        TradeKind,
    },
    instrument::Instrument,
};
use rust_decimal::Decimal;
use serde_json::Value;

use super::tally::type_of;

/// What every line of an instrument says, and its scales.
pub(crate) struct Label {
    text: String,
    price_scale: u8,
    qty_scale: u8,
}

impl Label {
    pub(crate) fn of(instrument: &Instrument) -> Self {
        let quoted = |text: &str| Value::from(text).to_string();
        let text = format!(
            r#""venue":{},"market":{},"symbol":{},"native":{}"#,
            quoted(instrument.venue.as_str()),
            quoted(instrument.market.as_str()),
            quoted(&instrument.unified),
            quoted(&instrument.native)
        );
        Self { text, price_scale: instrument.price_scale, qty_scale: instrument.qty_scale }
    }
}

/// A line under way. Writing to memory cannot fail.
struct Line<'l> {
    out: &'l mut Vec<u8>,
    label: &'l Label,
}

impl Line<'_> {
    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn key(&mut self, name: &str) {
        let _ = write!(self.out, ",\"{name}\":");
    }

    fn word(&mut self, name: &str, word: &str) {
        let _ = write!(self.out, ",\"{name}\":\"{word}\"");
    }

    fn bare(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.out, ",\"{name}\":{value}");
    }

    fn bare_opt(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.bare(name, value),
            None => self.bare(name, "null"),
        }
    }

    fn decimal(&mut self, name: &str, value: Decimal) {
        let value = value.normalize();
        let _ = write!(self.out, ",\"{name}\":\"{value}\"");
    }

    fn decimal_opt(&mut self, name: &str, value: Option<Decimal>) {
        match value {
            Some(value) => self.decimal(name, value),
            None => self.bare(name, "null"),
        }
    }

    fn price(&mut self, name: &str, mantissa: i64) {
        self.key(name);
        quoted_mantissa(self.out, mantissa, self.label.price_scale);
    }

    fn qty(&mut self, name: &str, mantissa: i64) {
        self.key(name);
        quoted_mantissa(self.out, mantissa, self.label.qty_scale);
    }

    fn levels(&mut self, name: &str, levels: impl Iterator<Item = Level>) {
        self.key(name);
        self.text("[");
        for (at, level) in levels.enumerate() {
            self.text(if at == 0 { "[" } else { ",[" });
            quoted_mantissa(self.out, level.price, self.label.price_scale);
            self.text(",");
            quoted_mantissa(self.out, level.qty, self.label.qty_scale);
            self.text("]");
        }
        self.text("]");
    }

    fn quote(&mut self, quote: &Quote) {
        self.price("bid", quote.bid.price);
        self.qty("bid_qty", quote.bid.qty);
        self.price("ask", quote.ask.price);
        self.qty("ask_qty", quote.ask.qty);
    }

    fn trade(&mut self, trade: &Trade) {
        self.bare("id", trade_id(&trade.id));
        let kind = match trade.kind {
            TradeKind::Single => "trade",
            TradeKind::Aggregate => "aggregate",
        };
        self.word("kind", kind);
        self.price("price", trade.price);
        self.qty("qty", trade.qty);
        self.word("side", trade.side.as_str());
        if let Some((first, last)) = trade.raw_ids {
            self.bare("first_id", first);
            self.bare("last_id", last);
        }
    }

    fn delta(&mut self, delta: &BookDelta) {
        self.word("kind", "delta");
        self.bare("first_id", delta.ids.first);
        self.bare("last_id", delta.ids.last);
        if let Some(prev) = delta.ids.prev {
            self.bare("prev_id", prev);
        }
        self.levels("bids", delta.bids.iter().copied());
        self.levels("asks", delta.asks.iter().copied());
    }

    fn snapshot(&mut self, snapshot: &BookSnapshot) {
        self.word("kind", "snapshot");
        self.levels("bids", snapshot.bids.iter().copied());
        self.levels("asks", snapshot.asks.iter().copied());
    }

    fn candle(&mut self, candle: &Candle) {
        self.word("timeframe", candle.timeframe.as_str());
        self.bare("open_ms", candle.open_ms);
        self.bare("close_ms", candle.close_ms);
        self.decimal("open", candle.open);
        self.decimal("high", candle.high);
        self.decimal("low", candle.low);
        self.decimal("close", candle.close);
        self.decimal("volume", candle.volume);
        self.decimal("quote_volume", candle.quote_volume);
        self.bare("trades", candle.trades);
        self.decimal("taker_buy_volume", candle.taker_buy_volume);
        self.decimal("taker_buy_quote_volume", candle.taker_buy_quote_volume);
        self.bare("closed", candle.closed);
    }

    fn ticker(&mut self, ticker: &Ticker) {
        self.decimal_opt("last", ticker.last);
        self.decimal_opt("bid", ticker.bid);
        self.decimal_opt("ask", ticker.ask);
        self.decimal_opt("open", ticker.open);
        self.decimal_opt("high", ticker.high);
        self.decimal_opt("low", ticker.low);
        self.decimal_opt("volume", ticker.volume);
        self.decimal_opt("quote_volume", ticker.quote_volume);
        self.bare_opt("trades", ticker.trades);
    }

    fn funding(&mut self, funding: &Funding) {
        self.decimal("mark_price", funding.mark_price);
        self.decimal_opt("index_price", funding.index_price);
        self.decimal_opt("rate", funding.rate);
        self.bare_opt("next_funding_ms", funding.next_ms);
    }
}

fn trade_id(id: &TradeId) -> String {
    match id {
        TradeId::Number(id) => id.to_string(),
        TradeId::Text(id) => Value::from(&**id).to_string(),
    }
}

fn seq(event: &Event) -> Option<String> {
    match &event.body {
        Body::Quote(quote) => quote.update_id.map(|id| id.to_string()),
        Body::Trade(trade) => Some(trade_id(&trade.id)),
        Body::Delta(delta) => Some(delta.ids.last.to_string()),
        Body::Snapshot(snapshot) => Some(snapshot.last_id.to_string()),
        Body::Candle(candle) => Some(candle.open_ms.to_string()),
        Body::Ticker(_) => event.event_us.map(|event_us| event_us.div_euclid(1000).to_string()),
        Body::Funding(_) => None,
    }
}

/// Appends the line of an event; `recv_us` is `None` where the recording has no times.
pub(crate) fn event(out: &mut Vec<u8>, label: &Label, event: &Event, recv_us: Option<i64>) {
    let mut line = Line { out, label };
    let _ = write!(line.out, "{{\"type\":\"{}\",{}", type_of(&event.body), label.text);
    line.bare_opt("seq", seq(event));
    line.bare_opt("event_us", event.event_us);
    line.bare_opt("recv_us", recv_us);
    match &event.body {
        Body::Quote(quote) => line.quote(quote),
        Body::Trade(trade) => line.trade(trade),
        Body::Delta(delta) => line.delta(delta),
        Body::Snapshot(snapshot) => line.snapshot(snapshot),
        Body::Candle(candle) => line.candle(candle),
        Body::Ticker(ticker) => line.ticker(ticker),
        Body::Funding(funding) => line.funding(funding),
    }
    line.text("}\n");
}

/// Appends the line of a final book; `live` is `None` for one that cannot be relied on.
pub(super) fn book(
    out: &mut Vec<u8>,
    label: &Label,
    state: BookState,
    last_id: Option<u64>,
    live: Option<&OrderBook>,
) {
    let mut line = Line { out, label };
    let _ = write!(line.out, "{{\"type\":\"book\",{},\"state\":\"{}\"", label.text, state.as_str());
    line.bare_opt("seq", last_id);
    line.levels("bids", live.into_iter().flat_map(OrderBook::bids));
    line.levels("asks", live.into_iter().flat_map(OrderBook::asks));
    line.text("}\n");
}

/// A mantissa on its scale as a JSON string.
fn quoted_mantissa(out: &mut Vec<u8>, mantissa: i64, scale: u8) {
    let unit = power_of_ten(scale).unsigned_abs();
    let (whole, fraction) = (mantissa.unsigned_abs() / unit, mantissa.unsigned_abs() % unit);
    let sign = if mantissa < 0 { "-" } else { "" };
    let _ = write!(out, "\"{sign}{whole}");
    if fraction != 0 {
        let _ = write!(out, ".{fraction:0width$}", width = usize::from(scale));
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mantissas_are_written_without_trailing_zeros() {
        let cases = [
            (6_183_763_000_000, 8, "\"61837.63\""),
            (5, 8, "\"0.00000005\""),
            (0, 8, "\"0\""),
            (100, 0, "\"100\""),
            (100, 2, "\"1\""),
            (-375, 4, "\"-0.0375\""),
            (i64::MAX, 18, "\"9.223372036854775807\""),
        ];
        for (mantissa, scale, expected) in cases {
            let mut out = Vec::new();
            quoted_mantissa(&mut out, mantissa, scale);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
