//! `/api/v1/exchanges` and `/api/v1/venues/{id}/budget`: which venues there are, what is collected of them, and how
//! they are.

use std::collections::BTreeMap;

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::{directory::MarketEntry, stream::ConnectionState};
use fathom_market::{
    ids::{Market, VenueId},
    instrument::{Instrument, InstrumentKind},
    plan::Priority,
    timeframe::Timeframe,
};
use fathom_transport::{BudgetStatus, rest::host_key};
use fathom_venues::{
    Venue,
    registry::{VENUES, venue},
};
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, ok},
    params::Params,
    read,
    shards::views,
    view::text,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/exchanges", list));
    config.service(read("/api/v1/exchanges/status", all_status));
    config.service(read("/api/v1/exchanges/{id}/status", status));
    config.service(read("/api/v1/exchanges/{id}/info", info));
    config.service(read("/api/v1/exchanges/{id}/timeframes", timeframes));
    config.service(read("/api/v1/exchanges/{id}/markets", markets));
    config.service(read("/api/v1/venues/{id}/budget", budget));
}

/// A venue that this program knows, collected or not.
pub(super) fn known_venue(id: &str) -> Result<&'static dyn Venue, ApiError> {
    venue(id).ok_or_else(|| {
        let valid: Vec<&str> = VENUES.iter().map(|venue| venue.id().as_str()).collect();
        let message = format!("no exchange {id}");
        ApiError::not_found("EXCHANGE_NOT_FOUND", message).with("id", id).with("validExchanges", valid)
    })
}

/// The markets of a venue that are collected.
fn collected(state: &AppState, venue: VenueId) -> Vec<Market> {
    let markets = state.system.settings().markets.iter().filter(|market| market.venue.id() == venue);
    markets.map(|market| market.market).collect()
}

#[derive(Serialize)]
struct Exchange {
    id: &'static str,
    primary: bool,
    collected: bool,
    markets: Vec<Market>,
}

async fn list(state: Shared) -> Answer {
    #[derive(Serialize)]
    struct Listed {
        exchanges: Vec<Exchange>,
    }
    let exchange = |venue: &&dyn Venue| {
        let (id, markets) = (venue.id(), collected(&state, venue.id()));
        Exchange { id: id.as_str(), primary: id == state.primary, collected: !markets.is_empty(), markets }
    };
    ok(&Listed { exchanges: VENUES.iter().map(exchange).collect() })
}

#[derive(Serialize)]
struct ExchangeStatus {
    id: &'static str,
    /// `connected`, `degraded`, `disconnected`, or `not_collected`.
    status: &'static str,
    markets: BTreeMap<&'static str, MarketStatus>,
}

#[derive(Default, Serialize)]
struct MarketStatus {
    shards: BTreeMap<&'static str, usize>,
    books: BTreeMap<&'static str, usize>,
    reconnects: u64,
    last_frame_us: Option<i64>,
}

impl MarketStatus {
    fn word(&self) -> &'static str {
        let all: usize = self.shards.values().sum();
        match self.shards.get(ConnectionState::Connected.as_str()) {
            Some(open) if *open == all => "connected",
            Some(_) => "degraded",
            None => "disconnected",
        }
    }
}

fn exchange_status(state: &AppState, venue: VenueId) -> ExchangeStatus {
    let shards = views(state);
    let market_status = |market: Market| {
        let mut status = MarketStatus::default();
        for shard in shards.iter().map(|shard| &shard.status) {
            if (shard.venue, shard.market) == (venue, market) {
                *status.shards.entry(shard.state.as_str()).or_default() += 1;
                status.reconnects += shard.lines.iter().map(|line| line.reconnects).sum::<u64>();
                status.last_frame_us = status.last_frame_us.max(shard.last_frame_us);
            }
        }
        for book in state.system.directory().books(venue, market) {
            *status.books.entry(book.cell.state(state.now_us()).as_str()).or_default() += 1;
        }
        (market.as_str(), status)
    };
    let markets: BTreeMap<_, _> = collected(state, venue).into_iter().map(market_status).collect();
    let words: Vec<&str> = markets.values().map(MarketStatus::word).collect();
    let status = match words.first() {
        None => "not_collected",
        Some(first) if words.iter().all(|word| word == first) => first,
        Some(_) => "degraded",
    };
    ExchangeStatus { id: venue.as_str(), status, markets }
}

async fn all_status(state: Shared) -> Answer {
    #[derive(Serialize)]
    struct Listed {
        exchanges: Vec<ExchangeStatus>,
    }
    ok(&Listed { exchanges: VENUES.iter().map(|venue| exchange_status(&state, venue.id())).collect() })
}

async fn status(state: Shared, id: Path<String>) -> Answer {
    ok(&exchange_status(&state, known_venue(&id)?.id()))
}

#[derive(Serialize)]
struct Info {
    id: &'static str,
    collected: bool,
    markets: BTreeMap<&'static str, MarketInfo>,
}

#[derive(Serialize)]
struct MarketInfo {
    collected: bool,
    /// What is known once the venue's instruments were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanInfo>,
    streams_per_socket: usize,
    sockets_per_market: usize,
    rest_limits: Vec<RestLimit>,
}

#[derive(Serialize)]
struct PlanInfo {
    symbols: usize,
    shards: usize,
    sockets: usize,
    snapshot_weight: u32,
    startup_weight: u32,
    weight_per_minute: u32,
    /// Wanted symbols that the venue lacks.
    missing: Vec<String>,
}

impl PlanInfo {
    fn new(entry: &MarketEntry) -> Self {
        Self {
            symbols: entry.plan.instruments(),
            shards: entry.plan.shards.len(),
            sockets: entry.plan.sockets(),
            snapshot_weight: entry.plan.snapshot_weight,
            startup_weight: entry.plan.startup_weight,
            weight_per_minute: entry.plan.weight_per_minute,
            missing: entry.missing.clone(),
        }
    }
}

#[derive(Serialize)]
struct RestLimit {
    group: &'static str,
    capacity: u32,
    window_ms: u128,
}

async fn info(state: Shared, id: Path<String>) -> Answer {
    let venue = known_venue(&id)?;
    let own = collected(&state, venue.id());
    let market_info = |market: Market| {
        let limits = venue.socket_limits(market);
        let entry = state.system.directory().market(venue.id(), market);
        let rest_limits = venue.budget_rules(market).into_iter().map(|rule| RestLimit {
            group: rule.group,
            capacity: rule.capacity,
            window_ms: rule.window.as_millis(),
        });
        let info = MarketInfo {
            collected: own.contains(&market),
            plan: entry.map(|entry| PlanInfo::new(&entry)),
            streams_per_socket: limits.streams_per_socket,
            sockets_per_market: limits.sockets_per_market,
            rest_limits: rest_limits.collect(),
        };
        (market.as_str(), info)
    };
    let markets = Market::ALL.into_iter().map(market_info).collect();
    ok(&Info { id: venue.id().as_str(), collected: !own.is_empty(), markets })
}

async fn timeframes(id: Path<String>) -> Answer {
    #[derive(Serialize)]
    struct Timeframes {
        exchange: &'static str,
        timeframes: BTreeMap<&'static str, Vec<&'static str>>,
    }
    let venue = known_venue(&id)?;
    let offered = |market: Market| {
        let names = venue.timeframes(market).iter().copied().map(Timeframe::as_str).collect();
        (market.as_str(), names)
    };
    let timeframes = Market::ALL.into_iter().map(offered).collect();
    ok(&Timeframes { exchange: venue.id().as_str(), timeframes })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstrumentView {
    symbol: String,
    native: String,
    market_type: &'static str,
    base: String,
    quote: String,
    settle: Option<String>,
    kind: &'static str,
    expiry: Option<i64>,
    status: &'static str,
    tick_size: String,
    lot_size: String,
    contract_size: String,
}

impl From<&Instrument> for InstrumentView {
    fn from(instrument: &Instrument) -> Self {
        let (kind, expiry) = match instrument.kind {
            InstrumentKind::Spot => ("spot", None),
            InstrumentKind::Perpetual => ("perpetual", None),
            InstrumentKind::Dated { expiry_ms } => ("dated", Some(expiry_ms)),
        };
        Self {
            symbol: instrument.unified.to_string(),
            native: instrument.native.to_string(),
            market_type: instrument.market.label(),
            base: instrument.base.to_string(),
            quote: instrument.quote.to_string(),
            settle: instrument.settle.as_deref().map(str::to_owned),
            kind,
            expiry,
            status: instrument.status.as_str(),
            tick_size: text(instrument.tick_size),
            lot_size: text(instrument.lot_size),
            contract_size: text(instrument.contract_size),
        }
    }
}

/// The collected instruments.
async fn markets(state: Shared, id: Path<String>, params: Params) -> Answer {
    #[derive(Serialize)]
    struct Markets {
        exchange: &'static str,
        markets: Vec<InstrumentView>,
        count: usize,
    }
    let venue = known_venue(&id)?.id();
    let wanted = params.market_given()?;
    let entries = state.system.directory().markets();
    let own = entries
        .iter()
        .filter(|entry| entry.venue == venue && wanted.is_none_or(|market| entry.market == market));
    let markets: Vec<InstrumentView> =
        own.flat_map(|entry| entry.collected()).map(|one| InstrumentView::from(&**one)).collect();
    ok(&Markets { exchange: venue.as_str(), count: markets.len(), markets })
}

#[derive(Serialize)]
struct Budget {
    host: String,
    group: &'static str,
    markets: Vec<Market>,
    capacity: u32,
    used: u64,
    remaining: u64,
    window_ms: u128,
    in_flight: usize,
    concurrency: usize,
    /// Requests that wait, by priority.
    waiting: BTreeMap<&'static str, usize>,
    penalized_until_us: Option<i64>,
    slowness: u32,
    suggested_delay_ms: u128,
    refused_429: u64,
    banned_418: u64,
    requests_ok: u64,
    requests_failed: u64,
    overloaded: u64,
}

impl Budget {
    fn new(status: BudgetStatus, markets: Vec<Market>) -> Self {
        let priorities = Priority::ALL.map(Priority::as_str);
        Self {
            remaining: u64::from(status.capacity).saturating_sub(status.used),
            markets,
            waiting: priorities.into_iter().zip(status.waiting).collect(),
            window_ms: status.window.as_millis(),
            suggested_delay_ms: status.suggested_delay.as_millis(),
            refused_429: status.counters.refused_429,
            banned_418: status.counters.banned_418,
            requests_ok: status.counters.requests_ok,
            requests_failed: status.counters.requests_failed,
            overloaded: status.counters.overloaded,
            host: status.host,
            group: status.group,
            capacity: status.capacity,
            used: status.used,
            in_flight: status.in_flight,
            concurrency: status.concurrency,
            penalized_until_us: status.penalized_until_us,
            slowness: status.slowness,
        }
    }
}

async fn budget(state: Shared, id: Path<String>) -> Answer {
    #[derive(Serialize)]
    struct Budgets {
        venue: &'static str,
        budgets: Vec<Budget>,
    }
    let venue = known_venue(&id)?.id();
    let mut hosts: BTreeMap<String, Vec<Market>> = BTreeMap::new();
    for market in state.system.settings().markets.iter().filter(|market| market.venue.id() == venue) {
        // An address without a host is reported at the start, and has no budget.
        if let Ok(host) = host_key(&market.endpoints.rest) {
            hosts.entry(host).or_default().push(market.market);
        }
    }
    let own = state.system.budgets().into_iter().filter_map(|status| {
        let markets = hosts.get(&status.host)?.clone();
        Some(Budget::new(status, markets))
    });
    ok(&Budgets { venue: venue.as_str(), budgets: own.collect() })
}
