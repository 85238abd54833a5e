//! Reads the query of a request. Every refusal names the parameter.

use std::{
    future::{Ready, ready},
    ops::RangeInclusive,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Query};
use fathom_actors::system::venues;
use fathom_market::{
    decimal::parse_decimal,
    ids::{Market, Scope, VenueId},
};
use rust_decimal::Decimal;

use super::{AppState, error::ApiError, view::nums};

const DEFAULT_LIMIT: i64 = 1440;
/// Times are milliseconds that are still times in microseconds.
const TIMES_MS: RangeInclusive<i64> = 0..=i64::MAX / 1000;

/// What the cursors of pages begin with; a time follows.
const LATER: &str = "later:";
const EARLIER: &str = "earlier:";

/// The query of a request; of a parameter given twice, the first counts.
pub(super) struct Params(Vec<(String, String)>);

/// A range of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// First time, milliseconds.
    pub(super) from_ms: Option<i64>,
    /// Last time, milliseconds.
    pub(super) to_ms: Option<i64>,
    /// Rows at most.
    pub(super) limit: u32,
}

impl Range {
    /// From when to when rows answer it, given the times of the first and last of them, milliseconds.
    pub(super) fn reach(&self, rows: (Option<i64>, Option<i64>)) -> Option<(i64, i64)> {
        let first = self.from_ms.or(rows.0);
        let last = self.to_ms.filter(|_| rows.1.is_none()).or(rows.1).or(self.to_ms);
        first.zip(last).filter(|(first, last)| first <= last)
    }
}

impl Range {
    /// What a full page goes on after, given the times of its first and last row, milliseconds: later rows where a start was
    /// given, else earlier ones.
    pub(super) fn next(&self, rows: usize, ends: (Option<i64>, Option<i64>)) -> Option<String> {
        if rows < self.limit as usize {
            return None;
        }
        match self.from_ms {
            Some(_) => ends.1.map(|last| format!("{LATER}{last}")),
            None => ends.0.map(|first| format!("{EARLIER}{first}")),
        }
    }
}

impl FromRequest for Params {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string());
        ready(pairs.map(|pairs| Self(pairs.into_inner())).map_err(|_| ApiError::bad("INVALID_QUERY")))
    }
}

impl Params {
    /// A parameter's text; an empty one counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name)?;
        Some(found.1.trim()).filter(|text| !text.is_empty())
    }

    /// `marketType`, where given.
    pub(super) fn market_given(&self) -> Result<Option<Market>, ApiError> {
        let Some(text) = self.get("marketType") else { return Ok(None) };
        let valid = Market::ALL.map(Market::label);
        let market = Market::parse(text);
        market.map(Some).ok_or_else(|| ApiError::bad("INVALID_MARKET_TYPE").with("validMarketTypes", valid))
    }

    /// `marketType`, spot by default.
    pub(super) fn market(&self) -> Result<Market, ApiError> {
        Ok(self.market_given()?.unwrap_or(Market::Spot))
    }

    /// `depth`, which has to be a configured one.
    pub(super) fn depth(&self, configured: &[Decimal]) -> Result<Decimal, ApiError> {
        let text = self.get("depth").ok_or_else(|| ApiError::bad("MISSING_DEPTH"))?;
        let known = parse_decimal(text).ok().filter(|depth| configured.contains(depth));
        known.ok_or_else(|| ApiError::bad("INVALID_DEPTH").with("validDepths", nums(configured)))
    }

    /// `exchange`: a collected venue or `ALL`; the primary venue by default.
    pub(super) fn scope(&self, state: &AppState) -> Result<Scope, ApiError> {
        match self.get("exchange") {
            Some(text) if text.eq_ignore_ascii_case(Scope::All.as_str()) => Ok(Scope::All),
            _ => self.exchange(state, true).map(Scope::Venue),
        }
    }

    /// `exchange`: a collected venue; the primary one by default.
    pub(super) fn venue(&self, state: &AppState) -> Result<VenueId, ApiError> {
        self.exchange(state, false)
    }

    fn exchange(&self, state: &AppState, or_all: bool) -> Result<VenueId, ApiError> {
        let Some(text) = self.get("exchange") else { return Ok(state.primary) };
        let mut known = venues(state.system.settings());
        if !known.contains(&state.primary) {
            known.insert(0, state.primary);
        }
        if let Some(venue) = known.iter().find(|venue| venue.as_str().eq_ignore_ascii_case(text)) {
            return Ok(*venue);
        }
        let all = or_all.then_some(Scope::All.as_str());
        let valid: Vec<&str> = known.into_iter().map(VenueId::as_str).chain(all).collect();
        Err(ApiError::bad("INVALID_EXCHANGE").with("validExchanges", valid))
    }

    /// `from`, `to` and `limit`.
    pub(super) fn range(&self, max_rows: u32) -> Result<Range, ApiError> {
        let (from_ms, to_ms) = (self.int("from", TIMES_MS)?, self.int("to", TIMES_MS)?);
        if let (Some(from), Some(to)) = (from_ms, to_ms)
            && from > to
        {
            return Err(ApiError::parameter("from", &from.to_string(), &format!("at or before to={to}")));
        }
        let max = i64::from(max_rows);
        let limit = self.int("limit", 1..=max)?.unwrap_or(DEFAULT_LIMIT.min(max));
        Ok(Range { from_ms, to_ms, limit: u32::try_from(limit).unwrap_or(max_rows) })
    }

    /// `from`, `to`, `limit`, and `after`, which is the `next` of a page before.
    pub(super) fn page(&self, max_rows: u32) -> Result<Range, ApiError> {
        let range = self.range(max_rows)?;
        let Some(text) = self.get("after") else { return Ok(range) };
        let time = |front| {
            let time = text.strip_prefix(front).and_then(|time| time.parse::<i64>().ok());
            time.filter(|time| TIMES_MS.contains(time))
        };
        match (range.from_ms, time(LATER), time(EARLIER)) {
            (Some(from), Some(last), _) => Ok(Range { from_ms: Some(from.max(last + 1)), ..range }),
            (None, _, Some(first)) => {
                Ok(Range { to_ms: Some(range.to_ms.unwrap_or(i64::MAX).min(first - 1)), ..range })
            }
            _ => Err(ApiError::parameter("after", text, "the next of a page of this question")),
        }
    }

    /// A whole number inside a range.
    pub(super) fn int(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| ApiError::parameter(name, text, &expected()))
    }

    /// `true` or `false`; false by default.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(text) => Err(ApiError::parameter(name, text, "true or false")),
        }
    }

    /// Whether a parameter is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}
