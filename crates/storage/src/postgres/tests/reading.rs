//! The questions of the reading side, and readers beside a writer.

use fathom_market::{
    batch::Batch,
    gap::{GapCause, GapStatus},
    table::{CategorySnapshotRow, GapRow, Table},
};

use super::*;
use crate::read::{CandleQuery, CategoryQuery, CategoryStat, GapQuery, MAX_ROWS, SnapshotQuery};

fn total(from_ms: Option<i64>, to_ms: Option<i64>, limit: u32) -> CategoryQuery {
    CategoryQuery {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: rows::dec("5"),
        from_ms,
        to_ms,
        limit,
    }
}

fn minute(n: i64) -> i64 {
    rows::START_MS + n * 60_000
}

#[tokio::test]
async fn a_range_ascends_from_its_start_or_ends_with_the_newest() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::CategorySnapshots, 0..10)).await;
    let other = CategorySnapshotRow { scope: "ALL".into(), ..rows::category_snapshot(3) };
    let deeper = CategorySnapshotRow { depth: rows::dec("15"), ..rows::category_snapshot(3) };
    store.write(&Batch::of([other, deeper])).await;
    let cases = [
        (total(None, None, 3), vec![7, 8, 9]),
        (total(None, Some(minute(5)), 2), vec![4, 5]),
        (total(Some(minute(2)), None, 3), vec![2, 3, 4]),
        (total(Some(minute(8)), None, 100), vec![8, 9]),
        (total(Some(minute(2)), Some(minute(3)), 100), vec![2, 3]),
        (total(None, None, 0), vec![]),
        (CategoryQuery { category: "MEME".into(), ..total(None, None, 5) }, vec![]),
    ];
    for (query, minutes) in cases {
        let wanted: Vec<_> = minutes.into_iter().map(rows::category_snapshot).collect();
        assert_eq!(store.history().category_range(&query).await.unwrap(), wanted, "{query:?}");
    }
}

#[tokio::test]
async fn no_question_gives_more_rows_than_the_bound() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::Candles, 0..i64::from(MAX_ROWS) + 5)).await;
    let query = CandleQuery {
        instrument_id: rows::BTC,
        timeframe: "1m".into(),
        from_ms: Some(0),
        to_ms: None,
        limit: u32::MAX,
    };
    assert_eq!(store.history().candles(&query).await.unwrap().len(), MAX_ROWS as usize);
}

#[tokio::test]
async fn the_newest_of_each_category_and_their_counts() {
    let Some((_database, store)) = store().await else { return };
    let named =
        |category: &str, n| CategorySnapshotRow { category: category.into(), ..rows::category_snapshot(n) };
    let futures = CategorySnapshotRow { market_type: "FUTURES".into(), ..named("TOTAL", 9) };
    let shallow = CategorySnapshotRow { depth: rows::dec("1.5"), ..named("TOTAL", 8) };
    let all = [named("TOTAL", 1), named("OTHERS", 2), named("TOTAL", 4), named("MEME", 3), futures, shallow];
    store.write(&Batch::of(all)).await;
    let latest = store.history().latest_categories("binance", "SPOT", rows::dec("5.00")).await.unwrap();
    assert_eq!(latest, vec![named("MEME", 3), named("OTHERS", 2), named("TOTAL", 4)]);
    assert_eq!(store.history().latest_categories("ALL", "SPOT", rows::dec("5")).await.unwrap(), vec![]);
    let stat = |category: &str, market: &str, count, first, last| CategoryStat {
        category: category.into(),
        market_type: market.into(),
        count,
        first_ms: minute(first),
        last_ms: minute(last),
    };
    let wanted = vec![
        stat("MEME", "SPOT", 1, 3, 3),
        stat("OTHERS", "SPOT", 1, 2, 2),
        stat("TOTAL", "SPOT", 3, 1, 8),
        stat("TOTAL", "FUTURES", 1, 9, 9),
    ];
    assert_eq!(store.history().category_stats("binance").await.unwrap(), wanted);
}

#[tokio::test]
async fn series_of_an_instrument_are_read_back_as_written() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::Candles, 0..5)).await;
    store.write(&rows::batch(Table::SymbolSnapshots, 0..5)).await;
    store.write(&rows::batch(Table::CollectorState, 0..5)).await;
    let history = store.history();
    let candles = CandleQuery {
        instrument_id: rows::BTC,
        timeframe: "1m".into(),
        from_ms: Some(minute(1)),
        to_ms: Some(minute(2)),
        limit: 9,
    };
    assert_eq!(history.candles(&candles).await.unwrap(), vec![rows::candle(1), rows::candle(2)]);
    let snapshots = SnapshotQuery {
        instrument_id: rows::BTC,
        depth: rows::dec("1.5"),
        from_ms: None,
        to_ms: None,
        limit: 2,
    };
    let wanted = vec![rows::symbol_snapshot(3), rows::symbol_snapshot(4)];
    assert_eq!(history.symbol_range(&snapshots).await.unwrap(), wanted);
    assert_eq!(history.last_candle(rows::BTC, "1m").await.unwrap(), Some((minute(4), true)));
    assert_eq!(history.last_candle(rows::BTC, "5m").await.unwrap(), None);
    let states: Vec<_> = (0..5).map(rows::collector_state).collect();
    assert_eq!(history.collector_state().await.unwrap(), states);
}

#[tokio::test]
async fn readers_see_whole_batches_while_others_are_written() {
    const BATCHES: i64 = 30;
    const ROWS: i64 = 700;
    let Some((_database, store)) = store().await else { return };
    let write = async {
        for batch in 0..BATCHES {
            let rows = rows::batch(Table::BookTicker, batch * ROWS..(batch + 1) * ROWS);
            assert_eq!(store.write(&rows).await, committed(ROWS.unsigned_abs(), 0));
        }
    };
    let read = async {
        let (mut seen, all) = (0, (BATCHES * ROWS).unsigned_abs());
        while seen < all {
            let now = store.history().count(Table::BookTicker).await.unwrap();
            assert_eq!(now % ROWS.unsigned_abs(), 0, "part of a batch was visible");
            assert!(now >= seen);
            seen = now;
        }
    };
    tokio::join!(write, read);
}

fn named(gaps: &[GapRow]) -> Vec<i64> {
    gaps.iter().map(|gap| gap.instrument_id).collect()
}

#[tokio::test]
async fn gaps_are_found_by_what_they_are_and_when_the_newest_first() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::DataGaps, 0..10)).await;
    let candle = GapRow { gap_id: "9-candle:1m-5-restart".into(), from_us: 5, ..rows::gap(9) };
    store
        .write(&Batch::of([GapRow { channel: "candle:1m".into(), cause: "restart".into(), ..candle }]))
        .await;
    let from = rows::gap(0).from_us;
    let all = GapQuery { limit: 100, ..GapQuery::default() };
    let cases = [
        (all.clone(), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9]),
        (GapQuery { limit: 2, ..all.clone() }, vec![9, 8]),
        (
            GapQuery { after: Some((from + 2, format!("f-trade-{}-odd", from + 2))), ..all.clone() },
            vec![2, 1, 0, 9],
        ),
        (GapQuery { instrument_id: Some(4), ..all.clone() }, vec![4]),
        (GapQuery { channel: Some("candle".into()), ..all.clone() }, vec![9]),
        (GapQuery { channel: Some("quote".into()), ..all.clone() }, vec![]),
        (GapQuery { cause: Some(GapCause::Restart), ..all.clone() }, vec![9]),
        (GapQuery { status: Some(GapStatus::Repaired), ..all.clone() }, vec![8, 6, 4, 2, 0]),
        (GapQuery { holes: true, from_us: Some(from + 5), ..all.clone() }, vec![9, 7, 5, 3, 1, 9]),
        (GapQuery { to_us: Some(from + 1), from_us: Some(from), ..all.clone() }, vec![1, 0, 9]),
        (
            GapQuery { from_us: Some(from + 1_000_006), status: Some(GapStatus::Repaired), ..all.clone() },
            vec![8, 6],
        ),
        (GapQuery { venue: Some("nowhere".into()), ..all.clone() }, vec![]),
    ];
    for (query, wanted) in cases {
        assert_eq!(named(&store.history().gaps(&query).await.unwrap()), wanted, "{query:?}");
    }
}

#[tokio::test]
async fn pages_of_gaps_follow_each_other_where_many_begin_at_once_or_have_moved() {
    let Some((_database, store)) = store().await else { return };
    // They begin earlier than when they were named.
    let gap =
        |n: i64| GapRow { gap_id: format!("{n}-trade-77-disconnect"), from_us: 70 + n / 4, ..rows::gap(n) };
    store.write(&Batch::of((0..7).map(gap))).await;
    let mut query = GapQuery { limit: 3, ..GapQuery::default() };
    let mut read = Vec::new();
    loop {
        let page = store.history().gaps(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = Some((last.from_us, last.gap_id.clone()));
        read.extend(named(&page));
    }
    assert_eq!(read, [6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn the_ends_of_a_stream_are_the_times_of_its_first_and_last_row() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::Trades, 0..2001)).await;
    store.write(&rows::batch(Table::Candles, 0..3)).await;
    let ends = async |table, id, timeframe| store.history().ends(table, id, timeframe).await;
    let first = rows::START_MS;
    assert_eq!(ends(Table::Trades, rows::BTC, None).await.unwrap(), Some((first, first + 2)));
    assert_eq!(ends(Table::Trades, 1, None).await.unwrap(), None);
    let (from, to) = ends(Table::Candles, rows::BTC, Some("1m")).await.unwrap().unwrap();
    assert_eq!(to - from, 120_000);
    assert_eq!(ends(Table::Candles, rows::BTC, Some("5m")).await.unwrap(), None);
    assert!(ends(Table::CategorySnapshots, 1, None).await.is_err());
}

/// Forty days of snapshots of three categories, ten minutes apart, made by the server.
async fn forty_days(database: &Database, store: &PostgresStore) {
    for day in 0..40 {
        store.expire(&[], minute(day * 1440) * 1000, 1).await.unwrap();
    }
    let mut beside = database.beside().await;
    let insert = format!(
        "insert into category_snapshots_raw select 'binance', 'SPOT', c, d, {} + n * 600000::bigint, 1, 1, 1, 1, 1, 1, 1, 1, 1, \
         1, 1, 1 from generate_series(0, 40 * 144 - 1) n, unnest(array['TOTAL', 'TOTAL1', 'OTHERS']) c, unnest(array[1.5, 5]) d",
        rows::START_MS
    );
    run(&mut beside, &insert).await;
    run(&mut beside, "analyze category_snapshots_raw").await;
}

/// The plan of a question with these arguments, without the partitions that were left out.
async fn plan(store: &PostgresStore, sql: &str, arguments: &[&str]) -> String {
    let bound = (1..1 + arguments.len())
        .zip(arguments)
        .rev()
        .fold(sql.to_owned(), |sql, (at, argument)| sql.replace(&format!("${at}"), argument));
    let lines = query(store, &format!("explain {bound}")).await;
    lines.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn questions_about_categories_go_by_the_index_and_the_partitions_of_their_days() {
    let Some((database, store)) = store().await else { return };
    forty_days(&database, &store).await;
    let schema = Table::CategorySnapshots.schema();
    let (time, names) = schema.key.split_last().unwrap();
    let range = crate::postgres::history::range_sql(schema, time, names, true);
    let (from, to) = (minute(5 * 1440 + 60).to_string(), minute(6 * 1440 + 59).to_string());
    let asked = ["'binance'", "'SPOT'", "'TOTAL'", "5", &from, &to, "1440"];
    let range = plan(&store, &range, &asked).await;
    assert!(range.contains("_pkey") && !range.contains("Seq Scan"), "{range}");
    assert_eq!(range.matches("_pkey").count(), 2, "{range}");
    let search = crate::postgres::newest::search(schema);
    let search = plan(&store, &search, &["'binance'", "'SPOT'", "5"]).await;
    assert!(search.contains("_pkey") && !search.contains("Seq Scan"), "{search}");
    let after = crate::postgres::newest::after(schema);
    let asked = ["'binance'", "'SPOT'", "5", "array['TOTAL', 'OTHERS']", &minute(39 * 1440).to_string()];
    let after = plan(&store, &after, &asked).await;
    let early = crate::postgres::partitions::partition(schema.name, minute(38 * 1440) / 86_400_000);
    assert!(!after.contains(&early), "{after}");
    let newest = store.history().latest_categories("binance", "SPOT", rows::dec("5")).await.unwrap();
    assert_eq!(newest.len(), 3);
    assert!(newest.iter().all(|row| row.timestamp_ms == minute(40 * 1440 - 10)), "{newest:?}");
}

#[tokio::test]
async fn the_newest_are_the_newest_after_every_write() {
    let Some((_database, store)) = store().await else { return };
    let named =
        |category: &str, n| CategorySnapshotRow { category: category.into(), ..rows::category_snapshot(n) };
    let five = rows::dec("5");
    let latest = async || store.history().latest_categories("binance", "SPOT", five).await.unwrap();
    assert_eq!(latest().await, []);
    store.write(&Batch::of([named("OTHERS", 5), named("TOTAL", 9)])).await;
    assert_eq!(latest().await, [named("OTHERS", 5), named("TOTAL", 9)]);
    // The usual: the next minute.
    store.write(&Batch::of([named("TOTAL", 10), named("TOTAL", 11)])).await;
    assert_eq!(latest().await, [named("OTHERS", 5), named("TOTAL", 11)]);
    // Late, but newer than the newest of its own.
    store.write(&Batch::of([named("OTHERS", 7)])).await;
    assert_eq!(latest().await, [named("OTHERS", 7), named("TOTAL", 11)]);
    // A name that was not there.
    store.write(&Batch::of([named("MEME", 20)])).await;
    assert_eq!(latest().await, [named("MEME", 20), named("OTHERS", 7), named("TOTAL", 11)]);
}
