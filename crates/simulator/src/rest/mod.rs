//! The REST server of a market: limits, faults and headers around the endpoints of `endpoints` (binance sheet,
//! sections 2 and 5).

pub(crate) mod endpoints;
pub(crate) mod info;
pub(crate) mod params;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::json;

use self::endpoints::Endpoint;
use self::params::Params;
use crate::faults::market::RestFate;
use crate::limits::Gate;
use crate::market::MarketState;
use crate::number::now_ms;

const USED: HeaderName = HeaderName::from_static("x-mbx-used-weight");
const USED_1M: HeaderName = HeaderName::from_static("x-mbx-used-weight-1m");

/// An error body: HTTP status, the venue's code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: u16,
    pub code: i32,
    pub msg: String,
}

impl ApiError {
    pub(crate) fn bad(code: i32, msg: impl Into<String>) -> Self {
        Self { status: 400, code, msg: msg.into() }
    }

    pub(crate) fn symbol() -> Self {
        Self::bad(-1121, "Invalid symbol.")
    }
}

/// Answers any request to the market's REST port.
pub(crate) async fn handle(request: HttpRequest, state: web::Data<Arc<MarketState>>) -> HttpResponse {
    let ip = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip());
    let Some(endpoint) = Endpoint::parse(state.market, request.path()) else {
        return HttpResponse::NotFound()
            .content_type("text/html")
            .body("<html><body>404 Not found</body></html>");
    };
    let params = Params::parse(request.query_string());
    let now = now_ms();
    let weight = endpoint.weight(state.market, &params);
    let path = request.uri().path_and_query().map_or_else(|| request.path(), |whole| whole.as_str());
    let fate = state.faults.rest(path, now);
    held_up(&fate).await;
    if let Some((status, retry_after_s)) = fate.error {
        return faulted(&state, path, ip, (status, retry_after_s));
    }
    let now = now_ms();
    let (gate, broken) = state.addresses.charge(ip, weight, endpoint.shares_funding_limit(), now);
    if let Some((rule, detail)) = broken {
        state.ledger.violation(state.market, now, rule, format!("{}: {detail}", request.path()));
    }
    let limit = state.config.limits.weight_per_minute;
    match gate {
        Gate::Pass(used) => match endpoints::answer(&state, endpoint, &params, now).await {
            Ok(body) => with_weight(HttpResponse::Ok(), used).content_type("application/json").body(body),
            Err(error) => {
                with_weight(builder(error.status), used).json(json!({"code": error.code, "msg": error.msg}))
            }
        },
        Gate::TooMany { used, retry_s } => too_many(used, retry_s, limit),
        Gate::Banned { used, until_ms, retry_s } => banned(used, until_ms, retry_s),
    }
}

fn builder(status: u16) -> HttpResponseBuilder {
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

fn with_weight(mut response: HttpResponseBuilder, used: u32) -> HttpResponseBuilder {
    response.insert_header((USED, used)).insert_header((USED_1M, used));
    response
}

fn too_many(used: u32, retry_s: i64, limit: u32) -> HttpResponse {
    let msg = format!(
        "Too much request weight used; current limit is {limit} request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
    );
    with_weight(builder(429), used)
        .insert_header((header::RETRY_AFTER, retry_s))
        .json(json!({"code": -1003, "msg": msg}))
}

fn banned(used: u32, until_ms: i64, retry_s: i64) -> HttpResponse {
    let msg = format!(
        "Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams for live updates to avoid bans."
    );
    with_weight(builder(418), used)
        .insert_header((header::RETRY_AFTER, retry_s))
        .json(json!({"code": -1003, "msg": msg}))
}

/// How often a request that hangs looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits as the faults in force say.
async fn held_up(fate: &RestFate) {
    if fate.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fate.delay_ms)).await;
    }
    while fate.hang.as_ref().is_some_and(|active| active.in_force(now_ms())) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The answer of a fault in force.
fn faulted(
    state: &MarketState,
    path: &str,
    ip: IpAddr,
    (status, retry_after_s): (u16, Option<u64>),
) -> HttpResponse {
    let now = now_ms();
    if state.addresses.should_wait(ip, now) {
        let detail = format!("{path}: asked before Retry-After was over");
        state.ledger.violation(state.market, now, "rest_after_429", detail);
    }
    let retry_s = i64::try_from(retry_after_s.unwrap_or(1)).unwrap_or(1);
    if matches!(status, 429 | 418) {
        state.addresses.told_to_wait(ip, now + retry_s * 1000, now);
    }
    match status {
        429 => too_many(0, retry_s, state.config.limits.weight_per_minute),
        418 => banned(0, now + retry_s * 1000, retry_s),
        status => builder(status)
            .json(json!({"code": -1000, "msg": "An unknown error occurred while processing the request."})),
    }
}
