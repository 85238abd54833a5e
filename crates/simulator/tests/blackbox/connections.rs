//! Faults of connections: life, speed, half-open sockets, and streams aimed at by symbol and connection.

use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::{Effect, Fault, SimulatorHandle};
use tokio::time::Instant;

use crate::client::{Got, Ws, eventually, start, start_with};

const QUOTES: &str = "btcusdt@bookTicker";

const fn spot(effect: Effect) -> Fault {
    Fault::new(Market::Spot, effect)
}

async fn open(simulator: &SimulatorHandle, names: &str) -> Ws {
    Ws::open(&format!("{}/stream?streams={names}", simulator.ws_url(Market::Spot, "").unwrap())).await
}

fn newest(simulator: &SimulatorHandle) -> u64 {
    simulator.ledger().connections(Market::Spot).last().unwrap().id
}

/// Whether nothing is heard of a stream for a while; frames that were queued before are passed over.
async fn falls_silent(ws: &mut Ws, silent: &str, other: &str) {
    let mut others = 0;
    while others < 60 {
        let frame = ws.json().await;
        assert!(frame["stream"] == silent || frame["stream"] == other, "{frame}");
        others = if frame["stream"] == other { others + 1 } else { 0 };
    }
}

#[tokio::test]
async fn a_stubborn_silence_is_healed_by_a_new_connection_only() {
    let simulator = start(2000.0);
    let names = format!("{QUOTES}/ethusdt@bookTicker");
    let (mut hit, mut spared) = (open(&simulator, &names).await, open(&simulator, QUOTES).await);
    hit.data(QUOTES).await;
    spared.data(QUOTES).await;
    let first = simulator.ledger().connections(Market::Spot)[0].id;
    let silence = spot(Effect::Silence { stubborn: Some(true) }).symbol("BTCUSDT").channel("bookTicker");
    simulator.inject(&silence.connection(first)).unwrap();
    falls_silent(&mut hit, QUOTES, "ethusdt@bookTicker").await;
    hit.send(&format!(r#"{{"method":"UNSUBSCRIBE","params":["{QUOTES}"],"id":7}}"#)).await;
    hit.subscribe(&[QUOTES]).await;
    let mut acknowledged = 0;
    let mut others = 0;
    while acknowledged < 2 || others < 60 {
        let frame = hit.json().await;
        assert_ne!(frame["stream"], QUOTES, "subscribing anew does not help");
        acknowledged += usize::from(frame["id"].is_u64());
        others += usize::from(frame["stream"] == "ethusdt@bookTicker");
    }
    spared.data(QUOTES).await;
    drop(hit);
    let mut anew = open(&simulator, QUOTES).await;
    anew.data(QUOTES).await;
    eventually("the fault is over", async || simulator.ledger().faults()[0].ended_ms.is_some()).await;
}

#[tokio::test]
async fn a_silence_of_a_market_ends_by_the_clock() {
    let simulator = start(1000.0);
    let mut ws = open(&simulator, &format!("{QUOTES}/ethusdt@trade")).await;
    ws.data(QUOTES).await;
    simulator.inject(&spot(Effect::Silence { stubborn: None }).lasting(1500)).unwrap();
    eventually("it is silent", async || ws.next_within(Duration::from_millis(300)).await.is_none()).await;
    ws.data(QUOTES).await;
    let fault = simulator.ledger().faults().remove(0);
    assert_eq!(fault.ended_ms, fault.until_ms);
    assert!(fault.streams.len() == 2 && fault.first_effect_ms >= Some(fault.injected_ms));
    assert!(fault.last_effect_ms < fault.ended_ms);
}

#[tokio::test]
async fn connections_end_at_a_new_limit_of_life_after_a_notice() {
    let simulator = start(300.0);
    let mut ws = open(&simulator, QUOTES).await;
    ws.data(QUOTES).await;
    let limit = Effect::LifeLimit { life_ms: 1500, notice_ms: Some(1000) };
    let id = simulator.inject(&spot(limit)).unwrap();
    let asked = Instant::now();
    assert_eq!(ws.data("!serverShutdown").await["e"], "serverShutdown");
    assert_eq!(u16::from(ws.closed().await.unwrap().code), 1001);
    assert!(asked.elapsed() >= Duration::from_millis(1400), "{:?}", asked.elapsed());
    let mut next = open(&simulator, QUOTES).await;
    assert_eq!(u16::from(next.closed().await.unwrap().code), 1001, "new ones too");
    eventually("both count", async || simulator.ledger().faults()[0].effects == 2).await;
    simulator.take_back(id).unwrap();
    let mut spared = open(&simulator, QUOTES).await;
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_millis(2000) {
        spared.data(QUOTES).await;
    }
}

#[tokio::test]
async fn a_slow_network_delivers_late_and_at_last_costs_the_connection() {
    let simulator = start_with(Market::Spot, |config| config.queue_bytes = 60_000);
    let (mut slow, mut quick) = (open(&simulator, QUOTES).await, open(&simulator, QUOTES).await);
    slow.data(QUOTES).await;
    quick.data(QUOTES).await;
    let first = simulator.ledger().connections(Market::Spot)[0].id;
    simulator.inject(&spot(Effect::SlowNetwork { bytes_per_s: 2000 }).connection(first)).unwrap();
    quick.data(QUOTES).await;
    slow.closed().await;
    quick.data(QUOTES).await;
    let closed = async || simulator.ledger().connections(Market::Spot)[0].closed_ms.is_some();
    eventually("the end is in the ledger", closed).await;
    assert!(simulator.ledger().connections(Market::Spot)[1].closed_ms.is_none());
    assert!(simulator.ledger().violations().iter().any(|violation| violation.rule == "slow_client"));
    assert!(simulator.ledger().faults()[0].ended_ms.is_some(), "with its connection");
}

#[tokio::test]
async fn a_server_that_stops_reading_answers_nothing_and_goes_on_sending() {
    let simulator = start(500.0);
    let mut ws = open(&simulator, QUOTES).await;
    ws.data(QUOTES).await;
    let id = simulator.inject(&spot(Effect::StopReading).connection(newest(&simulator))).unwrap();
    ws.subscribe(&["ethusdt@bookTicker"]).await;
    for _ in 0..100 {
        assert_eq!(ws.json().await["stream"], QUOTES, "no answer");
    }
    simulator.take_back(id).unwrap();
    simulator.inject(&spot(Effect::Skip).stream(QUOTES)).unwrap();
    ws.data("ethusdt@bookTicker").await;
}

#[tokio::test]
async fn a_half_open_socket_comes_back_with_a_hole_that_the_ledger_knows() {
    let simulator = start(500.0);
    let mut ws = open(&simulator, QUOTES).await;
    ws.data(QUOTES).await;
    let from_ms = simulator.ledger().connections(Market::Spot)[0].opened_ms;
    simulator.inject(&spot(Effect::HalfOpen).lasting(800)).unwrap();
    eventually("nothing is heard", async || {
        matches!(ws.next_within(Duration::from_millis(300)).await, None | Some(Got::Closed(_)))
    })
    .await;
    ws.data(QUOTES).await;
    eventually("what was lost is known", async || {
        let stream = simulator.summary(Market::Spot, from_ms, i64::MAX).remove(0);
        stream.delivered > 0 && stream.made > stream.delivered + 20
    })
    .await;
}
