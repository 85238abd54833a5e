//! Restarts, pauses, probes and operations.

use std::sync::Arc;

use actix_web::test::TestRequest;

use super::{Reply, World};
use crate::http::shards::tests::status;

const WRITER: &str = "/api/v1/actors/writer";

fn is_running(reply: &Reply) -> bool {
    reply.status.as_u16() == 200 && matches!(reply.json()["state"].as_str(), Some("running"))
}

#[actix_web::test]
async fn a_restart_is_a_new_generation_in_the_same_process() {
    let world = World::new().await;
    let before = world.eventually(WRITER, is_running).await.json();
    let process = world.json("/api/v1/health").await["process"].clone();
    let body =
        format!(r#"{{"mode":"graceful","reason":"a\ntest","if_generation":{}}}"#, before["generation"]);
    let accepted = world.post(&format!("{WRITER}/restart"), &body).await;
    let operation = world.finished(&accepted).await;
    assert_eq!((operation["state"].as_str(), operation["target"].as_str()), (Some("done"), Some("writer")));
    assert_eq!(operation["reason"], "a test");
    let after = world.eventually(WRITER, is_running).await.json();
    assert_eq!(after["generation"].as_u64(), before["generation"].as_u64().map(|generation| generation + 1));
    let now = world.json("/api/v1/health").await["process"].clone();
    assert_eq!((&now["pid"], &now["started_at"]), (&process["pid"], &process["started_at"]));
    let history = world.json(&format!("{WRITER}/history")).await;
    assert_eq!(history["generations"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.json(&format!("{WRITER}/exceptions")).await["exceptions"], serde_json::json!([]));
    let listed = world.json("/api/v1/operations").await;
    assert_eq!(listed["operations"][0]["id"], operation["id"]);
}

#[actix_web::test]
async fn refused_commands_say_why() {
    let world = World::with(None, &[("supervision.manual_restarts_per_minute", "1")]).await;
    world.eventually(WRITER, is_running).await;
    let reply = world.post(&format!("{WRITER}/restart"), r#"{"if_generation":99}"#).await;
    assert_eq!(reply.refusal(), (412, "GENERATION_MISMATCH".to_owned()));
    assert_eq!(reply.json()["generation"], 1);
    let reply = world.post("/api/v1/actors/no/such/restart", "").await;
    assert_eq!(reply.refusal(), (404, "ACTOR_NOT_FOUND".to_owned()));
    for body in ["{", "[]", r#"{"mode":"soft"}"#, r#"{"mod":"kill"}"#, r#"{"if_generation":"1"}"#] {
        let reply = world.post(&format!("{WRITER}/restart"), body).await;
        assert_eq!(reply.status.as_u16(), 400, "{body}: {}", reply.text);
    }
    let reply = world.post(&format!("{WRITER}/restart"), r#"{"mode":"soft"}"#).await;
    assert_eq!(reply.refusal(), (400, "INVALID_MODE".to_owned()));
    let reply = world.post(&format!("{WRITER}/restart"), r#"{"cascade":"some"}"#).await;
    assert_eq!(reply.refusal(), (400, "INVALID_CASCADE".to_owned()));
    assert_eq!(world.post(&format!("{WRITER}/restart"), "").await.status.as_u16(), 202);
    let reply = world.post("/api/v1/actors/retention/restart", "").await;
    assert_eq!(reply.refusal(), (429, "TOO_MANY_RESTARTS".to_owned()));
    let wait: u64 = reply.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
}

#[actix_web::test]
async fn an_idempotency_key_acts_once() {
    let world = World::new().await;
    let call = |path: &str| TestRequest::post().uri(path).insert_header(("idempotency-key", "k-1"));
    let first = world.call(call("/api/v1/actors/retention/restart")).await;
    let second = world.call(call("/api/v1/actors/retention/restart")).await;
    assert_eq!(first.json()["operation"]["id"], second.json()["operation"]["id"]);
    let other = world.call(call("/api/v1/actors/writer/restart")).await;
    assert_eq!(other.refusal(), (422, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    assert_eq!(world.json("/api/v1/operations").await["operations"].as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn a_paused_writer_makes_the_service_unready_and_not_dead() {
    let world = World::new().await;
    world.eventually("/readyz", |reply| reply.status.as_u16() == 200).await;
    world.eventually("/startupz", |reply| reply.status.as_u16() == 200).await;
    let put =
        |verb: &str| TestRequest::put().uri(&format!("{WRITER}/{verb}")).set_payload(r#"{"reason":"test"}"#);
    let paused = world.call(put("pause")).await;
    world.finished(&paused).await;
    let reply = world.eventually(WRITER, |reply| reply.json()["state"] == "paused").await;
    assert_eq!(reply.json()["verdict"], "degraded");
    let reply = world.get("/readyz").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["status"].as_str()),
        (503, Some("failed")),
        "{}",
        reply.text
    );
    let checks = reply.json()["checks"].clone();
    let failed: Vec<_> =
        checks.as_array().expect("checks").iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{checks}");
    assert_eq!(failed[0]["name"], "actors:writer");
    assert!(failed[0]["why"].as_str().is_some_and(|why| why.contains("paused")), "{checks}");
    assert!(failed[0]["since"].is_string());
    assert_eq!(world.get("/livez").await.status.as_u16(), 200);
    let resumed = world.call(put("resume")).await;
    world.finished(&resumed).await;
    world.eventually("/readyz", |reply| reply.status.as_u16() == 200).await;
}

#[actix_web::test]
async fn an_operator_keeps_an_actor_down_and_lets_it_up_again() {
    let world = World::new().await;
    let path = "/api/v1/actors/retention";
    world.eventually(path, is_running).await;
    let hold = |request: TestRequest| request.uri(&format!("{path}/quarantine"));
    let body = r#"{"reason":"it eats rows"}"#;
    let keyed = || hold(TestRequest::put()).insert_header(("idempotency-key", "k-2")).set_payload(body);
    let (first, second) = (world.call(keyed()).await, world.call(keyed()).await);
    assert_eq!(first.json()["operation"]["id"], second.json()["operation"]["id"]);
    assert_eq!(world.finished(&first).await["state"], "done");
    let listed = world.json("/api/v1/actors?state=quarantined").await;
    assert_eq!(listed["actors"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["actors"][0]["id"], "retention");
    let why = listed["actors"][0]["why"][0].as_str().expect("a reason").to_owned();
    assert!(why.starts_with("it eats rows; quarantined by"), "{why}");
    assert_eq!(world.json("/api/v1/actors?state=warming").await["actors"], serde_json::json!([]));
    let refused = world.post(&format!("{path}/restart"), "").await;
    assert_eq!(refused.refusal(), (423, "QUARANTINED".to_owned()));
    let reply = world.get("/readyz?scope=actor:retention,sink:store").await;
    let checks = reply.json()["checks"].clone();
    assert_eq!((reply.status.as_u16(), checks.as_array().map(Vec::len)), (503, Some(2)), "{checks}");
    assert_eq!(world.get("/livez").await.status.as_u16(), 200);
    let health = world.json("/api/v1/health").await;
    assert!(
        health["why"].to_string().contains("retention is quarantined: it eats rows"),
        "{}",
        health["why"]
    );

    let lifted = world.call(hold(TestRequest::delete())).await;
    assert_eq!(world.finished(&lifted).await["state"], "done");
    world.eventually(path, |reply| is_running(reply) && reply.json()["generation"] == 2).await;
    assert_eq!(world.get("/readyz?scope=actor:retention").await.status.as_u16(), 200);
    assert_eq!(world.get("/readyz?scope=actor:nobody").await.status.as_u16(), 400);
    assert_eq!(world.post(&format!("{path}/quarantine"), "").await.status.as_u16(), 405);
}

#[actix_web::test]
async fn readiness_can_be_asked_for_a_part() {
    let world = World::new().await;
    let reply = world.eventually("/readyz?scope=sink:store", |reply| reply.status.as_u16() == 200).await;
    assert_eq!(reply.json()["checks"].as_array().map(Vec::len), Some(1));
    let names = |reply: &Reply| reply.json()["checks"].as_array().expect("checks").len();
    let (plain, verbose) = (world.get("/readyz").await, world.get("/readyz?verbose").await);
    assert_eq!(names(&verbose), names(&plain) + 1);
    let reply = world.get("/readyz?scope=venue:nowhere").await;
    assert_eq!((reply.refusal().0, reply.json()["parameter"].as_str()), (400, Some("scope")));
}

#[actix_web::test]
async fn shards_are_listed_as_they_may_be_believed() {
    let world = World::new().await;
    let id = "binance-spot-high-0";
    let published = Arc::new(status(id, world.state.now_us()));
    world.state.system.directory().put_shard(id, Arc::new(published.into()));
    let list = world.json("/api/v1/shards").await;
    let shard = &list["shards"][0];
    assert_eq!((shard["id"].as_str(), shard["generation"].as_u64()), (Some(id), Some(3)));
    // Nobody stands behind this status, so its socket is not shown as open.
    assert_eq!(
        (shard["state"].as_str(), shard["observation"].as_str()),
        (Some("disconnected"), Some("post_mortem"))
    );
    assert_eq!(shard["lines"][0]["frames"], 10);
    assert_eq!(world.json(&format!("/api/v1/shards/{id}")).await["id"], id);
    assert_eq!(world.get("/api/v1/shards/nope").await.refusal(), (404, "SHARD_NOT_FOUND".to_owned()));
    let reply = world.post("/api/v1/shards/nope/restart", "").await;
    assert_eq!(reply.refusal(), (404, "SHARD_NOT_FOUND".to_owned()));
    let reply = world.post(&format!("/api/v1/shards/{id}/restart"), "").await;
    assert_eq!(reply.refusal(), (404, "ACTOR_NOT_FOUND".to_owned()), "nobody stands behind it");
    let older = world.json("/api/health").await;
    assert_eq!(older["collectors"]["websocket"]["spot"], "disconnected");
}

#[actix_web::test]
async fn shards_are_restarted_by_a_selector() {
    let world = World::new().await;
    let path = "/api/v1/shards/restart";
    for (id, tier) in [("binance-spot-high-0", "high"), ("binance-spot-low-0", "low")] {
        let published = fathom_actors::stream::ShardStatus { tier, ..status(id, world.state.now_us()) };
        world.state.system.directory().put_shard(id, Arc::new(Arc::new(published).into()));
    }
    let dry = |selector: &str| format!(r#"{{"selector":"{selector}","dry_run":true,"mode":"kill"}}"#);
    for (selector, count) in [("", 2), ("tier=high", 1), ("venue=binance, market=spot", 2), ("id=x", 0)] {
        let reply = world.post(path, &dry(selector)).await;
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
        let preview = reply.json();
        assert_eq!(preview["shards"].as_array().map(Vec::len), Some(count), "{selector}: {preview:#}");
        assert_eq!(preview["sockets"], count);
    }
    for (body, code) in [
        (r#"{"selector":"tier"}"#, "INVALID_SELECTOR"),
        (r#"{"selector":"colour=red"}"#, "INVALID_SELECTOR"),
        (r#"{"max_parallel":0}"#, "INVALID_BODY"),
        (r#"{"mode":"soft"}"#, "INVALID_MODE"),
    ] {
        assert_eq!(world.post(path, body).await.refusal(), (400, code.to_owned()), "{body}");
    }
    assert_eq!(world.json("/api/v1/operations").await["operations"], serde_json::json!([]));

    // The statuses have no actors behind them: the first one fails, and the other is not begun.
    let accepted = world.post(path, r#"{"reason":"test"}"#).await;
    let operation = world.finished(&accepted).await;
    assert_eq!(operation["state"], "failed");
    let states: Vec<_> = operation["effect"]["children"]
        .as_array()
        .expect("children")
        .iter()
        .map(|child| child["state"].as_str().expect("a state").to_owned())
        .collect();
    assert_eq!(states, ["failed", "skipped"], "{operation:#}");
    let audit = world.json("/api/v1/audit?limit=1").await;
    assert_eq!(audit["audit"][0]["action"], "restart_shards");
    assert_eq!(audit["audit"][0]["operation"], operation["id"]);
    assert_eq!(world.get("/api/v1/audit?limit=0").await.status.as_u16(), 400);
}

#[actix_web::test]
async fn many_restarts_are_listed_by_their_operation() {
    let world = World::new().await;
    world.eventually(WRITER, is_running).await;
    let control = world.state.system.control();
    let operation = control.operation_log().begin(fathom_actors::kernel::NewOperation {
        kind: "shards.restart",
        target: "two".into(),
        requested_by: "test".into(),
        reason: String::new(),
        from_generation: None,
    });
    let operation = operation.expect("room");
    let errand = fathom_actors::operator::RestartMany {
        operation: operation.clone(),
        actors: vec!["writer".into(), "retention".into()],
        request: Default::default(),
        max_parallel: 1,
        stagger: std::time::Duration::ZERO,
        keep_going: false,
    };
    assert!(world.state.system.errands().offer(fathom_actors::operator::Errand::Restart(errand)).is_ok());
    let over = |reply: &Reply| !reply.json()["finished_us"].is_null();
    let done = world.eventually(&format!("/api/v1/operations/{operation}"), over).await.json();
    assert_eq!(done["state"], "done", "{done:#}");
    let children = done["effect"]["children"].as_array().expect("children").clone();
    assert_eq!(children.len(), 2);
    let first =
        world.json(&format!("/api/v1/operations/{}", children[0]["operation"].as_str().expect("id"))).await;
    let second =
        world.json(&format!("/api/v1/operations/{}", children[1]["operation"].as_str().expect("id"))).await;
    assert!(first["finished_us"].as_i64() <= second["created_us"].as_i64(), "one at a time");
}

#[actix_web::test]
async fn a_resync_names_a_stream_that_is_there() {
    let world = World::new().await;
    for id in ["binance/spot/BTCUSDT", "binance/spot", "nowhere/spot/BTCUSDT", "x"] {
        let reply = world.post(&format!("/api/v1/streams/{id}/resync"), "").await;
        assert_eq!(reply.refusal(), (404, "STREAM_NOT_FOUND".to_owned()), "{id}");
    }
}

#[cfg(feature = "fault-injection")]
#[actix_web::test]
async fn an_injected_panic_is_survived_and_counted() {
    let world = World::new().await;
    let path = "/api/v1/actors/retention";
    world.eventually(path, is_running).await;
    let reply = world.post(&format!("{path}/inject"), r#"{"fault":"panic"}"#).await;
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text);
    let back = |reply: &Reply| is_running(reply) && reply.json()["generation"] == 2;
    let actor = world.eventually(path, back).await.json();
    assert_eq!(actor["exits"]["panics"], 1);
    let exceptions = world.json(&format!("{path}/exceptions")).await;
    assert_eq!(exceptions["exceptions"][0]["exit"]["kind"], "panicked");
    assert_eq!(world.post(&format!("{path}/inject"), r#"{"fault":"sneeze"}"#).await.status.as_u16(), 400);
    let no_book = world.post(&format!("{path}/inject"), r#"{"fault":"corrupt_level"}"#).await;
    assert_eq!(no_book.refusal(), (404, "ACTOR_NOT_FOUND".to_owned()));
}
