//! Compares what is stored with what the simulator's ledger says was delivered.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    time::Duration,
};

use rust_decimal::Decimal;
use sqlx::{Row, sqlite::SqliteRow};

use crate::harness::{KlineEntry, Service, Simulator, TradeEntry, check, eventually, some};

const STORED_WITHIN: Duration = Duration::from_secs(60);
const MARKETS: [&str; 2] = ["spot", "futures"];
/// Categories and depths: a row for each.
const ROWS_OF_A_MINUTE: i64 = 5 * 6;

#[derive(Debug, PartialEq, Eq)]
struct Trade {
    price: Decimal,
    qty: Decimal,
    ts_us: i64,
    sold: bool,
}

impl From<&TradeEntry> for Trade {
    fn from(entry: &TradeEntry) -> Self {
        Self { price: entry.price, qty: entry.qty, ts_us: entry.ts_ms * 1000, sold: entry.taker_sold }
    }
}

/// A trade's symbol and id.
type TradeKey = (String, i64);

fn stored_trades(service: &Service, market: &str) -> HashMap<TradeKey, Trade> {
    let sql = format!(
        "select i.native, r.trade_id, r.price_m, r.price_scale, r.qty_m, r.qty_scale, r.event_us, r.side
         from trades_raw r join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
         where r.kind = 'agg' and i.market = '{market}'"
    );
    let read = |row: &SqliteRow| {
        let decimal = |at: usize| Decimal::new(row.get(at), row.get::<u32, _>(at + 1));
        let id = row.get::<&str, _>(1).parse().expect("a number");
        let sold = row.get::<&str, _>(7) == "sell";
        ((row.get(0), id), Trade { price: decimal(2), qty: decimal(4), ts_us: row.get(6), sold })
    };
    let rows = service.db.rows(&sql);
    let trades: HashMap<_, _> = rows.iter().map(read).collect();
    assert_eq!(trades.len(), rows.len(), "a trade of {market} is stored twice");
    trades
}

/// Each trade delivered until then is stored once as it was sent, and no trade is stored that was never sent. From
/// `live_ms` on the faults may have kept only few back. Gives the number of trades compared.
pub(super) fn trades(service: &Service, simulator: &Simulator, live_ms: i64, until_ms: i64) -> usize {
    MARKETS.iter().map(|market| trades_of(service, simulator, market, live_ms..=until_ms)).sum()
}

fn trades_of(service: &Service, simulator: &Simulator, market: &str, span_ms: RangeInclusive<i64>) -> usize {
    let all = || simulator.trades(market).into_iter().filter(|trade| trade.channel == "aggTrade");
    let sent: Vec<TradeEntry> = all().collect();
    let inside = || sent.iter().filter(|trade| span_ms.contains(&trade.sent_ms));
    let (delivered, all_inside) = (inside().filter(|trade| trade.delivered).count(), inside().count());
    assert!(all_inside > 1000 && delivered * 100 >= all_inside * 85, "{market}: {delivered} of {all_inside}");
    let due = |trade: &&TradeEntry| trade.delivered && trade.sent_ms <= *span_ms.end();
    let expected: Vec<&TradeEntry> = sent.iter().filter(due).collect();
    let key = |trade: &TradeEntry| (trade.symbol.clone(), trade.id);
    let stored = eventually(&format!("every delivered trade of {market} is stored"), STORED_WITHIN, || {
        let stored = stored_trades(service, market);
        let missing: Vec<_> = expected.iter().filter(|trade| !stored.contains_key(&key(trade))).collect();
        check(missing.is_empty(), || format!("of {} are missing {}", expected.len(), some(&missing)))?;
        Ok(stored)
    });
    let wrong: Vec<_> = expected.iter().filter(|trade| stored[&key(trade)] != Trade::from(**trade)).collect();
    assert!(wrong.is_empty(), "trades of {market} differ: {}", some(&wrong));
    let known: HashSet<TradeKey> = all().map(|trade| key(&trade)).collect();
    let invented: Vec<_> = stored.keys().filter(|key| !known.contains(key)).collect();
    assert!(invented.is_empty(), "trades of {market} that were never sent: {}", some(&invented));
    expected.len()
}

/// A candle's symbol, timeframe and open time.
type KlineKey = (String, String, i64);
/// Open, high, low, close, volume, quote volume, taker volume, taker quote volume.
type Figures = ([Decimal; 8], i64);

fn stored_klines(service: &Service, market: &str) -> HashMap<KlineKey, Figures> {
    let sql = format!(
        "select i.native, r.timeframe, r.open_ms, r.trades, r.open, r.high, r.low, r.close, r.volume, r.quote_volume,
                r.taker_buy_volume, r.taker_buy_quote_volume
         from candles_raw r join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null
         where r.closed = 1 and i.market = '{market}'"
    );
    let read = |row: &SqliteRow| {
        let figures = std::array::from_fn(|at| row.get::<&str, _>(at + 4).parse().expect("a decimal"));
        ((row.get(0), row.get(1), row.get(2)), (figures, row.get(3)))
    };
    let rows = service.db.rows(&sql);
    let klines: HashMap<_, _> = rows.iter().map(read).collect();
    assert_eq!(klines.len(), rows.len(), "a candle of {market} is stored twice");
    klines
}

fn figures(kline: &KlineEntry) -> Figures {
    let KlineEntry { open, high, low, close, volume, quote_volume, .. } = *kline;
    let taker = [kline.taker_volume, kline.taker_quote_volume];
    ([open, high, low, close, volume, quote_volume, taker[0], taker[1]], kline.trades)
}

/// Each closed candle delivered until then is stored once, closed, as it was sent. Gives their number.
pub(super) fn klines(service: &Service, simulator: &Simulator, until_ms: i64) -> usize {
    MARKETS.iter().map(|market| klines_of(service, simulator, market, until_ms)).sum()
}

fn klines_of(service: &Service, simulator: &Simulator, market: &str, until_ms: i64) -> usize {
    let delivered = |kline: &KlineEntry| kline.delivered && kline.sent_ms <= until_ms;
    let expected: Vec<KlineEntry> = simulator.klines(market).into_iter().filter(delivered).collect();
    assert!(!expected.is_empty(), "no closed candle of {market} was delivered");
    let key = |kline: &KlineEntry| (kline.symbol.clone(), kline.interval.clone(), kline.open_ms);
    eventually(&format!("every delivered candle of {market} is stored"), STORED_WITHIN, || {
        let stored = stored_klines(service, market);
        let wrong = |kline: &&KlineEntry| stored.get(&key(kline)) != Some(&figures(kline));
        let wrong: Vec<_> =
            expected.iter().filter(wrong).map(|kline| (kline, stored.get(&key(kline)))).collect();
        check(wrong.is_empty(), || format!("of {} are not or otherwise {}", expected.len(), some(&wrong)))
    });
    expected.len()
}

/// Every boundary of the time has its row for each category, depth, market and scope, and accounts for every member.
/// Gives the number of boundaries.
pub(super) fn category_minutes(service: &Service, from_ms: i64, to_ms: i64, members: i64) -> usize {
    let boundaries: Vec<i64> =
        (from_ms / 60_000 + 1..=to_ms / 60_000).map(|minute| minute * 60_000).collect();
    let rows = service.db.rows(&format!(
        "select timestamp_ms, scope, market_type, count(*), min(member_count), max(member_count),
                min(member_count - symbol_count - stale_count - unpriced_count), max(symbol_count)
         from category_snapshots_raw where timestamp_ms > {from_ms} and timestamp_ms <= {to_ms}
         group by 1, 2, 3 order by 1, 2, 3"
    ));
    let mut by_boundary: HashMap<i64, Vec<String>> = HashMap::new();
    for row in &rows {
        let (at, scope, market): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
        let name = format!("{at} {scope} {market}");
        assert_eq!(row.get::<i64, _>(3), ROWS_OF_A_MINUTE, "{name}");
        assert_eq!(row.get::<i64, _>(5), members, "{name}: members of TOTAL");
        assert!(row.get::<i64, _>(6) >= 0, "{name}: more members counted than there are");
        assert!(row.get::<i64, _>(7) > 0, "{name}: nobody is live");
        by_boundary.entry(at).or_default().push(format!("{scope} {market}"));
    }
    for boundary in &boundaries {
        let found = by_boundary.get(boundary).cloned().unwrap_or_default();
        for market in ["FUTURES", "SPOT"] {
            let wanted = format!("binance {market}");
            assert!(found.contains(&wanted), "{wanted} has no minute {boundary}, only {found:?}");
        }
    }
    assert_eq!(by_boundary.len(), boundaries.len(), "rows off the boundaries: {:?}", by_boundary.keys());
    boundaries.len()
}
