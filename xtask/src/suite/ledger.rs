//! The service's gap ledger and what it has stored, as anybody may read them.

use std::collections::{BTreeMap, HashSet};

use sqlx::{Row, sqlite::SqliteRow};

use super::stand::{MARKETS, Target};
use crate::harness::Db;

/// A gap of the ledger.
#[derive(Clone, Debug)]
pub struct Gap {
    /// `trade`, `depth`, `quote`, `candle:1m`.
    pub channel: String,
    /// Why it was opened.
    pub cause: String,
    /// What became of it.
    pub status: String,
    /// When the last record before it was received.
    pub from_us: i64,
    /// When the first record after it was received.
    pub to_us: Option<i64>,
    /// Id of the last record before it.
    pub from_id: Option<i64>,
    /// Id of the first record after it.
    pub to_id: Option<i64>,
    /// Records known to be missing.
    pub missing: Option<i64>,
}

/// What is sent in a millisecond is received in the next ones.
const SLACK_US: i64 = 250_000;

impl Gap {
    /// Whether a record lies within its bounds: by its id where the gap has ids, else by time.
    pub fn holds(&self, id: i64, sent_ms: i64) -> bool {
        if let Some(from) = self.from_id {
            return id > from && self.to_id.is_none_or(|to| id < to);
        }
        let sent_us = sent_ms * 1000;
        sent_us + SLACK_US >= self.from_us && self.to_us.is_none_or(|to| sent_us <= to + SLACK_US)
    }
}

/// All gaps by symbol.
pub fn gaps(db: &Db) -> BTreeMap<Target, Vec<Gap>> {
    let rows = db.rows(
        "select i.market, i.native, g.channel, g.cause, g.status, g.from_us, g.to_us, g.from_id, g.to_id, g.missing
         from data_gaps_raw g
         join instruments i on i.instrument_id = g.instrument_id and i.valid_to_us is null",
    );
    let mut gaps: BTreeMap<Target, Vec<Gap>> = BTreeMap::new();
    for row in &rows {
        gaps.entry(target(row)).or_default().push(gap(row));
    }
    gaps
}

fn target(row: &SqliteRow) -> Target {
    let named: String = row.get(0);
    let market = MARKETS.into_iter().find(|market| *market == named).expect("a known market");
    Target { market, symbol: row.get(1) }
}

fn gap(row: &SqliteRow) -> Gap {
    let id = |at: usize| row.get::<Option<String>, _>(at).and_then(|text| text.parse().ok());
    Gap {
        channel: row.get(2),
        cause: row.get(3),
        status: row.get(4),
        from_us: row.get(5),
        to_us: row.get(6),
        from_id: id(7),
        to_id: id(8),
        missing: row.get(9),
    }
}

/// Ids of a symbol's stored aggregate trades.
pub fn trades(db: &Db, target: &Target) -> HashSet<i64> {
    ids(db, target, "trades_raw", "cast(r.trade_id as integer)", "and r.kind = 'agg'")
}

/// Last ids of a symbol's stored depth messages.
pub fn depth(db: &Db, target: &Target) -> HashSet<i64> {
    ids(db, target, "depth_events_raw", "r.last_id", "")
}

fn ids(db: &Db, target: &Target, table: &str, id: &str, only: &str) -> HashSet<i64> {
    let Target { market, symbol } = target;
    let rows = db.rows(&format!(
        "select {id} from {table} r where r.instrument_id = (select instrument_id from instruments
         where market = '{market}' and native = '{symbol}' and valid_to_us is null) {only}"
    ));
    rows.iter().map(|row| row.get(0)).collect()
}

/// How far the streams of each symbol are stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Id of the newest aggregate trade.
    pub trades: BTreeMap<Target, i64>,
    /// Last id of the newest depth message.
    pub depth: BTreeMap<Target, i64>,
}

/// How far everything is stored.
pub fn stored(db: &Db) -> Stored {
    let newest = |table: &str, id: &str| {
        let rows = db.rows(&format!(
            "select i.market, i.native, (select max({id}) from {table} r where r.instrument_id = i.instrument_id)
             from instruments i where i.valid_to_us is null"
        ));
        let known = rows.iter().filter_map(|row| Some((target(row), row.get::<Option<i64>, _>(2)?)));
        known.collect()
    };
    Stored {
        trades: newest("trades_raw", "cast(r.trade_id as integer)"),
        depth: newest("depth_events_raw", "r.last_id"),
    }
}

/// Closed candles: volume and number of trades by market, symbol, timeframe and open time.
pub fn candles(db: &Db) -> BTreeMap<(String, String, String, i64), (String, i64)> {
    let rows = db.rows(
        "select i.market, i.native, r.timeframe, r.open_ms, r.volume, r.trades from candles_raw r
         join instruments i on i.instrument_id = r.instrument_id and i.valid_to_us is null where r.closed = 1",
    );
    rows.iter()
        .map(|row| ((row.get(0), row.get(1), row.get(2), row.get(3)), (row.get(4), row.get(5))))
        .collect()
}

/// Rows that the readable views show twice.
pub fn doubled(db: &Db) -> i64 {
    let twice = [
        "select count(*) from (select venue, market, symbol, kind, trade_id from trades
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from (select venue, market, symbol, timeframe, timestamp from candles
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
        "select count(*) from (select scope, market_type, category, depth, timestamp from category_snapshots
            group by 1, 2, 3, 4, 5 having count(*) > 1)",
    ];
    twice.iter().map(|sql| db.number(sql)).sum()
}
