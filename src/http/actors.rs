//! `/api/v1/actors`: every actor as it is published, and what operators may do with it.

use actix_web::web::{self, Path, ServiceConfig};
use fathom_actors::kernel::{
    ActorHealth, ActorId, GenerationRecord, RestartMode, State, Verdict, state_word,
};
use serde::Serialize;

use super::{
    AppState, Shared,
    auth::Caller,
    commands::{self, Body},
    error::{Answer, ApiError, ok},
    params::Params,
    read, write,
};

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1000;
const MAX_EXCEPTIONS: i64 = 100;
const STATES: [State; 11] = [
    State::Starting,
    State::Warming,
    State::Running,
    State::Degraded,
    State::Backoff,
    State::Restarting,
    State::Draining,
    State::Paused,
    State::Stopped,
    State::Failed,
    State::Quarantined,
];

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/actors", list));
    config.service(read("/api/v1/actors/{id:.+}/history", history));
    config.service(read("/api/v1/actors/{id:.+}/exceptions", exceptions));
    config.service(write("/api/v1/actors/{id:.+}/restart", restart));
    config.service(write("/api/v1/actors/{id:.+}/pause", pause));
    config.service(write("/api/v1/actors/{id:.+}/resume", resume));
    config.service(
        web::resource("/api/v1/actors/{id:.+}/quarantine")
            .route(web::put().to(quarantine))
            .route(web::delete().to(lift))
            .default_service(web::to(|| async { ApiError::method("PUT, DELETE") })),
    );
    #[cfg(feature = "fault-injection")]
    config.service(write("/api/v1/actors/{id:.+}/inject", inject));
    config.service(read("/api/v1/actors/{id:.+}", one));
}

#[derive(Serialize)]
struct Listed {
    actors: Vec<Short>,
    /// Where the next page begins, for `after`.
    next: Option<ActorId>,
}

#[derive(Serialize)]
struct Short {
    id: ActorId,
    kind: &'static str,
    parent: Option<ActorId>,
    required: bool,
    state: State,
    verdict: Verdict,
    why: Vec<String>,
    since_us: i64,
    generation: u64,
    observation: &'static str,
    restarts: u64,
    panics: u64,
    inbox_len: usize,
    inbox_capacity: usize,
    beat_age_us: Option<i64>,
}

impl From<ActorHealth> for Short {
    fn from(actor: ActorHealth) -> Self {
        Self {
            kind: actor.kind.0,
            inbox_len: actor.inboxes.iter().map(|inbox| inbox.len).sum(),
            inbox_capacity: actor.inboxes.iter().map(|inbox| inbox.capacity).sum(),
            restarts: actor.exits.restarts,
            panics: actor.exits.panics,
            beat_age_us: actor.progress.beat_age_us,
            id: actor.id,
            parent: actor.parent,
            required: actor.required,
            state: actor.state,
            verdict: actor.verdict,
            why: actor.why,
            since_us: actor.since_us,
            generation: actor.generation,
            observation: actor.observation,
        }
    }
}

async fn list(state: Shared, params: Params) -> Answer {
    let wanted = params.get("state").map(known_state).transpose()?;
    let (kind, venue) = (params.get("kind"), params.get("venue"));
    let limit = params.int("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT).unsigned_abs() as usize;
    let after = params.get("after").map(ActorId::from);
    let mut actors = state.system.control().health().actors;
    actors.retain(|actor| {
        wanted.is_none_or(|state| actor.state == state)
            && kind.is_none_or(|kind| actor.kind.0 == kind)
            && venue.is_none_or(|venue| is_of_venue(&state, &actor.id, venue))
            && after.as_ref().is_none_or(|after| actor.id > *after)
    });
    actors.sort_by(|a, b| a.id.cmp(&b.id));
    let more = actors.len() > limit;
    actors.truncate(limit);
    let next = actors.last().filter(|_| more).map(|actor| actor.id.clone());
    ok(&Listed { actors: actors.into_iter().map(Short::from).collect(), next })
}

fn known_state(text: &str) -> Result<State, ApiError> {
    let words = STATES.map(state_word);
    STATES
        .into_iter()
        .find(|state| state_word(*state) == text)
        .ok_or_else(|| ApiError::parameter("state", text, &format!("one of {}", words.join(", "))))
}

/// Ids name the venue in their second part; a shard's actor names its shard there.
fn is_of_venue(state: &AppState, id: &ActorId, venue: &str) -> bool {
    let Some((kind, rest)) = id.as_str().split_once('/') else { return false };
    match kind {
        "shard" => state.system.directory().shard(rest).is_some_and(|shard| shard.venue.as_str() == venue),
        _ => rest.split('/').next() == Some(venue),
    }
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found("ACTOR_NOT_FOUND", format!("no actor {id}")).with("id", id)
}

async fn one(state: Shared, id: Path<String>) -> Answer {
    let actor = state.system.control().actor(&ActorId::from(id.as_str()));
    ok(&actor.ok_or_else(|| unknown(&id))?)
}

#[derive(Serialize)]
struct History<'a> {
    id: &'a str,
    generations: Vec<GenerationRecord>,
}

async fn history(state: Shared, id: Path<String>) -> Answer {
    let records = state.system.control().history(&ActorId::from(id.as_str()));
    ok(&History { id: &id, generations: records.ok_or_else(|| unknown(&id))? })
}

#[derive(Serialize)]
struct Exceptions<'a> {
    id: &'a str,
    exceptions: Vec<GenerationRecord>,
    /// Items that made it panic twice and are set aside from then on.
    set_aside: Vec<String>,
    /// How often one of them came again and was not worked on.
    set_aside_total: u64,
}

/// The last ends that were faults, the newest first.
async fn exceptions(state: Shared, id: Path<String>, params: Params) -> Answer {
    let max = params.int("max", 1..=MAX_EXCEPTIONS)?.unwrap_or(20).unsigned_abs() as usize;
    let actor = ActorId::from(id.as_str());
    let control = state.system.control();
    let records = control.history(&actor).ok_or_else(|| unknown(&id))?;
    let progress = control.actor(&actor).ok_or_else(|| unknown(&id))?.progress;
    let exceptions = records.into_iter().rev().filter(is_fault).take(max).collect();
    let (set_aside, set_aside_total) = (progress.poison, progress.refused_total);
    ok(&Exceptions { id: &id, exceptions, set_aside, set_aside_total })
}

fn is_fault(record: &GenerationRecord) -> bool {
    record.exit.as_ref().is_some_and(|exit| !matches!(exit.reason.word(), "finished" | "asked"))
}

async fn restart(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::restart(&state, &caller, id.into_inner().into(), body, RestartMode::Graceful)
}

async fn pause(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::pause(&state, &caller, id.into_inner().into(), body)
}

async fn resume(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::resume(&state, &caller, id.into_inner().into(), body)
}

async fn quarantine(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::quarantine(&state, &caller, id.into_inner().into(), body)
}

async fn lift(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    commands::lift(&state, &caller, id.into_inner().into(), body)
}

/// Makes an actor fail, for tests of the whole.
#[cfg(feature = "fault-injection")]
async fn inject(state: Shared, caller: Caller, id: Path<String>, body: Body) -> Answer {
    use fathom_actors::kernel::Inject;

    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct InjectBody {
        fault: String,
        #[serde(default)]
        ms: u64,
    }
    let InjectBody { fault, ms } = commands::parse(body)?;
    if fault == "corrupt_level" {
        return corrupt_level(&state, &caller, &id).await;
    }
    let injected = match fault.as_str() {
        "panic" => Inject::Panic,
        "hang" => Inject::Hang,
        "block" => Inject::BlockThread { ms: ms.min(60_000) },
        "fail" => Inject::Fail,
        other => {
            return Err(ApiError::body(format_args!(
                "fault {other:?} is not panic, hang, block, fail or corrupt_level"
            )));
        }
    };
    tracing::warn!(target: "audit", by = caller.by, action = "inject", id = %*id, fault, "accepted");
    state.system.control().inject(&id.into_inner().into(), injected)?;
    super::error::answer(actix_web::http::StatusCode::ACCEPTED, &serde_json::json!({ "injected": fault }))
}

/// Changes one level of a live book in memory.
#[cfg(feature = "fault-injection")]
async fn corrupt_level(state: &AppState, caller: &Caller, id: &str) -> Answer {
    use fathom_actors::book::CorruptLevel;

    let directory = state.system.directory();
    let books = directory.markets().into_iter().flat_map(|entry| directory.books(entry.venue, entry.market));
    let book = books.into_iter().find(|book| book.actor.id().as_str() == id).ok_or_else(|| unknown(id))?;
    if !book.actor.ask(CorruptLevel, state.ask_deadline).await? {
        return Err(ApiError::body(format_args!("the book of {id} is not live, or empty")));
    }
    tracing::warn!(target: "audit", by = caller.by, action = "inject", id, fault = "corrupt_level", "accepted");
    super::error::answer(
        actix_web::http::StatusCode::ACCEPTED,
        &serde_json::json!({ "injected": "corrupt_level" }),
    )
}
