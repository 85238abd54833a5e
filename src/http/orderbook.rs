//! `/api/v1/exchanges/{id}/orderbook/{symbol}`: a book as its actor holds it now. A book in doubt is refused, never
//! shown as if it were sound.

use std::time::Duration;

use actix_web::web::{Path, ServiceConfig};
use fathom_actors::{
    book::{BookAnswer, GetBook},
    directory::BookEntry,
    kernel::{AskError, State},
};
use fathom_market::{
    decimal::to_decimal, event::Level, ids::Market, instrument::Instrument, sample::SampleState,
};
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, ok},
    exchanges::known_venue,
    params::Params,
    read,
    view::{iso, text},
};

const DEFAULT_LEVELS: usize = 20;
const MAX_LEVELS: i64 = 100_000;
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/exchanges/{id}/orderbook/{symbol}", orderbook));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Book {
    exchange: &'static str,
    market_type: &'static str,
    symbol: String,
    native: String,
    state: &'static str,
    last_update_id: Option<u64>,
    /// Venue time of the newest update, or its receive time where the venue gives none, milliseconds.
    timestamp: Option<i64>,
    datetime: Option<String>,
    received_at: Option<String>,
    age_ms: Option<i64>,
    bids: Vec<[String; 2]>,
    asks: Vec<[String; 2]>,
}

impl Book {
    fn new(answer: &BookAnswer, instrument: &Instrument, now_us: i64) -> Self {
        let time_us = answer.event_us.or(answer.recv_us);
        Self {
            exchange: instrument.venue.as_str(),
            market_type: instrument.market.label(),
            symbol: instrument.unified.to_string(),
            native: instrument.native.to_string(),
            state: answer.state.as_str(),
            last_update_id: answer.last_id,
            timestamp: time_us.map(|us| us / 1000),
            datetime: time_us.map(iso),
            received_at: answer.recv_us.map(iso),
            age_ms: answer.recv_us.map(|us| (now_us - us) / 1000),
            bids: pairs(&answer.bids, instrument),
            asks: pairs(&answer.asks, instrument),
        }
    }
}

fn pairs(levels: &[Level], instrument: &Instrument) -> Vec<[String; 2]> {
    let shown = |level: &Level| {
        let price = to_decimal(level.price, instrument.price_scale);
        [text(price), text(to_decimal(level.qty, instrument.qty_scale))]
    };
    levels.iter().map(shown).collect()
}

async fn orderbook(state: Shared, path: Path<(String, String)>, params: Params) -> Answer {
    let (exchange, symbol) = path.into_inner();
    let book = find(&state, &exchange, &symbol, &params)?;
    let levels = match params.get("levels") {
        Some(text) if text.eq_ignore_ascii_case("all") => usize::MAX,
        _ => params
            .int("levels", 1..=MAX_LEVELS)?
            .map_or(DEFAULT_LEVELS, |levels| levels.unsigned_abs() as usize),
    };
    let asked = book.actor.ask(GetBook { levels }, state.ask_deadline).await;
    let answer = asked.map_err(|error| silent(&state, &book, &error))?;
    if !answer.state.is_usable() {
        return Err(not_live(answer.state.as_str(), answer.cause, RETRY_AFTER));
    }
    ok(&Book::new(&answer, &book.cell.instrument, state.now_us()))
}

/// The book of a collected symbol, native or unified.
pub(super) fn find(
    state: &AppState,
    exchange: &str,
    symbol: &str,
    params: &Params,
) -> Result<BookEntry, ApiError> {
    let venue = known_venue(exchange)?.id();
    // A unified symbol with a settlement asset is a future by its name.
    let named = if symbol.contains(':') { Market::Futures } else { Market::Spot };
    let market = params.market_given()?.unwrap_or(named);
    state.system.directory().book(venue, market, symbol).ok_or_else(|| {
        let message = format!("{symbol} is not collected on {venue} {market}");
        ApiError::not_found("SYMBOL_NOT_FOUND", message).with("symbol", symbol)
    })
}

fn not_live(book: &'static str, cause: &str, retry_after: Duration) -> ApiError {
    ApiError::unavailable("BOOK_NOT_LIVE", format!("the book is {book}: {cause}"), retry_after)
        .with("state", book)
        .with("cause", cause)
}

/// A book whose actor does not answer: what it published last may be sound no more.
fn silent(state: &AppState, book: &BookEntry, error: &AskError) -> ApiError {
    let actor = state.system.control().actor(book.actor.id()).map(|actor| actor.state);
    let published = match actor {
        Some(State::Paused) => SampleState::Paused,
        _ => book.cell.state(state.now_us()),
    };
    let shown = if published.is_usable() { SampleState::Stale } else { published };
    not_live(shown.as_str(), &error.to_string(), error.retry_after().unwrap_or(RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use actix_web::{ResponseError, http::StatusCode};

    use super::*;

    #[test]
    fn a_book_in_doubt_is_refused_with_its_state_and_when_to_come_back() {
        let error = not_live("syncing", "gap", RETRY_AFTER);
        assert_eq!(error.status_code(), StatusCode::SERVICE_UNAVAILABLE);
        let response = error.error_response();
        assert_eq!(response.headers().get("retry-after").expect("when").as_bytes(), b"1");
        let body = serde_json::to_value(&error).expect("json");
        assert_eq!(body["error"], "BOOK_NOT_LIVE");
        assert_eq!((&body["state"], &body["cause"]), (&"syncing".into(), &"gap".into()));
    }
}
