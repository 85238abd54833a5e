//! `/api/v1/coverage`: what of one stream is there, and what is known to be missing; and the same in short for the range
//! of another answer.

use std::sync::Arc;

use actix_web::web::ServiceConfig;
use fathom_market::{
    event::Channel,
    gap::{Gap, channel_word, parse_channel},
    ids::{Market, VenueId},
    instrument::Instrument,
    table::Table,
};
use fathom_storage::{GapQuery, read::MAX_ROWS};
use rust_decimal::Decimal;
use serde::Serialize;

use super::{
    AppState, Shared,
    error::{Answer, ApiError, ok},
    gaps::{self, GapView},
    params::Params,
    read,
    view::text,
};

const DAY_MS: i64 = 86_400_000;
/// The longest range that is answered.
const LONGEST_MS: i64 = 92 * DAY_MS;
/// Gaps that are listed in one answer; a range with more is answered from the oldest of them on.
const MAX_GAPS: u32 = 1000;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/coverage", coverage));
}

/// What the streams behind an answer may have missed within its range.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RangeCoverage {
    complete: bool,
    gaps: usize,
    lost_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl RangeCoverage {
    /// Of a range in milliseconds; without one there is nothing to cover.
    pub(super) async fn of(state: &AppState, query: GapQuery, range: Option<(i64, i64)>) -> Self {
        Self::of_those(state, query, range, |_| true).await
    }

    /// The same of some gaps only.
    pub(super) async fn of_those(
        state: &AppState,
        query: GapQuery,
        range: Option<(i64, i64)>,
        counts: impl Fn(&Gap) -> bool,
    ) -> Self {
        let Some((from_ms, to_ms)) = range else {
            return Self { complete: true, gaps: 0, lost_ms: 0, why: None };
        };
        let range = (from_ms.saturating_mul(1000), to_ms.saturating_mul(1000).min(state.now_us()));
        let query =
            GapQuery { holes: true, from_us: Some(range.0), to_us: Some(range.1), limit: MAX_ROWS, ..query };
        let found = gaps::find(state, &query).await;
        let holes: Vec<&Gap> = found.gaps.iter().filter(|gap| counts(gap)).collect();
        let lost_us: i64 = lost(&holes, range).iter().map(|(from, to)| to - from).sum();
        Self {
            complete: holes.is_empty() && found.away.is_none() && found.next.is_none(),
            gaps: holes.len(),
            lost_ms: lost_us / 1000,
            why: found.away,
        }
    }
}

/// When something was missing within a range, in order and without overlaps. A book is in doubt until it is live again.
fn lost(gaps: &[&Gap], (from_us, to_us): (i64, i64)) -> Vec<(i64, i64)> {
    let end = |gap: &Gap| {
        gap.to_us.map_or(to_us, |ended| gap.closed_us.filter(|_| gap.channel == "depth").unwrap_or(ended))
    };
    let clipped = gaps.iter().map(|gap| (gap.from_us.max(from_us), end(gap).min(to_us)));
    let mut spans: Vec<(i64, i64)> = clipped.filter(|(from, to)| from < to).collect();
    spans.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// What is left of a range.
fn without(lost: &[(i64, i64)], (from_us, to_us): (i64, i64)) -> Vec<(i64, i64)> {
    let mut left = Vec::with_capacity(lost.len() + 1);
    let mut at = from_us;
    for (from, to) in lost {
        if *from > at {
            left.push((at, *from));
        }
        at = at.max(*to);
    }
    if at < to_us {
        left.push((at, to_us));
    }
    left
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    stream: String,
    venue: &'static str,
    market: &'static str,
    symbol: String,
    channel: String,
    from: i64,
    to: i64,
    complete: bool,
    /// The covered part of the range, from 0 to 1.
    covered: String,
    first_record: Option<i64>,
    last_record: Option<i64>,
    intervals: Vec<Interval>,
    gaps: Vec<GapView>,
    missing: Missing,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
}

/// Milliseconds.
#[derive(Serialize)]
struct Interval {
    from: i64,
    to: i64,
}

/// What is known to be missing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Missing {
    /// Records, where ids tell.
    records: u64,
    /// Gaps of which it is not known how many records they hold.
    gaps_without_count: usize,
    ms: i64,
}

struct Stream {
    venue: VenueId,
    market: Market,
    instrument: Arc<Instrument>,
    channel: Channel,
}

impl Stream {
    /// `venue/market/symbol/channel`; a unified symbol has a slash of its own.
    fn find(state: &AppState, name: &str) -> Result<Self, ApiError> {
        let unknown = || {
            let message =
                format!("no stream {name}: expected venue/market/symbol/channel of a collected symbol");
            ApiError::not_found("STREAM_NOT_FOUND", message).with("stream", name)
        };
        let parts: Vec<&str> = name.split('/').collect();
        let [venue, market, symbol @ .., channel] = parts.as_slice() else { return Err(unknown()) };
        let venue = gaps::venue(venue).map_err(|_| unknown())?;
        let market = gaps::market(market).map_err(|_| unknown())?;
        let channel = parse_channel(channel).ok_or_else(unknown)?;
        let entry = state.system.directory().market(venue, market).ok_or_else(unknown)?;
        let symbol = symbol.join("/");
        let is_named = |one: &Instrument| {
            one.native.eq_ignore_ascii_case(&symbol) || one.unified.eq_ignore_ascii_case(&symbol)
        };
        let found = entry.table.iter().map(|(_, one)| one).find(|one| is_named(one));
        let instrument = found.cloned().ok_or_else(unknown)?;
        Ok(Self { venue, market, instrument, channel })
    }

    /// Where its records are stored, the most exact first.
    const fn tables(&self) -> &'static [Table] {
        match self.channel {
            Channel::Trade => &[Table::Trades, Table::Trade1s],
            Channel::Quote => &[Table::Bt1s],
            Channel::Depth => &[Table::DepthEvents, Table::Depth1s],
            Channel::Candle(_) => &[Table::Candles],
            Channel::Funding => &[Table::FundingRates],
            Channel::Ticker => &[],
        }
    }

    /// Times of its first and last stored record, milliseconds.
    async fn ends(&self, state: &AppState) -> Result<Option<(i64, i64)>, String> {
        let timeframe = match self.channel {
            Channel::Candle(timeframe) => Some(timeframe.as_str()),
            _ => None,
        };
        let mut ends: Option<(i64, i64)> = None;
        for table in self.tables() {
            let found = state.system.store().history().ends(*table, self.instrument.id.0, timeframe).await;
            let found = found.map_err(|error| {
                tracing::warn!(%error, "ends of a stream");
                "the store cannot be read".to_owned()
            })?;
            ends = match (ends, found) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            };
        }
        Ok(ends)
    }
}

async fn coverage(state: Shared, params: Params) -> Answer {
    let name = params.get("stream").ok_or_else(|| {
        ApiError::parameter("stream", "", "given, as venue/market/symbol/channel: binance/spot/BTCUSDT/trade")
    })?;
    let stream = Stream::find(&state, name)?;
    let (mut from_ms, to_ms) = range(&state, &params)?;
    let query = GapQuery {
        instrument_id: Some(stream.instrument.id.0),
        channel: Some(channel_word(stream.channel)),
        holes: true,
        from_us: Some(from_ms * 1000),
        to_us: Some(to_ms * 1000),
        limit: MAX_GAPS,
        ..GapQuery::default()
    };
    let found = gaps::find(&state, &query).await;
    let mut why: Vec<String> = found.away.into_iter().collect();
    if found.next.is_some() {
        why.push(format!(
            "the range has more than {MAX_GAPS} gaps; it is answered from the oldest of these on"
        ));
        from_ms = found.gaps.last().map_or(from_ms, |gap| from_ms.max(gap.from_us / 1000));
    }
    let ends = stream.ends(&state).await.unwrap_or_else(|error| {
        why.push(error);
        None
    });
    if ends.is_none() && why.is_empty() {
        why.push("nothing of it is stored".to_owned());
    }
    let now_us = state.now_us();
    let whole = (from_ms * 1000, to_ms * 1000);
    let holes: Vec<&Gap> = found.gaps.iter().collect();
    let lost = lost(&holes, (whole.0, whole.1.min(now_us)));
    let left = match ends {
        Some((first, _)) => without(&lost, (whole.0.max(first * 1000), whole.1.min(now_us))),
        None => Vec::new(),
    };
    let covered_us: i64 = left.iter().map(|(from, to)| to - from).sum();
    let total_us = (whole.1 - whole.0).max(1);
    let names = || {
        let one = &stream.instrument;
        Some((stream.venue.to_string(), stream.market.to_string(), one.native.to_string()))
    };
    ok(&View {
        stream: name.to_owned(),
        venue: stream.venue.as_str(),
        market: stream.market.as_str(),
        symbol: stream.instrument.native.to_string(),
        channel: channel_word(stream.channel),
        from: from_ms,
        to: to_ms,
        complete: covered_us == total_us && why.is_empty(),
        covered: text((Decimal::from(covered_us) / Decimal::from(total_us)).round_dp(6)),
        first_record: ends.map(|(first, _)| first),
        last_record: ends.map(|(_, last)| last),
        intervals: left.iter().map(|(from, to)| Interval { from: from / 1000, to: to / 1000 }).collect(),
        missing: Missing {
            records: holes.iter().filter_map(|gap| gap.missing).sum(),
            gaps_without_count: holes.iter().filter(|gap| gap.missing.is_none()).count(),
            ms: lost.iter().map(|(from, to)| to - from).sum::<i64>() / 1000,
        },
        gaps: holes.iter().map(|gap| GapView::new(gap, names(), now_us)).collect(),
        why,
    })
}

/// The last day by default. What lies in the future is not asked for.
fn range(state: &AppState, params: &Params) -> Result<(i64, i64), ApiError> {
    let asked = params.range(state.max_rows)?;
    let to_ms = asked.to_ms.unwrap_or_else(|| state.now_ms());
    let from_ms = asked.from_ms.unwrap_or(to_ms - DAY_MS);
    if from_ms >= to_ms {
        return Err(ApiError::parameter("from", &from_ms.to_string(), &format!("before to={to_ms}")));
    }
    if to_ms - from_ms > LONGEST_MS {
        let expected = format!("at most {} days before to={to_ms}", LONGEST_MS / DAY_MS);
        return Err(ApiError::parameter("from", &from_ms.to_string(), &expected));
    }
    Ok((from_ms, to_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_merged_and_the_rest_is_left() {
        let spans = [(5, 10), (12, 15)];
        assert_eq!(without(&spans, (0, 20)), [(0, 5), (10, 12), (15, 20)]);
        assert_eq!(without(&spans, (5, 15)), [(10, 12)]);
        assert_eq!(without(&[], (3, 4)), [(3, 4)]);
        assert_eq!(without(&[(0, 9)], (2, 9)), []);
    }
}
