//! The REST server of a market: limits, faults and headers around the endpoints of `endpoints` (binance sheet,
//! sections 2 and 5).

pub(crate) mod endpoints;
pub(crate) mod info;
pub(crate) mod params;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::json;

use self::endpoints::Endpoint;
use self::params::Params;
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
    if let Some(response) = faulted(&state, request.path(), ip, now) {
        return response;
    }
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

/// The answer of a fault in force.
fn faulted(state: &MarketState, path: &str, ip: IpAddr, now: i64) -> Option<HttpResponse> {
    let error = state.faults.rest_error(path, now)?;
    if state.addresses.should_wait(ip, now) {
        state.ledger.violation(
            state.market,
            now,
            "rest_after_429",
            format!("{path}: asked before Retry-After was over"),
        );
    }
    let retry_s = i64::try_from(error.retry_after_s.unwrap_or(1)).unwrap_or(1);
    if matches!(error.status, 429 | 418) {
        state.addresses.told_to_wait(ip, now + retry_s * 1000, now);
    }
    Some(match error.status {
        429 => too_many(0, retry_s, state.config.limits.weight_per_minute),
        418 => banned(0, now + retry_s * 1000, retry_s),
        status => builder(status)
            .json(json!({"code": -1000, "msg": "An unknown error occurred while processing the request."})),
    })
}
