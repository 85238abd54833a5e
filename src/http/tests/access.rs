//! Who may write, and what a wrong request is told.

use actix_web::{http::Method, test::TestRequest};

use super::{LONG, World, config};
use crate::http::serve;

const RESTART: &str = "/api/v1/actors/retention/restart";

#[actix_web::test]
async fn writing_needs_the_token_and_reading_does_not() {
    let world = World::with(Some("s3cret-token"), &[]).await;
    for header in [
        None,
        Some("Bearer wrong"),
        Some("Bearer s3cret-toke"),
        Some("Basic s3cret-token"),
        Some("s3cret-token"),
    ] {
        let request = TestRequest::post().uri(RESTART);
        let request = header
            .into_iter()
            .fold(request, |request, value| request.insert_header(("authorization", value)));
        let reply = world.call(request).await;
        assert_eq!(reply.refusal(), (401, "UNAUTHORIZED".to_owned()), "{header:?}");
        assert!(reply.header("www-authenticate").starts_with("Bearer"), "{header:?}");
    }
    assert_eq!(world.json("/api/v1/operations").await["operations"], serde_json::json!([]));
    for path in ["/api/v1/shards/x/restart", "/api/v1/actors/writer/pause", "/api/v1/shards/x/resume"] {
        assert_eq!(world.post(path, "").await.status.as_u16(), 401, "{path}");
    }
    let reply = world
        .call(TestRequest::post().uri(RESTART).insert_header(("authorization", "bearer s3cret-token")))
        .await;
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text);
    assert!(!reply.text.contains("s3cret"));
}

#[actix_web::test]
async fn without_a_token_pages_of_others_may_not_write() {
    let world = World::new().await;
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("host", "evil.example:8000")]
    {
        let reply = world.call(TestRequest::post().uri(RESTART).insert_header((name, value))).await;
        assert_eq!(reply.refusal(), (403, "FOREIGN_ORIGIN".to_owned()), "{name}: {value}");
    }
    let own = TestRequest::post()
        .uri(RESTART)
        .insert_header(("host", "127.0.0.1:8000"))
        .insert_header(("origin", "http://127.0.0.1:8000"));
    assert_eq!(world.call(own).await.status.as_u16(), 202);
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_told_in_json() {
    let world = World::new().await;
    for path in ["/nope", "/api/nope", "/api/v1/nope", "/api/v1/exchanges/binance/nope"] {
        let reply = world.get(path).await;
        assert_eq!(reply.refusal(), (404, "NOT_FOUND".to_owned()), "{path}");
        assert!(reply.json()["message"].as_str().is_some_and(|message| message.contains(path)));
    }
    let reply = world.post("/api/v1/health", "").await;
    assert_eq!((reply.refusal().0, reply.header("allow")), (405, "GET, HEAD"));
    let reply = world.get(RESTART).await;
    assert_eq!((reply.refusal().0, reply.header("allow")), (405, "POST, PUT"));
    let reply = world.call(TestRequest::default().method(Method::HEAD).uri("/livez")).await;
    assert_eq!(reply.status.as_u16(), 200);
}

#[actix_web::test]
async fn the_server_binds_any_port_and_bounds_bodies() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("directory");
    let config = config(&directory, None, &[("http.port", "0"), ("http.max_body_bytes", "2048")]);
    let state = crate::http::AppState::new(world.state.system.clone(), &config, 0);
    let (server, address) = serve(state, &config.http).expect("bound");
    let handle = server.handle();
    fathom_transport::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let asking = async {
        let base = format!("http://{address}");
        let page = client.get(&base).send().await.expect("page");
        assert!(page.headers()["content-type"].to_str().expect("text").starts_with("text/html"));
        assert!(page.text().await.expect("text").contains("<title>fathom</title>"));
        let big = format!(r#"{{"reason":"{}"}}"#, "x".repeat(4096));
        let reply = client.post(format!("{base}{RESTART}")).body(big).send().await.expect("answer");
        assert_eq!(reply.status().as_u16(), 413);
        assert!(reply.text().await.expect("text").contains("BODY_TOO_LARGE"));
        handle.stop(false).await;
    };
    let (served, asked) = futures_util::join!(server, tokio::time::timeout(LONG, asking));
    served.expect("served");
    asked.expect("in time");
}
