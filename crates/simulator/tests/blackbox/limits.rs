use std::time::Duration;

use fathom_market::ids::Market;

use crate::client::{Ws, eventually, get, start_with};

#[tokio::test]
async fn weight_is_told_limited_and_punished() {
    let simulator = start_with(Market::Spot, |config| config.limits.weight_per_minute = 60);
    let base = simulator.rest_url(Market::Spot).unwrap();
    let depth = "/api/v3/depth?symbol=BTCUSDT&limit=1000";
    // A minute may begin between two requests: then the count starts anew.
    let mut last = get(&base, depth).await;
    assert_eq!((last.status, last.header("x-mbx-used-weight-1m").as_deref()), (200, Some("50")));
    while last.status == 200 {
        last = get(&base, depth).await;
    }
    assert_eq!(last.status, 429);
    let retry: i64 = last.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry));
    assert_eq!(last.json()["code"], -1003);
    assert_eq!(simulator.ledger().violations()[0].rule, "rest_weight");
    eventually("going on is banned", async || get(&base, "/api/v3/ping").await.status == 418).await;
    let rules: Vec<String> =
        simulator.ledger().violations().into_iter().map(|violation| violation.rule).collect();
    assert!(rules.contains(&"banned".to_owned()), "{rules:?}");
    let refused =
        tokio_tungstenite::connect_async(format!("{}/stream", simulator.ws_url(Market::Spot, "").unwrap()))
            .await;
    assert!(refused.is_err(), "a banned address cannot connect");
}

#[tokio::test]
async fn a_flood_of_messages_closes_the_connection() {
    let simulator = start_with(Market::Spot, |_| {});
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(Market::Spot, "").unwrap())).await;
    for _ in 0..6 {
        ws.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#).await;
    }
    let frame = ws.closed().await.unwrap();
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "Too many requests"));
    assert_eq!(simulator.ledger().violations()[0].rule, "ws_messages");
}

#[tokio::test]
async fn too_many_streams_and_giant_frames_are_refused() {
    let simulator = start_with(Market::Spot, |config| config.limits.streams_per_connection = 3);
    let mut ws =
        Ws::open(&format!("{}/stream?streams=a@trade/b@trade", simulator.ws_url(Market::Spot, "").unwrap()))
            .await;
    ws.subscribe(&["a@trade", "c@trade", "d@trade"]).await;
    assert_eq!(ws.json().await["error"]["code"], 4);
    ws.subscribe(&["a@trade", "c@trade"]).await;
    assert_eq!(ws.json().await["result"], serde_json::Value::Null);
    let names: Vec<String> = (0..401).map(|number| format!("x{number}@trade")).collect();
    ws.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(ws.next_within(Duration::from_millis(700)).await.is_none(), "fails silently");
    let rules: Vec<String> =
        simulator.ledger().violations().into_iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, ["ws_streams", "ws_frame_size"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let simulator = start_with(Market::Spot, |config| {
        config.queue_frames = 50;
        let fathom_simulator::Source::Seeded(seeded) = &mut config.source else { return };
        seeded.events_per_second = 20_000.0;
    });
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(Market::Spot, "").unwrap())).await;
    ws.subscribe(&[
        "btcusdt@bookTicker",
        "btcusdt@trade",
        "btcusdt@aggTrade",
        "btcusdt@depth@100ms",
        "ethusdt@bookTicker",
    ])
    .await;
    eventually("the slow client is cut", async || {
        simulator.ledger().violations().iter().any(|violation| violation.rule == "slow_client")
    })
    .await;
    drop(ws);
    assert_eq!(simulator.status(Market::Spot).unwrap().connections, 0);
}
