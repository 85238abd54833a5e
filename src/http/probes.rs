//! `/startupz`, `/livez`, `/readyz`. Liveness is this process's own: no venue and no store can make it fail, or a
//! restart would be tried against somebody else's outage. Readiness says why it is not.

use actix_web::{http::StatusCode, web::ServiceConfig};
use fathom_actors::{
    kernel::{ActorHealth, HealthReport, State, state_word},
    stream::ConnectionState,
};
use fathom_market::ids::{Market, VenueId};
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, answer},
    params::Params,
    read,
    shards::views,
    sinks::{drain_status, writer_status},
    view::iso,
};

const WRITER: &str = "writer";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/startupz", startup));
    config.service(read("/livez", live));
    config.service(read("/readyz", ready));
}

#[derive(Serialize)]
struct Probe {
    status: &'static str,
    checks: Vec<Check>,
}

/// One thing that has to be so.
#[derive(Serialize)]
struct Check {
    name: String,
    ok: bool,
    why: Option<String>,
    since: Option<String>,
    /// Whether readiness as a whole depends on it.
    #[serde(skip)]
    gates: bool,
}

impl Check {
    fn new(name: impl Into<String>, ok: bool, why: impl FnOnce() -> String) -> Self {
        Self { name: name.into(), ok, why: (!ok).then(why), since: None, gates: true }
    }

    fn since(self, us: Option<i64>) -> Self {
        Self { since: us.map(iso), ..self }
    }

    fn told_only(self) -> Self {
        Self { gates: false, ..self }
    }
}

fn probe(checks: Vec<Check>) -> Answer {
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &Probe { status: if ok { "ok" } else { "failed" }, checks })
}

fn kernel_check(state: &AppState) -> Check {
    Check::new("kernel", state.system.control().is_live(), || {
        "the supervisor does not look after its actors".into()
    })
}

async fn live(state: Shared) -> Answer {
    probe(vec![kernel_check(&state)])
}

/// Passes once every required actor that is known has been up; venues are not waited for.
async fn startup(state: Shared) -> Answer {
    let report = state.system.control().health();
    let waiting: Vec<&str> = report
        .actors
        .iter()
        .filter(|actor| actor.required && actor.generation == 0)
        .map(|actor| actor.id.as_str())
        .collect();
    let actors =
        Check::new("actors", waiting.is_empty(), || format!("not yet started: {}", waiting.join(", ")));
    probe(vec![kernel_check(&state), actors.since(Some(report.started_us))])
}

async fn ready(state: Shared, params: Params) -> Answer {
    let checks = readiness(&state);
    let verbose = params.has("verbose") && params.get("verbose") != Some("false");
    match params.get("scope") {
        Some(scope) => probe(scoped(&state, checks, scope)?),
        None if verbose => {
            let ready = checks.iter().filter(|check| check.gates).all(|check| check.ok);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            answer(status, &Probe { status: if ready { "ok" } else { "failed" }, checks })
        }
        None => probe(checks.into_iter().filter(|check| check.gates).collect()),
    }
}

/// The checks that a list such as `venue:binance,sink:store,actor:writer` names.
fn scoped(state: &AppState, mut checks: Vec<Check>, scope: &str) -> Result<Vec<Check>, ApiError> {
    let belongs = |check: &Check, part: &str| {
        check.name == part || check.name.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'))
    };
    let parts: Vec<&str> = scope.split(',').map(str::trim).collect();
    checks.extend(parts.iter().filter_map(|part| actor_check(state, part)));
    for part in &parts {
        if !checks.iter().any(|check| belongs(check, part)) {
            let known: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
            return Err(ApiError::parameter("scope", part, "a known check").with("validScopes", known));
        }
    }
    Ok(checks.into_iter().filter(|check| parts.iter().any(|part| belongs(check, part))).collect())
}

fn readiness(state: &AppState) -> Vec<Check> {
    let report = state.system.control().health();
    let stopping = report.supervisor.shutting_down;
    let mut checks =
        vec![kernel_check(state), Check::new("running", !stopping, || "the service is shutting down".into())];
    checks.extend(kind_checks(&report));
    checks.extend(market_checks(state));
    checks.push(store_check(state));
    checks
}

/// One for each kind of actor without which nothing works; it passes while one of them is up.
fn kind_checks(report: &HealthReport) -> Vec<Check> {
    let mut kinds: Vec<&str> =
        report.actors.iter().filter(|actor| actor.required).map(|actor| actor.kind.0).collect();
    kinds.push(WRITER);
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().map(|kind| kind_check(report, kind)).collect()
}

fn kind_check(report: &HealthReport, kind: &str) -> Check {
    let all: Vec<_> = report.actors.iter().filter(|actor| actor.required && actor.kind.0 == kind).collect();
    let any_up = all.iter().any(|actor| is_up(actor.state));
    let why = || {
        let down = all.first();
        let told = |a: &&ActorHealth| format!("{} is {}: {}", a.id, state_word(a.state), a.why.join(", "));
        down.map_or_else(|| "there is none".to_owned(), told)
    };
    Check::new(format!("actors:{kind}"), any_up, why).since(all.iter().map(|actor| actor.since_us).max())
}

/// A restart is over in a moment, and what is offered meanwhile waits; the rest may take long.
const fn is_up(state: State) -> bool {
    matches!(state, State::Warming | State::Running | State::Degraded | State::Restarting | State::Draining)
}

/// One for an actor that is named by its id.
fn actor_check(state: &AppState, part: &str) -> Option<Check> {
    let actor = state.system.control().actor(&part.strip_prefix("actor:")?.into())?;
    let why = || format!("it is {}: {}", state_word(actor.state), actor.why.join(", "));
    Some(Check::new(part, is_up(actor.state), why).since(Some(actor.since_us)))
}

fn market_checks(state: &AppState) -> Vec<Check> {
    let shards = views(state);
    let market_check = |venue: VenueId, market: Market| {
        let own: Vec<_> = shards
            .iter()
            .filter(|shard| shard.status.venue == venue && shard.status.market == market)
            .collect();
        let open: Vec<_> =
            own.iter().filter(|shard| shard.status.state == ConnectionState::Connected).collect();
        let why = || match own.len() {
            0 => "its instruments are not known yet".to_owned(),
            count => format!("none of its {count} shards is connected"),
        };
        let since = open.iter().flat_map(|shard| &shard.status.lines).map(|line| line.since_us).min();
        Check::new(format!("venue:{venue}/{market}"), !open.is_empty(), why).since(since)
    };
    let markets = &state.system.settings().markets;
    markets.iter().map(|market| market_check(market.venue.id(), market.market)).collect()
}

/// A store that is away makes rows wait; it does not stop collecting.
fn store_check(state: &AppState) -> Check {
    let writer = writer_status(state);
    // Behind a spool it is the drain that knows how the store is.
    let behind = drain_status(state).and_then(|drain| drain.last_error.clone());
    let reachable = behind.is_none() && writer.as_ref().is_some_and(|(_, status)| status.reachable);
    let why = || match (&behind, &writer) {
        (Some(error), _) => format!("rows wait in the spool: {error}"),
        (None, Some((_, status))) => status.last_error.clone().unwrap_or_else(|| "not reachable".to_owned()),
        (None, None) => "the writer has published nothing yet".to_owned(),
    };
    Check::new("sink:store", reachable, why).since(writer.as_ref().map(|(at_us, _)| *at_us)).told_only()
}
