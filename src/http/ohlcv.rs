//! `/api/v1/exchanges/{id}/ohlcv/{symbol}`: stored candles of a collected symbol, the open one included.

use actix_web::web::{Path, ServiceConfig};
use fathom_market::{
    event::Channel, gap::channel_word, instrument::Instrument, table::CandleRow, timeframe::Timeframe,
};
use fathom_storage::{CandleQuery, GapQuery};
use serde::Serialize;

use super::{
    AppState, Shared,
    coverage::RangeCoverage,
    error::{Answer, ApiError, ok},
    orderbook::find,
    params::Params,
    read,
    view::text,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(read("/api/v1/exchanges/{id}/ohlcv/{symbol}", ohlcv));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Candles {
    exchange: &'static str,
    market_type: &'static str,
    symbol: String,
    native: String,
    timeframe: &'static str,
    candles: Vec<CandleView>,
    count: usize,
    coverage: RangeCoverage,
    timestamp: i64,
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CandleView {
    open_time: i64,
    close_time: i64,
    open: String,
    high: String,
    low: String,
    close: String,
    volume: String,
    quote_volume: String,
    trades: i64,
    taker_buy_volume: String,
    taker_buy_quote_volume: String,
    closed: bool,
}

impl From<&CandleRow> for CandleView {
    fn from(row: &CandleRow) -> Self {
        Self {
            open_time: row.open_ms,
            close_time: row.close_ms,
            open: text(row.open),
            high: text(row.high),
            low: text(row.low),
            close: text(row.close),
            volume: text(row.volume),
            quote_volume: text(row.quote_volume),
            trades: row.trades,
            taker_buy_volume: text(row.taker_buy_volume),
            taker_buy_quote_volume: text(row.taker_buy_quote_volume),
            closed: row.closed,
        }
    }
}

async fn ohlcv(state: Shared, path: Path<(String, String)>, params: Params) -> Answer {
    let (exchange, symbol) = path.into_inner();
    let book = find(&state, &exchange, &symbol, &params)?;
    let timeframe = timeframe(&params)?;
    let range = params.page(state.max_rows)?;
    let instrument = &book.cell.instrument;
    let query = CandleQuery {
        instrument_id: instrument.id.0,
        timeframe: timeframe.as_str().to_owned(),
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        limit: range.limit,
    };
    let rows = stored(&state, instrument, &query).await?;
    let gaps = GapQuery {
        instrument_id: Some(instrument.id.0),
        channel: Some(channel_word(Channel::Candle(timeframe))),
        ..GapQuery::default()
    };
    let times = (rows.first().map(|row| row.open_ms), rows.last().map(|row| row.close_ms));
    let coverage = RangeCoverage::of(&state, gaps, range.reach(times)).await;
    let ends = (times.0, rows.last().map(|row| row.open_ms));
    ok(&Candles {
        next: range.next(rows.len(), ends),
        exchange: instrument.venue.as_str(),
        market_type: instrument.market.label(),
        symbol: instrument.unified.to_string(),
        native: instrument.native.to_string(),
        timeframe: timeframe.as_str(),
        count: rows.len(),
        candles: rows.iter().map(CandleView::from).collect(),
        coverage,
        timestamp: state.now_ms(),
    })
}

/// The newest candles from the cache, where they are there without a hole; else what is asked for from the store.
async fn stored(
    state: &AppState,
    instrument: &Instrument,
    query: &CandleQuery,
) -> Result<Vec<CandleRow>, ApiError> {
    let newest = query.from_ms.is_none() && query.to_ms.is_none();
    if let Some(cache) = state.system.cache().filter(|_| newest)
        && let Some(rows) = cache.latest_candles(instrument, &query.timeframe, query.limit).await
    {
        return Ok(rows);
    }
    Ok(state.system.store().history().candles(query).await?)
}

fn timeframe(params: &Params) -> Result<Timeframe, ApiError> {
    let Some(given) = params.get("timeframe") else { return Ok(Timeframe::M1) };
    Timeframe::parse(given).ok_or_else(|| {
        let names = Timeframe::ALL.map(Timeframe::as_str).join(", ");
        ApiError::parameter("timeframe", given, &format!("one of {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candle_is_text_without_floats() {
        let value = |text: &str| text.parse().expect("decimal");
        let row = CandleRow {
            instrument_id: 1,
            timeframe: "1m".into(),
            open_ms: 60_000,
            close_ms: 119_999,
            open: value("0.00000005"),
            high: value("0.000000060"),
            low: value("0.00000005"),
            close: value("0.00000006"),
            volume: value("12345678901234567890.5"),
            quote_volume: value("0"),
            trades: 3,
            taker_buy_volume: value("1"),
            taker_buy_quote_volume: value("1.10"),
            closed: true,
            updated_us: 0,
        };
        let shown = serde_json::to_string(&CandleView::from(&row)).expect("json");
        assert_eq!(
            shown,
            r#"{"openTime":60000,"closeTime":119999,"open":"0.00000005","high":"0.00000006","low":"0.00000005","close":"0.00000006","volume":"12345678901234567890.5","quoteVolume":"0","trades":3,"takerBuyVolume":"1","takerBuyQuoteVolume":"1.1","closed":true}"#
        );
    }
}
