//! Rows a second into PostgreSQL through the store, against `psql \copy` of the same rows as text into a table with the same
//! indexes, in turns; then the questions about category snapshots on a table of two months:
//! `cargo bench -p fathom-storage --bench postgres`.
//!
//! `FATHOM_BENCH_ROWS` is the number of rows of each turn (500 000) and `FATHOM_BENCH_SNAPSHOTS` that of the snapshots
//! (5 200 000). A database of its own is made on the server of `FATHOM_TEST_POSTGRES_URL`, and dropped.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement prints, and stops at the first surprise"
)]

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use fathom_market::{
    batch::Batch,
    table::{BookTickerRow, Table},
};
use fathom_storage::{CategoryQuery, History as _, PostgresConfig, PostgresStore, Store as _, WriteOutcome};
use fathom_testkit::Server;
use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::Instant;

const BATCH: i64 = 5000;
const TURNS: usize = 5;
const INSTRUMENTS: i64 = 200;
const START_MS: i64 = 1_735_689_600_000;
const MINUTE_MS: i64 = 60_000;
/// Questions a second, and how long they are asked.
const RATE: u32 = 50;
const QUESTIONS: u32 = 1000;

fn setting(name: &str, usual: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Ids are hashes in life: spread, and in no order.
const fn instrument(n: i64) -> i64 {
    (n % INSTRUMENTS).wrapping_mul(7_046_029_254_386_353_131) & i64::MAX
}

/// About 3000 ticks a second over all instruments.
fn tick(n: i64) -> BookTickerRow {
    let event_us = START_MS * 1000 + n * 333;
    BookTickerRow {
        instrument_id: instrument(n),
        update_id: 40_000_000_000 + n,
        event_us,
        ordinal: 0,
        venue_time: true,
        recv_us: event_us + 250,
        bid_price_m: 6_183_763 + n % 97,
        bid_qty_m: 378_826,
        ask_price_m: 6_183_764 + n % 97,
        ask_qty_m: 154_698,
        price_scale: 2,
        qty_scale: 5,
    }
}

fn batches(range: std::ops::Range<i64>) -> Vec<Batch> {
    range
        .clone()
        .step_by(BATCH as usize)
        .map(|from| Batch::of((from..(from + BATCH).min(range.end)).map(tick)))
        .collect()
}

/// The rows as `\copy` reads them, in a file.
fn text_file(range: std::ops::Range<i64>) -> tempfile::NamedTempFile {
    let mut text = String::new();
    for row in range.map(tick) {
        let written = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            row.instrument_id,
            row.update_id,
            row.event_us,
            row.ordinal,
            if row.venue_time { "t" } else { "f" },
            row.recv_us,
            row.bid_price_m,
            row.bid_qty_m,
            row.ask_price_m,
            row.ask_qty_m,
            row.price_scale,
            row.qty_scale,
        );
        written.expect("a string takes text");
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a disk with room");
    file
}

async fn run(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.expect("a statement");
}

/// Seconds of `psql \copy` of a file.
fn psql_copy(url: &str, file: &std::path::Path) -> f64 {
    let start = Instant::now();
    let command = format!("\\copy {} from '{}'", Table::BookTicker.schema().name, file.display());
    let done = Command::new("psql")
        .args([url, "-q", "-v", "ON_ERROR_STOP=1", "-c", &command])
        .stdin(Stdio::null())
        .status();
    assert!(done.is_ok_and(|status| status.success()), "psql failed");
    start.elapsed().as_secs_f64()
}

/// Seconds of the same rows through the store.
async fn write(store: &PostgresStore, batches: &[Batch], duplicates: u64) -> f64 {
    let start = Instant::now();
    let mut found = 0;
    for batch in batches {
        match store.write(batch).await {
            WriteOutcome::Committed { duplicate, .. } => found += duplicate,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found, duplicates, "duplicates");
    start.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

async fn ingest(database: &str, connection: &mut PgConnection, store: &PostgresStore) {
    let rows = setting("FATHOM_BENCH_ROWS", 500_000);
    let (mut text, mut direct, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    let table = Table::BookTicker.schema().name;
    let (file, all) = (text_file(0..rows), batches(0..rows));
    let firsts: Vec<Batch> = all.iter().map(|batch| batch.select(&[0])).collect();
    // The first writes make the partitions, for both.
    write(store, &all, 0).await;
    for turn in 0..TURNS {
        let empty = format!("truncate {table}; checkpoint");
        run(connection, empty.clone()).await;
        text.push(psql_copy(database, file.path()));
        run(connection, empty.clone()).await;
        direct.push(write(store, &all, 0).await);
        // A row of every batch is stored already: each is rolled back, or known for a replay, and merged.
        run(connection, empty).await;
        write(store, &firsts, 0).await;
        merged.push(write(store, &all, all.len() as u64).await);
        // The next turn begins with a batch without duplicates, as life goes on.
        run(connection, format!("truncate {table}")).await;
        write(store, &batches(0..BATCH), 0).await;
        eprintln!("turn {} of {TURNS}", turn + 1);
    }
    let rate = |seconds: f64| rows as f64 / seconds / 1000.0;
    let (text, direct, merged) = (median(text), median(direct), median(merged));
    println!("psql \\copy text:  {:.0} k rows/s", rate(text));
    println!("store, new rows:  {:.0} k rows/s, {:.2} of \\copy (bar 1.05)", rate(direct), text / direct);
    println!("store, conflicts: {:.0} k rows/s, {:.2} of \\copy (bar 0.5)", rate(merged), text / merged);
}

/// Two months of minutes of five categories, two markets and six depths, made by the server.
async fn fill(connection: &mut PgConnection, store: &PostgresStore, rows: i64) -> i64 {
    let minutes = rows / 60;
    for day in 0..=minutes / 1440 {
        let first = START_MS + day * 1440 * MINUTE_MS;
        store.expire(&[], first * 1000, 1).await.expect("partitions");
    }
    let insert = format!(
        "insert into category_snapshots_raw \
         select 'ALL', m, c, d, {START_MS} + n * {MINUTE_MS}, 1.5 * n, 2.5 * n, 61837.5 * n, 71837.5 * n, 61837.63, \
         200, 201, 100, 100, 1, 0, 0 \
         from generate_series(0, {minutes} - 1) n, unnest(array['SPOT', 'FUTURES']) m, \
         unnest(array['TOTAL', 'TOTAL1', 'TOTAL2', 'TOTAL3', 'OTHERS']) c, unnest(array[1.5, 3, 5, 8, 15, 30]) d"
    );
    run(connection, insert).await;
    run(connection, "vacuum analyze category_snapshots_raw".to_owned()).await;
    minutes
}

fn percentile(of: &mut [Duration], part: usize) -> Duration {
    of.sort_unstable();
    of.get((of.len() * part / 100).min(of.len() - 1)).copied().unwrap_or_default()
}

async fn questions(connection: &mut PgConnection, store: &PostgresStore) {
    let wanted = setting("FATHOM_BENCH_SNAPSHOTS", 5_200_000);
    let minutes = fill(connection, store, wanted).await;
    let count = store.count(Table::CategorySnapshots).await.expect("a count");
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
    let (mut ranges, mut newest, mut latest) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..QUESTIONS {
        pace.tick().await;
        let from = START_MS + i64::from(n) * 7919 % (minutes - 1440).max(1) * MINUTE_MS;
        let query = CategoryQuery {
            scope: "ALL".into(),
            market_type: "SPOT".into(),
            category: ["TOTAL", "TOTAL1", "OTHERS"][n as usize % 3].into(),
            depth: Decimal::from(5),
            from_ms: Some(from),
            to_ms: Some(from + 1439 * MINUTE_MS),
            limit: 1440,
        };
        let start = Instant::now();
        let rows = store.category_range(&query).await.expect("a range");
        ranges.push(start.elapsed());
        assert_eq!(rows.len(), 1440);
        if n % 5 == 0 {
            let query = CategoryQuery { from_ms: None, to_ms: None, ..query };
            let start = Instant::now();
            assert_eq!(store.category_range(&query).await.expect("a range").len(), 1440);
            newest.push(start.elapsed());
            let start = Instant::now();
            let all = store.latest_categories("ALL", "SPOT", Decimal::from(5)).await.expect("the newest");
            latest.push(start.elapsed());
            assert_eq!(all.len(), 5);
        }
    }
    println!("of {count} snapshots, {RATE} questions a second:");
    for (name, mut times, bar) in
        [("24 h by times", ranges, 20), ("newest 24 h", newest, 20), ("newest of all", latest, 5)]
    {
        let (p50, p95) = (percentile(&mut times, 50), percentile(&mut times, 95));
        println!("{name}: p50 {p50:.2?}, p95 {p95:.2?} (bar {bar} ms)");
    }
}

async fn bench(server: &str) {
    let name = format!("fathom_bench_{}", std::process::id());
    let (front, _) = server.rsplit_once('/').expect("a URL with a database");
    let url = format!("{front}/{name}");
    let mut admin = PgConnection::connect(server).await.expect("a server");
    run(&mut admin, format!("create database {name}")).await;
    let config =
        PostgresConfig { statement_timeout: Duration::from_secs(600), ..PostgresConfig::new(url.clone()) };
    let store = PostgresStore::open(&config).await.expect("a store");
    store.migrate().await.expect("a schema");
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    ingest(&url, &mut connection, &store).await;
    questions(&mut connection, &store).await;
    store.close().await;
    run(&mut admin, format!("drop database {name} with (force)")).await;
}

fn main() {
    let Some(server) = Server::Postgres.url() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(bench(&server));
}
