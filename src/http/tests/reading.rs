//! What is read of the process, its actors, sinks, venues and metrics.

use std::collections::BTreeSet;

use super::{T0, World, minute};

#[actix_web::test]
async fn actors_are_listed_filtered_and_paged() {
    let world = World::new().await;
    world.eventually("/api/v1/actors/writer", |reply| reply.text.contains(r#""state":"running""#)).await;
    let all = world.json("/api/v1/actors").await;
    let ids: Vec<_> =
        all["actors"].as_array().expect("actors").iter().map(|actor| actor["id"].clone()).collect();
    assert_eq!(
        (&ids, &all["next"]),
        (
            &vec!["operator".into(), "retention".into(), "rollup".into(), "writer".into()],
            &serde_json::Value::Null
        )
    );
    let first = world.json("/api/v1/actors?limit=1").await;
    assert_eq!(
        (first["actors"].as_array().map(Vec::len), first["next"].as_str()),
        (Some(1), Some("operator"))
    );
    let second = world.json("/api/v1/actors?limit=1&after=rollup").await;
    assert_eq!((second["actors"][0]["id"].as_str(), second["next"].as_str()), (Some("writer"), None));
    let writers = world.json("/api/v1/actors?kind=writer&state=running").await;
    assert_eq!(writers["actors"][0]["id"], "writer");
    assert_eq!(world.json("/api/v1/actors?venue=binance").await["actors"], serde_json::json!([]));
    let reply = world.get("/api/v1/actors?state=asleep").await;
    assert_eq!((reply.refusal().0, reply.json()["parameter"].as_str()), (400, Some("state")));
    let one = world.json("/api/v1/actors/writer").await;
    assert!(one["inboxes"][0]["capacity"].as_u64().is_some_and(|capacity| capacity > 0));
    assert!(one["supervisor"]["max_restarts"].is_number() && one["progress"].is_object());
    assert_eq!(
        world.get("/api/v1/actors/book/binance/spot/X").await.refusal(),
        (404, "ACTOR_NOT_FOUND".to_owned())
    );
}

#[actix_web::test]
async fn health_tells_of_the_process_and_the_tree() {
    let world = World::new().await;
    let healthy = |reply: &super::Reply| reply.json()["verdict"] == "healthy";
    let health = world.eventually("/api/v1/health", healthy).await.json();
    assert_eq!(
        (&health["why"], &health["totals"]),
        (&serde_json::json!([]), &serde_json::json!({"running": 4}))
    );
    assert_eq!(health["process"]["pid"], std::process::id());
    assert_eq!(health["process"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["process"]["started_at"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert_eq!(health["tree"].as_array().map(Vec::len), Some(4));
    assert_eq!(world.json("/health").await["status"], "ok");
    let older = world.json("/api/health").await;
    let expected = serde_json::json!({
        "status": "ok", "timestamp": older["timestamp"],
        "collectors": {"websocket": {"spot": "not_started", "futures": "not_started"}, "rest": "not_started"},
        "buffers": {"tickBufferSize": 0}, "database": "connected", "redis": "disabled",
    });
    assert_eq!(older, expected);
    assert_eq!(world.json("/api/v1/version").await["name"], "fathom");
    assert_eq!(world.json("/api/v1/admin/status").await["database"], "connected");
    assert_eq!(world.json("/api/v1/admin/websocket/stats").await["total"], 0);
}

#[actix_web::test]
async fn the_sink_accounts_for_every_row() {
    let world = World::new().await;
    let path = "/api/v1/sinks";
    let sink = world.eventually(path, |reply| reply.json()["sinks"][0]["reachable"] == true).await.json();
    let sink = &sink["sinks"][0];
    assert_eq!((sink["id"].as_str(), sink["kind"].as_str()), (Some("store"), Some("sqlite")));
    assert_eq!(sink["balanced"], true);
    assert!(sink["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[actix_web::test]
async fn venues_are_described_and_unknown_ones_named() {
    let world = World::new().await;
    let list = world.json("/api/v1/exchanges").await;
    let expected = serde_json::json!({"id": "binance", "primary": true, "collected": false, "markets": []});
    assert_eq!(list["exchanges"][0], expected);
    assert_eq!(world.json("/api/v1/exchanges/Binance/status").await["status"], "not_collected");
    assert_eq!(world.json("/api/v1/exchanges/status").await["exchanges"][0]["id"], "binance");
    let info = world.json("/api/v1/exchanges/binance/info").await;
    assert!(info["markets"]["spot"]["rest_limits"][0]["capacity"].as_u64().is_some_and(|weight| weight > 0));
    let timeframes = world.json("/api/v1/exchanges/binance/timeframes").await;
    assert!(timeframes["timeframes"]["futures"].as_array().is_some_and(|names| names.contains(&"1m".into())));
    assert_eq!(world.json("/api/v1/exchanges/binance/markets").await["count"], 0);
    assert_eq!(world.json("/api/v1/venues/binance/budget").await["budgets"], serde_json::json!([]));
    for path in [
        "exchanges/nowhere/status",
        "exchanges/nowhere/orderbook/BTCUSDT",
        "exchanges/nowhere/ohlcv/BTCUSDT",
        "venues/nowhere/budget",
    ] {
        let reply = world.get(&format!("/api/v1/{path}")).await;
        assert_eq!(reply.refusal(), (404, "EXCHANGE_NOT_FOUND".to_owned()), "{path}");
    }
}

#[actix_web::test]
async fn a_symbol_of_an_order_book_may_be_unified() {
    let world = World::new().await;
    let reply = world.get("/api/v1/exchanges/binance/orderbook/BTC%2FUSDT%3AUSDT").await;
    assert_eq!(reply.refusal(), (404, "SYMBOL_NOT_FOUND".to_owned()));
    let body = reply.json();
    assert_eq!(body["symbol"], "BTC/USDT:USDT");
    assert!(body["message"].as_str().is_some_and(|message| message.ends_with("binance futures")), "{body}");
}

/// Name, labels and value of a sample line.
fn sample(line: &str) -> (&str, &str, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect("closed labels")),
        None => (series, ""),
    };
    (name, labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

#[actix_web::test]
async fn metrics_are_well_formed_and_json_tells_the_same_families() {
    let world = World::new().await;
    world.write(vec![minute(T0)]).await;
    world.eventually("/metrics", |reply| reply.text.contains("fathom_store_up{store=\"sqlite\"} 1\n")).await;
    world.eventually("/api/v1/health", |reply| reply.json()["verdict"] == "healthy").await;
    let reply = world.get("/metrics").await;
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let (mut typed, mut series) = (BTreeSet::new(), BTreeSet::new());
    for line in reply.text.lines() {
        match line.strip_prefix("# ") {
            Some(head) if head.starts_with("TYPE ") => {
                let mut words = head.split(' ').skip(1);
                assert!(typed.insert(words.next().expect("name").to_owned()), "{line} twice");
                assert!(matches!(words.next(), Some("counter" | "gauge" | "histogram")), "{line}");
            }
            Some(head) => assert!(head.starts_with("HELP "), "{line}"),
            None => {
                let (name, labels, value) = sample(line);
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
                let known = typed.contains(name) || family.is_some_and(|family| typed.contains(family));
                assert!(known, "{line} before its type");
                assert!(series.insert((name.to_owned(), labels.to_owned())), "{line} twice");
                assert!(!name.ends_with("_total") || value >= 0.0, "{line}");
            }
        }
    }
    for line in [
        "fathom_actors{kind=\"writer\",state=\"running\"} 1",
        "fathom_kernel_live 1",
        "fathom_actor_panics_total{kind=\"writer\"} 0",
    ] {
        assert!(reply.text.lines().any(|other| other == line), "{line} is missing:\n{}", reply.text);
    }
    let json = world.json("/api/v1/admin/metrics").await;
    let names: BTreeSet<_> = json["metrics"]
        .as_array()
        .expect("metrics")
        .iter()
        .map(|family| family["name"].as_str().expect("name").to_owned())
        .collect();
    assert_eq!(names, typed);
}

#[actix_web::test]
async fn the_page_is_whole_and_brings_its_policy() {
    let world = World::new().await;
    let reply = world.get("/").await;
    assert!(reply.header("content-security-policy").contains("default-src 'none'"));
    assert!(reply.text.ends_with("</html>\n"));
    for banned in ["innerHTML", "http://", "https://", "document.write"] {
        assert!(!reply.text.contains(banned), "{banned}");
    }
}
