//! The answers that follow from the day, by walking through all of its rows.

use std::collections::{BTreeMap, BTreeSet};

use fathom_market::table::{CandleRow, CategorySnapshotRow, InstrumentRow, SymbolSnapshotRow};
use fathom_storage::read::CategoryStat;
use rust_decimal::Decimal;

use super::made::{Day, MINUTES, SCOPE};
use crate::rows::START_MS;

type Sums = Vec<Vec<Option<Decimal>>>;

/// Parts of a series that are asked for: from, to, rows at most.
pub(super) fn ranges() -> [(Option<i64>, Option<i64>, u32); 7] {
    let minute = |n: i64| Some(START_MS + n * 60_000);
    [
        (None, None, 1440),
        (None, None, 7),
        (minute(600), None, 33),
        (minute(790), minute(820), 100),
        (minute(790), minute(820), 9),
        (None, minute(100), 12),
        (minute(MINUTES), None, 5),
    ]
}

/// A part of a series that ascends: from its start where one is given, else the newest.
pub(super) fn part<R: Clone>(
    all: &[R],
    time: fn(&R) -> i64,
    from: Option<i64>,
    to: Option<i64>,
    limit: u32,
) -> Vec<R> {
    let within = |row: &&R| from.is_none_or(|from| time(row) >= from) && to.is_none_or(|to| time(row) <= to);
    let within: Vec<R> = all.iter().filter(within).cloned().collect();
    let limit = (limit as usize).min(within.len());
    if from.is_some() { within[..limit].to_vec() } else { within[within.len() - limit..].to_vec() }
}

pub(super) fn category(day: &Day, market: &str, category: &str, depth: Decimal) -> Vec<CategorySnapshotRow> {
    let is = |row: &&CategorySnapshotRow| {
        row.market_type == market && row.category == category && row.depth == depth
    };
    day.categories.iter().filter(is).cloned().collect()
}

pub(super) fn latest(day: &Day, market: &str, depth: Decimal) -> Vec<CategorySnapshotRow> {
    let mut newest = BTreeMap::new();
    for row in day.categories.iter().filter(|row| row.market_type == market && row.depth == depth) {
        newest.insert(row.category.clone(), row.clone());
    }
    newest.into_values().collect()
}

/// Spot before futures, as the names of the categories ascend.
pub(super) fn stats(day: &Day) -> Vec<CategoryStat> {
    let mut all: BTreeMap<(String, bool), CategoryStat> = BTreeMap::new();
    for row in day.categories.iter().filter(|row| row.scope == SCOPE) {
        let key = (row.category.clone(), row.market_type != "SPOT");
        let stat = all.entry(key).or_insert_with(|| CategoryStat {
            category: row.category.clone(),
            market_type: row.market_type.clone(),
            count: 0,
            first_ms: row.timestamp_ms,
            last_ms: row.timestamp_ms,
        });
        stat.count += 1;
        stat.first_ms = stat.first_ms.min(row.timestamp_ms);
        stat.last_ms = stat.last_ms.max(row.timestamp_ms);
    }
    all.into_values().collect()
}

pub(super) fn symbol(day: &Day, instrument_id: i64, depth: Decimal) -> Vec<SymbolSnapshotRow> {
    let is = |row: &&SymbolSnapshotRow| row.instrument_id == instrument_id && row.depth == depth;
    day.symbols.iter().filter(is).cloned().collect()
}

/// What is left of each candle: that with the latest update.
pub(super) fn newest(all: &[CandleRow]) -> BTreeMap<(i64, String, i64), CandleRow> {
    let mut newest: BTreeMap<(i64, String, i64), CandleRow> = BTreeMap::new();
    for row in all {
        let key = (row.instrument_id, row.timeframe.clone(), row.open_ms);
        let known = newest.entry(key).or_insert_with(|| row.clone());
        if row.updated_us >= known.updated_us {
            *known = row.clone();
        }
    }
    newest
}

pub(super) fn series(
    newest: &BTreeMap<(i64, String, i64), CandleRow>,
    instrument_id: i64,
    timeframe: &str,
) -> Vec<CandleRow> {
    let is = |row: &&CandleRow| row.instrument_id == instrument_id && row.timeframe == timeframe;
    newest.values().filter(is).cloned().collect()
}

pub(super) fn ends<R>(
    all: &[R],
    instrument: &InstrumentRow,
    key: fn(&R) -> (i64, i64),
) -> Option<(i64, i64)> {
    let own = || all.iter().map(key).filter(|(id, _)| *id == instrument.instrument_id).map(|(_, ms)| ms);
    own().min().zip(own().max())
}

/// Each instrument's rows, by market and name.
fn by_symbol<'a, R>(day: &'a Day, all: &'a [R], id: fn(&R) -> i64) -> Vec<Vec<&'a R>> {
    let mut sorted: Vec<&InstrumentRow> = day.instruments.iter().collect();
    sorted.sort_by_key(|row| (&row.market, &row.native));
    sorted.iter().map(|row| all.iter().filter(|bar| id(bar) == row.instrument_id).collect()).collect()
}

fn sum<R>(rows: &[&R], value: impl Fn(&R) -> Decimal) -> Option<Decimal> {
    Some(rows.iter().map(|row| value(row)).sum())
}

fn on(mantissa: i64, scale: i64) -> Decimal {
    Decimal::new(mantissa, scale as u32)
}

pub(super) fn trade_sums(day: &Day) -> Sums {
    let of = |rows: Vec<&fathom_market::table::TradeBarRow>| {
        vec![
            Some(rows.len().into()),
            rows.iter().map(|row| on(row.low_m, row.price_scale)).min(),
            rows.iter().map(|row| on(row.high_m, row.price_scale)).max(),
            sum(&rows, |row| row.volume),
            sum(&rows, |row| row.buy_volume),
            sum(&rows, |row| row.sell_volume),
            sum(&rows, |row| row.quote_volume),
            sum(&rows, |row| row.trades.into()),
            rows.iter().map(|row| row.vwap).min(),
            rows.iter().map(|row| row.vwap).max(),
            sum(&rows, |row| on(row.open_m, row.price_scale)),
            sum(&rows, |row| on(row.close_m, row.price_scale)),
        ]
    };
    // The bars say what the trades say.
    let traded: i64 = day.trade_bars.iter().map(|bar| bar.trades).sum();
    assert_eq!(traded, day.trades.len() as i64);
    by_symbol(day, &day.trade_bars, |row| row.instrument_id).into_iter().map(of).collect()
}

pub(super) fn quote_sums(day: &Day) -> Sums {
    let of = |rows: Vec<&fathom_market::table::QuoteBarRow>| {
        vec![
            Some(rows.len().into()),
            sum(&rows, |row| row.ticks.into()),
            rows.iter().map(|row| on(row.bid_low_m, row.price_scale)).min(),
            rows.iter().map(|row| on(row.ask_high_m, row.price_scale)).max(),
            sum(&rows, |row| on(row.bid_open_m, row.price_scale)),
            sum(&rows, |row| on(row.ask_close_m, row.price_scale)),
            rows.iter().map(|row| on(row.spread_high_m, row.price_scale)).max(),
        ]
    };
    by_symbol(day, &day.quote_bars, |row| row.instrument_id).into_iter().map(of).collect()
}

pub(super) fn candle_sums(day: &Day) -> Sums {
    let newest: Vec<CandleRow> =
        newest(&day.candles).into_values().filter(|row| row.timeframe == "1m").collect();
    let of = |rows: Vec<&CandleRow>| {
        vec![
            Some(rows.len().into()),
            sum(&rows, |row| row.volume),
            rows.iter().map(|row| row.low).min(),
            rows.iter().map(|row| row.high).max(),
            sum(&rows, |row| row.close),
            sum(&rows, |row| row.trades.into()),
        ]
    };
    by_symbol(day, &newest, |row| row.instrument_id).into_iter().map(of).collect()
}

/// Seconds with a bar of any kind.
pub(super) fn seconds(day: &Day) -> i64 {
    let quotes = day.quote_bars.iter().map(|row| (row.instrument_id, row.second_ms));
    let trades = day.trade_bars.iter().map(|row| (row.instrument_id, row.second_ms));
    quotes.chain(trades).collect::<BTreeSet<_>>().len() as i64
}
