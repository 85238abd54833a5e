//! The interface against a real tree without markets and a real store in a temporary directory.

mod access;
mod categories;
mod gaps;
mod operating;
mod reading;
mod redis;
mod sinks;
mod symbols;
mod tap;

use std::{sync::Arc, time::Duration};

use actix_web::{
    App,
    body::to_bytes,
    http::{StatusCode, header::HeaderMap},
    test::{TestRequest, call_service, init_service},
    web,
};
use fathom_actors::{kernel::Clock, system::MarketSystem};
use fathom_market::{
    batch::Batch,
    table::{CategorySnapshotRow, Row},
};
use fathom_storage::{SqliteConfig, SqliteStore, Store, WriteOutcome};
use rust_decimal::Decimal;
use serde_json::Value;
use tempfile::TempDir;

use super::{AppState, configure};
use crate::{
    config::{self, Config, KnownVenue, TOKEN_VARIABLE},
    settings,
};

/// Longer than anything takes on a loaded machine.
const LONG: Duration = Duration::from_secs(30);
const MINUTE: i64 = 60_000;
/// A minute boundary.
const T0: i64 = 1_700_000_040_000;

struct World {
    state: web::Data<AppState>,
    store: Arc<SqliteStore>,
    _directory: TempDir,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Status and error code.
    fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().expect("a code").to_owned())
    }
}

/// A configuration without markets.
fn config(directory: &TempDir, token: Option<&str>, set: &[(&str, &str)]) -> Config {
    let mut overrides = vec![
        ("venues.binance.spot.enabled".to_owned(), "false".to_owned()),
        ("venues.binance.futures.enabled".to_owned(), "false".to_owned()),
        ("data_dir".to_owned(), directory.path().display().to_string()),
    ];
    overrides.extend(set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let environment = token.map(|token| (TOKEN_VARIABLE.to_owned(), token.to_owned()));
    config::load(None, environment, &overrides, &KnownVenue::all()).expect("configuration")
}

impl World {
    async fn new() -> Self {
        Self::with(None, &[]).await
    }

    async fn with(token: Option<&str>, set: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let config = config(&directory, token, set);
        let store = Arc::new(SqliteStore::open(&SqliteConfig::new(&config.store.path)).await.expect("store"));
        store.migrate().await.expect("schema");
        let clock = Clock::system();
        let started_us = clock.now_us();
        let tree = settings::settings(&config).expect("settings");
        let system =
            MarketSystem::start(tree, settings::kernel(&config, clock), store.clone()).await.expect("tree");
        let state = web::Data::new(AppState::new(Arc::new(system), &config, started_us));
        Self { state, store, _directory: directory }
    }

    async fn call(&self, request: TestRequest) -> Reply {
        let app = init_service(App::new().configure(configure(self.state.clone()))).await;
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("a body"));
        Reply { status, headers, text: String::from_utf8(body.to_vec()).expect("UTF-8") }
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(TestRequest::get().uri(path)).await
    }

    async fn json(&self, path: &str) -> Value {
        let reply = self.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text);
        reply.json()
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.call(TestRequest::post().uri(path).set_payload(body.to_owned())).await
    }

    async fn write<R: Row>(&self, rows: Vec<R>) {
        let count = rows.len() as u64;
        let outcome = self.store.write(&Batch::of(rows)).await;
        assert_eq!(outcome, WriteOutcome::Committed { inserted: count, duplicate: 0 });
    }

    /// Asks until the answer is as wanted, and gives it.
    async fn eventually(&self, path: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
        let asking = async {
            loop {
                let reply = self.get(path).await;
                if wanted(&reply) {
                    return reply;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(LONG, asking).await {
            Ok(reply) => reply,
            Err(_) => panic!("{path} never answered as wanted: {}", self.get(path).await.text),
        }
    }

    /// The operation that an accepted call began, once it is over.
    async fn finished(&self, accepted: &Reply) -> Value {
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text);
        let path = accepted.header("location").to_owned();
        assert_eq!(
            path,
            format!("/api/v1/operations/{}", accepted.json()["operation"]["id"].as_str().expect("id"))
        );
        let over = |reply: &Reply| !reply.json()["finished_us"].is_null();
        self.eventually(&path, over).await.json()
    }
}

fn dec(text: &str) -> Decimal {
    text.parse().expect("decimal")
}

/// A stored minute of `TOTAL` on spot, at 5 %.
fn minute(timestamp_ms: i64) -> CategorySnapshotRow {
    CategorySnapshotRow {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: dec("5"),
        timestamp_ms,
        total_bid_volume: dec("1.5"),
        total_ask_volume: dec("2.000000000001"),
        total_bid_volume_usd: dec("1234567890123456.789012345678"),
        total_ask_volume_usd: dec("0.00000005"),
        avg_price: Some(dec("61837.63")),
        symbol_count: 7,
        member_count: 10,
        bid_covered: 6,
        ask_covered: 5,
        stale_count: 2,
        unpriced_count: 1,
        created_us: timestamp_ms * 1000,
    }
}
