//! A measured figure, on demand: `cargo test -p fathom-storage --release -- --ignored --nocapture rows_a_second`.

use fathom_market::{
    batch::Batch,
    table::{BookTickerRow, CandleRow, Table, TradeRow},
};

use super::*;

const BATCH: i64 = 5000;
const BATCHES: i64 = 100;
const INSTRUMENTS: i64 = 200;

/// Ids are hashes in life: spread, and in no order.
const fn instrument(n: i64) -> i64 {
    (n % INSTRUMENTS).wrapping_mul(7_046_029_254_386_353_131) & i64::MAX
}

fn batch(table: Table, range: std::ops::Range<i64>) -> Batch {
    match table {
        Table::Trades => {
            Batch::of(range.map(|n| TradeRow { instrument_id: instrument(n), ..rows::trade(n) }))
        }
        Table::Candles => {
            Batch::of(range.map(|n| CandleRow { instrument_id: instrument(n), ..rows::candle(n) }))
        }
        _ => Batch::of(range.map(|n| BookTickerRow { instrument_id: instrument(n), ..rows::tick(n) })),
    }
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
#[allow(clippy::print_stdout, reason = "the figure is the point")]
async fn rows_a_second() {
    for table in [Table::BookTicker, Table::Trades, Table::Candles] {
        let (_directory, store) = store().await;
        let batches: Vec<_> = (0..BATCHES).map(|n| batch(table, n * BATCH..(n + 1) * BATCH)).collect();
        let start = tokio::time::Instant::now();
        for batch in &batches {
            assert_eq!(store.write(batch).await, committed(BATCH.unsigned_abs(), 0));
        }
        let seconds = start.elapsed().as_secs_f64();
        let rows = (BATCH * BATCHES) as f64;
        store.close().await;
        let bytes = store.status().bytes.unwrap_or_default() as f64;
        println!("{table:?}: {:.0} rows/s, {:.0} B a row", rows / seconds, bytes / rows);
    }
}
