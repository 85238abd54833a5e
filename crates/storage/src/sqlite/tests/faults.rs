//! What can go wrong: poison, full disks, locks, damage, kills, callers that go away.

use std::time::Duration;

use fathom_market::{
    batch::Batch,
    table::{FundingRow, Table, TradeRow},
};
use sqlx::{Connection as _, Row as _};

use super::*;
use crate::{
    error::ErrorClass,
    store::{PoisonRow, Retention},
};

#[tokio::test]
async fn poison_rows_are_named_and_nothing_is_stored() {
    let (_directory, store) = store().await;
    let bad = [2, 700];
    let all: Vec<TradeRow> = (0..1000)
        .map(|n| TradeRow {
            side: if bad.contains(&n) { "sideways".into() } else { "buy".into() },
            ..rows::trade(n)
        })
        .collect();
    let batch = Batch::of(all);
    let WriteOutcome::Poison { rows } = store.write(&batch).await else {
        panic!("not poison");
    };
    assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), vec![2, 700]);
    assert!(rows[0].error.contains("CHECK constraint failed"), "{}", rows[0].error);
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 0);
    assert!(store.status().reachable);
    let sound: Vec<usize> = (0..1000).filter(|row| *row != 2 && *row != 700).collect();
    assert_eq!(store.write(&batch.select(&sound)).await, committed(998, 0));
}

#[tokio::test]
async fn decimals_wider_than_the_column_are_poison() {
    let (_directory, store) = store().await;
    let row = |mark: &str, event_us| FundingRow {
        instrument_id: 1,
        event_us,
        mark_price: rows::dec(mark),
        index_price: None,
        funding_rate: None,
        next_funding_ms: None,
    };
    let batch = Batch::of([row("1", 1), row("0.0000000000001", 2), row("10000000000000000", 3)]);
    let WriteOutcome::Poison { rows } = store.write(&batch).await else {
        panic!("not poison");
    };
    let wanted = PoisonRow { row: 1, error: "mark_price 0.0000000000001 does not fit numeric(28,12)".into() };
    assert_eq!((rows.len(), &rows[0], rows[1].row), (2, &wanted, 2));
    assert_eq!(store.history().count(Table::FundingRates).await.unwrap(), 0);
}

#[tokio::test]
async fn a_full_disk_passes_and_takes_nothing_with_it() {
    let (directory, store) = store().await;
    store.close().await;
    let small =
        SqliteStore::open_with(&config(directory.path()), &[("max_page_count", "120")]).await.unwrap();
    let mut stored = 0;
    let refused = loop {
        let batch = rows::batch(Table::DepthEvents, stored..stored + 500);
        match small.write(&batch).await {
            WriteOutcome::Committed { inserted, .. } => stored += inserted.cast_signed(),
            WriteOutcome::Transient { retry_after, error } => {
                assert!(retry_after >= Duration::from_secs(10), "{retry_after:?}");
                assert!(error.contains("full"), "{error}");
                break batch;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(!small.status().reachable);
    assert_eq!(small.history().count(Table::DepthEvents).await.unwrap(), stored.unsigned_abs());
    // Refused again, by a connection that is whole.
    assert!(matches!(small.write(&refused).await, WriteOutcome::Transient { .. }));
    small.close().await;
    let store = open(directory.path()).await;
    assert_eq!(store.write(&refused).await, committed(500, 0));
}

#[tokio::test]
async fn a_lock_of_another_process_passes() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.busy_timeout = Duration::from_millis(20);
    let store = SqliteStore::open(&config).await.unwrap();
    store.migrate().await.unwrap();
    let mut other = beside(directory.path()).await;
    let lock = other.begin_with("begin immediate").await.unwrap();
    let batch = rows::batch(Table::Candles, 0..10);
    assert!(matches!(store.write(&batch).await, WriteOutcome::Transient { .. }));
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 0);
    lock.rollback().await.unwrap();
    assert_eq!(store.write(&batch).await, committed(10, 0));
    assert!(store.status().reachable);
    assert!(store.status().last_error.is_some());
}

#[tokio::test]
async fn what_may_not_be_written_or_is_no_database_is_fatal() {
    let (directory, store) = store().await;
    store.close().await;
    let read_only = SqliteStore::open_with(&config(directory.path()), &[("query_only", "on")]).await.unwrap();
    let outcome = read_only.write(&rows::batch(Table::Candles, 0..1)).await;
    assert!(matches!(outcome, WriteOutcome::Fatal { .. }), "{outcome:?}");

    let other = SqliteConfig::new(directory.path().join("text.db"));
    std::fs::write(&other.path, "this is a letter, not a database\n".repeat(100)).unwrap();
    let error = SqliteStore::open(&other).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.message().contains("text.db"), "{error}");

    let bare = SqliteStore::open(&SqliteConfig::new(directory.path().join("bare.db"))).await.unwrap();
    assert!(matches!(bare.write(&rows::batch(Table::Candles, 0..1)).await, WriteOutcome::Fatal { .. }));
}

#[tokio::test]
async fn a_copy_taken_at_any_moment_has_every_committed_row() {
    let (directory, store) = store().await;
    let batch = rows::batch(Table::BookTicker, 0..3000);
    assert_eq!(store.write(&batch).await, committed(3000, 0));
    // What a killed process leaves: the file and its log, never closed.
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (config(directory.path()).path, config(copy.path()).path);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", from.display()), format!("{}{suffix}", to.display())).unwrap();
    }
    let revived = open(copy.path()).await;
    assert_eq!(revived.migrate().await.unwrap(), Vec::<String>::new());
    assert_eq!(dump(&revived, Table::BookTicker).await.len(), 3000);
    assert_eq!(revived.write(&batch).await, committed(0, 3000));

    drop(store);
    let again = open(directory.path()).await;
    assert_eq!(again.write(&batch).await, committed(0, 3000));
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_whole_or_absent() {
    let (_directory, store) = store().await;
    let batch = rows::batch(Table::Candles, 0..4000);
    let (mut cut, mut wait) = (0, Duration::from_micros(200));
    while cut < 5 {
        if tokio::time::timeout(wait, store.write(&batch)).await.is_ok() {
            break;
        }
        cut += 1;
        wait *= 2;
        let count = store.history().count(Table::Candles).await.unwrap();
        assert!(count == 0 || count == 4000, "{count} rows");
    }
    assert!(cut > 0, "no write was cut short");
    let WriteOutcome::Committed { inserted, duplicate } = store.write(&batch).await else {
        panic!("not committed");
    };
    assert_eq!(inserted + duplicate, 4000);
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 4000);
}

#[tokio::test]
async fn migrations_are_applied_once_and_a_newer_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let names = store.migrate().await.unwrap();
    assert_eq!(names[..3], ["0001_instruments", "0002_raw_tables", "0003_readable_views"]);
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
    let mut other = beside(directory.path()).await;
    sqlx::query("insert into _sqlx_migrations values (9999, 'tomorrow', '2030-01-01', true, x'00', 1)")
        .execute(&mut other)
        .await
        .unwrap();
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert_eq!(
        error.message(),
        "the database was made by a newer program: migration 9999 is not known to this one"
    );
}

#[tokio::test]
async fn the_file_is_set_up_as_promised() {
    let (_directory, store) = store().await;
    let settings = query(
        &store,
        "select (select auto_vacuum from pragma_auto_vacuum), (select journal_mode from pragma_journal_mode), \
         (select page_size from pragma_page_size)",
    )
    .await;
    assert_eq!(settings[0].get::<i64, _>(0), 2);
    assert_eq!(settings[0].get::<&str, _>(1), "wal");
    assert_eq!(settings[0].get::<i64, _>(2), 4096);
    let refused = sqlx::query("delete from candles_raw").execute(&store.readers).await;
    assert!(refused.is_err(), "a reader could write");
}

#[tokio::test]
async fn old_rows_go_in_steps_and_the_file_shrinks() {
    let (_directory, store) = store().await;
    store.write(&rows::batch(Table::DepthEvents, 0..30_000)).await;
    store.write(&rows::batch(Table::CategorySnapshots, 0..10)).await;
    store.write(&rows::batch(Table::Candles, 0..10)).await;
    let full = query(&store, "select page_count from pragma_page_count").await[0].get::<i64, _>(0);
    let keep = |table, keep| Retention { table, keep };
    let rules = [
        keep(Table::DepthEvents, Duration::from_secs(1)),
        keep(Table::CategorySnapshots, Duration::from_secs(300)),
        keep(Table::Candles, Duration::ZERO),
    ];
    // The snapshots are a minute apart: at ten minutes those of minutes 5 to 9 are five minutes old or younger.
    let now_us = (rows::START_MS + 600_000) * 1000;
    let removed = store.expire(&rules, now_us, 7000).await.unwrap();
    assert_eq!(removed, vec![(Table::DepthEvents, 7000), (Table::CategorySnapshots, 5), (Table::Candles, 0)]);
    let oldest =
        query(&store, "select min(event_us) - 1735689600000000, count(*) from depth_events_raw").await;
    assert_eq!((oldest[0].get::<i64, _>(0), oldest[0].get::<i64, _>(1)), (7000, 23_000));
    let removed = store.expire(&rules, now_us, u64::MAX).await.unwrap();
    assert_eq!(removed[0], (Table::DepthEvents, 23_000));
    assert_eq!(store.expire(&rules, now_us, u64::MAX).await.unwrap()[0], (Table::DepthEvents, 0));
    let shrunk = query(&store, "select page_count from pragma_page_count").await[0].get::<i64, _>(0);
    assert!(shrunk < full / 2, "{full} pages, then {shrunk}");
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 10);
}

#[tokio::test]
async fn a_closed_store_leaves_one_file_and_answers_no_more() {
    let (directory, store) = store().await;
    store.write(&rows::batch(Table::Candles, 0..100)).await;
    assert!(store.probe().await.is_ok());
    assert!(store.status().bytes.is_some_and(|bytes| bytes > 0));
    store.close().await;
    store.close().await;
    let log = config(directory.path()).path.with_extension("db-wal");
    assert!(std::fs::metadata(log).map_or(0, |log| log.len()) == 0, "the log was left behind");
    let outcome = store.write(&rows::batch(Table::Candles, 0..1)).await;
    assert_eq!(outcome, WriteOutcome::Fatal { error: "the store is closed".into() });
    assert!(store.probe().await.is_err());
}
