use std::collections::BTreeSet;
use std::time::Duration;

use fathom_market::ids::Market;
use fathom_simulator::LedgerQuery;
use serde_json::Value;

use crate::client::{Book, Got, Ws, eventually, get, start, start_with};

/// Buffers diffs, takes a snapshot, applies `events` diffs and compares with the true book of the same id.
async fn follow(market: Market, class: &str, stream: &str, rest: &str) {
    let simulator = start(1500.0);
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(market, class).unwrap())).await;
    ws.subscribe(&[stream]).await;
    let mut early = vec![ws.data(stream).await];
    let base = simulator.rest_url(market).unwrap();
    let snapshot = get(&base, rest).await;
    let mut book = Book::new(&snapshot.json(), market == Market::Futures);
    while book.applied < 12 {
        let diff = match early.pop() {
            Some(diff) => diff,
            None => ws.data(stream).await,
        };
        book.apply(&diff).unwrap();
        assert!(!book.crossed());
    }
    let truth = simulator.book(market, "BTCUSDT", Some(book.id)).unwrap();
    assert_eq!(truth.id, book.id);
    assert_eq!(book.levels(0), truth.bids);
    assert_eq!(book.levels(1), truth.asks);
    let control = get(&simulator.control_url(), &format!("/sim/book/{market}/BTCUSDT?id={}", book.id)).await;
    assert_eq!(control.json()["asks"][0][0], truth.asks[0].0.as_str());
    assert_eq!(simulator.ledger().violations(), vec![]);
}

#[tokio::test]
async fn spot_books_follow_the_rule_of_the_sheet() {
    follow(Market::Spot, "stream", "btcusdt@depth@100ms", "/api/v3/depth?symbol=BTCUSDT&limit=5000").await;
    follow(Market::Spot, "stream", "btcusdt@depth", "/api/v3/depth?symbol=BTCUSDT&limit=1000").await;
}

#[tokio::test]
async fn futures_books_follow_the_rule_of_the_sheet() {
    for speed in ["@100ms", "", "@500ms"] {
        let stream = format!("btcusdt@depth{speed}");
        follow(Market::Futures, "public", &stream, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000").await;
    }
}

#[tokio::test]
async fn trades_are_numbered_without_holes_and_stand_in_the_ledger() {
    let simulator = start(800.0);
    for (market, class, channel) in [
        (Market::Spot, "", "trade"),
        (Market::Spot, "", "aggTrade"),
        (Market::Futures, "market", "aggTrade"),
        (Market::Futures, "public", "trade"),
    ] {
        let stream = format!("btcusdt@{channel}");
        let url = format!("{}/stream?streams={stream}", simulator.ws_url(market, class).unwrap());
        let mut ws = Ws::open(&url).await;
        let key = if channel == "trade" { "t" } else { "a" };
        let mut seen = Vec::new();
        while seen.len() < 30 {
            seen.push(ws.data(&stream).await);
        }
        let ids: Vec<i64> = seen.iter().map(|trade| trade[key].as_i64().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{market} {channel}: {ids:?}");
        let query = LedgerQuery { symbol: Some("BTCUSDT".to_owned()), ..LedgerQuery::default() };
        let ledger = simulator.ledger().trades(market, &query);
        for trade in &seen {
            let of_channel = |row: &&fathom_simulator::TradeEntry| {
                row.channel == channel && row.id == trade[key].as_i64().unwrap()
            };
            let row = ledger.iter().find(of_channel).unwrap();
            assert_eq!(
                (row.price.as_str(), row.qty.as_str()),
                (trade["p"].as_str().unwrap(), trade["q"].as_str().unwrap())
            );
            assert_eq!(row.sending.to.len(), 1);
        }
        // The client may see a frame a moment before the server knows that it is out.
        eventually("the ledger knows what arrived", async || {
            let rows = simulator.ledger().trades(market, &query);
            ids.iter().all(|id| {
                rows.iter().any(|row| row.channel == channel && row.id == *id && row.sending.delivered)
            })
        })
        .await;
        if channel == "aggTrade" {
            let (prefix, from) = (if market == Market::Spot { "/api/v3" } else { "/fapi/v1" }, ids[3]);
            let path = format!("{prefix}/aggTrades?symbol=BTCUSDT&fromId={from}&limit=5");
            let rows = get(&simulator.rest_url(market).unwrap(), &path).await.json();
            assert_eq!(rows.as_array().unwrap().len(), 5);
            assert_eq!(
                (&rows[0]["a"], &rows[0]["p"], &rows[0]["l"]),
                (&seen[3]["a"], &seen[3]["p"], &seen[3]["l"])
            );
        }
    }
}

#[tokio::test]
async fn each_candle_closes_once_and_rest_agrees() {
    let simulator = start(500.0);
    let stream = "btcusdt@kline_1s";
    let url = format!("{}/stream?streams={stream}", simulator.ws_url(Market::Spot, "").unwrap());
    let mut ws = Ws::open(&url).await;
    let mut closed: Vec<Value> = Vec::new();
    while closed.len() < 5 {
        let mut event = ws.data(stream).await;
        if event["k"]["x"] == true {
            closed.push(event["k"].take());
        }
    }
    let opens: Vec<i64> = closed.iter().map(|candle| candle["t"].as_i64().unwrap()).collect();
    assert!(opens.windows(2).all(|pair| pair[0] + 1000 == pair[1]), "{opens:?}");
    let path = format!("/api/v3/klines?symbol=BTCUSDT&interval=1s&startTime={}&limit=5", opens[0]);
    let rows = get(&simulator.rest_url(Market::Spot).unwrap(), &path).await.json();
    for (row, candle) in rows.as_array().unwrap().iter().zip(&closed) {
        let keys = ["t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q"];
        for (at, key) in keys.into_iter().enumerate() {
            assert_eq!(row[at], candle[key], "{key}");
        }
    }
}

#[tokio::test]
async fn quotes_tickers_and_marks_have_the_shapes_of_the_sheet() {
    let simulator = start(800.0);
    let mut spot = Ws::open(&format!("{}/stream", simulator.ws_url(Market::Spot, "").unwrap())).await;
    spot.subscribe(&["ethbtc@bookTicker", "btcusdt@ticker", "btcusdt@depth5@100ms"]).await;
    let quote = spot.data("ethbtc@bookTicker").await;
    let keys: BTreeSet<&str> = quote.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["u", "s", "b", "B", "a", "A"]));
    assert_eq!(spot.data("btcusdt@depth5@100ms").await["bids"].as_array().unwrap().len(), 5);
    assert!(spot.data("btcusdt@ticker").await["b"].is_string());
    let mut market =
        Ws::open(&format!("{}/stream", simulator.ws_url(Market::Futures, "market").unwrap())).await;
    market
        .subscribe(&[
            "btcusdt@markPrice@1s",
            "!markPrice@arr@1s",
            "btcusdt_270326@markPrice@1s",
            "btcusdt@ticker",
        ])
        .await;
    assert!(market.data("btcusdt@markPrice@1s").await["T"].as_i64().unwrap() > 0);
    let dated = market.data("btcusdt_270326@markPrice@1s").await;
    assert_eq!((&dated["T"], &dated["r"]), (&0.into(), &"".into()));
    assert!(market.data("btcusdt@ticker").await.get("b").is_none());
    let (mut coin, mut tradfi) = (false, false);
    while !coin || !tradfi {
        let array = market.data("!markPrice@arr@1s").await;
        let elements = array.as_array().unwrap();
        coin |= elements.iter().any(|element| element["st"] == 2);
        tradfi |= elements.iter().all(|element| element["s"] == "XAUUSDT");
    }
    let mut public =
        Ws::open(&format!("{}/stream", simulator.ws_url(Market::Futures, "public").unwrap())).await;
    public.subscribe(&["btcusdt@bookTicker"]).await;
    assert!(public.data("btcusdt@bookTicker").await["T"].is_i64());
}

#[tokio::test]
async fn what_the_venue_does_not_serve_is_acknowledged_and_silent() {
    let simulator = start(800.0);
    let mut ws = Ws::open(&format!("{}/stream", simulator.ws_url(Market::Futures, "public").unwrap())).await;
    let silent = ["btcusdt@aggTrade", "BTCUSDT@bookTicker", "nosuchusdt@bookTicker", "btcusdt@kline_1m"];
    ws.subscribe(&silent).await;
    assert_eq!(ws.json().await, serde_json::json!({"result": null, "id": 1}));
    ws.subscribe(&["btcusdt@bookTicker"]).await;
    assert_eq!(ws.json().await["id"], 1);
    for _ in 0..40 {
        assert_eq!(ws.json().await["stream"], "btcusdt@bookTicker");
    }
    let events = &simulator.ledger().connections(Market::Futures)[0].events;
    assert!(events.iter().any(|event| event.kind == "silent" && event.detail == silent.join(",")));
    let mut retired = Ws::open(&format!(
        "{}/stream",
        simulator.ws_url(Market::Futures, "x").unwrap().trim_end_matches("/x")
    ))
    .await;
    retired.subscribe(&["btcusdt@markPrice@1s"]).await;
    assert_eq!(retired.json().await["id"], 1);
    assert!(matches!(retired.next_within(Duration::from_secs(3)).await, None | Some(Got::Ping)));
}

#[tokio::test]
async fn raw_paths_commands_and_other_scripts_work() {
    let simulator = start(2000.0);
    let base = simulator.ws_url(Market::Futures, "market").unwrap();
    let mut raw = Ws::open(&format!("{base}/ws/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@aggTrade")).await;
    assert_eq!(raw.json().await["s"], "币安人生USDT");
    let mut ws = Ws::open(&format!("{base}/ws")).await;
    ws.subscribe(&["币安人生usdt@kline_1m"]).await;
    assert_eq!(ws.json().await["result"], Value::Null);
    assert_eq!(ws.json().await["k"]["i"], "1m");
    ws.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":"abc"}"#).await;
    loop {
        let answer = ws.json().await;
        if answer["id"] == "abc" {
            assert_eq!(answer["result"], serde_json::json!(["币安人生usdt@kline_1m"]));
            break;
        }
    }
    ws.send(r#"{"method":"UNSUBSCRIBE","params":["币安人生usdt@kline_1m"],"id":9}"#).await;
    ws.send("nonsense").await;
    loop {
        if ws.json().await["code"] == 3 {
            break;
        }
    }
}

#[tokio::test]
async fn connections_end_at_their_age_and_pings_want_pongs() {
    let old = start_with(Market::Spot, |config| {
        config.limits.max_life = Duration::from_millis(1500);
        config.limits.ping_every = Duration::from_millis(400);
    });
    let mut ws = Ws::open(&format!("{}/stream", old.ws_url(Market::Spot, "").unwrap())).await;
    assert!(matches!(ws.next_within(crate::client::DEADLINE).await, Some(Got::Ping)));
    assert_eq!(u16::from(ws.closed().await.unwrap().code), 1001);
    assert_eq!(old.ledger().violations(), vec![], "the client answered every ping");
    let strict = start_with(Market::Spot, |config| {
        config.limits.ping_every = Duration::from_millis(100);
        config.limits.pong_within = Duration::from_millis(300);
    });
    let _mute = Ws::open(&format!("{}/stream", strict.ws_url(Market::Spot, "").unwrap())).await;
    eventually("a client that does not answer pings is closed", async || {
        strict.ledger().violations().iter().any(|violation| violation.rule == "ws_pong")
    })
    .await;
}
