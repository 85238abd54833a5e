//! The day: prices that wander, trades and quotes of four symbols, bars of them by the service's own code, candles that are
//! corrected, minutes of categories and symbols.

use std::collections::BTreeMap;

use fathom_market::{
    bars::SecondBars,
    event::{Level, Side},
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus},
    table::{
        CandleRow, CategorySnapshotRow, InstrumentRow, QuoteBarRow, SymbolSnapshotRow, TradeBarRow, TradeRow,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rust_decimal::Decimal;

use crate::rows::{self, START_MS};

pub(super) const SCOPE: &str = "binance";
pub(super) const MARKET_TYPES: [&str; 2] = ["SPOT", "FUTURES"];
pub(super) const CATEGORIES: [&str; 5] = ["TOTAL", "TOTAL1", "TOTAL2", "TOTAL3", "OTHERS"];
pub(super) const DEPTHS: [&str; 2] = ["1.5", "5"];
pub(super) const TIMEFRAMES: [&str; 2] = ["1m", "5m"];
pub(super) const MINUTES: i64 = 1440;
const MINUTE_MS: i64 = 60_000;
const PRICE_SCALE: u8 = 2;
const QTY_SCALE: u8 = 5;
/// Seconds of a minute in which something happens.
const BUSY: i64 = 6;
const SYMBOLS: [(Market, &str, i64); 4] = [
    (Market::Spot, "BTCUSDT", 6_183_763),
    (Market::Spot, "1000PEPEUSDT", 913),
    (Market::Futures, "BTCUSDT", 6_184_100),
    (Market::Futures, "我踏马来了USDT", 17),
];

/// Every row of the day; candles with all their corrections, in the order in which they were made.
#[derive(Default)]
pub(super) struct Day {
    pub(super) instruments: Vec<InstrumentRow>,
    pub(super) trades: Vec<TradeRow>,
    pub(super) quote_bars: Vec<QuoteBarRow>,
    pub(super) trade_bars: Vec<TradeBarRow>,
    pub(super) candles: Vec<CandleRow>,
    pub(super) symbols: Vec<SymbolSnapshotRow>,
    pub(super) categories: Vec<CategorySnapshotRow>,
}

/// A symbol on its way through the day.
struct Walk {
    id: i64,
    market: Market,
    price: i64,
    trade_id: i64,
    bars: SecondBars,
    open: BTreeMap<&'static str, CandleRow>,
}

fn price(mantissa: i64) -> Decimal {
    Decimal::new(mantissa, PRICE_SCALE.into())
}

fn instrument(market: Market, native: &str) -> Instrument {
    let venue = VenueId::new("binance");
    let base = native.trim_end_matches("USDT");
    Instrument {
        id: InstrumentId::derive(venue, market, native),
        venue,
        market,
        native: native.into(),
        unified: format!("{base}/USDT").into(),
        base: base.into(),
        quote: "USDT".into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: rows::dec("0.01"),
        lot_size: rows::dec("0.00001"),
        contract_size: Decimal::ONE,
        price_scale: PRICE_SCALE,
        qty_scale: QTY_SCALE,
        valid_from_us: START_MS * 1000,
    }
}

impl Day {
    pub(super) fn make(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut day = Self::default();
        let mut walks: Vec<Walk> =
            SYMBOLS.iter().map(|(market, native, price)| day.walk(*market, native, *price)).collect();
        for minute in 0..MINUTES {
            for walk in &mut walks {
                day.minute(walk, minute, &mut dice);
                day.snapshots(walk, minute, &mut dice);
            }
            day.category_minutes(minute, &mut dice);
        }
        for mut walk in walks {
            let rest = walk.bars.flush((START_MS + MINUTES * MINUTE_MS) * 1000);
            day.quote_bars.extend(rest.quotes);
            day.trade_bars.extend(rest.trades);
        }
        day
    }

    fn walk(&mut self, market: Market, native: &str, price: i64) -> Walk {
        let facts = instrument(market, native);
        self.instruments.push(InstrumentRow {
            instrument_id: facts.id.0,
            venue: "binance".into(),
            market: market.as_str().into(),
            native: native.into(),
            symbol: facts.unified.to_string(),
            base: facts.base.to_string(),
            settle: None,
            price_scale: PRICE_SCALE.into(),
            qty_scale: QTY_SCALE.into(),
            ..rows::instrument(1)
        });
        Walk {
            id: facts.id.0,
            market,
            price,
            trade_id: 0,
            bars: SecondBars::new(&facts),
            open: BTreeMap::new(),
        }
    }

    /// Trades and quotes of some seconds of a minute, and the candles that they move.
    fn minute(&mut self, walk: &mut Walk, minute: i64, dice: &mut StdRng) {
        let from_ms = START_MS + minute * MINUTE_MS;
        for n in 0..BUSY {
            let second_ms = from_ms + (n * 10 + dice.random_range(0..10)) * 1000;
            let mut at_us = second_ms * 1000;
            for _ in 0..dice.random_range(1..4) {
                at_us += dice.random_range(1..200_000);
                walk.price = (walk.price + dice.random_range(-3..=3)).max(5);
                let level =
                    |price: i64, dice: &mut StdRng| Level { price, qty: dice.random_range(1..1_000_000) };
                let (bid, ask) = (level(walk.price, dice), level(walk.price + dice.random_range(1..4), dice));
                assert!(walk.bars.on_quote(bid, ask, at_us));
                if dice.random_bool(0.6) {
                    self.trade(walk, at_us, dice);
                }
            }
            let done = walk.bars.roll((second_ms + 1000) * 1000);
            self.quote_bars.extend(done.quotes);
            self.trade_bars.extend(done.trades);
        }
        for timeframe in TIMEFRAMES {
            let width = if timeframe == "1m" { 1 } else { 5 };
            if (minute + 1) % width == 0
                && let Some(mut candle) = walk.open.remove(timeframe)
            {
                candle.closed = true;
                candle.updated_us = candle.close_ms * 1000 + 999;
                self.candles.push(candle);
            }
        }
    }

    fn trade(&mut self, walk: &mut Walk, at_us: i64, dice: &mut StdRng) {
        walk.trade_id += 1;
        let (qty, bought) = (dice.random_range(1..5_000_000), dice.random_bool(0.5));
        assert!(walk.bars.on_trade(walk.price, qty, if bought { Side::Buy } else { Side::Sell }, at_us));
        self.trades.push(TradeRow {
            instrument_id: walk.id,
            kind: "agg".into(),
            trade_id: walk.trade_id.to_string(),
            event_us: at_us,
            recv_us: at_us,
            price_m: walk.price,
            qty_m: qty,
            price_scale: PRICE_SCALE.into(),
            qty_scale: QTY_SCALE.into(),
            side: if bought { "buy" } else { "sell" }.into(),
            first_raw_id: Some(walk.trade_id),
            last_raw_id: None,
        });
        let (price, volume) = (price(walk.price), Decimal::new(qty, QTY_SCALE.into()));
        for (timeframe, width_ms) in [("1m", MINUTE_MS), ("5m", 5 * MINUTE_MS)] {
            let ms = at_us / 1000;
            let open_ms = ms - ms % width_ms;
            let candle = walk.open.entry(timeframe).or_insert_with(|| CandleRow {
                instrument_id: walk.id,
                timeframe: timeframe.into(),
                open_ms,
                close_ms: open_ms + width_ms - 1,
                open: price,
                high: price,
                low: price,
                close: price,
                volume: Decimal::ZERO,
                quote_volume: Decimal::ZERO,
                trades: 0,
                taker_buy_volume: Decimal::ZERO,
                taker_buy_quote_volume: Decimal::ZERO,
                closed: false,
                updated_us: at_us,
            });
            candle.high = candle.high.max(price);
            candle.low = candle.low.min(price);
            candle.close = price;
            candle.volume += volume;
            candle.quote_volume += price * volume;
            candle.trades += 1;
            if bought {
                candle.taker_buy_volume += volume;
                candle.taker_buy_quote_volume += price * volume;
            }
            candle.updated_us = at_us;
            // The open one is stored now and then.
            if dice.random_bool(0.3) {
                self.candles.push(candle.clone());
            }
        }
    }

    fn snapshots(&mut self, walk: &Walk, minute: i64, dice: &mut StdRng) {
        for depth in DEPTHS {
            let mut volume = || Decimal::new(dice.random_range(0..i64::MAX / 1_000_000), 8);
            let row = SymbolSnapshotRow {
                instrument_id: walk.id,
                depth: rows::dec(depth),
                timestamp_ms: START_MS + minute * MINUTE_MS,
                bid_volume: volume(),
                ask_volume: volume(),
                bid_volume_usd: (walk.market == Market::Spot).then(&mut volume),
                ask_volume_usd: (walk.market == Market::Spot).then(&mut volume),
                mid_price: Some(price(walk.price)),
                best_bid: (minute % 7 > 0).then(|| price(walk.price - 1)),
                best_ask: Some(price(walk.price + 1)),
                state: if minute % 50 == 0 { "resyncing" } else { "live" }.into(),
                bid_covered: dice.random_bool(0.9),
                ask_covered: dice.random_bool(0.5),
                last_update_id: minute * 100,
                created_us: (START_MS + minute * MINUTE_MS) * 1000 + 250,
            };
            self.symbols.push(row);
        }
    }

    fn category_minutes(&mut self, minute: i64, dice: &mut StdRng) {
        for market_type in MARKET_TYPES {
            for (category, depth) in
                CATEGORIES.iter().flat_map(|category| DEPTHS.map(|depth| (category, depth)))
            {
                // A process was away for some minutes of the afternoon.
                if (800..812).contains(&minute) {
                    continue;
                }
                let mut volume = || Decimal::new(dice.random_range(1..i64::MAX / 1000), 9);
                let row = CategorySnapshotRow {
                    scope: SCOPE.into(),
                    market_type: market_type.into(),
                    category: (*category).into(),
                    depth: rows::dec(depth),
                    timestamp_ms: START_MS + minute * MINUTE_MS,
                    total_bid_volume: volume(),
                    total_ask_volume: volume(),
                    total_bid_volume_usd: volume(),
                    total_ask_volume_usd: volume(),
                    avg_price: (minute % 11 > 0).then(&mut volume),
                    symbol_count: dice.random_range(0..200),
                    member_count: 200,
                    bid_covered: 100,
                    ask_covered: 99,
                    stale_count: 1,
                    unpriced_count: 0,
                    created_us: (START_MS + minute * MINUTE_MS) * 1000 + 400,
                };
                self.categories.push(row);
            }
        }
    }
}
