//! The control server: status, ledger, true books and faults over HTTP, for tests and people that sit in another process.

pub(crate) mod audit;

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use fathom_market::ids::Market;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::book::{Levels, Side, top_of};
use crate::faults::{Fault, FaultError};
use crate::ledger::Ledger;
use crate::ledger::entries::{LedgerQuery, Totals};
use crate::market::MarketState;
use crate::number::{now_ms, scaled};
use crate::rate::Pace;
use crate::recorded::ReplayStatus;

/// Rows that one ledger answer holds unless `limit` says otherwise.
const PAGE: usize = 10_000;

/// What control reaches.
#[derive(Clone)]
pub(crate) struct Control {
    pub ledger: Arc<Ledger>,
    pub markets: Vec<Arc<MarketState>>,
}

/// A market in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarketStatus {
    /// Symbols, dead ones included.
    pub symbols: usize,
    /// Open WebSocket connections.
    pub connections: usize,
    /// Best quotes that changed.
    pub quotes: u64,
    /// Rows in the ledger.
    pub recorded: Totals,
    /// Data frames handed to connections so far.
    pub frames: u64,
    /// Messages whose ids and receivers are remembered now.
    pub remembered: usize,
    /// Its pace.
    pub pace: Pace,
    /// The replay, in a market of recorded frames.
    pub replay: Option<ReplayStatus>,
}

/// A true book; prices and quantities as the venue spells them, best first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrueBook {
    /// Id of the last change in it.
    pub id: u64,
    /// Bids.
    pub bids: Vec<(String, String)>,
    /// Asks.
    pub asks: Vec<(String, String)>,
}

impl Control {
    pub(crate) fn market(&self, market: Market) -> Option<&Arc<MarketState>> {
        self.markets.iter().find(|state| state.market == market)
    }

    pub(crate) fn status(&self, market: Market) -> Option<MarketStatus> {
        let state = self.market(market)?;
        Some(MarketStatus {
            symbols: state.roster.len(),
            connections: state.open_connections(),
            quotes: state.quotes(),
            recorded: self.ledger.totals(market),
            frames: state.memory.sent(),
            remembered: state.memory.rows(),
            pace: state.rate.pace(),
            replay: state.replay.as_ref().map(|replay| replay.status()),
        })
    }

    pub(crate) fn book(&self, market: Market, symbol: &str, id: Option<u64>) -> Option<TrueBook> {
        let state = self.market(market)?;
        let index = state.symbol(symbol)?;
        let book = state.book_at(index, id)?;
        let listing = &state.roster[index];
        let side = |levels: &Levels, side| {
            let spelled = top_of(levels, side, usize::MAX).into_iter().map(|(price, qty)| {
                let price = scaled(i128::from(price), listing.price_scale, listing.price_decimals);
                (price, scaled(i128::from(qty), listing.qty_scale, listing.qty_decimals))
            });
            spelled.collect()
        };
        Some(TrueBook { id: book.id, bids: side(&book.bids, Side::Bid), asks: side(&book.asks, Side::Ask) })
    }

    pub(crate) fn inject(&self, fault: &Fault) -> Result<u64, FaultError> {
        let market = fault.market;
        self.market(market).ok_or(FaultError::NoMarket(market))?.inject(fault, now_ms())
    }

    pub(crate) fn take_back(&self, id: u64) -> Result<(), FaultError> {
        let active = self.ledger.fault_of(id).ok_or(FaultError::NoFault(id))?;
        let market = active.fault.market;
        self.market(market).ok_or(FaultError::NoMarket(market))?.take_back(&active, now_ms());
        Ok(())
    }

    pub(crate) fn set_pace(&self, market: Market, pace: Pace) -> Option<Pace> {
        let state = self.market(market)?;
        state.rate.set(pace);
        Some(state.rate.pace())
    }

    pub(crate) fn start_replay(&self) {
        self.markets.iter().filter_map(|state| state.replay.as_ref()).for_each(|replay| replay.start());
    }
}

/// The control server's routes.
pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/sim/status", web::get().to(status))
        .route("/sim/ledger", web::get().to(ledger))
        .route("/sim/book/{market}/{symbol}", web::get().to(book))
        .route("/sim/faults", web::post().to(inject))
        .route("/sim/faults", web::get().to(faults))
        .route("/sim/faults/{id}", web::get().to(fault))
        .route("/sim/faults/{id}/end", web::post().to(take_back))
        .route("/sim/rate", web::post().to(rate))
        .route("/sim/ledger/summary", web::get().to(audit::summary))
        .route("/sim/stream/{market}/{symbol}/{channel}", web::get().to(audit::stream))
        .route("/sim/replay/start", web::post().to(start_replay));
}

pub(super) fn refuse(status: StatusCode, what: impl std::fmt::Display) -> HttpResponse {
    HttpResponse::build(status).json(json!({"error": what.to_string()}))
}

async fn status(control: web::Data<Control>) -> HttpResponse {
    let of = |market| (Market::as_str(market).to_owned(), json!(control.status(market)));
    let markets: serde_json::Map<String, Value> = Market::ALL.into_iter().map(of).collect();
    let violations = control.ledger.violations().len();
    let faults = control.ledger.fault_count();
    HttpResponse::Ok()
        .json(json!({"markets": markets, "violations": violations, "faults": faults, "now_ms": now_ms()}))
}

#[derive(Deserialize)]
struct LedgerRequest {
    #[serde(default)]
    market: Option<Market>,
    kind: String,
    #[serde(default)]
    symbol: Option<String>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    limit: Option<usize>,
}

async fn ledger(control: web::Data<Control>, request: web::Query<LedgerRequest>) -> HttpResponse {
    let request = request.into_inner();
    let query =
        LedgerQuery { symbol: request.symbol, after: request.after, limit: request.limit.unwrap_or(PAGE) };
    let ledger = &control.ledger;
    let market = request.market.unwrap_or(Market::Spot);
    let entries = match request.kind.as_str() {
        "trades" => json!(ledger.trades(market, &query)),
        "klines" => json!(ledger.klines(market, &query)),
        "depth" => json!(ledger.depth(market, &query)),
        "connections" => json!(ledger.connections(market)),
        "faults" => json!(ledger.faults()),
        "violations" => json!(ledger.violations()),
        other => return refuse(StatusCode::BAD_REQUEST, format!("unknown kind {other:?}")),
    };
    HttpResponse::Ok().json(json!({"entries": entries, "totals": ledger.totals(market)}))
}

#[derive(Deserialize)]
struct BookRequest {
    #[serde(default)]
    id: Option<u64>,
}

async fn book(
    control: web::Data<Control>,
    path: web::Path<(Market, String)>,
    query: web::Query<BookRequest>,
) -> HttpResponse {
    let (market, symbol) = path.into_inner();
    match control.book(market, &symbol, query.id) {
        Some(book) => HttpResponse::Ok().json(book),
        None => refuse(StatusCode::NOT_FOUND, format!("no book of {market} {symbol} at that id")),
    }
}

async fn inject(control: web::Data<Control>, body: web::Bytes) -> HttpResponse {
    let read = serde_json::from_slice(&body).map_err(|error| FaultError::Unreadable(error.to_string()));
    match read.and_then(|value: Value| Fault::from_json(&value)).and_then(|fault| control.inject(&fault)) {
        Ok(id) => HttpResponse::Ok().json(json!({"id": id})),
        Err(error) => refuse(StatusCode::BAD_REQUEST, error),
    }
}

async fn fault(control: web::Data<Control>, id: web::Path<u64>) -> HttpResponse {
    match control.ledger.fault_of(*id) {
        Some(active) => HttpResponse::Ok().json(active.entry(now_ms())),
        None => refuse(StatusCode::NOT_FOUND, FaultError::NoFault(*id)),
    }
}

async fn take_back(control: web::Data<Control>, id: web::Path<u64>) -> HttpResponse {
    match control.take_back(*id) {
        Ok(()) => HttpResponse::Ok().json(json!({"id": *id})),
        Err(error) => refuse(StatusCode::NOT_FOUND, error),
    }
}

/// `{"market": "spot", "messages_per_s": 20000}`; without a market both.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateRequest {
    #[serde(default)]
    market: Option<Market>,
    #[serde(default)]
    steps_per_s: Option<f64>,
    #[serde(default)]
    messages_per_s: Option<f64>,
}

async fn rate(control: web::Data<Control>, request: web::Json<RateRequest>) -> HttpResponse {
    let pace = Pace { steps_per_s: request.steps_per_s, messages_per_s: request.messages_per_s };
    let chosen = Market::ALL.into_iter().filter(|market| request.market.is_none_or(|only| only == *market));
    let set: serde_json::Map<String, Value> = chosen
        .filter_map(|market| Some((market.as_str().to_owned(), json!(control.set_pace(market, pace)?))))
        .collect();
    HttpResponse::Ok().json(set)
}

async fn faults(control: web::Data<Control>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"entries": control.ledger.faults()}))
}

async fn start_replay(control: web::Data<Control>) -> HttpResponse {
    control.start_replay();
    HttpResponse::Ok().json(json!({}))
}
