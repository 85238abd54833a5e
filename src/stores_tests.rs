//! The service's sink on servers that are away, and what a store is refused for.

use std::{future::Future, time::Duration};

use fathom_market::{batch::Batch, table::FundingRow};
use fathom_storage::{SpoolStatus, Step, WriteOutcome};
use fathom_testkit::{Private, Server};
use rust_decimal::Decimal;
use tempfile::TempDir;

use super::*;
use crate::config::{self, KnownVenue};

const BACK_WITHIN: Duration = Duration::from_secs(60);

fn config(folder: &TempDir, set: &[(&str, &str)]) -> Config {
    let mut all = vec![
        ("data_dir".to_owned(), folder.path().display().to_string()),
        ("store.connect_timeout_ms".to_owned(), "500".to_owned()),
    ];
    all.extend(set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    config::load(None, [], &all, &KnownVenue::all()).expect("configuration")
}

fn rows(seq: u64) -> Batch {
    let mut batch = Batch::of((0..10).map(|n| FundingRow {
        instrument_id: n,
        event_us: i64::try_from(seq).expect("few") * 1_000_000,
        mark_price: Decimal::ONE,
        index_price: None,
        funding_rate: None,
        next_funding_ms: None,
    }));
    (batch.epoch, batch.seq) = (1, seq);
    batch
}

async fn accepted(sink: &dyn Sink, seq: u64) {
    let outcome = sink.accounts().accept(&rows(seq), &[]).await;
    assert_eq!(outcome, WriteOutcome::Committed { inserted: 10, duplicate: 0 });
}

fn waiting(sink: &dyn Sink) -> SpoolStatus {
    sink.accounts().spool().expect("a spool")
}

async fn step(sink: &dyn Sink) -> Step {
    sink.drain().expect("a drain").step().await
}

async fn until<T, F: Future<Output = Option<T>>>(mut is_so: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = is_so().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(BACK_WITHIN, asking).await.expect("in time")
}

#[actix_web::test]
async fn a_server_that_is_away_stops_no_start_and_rows_wait_in_the_spool() {
    for (kind, url) in [
        ("postgres", "postgres://me:hunter2@127.0.0.1:1/db"),
        ("mariadb", "mysql://me:hunter2@127.0.0.1:1/db"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let config = config(&folder, &[("store.kind", kind), ("store.url", url), ("raw.trades", "false")]);
        let sink = open_sink(&config, &Clock::system()).await.expect("it starts");
        sink.accounts().open().await.expect("accounts");
        accepted(&*sink, 1).await;
        let Step::Failed { error, .. } = step(&*sink).await else { panic!("nothing listens there") };
        assert!(error.contains("schema") && !error.contains("hunter2"), "{error}");
        assert_eq!((waiting(&*sink).rows, sink.status().reachable), (10, false), "{kind}");
    }
}

#[actix_web::test]
async fn a_server_that_comes_back_gets_its_schema_and_then_what_waits() {
    let Some(mut server) = Private::start(Server::Postgres) else { return };
    server.kill();
    let folder = tempfile::tempdir().expect("folder");
    let url = server.url();
    let config = config(&folder, &[("store.kind", "postgres"), ("store.url", url.as_str())]);
    let sink = open_sink(&config, &Clock::system()).await.expect("it starts");
    sink.accounts().open().await.expect("accounts");
    accepted(&*sink, 1).await;
    accepted(&*sink, 2).await;
    assert!(matches!(step(&*sink).await, Step::Failed { .. }));
    server.restart();
    until(|| async { (step(&*sink).await == Step::Idle).then_some(()) }).await;
    assert_eq!(sink.history().count(Table::FundingRates).await.expect("a table"), 20);
    let side = sink.accounts().accepted()[&Table::FundingRates];
    assert!(side.is_balanced() && side.stored == 20, "{side:?}");
    sink.close().await;
}

#[actix_web::test]
async fn raw_ticks_on_mysql_are_refused_by_the_name_of_their_key() {
    let folder = tempfile::tempdir().expect("folder");
    let server = [("store.kind", "mysql"), ("store.host", "127.0.0.1"), ("store.port", "1")];
    let refused = config(&folder, &server);
    let error = open_sink(&refused, &Clock::system()).await.err().expect("refused").to_string();
    assert!(error.contains("raw.trades") && !error.contains("raw.book_ticker"), "{error}");
    let without = [&server[..], &[("raw.trades", "false")]].concat();
    assert_eq!(refusals(&config(&folder, &without)), None);
    assert_eq!(refusals(&config(&folder, &[])), None, "SQLite keeps them");
}
