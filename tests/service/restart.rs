//! A shard is restarted over HTTP while everything runs: the process stays, its neighbours notice nothing.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use xtask::suite::kind::Kind;

use crate::harness::{Service, Simulator, check, eventually, program, true_book};
use crate::suite::{holds, options};

const TARGET: &str = "binance-spot-high-1";
const BASES: [&str; 12] =
    ["BTC", "ETH", "XRP", "BNB", "SOL", "TRX", "DOGE", "ADA", "LINK", "BCH", "LTC", "AVAX"];
/// Of any shards, one after the other.
const HANDOVERS: usize = 8;
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Far beyond the pace of a moving market, far below a reconnection that waits.
const SILENT_AT_MOST_MS: i64 = 5_000;

struct Neighbour {
    generation: u64,
    connections: Vec<u64>,
}

fn shards(service: &Service) -> BTreeMap<String, Value> {
    let listed = service.http.json("/api/v1/shards");
    let shards = listed["shards"].as_array().expect("shards").iter();
    shards.map(|shard| (shard["id"].as_str().expect("an id").to_owned(), shard.clone())).collect()
}

fn connections(shard: &Value) -> Vec<u64> {
    let lines = shard["lines"].as_array().expect("lines").iter();
    lines.map(|line| line["connection"].as_u64().expect("a number")).collect()
}

fn neighbour(shard: &Value) -> Neighbour {
    Neighbour {
        generation: shard["generation"].as_u64().expect("generation"),
        connections: connections(shard),
    }
}

/// What is wrong with a shard that was not to be touched.
fn disturbed(shard: &Value, before: &Neighbour) -> Option<String> {
    let now = neighbour(shard);
    if now.generation != before.generation || now.connections != before.connections {
        return Some(format!("{:?} then {:?}: {shard:#}", before.connections, now.connections));
    }
    let time = |key: &str| shard[key].as_i64().unwrap_or_else(|| panic!("no {key}: {shard:#}"));
    let age_us = time("observed_us") - time("last_frame_us");
    (age_us > SILENT_AT_MOST_MS * 1000).then(|| format!("silent for {age_us} us: {shard:#}"))
}

#[test]
fn a_shard_is_restarted_without_its_neighbours_noticing() {
    let folder = TempDir::new().expect("folder");
    let names: Vec<String> = BASES.iter().map(|base| format!("{base}USDT")).collect();
    let simulator =
        Simulator::start(&program(), folder.path(), &["--names", &names.join(","), "--rate", "250"]);
    let symbols = json!(names);
    let settings = ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}"));
    let service = Service::start(folder.path(), &simulator, &settings.each_ref().map(String::as_str));
    service.await_live(24, HEALS_WITHIN);

    let process = service.http.json("/api/v1/version");
    assert_eq!(process["pid"], service.process.pid());
    let before = shards(&service);
    assert_eq!(before.len(), 6, "{:?}", before.keys());
    let own = neighbour(&before[TARGET]);
    let others: BTreeMap<&String, Neighbour> =
        before.iter().filter(|(id, _)| *id != TARGET).map(|(id, shard)| (id, neighbour(shard))).collect();

    refusals(&service, own.generation);
    let path = format!("/api/v1/shards/{TARGET}/restart");
    let asked = json!({"mode": "graceful", "reason": "a test", "if_generation": own.generation});
    let accepted = service.http.post(&path, &asked).expect("an answer");
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let operation = accepted.body["operation"]["id"].as_str().expect("an operation").to_owned();

    let healed = || {
        let shards = shards(&service);
        for (id, before) in &others {
            if let Some(how) = disturbed(&shards[*id], before) {
                panic!("{id} was disturbed: {how}");
            }
        }
        let now = &shards[TARGET];
        check(now["generation"] == own.generation + 1 && now["state"] == "connected", || now.to_string())?;
        let books = service.http.json(&format!("/api/v1/shards/{TARGET}"))["books"].clone();
        let books = books.as_array().expect("books").clone();
        assert_eq!(books.len(), 5, "{books:?}");
        check(books.iter().all(|book| book["state"] == "live"), || format!("{books:?}"))
    };
    eventually("the shard and its books are back", HEALS_WITHIN, healed);

    let done = service.done(&operation, HEALS_WITHIN);
    assert_eq!(done["to_generation"], own.generation + 1, "{done:#}");
    let actor = service.actor(&format!("shard/{TARGET}"));
    assert_eq!(actor["generation"], own.generation + 1, "{actor:#}");
    assert_eq!(actor["exits"]["panics"], 0, "{actor:#}");
    let now = service.http.json("/api/v1/version");
    assert_eq!((&now["pid"], &now["started_us"]), (&process["pid"], &process["started_us"]));
    books_are_true(&service, &simulator, &before[TARGET]);
    service.stop("TERM");
}

fn refusals(service: &Service, generation: u64) {
    let status = |path: &str, body: Value| service.http.post(path, &body).expect("an answer").status;
    let path = format!("/api/v1/shards/{TARGET}/restart");
    for token in [None, Some("wrong")] {
        let answer = service.http.with_token(token).post(&path, &json!({})).expect("an answer");
        assert_eq!((answer.status, &answer.body["error"]), (401, &"UNAUTHORIZED".into()), "{token:?}");
    }
    assert_eq!(status(&path, json!({"if_generation": generation + 7})), 412);
    assert_eq!(status("/api/v1/shards/binance-spot-high-99/restart", json!({})), 404);
    assert_eq!(status("/api/v1/actors/shard/nobody/restart", json!({})), 404);
    assert_eq!(status(&path, json!({"mode": "gently"})), 400);
    assert_eq!(status(&path, json!({"if_generatoin": 1})), 400);
    let untouched = service.actor(&format!("shard/{TARGET}"));
    assert_eq!(untouched["generation"], generation, "a refused call did something");
}

fn books_are_true(service: &Service, simulator: &Simulator, shard: &Value) {
    let control = simulator.control();
    for symbol in shard["symbols"].as_array().expect("symbols") {
        let symbol = symbol.as_str().expect("a name");
        let difference = eventually(&format!("{symbol} is served"), HEALS_WITHIN, || {
            let served = service.book("spot", symbol, "100")?;
            let truth = true_book(&control, "spot", symbol, served.id)?;
            Ok(served.difference(&truth.top(100)))
        });
        assert_eq!(difference, None, "{symbol}");
    }
}

/// Make before break: the next instance is warm before the old one goes, so that no message is missed and none is doubled.
#[test]
fn a_shard_is_handed_over_without_a_message_missed_or_doubled() {
    let mut options = options(0, 600.0);
    options.every = Duration::from_secs(2);
    options.span = Duration::from_secs(120);
    options.faults = Some(HANDOVERS);
    options.only = vec![Kind::Handover];
    let report = holds(&options);
    assert!(!report.unavailable.contains(&Kind::Handover), "handover is not available");
    assert_eq!(report.outcomes.len(), HANDOVERS);
    let lost = (report.unreceived, report.missing.len(), report.doubled.len());
    assert_eq!(lost, (0, 0, 0), "depth messages and rows missed, rows doubled");
}

#[test]
fn a_handover_says_what_it_cost_and_touches_nobody_else() {
    let folder = TempDir::new().expect("folder");
    let names: Vec<String> = BASES.iter().map(|base| format!("{base}USDT")).collect();
    let simulator =
        Simulator::start(&program(), folder.path(), &["--names", &names.join(","), "--rate", "400"]);
    let symbols = json!(names);
    let settings = ["spot", "futures"].map(|market| format!("venues.binance.{market}.symbols={symbols}"));
    let service = Service::start(folder.path(), &simulator, &settings.each_ref().map(String::as_str));
    service.await_live(24, HEALS_WITHIN);

    let before = shards(&service);
    let own = neighbour(&before[TARGET]);
    let others: BTreeMap<&String, Neighbour> =
        before.iter().filter(|(id, _)| *id != TARGET).map(|(id, shard)| (id, neighbour(shard))).collect();
    let asked = json!({"mode": "handover", "reason": "a test", "if_generation": own.generation});
    let path = format!("/api/v1/shards/{TARGET}/restart");
    let accepted = service.http.post(&path, &asked).expect("an answer");
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let operation = accepted.body["operation"]["id"].as_str().expect("an operation").to_owned();

    let done = service.done(&operation, HEALS_WITHIN);
    assert_eq!(done["to_generation"], own.generation + 1, "{done:#}");
    let effect = &done["effect"];
    assert_eq!((&effect["messages_missed"], &effect["downtime_ms"]), (&0.into(), &0.into()), "{done:#}");
    assert_eq!(effect["gaps_opened"], json!([]), "{done:#}");
    assert_eq!(service.http.json("/api/v1/version")["pid"], service.process.pid());
    eventually("the next instance is connected", HEALS_WITHIN, || {
        let shards = shards(&service);
        for (id, before) in &others {
            if let Some(how) = disturbed(&shards[*id], before) {
                panic!("{id} was disturbed: {how}");
            }
        }
        let now = &shards[TARGET];
        check(now["generation"] == own.generation + 1 && now["state"] == "connected", || now.to_string())
    });
    books_are_true(&service, &simulator, &before[TARGET]);
    service.stop("TERM");
}
