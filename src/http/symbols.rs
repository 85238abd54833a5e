//! `/api/v1/symbols`: which symbols are wanted, what became of each, and how operators change it.

use std::fmt::Display;

use actix_web::{
    HttpResponse, Resource, Route, guard,
    http::{StatusCode, header},
    web::{self, Path, ServiceConfig},
};
use fathom_actors::{
    kernel::{Operation, OperationId},
    symbols::{Command, Reach, SymbolError, view::SymbolView},
    system::venues,
};
use fathom_market::ids::Market;
use fathom_venues::planner::Tier;
use serde::{Deserialize, Serialize};

use super::{
    AppState, Shared,
    audit::Deed,
    auth::Caller,
    commands::{Body, parse},
    error::{Answer, ApiError, answer, ok},
    params::Params,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let reading = Route::new().guard(guard::Any(guard::Get()).or(guard::Head())).to(list);
    let all =
        web::resource("/api/v1/symbols").route(reading).route(web::post().to(add)).route(web::put().to(set));
    config.service(others(all, "GET, HEAD, POST, PUT"));
    // Unified symbols have slashes.
    let one = web::resource("/api/v1/symbols/{symbol:.+}").route(web::delete().to(remove));
    config.service(others(one, "DELETE"));
}

fn others(resource: Resource, allowed: &'static str) -> Resource {
    resource.default_service(web::to(move || async move { ApiError::method(allowed) }))
}

#[derive(Serialize)]
struct Listed {
    symbols: Vec<SymbolView>,
    current_symbols: Vec<String>,
    count: usize,
}

async fn list(state: Shared, params: Params) -> Answer {
    let reach = reach(&state, params.get("venue"), params.get("market"))?;
    let core = state.system.symbols();
    let current_symbols = core.names(reach);
    let count = current_symbols.len();
    ok(&Listed { symbols: core.views(reach, state.now_us()), current_symbols, count })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    symbol: Option<String>,
    symbols: Option<Vec<String>>,
    tier: Option<String>,
    venue: Option<String>,
    market: Option<String>,
}

impl ChangeBody {
    fn symbols(&self) -> Result<Vec<String>, ApiError> {
        match (&self.symbol, &self.symbols) {
            (Some(one), None) => Ok(vec![one.clone()]),
            (None, Some(all)) => Ok(all.clone()),
            _ => Err(ApiError::body("expected one of symbol and symbols")),
        }
    }

    fn reach(&self, state: &AppState) -> Result<Reach, ApiError> {
        reach(state, self.venue.as_deref(), self.market.as_deref())
    }

    fn tier(&self) -> Result<Option<Tier>, ApiError> {
        let Some(name) = &self.tier else { return Ok(None) };
        let known = Tier::ALL.map(Tier::as_str);
        let tier = Tier::parse(name).ok_or_else(|| {
            ApiError::new(StatusCode::BAD_REQUEST, "INVALID_TIER", format!("tier {name:?} is not known"))
                .with("validTiers", known)
        })?;
        Ok(Some(tier))
    }
}

async fn add(state: Shared, caller: Caller, body: Body) -> Answer {
    let body: ChangeBody = parse(body)?;
    let command = Command::Add { symbols: body.symbols()?, tier: body.tier()? };
    run(&state, &caller, &command, body.reach(&state)?).await
}

async fn set(state: Shared, caller: Caller, body: Body) -> Answer {
    let body: ChangeBody = parse(body)?;
    if body.tier.is_some() {
        return Err(ApiError::body("tier belongs to POST"));
    }
    run(&state, &caller, &Command::Set { symbols: body.symbols()? }, body.reach(&state)?).await
}

async fn remove(state: Shared, caller: Caller, symbol: Path<String>, params: Params) -> Answer {
    let reach = reach(&state, params.get("venue"), params.get("market"))?;
    run(&state, &caller, &Command::Remove { symbols: vec![symbol.into_inner()] }, reach).await
}

fn reach(state: &AppState, venue: Option<&str>, market: Option<&str>) -> Result<Reach, ApiError> {
    let known = venues(state.system.settings());
    let venue = venue.map(|text| {
        let found = known.iter().find(|venue| venue.as_str().eq_ignore_ascii_case(text)).copied();
        let names = known.iter().map(|venue| venue.as_str()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| ApiError::parameter("venue", text, &format!("one of {names}")))
    });
    let market = market.map(|text| {
        Market::parse(text).ok_or_else(|| ApiError::parameter("market", text, "spot or futures"))
    });
    Ok(Reach { venue: venue.transpose()?, market: market.transpose()? })
}

/// Takes a command once, has it saved, writes the audit line and answers 202.
async fn run(state: &AppState, caller: &Caller, command: &Command, reach: Reach) -> Answer {
    let core = state.system.symbols();
    let call = format!("symbols {command:?} {reach:?}");
    let mut is_new = false;
    let begun = state.replays.once(caller.key.as_deref(), &call, || {
        is_new = true;
        core.begin(command, reach, &caller.by).map_err(ApiError::from)
    });
    let deed = Deed { action: "symbols", target: &call, reason: "" };
    state.audit.note(state, caller, &deed, begun.as_ref().map(Some).map_err(|error| error as &dyn Display));
    let operation = begun?;
    if is_new {
        core.save(&operation).await.map_err(|error| not_saved(&operation, &error))?;
    }
    accepted(state, command, &operation)
}

fn not_saved(operation: &OperationId, error: &impl std::fmt::Display) -> ApiError {
    tracing::error!(%operation, %error, "a change of symbols is in force and not on disk");
    let message = "the change is in force, but could not be saved and will not outlive a restart";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "NOT_SAVED", message).with("operation", operation)
}

#[derive(Serialize)]
struct Accepted {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<String>,
    symbols: Vec<String>,
    current_symbols: Vec<String>,
    count: usize,
    operation: Option<Operation>,
}

fn accepted(state: &AppState, command: &Command, id: &OperationId) -> Answer {
    let current_symbols = state.system.symbols().names(Reach::default());
    let (symbols, done) = match command {
        Command::Add { symbols, .. } => (symbols, "added"),
        Command::Remove { symbols } => (symbols, "removed"),
        Command::Set { symbols } => (symbols, "set"),
    };
    let symbols: Vec<String> = symbols.iter().map(|symbol| symbol.trim().to_uppercase()).collect();
    let (symbol, message) = match (symbols.as_slice(), command) {
        ([symbol], Command::Add { .. } | Command::Remove { .. }) => {
            (Some(symbol.clone()), format!("Symbol {symbol} {done} successfully"))
        }
        _ => (None, format!("{} symbols {done} successfully", symbols.len())),
    };
    let count = current_symbols.len();
    let operation = state.system.control().operation(id);
    let body = Accepted { message, symbol, symbols, current_symbols, count, operation };
    let mut response: HttpResponse = answer(StatusCode::ACCEPTED, &body)?;
    let location = header::HeaderValue::from_str(&format!("/api/v1/operations/{id}"));
    response.headers_mut().insert(header::LOCATION, location.map_err(ApiError::internal)?);
    Ok(response)
}

impl From<SymbolError> for ApiError {
    fn from(error: SymbolError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match error {
            SymbolError::Duplicate(symbol) => {
                Self::new(StatusCode::CONFLICT, code, message).with("symbol", symbol)
            }
            SymbolError::NotListed(symbol) | SymbolError::NotCollected(symbol) => {
                Self::not_found(code, message).with("symbol", symbol)
            }
            SymbolError::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, code, message),
            SymbolError::NotReady { .. } | SymbolError::Busy => {
                Self::unavailable(code, message, std::time::Duration::from_secs(1))
            }
        }
    }
}
