//! What a client of the control server needs to audit every stream to the message: what was made, and who got it.

use std::collections::{BTreeMap, HashMap};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use fathom_market::ids::Market;
use serde::Deserialize;
use serde_json::json;

use super::{Control, refuse};
use crate::hub::made::{Made, MadeRing, REMEMBERED_MS};
use crate::ledger::Line;
use crate::ledger::entries::{Handed, MadeEntry, StreamConnection, StreamSummary};

/// Rows that one answer about a stream holds unless `limit` says otherwise.
const PAGE: usize = 10_000;

type Lines = HashMap<u64, Line>;

fn delivered(lines: &Lines, connection: u64, number: u64, ms: i64) -> bool {
    lines.get(&connection).is_some_and(|line| line.delivered(number, ms))
}

impl Control {
    /// What each stream made in a range of times, both ends in it.
    pub(crate) fn summary(&self, market: Market, range_ms: (i64, i64)) -> Vec<StreamSummary> {
        let Some(state) = self.market(market) else { return Vec::new() };
        let lines = self.ledger.lines(market);
        let mut found = Vec::new();
        state.each_stream(None, |index, stream, channel, made| {
            let symbol = index.map_or_else(String::new, |index| state.roster[index].native.clone());
            let blank = StreamSummary {
                stream: stream.to_owned(),
                symbol,
                channel: channel.to_owned(),
                made: 0,
                delivered: 0,
                first_id: None,
                last_id: None,
                first_ms: None,
                last_ms: None,
                connections: Vec::new(),
                total: made.total,
                remembered_ms: made.oldest().map(|row| made.ms(row)),
            };
            found.push(summed(blank, made, range_ms, &lines));
        });
        found
    }

    /// The messages of a symbol's channel in a range of ids and times, by stream name.
    fn messages(
        &self,
        market: Market,
        symbol: usize,
        request: &StreamRequest,
        channel: &str,
    ) -> BTreeMap<String, Vec<MadeEntry>> {
        let Some(state) = self.market(market) else { return BTreeMap::new() };
        let lines = self.ledger.lines(market);
        let mut found = BTreeMap::new();
        state.each_stream(Some(symbol), |_, stream, of, made| {
            let what = stream.split_once('@').map_or("", |(_, what)| what);
            if of != channel && what != channel {
                return;
            }
            let in_time = |row: &&Made| (request.from_ms..=request.to_ms).contains(&made.ms(row));
            let rows = made.between_ids(request.from_id, request.to_id).filter(in_time).take(request.limit);
            let entry = |row: &Made| MadeEntry {
                id: row.id,
                first: row.first(),
                ms: made.ms(row),
                to: row
                    .deliveries()
                    .map(|to| Handed {
                        connection: to.connection,
                        delivered: delivered(&lines, to.connection, to.number, made.ms(row)),
                    })
                    .collect(),
            };
            found.insert(stream.to_owned(), rows.map(entry).collect());
        });
        found
    }
}

fn summed(
    mut summary: StreamSummary,
    made: &MadeRing,
    (from_ms, to_ms): (i64, i64),
    lines: &Lines,
) -> StreamSummary {
    let mut connections: BTreeMap<u64, StreamConnection> = BTreeMap::new();
    for row in made.between_ms(from_ms, to_ms) {
        let ms = made.ms(row);
        summary.made += 1;
        summary.first_id.get_or_insert(row.first());
        summary.first_ms.get_or_insert(ms);
        (summary.last_id, summary.last_ms) = (Some(row.id), Some(ms));
        let mut reached = false;
        for to in row.deliveries() {
            let blank = || StreamConnection {
                connection: to.connection,
                handed: 0,
                delivered: 0,
                first_id: None,
                last_id: None,
            };
            let part = connections.entry(to.connection).or_insert_with(blank);
            part.handed += 1;
            if delivered(lines, to.connection, to.number, ms) {
                reached = true;
                part.delivered += 1;
                part.first_id.get_or_insert(row.id);
                part.last_id = Some(row.id);
            }
        }
        summary.delivered += u64::from(reached);
    }
    summary.connections = connections.into_values().collect();
    summary
}

const fn always() -> i64 {
    i64::MAX
}

const fn last() -> u64 {
    u64::MAX
}

const fn page() -> usize {
    PAGE
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SummaryRequest {
    market: Market,
    #[serde(default)]
    from_ms: i64,
    #[serde(default = "always")]
    to_ms: i64,
    #[serde(default)]
    symbol: Option<String>,
    #[serde(default)]
    channel: Option<String>,
}

/// `GET /sim/ledger/summary?market=&from_ms=&to_ms=&symbol=&channel=`.
pub(super) async fn summary(
    control: web::Data<Control>,
    request: web::Query<SummaryRequest>,
) -> HttpResponse {
    let mut streams = control.summary(request.market, (request.from_ms, request.to_ms));
    streams.retain(|stream| {
        request.symbol.as_ref().is_none_or(|symbol| *symbol == stream.symbol)
            && request.channel.as_ref().is_none_or(|channel| *channel == stream.channel)
    });
    HttpResponse::Ok().json(json!({"streams": streams, "remembered_at_most_ms": REMEMBERED_MS}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamRequest {
    #[serde(default)]
    from_id: u64,
    #[serde(default = "last")]
    to_id: u64,
    #[serde(default)]
    from_ms: i64,
    #[serde(default = "always")]
    to_ms: i64,
    #[serde(default = "page")]
    limit: usize,
}

/// `GET /sim/stream/{market}/{symbol}/{channel}?from_id=&to_id=&from_ms=&to_ms=&limit=`. The channel is that of faults, or
/// what follows the `@` of one stream; a page goes on with `from_id`, one above the last id.
pub(super) async fn stream(
    control: web::Data<Control>,
    path: web::Path<(Market, String, String)>,
    request: web::Query<StreamRequest>,
) -> HttpResponse {
    let (market, symbol, channel) = path.into_inner();
    let Some(index) = control.market(market).and_then(|state| state.symbol(&symbol)) else {
        return refuse(StatusCode::NOT_FOUND, format!("no symbol {symbol} on {market}"));
    };
    HttpResponse::Ok().json(json!({"streams": control.messages(market, index, &request, &channel)}))
}
