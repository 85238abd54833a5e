//! Faults of books, clocks, listings and REST.

use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::{BookPart, Effect, Fault, FaultError, LevelPart, SimulatorHandle};
use serde_json::Value;
use tokio::time::Instant;

use crate::client::{Book, Ws, eventually, get, post, start};

const DEPTH: &str = "btcusdt@depth@100ms";

const fn spot(effect: Effect) -> Fault {
    Fault::new(Market::Spot, effect)
}

/// A book that follows its stream.
async fn follow(simulator: &SimulatorHandle) -> (Ws, Book) {
    let mut ws =
        Ws::open(&format!("{}/stream?streams={DEPTH}", simulator.ws_url(Market::Spot, "").unwrap())).await;
    ws.data(DEPTH).await;
    let base = simulator.rest_url(Market::Spot).unwrap();
    let book = Book::new(&get(&base, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await.json(), false);
    (ws, book)
}

fn is_true(simulator: &SimulatorHandle, book: &Book) -> bool {
    let truth = simulator.book(Market::Spot, "BTCUSDT", Some(book.id)).unwrap();
    (book.levels(0), book.levels(1)) == (truth.bids, truth.asks)
}

#[tokio::test]
async fn a_crossed_book_is_sent_and_then_a_sound_one() {
    let simulator = start(800.0);
    let (mut ws, mut book) = follow(&simulator).await;
    simulator.inject(&spot(Effect::CrossedBook { on: BookPart::Stream }).symbol("BTCUSDT").times(3)).unwrap();
    let mut crossed = 0;
    while crossed < 3 || book.crossed() {
        book.apply(&ws.data(DEPTH).await).expect("the sequence is sound");
        crossed += usize::from(book.crossed());
    }
    assert_eq!(crossed, 3);
    assert!(is_true(&simulator, &book), "nothing of it is left");
    let fault = &simulator.ledger().faults()[0];
    assert_eq!(fault.streams[0].messages, 4, "three crossed, one that takes it back");
    assert!(fault.ended_ms.is_some());
}

#[tokio::test]
async fn a_crossed_snapshot_is_answered_as_often_as_asked() {
    let simulator = start(100.0);
    let base = simulator.rest_url(Market::Spot).unwrap();
    let fault = r#"{"kind":"crossed_book","market":"spot","symbol":"BTCUSDT","on":"snapshot","count":1}"#;
    post(&simulator.control_url(), "/sim/faults", fault).await.json();
    let crossed = async |symbol: &str| {
        let path = format!("/api/v3/depth?symbol={symbol}&limit=10");
        Book::new(&get(&base, &path).await.json(), false).crossed()
    };
    assert!(!crossed("ETHUSDT").await);
    assert!(crossed("BTCUSDT").await);
    assert!(!crossed("BTCUSDT").await, "it was for one answer");
}

#[tokio::test]
async fn a_corrupt_level_passes_the_sequence_and_is_named_in_the_ledger() {
    for what in [LevelPart::Qty, LevelPart::Price] {
        let simulator = start(300.0);
        let (mut ws, mut book) = follow(&simulator).await;
        simulator.inject(&spot(Effect::CorruptLevel { what, rank: 200 }).stream(DEPTH)).unwrap();
        while simulator.ledger().faults()[0].ended_ms.is_none() || is_true(&simulator, &book) {
            book.apply(&ws.data(DEPTH).await).expect("the sequence is sound");
        }
        let fault = &simulator.ledger().faults()[0];
        let (id, detail) = (fault.streams[0].last_id, &fault.details[0]);
        assert!(detail.starts_with(&format!("BTCUSDT id {id}: ")), "{detail}");
        let base = simulator.rest_url(Market::Spot).unwrap();
        let healed = Book::new(&get(&base, "/api/v3/depth?symbol=BTCUSDT&limit=5000").await.json(), false);
        assert!(is_true(&simulator, &healed), "REST is right");
    }
}

#[tokio::test]
async fn the_clock_jumps_and_comes_back() {
    let simulator = start(800.0);
    let base = simulator.rest_url(Market::Futures).unwrap();
    let url = simulator.ws_url(Market::Futures, "public").unwrap();
    let mut ws = Ws::open(&format!("{url}/stream?streams=btcusdt@bookTicker")).await;
    let event = async |ws: &mut Ws| ws.data("btcusdt@bookTicker").await["E"].as_i64().unwrap();
    let server = async || get(&base, "/fapi/v1/time").await.json()["serverTime"].as_i64().unwrap();
    let before = server().await;
    let jump = Fault::new(Market::Futures, Effect::TimeJump { offset_ms: -3_600_000 });
    let id = simulator.inject(&jump).unwrap();
    eventually("events go back", async || event(&mut ws).await < before - 3_000_000).await;
    assert!(server().await < before - 3_000_000);
    simulator.take_back(id).unwrap();
    eventually("events are right again", async || event(&mut ws).await >= before).await;
    assert!(server().await >= before);
}

#[tokio::test]
async fn symbols_are_listed_and_delisted_while_running() {
    let simulator = start(2000.0);
    let (base, control) = (simulator.rest_url(Market::Futures).unwrap(), simulator.control_url());
    let (market, public) = (
        simulator.ws_url(Market::Futures, "market").unwrap(),
        simulator.ws_url(Market::Futures, "public").unwrap(),
    );
    let status = async |symbol: &str| {
        let info = get(&base, "/fapi/v1/exchangeInfo").await.json();
        let found = info["symbols"].as_array().unwrap().iter().find(|listed| listed["symbol"] == symbol);
        found.map(|listed| listed["status"].as_str().unwrap().to_owned())
    };
    let mut info = Ws::open(&format!("{market}/stream?streams=!contractInfo")).await;
    let mut early = Ws::open(&format!("{public}/stream?streams=newusdt@bookTicker")).await;
    assert_eq!(status("NEWUSDT").await, None);
    let list = r#"{"kind":"list","market":"futures","symbol":"NEWUSDT"}"#;
    assert_eq!(post(&control, "/sim/faults", list).await.status, 200);
    let told = info.data("!contractInfo").await;
    assert_eq!((&told["s"], &told["cs"]), (&"NEWUSDT".into(), &"TRADING".into()));
    assert_eq!(status("NEWUSDT").await.as_deref(), Some("TRADING"));
    assert_eq!(post(&control, "/sim/faults", list).await.status, 400, "it trades already");
    // A stream that did not exist when it was subscribed stays silent, as at the venue.
    early.subscribe(&["newusdt@bookTicker"]).await;
    let quote = early.data("newusdt@bookTicker").await;
    assert_eq!(quote["s"], "NEWUSDT");

    simulator
        .inject(&Fault::new(Market::Futures, Effect::Delist { status: None, gone: false }).symbol("NEWUSDT"))
        .unwrap();
    assert_eq!(info.data("!contractInfo").await["cs"], "SETTLING");
    assert_eq!(status("NEWUSDT").await.as_deref(), Some("SETTLING"));
    eventually("its streams stop", async || early.next_within(Duration::from_millis(400)).await.is_none())
        .await;
    simulator
        .inject(&Fault::new(Market::Futures, Effect::Delist { status: None, gone: true }).symbol("NEWUSDT"))
        .unwrap();
    assert_eq!(status("NEWUSDT").await, None);
    assert_eq!(get(&base, "/fapi/v1/depth?symbol=NEWUSDT").await.json()["code"], -1121);
}

#[tokio::test]
async fn rest_is_slow_and_hangs_as_told() {
    let simulator = start(100.0);
    let base = simulator.rest_url(Market::Spot).unwrap();
    simulator.inject(&spot(Effect::SlowRest { ms: 700, path: None }).symbol("ETHUSDT").times(1)).unwrap();
    let asked = Instant::now();
    assert_eq!(get(&base, "/api/v3/depth?symbol=ETHUSDT").await.status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(700));
    let path = Some("depth".to_owned());
    let id = simulator.inject(&spot(Effect::RestHang { path })).unwrap();
    let waiting = tokio::spawn({
        let base = base.clone();
        async move { get(&base, "/api/v3/depth?symbol=BTCUSDT").await.status }
    });
    eventually("the request came", async || simulator.ledger().faults()[1].effects == 1).await;
    assert_eq!(get(&base, "/api/v3/ping").await.status, 200);
    assert!(!waiting.is_finished());
    let taken = simulator.take_back(id);
    assert_eq!((taken, waiting.await.unwrap()), (Ok(()), 200));
    assert_eq!(simulator.take_back(99), Err(FaultError::NoFault(99)));
}

#[tokio::test]
async fn what_cannot_be_put_in_is_named() {
    let simulator = start(100.0);
    let refused = async |text: &str| {
        let reply = post(&simulator.control_url(), "/sim/faults", text).await;
        assert_eq!(reply.status, 400, "{text}");
        reply.json()["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        refused(r#"{"kind":"skip","market":"spot","symbl":"BTCUSDT"}"#).await,
        "unknown key \"symbl\""
    );
    assert!(refused(r#"{"kind":"skip","market":"spot","symbol":"NOUSDT"}"#).await.contains("NOUSDT"));
    assert!(refused(r#"{"kind":"skip","market":"spot","symbol":"BTCUSDT"}"#).await.contains("no stream"));
    assert!(refused(r#"{"kind":"wrong_certificate","market":"spot"}"#).await.contains("TLS"));
    assert!(refused(r#"{"kind":"list","market":"spot","symbol":"btc usd"}"#).await.contains("btc usd"));
    let nothing: Vec<Value> = Vec::new();
    assert_eq!(get(&simulator.control_url(), "/sim/faults").await.json()["entries"], Value::from(nothing));
}
