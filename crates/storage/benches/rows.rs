//! Rows a second into a fresh SQLite store, in batches of 5000 over 200 instruments, with all indexes; accepted with their
//! accounts and marks, and written without:
//! `cargo bench -p fathom-storage`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first surprise"
)]

use fathom_market::{
    batch::Batch,
    decimal::to_decimal,
    table::{BookTickerRow, CandleRow, TradeRow},
};
use fathom_storage::{Accounts as _, Offered, SqliteConfig, SqliteStore, Store, WriteOutcome};
use tokio::time::Instant;

const BATCH: i64 = 5000;
const BATCHES: i64 = 100;
const INSTRUMENTS: i64 = 200;
const MINUTE_MS: i64 = 60_000;

/// Ids are hashes in life: spread, and in no order.
const fn instrument(n: i64) -> i64 {
    (n % INSTRUMENTS).wrapping_mul(7_046_029_254_386_353_131) & i64::MAX
}

fn tick(n: i64) -> BookTickerRow {
    BookTickerRow {
        instrument_id: instrument(n),
        update_id: n,
        event_us: n * 1000,
        ordinal: 0,
        venue_time: true,
        recv_us: n * 1000 + 250,
        bid_price_m: 6_183_763 + n % 97,
        bid_qty_m: 378_826,
        ask_price_m: 6_183_764 + n % 97,
        ask_qty_m: 154_698,
        price_scale: 2,
        qty_scale: 5,
    }
}

fn trade(n: i64) -> TradeRow {
    TradeRow {
        instrument_id: instrument(n),
        kind: "agg".into(),
        trade_id: n.to_string(),
        event_us: n * 1000,
        recv_us: n * 1000 + 250,
        price_m: 6_183_763 + n % 97,
        qty_m: 2000 + n % 89,
        price_scale: 2,
        qty_scale: 5,
        side: if n % 2 == 0 { "buy" } else { "sell" }.into(),
        first_raw_id: Some(n),
        last_raw_id: Some(n),
    }
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

async fn measure(name: &str, batch: impl Fn(std::ops::Range<i64>) -> Batch) {
    run(name, "accepted", true, &batch).await;
    run(name, "written", false, &batch).await;
}

async fn run(name: &str, how: &str, accounts: bool, batch: impl Fn(std::ops::Range<i64>) -> Batch) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store =
        SqliteStore::open(&SqliteConfig::new(directory.path().join("bench.sqlite"))).await.expect("a store");
    store.migrate().await.expect("a fresh schema");
    let mut batches: Vec<Batch> = (0..BATCHES).map(|n| batch(n * BATCH..(n + 1) * BATCH)).collect();
    for (seq, batch) in (1..).zip(&mut batches) {
        (batch.epoch, batch.seq) = (1, seq);
    }
    let start = Instant::now();
    for batch in &batches {
        let offered = Offered::of(batch.seq * BATCH.unsigned_abs());
        let outcome = match accounts {
            true => store.accept(batch, &[(batch.table(), offered)]).await,
            false => store.write(batch).await,
        };
        assert_eq!(outcome, WriteOutcome::Committed { inserted: BATCH.unsigned_abs(), duplicate: 0 });
    }
    let micros = start.elapsed().as_micros().max(1);
    store.close().await;
    let rows = (BATCH * BATCHES).unsigned_abs();
    let bytes = store.status().bytes.unwrap_or_default();
    println!("{name}, {how}: {} rows/s, {} bytes a row", u128::from(rows) * 1_000_000 / micros, bytes / rows);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        measure("book_ticker", |range| Batch::of(range.map(tick))).await;
        measure("trades", |range| Batch::of(range.map(trade))).await;
        measure("candles", |range| Batch::of(range.map(candle))).await;
    });
}
