//! `/api/snapshots/{symbol}`: minutes of one pair, in the form of a category.

use actix_web::web::{Path, ServiceConfig};
use fathom_market::ids::{InstrumentId, Market, VenueId};
use fathom_storage::{GapQuery, SnapshotQuery};
use serde::Serialize;

use super::{
    AppState, Shared,
    coverage::RangeCoverage,
    error::{Answer, ok},
    params::Params,
    read,
    view::{Num, PairPoint},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/snapshots/{symbol}", snapshots));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    symbol: String,
    category: &'static str,
    market_type: &'static str,
    exchange: &'static str,
    depth: Num,
    data: Vec<PairPoint>,
    count: usize,
    coverage: RangeCoverage,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn snapshots(state: Shared, symbol: Path<String>, params: Params) -> Answer {
    let depth = params.depth(&state.system.settings().depth.levels)?;
    let market = params.market()?;
    let venue = params.venue(&state)?;
    let range = params.page(state.max_rows)?;
    let (symbol, instrument) = named(&state, venue, market, &symbol);
    let query = SnapshotQuery {
        instrument_id: instrument.0,
        depth,
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        limit: range.limit,
    };
    let rows = state.system.store().history().symbol_range(&query).await?;
    let times = (rows.first().map(|row| row.timestamp_ms), rows.last().map(|row| row.timestamp_ms));
    let coverage = RangeCoverage::of(
        &state,
        GapQuery { instrument_id: Some(instrument.0), channel: Some("depth".into()), ..GapQuery::default() },
        range.reach(times),
    )
    .await;
    ok(&Series {
        next: range.next(rows.len(), times),
        symbol,
        category: "COIN",
        market_type: market.label(),
        exchange: venue.as_str(),
        depth: Num(depth),
        count: rows.len(),
        data: rows.iter().map(PairPoint::from).collect(),
        coverage,
        timestamp: state.now_ms(),
    })
}

/// The native symbol and id. What is not collected now may still have a past, so its id is derived from its name: a
/// native one in capitals, or a unified one without its separators.
pub(super) fn named(
    state: &AppState,
    venue: VenueId,
    market: Market,
    symbol: &str,
) -> (String, InstrumentId) {
    if let Some(book) = state.system.directory().book(venue, market, symbol) {
        let instrument = &book.cell.instrument;
        return (instrument.native.to_string(), instrument.id);
    }
    let unified = symbol.split(':').next().unwrap_or_default();
    let native: String = unified.chars().filter(|letter| *letter != '/').collect();
    let native = native.to_uppercase();
    let id = InstrumentId::derive(venue, market, &native);
    (native, id)
}
