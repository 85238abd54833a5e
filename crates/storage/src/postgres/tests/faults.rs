//! What can go wrong: poison, locks, clashes, privileges, callers that go away, a server that is away.

use fathom_market::table::{CandleRow, FundingRow, TradeRow};

use super::*;
use crate::{error::ErrorClass, store::PoisonRow};

fn funding(mark: &str, event_us: i64) -> FundingRow {
    FundingRow {
        instrument_id: 1,
        event_us,
        mark_price: rows::dec(mark),
        index_price: None,
        funding_rate: None,
        next_funding_ms: None,
    }
}

fn poison(outcome: WriteOutcome) -> Vec<PoisonRow> {
    match outcome {
        WriteOutcome::Poison { rows } => rows,
        other => panic!("not poison: {other:?}"),
    }
}

fn is_transient(outcome: &WriteOutcome) -> bool {
    matches!(outcome, WriteOutcome::Transient { .. })
}

#[tokio::test]
async fn poison_rows_are_named_and_nothing_is_stored() {
    let Some((_database, store)) = store().await else { return };
    let bad = [2, 700];
    let all = (0..1000).map(|n| TradeRow {
        side: if bad.contains(&n) { "sideways".into() } else { "buy".into() },
        ..rows::trade(n)
    });
    let batch = Batch::of(all);
    let rows = poison(store.write(&batch).await);
    assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), [2, 700]);
    assert!(rows[0].error.contains("check constraint"), "{}", rows[0].error);
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 0);
    assert!(store.status().reachable);
    let sound: Vec<usize> = (0..1000).filter(|row| *row != 2 && *row != 700).collect();
    assert_eq!(store.write(&batch.select(&sound)).await, committed(998, 0));
    // Beside rows that are stored already, too.
    assert_eq!(poison(store.write(&batch).await).len(), 2);
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 998);
}

#[tokio::test]
async fn what_no_column_can_hold_is_poison_before_anything_is_sent() {
    let database = PostgresStore::open(&PostgresConfig::new("postgres://127.0.0.1:1/away")).await.unwrap();
    let batch = Batch::of([
        funding("1", 1),
        funding("0.0000000000001", 2),
        funding("10000000000000000", 3),
        funding("9999999999999999.999999999999", 4),
    ]);
    let rows = poison(database.write(&batch).await);
    let wanted = PoisonRow { row: 1, error: "mark_price 0.0000000000001 does not fit numeric(28,12)".into() };
    assert_eq!((rows.len(), &rows[0], rows[1].row), (2, &wanted, 2));
    let zero = Batch::of([rows::trade(0), TradeRow { trade_id: "1\0".into(), ..rows::trade(1) }]);
    let wanted = PoisonRow { row: 1, error: "trade_id holds a zero byte".into() };
    assert_eq!(poison(database.write(&zero).await), [wanted]);
}

#[tokio::test]
async fn a_key_too_long_for_its_index_is_poison() {
    let Some((_database, store)) = store().await else { return };
    // Digits that do not compress.
    let long: String = (0..9000_u64).map(|n| char::from(b'0' + (n * n * 7919 / 13 % 10) as u8)).collect();
    let long = long + &uuid_like(4000);
    let batch = Batch::of([rows::trade(0), TradeRow { trade_id: long, ..rows::trade(1) }]);
    let rows = poison(store.write(&batch).await);
    assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), [1]);
}

fn uuid_like(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn the_widest_numbers_come_back_exactly() {
    let Some((_database, store)) = store().await else { return };
    let widest =
        ["9999999999999999.999999999999", "-9999999999999999.999999999999", "0.000000000001", "0", "-0.5"];
    let all = (0_i64..).zip(widest).map(|(n, text)| CandleRow {
        open: rows::dec(text),
        volume: rows::dec(text),
        ..rows::candle(n)
    });
    let batch = Batch::of(all);
    assert_eq!(store.write(&batch).await, committed(5, 0));
    assert_eq!(dump(&store, Table::Candles).await, expected(&batch));
    assert_eq!(store.write(&batch).await, committed(0, 5));
}

#[tokio::test]
async fn duplicates_within_a_batch_and_with_the_store_are_counted() {
    let Some((_database, store)) = store().await else { return };
    let twice = Batch::of([0, 1, 1, 2, 0].map(rows::trade));
    assert_eq!(store.write(&twice).await, committed(3, 2));
    let partly = rows::batch(Table::Trades, 2..10);
    assert_eq!(store.write(&partly).await, committed(7, 1));
    // Fresh rows after a replay: by the stage, then straight in again.
    assert_eq!(store.write(&rows::batch(Table::Trades, 10..20)).await, committed(10, 0));
    assert_eq!(store.write(&rows::batch(Table::Trades, 20..30)).await, committed(10, 0));
    assert_eq!(store.write(&rows::batch(Table::Trades, 0..30)).await, committed(0, 30));
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 30);
}

#[tokio::test]
async fn the_session_is_bounded_as_configured() {
    let Some(database) = Database::new().await else { return };
    let config = PostgresConfig {
        statement_timeout: Duration::from_millis(400),
        idle_in_transaction_timeout: Duration::from_secs(7),
        pool: 2,
        ..database.config()
    };
    let store = PostgresStore::open(&config).await.unwrap();
    store.migrate().await.unwrap();
    let settings = query(
        &store,
        "select current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'), \
         current_setting('timezone'), current_setting('application_name')",
    )
    .await;
    let settings: Vec<String> = (0..4).map(|at| settings[0].get(at)).collect();
    assert_eq!(settings, ["400ms", "7s", "UTC", "fathom"]);
    // A lock of another process is waited for no longer than a statement may take, and passes.
    let mut other = database.beside().await;
    run(&mut other, "begin; lock table candles_raw in access exclusive mode").await;
    let batch = rows::batch(Table::Candles, 0..10);
    let outcome = store.write(&batch).await;
    assert!(is_transient(&outcome), "{outcome:?}");
    assert!(!store.status().reachable);
    run(&mut other, "commit").await;
    assert_eq!(store.write(&batch).await, committed(10, 0));
    assert!(store.status().reachable && store.status().last_error.is_some());
    let writes = (0..20).map(|n| {
        let (store, batch) = (&store, rows::batch(Table::Candles, n * 10..n * 10 + 10));
        async move { store.write(&batch).await }
    });
    let writes: Vec<_> = writes.map(Box::pin).collect();
    for write in futures(writes).await {
        assert!(matches!(write, WriteOutcome::Committed { .. }), "{write:?}");
    }
    assert!(store.pool.size() <= 2, "{} connections", store.pool.size());
}

/// All of them at once.
async fn futures<F: Future<Output = WriteOutcome> + Unpin>(mut all: Vec<F>) -> Vec<WriteOutcome> {
    let mut done: Vec<Option<WriteOutcome>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done).filter(|(_, slot)| slot.is_none()) {
            if let std::task::Poll::Ready(outcome) = std::pin::Pin::new(future).poll(context) {
                *slot = Some(outcome);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn writers_of_the_same_rows_in_other_orders_both_end_well() {
    let Some((_database, store)) = store().await else { return };
    let forward = rows::batch(Table::Trades, 0..3000);
    let backward = forward.select(&(0..3000).rev().collect::<Vec<_>>());
    let both = vec![
        Box::pin(persist(&store, forward)),
        Box::pin(persist(&store, backward.clone())),
        Box::pin(persist(&store, backward)),
    ];
    let mut inserted = 0;
    for outcome in futures(both).await {
        match outcome {
            WriteOutcome::Committed { inserted: added, duplicate } => {
                assert_eq!(added + duplicate, 3000);
                inserted += added;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(inserted, 3000);
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 3000);
}

/// Writes until it is more than a clash.
async fn persist(store: &PostgresStore, batch: Batch) -> WriteOutcome {
    loop {
        let outcome = store.write(&batch).await;
        if !is_transient(&outcome) {
            return outcome;
        }
    }
}

#[tokio::test]
async fn a_deadlock_is_begun_again() {
    let Some((database, store)) = store().await else { return };
    let pair = Batch::of([1, 2].map(rows::candle));
    store.write(&pair).await;
    let mut other = database.beside().await;
    // The other holds the second row and comes for the first; the server ends whom it likes, here the one that
    // waited a second, which is the store's.
    run(&mut other, "set deadlock_timeout = '60s'; begin; update candles_raw set trades = 0 where open_ms > 1735689660000").await;
    let newer = [1, 2].map(|n| CandleRow { updated_us: i64::MAX, ..rows::candle(n) });
    let write = async { store.write(&Batch::of(newer)).await };
    let clash = async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("the store waits", || async { number(&store, waiting).await > 0 }).await;
        run(&mut other, "update candles_raw set trades = 0 where open_ms = 1735689660000; commit").await;
    };
    let (outcome, ()) = tokio::join!(write, clash);
    assert_eq!(outcome, committed(2, 0));
    // The statistics come a moment after the transaction.
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    eventually("the server tells of a deadlock", || async { number(&store, deadlocks).await > 0 }).await;
}

#[tokio::test]
async fn what_needs_an_operator_waits_for_one_and_blames_no_row() {
    let Some((database, store)) = store().await else { return };
    let mut admin = database.beside().await;
    let role = format!("{}_reader", database.name);
    run(
        &mut admin,
        &format!("create role {role} login; grant select on all tables in schema public to {role}"),
    )
    .await;
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let poor = PostgresStore::open(&PostgresConfig::new(url)).await.unwrap();
    let batch = rows::batch(Table::Candles, 0..3);
    let WriteOutcome::Transient { retry_after, error } = poor.write(&batch).await else {
        panic!("not transient")
    };
    assert!(retry_after >= Duration::from_secs(10), "{retry_after:?}");
    assert!(error.contains("permission denied"), "{error}");
    assert_eq!(poor.migrate().await.unwrap_err().class(), ErrorClass::Fatal);
    poor.close().await;
    run(&mut admin, &format!("drop owned by {role}; drop role {role}")).await;
    assert_eq!(store.write(&batch).await, committed(3, 0));
}

#[tokio::test]
async fn a_server_that_is_away_is_a_passing_trouble() {
    let config = PostgresConfig {
        connect_timeout: Duration::from_millis(200),
        ..PostgresConfig::new("postgres://me:s3cret@127.0.0.1:1/away")
    };
    let store = PostgresStore::open(&config).await.unwrap();
    let WriteOutcome::Transient { error, .. } = store.write(&rows::batch(Table::Candles, 0..3)).await else {
        panic!("not transient");
    };
    assert!(!error.contains("s3cret"), "{error}");
    assert!(store.migrate().await.unwrap_err().is_transient());
    assert!(store.probe().await.unwrap_err().is_transient());
    assert!(store.history().collector_state().await.unwrap_err().is_transient());
    assert!(store.expire(&[], 0, 1).await.unwrap_err().is_transient());
    let status = store.status();
    assert_eq!((status.kind, status.reachable, status.bytes), ("postgres", false, None));
    assert!(PostgresStore::open(&PostgresConfig::new("no url")).await.is_err());
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_whole_or_absent() {
    let Some((_database, store)) = store().await else { return };
    for table in [Table::Candles, Table::BookTicker] {
        let batch = rows::batch(table, 0..4000);
        let (mut cut, mut wait) = (0, Duration::from_millis(1));
        while cut < 8 {
            if tokio::time::timeout(wait, store.write(&batch)).await.is_ok() {
                break;
            }
            cut += 1;
            wait = wait * 3 / 2;
            let count = store.history().count(table).await.unwrap();
            assert!(count == 0 || count == 4000, "{count} rows");
        }
        assert!(cut > 0, "no write was cut short");
        let WriteOutcome::Committed { inserted, duplicate } = persist(&store, batch).await else {
            panic!("not committed");
        };
        assert_eq!(inserted + duplicate, 4000);
        assert_eq!(store.history().count(table).await.unwrap(), 4000);
    }
}

#[tokio::test]
async fn connections_that_the_server_ended_are_replaced() {
    let Some((database, store)) = store().await else { return };
    store.write(&rows::batch(Table::Candles, 0..10)).await;
    let mut admin = database.beside().await;
    run(
        &mut admin,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    assert_eq!(persist(&store, rows::batch(Table::Candles, 10..20)).await, committed(10, 0));
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 20);
}

#[tokio::test]
async fn a_closed_store_answers_no_more() {
    let Some((_database, store)) = store().await else { return };
    assert!(store.probe().await.is_ok());
    store.expire(&[], 0, 1).await.unwrap();
    assert!(store.status().bytes.is_some_and(|bytes| bytes > 0));
    store.close().await;
    store.close().await;
    let outcome = store.write(&rows::batch(Table::Candles, 0..1)).await;
    assert_eq!(outcome, WriteOutcome::Fatal { error: "the store is closed".into() });
    assert!(store.probe().await.is_err());
}
