use fathom_market::ids::Market;
use fathom_simulator::{DropHow, Effect, Fault, FaultError};

use crate::client::{Book, Got, Ws, eventually, get, post, start};

const DEPTH: &str = "btcusdt@depth@100ms";

const fn spot(effect: Effect) -> Fault {
    Fault::new(Market::Spot, effect)
}

const fn rest_error(status: u16) -> Effect {
    Effect::RestError { status, retry_after_s: None, path: None }
}

#[tokio::test]
async fn a_skipped_diff_is_a_gap_and_stands_in_the_ledger() {
    let simulator = start(1500.0);
    let mut ws =
        Ws::open(&format!("{}/stream?streams={DEPTH}", simulator.ws_url(Market::Spot, "").unwrap())).await;
    ws.data(DEPTH).await;
    let base = simulator.rest_url(Market::Spot).unwrap();
    let mut book = Book::new(&get(&base, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await.json(), false);
    simulator.inject(&spot(Effect::Skip).stream(DEPTH)).unwrap();
    let gap = loop {
        if let Err(gap) = book.apply(&ws.data(DEPTH).await) {
            break gap;
        }
    };
    assert!(gap.starts_with("gap"), "{gap}");
    let rows = simulator.ledger().depth(Market::Spot, &fathom_simulator::LedgerQuery::default());
    assert_eq!(rows.iter().filter(|row| row.sending.to.is_empty()).count(), 1);
    let faults = simulator.ledger().faults();
    let (fault, touched) = (&faults[0], &faults[0].streams[0]);
    assert_eq!((faults.len(), fault.effects, touched.messages), (1, 1, 1));
    assert_eq!((touched.stream.as_str(), fault.ended_ms), (DEPTH, fault.first_effect_ms));
    let skipped = rows.iter().find(|row| row.sending.to.is_empty()).unwrap();
    assert_eq!((touched.first_id, touched.last_id), (skipped.first, skipped.last));
}

#[tokio::test]
async fn dropped_connections_end_and_are_not_clean() {
    let simulator = start(500.0);
    let url = format!("{}/stream?streams={DEPTH}", simulator.ws_url(Market::Spot, "").unwrap());
    let (mut cut, mut other) = (Ws::open(&url).await, Ws::open(&format!("{url}/btcusdt@trade")).await);
    cut.data(DEPTH).await;
    other.data(DEPTH).await;
    let all = simulator.ledger().connections(Market::Spot);
    let drop_one = spot(Effect::Drop { how: DropHow::Cut }).connection(all[0].id);
    simulator.inject(&drop_one).unwrap();
    assert_eq!(cut.closed().await, None);
    simulator.inject(&spot(Effect::Drop { how: DropHow::Close }).stream("btcusdt@trade")).unwrap();
    assert_eq!(u16::from(other.closed().await.unwrap().code), 1001);
    eventually("both ends are recorded", async || {
        let connections = simulator.ledger().connections(Market::Spot);
        connections.iter().all(|connection| connection.closed_ms.is_some())
    })
    .await;
    let clean: Vec<bool> =
        simulator.ledger().connections(Market::Spot).iter().map(|connection| connection.clean).collect();
    assert_eq!(clean, [false, true]);
    assert_eq!(simulator.inject(&drop_one), Err(FaultError::NoConnection));
}

#[tokio::test]
async fn a_silent_stream_comes_back_when_subscribed_anew() {
    let simulator = start(2000.0);
    let names = "btcusdt@bookTicker/ethusdt@bookTicker";
    let mut ws =
        Ws::open(&format!("{}/stream?streams={names}", simulator.ws_url(Market::Spot, "").unwrap())).await;
    ws.data("btcusdt@bookTicker").await;
    let body = r#"{"kind":"silence","market":"spot","stream":"btcusdt@bookTicker"}"#;
    assert_eq!(post(&simulator.control_url(), "/sim/faults", body).await.json()["id"], 1);
    let mut others = 0;
    // Frames queued before the fault may still arrive.
    while others < 60 {
        let quote = ws.json().await;
        others = if quote["stream"] == "ethusdt@bookTicker" { others + 1 } else { 0 };
    }
    ws.subscribe(&["btcusdt@bookTicker"]).await;
    ws.data("btcusdt@bookTicker").await;
    let unknown = r#"{"kind":"silence","market":"spot","stream":"nope@trade"}"#;
    assert_eq!(post(&simulator.control_url(), "/sim/faults", unknown).await.status, 400);
}

#[tokio::test]
async fn rest_errors_are_answered_and_end() {
    let simulator = start(100.0);
    let base = simulator.rest_url(Market::Futures).unwrap();
    let fault = r#"{"kind":"rest_error","market":"futures","status":429,"retry_after_s":7,"for_ms":600000,"path":"depth"}"#;
    post(&simulator.control_url(), "/sim/faults", fault).await;
    let reply = get(&base, "/fapi/v1/depth?symbol=BTCUSDT").await;
    assert_eq!((reply.status, reply.header("retry-after").as_deref()), (429, Some("7")));
    let other = start(100.0);
    other.inject(&spot(rest_error(503)).lasting(300)).unwrap();
    let base = other.rest_url(Market::Spot).unwrap();
    assert_eq!(get(&base, "/api/v3/ping").await.status, 503);
    eventually("the fault ends", async || get(&base, "/api/v3/ping").await.status == 200).await;
    assert_eq!(other.ledger().violations(), vec![]);
    assert_eq!(other.inject(&spot(rest_error(200))), Err(FaultError::BadStatus(200)));
}

#[tokio::test]
async fn stale_snapshots_and_status_changes() {
    let simulator = start(1500.0);
    let base = simulator.rest_url(Market::Spot).unwrap();
    let id = async || {
        get(&base, "/api/v3/depth?symbol=BTCUSDT&limit=5").await.json()["lastUpdateId"].as_u64().unwrap()
    };
    let before = id().await;
    eventually("the book moves", async || id().await > before + 50).await;
    simulator.inject(&spot(Effect::StaleSnapshot { age_ms: 60_000 }).lasting(60_000)).unwrap();
    assert!(id().await <= before, "a snapshot of a minute ago");
    let url = format!("{}/stream?streams=ethusdt@bookTicker", simulator.ws_url(Market::Spot, "").unwrap());
    let mut ws = Ws::open(&url).await;
    ws.data("ethusdt@bookTicker").await;
    simulator.inject(&spot(Effect::SetStatus { status: "BREAK".to_owned() }).symbol("ETHUSDT")).unwrap();
    eventually("a halted symbol falls silent", async || {
        matches!(ws.next_within(std::time::Duration::from_millis(500)).await, None | Some(Got::Closed(_)))
    })
    .await;
    let info = get(&base, "/api/v3/exchangeInfo?symbol=ETHUSDT").await.json();
    assert_eq!(info["symbols"][0]["status"], "BREAK");
}
