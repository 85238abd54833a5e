//! Symbols come and go while everything runs, by operators and by the venue, and no other stream notices.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Service, Simulator, TOKEN, check, eventually, fathom, program};

const BASES: [&str; 8] = ["BTC", "ETH", "XRP", "BNB", "SOL", "TRX", "DOGE", "ADA"];
/// Collected from the start: one full shard, and one with room.
const FIRST: usize = 7;
const LIVE_WITHIN: Duration = Duration::from_secs(60);

/// What must not change of a shard, and how far its lines have read.
struct Seen {
    generation: u64,
    connections: Vec<u64>,
    frames: u64,
}

fn seen(service: &Service) -> BTreeMap<String, Seen> {
    let listed = service.http.json("/api/v1/shards");
    let number = |value: &Value| value.as_u64().expect("a number");
    let shard = |shard: &Value| {
        let lines = shard["lines"].as_array().expect("lines");
        let seen = Seen {
            generation: number(&shard["generation"]),
            connections: lines.iter().map(|line| number(&line["connection"])).collect(),
            frames: lines.iter().map(|line| number(&line["frames"])).sum(),
        };
        (shard["id"].as_str().expect("an id").to_owned(), seen)
    };
    listed["shards"].as_array().expect("shards").iter().map(shard).collect()
}

/// Every shard of before is the same instance on the same connections, and has read on.
fn undisturbed(service: &Service, before: &BTreeMap<String, Seen>) {
    eventually("the neighbours read on", LIVE_WITHIN, || {
        let now = seen(service);
        for (id, before) in before {
            let now = &now[id];
            assert_eq!(now.generation, before.generation, "{id}");
            assert_eq!(now.connections, before.connections, "{id}");
            check(now.frames > before.frames, || format!("{id} has read nothing since"))?;
        }
        Ok(())
    });
}

fn state(service: &Service, symbol: &str, market: &str) -> Value {
    let listed = service.http.json(&format!("/api/v1/symbols?market={market}"));
    let found = listed["symbols"].as_array().expect("symbols").iter().find(|one| one["symbol"] == symbol);
    found.cloned().unwrap_or(Value::Null)
}

fn accepted(service: &Service, body: &Value) -> Value {
    let answer = service.http.post("/api/v1/symbols", body).expect("an answer");
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    let operation = answer.body["operation"]["id"].as_str().expect("an operation");
    service.done(operation, LIVE_WITHIN);
    answer.body
}

fn resyncs(service: &Service, symbol: &str) -> Value {
    service.actor(&format!("book/binance/spot/{symbol}"))["detail"]["resyncs"].clone()
}

#[test]
fn symbols_come_and_go_while_the_others_stream_on() {
    let folder = TempDir::new().expect("folder");
    let names: Vec<String> = BASES.iter().map(|base| format!("{base}USDT")).collect();
    let simulator =
        Simulator::start(&program(), folder.path(), &["--names", &names.join(","), "--rate", "250"]);
    let symbols = json!(names[..FIRST]);
    let mut settings =
        ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}")).to_vec();
    settings.push("venues.refresh_every_ms=1000".to_owned());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let service = Service::start(folder.path(), &simulator, &settings);
    service.await_live(2 * FIRST as u64, LIVE_WITHIN);
    let (before, resyncs_before) = (seen(&service), resyncs(&service, "BTCUSDT"));

    let added = accepted(&service, &json!({"symbol": "ada/usdt"}));
    assert_eq!(added["message"], "Symbol ADA/USDT added successfully");
    service.await_live(2 * BASES.len() as u64, LIVE_WITHIN);
    undisturbed(&service, &before);
    let again = service.http.post("/api/v1/symbols", &json!({"symbol": "ADAUSDT"})).expect("an answer");
    assert_eq!((again.status, &again.body["error"]), (409, &json!("duplicate_symbol")));
    assert_eq!(again.body["message"], "Symbol ADAUSDT already exists");
    let unknown = service.http.post("/api/v1/symbols", &json!({"symbol": "NOPEUSDT"})).expect("an answer");
    assert_eq!((unknown.status, &unknown.body["error"]), (404, &json!("symbol_not_found")));

    let ctl = |args: &[&str]| {
        let base = ["ctl", "--url", service.http.base(), "--token", TOKEN];
        let output = fathom(folder.path(), &base.iter().chain(args).copied().collect::<Vec<_>>());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let removed = ctl(&["remove_symbol", "XRP/USDT"]);
    assert_eq!(removed["operation"]["state"], "done", "{removed:#}");
    service.await_live(2 * (BASES.len() as u64 - 1), LIVE_WITHIN);
    undisturbed(&service, &before);
    assert_eq!(state(&service, "XRPUSDT", "spot"), Value::Null);
    assert_eq!(ctl(&["get_symbols"])["count"], BASES.len() - 1);

    let halted = json!({"kind": "set_status", "market": "spot", "symbol": "ETHUSDT", "status": "BREAK"});
    simulator.fault(&halted);
    eventually("the halted symbol is missing", LIVE_WITHIN, || {
        let seen = state(&service, "ETHUSDT", "spot");
        check(seen["state"] == "missing" && seen["reason"] == "not_trading", || seen.to_string())
    });
    let back = json!({"kind": "set_status", "market": "spot", "symbol": "ETHUSDT", "status": "TRADING"});
    simulator.fault(&back);
    service.await_live(2 * (BASES.len() as u64 - 1), LIVE_WITHIN);
    undisturbed(&service, &before);
    assert_eq!(resyncs(&service, "BTCUSDT"), resyncs_before, "a neighbour in the same shard never resynced");
    let rows = "select count(*) from instruments where native = 'ETHUSDT' and market = 'spot'";
    eventually("three validity rows", LIVE_WITHIN, || {
        let count = service.db.number_or_zero(rows);
        check(count == 3, || count.to_string())
    });
    service.stop("TERM");

    let service = Service::start_as("again", folder.path(), &simulator, &settings);
    service.await_live(2 * (BASES.len() as u64 - 1), LIVE_WITHIN);
    assert_eq!(state(&service, "ADA/USDT", "spot")["state"], "collected");
    assert_eq!(state(&service, "XRPUSDT", "futures"), Value::Null);
    service.stop("TERM");
}
