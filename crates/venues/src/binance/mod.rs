//! Binance: spot and USD-M futures.
//!
//! Spot has one endpoint class. Futures have two routes whose streams never share a socket: book data on `public`,
//! everything else on `market`.

pub mod book_sync;
mod channels;
pub mod decode;
mod field;
mod instruments;
mod limits;
pub mod rest;
mod subscribe;
mod wire;

use std::sync::Arc;

use fathom_market::{
    book::SyncRule,
    event::{BookSnapshot, Candle, Event, Funding, Ticker},
    ids::{Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
    plan::{
        BudgetRule, ConnectSpec, EndpointClass, Endpoints, OutFrame, RequestSpec, RestAnswer, SocketLimits,
        StreamSpec,
    },
    timeframe::Timeframe,
};

use self::{
    book_sync::{FuturesSync, SpotSync},
    decode::BinanceDecoder,
};
use crate::{
    error::RestError,
    venue::{Decoder, MergeRule, Parsed, TradeIds, Venue, Wanted},
};

const ID: VenueId = VenueId::new("binance");

/// The venue.
#[derive(Clone, Copy, Debug)]
pub struct Binance;

impl Venue for Binance {
    fn id(&self) -> VenueId {
        ID
    }

    fn endpoints(&self, market: Market) -> Endpoints {
        limits::endpoints(market)
    }

    fn classes(&self, market: Market) -> &'static [EndpointClass] {
        limits::classes(market)
    }

    fn timeframes(&self, market: Market) -> &'static [Timeframe] {
        channels::timeframes(market)
    }

    fn socket_limits(&self, _market: Market) -> SocketLimits {
        limits::socket_limits()
    }

    fn budget_rules(&self, market: Market) -> Vec<BudgetRule> {
        limits::budget_rules(market)
    }

    fn streams(&self, instrument: &Instrument, idx: InstrumentIdx, wanted: &Wanted) -> Vec<StreamSpec> {
        channels::streams(instrument, idx, wanted)
    }

    fn connect(
        &self,
        market: Market,
        class: EndpointClass,
        base: &str,
        streams: &[StreamSpec],
        first_id: u64,
    ) -> ConnectSpec {
        subscribe::connect(market, class, base, streams, first_id)
    }

    fn resubscribe(&self, _market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
        subscribe::resubscribe(streams, first_id)
    }

    fn subscribe(&self, _market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
        subscribe::subscribe(streams, first_id)
    }

    fn unsubscribe(&self, _market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame> {
        subscribe::unsubscribe(streams, first_id)
    }

    fn decoder(
        &self,
        _market: Market,
        _class: EndpointClass,
        table: Arc<InstrumentTable>,
    ) -> Box<dyn Decoder> {
        Box::new(BinanceDecoder::new(&table))
    }

    fn sync_rule(&self, market: Market) -> &'static dyn SyncRule {
        match market {
            Market::Spot => &SpotSync,
            Market::Futures => &FuturesSync,
        }
    }

    fn merge_rule(&self, _market: Market) -> MergeRule {
        MergeRule::GlobalId
    }

    /// Aggregates are numbered without holes, per symbol (sheet: `a`, "+1 per event per symbol"); so are single trades.
    fn trade_ids(&self, _market: Market) -> TradeIds {
        TradeIds::Consecutive
    }

    fn instruments_request(&self, market: Market) -> RequestSpec {
        rest::instruments_request(market)
    }

    fn parse_instruments(
        &self,
        market: Market,
        answer: &RestAnswer,
        now_us: i64,
    ) -> Result<Parsed<Instrument>, RestError> {
        Ok(instruments::parse(market, rest::success(answer)?, now_us)?)
    }

    fn snapshot_request(&self, instrument: &Instrument, levels: usize) -> (RequestSpec, usize) {
        rest::snapshot_request(instrument, levels)
    }

    fn parse_snapshot(
        &self,
        instrument: &Instrument,
        limit: usize,
        answer: &RestAnswer,
    ) -> Result<BookSnapshot, RestError> {
        rest::parse_snapshot(instrument, limit, answer)
    }

    fn candles_request(
        &self,
        instrument: &Instrument,
        timeframe: Timeframe,
        from_ms: Option<i64>,
        limit: usize,
    ) -> RequestSpec {
        rest::candles_request(instrument, timeframe, from_ms, limit)
    }

    fn parse_candles(
        &self,
        timeframe: Timeframe,
        answer: &RestAnswer,
        venue_now_ms: i64,
    ) -> Result<Parsed<Candle>, RestError> {
        rest::parse_candles(timeframe, answer, venue_now_ms)
    }

    fn tickers_request(&self, market: Market) -> RequestSpec {
        rest::tickers_request(market)
    }

    fn parse_tickers(
        &self,
        _market: Market,
        answer: &RestAnswer,
    ) -> Result<Parsed<(String, Ticker)>, RestError> {
        rest::parse_tickers(answer)
    }

    fn funding_request(&self, market: Market) -> Option<RequestSpec> {
        (market == Market::Futures).then(rest::funding_request)
    }

    fn parse_funding(
        &self,
        _market: Market,
        answer: &RestAnswer,
    ) -> Result<Parsed<(String, i64, Funding)>, RestError> {
        rest::parse_funding(answer)
    }

    fn trades_request(&self, instrument: &Instrument, from_id: u64, limit: usize) -> Option<RequestSpec> {
        Some(rest::trades_request(instrument, from_id, limit))
    }

    fn parse_trades(
        &self,
        instrument: &Instrument,
        idx: InstrumentIdx,
        answer: &RestAnswer,
        recv_us: i64,
    ) -> Result<Parsed<Event>, RestError> {
        rest::parse_trades(instrument, idx, answer, recv_us)
    }

    fn time_request(&self, market: Market) -> RequestSpec {
        rest::time_request(market)
    }

    fn parse_time(&self, answer: &RestAnswer) -> Result<i64, RestError> {
        rest::parse_time(answer)
    }
}
