//! `/api/v1/shards`: the sockets of each shard as its actor publishes them, and what operators may do with it.

use std::sync::Arc;

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::{
    kernel::{ActorId, RestartMode, State},
    spawn::actor_of_shard,
    stream::{ConnectionState, ShardStatus},
};
use serde::Serialize;

use super::{
    AppState, Shared,
    auth::Caller,
    commands::{self, Body},
    error::{Answer, ApiError, ok},
    read, write,
};

/// A status older than this says nothing of the present.
const STALE_US: i64 = 10_000_000;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/shards", list));
    config.service(write("/api/v1/shards/restart", super::restarts::restart));
    config.service(write("/api/v1/shards/{id}/restart", restart));
    config.service(write("/api/v1/shards/{id}/pause", pause));
    config.service(write("/api/v1/shards/{id}/resume", resume));
    config.service(read("/api/v1/shards/{id}", one));
}

/// A shard as readers may believe it.
#[derive(Serialize)]
pub(super) struct ShardView {
    #[serde(flatten)]
    pub(super) status: ShardStatus,
    /// Its actor's id.
    pub(super) actor: ActorId,
    pub(super) actor_state: Option<State>,
    /// `live`, `stale` or `post_mortem`.
    observation: &'static str,
    /// Age of what is shown.
    observed_age_ms: i64,
    restarts: u64,
    operation: Option<String>,
}

impl ShardView {
    fn new(state: &AppState, status: &Arc<ShardStatus>) -> Self {
        let (id, now_us) = (ActorId::from(actor_of_shard(&status.id)), state.now_us());
        let mut status = ShardStatus::clone(status);
        let observed_age_ms = (now_us - status.observed_us) / 1000;
        let Some(actor) = state.system.control().actor(&id) else {
            let observation = believe(&mut status, None, "post_mortem", 0, now_us);
            return Self {
                status,
                actor: id,
                actor_state: None,
                observation,
                observed_age_ms,
                restarts: 0,
                operation: None,
            };
        };
        let observation =
            believe(&mut status, Some(actor.state), actor.observation, actor.generation, now_us);
        Self {
            status,
            actor: id,
            actor_state: Some(actor.state),
            observation,
            observed_age_ms,
            restarts: actor.exits.restarts,
            operation: actor.operation.map(|operation| operation.to_string()),
        }
    }
}

/// What an instance published that is over, or that has fallen silent, does not describe the present: its sockets are
/// not shown as open.
fn believe(
    status: &mut ShardStatus,
    actor: Option<State>,
    observation: &'static str,
    generation: u64,
    now_us: i64,
) -> &'static str {
    let old = status.generation < generation || now_us - status.observed_us > STALE_US;
    let observation = if observation == "live" && old { "stale" } else { observation };
    status.generation = status.generation.max(generation);
    if observation == "live" {
        return observation;
    }
    status.state = match actor {
        None | Some(State::Paused | State::Stopped) => ConnectionState::Disconnected,
        Some(State::Starting) => ConnectionState::Connecting,
        Some(State::Failed) => ConnectionState::Failed,
        Some(_) => ConnectionState::Reconnecting,
    };
    for line in status.lines.iter_mut().filter(|line| line.state == ConnectionState::Connected) {
        line.state = status.state;
    }
    observation
}

/// Every shard.
pub(super) fn views(state: &AppState) -> Vec<ShardView> {
    state.system.directory().shards().iter().map(|status| ShardView::new(state, status)).collect()
}

#[derive(Serialize)]
struct Listed {
    shards: Vec<ShardView>,
}

async fn list(state: Shared) -> Answer {
    ok(&Listed { shards: views(&state) })
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    shard: ShardView,
    books: Vec<BookLine>,
}

#[derive(Serialize)]
struct BookLine {
    symbol: String,
    state: &'static str,
}

async fn one(state: Shared, id: Path<String>) -> Answer {
    let status = state.system.directory().shard(&id).ok_or_else(|| unknown(&id))?;
    let now_us = state.now_us();
    let line = |symbol: &String| {
        let book = state.system.directory().book(status.venue, status.market, symbol)?;
        Some(BookLine { symbol: symbol.clone(), state: book.cell.state(now_us).as_str() })
    };
    ok(&One {
        books: status.symbols.iter().filter_map(line).collect(),
        shard: ShardView::new(&state, &status),
    })
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("SHARD_NOT_FOUND", format!("no shard {id}")).with("id", id)
}

/// The actor of a shard that is there.
fn actor(state: &AppState, id: &str) -> Result<ActorId, ApiError> {
    state.system.directory().shard(id).map(|_| actor_of_shard(id).into()).ok_or_else(|| unknown(id))
}

async fn restart(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::restart(&state, &caller, actor(&state, &id)?, body, RestartMode::Handover)
}

async fn pause(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::pause(&state, &caller, actor(&state, &id)?, body)
}

async fn resume(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::resume(&state, &caller, actor(&state, &id)?, body)
}

#[cfg(test)]
pub(super) mod tests {
    use fathom_actors::{
        kernel::BreakerState,
        stream::status::{LineStatus, Role},
    };
    use fathom_market::ids::{Market, VenueId};

    use super::*;

    /// A connected shard of one line.
    pub(crate) fn status(id: &str, observed_us: i64) -> ShardStatus {
        let line = LineStatus {
            id: "public/a".into(),
            class: "public",
            role: Role::Current,
            state: ConnectionState::Connected,
            since_us: observed_us,
            breaker: BreakerState::Closed,
            connection: 1,
            connected_us: Some(observed_us),
            rotates_us: None,
            reconnects: 2,
            last_end: None,
            frames: 10,
            last_frame_us: Some(observed_us),
            streams: 4,
            streams_live: 4,
            streams_suspect: 0,
            renewed: 0,
            passed: 40,
            duplicates: 0,
            breaks: 0,
            win_rate: None,
        };
        ShardStatus {
            id: id.into(),
            venue: VenueId::new("binance"),
            market: Market::Spot,
            tier: "high",
            state: ConnectionState::Connected,
            generation: 3,
            symbols: vec!["BTCUSDT".to_owned()].into(),
            lines: vec![line],
            events: 40,
            last_frame_us: Some(observed_us),
            streams: 4,
            streams_live: 4,
            streams_suspect: 0,
            duplicates: 0,
            gaps: 0,
            missed: 0,
            held_events: 0,
            lost_events: 0,
            rejects: [("crossed_quote", 2)].into_iter().collect(),
            ignored: Default::default(),
            observed_us,
        }
    }

    #[test]
    fn sockets_of_an_instance_that_is_over_are_not_shown_as_open() {
        let believed = |actor, observation, generation, now_us| {
            let mut status = status("s", 0);
            let observation = believe(&mut status, actor, observation, generation, now_us);
            (status.state, status.lines[0].state, status.generation, observation)
        };
        use ConnectionState::{Connected, Disconnected, Reconnecting};
        assert_eq!(believed(Some(State::Running), "live", 3, 1000), (Connected, Connected, 3, "live"));
        assert_eq!(believed(Some(State::Running), "live", 4, 1000), (Reconnecting, Reconnecting, 4, "stale"));
        let silent = believed(Some(State::Running), "live", 3, STALE_US + 1);
        assert_eq!(silent, (Reconnecting, Reconnecting, 3, "stale"));
        let paused = believed(Some(State::Paused), "post_mortem", 3, 1000);
        assert_eq!(paused, (Disconnected, Disconnected, 3, "post_mortem"));
        assert_eq!(believed(None, "post_mortem", 0, 1000).0, Disconnected);
    }
}
