//! The rows of the ledger as tests and the control server see them.

use fathom_market::ids::Market;
use serde::{Deserialize, Serialize};

/// One frame handed to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The connection.
    pub connection: u64,
    /// The frame's number on that connection, from 1.
    pub number: u64,
}

/// Where and when an entry was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Order over everything that this ledger recorded.
    pub sequence: u64,
    /// When, UTC ms.
    pub sent_ms: i64,
    /// To whom; empty when nobody had subscribed or a fault kept it back.
    pub to: Vec<Delivery>,
    /// At least one of them got it on a healthy line: written out, and the line not cut within the next second.
    pub delivered: bool,
}

/// A trade. Each order is sent on up to two channels, which number their trades apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeEntry {
    /// Native symbol.
    pub symbol: String,
    /// `aggTrade` or `trade`.
    pub channel: String,
    /// The channel's id.
    pub id: i64,
    /// Price as sent.
    pub price: String,
    /// Quantity as sent.
    pub qty: String,
    /// Trade time, ms.
    pub ts_ms: i64,
    /// The taker sold (`m` is true).
    pub taker_sold: bool,
    /// Delivery.
    #[serde(flatten)]
    pub sending: Sending,
}

/// A closed candle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of a candle's fields")]
pub struct KlineEntry {
    /// Native symbol.
    pub symbol: String,
    /// Interval as the venue names it.
    pub interval: String,
    pub open_ms: i64,
    pub open: String,
    pub high: String,
    pub low: String,
    pub close: String,
    pub volume: String,
    pub quote_volume: String,
    pub trades: u64,
    pub taker_volume: String,
    pub taker_quote_volume: String,
    /// Delivery.
    #[serde(flatten)]
    pub sending: Sending,
}

/// A diff of a book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthEntry {
    /// Native symbol.
    pub symbol: String,
    /// Stream name.
    pub stream: String,
    /// First id (`U`).
    pub first: u64,
    /// Last id (`u`).
    pub last: u64,
    /// Id before the first (`pu` on futures).
    pub previous: u64,
    /// Levels in the message.
    pub levels: usize,
    /// Delivery.
    #[serde(flatten)]
    pub sending: Sending,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEntry {
    /// Its id, from 1, over both markets.
    pub id: u64,
    /// Its market.
    pub market: Market,
    /// `stream`, `public`, `market` or `unrouted`.
    pub class: String,
    /// When it was accepted, ms.
    pub opened_ms: i64,
    /// When it ended, ms.
    pub closed_ms: Option<i64>,
    /// Ended by a close frame of either side, not by a cut.
    pub clean: bool,
    /// Data frames written out.
    pub flushed: u64,
    /// What happened, oldest first.
    pub events: Vec<ConnectionEvent>,
}

/// Something that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEvent {
    /// When, ms.
    pub ms: i64,
    /// `open`, `subscribe`, `unsubscribe`, `silent` (acknowledged, never served), `close`.
    pub kind: String,
    /// Stream names or a reason.
    pub detail: String,
}

/// A rule that a client broke, or a ban that followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When, ms.
    pub ms: i64,
    /// Its market.
    pub market: Market,
    /// The rule: `rest_weight`, `rest_after_429`, `funding_requests`, `ws_messages`, `ws_streams`, `ws_frame_size`, `ws_connects`, `ws_pong`, `slow_client`, `banned`.
    pub rule: String,
    /// What was seen.
    pub detail: String,
}

/// A fault that was put in, and what it has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultEntry {
    /// Its id.
    pub id: u64,
    /// What it was.
    pub fault: crate::faults::Fault,
    /// When it was put in, ms.
    pub injected_ms: i64,
    /// When the clock ends it, ms.
    pub until_ms: Option<i64>,
    /// When it first did something, ms.
    pub first_effect_ms: Option<i64>,
    /// When it last did something, ms.
    pub last_effect_ms: Option<i64>,
    /// When it was over, ms: used up, healed, its time over, or taken back.
    pub ended_ms: Option<i64>,
    /// Messages, requests, handshakes or connections that it hit.
    pub effects: u64,
    /// Connections that it hit.
    pub connections: Vec<u64>,
    /// Streams that it hit.
    pub streams: Vec<TouchedStream>,
    /// What else is worth knowing, such as the level that was made wrong.
    pub details: Vec<String>,
}

/// What a fault did to one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedStream {
    /// Stream name.
    pub stream: String,
    /// Messages that it hit.
    pub messages: u64,
    /// When the first, ms.
    pub first_ms: i64,
    /// When the last, ms.
    pub last_ms: i64,
    /// First id of the first.
    pub first_id: u64,
    /// Last id of the last.
    pub last_id: u64,
}

/// What a stream made in a range of time, and who got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Stream name.
    pub stream: String,
    /// Native symbol; empty for a stream of the whole market.
    pub symbol: String,
    /// The channel as faults name it.
    pub channel: String,
    /// Messages made.
    pub made: u64,
    /// Messages that reached at least one connection on a healthy line.
    pub delivered: u64,
    /// First id of the first message.
    pub first_id: Option<u64>,
    /// Last id of the last message.
    pub last_id: Option<u64>,
    /// Time of the first message, ms.
    pub first_ms: Option<i64>,
    /// Time of the last message, ms.
    pub last_ms: Option<i64>,
    /// Each connection's part.
    pub connections: Vec<StreamConnection>,
    /// Messages ever made; more than remembered.
    pub total: u64,
    /// From when on the stream is remembered, ms.
    pub remembered_ms: Option<i64>,
}

/// A connection's part of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConnection {
    /// The connection.
    pub connection: u64,
    /// Frames handed to it, repeated ones counted.
    pub handed: u64,
    /// Frames that it got on a healthy line.
    pub delivered: u64,
    /// Last id of the first message that it got.
    pub first_id: Option<u64>,
    /// Last id of the last message that it got.
    pub last_id: Option<u64>,
}

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeEntry {
    /// Its last id: of a trade, an update, a quote, a candle's open time, or an event time.
    pub id: u64,
    /// Its first id; differs from `id` for depth updates only.
    pub first: u64,
    /// When it was made, ms.
    pub ms: i64,
    /// To whom it was handed; empty when nobody had subscribed or a fault kept it back.
    pub to: Vec<Handed>,
}

/// A frame handed to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The connection.
    pub connection: u64,
    /// It got it on a healthy line: written out, and the line not cut within the next second.
    pub delivered: bool,
}

/// Which rows to answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LedgerQuery {
    /// One native symbol only.
    pub symbol: Option<String>,
    /// Rows recorded after this sequence number.
    pub after: u64,
    /// At most so many, the oldest first; 0 means all.
    pub limit: usize,
}

/// How many rows of each kind were ever recorded in a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Trades on both channels.
    pub trades: u64,
    /// Closed candles.
    pub klines: u64,
    /// Diffs.
    pub depth: u64,
}
