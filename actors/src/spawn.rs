//! Puts the actors of one market under supervision, from the bottom up: history, books, shards.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fathom_market::instrument::InstrumentTable;
use fathom_venues::planner::{PlannedInstrument, ShardPlan};

use crate::{
    book::{BookActor, BookSpec},
    directory::{BookCell, BookEntry},
    feed::{FeedItem, RenewStream},
    history::{CaughtUp, HistoryActor, HistoryJob, HistorySpec},
    kernel::{ChildSpec, Clock, Inbox, Kind, Outlet, Overflow, Placement, SpawnError, inbox::bounded},
    limits,
    market_supervisor::MarketSpec,
    stream::{ConnectionState, ShardSpec, ShardStatus, StreamActor, gate::ConnectGate, router::Routes},
};

const RENEWALS: usize = 1024;
const HISTORY_JOBS: usize = 4096;

/// What the actors of a market are made from.
pub struct MarketParts {
    /// The market's specification.
    pub spec: MarketSpec,
    /// The clock.
    pub clock: Clock,
    /// Its instruments.
    pub table: Arc<InstrumentTable>,
}

/// Spawns every actor of a market. Those that are there already are left alone.
///
/// # Errors
/// When the kernel takes no more.
pub async fn spawn_market(parts: MarketParts, shards: Vec<ShardPlan>) -> Result<(), SpawnError> {
    let (outlets, inboxes): (Vec<_>, Vec<_>) = parts
        .table
        .iter()
        .map(|_| bounded("feed", parts.spec.settings.book.inbox, Overflow::Fault, &parts.clock))
        .unzip();
    let routes: Routes = Arc::new(ArcSwap::from_pointee(outlets));
    let caught_up = CaughtUp::new(parts.table.len(), !parts.spec.settings.history.catch_up);
    let history = spawn_history(&parts, &routes, &caught_up)?;
    let shards: Vec<Arc<ShardPlan>> = shards.into_iter().map(Arc::new).collect();
    let (renew_out, renew_in): (Vec<_>, Vec<_>) =
        shards.iter().map(|_| bounded("renewals", RENEWALS, Overflow::DropNewest, &parts.clock)).unzip();
    let books = BookParts { inboxes, renewals: renew_out.into(), history, caught_up };
    for shard in &shards {
        for planned in &shard.instruments {
            spawn_book(&parts, &books, shard, *planned)?;
        }
    }
    let limits = parts.spec.market.venue.socket_limits(parts.spec.market.market);
    let gate = Arc::new(ConnectGate::new(limits.connects, limits.connect_window));
    for (shard, renewals) in shards.into_iter().zip(renew_in) {
        spawn_shard(&parts, &routes, &gate, shard, renewals)?;
        // One shard after the other, so that a cold start does not open every socket at once.
        tokio::task::yield_now().await;
    }
    Ok(())
}

struct BookParts {
    inboxes: Vec<Inbox<FeedItem>>,
    renewals: Arc<[Outlet<RenewStream>]>,
    history: Outlet<HistoryJob>,
    caught_up: CaughtUp,
}

fn spawn_history(
    parts: &MarketParts,
    routes: &Routes,
    caught_up: &CaughtUp,
) -> Result<Outlet<HistoryJob>, SpawnError> {
    let (outlet, jobs) = bounded("jobs", HISTORY_JOBS, Overflow::Fault, &parts.clock);
    let market = &parts.spec.market;
    let offered = market.venue.timeframes(market.market);
    let spec = HistorySpec {
        venue: market.venue,
        market: market.market,
        base: market.endpoints.rest.clone(),
        table: parts.table.clone(),
        timeframes: market
            .timeframes
            .iter()
            .copied()
            .filter(|timeframe| offered.contains(timeframe))
            .collect(),
        routes: routes.clone(),
        jobs: jobs.clone(),
        rest: parts.spec.rest.clone(),
        store: parts.spec.store.clone(),
        settings: parts.spec.settings.history,
        caught_up: caught_up.clone(),
    };
    let id = format!("history/{}/{}", market.venue.id(), market.market);
    let child =
        ChildSpec::builder(id.as_str(), Kind("history"), move |life| HistoryActor::new(life, spec.clone()))
            .parent(parent(parts).as_str())
            .inbox(&jobs);
    parts.spec.supervisor.spawn_detached(limits::service(child).build())?;
    Ok(outlet)
}

fn spawn_book(
    parts: &MarketParts,
    books: &BookParts,
    shard: &Arc<ShardPlan>,
    planned: PlannedInstrument,
) -> Result<(), SpawnError> {
    let Some(instrument) = parts.table.get(planned.idx).cloned() else { return Ok(()) };
    let (settings, market) = (&parts.spec.settings, &parts.spec.market);
    let Some(board) = parts.spec.boards.get(market.venue.id(), market.market).cloned() else { return Ok(()) };
    let cell = Arc::new(BookCell::new(instrument.clone()));
    let inbox = books.inboxes[planned.idx.0 as usize].clone();
    let mut book = settings.book.clone();
    book.stale_after += limits::depth_pace(planned.depth);
    let spec = BookSpec {
        venue: market.venue,
        instrument: instrument.clone(),
        idx: planned.idx,
        snapshot_levels: planned.snapshot_levels,
        inbox: inbox.clone(),
        renewals: books.renewals.clone(),
        history: books.history.clone(),
        caught_up: books.caught_up.clone(),
        writer: parts.spec.writer.clone(),
        board,
        cell: cell.clone(),
        settings: book,
        depth: settings.depth.clone(),
    };
    let id = format!("book/{}/{}/{}", market.venue.id(), market.market, instrument.native);
    let child = ChildSpec::builder(id.as_str(), Kind("book"), move |life| BookActor::new(life, spec.clone()))
        .parent(actor_of_shard(&shard.id).as_str())
        .placement(Placement::Beside(shard.id.as_str().into()))
        .required(false)
        .inbox(&inbox);
    let actor = parts.spec.supervisor.spawn_detached(limits::book(child).build())?;
    parts.spec.directory.put_book(BookEntry { cell, actor, shard: shard.id.as_str().into() });
    Ok(())
}

fn spawn_shard(
    parts: &MarketParts,
    routes: &Routes,
    gate: &Arc<ConnectGate>,
    shard: Arc<ShardPlan>,
    renewals: Inbox<RenewStream>,
) -> Result<(), SpawnError> {
    let market = &parts.spec.market;
    let status = Arc::new(ArcSwap::from_pointee(not_started(parts, &shard)));
    parts.spec.directory.put_shard(&shard.id, status.clone());
    let spec = ShardSpec {
        venue: market.venue,
        market: market.market,
        endpoints: market.endpoints.clone(),
        plan: shard.clone(),
        table: parts.table.clone(),
        routes: routes.clone(),
        renewals: renewals.clone(),
        live: parts.spec.live.clone(),
        status,
        gate: gate.clone(),
        tls: market.tls.clone(),
        settings: parts.spec.settings.stream.clone(),
    };
    let id = actor_of_shard(&shard.id);
    let child =
        ChildSpec::builder(id.as_str(), Kind("stream"), move |life| StreamActor::new(life, spec.clone()))
            .parent(parent(parts).as_str())
            .placement(Placement::Beside(shard.id.as_str().into()))
            .inbox(&renewals);
    parts.spec.supervisor.spawn_detached(limits::stream(child).build())?;
    Ok(())
}

fn parent(parts: &MarketParts) -> String {
    market_id(parts.spec.market.venue.id().as_str(), parts.spec.market.market.as_str())
}

/// The id of a market's supervisor.
pub fn market_id(venue: &str, market: &str) -> String {
    format!("venue/{venue}/{market}")
}

/// The id of the actor of a shard.
pub fn actor_of_shard(shard: &str) -> String {
    format!("shard/{shard}")
}

fn not_started(parts: &MarketParts, shard: &ShardPlan) -> ShardStatus {
    ShardStatus {
        id: shard.id.clone(),
        venue: parts.spec.market.venue.id(),
        market: parts.spec.market.market,
        tier: shard.tier.as_str(),
        state: ConnectionState::Disconnected,
        generation: 0,
        symbols: Arc::new([]),
        lines: Vec::new(),
        events: 0,
        last_frame_us: None,
        lost_events: 0,
        rejects: Default::default(),
        ignored: Default::default(),
        observed_us: parts.clock.now_us(),
    }
}
