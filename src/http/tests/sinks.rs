//! The accounts of rows, and the quarantine.

use actix_web::test::TestRequest;
use fathom_market::{
    batch::Batch,
    table::{Row, TradeRow},
};
use fathom_storage::Accounts as _;

use super::*;

fn trade(side: &str) -> TradeRow {
    TradeRow {
        instrument_id: 1,
        kind: "agg".into(),
        trade_id: side.into(),
        event_us: 1,
        recv_us: 2,
        price_m: 3,
        qty_m: 4,
        price_scale: 0,
        qty_scale: 0,
        side: side.into(),
        first_raw_id: None,
        last_raw_id: None,
    }
}

fn numbered<R: Row>(row: R, seq: u64) -> Batch {
    let mut batch = Batch::of([row]);
    (batch.epoch, batch.seq) = (1, seq);
    batch
}

#[actix_rt::test]
async fn quarantined_rows_are_listed_sent_again_and_removed() {
    let world = World::with(Some("secret"), &[]).await;
    for (seq, side) in [(1, "sideways"), (2, "buy"), (3, "upwards")] {
        let put = world.store.quarantine(&numbered(trade(side), seq), &["no".into()], &[], 5).await;
        assert!(put.expect("quarantine"));
    }
    let path = "/api/v1/sinks/store/quarantine";
    let all = world.json(path).await;
    let id = |at: usize| all["rows"][at]["id"].as_i64().expect("id");
    assert_eq!((all["rows"][0]["row"]["side"].as_str(), all["next"].is_null()), (Some("sideways"), true));
    let page = world.json(&format!("{path}?table=trades&limit=1&after={}", id(0))).await;
    assert_eq!((page["rows"][0]["id"].as_i64(), page["next"].as_i64()), (Some(id(1)), Some(id(1))));
    assert_eq!(world.get(&format!("{path}?table=x")).await.refusal(), (400, "INVALID_PARAMETER".into()));
    assert_eq!(world.get("/api/v1/sinks/x/quarantine").await.refusal(), (404, "SINK_NOT_FOUND".into()));

    let resend = format!("{path}/{}/resend", id(1));
    assert_eq!(world.post(&resend, "").await.refusal(), (401, "UNAUTHORIZED".into()));
    let bearer = ("authorization", "Bearer secret");
    let sent = world.call(TestRequest::post().uri(&resend).insert_header(bearer)).await;
    assert_eq!((sent.status, sent.json()["stored"].as_u64()), (StatusCode::OK, Some(1)));
    let again = world.call(TestRequest::post().uri(&resend).insert_header(bearer)).await;
    assert_eq!(again.refusal(), (404, "ROW_NOT_FOUND".into()));
    let rest = format!("{path}/resend?table=trades_raw");
    let rest = world.call(TestRequest::post().uri(&rest).insert_header(bearer)).await.json();
    assert_eq!((rest["stored"].as_u64(), rest["refused"].as_u64()), (Some(0), Some(2)));
    let remove = format!("{path}/{}", id(0));
    let removed = world.call(TestRequest::delete().uri(&remove).insert_header(bearer)).await;
    assert_eq!(removed.json()["discarded"].as_i64(), Some(id(0)));
    assert_eq!(world.json(path).await["rows"].as_array().map(Vec::len), Some(1));
}

#[actix_rt::test]
async fn the_accounts_of_the_store_are_shown_with_both_equations() {
    let world = World::new().await;
    let shown = |reply: &Reply| reply.json()["actor_state"] == "running";
    let sink = world.eventually("/api/v1/sinks/store", shown).await.json();
    assert_eq!((sink["balanced"].as_bool(), sink["reachable"].as_bool()), (Some(true), Some(true)));
    assert_eq!((sink["kind"].as_str(), sink["spool"].is_null()), (Some("sqlite"), true));
    assert_eq!(sink["offered"]["offered"], sink["offered"]["accepted"]);
    assert_eq!(world.get("/api/v1/sinks/other").await.refusal(), (404, "SINK_NOT_FOUND".into()));
}
