//! MySQL or MariaDB: rows a second into fresh tables, the same rows again, and the questions of the interface on two months of
//! category snapshots (5.2 million rows; `FATHOM_BENCH_ROWS` shrinks them), asked 50 times a second:
//! `cargo bench -p fathom-storage --bench mysql`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first surprise"
)]

use std::{ops::Range, time::Duration};

use fathom_market::{
    batch::Batch,
    decimal::to_decimal,
    table::{CandleRow, CategorySnapshotRow, TradeBarRow},
};
use fathom_storage::{CategoryQuery, MysqlConfig, MysqlStore, Store, WriteOutcome};
use fathom_testkit::{Database, Server};
use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use tokio::time::Instant;

const BATCH: i64 = 2000;
const BATCHES: i64 = 25;
const INSTRUMENTS: i64 = 200;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1440 * MINUTE_MS;
/// Ten categories, two markets, three depths.
const SERIES: i64 = 60;
const ROWS: i64 = 5_200_000;
const REQUESTS: u32 = 500;
const PACE: Duration = Duration::from_millis(20);

/// Ids are hashes in life: spread, and in no order.
const fn instrument(n: i64) -> i64 {
    (n % INSTRUMENTS).wrapping_mul(7_046_029_254_386_353_131) & i64::MAX
}

fn candle(n: i64) -> CandleRow {
    let (open_ms, price) = (n / INSTRUMENTS * MINUTE_MS, to_decimal(6_183_763 + n % 97, 2));
    CandleRow {
        instrument_id: instrument(n),
        timeframe: "1m".into(),
        open_ms,
        close_ms: open_ms + MINUTE_MS - 1,
        open: price,
        high: price,
        low: price,
        close: price,
        volume: to_decimal(n, 5),
        quote_volume: to_decimal(n, 7),
        trades: 31,
        taker_buy_volume: to_decimal(n, 6),
        taker_buy_quote_volume: to_decimal(n, 8),
        closed: true,
        updated_us: n,
    }
}

fn bar(n: i64) -> TradeBarRow {
    TradeBarRow {
        instrument_id: instrument(n),
        second_ms: n / INSTRUMENTS * 1000,
        price_scale: 2,
        qty_scale: 5,
        open_m: 6_183_763,
        high_m: 6_183_863,
        low_m: 6_183_663,
        close_m: 6_183_763 + n % 97,
        volume: to_decimal(n, 5),
        buy_volume: to_decimal(n, 6),
        sell_volume: to_decimal(n, 7),
        quote_volume: to_decimal(n, 4),
        vwap: to_decimal(n, 3),
        trades: 12,
        partial: false,
    }
}

fn category(n: i64) -> String {
    format!("CATEGORY{}", n % 10)
}

fn depth(n: i64) -> Decimal {
    [Decimal::new(15, 1), Decimal::new(5, 0), Decimal::new(15, 0)][(n / 20 % 3).unsigned_abs() as usize]
}

fn snapshot(n: i64) -> CategorySnapshotRow {
    let series = n % SERIES;
    CategorySnapshotRow {
        scope: "ALL".into(),
        market_type: if series / 10 % 2 == 0 { "SPOT" } else { "FUTURES" }.into(),
        category: category(series),
        depth: depth(series),
        timestamp_ms: n / SERIES * MINUTE_MS,
        total_bid_volume: to_decimal(n * 977, 6),
        total_ask_volume: to_decimal(n * 991, 6),
        total_bid_volume_usd: to_decimal(n * 1_000_003, 4),
        total_ask_volume_usd: to_decimal(n * 1_000_033, 4),
        avg_price: Some(to_decimal(n, 3)),
        symbol_count: 120,
        member_count: 128,
        bid_covered: 118,
        ask_covered: 119,
        stale_count: 2,
        unpriced_count: 0,
        created_us: n,
    }
}

async fn ingest(store: &MysqlStore, name: &str, batch: impl Fn(Range<i64>) -> Batch) {
    for (what, duplicate) in [("new", false), ("again", true)] {
        let batches: Vec<Batch> = (0..BATCHES).map(|n| batch(n * BATCH..(n + 1) * BATCH)).collect();
        let start = Instant::now();
        for batch in &batches {
            let rows = BATCH.unsigned_abs();
            let (inserted, duplicate) = if duplicate { (0, rows) } else { (rows, 0) };
            assert_eq!(store.write(batch).await, WriteOutcome::Committed { inserted, duplicate });
        }
        let micros = start.elapsed().as_micros().max(1);
        let rows = (BATCH * BATCHES).unsigned_abs();
        println!("{name}, {what}: {} rows/s", u128::from(rows) * 1_000_000 / micros);
    }
}

/// One day of every series through the store, the other days by the server from the first.
async fn fill(store: &MysqlStore, url: &str, days: i64) {
    let day = SERIES * 1440;
    for start in (0..day).step_by(BATCH as usize) {
        let outcome = store.write(&Batch::of((start..day.min(start + BATCH)).map(snapshot))).await;
        assert!(matches!(outcome, WriteOutcome::Committed { .. }), "{outcome:?}");
    }
    let mut connection = MySqlConnection::connect(url).await.expect("a connection");
    for next in 1..days {
        let sql = format!(
            "insert into category_snapshots_raw select scope, market_type, category, depth, timestamp_ms + {}, \
             total_bid_volume, total_ask_volume, total_bid_volume_usd, total_ask_volume_usd, avg_price, symbol_count, \
             member_count, bid_covered, ask_covered, stale_count, unpriced_count, created_us \
             from category_snapshots_raw where timestamp_ms < {DAY_MS}",
            next * DAY_MS
        );
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a day of snapshots");
    }
    sqlx::query("analyze table category_snapshots_raw").fetch_all(&mut connection).await.expect("statistics");
}

fn print(name: &str, mut micros: Vec<u128>) {
    micros.sort_unstable();
    let at = |part: usize| micros[(micros.len() - 1) * part / 1000];
    println!("{name}: p50 {} us, p95 {} us, p99 {} us, max {} us", at(500), at(950), at(990), at(1000));
}

async fn ranges(store: &MysqlStore, days: i64) {
    let begin = Instant::now();
    let asked = (0..REQUESTS).map(|n| async move {
        let due = begin + PACE * n;
        tokio::time::sleep_until(due).await;
        let (series, day) = (i64::from(n * 7), i64::from(n) * 31 % (days - 1).max(1));
        let query = CategoryQuery {
            scope: "ALL".into(),
            market_type: "SPOT".into(),
            category: category(series),
            depth: Decimal::new(5, 0),
            from_ms: Some(day * DAY_MS + 1),
            to_ms: Some((day + 1) * DAY_MS),
            limit: 1440,
        };
        let rows = store.history().category_range(&query).await.expect("an answer").len();
        assert!(days == 1 || rows == 1440, "{rows} rows");
        due.elapsed().as_micros()
    });
    print("24 h of a category, 50 a second", futures(asked).await);
}

/// All at once, each waiting for its time.
async fn futures(asked: impl Iterator<Item = impl Future<Output = u128>>) -> Vec<u128> {
    let mut pending: Vec<_> = asked.map(Box::pin).collect();
    let mut answers = Vec::with_capacity(pending.len());
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers
}

async fn latest(store: &MysqlStore) {
    let mut micros = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let rows =
            store.history().latest_categories("ALL", "SPOT", Decimal::new(5, 0)).await.expect("an answer");
        micros.push(start.elapsed().as_micros());
        assert_eq!(rows.len(), 10);
    }
    print("the newest of all categories", micros);
}

fn main() {
    let Some(database) = Database::fresh(Server::Mariadb) else { return };
    let rows = std::env::var("FATHOM_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(ROWS);
    let days = (rows / SERIES / 1440).max(2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = MysqlStore::open(&MysqlConfig::new(database.url())).await.expect("a store");
        store.migrate().await.expect("a fresh schema");
        ingest(&store, "candles", |range| Batch::of(range.map(candle))).await;
        ingest(&store, "trade bars", |range| Batch::of(range.map(bar))).await;
        fill(&store, &database.url(), days).await;
        println!("{} category snapshots", days * SERIES * 1440);
        latest(&store).await;
        ranges(&store, days).await;
        store.close().await;
    });
}
