//! The HTTP interface. It reads what the actors publish and asks the store; the few questions that go to an actor have
//! a deadline. It decides nothing about the market, and the older paths (`/api/...` without `v1`) keep their old form:
//! numbers, and errors that are a code with its details.
//!
//! | method, path | answer |
//! |---|---|
//! | `GET /` | the status page |
//! | `GET /startupz` `/livez` `/readyz?verbose&scope=venue:binance,sink:store` | 200 or 503, `{status, checks}` |
//! | `GET /health` `/api/health` | short health, in the older form |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/categories/{category}` `?depth&marketType&exchange&from&to&limit&after&live` | minutes of a category |
//! | `GET /api/categories/all` `?depth&marketType&exchange&live` | the newest minute of every category |
//! | `GET /api/snapshots/{symbol}` `?depth&marketType&exchange&from&to&limit&after` | minutes of one pair |
//! | `GET /api/stats/categories` `?exchange&limit&after` | what is stored |
//! | `GET /api/v1/categories/{category}/rollup` `?width=1h\|1d&depth&marketType&exchange&from&to&limit&after` | hours and days of a category |
//! | `GET /api/ticks/{symbol}` `?marketType&exchange&last` | best bid and ask of the last seconds |
//! | `GET /api/v1/health` | verdict, totals, tree, process |
//! | `GET /api/v1/actors` `?state&kind&venue&limit&after` | actors, short |
//! | `GET /api/v1/actors/{id}` `/history` `/exceptions` | one actor; ids have slashes |
//! | `POST /api/v1/actors/{id}/restart` `/pause` `/resume` | 202 and an operation |
//! | `PUT`, `DELETE /api/v1/actors/{id}/quarantine` | 202 and an operation; kept down, let up again |
//! | `POST /api/v1/actors/{id}/inject` | only with the feature `fault-injection` |
//! | `GET /api/v1/shards` `/shards/{id}` | shards with their lines |
//! | `POST /api/v1/shards/{id}/restart`, `PUT .../pause` `.../resume` | 202 and an operation |
//! | `GET /api/v1/symbols` `?venue&market` | what is wanted, what is collected, what is missing and why |
//! | `POST /api/v1/symbols`, `PUT /api/v1/symbols`, `DELETE /api/v1/symbols/{symbol}` `?venue&market` | 202 and an operation |
//! | `POST /api/v1/shards/restart` `{selector, only_failed, max_parallel, stagger_ms, dry_run, mode}` | 202 and an operation that lists the others, or 200 and what would be done |
//! | `POST /api/v1/streams/{id}/resync` | 202 and an operation: one book is loaded anew |
//! | `GET /api/v1/operations` `/operations/{id}` | what operators asked for |
//! | `GET /api/v1/audit` `?limit` | the last writing calls |
//! | `GET /api/v1/gaps` `?venue&market&symbol&channel&cause&status&from&to&limit&after` | the gap ledger, newest first |
//! | `GET /api/v1/coverage` `?stream=binance/spot/BTCUSDT/trade&from&to` | what of a stream is there |
//! | `GET /api/v1/sinks` `/sinks/{id}` | what became of every row |
//! | `GET /api/v1/sinks/{id}/quarantine` `?table&limit&after` | rows that the store refuses |
//! | `POST /api/v1/sinks/{id}/quarantine/{row}/resend` `.../quarantine/resend?table&limit&after` | what came of sending again |
//! | `DELETE /api/v1/sinks/{id}/quarantine/{row}` | removes a row for good |
//! | `GET /api/v1/delivery` | the cache and the channels of Redis |
//! | `GET /api/v1/venues/{id}/budget` | REST budgets |
//! | `GET /api/v1/tap` `?venue&market&symbol&channel&rate&limit` | live events, a line of JSON each |
//! | `GET /api/v1/exchanges` `/status` `/{id}/status` `/{id}/info` `/{id}/timeframes` `/{id}/markets` | venues |
//! | `GET /api/v1/exchanges/{id}/orderbook/{symbol}` `?marketType&levels` | a live book |
//! | `GET /api/v1/exchanges/{id}/ohlcv/{symbol}` `?marketType&timeframe&from&to&limit&after` | stored candles |
//! | `GET /api/v1/version` `/admin/status` `/admin/metrics` `/admin/websocket/stats` | the process |
//!
//! A full page of rows says as `next` what is given as `after` for the one behind it: the rows that follow in time where `from`
//! is given, else those before.
//!
//! Calls that write need `Authorization: Bearer <token>` where a token is set, and may carry an `Idempotency-Key`.

mod actors;
mod audit;
mod auth;
mod categories;
mod commands;
mod coverage;
mod delivery;
mod error;
mod exchanges;
mod gaps;
mod health;
mod metrics;
mod ohlcv;
mod operations;
mod orderbook;
mod page;
mod params;
mod probes;
mod replays;
mod restarts;
mod rollups;
mod shards;
mod sinks;
mod snapshots;
mod streams;
mod symbols;
mod tap;
#[cfg(test)]
mod tests;
mod ticks;
mod view;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::{
    App, Handler, HttpRequest, HttpServer, Resource, Responder, Route,
    dev::Server,
    guard,
    http::KeepAlive,
    web::{self, PayloadConfig, ServiceConfig},
};
use fathom_actors::system::MarketSystem;
use fathom_market::ids::VenueId;
use fathom_storage::read::MAX_ROWS;

use self::{error::ApiError, metrics::Totals, replays::Replays, tap::Taps};
use crate::config::{Config, Http, Secret};

type Shared = web::Data<AppState>;

/// What every handler may use.
pub struct AppState {
    /// The running tree.
    pub system: Arc<MarketSystem>,
    /// The venue meant where a path names none.
    pub primary: VenueId,
    /// The token of writing calls; without one they are open.
    pub token: Option<Secret>,
    /// How long an actor's answer is waited for.
    pub ask_deadline: Duration,
    /// Rows of an answer at most.
    pub max_rows: u32,
    /// When the process was started, microseconds UTC.
    pub started_us: i64,
    /// Its id.
    pub pid: u32,
    /// Its version.
    pub version: &'static str,
    replays: Replays,
    audit: audit::Audit,
    totals: Totals,
    taps: Taps,
}

impl AppState {
    /// The state of a server for this tree. `started_us` is when the process was started, microseconds UTC.
    pub fn new(system: Arc<MarketSystem>, config: &Config, started_us: i64) -> Self {
        Self {
            token: config.http.token.clone(),
            ask_deadline: config.supervision.ask_deadline,
            max_rows: u32::try_from(config.http.max_rows).unwrap_or(MAX_ROWS).min(MAX_ROWS),
            ..Self::open(system, config.primary_venue, started_us)
        }
    }

    /// With an open interface and the usual bounds.
    fn open(system: Arc<MarketSystem>, primary: VenueId, started_us: i64) -> Self {
        Self {
            system,
            primary,
            token: None,
            ask_deadline: Duration::from_millis(250),
            max_rows: MAX_ROWS,
            started_us,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            replays: Replays::default(),
            audit: audit::Audit::default(),
            totals: Totals::default(),
            taps: Taps::default(),
        }
    }

    fn now_us(&self) -> i64 {
        self.system.clock().now_us()
    }

    fn now_ms(&self) -> i64 {
        self.now_us() / 1000
    }
}

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a stop waits for requests under way.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Binds and makes the server; it runs when awaited, and leaves the process's signals alone. Also gives the address,
/// for port 0.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(state: AppState, http: &Http) -> io::Result<(Server, SocketAddr)> {
    let (state, body) = (web::Data::new(state), http.max_body_bytes);
    let workers = http.workers.max(1);
    let server = HttpServer::new(move || {
        App::new().app_data(PayloadConfig::new(body)).configure(configure(state.clone()))
    })
    .workers(workers)
    .max_connections(http.max_connections.div_ceil(workers))
    .client_request_timeout(http.request_timeout)
    .client_disconnect_timeout(http.request_timeout)
    .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
    .shutdown_timeout(SHUTDOWN.as_secs())
    .disable_signals()
    .bind((http.host, http.port))?;
    let address = server.addrs().first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((server.run(), address))
}

/// The routes, see the table above.
pub fn configure(state: web::Data<AppState>) -> impl Fn(&mut ServiceConfig) + Clone {
    move |config| {
        config.app_data(state.clone());
        page::routes(config);
        probes::routes(config);
        health::routes(config);
        metrics::routes(config);
        categories::routes(config);
        snapshots::routes(config);
        rollups::routes(config);
        ticks::routes(config);
        actors::routes(config);
        shards::routes(config);
        streams::routes(config);
        audit::routes(config);
        operations::routes(config);
        symbols::routes(config);
        sinks::routes(config);
        delivery::routes(config);
        gaps::routes(config);
        coverage::routes(config);
        tap::routes(config);
        orderbook::routes(config);
        ohlcv::routes(config);
        exchanges::routes(config);
        config.default_service(web::to(no_such_path));
    }
}

async fn no_such_path(request: HttpRequest) -> ApiError {
    ApiError::not_found("NOT_FOUND", format!("no such path: {}", request.path()))
}

/// A path that is only read.
fn read<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let reading = Route::new().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler);
    web::resource(path).route(reading).default_service(web::to(|| async { ApiError::method("GET, HEAD") }))
}

/// A path that is only written to, by POST or PUT.
fn write<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let writing = Route::new().guard(guard::Any(guard::Post()).or(guard::Put())).to(handler);
    web::resource(path).route(writing).default_service(web::to(|| async { ApiError::method("POST, PUT") }))
}
