//! `/api/v1/gaps`: the gap ledger, the newest first. What the store keeps and what is open in this process are told as
//! one; while the store is away, the latter alone, and the answer says so.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use actix_web::web::ServiceConfig;
use fathom_market::{
    gap::{Gap, GapCause, GapStatus, parse_channel},
    ids::{InstrumentId, Market, VenueId},
};
use fathom_storage::GapQuery;
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, ok},
    params::Params,
    read,
};

const DEFAULT_LIMIT: u32 = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/gaps", list));
}

/// Gaps of the store and of this process.
pub(super) struct Merged {
    /// The newest first, each once.
    pub(super) gaps: Vec<Gap>,
    /// Why the store's are not among them.
    pub(super) away: Option<String>,
    /// What to go on after, where there are more.
    pub(super) next: Option<String>,
}

/// What is asked: as the store is, and of which instruments, where venue or market is given.
pub(super) async fn find(state: &AppState, query: &GapQuery) -> Merged {
    let (stored, away) = match state.system.store().history().gaps(query).await {
        Ok(rows) => (rows, None),
        Err(error) => {
            tracing::warn!(%error, "the gap ledger cannot be read");
            (Vec::new(), Some("the store cannot be read; only gaps of this process are listed".to_owned()))
        }
    };
    let names = Names::new(state);
    let kept: BTreeSet<&str> = stored.iter().map(|row| row.gap_id.as_str()).collect();
    let board = state.system.directory().gaps();
    let ours = board.find(|gap| kept.contains(gap.id.as_str()) || names.answers(query, gap));
    let ours: BTreeMap<String, Gap> = ours.into_iter().map(|gap| (gap.id.clone(), gap)).collect();
    let full = !stored.is_empty() && stored.len() >= query.limit as usize;
    let edge = stored.last().filter(|_| full).map(|row| (row.from_us, row.gap_id.clone()));
    let stored = stored.iter().filter_map(Gap::read).filter(|gap| !is_newer(&ours, gap));
    let live = ours.values().filter(|gap| names.answers(query, gap)).cloned();
    // Beyond the store's page there may be more of the store's.
    let within = |gap: &Gap| edge.as_ref().is_none_or(|edge| (gap.from_us, &gap.id) >= (edge.0, &edge.1));
    let mut gaps: BTreeMap<(Reverse<i64>, Reverse<String>), Gap> = BTreeMap::new();
    for gap in stored.chain(live).filter(within) {
        gaps.insert((Reverse(gap.from_us), Reverse(gap.id.clone())), gap);
    }
    let more = full || gaps.len() > query.limit as usize;
    let gaps: Vec<Gap> = gaps.into_values().take(query.limit as usize).collect();
    let last = gaps.last().map(|gap| (gap.from_us, gap.id.clone())).or(edge);
    Merged { next: last.filter(|_| more).map(|last| cursor(&last)), gaps, away }
}

/// Where a page ended. Where a gap begins may move while its name stays, so both are in it.
fn cursor((from_us, id): &(i64, String)) -> String {
    format!("{from_us}:{id}")
}

fn parse_cursor(text: &str) -> Option<(i64, String)> {
    let (from_us, id) = text.split_once(':')?;
    Gap::begins(id)?;
    Some((from_us.parse().ok()?, id.to_owned()))
}

fn is_newer(ours: &BTreeMap<String, Gap>, stored: &Gap) -> bool {
    ours.get(&stored.id).is_some_and(|gap| gap.updated_us >= stored.updated_us)
}

/// Whether a gap lies in a range of time.
fn overlaps(gap: &Gap, from_us: Option<i64>, to_us: Option<i64>) -> bool {
    to_us.is_none_or(|to| gap.from_us <= to)
        && from_us.is_none_or(|from| gap.to_us.is_none_or(|ended| ended >= from))
}

/// Names of the collected instruments by their ids.
struct Names(BTreeMap<InstrumentId, (VenueId, Market, String)>);

impl Names {
    fn new(state: &AppState) -> Self {
        let markets = state.system.directory().markets();
        let instruments = markets.iter().flat_map(|entry| entry.table.iter());
        Self(instruments.map(|(_, one)| (one.id, (one.venue, one.market, one.native.to_string()))).collect())
    }

    /// The board's side of [`GapQuery`].
    fn answers(&self, query: &GapQuery, gap: &Gap) -> bool {
        let named = self.0.get(&gap.instrument);
        let venue =
            query.venue.as_deref().is_none_or(|venue| named.is_some_and(|(one, ..)| one.as_str() == venue));
        let market = query
            .market
            .as_deref()
            .is_none_or(|market| named.is_some_and(|(_, one, _)| one.as_str() == market));
        let channel = query.channel.as_deref().is_none_or(|channel| {
            gap.channel == channel || (channel == "candle" && gap.channel.starts_with("candle:"))
        });
        let after = query.after.as_ref().is_none_or(|(from_us, id)| (gap.from_us, &gap.id) < (*from_us, id));
        venue
            && market
            && channel
            && after
            && query.instrument_id.is_none_or(|id| gap.instrument.0 == id)
            && query.cause.is_none_or(|cause| gap.cause == cause)
            && query.status.is_none_or(|status| gap.status == status)
            && (!query.holes || gap.is_hole())
            && overlaps(gap, query.from_us, query.to_us)
    }
}

#[derive(Serialize)]
struct Listed {
    gaps: Vec<GapView>,
    next: Option<String>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// A gap; times in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GapView {
    id: String,
    venue: Option<String>,
    market: Option<String>,
    symbol: Option<String>,
    channel: String,
    cause: &'static str,
    status: &'static str,
    from: i64,
    to: Option<i64>,
    from_id: Option<String>,
    to_id: Option<String>,
    missing: Option<u64>,
    reason: Option<String>,
    opened_at: i64,
    closed_at: Option<i64>,
    duration_ms: i64,
}

impl GapView {
    pub(super) fn new(gap: &Gap, name: Option<(String, String, String)>, now_us: i64) -> Self {
        let (venue, market, symbol) = match name {
            Some((venue, market, symbol)) => (Some(venue), Some(market), Some(symbol)),
            None => (None, None, None),
        };
        Self {
            id: gap.id.clone(),
            venue,
            market,
            symbol,
            channel: gap.channel.clone(),
            cause: gap.cause.as_str(),
            status: gap.status.as_str(),
            from: gap.from_us / 1000,
            to: gap.to_us.map(|us| us / 1000),
            from_id: gap.from_id.clone(),
            to_id: gap.to_id.clone(),
            missing: gap.missing,
            reason: gap.reason.clone(),
            opened_at: gap.opened_us / 1000,
            closed_at: gap.closed_us.map(|us| us / 1000),
            duration_ms: (gap.to_us.unwrap_or(now_us) - gap.from_us) / 1000,
        }
    }
}

async fn list(state: Shared, params: Params) -> Answer {
    let query = query(&state, &params)?;
    let found = find(&state, &query).await;
    let names = names_of(&state, &found.gaps).await;
    let now_us = state.now_us();
    let shown = |gap: &Gap| GapView::new(gap, names.get(&gap.instrument).cloned(), now_us);
    ok(&Listed {
        gaps: found.gaps.iter().map(shown).collect(),
        next: found.next,
        complete: found.away.is_none(),
        why: found.away,
    })
}

/// What is collected is known; the names of what once was are in the store.
async fn names_of(state: &AppState, gaps: &[Gap]) -> BTreeMap<InstrumentId, (String, String, String)> {
    let ours = Names::new(state).0.into_iter();
    let mut names: BTreeMap<_, _> = ours
        .map(|(id, (venue, market, native))| (id, (venue.to_string(), market.to_string(), native)))
        .collect();
    if gaps.iter().all(|gap| names.contains_key(&gap.instrument)) {
        return names;
    }
    match state.system.store().history().instruments().await {
        Ok(rows) => {
            for row in rows {
                names.entry(InstrumentId(row.instrument_id)).or_insert((row.venue, row.market, row.native));
            }
        }
        Err(error) => tracing::warn!(%error, "names of instruments"),
    }
    names
}

fn query(state: &AppState, params: &Params) -> Result<GapQuery, ApiError> {
    let venue = params.get("venue").map(venue).transpose()?;
    let market = params.get("market").map(market).transpose()?;
    let range = params.range(state.max_rows)?;
    let limit = if params.get("limit").is_some() { range.limit } else { DEFAULT_LIMIT.min(state.max_rows) };
    let after = params.get("after").map(|text| {
        parse_cursor(text).ok_or_else(|| ApiError::parameter("after", text, "the next of a page"))
    });
    Ok(GapQuery {
        instrument_id: params
            .get("symbol")
            .map(|symbol| instrument(state, venue, market, symbol))
            .transpose()?,
        venue: venue.map(|venue| venue.to_string()),
        market: market.map(|market| market.to_string()),
        channel: params.get("channel").map(channel).transpose()?,
        cause: word(params, "cause", &GapCause::ALL, GapCause::as_str)?,
        status: word(params, "status", &GapStatus::ALL, GapStatus::as_str)?,
        holes: false,
        from_us: range.from_ms.map(|ms| ms * 1000),
        to_us: range.to_ms.map(|ms| ms * 1000),
        limit,
        after: after.transpose()?,
    })
}

pub(super) fn venue(text: &str) -> Result<VenueId, ApiError> {
    let found = fathom_venues::registry::ids().find(|venue| venue.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| ApiError::parameter("venue", text, "a known venue"))
}

pub(super) fn market(text: &str) -> Result<Market, ApiError> {
    Market::parse(text).ok_or_else(|| ApiError::parameter("market", text, "spot or futures"))
}

fn channel(text: &str) -> Result<String, ApiError> {
    let known = text == "candle" || parse_channel(text).is_some();
    let expected = "quote, trade, depth, ticker, funding, candle or candle:TIMEFRAME";
    known.then(|| text.to_owned()).ok_or_else(|| ApiError::parameter("channel", text, expected))
}

fn word<T: Copy>(
    params: &Params,
    name: &str,
    all: &[T],
    word_of: fn(T) -> &'static str,
) -> Result<Option<T>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let found = all.iter().copied().find(|one| word_of(*one).eq_ignore_ascii_case(text));
    found.map(Some).ok_or_else(|| {
        let words: Vec<&str> = all.iter().copied().map(word_of).collect();
        ApiError::parameter(name, text, &format!("one of {}", words.join(", ")))
    })
}

/// The id of an instrument by native or unified symbol. What is not collected now may still have a past, so its id is
/// derived from its name.
fn instrument(
    state: &AppState,
    venue: Option<VenueId>,
    market: Option<Market>,
    symbol: &str,
) -> Result<i64, ApiError> {
    let Some(market) = market else {
        return Err(ApiError::parameter("symbol", symbol, "given with market=spot or market=futures"));
    };
    let venue = venue.unwrap_or(state.primary);
    Ok(super::snapshots::named(state, venue, market, symbol).1.0)
}
