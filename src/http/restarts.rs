//! `POST /api/v1/shards/restart`: many shards by a selector, some at a time.

use std::time::Duration;

use actix_web::http::StatusCode;
use fathom_actors::{
    kernel::{ActorId, NewOperation, RestartMode, RestartRequest, State},
    operator::{Errand, RestartMany},
    stream::ConnectionState,
};
use serde::{Deserialize, Serialize};

use super::{
    AppState, Shared,
    auth::Caller,
    commands::{self, Body, Deed},
    error::{Answer, ApiError, ok},
    shards::{ShardView, views},
};

const MAX_PARALLEL: usize = 64;
const MAX_STAGGER_MS: u64 = 600_000;

/// The body.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Such as `venue=binance,market=spot,tier=high,state=failed,id=binance-spot-high-0`; empty means all.
    #[serde(default)]
    selector: String,
    #[serde(default)]
    only_failed: bool,
    max_parallel: Option<usize>,
    #[serde(default)]
    stagger_ms: u64,
    #[serde(default)]
    dry_run: bool,
    /// Goes on with the others when one has failed.
    #[serde(default)]
    keep_going: bool,
    mode: Option<String>,
    deadline_ms: Option<u64>,
    #[serde(default)]
    force: bool,
    reason: Option<String>,
}

/// What a selector asks of a shard: every part has to hold.
#[derive(Default)]
struct Selector(Vec<(Field, String)>);

#[derive(Clone, Copy)]
enum Field {
    Venue,
    Market,
    Tier,
    State,
    Id,
}

impl Field {
    const ALL: [(&'static str, Self); 5] = [
        ("venue", Self::Venue),
        ("market", Self::Market),
        ("tier", Self::Tier),
        ("state", Self::State),
        ("id", Self::Id),
    ];
}

impl Selector {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(Self::part).collect::<Result<_, _>>().map(Self)
    }

    fn part(part: &str) -> Result<(Field, String), ApiError> {
        let known = part.split_once('=').and_then(|(name, value)| {
            let (_, field) = Field::ALL.into_iter().find(|(known, _)| *known == name.trim())?;
            Some((field, value.trim().to_owned()))
        });
        let valid = Field::ALL.map(|(name, _)| name);
        known.ok_or_else(|| {
            let shown: String = part.chars().take(64).collect();
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "INVALID_SELECTOR",
                format!("selector: {shown} is no part"),
            )
            .with("validFields", valid)
        })
    }

    fn takes(&self, shard: &ShardView) -> bool {
        self.0.iter().all(|(field, value)| {
            let actual = match field {
                Field::Venue => shard.status.venue.as_str(),
                Field::Market => shard.status.market.as_str(),
                Field::Tier => shard.status.tier,
                Field::State => shard.status.state.as_str(),
                Field::Id => shard.status.id.as_str(),
            };
            actual == value
        })
    }
}

fn has_failed(shard: &ShardView) -> bool {
    shard.status.state == ConnectionState::Failed
        || matches!(shard.actor_state, Some(State::Failed | State::Quarantined))
}

/// What would be done.
#[derive(Serialize)]
struct Preview {
    dry_run: bool,
    mode: &'static str,
    max_parallel: usize,
    stagger_ms: u64,
    shards: Vec<Previewed>,
    /// Sockets that are opened, and REST weight that the snapshots of all books cost; a handover costs none.
    sockets: usize,
    weight: u32,
}

#[derive(Serialize)]
struct Previewed {
    id: String,
    actor: ActorId,
    state: ConnectionState,
    generation: u64,
    symbols: usize,
    weight: u32,
}

pub(super) async fn restart(state: Shared, caller: Caller, body: Body) -> Answer {
    let order: Order = commands::parse(body)?;
    let mode = commands::mode_of(order.mode.as_deref(), RestartMode::Handover)?;
    let max_parallel = order.max_parallel.unwrap_or(1);
    if !(1..=MAX_PARALLEL).contains(&max_parallel) {
        return Err(ApiError::body(format_args!("max_parallel is not from 1 to {MAX_PARALLEL}")));
    }
    if order.stagger_ms > MAX_STAGGER_MS {
        return Err(ApiError::body(format_args!("stagger_ms is more than {MAX_STAGGER_MS}")));
    }
    let selector = Selector::parse(&order.selector)?;
    let chosen = |shard: &ShardView| selector.takes(shard) && (!order.only_failed || has_failed(shard));
    let shards: Vec<ShardView> = views(&state).into_iter().filter(chosen).collect();
    if order.dry_run {
        return ok(&preview(&state, &shards, mode, max_parallel, order.stagger_ms));
    }
    let reason = commands::reason(order.reason.clone())?;
    let target = if order.selector.trim().is_empty() { "all" } else { order.selector.trim() };
    let call = format!(
        "restart many {target} {} {max_parallel} {} {} {mode:?} {:?} {} {reason}",
        order.only_failed, order.stagger_ms, order.keep_going, order.deadline_ms, order.force
    );
    let deed = Deed { action: "restart_shards", target, reason: &reason };
    commands::run(&state, &caller, &call, &deed, |control| {
        let operation = control.operation_log().begin(NewOperation {
            kind: "shards.restart",
            target: target.to_owned(),
            requested_by: caller.by.clone(),
            reason: reason.clone(),
            from_generation: None,
        });
        let operation = operation.ok_or_else(commands::too_many)?;
        let request = RestartRequest {
            mode,
            reason: reason.clone(),
            requested_by: caller.by.clone(),
            deadline: order.deadline_ms.map(Duration::from_millis),
            force: order.force,
            ..RestartRequest::default()
        };
        let errand = Errand::Restart(RestartMany {
            operation: operation.clone(),
            actors: shards.into_iter().map(|shard| shard.actor).collect(),
            request,
            max_parallel,
            stagger: Duration::from_millis(order.stagger_ms),
            keep_going: order.keep_going,
        });
        commands::send(&state, control, operation, errand)
    })
}

fn preview(
    state: &AppState,
    shards: &[ShardView],
    mode: RestartMode,
    max_parallel: usize,
    stagger_ms: u64,
) -> Preview {
    let handover = mode == RestartMode::Handover;
    let shards_out: Vec<Previewed> = shards
        .iter()
        .map(|shard| Previewed {
            id: shard.status.id.clone(),
            actor: shard.actor.clone(),
            state: shard.status.state,
            generation: shard.status.generation,
            symbols: shard.status.symbols.len(),
            weight: if handover { 0 } else { snapshot_weight(state, shard) },
        })
        .collect();
    Preview {
        dry_run: true,
        mode: match mode {
            RestartMode::Handover => "handover",
            RestartMode::Graceful => "graceful",
            RestartMode::Kill => "kill",
        },
        max_parallel,
        stagger_ms,
        sockets: shards.iter().map(|shard| shard.status.lines.len()).sum(),
        weight: shards_out.iter().map(|shard| shard.weight).sum(),
        shards: shards_out,
    }
}

/// What the snapshots of a shard's books cost.
fn snapshot_weight(state: &AppState, shard: &ShardView) -> u32 {
    let Some(entry) = state.system.directory().market(shard.status.venue, shard.status.market) else {
        return 0;
    };
    let settings = state.system.settings().markets.iter();
    let Some(market) = settings
        .clone()
        .find(|market| market.venue.id() == shard.status.venue && market.market == shard.status.market)
    else {
        return 0;
    };
    let plan = entry.plan.shards.iter().find(|plan| plan.id == shard.status.id);
    let planned = plan.into_iter().flat_map(|plan| &plan.instruments);
    let weight = |planned: &fathom_venues::planner::PlannedInstrument| {
        let instrument = entry.table.get(planned.idx)?;
        Some(market.venue.snapshot_request(instrument, planned.snapshot_levels).0.weight)
    };
    planned.filter_map(weight).sum()
}
