//! What can go wrong: poison, servers that are away, hang or die, locks, callers that go away.

use std::time::Duration;

use fathom_market::table::{CandleRow, CategorySnapshotRow, FundingRow, GapRow, OrderbookRow};
use fathom_testkit::Private;
use sqlx::Connection as _;
use tokio::time::Instant;

use super::*;
use crate::{
    error::ErrorClass,
    mysql::connect::Opener,
    store::{PoisonRow, Retention},
};

#[tokio::test]
async fn poison_rows_are_named_and_nothing_is_stored() {
    let Some((_database, store)) = store().await else { return };
    let row = |n: i64| match n {
        2 => CategorySnapshotRow { market_type: "OPTIONS".into(), ..rows::category_snapshot(n) },
        700 => CategorySnapshotRow { category: "x".repeat(192), ..rows::category_snapshot(n) },
        _ => rows::category_snapshot(n),
    };
    let batch = Batch::of((0..1000).map(row));
    let WriteOutcome::Poison { rows } = store.write(&batch).await else {
        panic!("not poison");
    };
    assert_eq!(rows.iter().map(|poison| poison.row).collect::<Vec<_>>(), [2, 700]);
    assert!(rows[0].error.contains("CONSTRAINT"), "{}", rows[0].error);
    assert!(rows[1].error.contains("Data too long"), "{}", rows[1].error);
    assert_eq!(store.history().count(Table::CategorySnapshots).await.unwrap(), 0);
    assert_eq!(store.roll_up(10).await.unwrap(), 0, "a mark was left behind");
    assert!(store.status().reachable);
    let sound: Vec<usize> = (0..1000).filter(|row| *row != 2 && *row != 700).collect();
    assert_eq!(store.write(&batch.select(&sound)).await, committed(998, 0));
}

#[tokio::test]
async fn what_does_not_fit_its_column_is_poison_and_never_cut() {
    let Some((database, store)) = store().await else { return };
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
    let widest = rows::dec("9999999999999999.999999999999");
    store.write(&Batch::of([row("9999999999999999.999999999999", 4)])).await;
    assert_eq!(dump(&store, Table::FundingRates).await[0][2], Some(widest.to_string()));

    let bar = fathom_market::table::QuoteBarRow { price_scale: 70_000, ..rows::quote_bar(1) };
    let WriteOutcome::Poison { rows } = store.write(&Batch::of([bar])).await else {
        panic!("not poison");
    };
    assert!(rows[0].error.contains("Out of range"), "{rows:?}");
    // A server that is not strict by itself stores nothing cut either.
    let lax = MysqlStore::open(&MysqlConfig::new(database.url())).await.unwrap();
    let gap = GapRow { cause: "c".repeat(65), ..rows::gap(1) };
    assert!(matches!(lax.write(&Batch::of([gap])).await, WriteOutcome::Poison { .. }));
    let blank = Batch::of([GapRow { gap_id: "a ".into(), ..rows::gap(1) }]);
    let WriteOutcome::Poison { rows } = store.write(&blank).await else {
        panic!("not poison");
    };
    assert_eq!(rows[0].error, "gap_id \"a \" ends with a blank");
}

#[tokio::test]
async fn rows_are_sent_in_messages_that_the_server_takes() {
    let Some((_database, store)) = store().await else { return };
    let most: i64 = query(&store, "select cast(@@max_allowed_packet as signed)").await[0].get(0);
    let book = |n: i64, bytes: i64| OrderbookRow {
        instrument_id: 1,
        timestamp_ms: n,
        last_update_id: n,
        bids: "1".repeat(usize::try_from(bytes).unwrap()),
        asks: String::new(),
    };
    // Together more than two messages, each less than one.
    let all = Batch::of((0..7).map(|n| book(n, most * 2 / 5)));
    assert_eq!(store.write(&all).await, committed(7, 0));
    assert_eq!(store.write(&all).await, committed(0, 7));
    let great = Batch::of([book(10, 1), book(11, most)]);
    let WriteOutcome::Poison { rows } = store.write(&great).await else {
        panic!("not poison");
    };
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].row, 1);
    assert!(rows[0].error.contains("does not fit max_allowed_packet"), "{}", rows[0].error);
    assert_eq!(store.write(&great.select(&[0])).await, committed(1, 0));
}

#[tokio::test]
async fn an_unusable_url_is_refused_without_its_password() {
    let urls = [
        ("postgres://user:hunter2@127.0.0.1/fathom", "expected mysql://"),
        ("mysql://user:hunter2@127.0.0.1:3306", "names no database"),
        ("mysql://user:hunter2@127.0.0.1:port/fathom", "port"),
        ("hunter2", "expected mysql://"),
    ];
    for (url, wanted) in urls {
        let error = MysqlStore::open(&MysqlConfig::new(url)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fatal);
        assert!(error.message().contains(wanted), "{error}");
        assert!(!error.message().contains("hunter2"), "{error}");
    }
    let config = MysqlConfig::new("mysql://user:hunter2@127.0.0.1:1/fathom");
    let store = MysqlStore::open(&config).await.unwrap();
    assert!(!format!("{config:?} {store:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_server_that_is_away_passes_and_a_wrong_password_does_not() {
    // Nothing listens on port 1.
    let mut config = MysqlConfig::new("mysql://user:hunter2@127.0.0.1:1/fathom");
    config.connect_timeout = Duration::from_millis(300);
    let store = MysqlStore::open(&config).await.unwrap();
    let outcome = store.write(&rows::batch(Table::Candles, 0..1)).await;
    assert!(matches!(outcome, WriteOutcome::Transient { .. }), "{outcome:?}");
    assert!(store.migrate().await.unwrap_err().is_transient());
    assert!(store.probe().await.unwrap_err().is_transient());
    let status = store.status();
    assert!(!status.reachable && !status.last_error.unwrap_or_default().contains("hunter2"));

    let Some(url) = Server::Mariadb.url() else { return };
    let at = url.rsplit_once('@').map_or("127.0.0.1:3306/mysql", |(_, at)| at);
    let store = MysqlStore::open(&MysqlConfig::new(format!("mysql://nobody:hunter2@{at}"))).await.unwrap();
    let WriteOutcome::Fatal { error } = store.write(&rows::batch(Table::Candles, 0..1)).await else {
        panic!("not fatal");
    };
    assert!(error.contains("Access denied") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn sessions_are_set_up_whatever_the_server_does_by_itself() {
    let Some(database) = Database::fresh(Server::Mariadb) else { return };
    let config =
        MysqlConfig { statement_timeout: Duration::from_millis(1500), ..MysqlConfig::new(database.url()) };
    let mut session = Opener::new(&config).unwrap().session().await.unwrap();
    let facts = sqlx::query(
        "select @@sql_mode like '%STRICT_ALL_TABLES%', @@time_zone, @@collation_connection, @@tx_isolation, \
         cast(@@max_statement_time as char), @@autocommit = 1",
    )
    .fetch_one(&mut session.connection)
    .await
    .unwrap();
    assert!(facts.get::<bool, _>(0) && facts.get::<bool, _>(5));
    let words: Vec<String> = (1..5).map(|at| facts.get(at)).collect();
    assert_eq!(words, ["+00:00", "utf8mb4_bin", "READ-COMMITTED", "1.500000"]);
    let store = MysqlStore::open(&config).await.unwrap();
    let begun = Instant::now();
    let late = store.fetch("select sleep(20)".to_owned(), MySqlArguments::default()).await;
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(late.is_err_and(|error| error.is_transient()));
}

#[tokio::test]
async fn a_lock_of_another_transaction_passes() {
    let Some((database, store)) = store().await else { return };
    let batch = rows::batch(Table::Candles, 0..10);
    store.write(&batch).await;
    let opener = Opener::new(&MysqlConfig::new(database.url())).unwrap();
    let mut other = opener.session().await.unwrap();
    let mut lock = other.connection.begin().await.unwrap();
    sqlx::query("select * from candles_raw for update").fetch_all(&mut *lock).await.unwrap();
    let newer = Batch::of((0..10).map(|n| CandleRow { updated_us: i64::MAX, ..rows::candle(n) }));
    // It waits for the lock, and goes through when that is given back.
    let (outcome, ()) = tokio::join!(store.write(&newer), async {
        let waits = "select count(*) from information_schema.innodb_trx where trx_state = 'LOCK WAIT'";
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if query(&store, waits).await[0].get::<i64, _>(0) > 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        lock.rollback().await.unwrap();
    });
    assert_eq!(outcome, committed(10, 0));
}

#[tokio::test]
async fn two_processes_that_write_the_same_rows_store_each_once() {
    let Some((database, store)) = store().await else { return };
    let other = open(&database).await;
    let mut inserted = 0;
    for round in 0..6 {
        let range = round * 300..(round + 1) * 300;
        let (forward, backward): (Vec<i64>, Vec<i64>) = (range.clone().collect(), range.rev().collect());
        let of = |numbers: &[i64]| Batch::of(numbers.iter().map(|n| rows::category_snapshot(*n)));
        let (forward, backward) = (of(&forward), of(&backward));
        for outcome in <[WriteOutcome; 2]>::from(tokio::join!(store.write(&forward), other.write(&backward)))
        {
            // One may be told to try again, and then does.
            let outcome = match outcome {
                WriteOutcome::Transient { .. } => store.write(&forward).await,
                outcome => outcome,
            };
            let WriteOutcome::Committed { inserted: added, duplicate } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(added + duplicate, 300);
            inserted += added;
        }
    }
    assert_eq!(inserted, 1800);
    assert_eq!(dump(&store, Table::CategorySnapshots).await.len(), 1800);
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_is_whole_or_absent() {
    let Some((_database, store)) = store().await else { return };
    let batch = rows::batch(Table::Candles, 0..4000);
    let (mut cut, mut wait) = (0, Duration::from_micros(500));
    while cut < 9 {
        if tokio::time::timeout(wait, store.write(&batch)).await.is_ok() {
            break;
        }
        cut += 1;
        wait *= 2;
        let count = store.history().count(Table::Candles).await.unwrap();
        assert!(count == 0 || count == 4000, "{count} rows");
    }
    assert!(cut > 0, "no write was cut short");
    let outcome = store.write(&batch).await;
    let WriteOutcome::Committed { inserted, duplicate } = outcome else { panic!("{outcome:?}") };
    assert_eq!(inserted + duplicate, 4000);
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 4000);
}

#[tokio::test]
async fn a_question_whose_caller_goes_away_leaves_no_connection_in_the_middle() {
    let Some(database) = Database::fresh(Server::Mariadb) else { return };
    let store = MysqlStore::open(&MysqlConfig { pool: 2, ..MysqlConfig::new(database.url()) }).await.unwrap();
    store.migrate().await.unwrap();
    store.write(&rows::batch(Table::Candles, 0..3000)).await;
    for step in 1..12 {
        let wait = Duration::from_micros(150 * step);
        let _ = tokio::time::timeout(wait, store.history().count(Table::Candles)).await;
        assert_eq!(store.history().collector_state().await.unwrap(), vec![]);
    }
}

#[tokio::test]
async fn old_rows_go_in_steps() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::FundingRates, 0..9000)).await;
    store.write(&rows::batch(Table::CategorySnapshots, 0..10)).await;
    store.write(&rows::batch(Table::Candles, 0..10)).await;
    let keep = |table, keep| Retention { table, keep };
    let rules = [
        keep(Table::FundingRates, Duration::from_secs(1)),
        keep(Table::CategorySnapshots, Duration::from_secs(300)),
        keep(Table::Candles, Duration::ZERO),
        keep(Table::BookTicker, Duration::ZERO),
    ];
    // The snapshots are a minute apart: at ten minutes those of minutes 5 to 9 are five minutes old or younger.
    let now_us = (rows::START_MS + 600_000) * 1000;
    let removed = store.expire(&rules, now_us, 5000).await.unwrap();
    let gone = [
        (Table::FundingRates, 5000),
        (Table::CategorySnapshots, 5),
        (Table::Candles, 0),
        (Table::BookTicker, 0),
    ];
    assert_eq!(removed, gone);
    let oldest = query(&store, "select min(event_us) - 1735689600000000, count(*) from funding_raw").await;
    assert_eq!((oldest[0].get::<i64, _>(0), oldest[0].get::<i64, _>(1)), (5000, 4000));
    assert_eq!(store.expire(&rules, now_us, u64::MAX).await.unwrap()[0], (Table::FundingRates, 4000));
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 10);
}

#[tokio::test]
async fn a_closed_store_answers_no_more() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::Candles, 0..100)).await;
    assert!(store.probe().await.is_ok());
    store.close().await;
    store.close().await;
    let outcome = store.write(&rows::batch(Table::Candles, 0..1)).await;
    assert_eq!(outcome, WriteOutcome::Fatal { error: "the store is closed".into() });
    assert_eq!(store.probe().await.unwrap_err().message(), "the store is closed");
}

/// A private server with a migrated store on it, whose calls give up early.
async fn private() -> Option<(Private, MysqlStore)> {
    let server = Private::start(Server::Mariadb)?;
    let database = Database::at(Server::Mariadb, server.url());
    let mut config = MysqlConfig::new(database.url());
    config.statement_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(1);
    // The server goes with its databases.
    std::mem::forget(database);
    let store = MysqlStore::open(&config).await.unwrap();
    store.migrate().await.unwrap();
    Some((server, store))
}

/// The acceptance of the store: killed ten times while batches are written, and every row is there once.
#[tokio::test]
async fn a_server_that_is_killed_ten_times_loses_and_doubles_no_row() {
    const KILLS: usize = 10;
    const ROWS: i64 = 200;
    let Some((mut server, store)) = private().await else { return };
    let (written, mut watch) = tokio::sync::watch::channel(0_i64);
    let (end, ended) = tokio::sync::watch::channel(false);
    let load = async {
        let (mut batches, mut inserted, mut unknown, mut failed) = (0, 0, 0, 0);
        while !*ended.borrow() {
            let batch = rows::batch(Table::CategorySnapshots, batches * ROWS..(batches + 1) * ROWS);
            loop {
                match store.write(&batch).await {
                    WriteOutcome::Committed { inserted: added, duplicate } => {
                        assert!(added == 0 || duplicate == 0, "part of a batch was stored");
                        inserted += added;
                        break;
                    }
                    WriteOutcome::Transient { .. } => failed += 1,
                    WriteOutcome::UnknownOutcome { .. } => unknown += 1,
                    other => panic!("{other:?}"),
                }
                tokio::task::yield_now().await;
            }
            batches += 1;
            written.send_replace(batches);
        }
        (batches, inserted, unknown, failed)
    };
    let trouble = async {
        for kill in 0..KILLS {
            let from = *watch.borrow();
            watch.wait_for(|batches| *batches >= from + 3 + kill as i64 % 4).await.unwrap();
            server = tokio::task::spawn_blocking(move || {
                server.kill();
                server.restart();
                server
            })
            .await
            .unwrap();
        }
        let from = *watch.borrow();
        watch.wait_for(|batches| *batches >= from + 3).await.unwrap();
        end.send_replace(true);
        server
    };
    let ((batches, inserted, unknown, failed), _server) = tokio::join!(load, trouble);
    assert!(failed > 0, "no kill was noticed");
    let stored = dump(&store, Table::CategorySnapshots).await;
    assert_eq!(stored, expected(&rows::batch(Table::CategorySnapshots, 0..batches * ROWS)));
    // What was counted is what is there, but for batches whose commit went through without an answer.
    let counted = i64::try_from(inserted).unwrap();
    assert!(
        counted <= batches * ROWS && counted >= (batches - unknown) * ROWS,
        "{counted} of {batches}, {unknown}"
    );
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), (batches * ROWS + 59).unsigned_abs() / 60);
}

#[tokio::test]
async fn a_server_that_hangs_passes() {
    let Some((server, store)) = private().await else { return };
    let batch = rows::batch(Table::Candles, 0..10);
    store.write(&batch).await;
    server.stop_cont(true);
    let newer = rows::batch(Table::Candles, 10..20);
    let begun = Instant::now();
    let outcome = store.write(&newer).await;
    let asked = store.history().count(Table::Candles).await;
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(matches!(outcome, WriteOutcome::Transient { .. }), "{outcome:?}");
    assert!(asked.is_err_and(|error| error.is_transient()));
    server.stop_cont(false);
    let begun = Instant::now();
    let outcome = loop {
        match store.write(&newer).await {
            WriteOutcome::Transient { .. } if begun.elapsed() < Duration::from_secs(30) => {}
            outcome => break outcome,
        }
    };
    let WriteOutcome::Committed { inserted, duplicate } = outcome else { panic!("{outcome:?}") };
    assert_eq!(inserted + duplicate, 10);
    assert_eq!(store.history().count(Table::Candles).await.unwrap(), 20);
}

#[tokio::test]
async fn a_read_only_server_and_one_without_room_for_more_say_so() {
    let Some((server, store)) = private().await else { return };
    execute(&store, "create user reader@'127.0.0.1' identified by 'x'").await;
    execute(&store, "grant select, insert, update, delete on *.* to reader@'127.0.0.1'").await;
    let name: String = query(&store, "select database()").await[0].get(0);
    let url = format!("mysql://reader:x@127.0.0.1:{}/{name}", server.port());
    let reader = MysqlStore::open(&MysqlConfig::new(url)).await.unwrap();
    execute(&store, "set global read_only = 1").await;
    let outcome = reader.write(&rows::batch(Table::Candles, 0..1)).await;
    let WriteOutcome::Fatal { error } = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("read-only"), "{error}");
    execute(&store, "set global read_only = 0").await;
    execute(&store, "alter user reader@'127.0.0.1' with max_user_connections 1").await;
    let outcome = reader.write(&rows::batch(Table::Candles, 0..1)).await;
    assert_eq!(outcome, committed(1, 0));
    assert!(
        reader.probe().await.is_err_and(|error| error.is_transient()),
        "a second connection is one too many"
    );
}
