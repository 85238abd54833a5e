//! `/api/v1/delivery`: how what leaves the service for others fares.

use std::sync::Arc;

use actix_web::web::ServiceConfig;
use fathom_actors::{
    kernel::{ActorHealth, ActorId, InboxHealth},
    redis::{ID, RedisStatus},
};
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ok},
    read,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/delivery", delivery));
}

#[derive(Serialize)]
struct Deliveries {
    delivery: Vec<RedisView>,
    timestamp: i64,
}

#[derive(Serialize)]
struct RedisView {
    id: &'static str,
    why: Vec<String>,
    #[serde(flatten)]
    status: RedisStatus,
    queues: Vec<InboxHealth>,
}

async fn delivery(state: Shared) -> Answer {
    let actor = redis_actor(&state);
    let view = redis_status(&state).map(|status| RedisView {
        id: ID,
        why: actor.as_ref().map_or_else(Vec::new, |actor| actor.why.clone()),
        status: RedisStatus::clone(&status),
        queues: actor.map_or_else(Vec::new, |actor| actor.inboxes),
    });
    ok(&Deliveries { delivery: view.into_iter().collect(), timestamp: state.now_ms() })
}

/// What the publisher of Redis says of itself; `None` where none is configured.
pub(super) fn redis_status(state: &AppState) -> Option<Arc<RedisStatus>> {
    state.system.control().detail(&ActorId::from(ID)).map(|(_, status)| status)
}

/// Its queues.
pub(super) fn redis_queues(state: &AppState) -> Vec<InboxHealth> {
    redis_actor(state).map_or_else(Vec::new, |actor| actor.inboxes)
}

/// `disabled`, `connected` or `disconnected`.
pub(super) fn redis_word(state: &AppState) -> &'static str {
    match (state.system.cache(), redis_status(state)) {
        (None, _) => "disabled",
        (Some(_), Some(status)) if status.is_connected() => "connected",
        (Some(_), _) => "disconnected",
    }
}

fn redis_actor(state: &AppState) -> Option<ActorHealth> {
    state.system.control().actor(&ActorId::from(ID))
}
