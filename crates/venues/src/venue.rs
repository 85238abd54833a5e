//! What a venue must be able to say.

use std::sync::Arc;

use fathom_market::{
    book::SyncRule,
    event::{BookSnapshot, Candle, Channel, Event, Funding, Ticker},
    ids::{Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
    plan::{
        BudgetRule, ConnectSpec, DepthSpeed, EndpointClass, Endpoints, OutFrame, RequestSpec, RestAnswer,
        SocketLimits, StreamSpec,
    },
    timeframe::Timeframe,
};

use crate::error::{DecodeError, RestError};

/// One thing that a frame said.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// A normalized event.
    Event(Event),
    /// The venue accepted the request with this id.
    Ack(u64),
    /// The venue refused a request, or complains; `id` where it names one.
    Refused {
        /// Request id.
        id: Option<u64>,
        /// The venue's code and words.
        message: String,
    },
    /// The server will close soon: open the replacement now.
    ClosingSoon,
    /// A listing, delisting or status change: instruments should be read again.
    InstrumentsChanged,
    /// Understood, and of no use to us; the word says why and is counted.
    Ignored(&'static str),
    /// One record of a frame was rejected, the rest of it stands. `instrument` where it is known: a rejected depth
    /// record means that instrument's book has a hole.
    Rejected {
        /// Whose record.
        instrument: Option<InstrumentIdx>,
        /// What it carried.
        channel: Option<Channel>,
        /// Why.
        error: DecodeError,
    },
}

/// Turns frames of one line into events. Holds no socket and no book.
pub trait Decoder: Send {
    /// Decodes one frame and appends what it said to `out`; an unusable frame appends [`Decoded::Rejected`].
    fn decode(&mut self, frame: &[u8], recv_us: i64, out: &mut Vec<Decoded>);

    /// Replaces the table after instruments were added; indexes keep their meaning.
    fn set_table(&mut self, table: Arc<InstrumentTable>);
}

/// How two lines that carry the same stream are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// Ids are the venue's own: drop what has been seen.
    GlobalId,
    /// Ids mean nothing across sockets: a shadow book syncs on the new line and is swapped in.
    PerConnection,
}

/// What the ids of an instrument's trades tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradeIds {
    /// Each is the one before plus one: a jump shows exactly what is missing.
    Consecutive,
    /// They grow, with holes of their own.
    Increasing,
    /// They tell trades apart, no more.
    Opaque,
}

/// What to collect of an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Candle timeframes.
    pub timeframes: Vec<Timeframe>,
    /// Depth speed of the instrument's tier.
    pub depth: DepthSpeed,
    /// Single trades instead of the venue's aggregate, where both exist.
    pub raw_trades: bool,
    /// 24 hour statistics.
    pub ticker: bool,
}

/// Records of a REST body, with what had to be rejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// The usable records, in the venue's order.
    pub rows: Vec<T>,
    /// Why the others are not.
    pub rejected: Vec<DecodeError>,
}

/// A venue: its protocol as pure functions.
pub trait Venue: Send + Sync {
    /// Its id.
    fn id(&self) -> VenueId;

    /// Default addresses.
    fn endpoints(&self, market: Market) -> Endpoints;

    /// Endpoint classes, the one that carries depth first.
    fn classes(&self, market: Market) -> &'static [EndpointClass];

    /// Timeframes offered, shortest first.
    fn timeframes(&self, market: Market) -> &'static [Timeframe];

    /// WebSocket limits.
    fn socket_limits(&self, market: Market) -> SocketLimits;

    /// REST limits; the first is the general one.
    fn budget_rules(&self, market: Market) -> Vec<BudgetRule>;

    /// The streams that carry what is wanted of an instrument.
    fn streams(&self, instrument: &Instrument, idx: InstrumentIdx, wanted: &Wanted) -> Vec<StreamSpec>;

    /// Address, subscription frames and rules of a line of one class that carries these streams. Ids of frames start
    /// at `first_id`.
    fn connect(
        &self,
        market: Market,
        class: EndpointClass,
        base: &str,
        streams: &[StreamSpec],
        first_id: u64,
    ) -> ConnectSpec;

    /// Frames that renew the subscription of these streams on an open line: unsubscribe, then subscribe.
    fn resubscribe(&self, market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame>;

    /// Frames that subscribe these streams too on an open line.
    fn subscribe(&self, market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame>;

    /// Frames that end the subscription of these streams on an open line.
    fn unsubscribe(&self, market: Market, streams: &[StreamSpec], first_id: u64) -> Vec<OutFrame>;

    /// A decoder of one line.
    fn decoder(&self, market: Market, class: EndpointClass, table: Arc<InstrumentTable>) -> Box<dyn Decoder>;

    /// The sequence rule of its books.
    fn sync_rule(&self, market: Market) -> &'static dyn SyncRule;

    /// How redundant lines are merged.
    fn merge_rule(&self, market: Market) -> MergeRule;

    /// What the ids of its streamed trades tell.
    fn trade_ids(&self, market: Market) -> TradeIds {
        let _ = market;
        TradeIds::Increasing
    }

    /// Asks for the listed instruments.
    fn instruments_request(&self, market: Market) -> RequestSpec;

    /// Reads the listed instruments; `now_us` becomes their `valid_from_us`.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable as a whole.
    fn parse_instruments(
        &self,
        market: Market,
        answer: &RestAnswer,
        now_us: i64,
    ) -> Result<Parsed<Instrument>, RestError>;

    /// Asks for a book snapshot of at least `levels` a side, or the venue's greatest; the second value is the limit asked.
    fn snapshot_request(&self, instrument: &Instrument, levels: usize) -> (RequestSpec, usize);

    /// Reads a book snapshot that was asked with `limit`.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable.
    fn parse_snapshot(
        &self,
        instrument: &Instrument,
        limit: usize,
        answer: &RestAnswer,
    ) -> Result<BookSnapshot, RestError>;

    /// Asks for up to `limit` candles from `from_ms` (the newest ones without it), oldest first.
    fn candles_request(
        &self,
        instrument: &Instrument,
        timeframe: Timeframe,
        from_ms: Option<i64>,
        limit: usize,
    ) -> RequestSpec;

    /// Reads candles; one whose close lies before `venue_now_ms` is closed.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable as a whole.
    fn parse_candles(
        &self,
        timeframe: Timeframe,
        answer: &RestAnswer,
        venue_now_ms: i64,
    ) -> Result<Parsed<Candle>, RestError>;

    /// Asks for the 24 hour statistics of all instruments.
    fn tickers_request(&self, market: Market) -> RequestSpec;

    /// Reads 24 hour statistics as `(native symbol, ticker)`.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable as a whole.
    fn parse_tickers(
        &self,
        market: Market,
        answer: &RestAnswer,
    ) -> Result<Parsed<(String, Ticker)>, RestError>;

    /// Asks for mark price and funding of all instruments; `None` on spot.
    fn funding_request(&self, market: Market) -> Option<RequestSpec>;

    /// Reads mark price and funding as `(native symbol, event time ms, funding)`.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable as a whole.
    fn parse_funding(
        &self,
        market: Market,
        answer: &RestAnswer,
    ) -> Result<Parsed<(String, i64, Funding)>, RestError>;

    /// Asks for trades from this id on; `None` where the venue has no such history.
    fn trades_request(&self, instrument: &Instrument, from_id: u64, limit: usize) -> Option<RequestSpec>;

    /// Reads trades of one instrument.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable as a whole.
    fn parse_trades(
        &self,
        instrument: &Instrument,
        idx: InstrumentIdx,
        answer: &RestAnswer,
        recv_us: i64,
    ) -> Result<Parsed<Event>, RestError>;

    /// Asks for the venue's clock.
    fn time_request(&self, market: Market) -> RequestSpec;

    /// Reads the venue's clock, milliseconds.
    ///
    /// # Errors
    /// When the venue refused, or the body is unusable.
    fn parse_time(&self, answer: &RestAnswer) -> Result<i64, RestError>;
}
