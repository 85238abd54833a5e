//! Faults on command: what can be asked, and the REST part of what is in force. Faults of streams live with the topics
//! that they hit (`hub`).

use std::sync::{Mutex, PoisonError};

use fathom_market::ids::Market;
use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// A fault. As JSON: `{"kind":"drop","market":"spot",...}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Drops one connection, those with a stream, or all of a market.
    Drop {
        /// The market.
        market: Market,
        /// Only this connection.
        #[serde(default)]
        connection: Option<u64>,
        /// Only connections that subscribed this stream.
        #[serde(default)]
        stream: Option<String>,
        /// Cut or close.
        #[serde(default)]
        how: DropHow,
    },
    /// Nothing more is sent on a stream, the connection stays healthy.
    Silence {
        /// The market.
        market: Market,
        /// Stream name.
        stream: String,
        /// For how long; without it, until each present subscriber subscribes anew.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// The next messages of a stream are not sent: a hole in the sequence.
    Skip {
        /// The market.
        market: Market,
        /// Stream name.
        stream: String,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// The next messages of a stream are sent twice.
    Duplicate {
        /// The market.
        market: Market,
        /// Stream name.
        stream: String,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// The next message of a stream is sent after the one that follows it.
    Reorder {
        /// The market.
        market: Market,
        /// Stream name.
        stream: String,
    },
    /// The next messages of a stream are cut in the middle, so that they are no JSON.
    Garbage {
        /// The market.
        market: Market,
        /// Stream name.
        stream: String,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// Connections stay open but nothing at all is sent on them any more, pings and pongs included.
    HalfOpen {
        /// The market.
        market: Market,
        /// Only this connection.
        #[serde(default)]
        connection: Option<u64>,
        /// Only connections that subscribed this stream.
        #[serde(default)]
        stream: Option<String>,
    },
    /// New WebSocket connections are refused with 503.
    RefuseConnections {
        /// The market.
        market: Market,
        /// For how long.
        for_ms: u64,
    },
    /// REST answers with an error.
    RestError {
        /// The market.
        market: Market,
        /// 429, 418, 500 or 503.
        status: u16,
        /// `Retry-After` of 429 and 418, seconds; a client that asks earlier breaks a rule.
        #[serde(default)]
        retry_after_s: Option<u64>,
        /// For how long.
        for_ms: u64,
        /// Only paths that contain this.
        #[serde(default)]
        path: Option<String>,
    },
    /// Depth snapshots are this much older than the stream.
    StaleSnapshot {
        /// The market.
        market: Market,
        /// Age of the answer, at most 60 s.
        age_ms: u64,
        /// For how long.
        for_ms: u64,
    },
    /// A symbol changes its status: `TRADING` lists it, anything else stops it.
    SetStatus {
        /// The market.
        market: Market,
        /// Native symbol.
        symbol: String,
        /// New status.
        status: String,
    },
}

const fn one() -> u32 {
    1
}

/// Why a fault cannot be put in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FaultError {
    /// The market is not simulated.
    #[error("market {0} is not simulated")]
    NoMarket(Market),
    /// No such stream.
    #[error("unknown stream {0:?}")]
    UnknownStream(String),
    /// No such symbol.
    #[error("unknown symbol {0:?}")]
    UnknownSymbol(String),
    /// The status is none that the simulator can play.
    #[error("status must be 429, 418, 500 or 503, not {0}")]
    BadStatus(u16),
    /// No connection was hit.
    #[error("no connection matches")]
    NoConnection,
}

impl Fault {
    /// The market that it hits.
    pub const fn market(&self) -> Market {
        match self {
            Self::Drop { market, .. }
            | Self::Silence { market, .. }
            | Self::Skip { market, .. }
            | Self::Duplicate { market, .. }
            | Self::Reorder { market, .. }
            | Self::Garbage { market, .. }
            | Self::HalfOpen { market, .. }
            | Self::RefuseConnections { market, .. }
            | Self::RestError { market, .. }
            | Self::StaleSnapshot { market, .. }
            | Self::SetStatus { market, .. } => *market,
        }
    }
}

/// An error that REST answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestError {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    path: Option<String>,
    until_ms: i64,
}

#[derive(Default)]
struct InForce {
    rest: Vec<RestError>,
    refuse_until_ms: i64,
    stale: Option<(i64, i64)>,
}

/// The faults in force on a market that are not bound to a stream.
#[derive(Default)]
pub(crate) struct MarketFaults {
    inner: Mutex<InForce>,
}

impl MarketFaults {
    fn with<T>(&self, act: impl FnOnce(&mut InForce) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add_rest(
        &self,
        status: u16,
        retry_after_s: Option<u64>,
        path: Option<String>,
        until_ms: i64,
    ) {
        self.with(|inner| {
            inner.rest.truncate(63);
            inner.rest.insert(0, RestError { status, retry_after_s, path, until_ms });
        });
    }

    pub(crate) fn refuse_until(&self, until_ms: i64) {
        self.with(|inner| inner.refuse_until_ms = until_ms);
    }

    pub(crate) fn stale_until(&self, age_ms: i64, until_ms: i64) {
        self.with(|inner| inner.stale = Some((age_ms, until_ms)));
    }

    pub(crate) fn rest_error(&self, path: &str, now_ms: i64) -> Option<RestError> {
        self.with(|inner| {
            inner.rest.retain(|error| error.until_ms > now_ms);
            inner
                .rest
                .iter()
                .find(|error| error.path.as_ref().is_none_or(|part| path.contains(part)))
                .cloned()
        })
    }

    pub(crate) fn refuses(&self, now_ms: i64) -> bool {
        self.with(|inner| inner.refuse_until_ms > now_ms)
    }

    pub(crate) fn snapshot_age(&self, now_ms: i64) -> Option<i64> {
        self.with(|inner| inner.stale.filter(|(_, until)| *until > now_ms).map(|(age, _)| age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_json() {
        let fault: Fault =
            serde_json::from_str(r#"{"kind":"skip","market":"spot","stream":"btcusdt@depth"}"#).unwrap();
        assert_eq!(fault, Fault::Skip { market: Market::Spot, stream: "btcusdt@depth".to_owned(), count: 1 });
        let text = r#"{"kind":"rest_error","market":"futures","status":418,"retry_after_s":5,"for_ms":10}"#;
        assert_eq!(serde_json::from_str::<Fault>(text).unwrap().market(), Market::Futures);
    }

    #[test]
    fn rest_errors_end() {
        let faults = MarketFaults::default();
        faults.add_rest(503, None, Some("depth".to_owned()), 100);
        assert_eq!(faults.rest_error("/api/v3/depth", 50).map(|error| error.status), Some(503));
        assert_eq!(faults.rest_error("/api/v3/klines", 50), None);
        assert_eq!(faults.rest_error("/api/v3/depth", 100), None);
    }
}
