//! The ledger against what a client really got, and the pace.

use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::{Pace, SimulatorHandle};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Ws, eventually, get, post, start};

const NAMES: [(&str, &str, &str); 4] = [
    ("btcusdt@bookTicker", "bookTicker", "u"),
    ("btcusdt@aggTrade", "aggTrade", "a"),
    ("btcusdt@trade", "trade", "t"),
    ("btcusdt@depth@100ms", "depth", "u"),
];

async fn open(simulator: &SimulatorHandle) -> Ws {
    let names: Vec<&str> = NAMES.iter().map(|(name, _, _)| *name).collect();
    let base = simulator.ws_url(Market::Spot, "").unwrap();
    Ws::open(&format!("{base}/stream?streams={}", names.join("/"))).await
}

/// The ids of a channel in the ledger.
async fn made(simulator: &SimulatorHandle, channel: &str, query: &str) -> Vec<Value> {
    let path = format!("/sim/stream/spot/BTCUSDT/{channel}?{query}");
    let mut answer = get(&simulator.control_url(), &path).await.json();
    let streams = answer["streams"].as_object_mut().unwrap();
    assert_eq!(streams.len(), 1, "{channel}");
    let rows = streams.values_mut().next().unwrap().take();
    rows.as_array().unwrap().clone()
}

#[tokio::test]
async fn the_ledger_knows_every_id_and_who_got_it() {
    let simulator = start(1500.0);
    let mut ws = open(&simulator).await;
    let mut got: Vec<Vec<u64>> = vec![Vec::new(); NAMES.len()];
    while got.iter().any(|ids| ids.len() < 15) {
        let frame = ws.json().await;
        if let Some(at) = NAMES.iter().position(|(name, _, _)| frame["stream"] == *name) {
            got[at].push(frame["data"][NAMES[at].2].as_u64().unwrap());
        }
    }
    for ((_, channel, _), ids) in NAMES.iter().zip(&got) {
        let range = format!("from_id={}&to_id={}", ids[0], ids[ids.len() - 1]);
        eventually("all that came is known as delivered", async || {
            let rows = made(&simulator, channel, &range).await;
            let known: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().unwrap()).collect();
            assert_eq!(known, *ids, "{channel}");
            rows.iter().all(|row| row["to"][0]["delivered"] == true)
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_made_while_nobody_listened_is_known_too() {
    let simulator = start(1500.0);
    let mut ws = open(&simulator).await;
    let last = ws.data("btcusdt@bookTicker").await["u"].as_u64().unwrap();
    drop(ws);
    eventually("the connection is gone", async || simulator.status(Market::Spot).unwrap().connections == 0)
        .await;
    eventually("quotes go on", async || {
        let rows = made(&simulator, "bookTicker", &format!("from_id={}", last + 1)).await;
        rows.iter().filter(|row| row["to"].as_array().unwrap().is_empty()).count() > 30
    })
    .await;
    let now = get(&simulator.control_url(), "/sim/status").await.json()["now_ms"].as_i64().unwrap();
    let path = format!("/sim/ledger/summary?market=spot&symbol=BTCUSDT&from_ms=0&to_ms={now}");
    let summary = get(&simulator.control_url(), &path).await.json();
    let streams = summary["streams"].as_array().unwrap();
    assert_eq!(streams.len(), NAMES.len());
    for stream in streams {
        let of = |key: &str| stream[key].as_u64().unwrap();
        assert!(of("made") >= of("delivered") && of("last_id") >= of("first_id"), "{stream}");
        assert!(of("made") > 0, "{stream}");
    }
}

#[tokio::test]
async fn the_pace_is_set_while_running() {
    let simulator = start(50.0);
    let mut ws = open(&simulator).await;
    ws.data("btcusdt@bookTicker").await;
    let asked = json!({"market": "spot", "messages_per_s": 1500.0}).to_string();
    let set = post(&simulator.control_url(), "/sim/rate", &asked).await.json();
    assert_eq!(set["spot"]["messages_per_s"], 1500.0);
    assert!(set.get("futures").is_none());
    let frames = || simulator.status(Market::Spot).unwrap().frames;
    let reading =
        tokio::spawn(async move { while ws.next_within(Duration::from_secs(5)).await.is_some() {} });
    eventually("the messages follow", async || {
        let (before, since) = (frames(), Instant::now());
        tokio::time::sleep(Duration::from_millis(500)).await;
        let per_s = f64::from(u32::try_from(frames() - before).unwrap()) / since.elapsed().as_secs_f64();
        per_s > 1000.0
    })
    .await;
    let slow = Pace { steps_per_s: Some(0.0), messages_per_s: None };
    assert_eq!(simulator.set_pace(Market::Spot, slow), Some(slow));
    eventually("steps alone end it", async || simulator.status(Market::Spot).unwrap().pace == slow).await;
    reading.abort();
}
