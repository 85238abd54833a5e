//! Faults on command: what can be asked. What a fault has done is kept in `active`; what hits streams lives with the topics
//! (`hub`), what hits connections in `ws`, what hits a whole market in `market`.

pub(crate) mod active;
pub(crate) mod inject;
pub(crate) mod market;

use fathom_market::ids::Market;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// A fault. As JSON one flat object: `{"kind":"skip","market":"spot","stream":"btcusdt@depth@100ms","count":1}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The market.
    pub market: Market,
    /// What of it.
    #[serde(flatten)]
    pub target: Target,
    /// How often: messages of each stream, connections, requests or handshakes. Without it once for `skip`, `duplicate`,
    /// `reorder`, `garbage`, `crossed_book` and `corrupt_level`, else until the fault's end.
    #[serde(default)]
    pub count: Option<u32>,
    /// It ends so long after it was put in, ms.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// It ends then, UTC ms; the earlier of both counts.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// What it does.
    #[serde(flatten)]
    pub effect: Effect,
}

/// What of a market a fault hits; all that is given must fit, nothing given means all of the market.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// One stream by its name, such as `btcusdt@depth@100ms`.
    #[serde(default)]
    pub stream: Option<String>,
    /// The streams of a native symbol.
    #[serde(default)]
    pub symbol: Option<String>,
    /// The streams of a channel: `depth`, `partial`, `trade`, `aggTrade`, `bookTicker`, `kline`, `ticker`, `miniTicker`, `markPrice`.
    #[serde(default)]
    pub channel: Option<String>,
    /// What is sent on this connection.
    #[serde(default)]
    pub connection: Option<u64>,
}

/// How a connection is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropHow {
    /// The socket is cut without a close frame.
    #[default]
    Cut,
    /// Close frame 1001.
    Close,
}

/// Where a crossed book is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BookPart {
    /// In depth updates.
    #[default]
    Stream,
    /// In REST snapshots.
    Snapshot,
}

/// Which number of a level is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelPart {
    /// Its quantity.
    #[default]
    Qty,
    /// Its price: a level where there is none.
    Price,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateProblem {
    /// Signed by an authority that nobody was told of.
    #[default]
    OtherAuthority,
    /// Its time is over.
    Expired,
    /// Made out to another host.
    OtherHost,
}

/// Which servers of a market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Servers {
    /// WebSocket and REST.
    #[default]
    Both,
    /// WebSocket.
    Ws,
    /// REST.
    Rest,
}

const fn rank() -> usize {
    30
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// Connections are dropped.
    Drop {
        /// Cut or close.
        #[serde(default)]
        how: DropHow,
    },
    /// Nothing is sent on streams; the connection stays healthy.
    Silence {
        /// Who is silenced. Without it: with an end everyone until then, else those who listen now, until they subscribe
        /// anew. `false`: those who listen now, until they subscribe anew or the end. `true`: the same, but subscribing
        /// anew on the same connection does not help.
        #[serde(default)]
        stubborn: Option<bool>,
    },
    /// Messages are not sent: a hole in the sequence.
    Skip,
    /// Messages are sent twice.
    Duplicate,
    /// A message is sent after the one that follows it.
    Reorder,
    /// Messages are cut in the middle, so that they are no JSON.
    Garbage,
    /// Books carry a bid above the best ask, then sound levels again.
    CrossedBook {
        /// Where.
        #[serde(default)]
        on: BookPart,
    },
    /// A depth update carries one wrong level; its sequence is sound, and so are REST snapshots.
    CorruptLevel {
        /// What is wrong.
        #[serde(default)]
        what: LevelPart,
        /// How deep in the book, from 0; levels near the top are soon corrected by later updates.
        #[serde(default = "rank")]
        rank: usize,
    },
    /// Connections stay open but nothing is read or sent on them, pings and pongs included. What would have been sent is
    /// lost.
    HalfOpen,
    /// Sends to connections are throttled; what waits too long costs the client its connection, as a slow reader.
    #[serde(alias = "slow_reader")]
    SlowNetwork {
        /// Bytes a second; 0 is a client whose receive window is full.
        bytes_per_s: u64,
    },
    /// The server reads nothing from connections, and goes on sending.
    StopReading,
    /// Connections live no longer than this, counted from the fault for those that are older.
    LifeLimit {
        /// Their life.
        life_ms: u64,
        /// A `serverShutdown` event so long before (spot only, as the venue).
        #[serde(default)]
        notice_ms: Option<u64>,
    },
    /// New WebSocket connections are refused with 503.
    RefuseConnections,
    /// New TLS connections are shown a wrong certificate.
    WrongCertificate {
        /// What is wrong with it.
        #[serde(default)]
        problem: CertificateProblem,
        /// Where.
        #[serde(default)]
        on: Servers,
    },
    /// REST answers with an error.
    RestError {
        /// 429, 418, 500 or 503.
        status: u16,
        /// `Retry-After` of 429 and 418, seconds; a client that asks earlier breaks a rule.
        #[serde(default)]
        retry_after_s: Option<u64>,
        /// Only paths (with their query) that contain this.
        #[serde(default)]
        path: Option<String>,
    },
    /// REST answers late.
    SlowRest {
        /// By so much.
        ms: u64,
        /// Only paths (with their query) that contain this.
        #[serde(default)]
        path: Option<String>,
    },
    /// REST does not answer until the fault's end.
    RestHang {
        /// Only paths (with their query) that contain this.
        #[serde(default)]
        path: Option<String>,
    },
    /// Depth snapshots are this much older than the stream.
    StaleSnapshot {
        /// Age of the answer, at most 60 s.
        age_ms: u64,
    },
    /// Event times and `serverTime` jump.
    TimeJump {
        /// By so much; negative is back.
        offset_ms: i64,
    },
    /// A symbol changes its status: `TRADING` starts it, anything else stops it.
    SetStatus {
        /// New status.
        status: String,
    },
    /// A symbol appears and trades.
    List,
    /// A symbol stops trading.
    Delist {
        /// Its status from now on: `BREAK` on spot and `SETTLING` on futures.
        #[serde(default)]
        status: Option<String>,
        /// It disappears from `exchangeInfo`.
        #[serde(default)]
        gone: bool,
    },
}

/// Why a fault cannot be put in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FaultError {
    /// The JSON is no fault.
    #[error("no fault: {0}")]
    Unreadable(String),
    /// A key that means nothing.
    #[error("unknown key {0:?}")]
    UnknownKey(String),
    /// The market is not simulated.
    #[error("market {0} is not simulated")]
    NoMarket(Market),
    /// No such stream.
    #[error("unknown stream {0:?}")]
    UnknownStream(String),
    /// No such symbol.
    #[error("unknown symbol {0:?}")]
    UnknownSymbol(String),
    /// The fault needs a symbol.
    #[error("the fault needs a symbol")]
    NoSymbol,
    /// The symbol trades already, or cannot exist on this market, or there is no room for more.
    #[error("symbol {0:?} cannot be listed")]
    CannotList(String),
    /// No stream was hit.
    #[error("no stream with a subscriber matches")]
    NoStream,
    /// The status is none that the simulator can play.
    #[error("status must be 429, 418, 500 or 503, not {0}")]
    BadStatus(u16),
    /// No connection was hit.
    #[error("no connection matches")]
    NoConnection,
    /// Recorded frames are sent as they are.
    #[error("not possible in a market of recorded frames")]
    Recorded,
    /// There is no TLS to break.
    #[error("the simulator was started without TLS")]
    NoTls,
    /// No such fault.
    #[error("no fault {0}")]
    NoFault(u64),
}

impl Fault {
    /// A fault of a whole market, without an end.
    pub const fn new(market: Market, effect: Effect) -> Self {
        let target = Target { stream: None, symbol: None, channel: None, connection: None };
        Self { market, target, count: None, for_ms: None, until_ms: None, effect }
    }

    /// Aimed at one stream.
    #[must_use]
    pub fn stream(mut self, name: &str) -> Self {
        self.target.stream = Some(name.to_owned());
        self
    }

    /// Aimed at one symbol.
    #[must_use]
    pub fn symbol(mut self, native: &str) -> Self {
        self.target.symbol = Some(native.to_owned());
        self
    }

    /// Aimed at one channel.
    #[must_use]
    pub fn channel(mut self, channel: &str) -> Self {
        self.target.channel = Some(channel.to_owned());
        self
    }

    /// Aimed at one connection.
    #[must_use]
    pub const fn connection(mut self, id: u64) -> Self {
        self.target.connection = Some(id);
        self
    }

    /// So often.
    #[must_use]
    pub const fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// So long.
    #[must_use]
    pub const fn lasting(mut self, ms: u64) -> Self {
        self.for_ms = Some(ms);
        self
    }

    /// Reads a fault; keys that mean nothing are errors.
    ///
    /// # Errors
    /// [`FaultError::Unreadable`] and [`FaultError::UnknownKey`], which name what is wrong.
    pub fn from_json(value: &Value) -> Result<Self, FaultError> {
        let fault: Self = serde_json::from_value(value.clone())
            .map_err(|error| FaultError::Unreadable(error.to_string()))?;
        // What is written out again holds every key that means something for this kind.
        let known =
            serde_json::to_value(&fault).map_err(|error| FaultError::Unreadable(error.to_string()))?;
        let mut keys = value.as_object().into_iter().flat_map(serde_json::Map::keys);
        match keys.find(|key| known.get(*key).is_none()) {
            Some(key) => Err(FaultError::UnknownKey(key.clone())),
            None => Ok(fault),
        }
    }

    /// When it ends, if it does by the clock.
    pub(crate) fn ends(&self, now_ms: i64) -> Option<i64> {
        let span = self.for_ms.map(|ms| now_ms.saturating_add_unsigned(ms));
        match (span, self.until_ms) {
            (Some(span), Some(until)) => Some(span.min(until)),
            (span, until) => span.or(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_read_from_json() {
        let fault = Fault::from_json(&json!({"kind": "skip", "market": "spot", "stream": "btcusdt@depth"}));
        assert_eq!(fault, Ok(Fault::new(Market::Spot, Effect::Skip).stream("btcusdt@depth")));
        let text = json!({"kind": "rest_error", "market": "futures", "status": 418, "retry_after_s": 5, "for_ms": 10});
        assert_eq!(Fault::from_json(&text).unwrap().for_ms, Some(10));
        let corrupt =
            Fault::from_json(&json!({"kind": "corrupt_level", "market": "spot", "symbol": "BTCUSDT"}));
        assert_eq!(corrupt.unwrap().effect, Effect::CorruptLevel { what: LevelPart::Qty, rank: 30 });
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let typo = json!({"kind": "skip", "market": "spot", "steam": "btcusdt@depth"});
        assert_eq!(Fault::from_json(&typo), Err(FaultError::UnknownKey("steam".to_owned())));
        let unknown = Fault::from_json(&json!({"kind": "skipp", "market": "spot"})).unwrap_err();
        assert!(unknown.to_string().contains("skipp"), "{unknown}");
    }

    #[test]
    fn the_earlier_end_counts() {
        let fault = Fault { until_ms: Some(500), ..Fault::new(Market::Spot, Effect::Skip).lasting(100) };
        assert_eq!((fault.ends(300), fault.ends(450)), (Some(400), Some(500)));
        assert_eq!(Fault::new(Market::Spot, Effect::Skip).ends(0), None);
    }
}
