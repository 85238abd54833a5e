//! Symbols over HTTP, against a tree whose venue cannot be reached; what a change does is tested where it is done.

use actix_web::test::TestRequest;

use super::World;

const PATH: &str = "/api/v1/symbols";

/// Spot is collected from a place where nobody answers.
const AWAY: [(&str, &str); 3] = [
    ("venues.binance.spot.enabled", "true"),
    ("venues.binance.spot.symbols", r#"["BTCUSDT","ETH/USDT"]"#),
    ("venues.binance.spot.endpoints.rest", "http://127.0.0.1:1"),
];

#[actix_web::test]
async fn what_is_wanted_is_shown_before_its_venue_answers() {
    let world = World::with(None, &AWAY).await;
    let listed = world.json(PATH).await;
    assert_eq!(listed["current_symbols"], serde_json::json!(["BTCUSDT", "ETH/USDT"]));
    assert_eq!((&listed["count"], &listed["symbols"][1]["symbol"]), (&2.into(), &"ETH/USDT".into()));
    let first = &listed["symbols"][0];
    assert_eq!((&first["state"], &first["reason"]), (&"pending".into(), &"not_planned".into()));
    assert_eq!(world.json(&format!("{PATH}?market=futures")).await["count"], 0);
    for (query, named) in [("venue=nope", "venue=nope"), ("market=swap", "market=swap")] {
        let reply = world.get(&format!("{PATH}?{query}")).await;
        assert_eq!(reply.refusal(), (400, "INVALID_PARAMETER".to_owned()));
        assert!(reply.text.contains(named), "{}", reply.text);
    }
}

#[actix_web::test]
async fn refused_changes_say_why_and_change_nothing() {
    let world = World::with(None, &AWAY).await;
    let reply = world.post(PATH, r#"{"symbol":"SOLUSDT"}"#).await;
    assert_eq!(reply.refusal(), (503, "not_ready".to_owned()));
    assert!(reply.text.contains("binance spot") && reply.header("retry-after") == "1", "{}", reply.text);
    for body in
        ["", "{", "{}", r#"{"symbol":"A","symbols":["B"]}"#, r#"{"symbol":7}"#, r#"{"symbol":"AB","x":1}"#]
    {
        assert_eq!(world.post(PATH, body).await.refusal(), (400, "INVALID_BODY".to_owned()), "{body}");
    }
    let reply = world.post(PATH, r#"{"symbol":"SOLUSDT","tier":"best"}"#).await;
    assert_eq!(reply.refusal(), (400, "INVALID_TIER".to_owned()));
    for symbol in ["", "!!", "A"] {
        let reply = world.post(PATH, &format!(r#"{{"symbol":"{symbol}"}}"#)).await;
        assert_eq!(reply.refusal(), (400, "invalid_command".to_owned()), "{symbol:?}");
    }
    let reply = world.post(PATH, r#"{"symbol":"SOLUSDT","market":"futures"}"#).await;
    assert_eq!(reply.refusal(), (400, "invalid_command".to_owned()), "no such market is collected");
    let delete = TestRequest::delete().uri("/api/v1/symbols/BTC%2FUSDT?market=spot");
    assert_eq!(world.call(delete).await.refusal(), (503, "not_ready".to_owned()));
    let unified = TestRequest::delete().uri("/api/v1/symbols/BTC/USDT:USDT");
    assert_eq!(world.call(unified).await.refusal(), (503, "not_ready".to_owned()));
    let wrong = world.call(TestRequest::patch().uri(PATH)).await;
    assert_eq!(wrong.refusal(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(world.json(PATH).await["count"], 2);
    assert_eq!(world.json("/api/v1/operations").await["operations"], serde_json::json!([]));
}

#[actix_web::test]
async fn changes_need_the_token() {
    let world = World::with(Some("secret"), &AWAY).await;
    let calls = [
        TestRequest::post().uri(PATH).set_payload(r#"{"symbol":"SOLUSDT"}"#),
        TestRequest::put().uri(PATH).set_payload(r#"{"symbols":["SOLUSDT"]}"#),
        TestRequest::delete().uri("/api/v1/symbols/BTCUSDT"),
    ];
    for call in calls {
        assert_eq!(world.call(call).await.refusal(), (401, "UNAUTHORIZED".to_owned()));
    }
    assert_eq!(world.json(PATH).await["count"], 2);
}
