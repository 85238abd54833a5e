//! `/api/v1/health`, the older `/api/health` and `/health`, and what the admin paths say of the process. All of it is
//! read from what is published.

use std::collections::BTreeMap;

use actix_web::{http::StatusCode, web::ServiceConfig};
use fathom_actors::{
    kernel::{ActorHealth, HealthReport, State, SupervisorHealth, Verdict, state_word},
    stream::{ConnectionState, status::worst},
    writer::WriterStatus,
};
use fathom_market::ids::Market;
use serde::Serialize;

use super::{
    AppState, Shared,
    delivery::redis_word,
    error::{Answer, answer, ok},
    read,
    shards::{ShardView, views},
    sinks::writer_status,
    view::iso,
};

/// The kind of the actors that ask venues' REST services.
const HISTORY: &str = "history";

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/health", short));
    config.service(read("/api/health", older));
    config.service(read("/api/v1/health", full));
    config.service(read("/api/v1/version", version));
    config.service(read("/api/v1/admin/status", status));
    config.service(read("/api/v1/admin/websocket/stats", sockets));
}

/// The process.
#[derive(Serialize)]
struct Process {
    pid: u32,
    started_at: String,
    started_us: i64,
    uptime_ms: i64,
    version: &'static str,
}

impl Process {
    fn new(state: &AppState) -> Self {
        Self {
            pid: state.pid,
            started_at: iso(state.started_us),
            started_us: state.started_us,
            uptime_ms: (state.now_us() - state.started_us) / 1000,
            version: state.version,
        }
    }
}

async fn version(state: Shared) -> Answer {
    #[derive(Serialize)]
    struct Version {
        name: &'static str,
        #[serde(flatten)]
        process: Process,
    }
    ok(&Version { name: "fathom", process: Process::new(&state) })
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "ok",
        Verdict::Degraded => "degraded",
        Verdict::Down => "down",
    }
}

/// 503 only when this process itself is stuck: whoever restarts it for that does the right thing.
fn status_of(state: &AppState) -> StatusCode {
    if state.system.control().is_live() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn short(state: Shared) -> Answer {
    #[derive(Serialize)]
    struct Short {
        status: &'static str,
        timestamp: i64,
        version: &'static str,
    }
    let verdict = state.system.control().health().verdict;
    let body = Short { status: word(verdict), timestamp: state.now_ms(), version: state.version };
    answer(status_of(&state), &body)
}

#[derive(Serialize)]
struct Older {
    status: &'static str,
    timestamp: i64,
    collectors: Collectors,
    buffers: Buffers,
    database: &'static str,
    redis: &'static str,
}

#[derive(Serialize)]
struct Collectors {
    websocket: Websocket,
    rest: &'static str,
}

#[derive(Serialize)]
struct Websocket {
    spot: &'static str,
    futures: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Buffers {
    tick_buffer_size: i64,
}

async fn older(state: Shared) -> Answer {
    let report = state.system.control().health();
    let shards = views(&state);
    let websocket =
        Websocket { spot: collector(&shards, Market::Spot), futures: collector(&shards, Market::Futures) };
    let body = Older {
        status: word(report.verdict),
        timestamp: state.now_ms(),
        collectors: Collectors { websocket, rest: rest(&report) },
        buffers: Buffers { tick_buffer_size: ticks_held(&state) },
        database: if store_is_up(&state) { "connected" } else { "disconnected" },
        redis: redis_word(&state),
    };
    answer(status_of(&state), &body)
}

fn collector(shards: &[ShardView], market: Market) -> &'static str {
    let mut states =
        shards.iter().map(|shard| &shard.status).filter(|shard| shard.market == market).peekable();
    match states.peek() {
        None => "not_started",
        Some(_) => worst(states.map(|shard| shard.state)).as_str(),
    }
}

/// The worst of the actors that ask REST services.
fn rest(report: &HealthReport) -> &'static str {
    let asking = report.actors.iter().filter(|actor| actor.kind.0 == HISTORY && actor.generation > 0);
    asking.max_by_key(|actor| actor.verdict).map_or("not_started", |actor| state_word(actor.state))
}

fn ticks_held(state: &AppState) -> i64 {
    let directory = state.system.directory();
    let markets = directory.markets();
    let books = markets.iter().flat_map(|entry| directory.books(entry.venue, entry.market));
    books.map(|book| book.cell.ticks()).sum()
}

fn store_is_up(state: &AppState) -> bool {
    state.system.store().status().reachable && writer_status(state).is_none_or(|(_, status)| status.reachable)
}

#[derive(Serialize)]
struct Full {
    verdict: Verdict,
    why: Vec<String>,
    totals: BTreeMap<&'static str, usize>,
    process: Process,
    seq: u64,
    captured_at: String,
    supervisor: SupervisorHealth,
    tree: Vec<Node>,
}

/// An actor with those below it, rolled up: only children with children of their own, or in trouble, are listed.
#[derive(Serialize)]
struct Node {
    id: String,
    kind: &'static str,
    state: State,
    /// The worst of it and of all below it that are required.
    verdict: Verdict,
    generation: u64,
    why: Vec<String>,
    /// Every actor below it, by state.
    below: BTreeMap<&'static str, usize>,
    children: Vec<Node>,
}

async fn full(state: Shared) -> Answer {
    let report = state.system.control().health();
    let tree = tree(&report.actors);
    ok(&Full {
        verdict: report.verdict,
        why: report.why,
        totals: report.totals,
        process: Process::new(&state),
        seq: report.seq,
        captured_at: iso(report.captured_at_us),
        supervisor: report.supervisor,
        tree,
    })
}

fn tree(actors: &[ActorHealth]) -> Vec<Node> {
    let known: std::collections::BTreeSet<&str> = actors.iter().map(|actor| actor.id.as_str()).collect();
    let mut children: BTreeMap<&str, Vec<&ActorHealth>> = BTreeMap::new();
    let mut roots = Vec::new();
    for actor in actors {
        match actor.parent.as_ref().map(|parent| parent.as_str()).filter(|parent| known.contains(parent)) {
            Some(parent) => children.entry(parent).or_default().push(actor),
            None => roots.push(actor),
        }
    }
    roots.into_iter().map(|actor| node(actor, &children, 0)).collect()
}

/// Reasons told of one node; the children that are listed have their own.
const MAX_WHY: usize = 8;
/// Deeper than any tree that is built; a cycle of names ends here.
const MAX_DEPTH: usize = 8;

fn node(actor: &ActorHealth, children: &BTreeMap<&str, Vec<&ActorHealth>>, depth: usize) -> Node {
    let mut node = Node {
        id: actor.id.to_string(),
        kind: actor.kind.0,
        state: actor.state,
        verdict: actor.verdict,
        generation: actor.generation,
        why: actor.why.clone(),
        below: BTreeMap::new(),
        children: Vec::new(),
    };
    let below = children.get(actor.id.as_str()).filter(|_| depth < MAX_DEPTH);
    for child in below.into_iter().flatten() {
        let below = self::node(child, children, depth + 1);
        let worst = if child.required { Verdict::Down } else { Verdict::Degraded };
        let rolled_up = below.verdict.min(worst);
        if rolled_up != Verdict::Healthy && node.why.len() < MAX_WHY {
            node.why.push(reason_of(&below));
        }
        node.verdict = node.verdict.max(rolled_up);
        *node.below.entry(state_word(child.state)).or_default() += 1;
        for (state, count) in &below.below {
            *node.below.entry(state).or_default() += count;
        }
        if !below.below.is_empty() || below.verdict != Verdict::Healthy {
            node.children.push(below);
        }
    }
    node
}

fn reason_of(node: &Node) -> String {
    let reason = node.why.first().map_or_else(String::new, |why| format!(": {why}"));
    format!("{} is {}{reason}", node.id, state_word(node.state))
}

#[derive(Serialize)]
struct AdminStatus {
    status: &'static str,
    why: Vec<String>,
    process: Process,
    actors: BTreeMap<&'static str, usize>,
    shards: BTreeMap<&'static str, usize>,
    books: BTreeMap<String, BTreeMap<&'static str, usize>>,
    ticks_held: i64,
    database: &'static str,
    writer: Option<WriterStatus>,
}

async fn status(state: Shared) -> Answer {
    let report = state.system.control().health();
    let mut shards = BTreeMap::new();
    for shard in views(&state) {
        *shards.entry(shard.status.state.as_str()).or_default() += 1;
    }
    ok(&AdminStatus {
        status: word(report.verdict),
        why: report.why,
        process: Process::new(&state),
        actors: report.totals,
        shards,
        books: books(&state),
        ticks_held: ticks_held(&state),
        database: if store_is_up(&state) { "connected" } else { "disconnected" },
        writer: writer_status(&state).map(|(_, status)| WriterStatus::clone(&status)),
    })
}

/// Books by market and state.
fn books(state: &AppState) -> BTreeMap<String, BTreeMap<&'static str, usize>> {
    let (directory, now_us) = (state.system.directory(), state.now_us());
    let mut books = BTreeMap::new();
    for entry in directory.markets() {
        let counts: &mut BTreeMap<_, _> =
            books.entry(format!("{}/{}", entry.venue, entry.market)).or_default();
        for book in directory.books(entry.venue, entry.market) {
            *counts.entry(book.cell.state(now_us).as_str()).or_default() += 1;
        }
    }
    books
}

#[derive(Serialize)]
struct Sockets {
    open: usize,
    total: usize,
    frames: u64,
    events: u64,
    reconnects: u64,
    streams: usize,
    streams_live: usize,
    shards: Vec<ShardView>,
}

async fn sockets(state: Shared) -> Answer {
    let shards = views(&state);
    let lines: Vec<_> = shards.iter().flat_map(|shard| &shard.status.lines).collect();
    ok(&Sockets {
        open: lines.iter().filter(|line| line.state == ConnectionState::Connected).count(),
        total: lines.len(),
        frames: lines.iter().map(|line| line.frames).sum(),
        reconnects: lines.iter().map(|line| line.reconnects).sum(),
        streams: lines.iter().map(|line| line.streams).sum(),
        streams_live: lines.iter().map(|line| line.streams_live).sum(),
        events: shards.iter().map(|shard| shard.status.events).sum(),
        shards,
    })
}
