//! `/api/ticks/{symbol}`: best bid and ask of the last seconds, asked of the book's actor.

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::book::GetTicks;
use fathom_market::{decimal::to_decimal, instrument::Instrument, ticks::Tick};
use serde::Serialize;

use super::{
    Shared,
    error::{Answer, ok},
    params::Params,
    read,
    view::Num,
};

/// Seconds by default; an hour is the most that can be asked, whatever is held of it.
const DEFAULT_SECONDS: i64 = 60;
const MAX_SECONDS: i64 = 3600;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/ticks/{symbol}", ticks));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ticks {
    symbol: String,
    market_type: &'static str,
    exchange: &'static str,
    ticks: Vec<TickView>,
    count: usize,
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TickView {
    timestamp: i64,
    best_bid: Num,
    best_ask: Num,
    bid_volume: Num,
    ask_volume: Num,
    spread: Num,
    /// `venue`, or `receive` where the venue gives no time.
    time_source: &'static str,
}

impl TickView {
    fn new(tick: &Tick, instrument: &Instrument) -> Self {
        let price = |mantissa| to_decimal(mantissa, instrument.price_scale);
        let qty = |mantissa| Num(to_decimal(mantissa, instrument.qty_scale));
        let (bid, ask) = (price(tick.bid.price), price(tick.ask.price));
        Self {
            timestamp: tick.time_us / 1000,
            best_bid: Num(bid),
            best_ask: Num(ask),
            bid_volume: qty(tick.bid.qty),
            ask_volume: qty(tick.ask.qty),
            spread: Num(ask - bid),
            time_source: if tick.venue_time { "venue" } else { "receive" },
        }
    }
}

async fn ticks(state: Shared, symbol: Path<String>, params: Params) -> Answer {
    let market = params.market()?;
    let venue = params.venue(&state)?;
    let last = params.int("last", 1..=MAX_SECONDS)?.unwrap_or(DEFAULT_SECONDS);
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    let (symbol, ticks) = match state.system.directory().book(venue, market, &symbol) {
        None => (symbol.to_uppercase(), Vec::new()),
        Some(book) => {
            let held = book.actor.ask(GetTicks { last }, state.ask_deadline).await?;
            let instrument = &book.cell.instrument;
            let ticks = held.iter().map(|tick| TickView::new(tick, instrument)).collect();
            (instrument.native.to_string(), ticks)
        }
    };
    ok(&Ticks {
        symbol,
        market_type: market.label(),
        exchange: venue.as_str(),
        count: ticks.len(),
        ticks,
        timestamp: state.now_ms(),
    })
}

#[cfg(test)]
mod tests {
    use fathom_market::{
        event::Level,
        ids::{InstrumentId, Market, VenueId},
        instrument::{InstrumentKind, InstrumentStatus},
    };
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn a_tick_is_shown_exactly_and_says_whose_time_it_has() {
        let venue = VenueId::new("binance");
        let instrument = Instrument {
            id: InstrumentId::derive(venue, Market::Spot, "PEPEUSDT"),
            venue,
            market: Market::Spot,
            native: "PEPEUSDT".into(),
            unified: "PEPE/USDT".into(),
            base: "PEPE".into(),
            quote: "USDT".into(),
            settle: None,
            kind: InstrumentKind::Spot,
            status: InstrumentStatus::Trading,
            tick_size: Decimal::new(1, 8),
            lot_size: Decimal::ONE,
            contract_size: Decimal::ONE,
            price_scale: 8,
            qty_scale: 2,
            valid_from_us: 0,
        };
        let tick = Tick {
            time_us: 1_700_000_000_123_456,
            recv_us: 0,
            bid: Level { price: 5, qty: 100 },
            ask: Level { price: 7, qty: 12_345 },
            update_id: 1,
            venue_time: false,
        };
        let shown = serde_json::to_string(&TickView::new(&tick, &instrument)).expect("json");
        assert_eq!(
            shown,
            r#"{"timestamp":1700000000123,"bestBid":0.00000005,"bestAsk":0.00000007,"bidVolume":1,"askVolume":123.45,"spread":0.00000002,"timeSource":"receive"}"#
        );
    }
}
