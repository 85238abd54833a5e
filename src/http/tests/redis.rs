//! The cache before the store: the same answers, and the store's where there is any doubt. Left out where no server is to
//! be had.

use std::sync::atomic::{AtomicU32, Ordering};

use fathom_actors::derived::Accepted;
use fathom_testkit::Server;

use super::*;

/// A prefix that no other test has.
fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("fathom-http-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The body without its last member, the time of the answer.
fn without_timestamp(text: &str) -> &str {
    text.rsplit_once(",\"timestamp\":").expect("a timestamp").0
}

#[actix_web::test]
async fn without_a_server_nothing_is_cached_and_health_says_so() {
    let world = World::new().await;
    assert_eq!(world.json("/api/health").await["redis"], "disabled");
    assert_eq!(world.json("/api/v1/delivery").await["delivery"], serde_json::json!([]));
    assert!(!world.get("/metrics").await.text.contains("fathom_redis"));
}

#[actix_web::test]
async fn a_server_that_is_not_there_shows_and_fails_no_read() {
    let world = World::with(None, &[("redis.url", "redis://me:hunter2@127.0.0.1:1/")]).await;
    world.write(vec![minute(T0)]).await;
    let shown = world.eventually("/api/v1/delivery", |reply| {
        reply.json()["delivery"][0]["failures"]["unreachable"].as_u64() > Some(0)
    });
    let text = shown.await.text;
    assert!(!text.contains("hunter2") && text.contains("redis://127.0.0.1:1/0"), "{text}");
    let opened = |reply: &Reply| reply.json()["delivery"][0]["breaker"]["state"] == "open";
    world.eventually("/api/v1/delivery", opened).await;
    assert_eq!(world.json("/api/health").await["redis"], "disconnected");
    let metrics = world.get("/metrics").await.text;
    for line in ["fathom_redis_up 0", "fathom_redis_breaker{state=\"open\"} 1"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let path = format!("/api/categories/TOTAL?depth=5&from={T0}");
    assert_eq!(world.json(&path).await["count"], 1);
    let health = world.json("/api/v1/health").await;
    assert_eq!(health["verdict"], "degraded", "{health:#}");
}

#[actix_web::test]
async fn a_range_of_the_cache_is_the_stores_byte_by_byte() {
    let Some(url) = Server::Redis.url() else { return };
    // Reads of a loaded machine may take long.
    let own = prefix();
    let settings =
        [("redis.url", url.as_str()), ("redis.prefix", own.as_str()), ("redis.read_timeout_ms", "5000")];
    let world = World::with(None, &settings).await;
    let connected = |reply: &Reply| reply.json()["redis"] == "connected";
    world.eventually("/api/health", connected).await;
    let first = world.state.now_ms() / MINUTE * MINUTE - 10 * MINUTE;
    let rows: Vec<CategorySnapshotRow> = (0..5)
        .map(|at| CategorySnapshotRow {
            avg_price: (at != 2).then(|| dec("61837.63")),
            ..minute(first + at * MINUTE)
        })
        .collect();
    world.write(rows.clone()).await;
    let paths = [
        format!("/api/categories/total?depth=5&from={first}"),
        format!("/api/categories/TOTAL?depth=5.0&from={first}&to={}&limit=2", first + 3 * MINUTE),
        "/api/categories/TOTAL?depth=5&limit=3".to_owned(),
    ];
    let hits = || world.state.system.cache().expect("configured").figures().hits;
    let mut stored = Vec::new();
    for path in &paths {
        stored.push(world.get(path).await.text);
    }
    assert_eq!(hits(), 0, "nothing was accepted by the writer yet");
    for row in rows {
        let batch = Arc::new(Batch::of([row]));
        world.state.system.directory().derived().accepted.publish(|| Accepted::Rows(batch));
    }
    // The newest five: only when all of them are in the set.
    let all = "/api/categories/TOTAL?depth=5&limit=5";
    let before = hits();
    world.eventually(all, |_| hits() > before).await;
    for (path, stored) in paths.iter().zip(&stored) {
        let before = hits();
        let cached = world.get(path).await.text;
        assert_eq!(hits(), before + 1, "{path}");
        assert_eq!(without_timestamp(&cached), without_timestamp(stored), "{path}");
    }
    // Older than what the cache can know, and deeper than it has: the store's.
    let before = hits();
    let older = world.json(&format!("/api/categories/TOTAL?depth=5&from={}", first - MINUTE)).await;
    assert_eq!((older["count"].as_u64(), hits()), (Some(5), before));
    assert_eq!(world.json("/api/categories/TOTAL?depth=5&limit=6").await["count"], 5);
    assert_eq!(hits(), before);
}
