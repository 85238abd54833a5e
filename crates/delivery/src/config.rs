//! What the cache and the publisher are told. The address may hold a password and is never shown whole.

use std::{fmt, time::Duration};

use redis::{Client, ConnectionAddr};
use thiserror::Error;

use crate::names::Names;

/// The address of a server: `redis://` or `rediss://`, perhaps with user, password and database.
#[derive(Clone)]
pub struct Address {
    client: Client,
    shown: String,
}

/// An address that cannot be used. It does not repeat the address, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected redis://[user:password@]host[:port][/database], or the same with rediss://")]
pub struct AddressError;

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is none of a server.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err(AddressError);
        }
        let client = Client::open(text).map_err(|_| AddressError)?;
        let info = client.get_connection_info();
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                format!("redis://{host}:{port}/{}", info.redis_settings().db())
            }
            ConnectionAddr::TcpTls { host, port, .. } => {
                format!("rediss://{host}:{port}/{}", info.redis_settings().db())
            }
            _ => return Err(AddressError),
        };
        Ok(Self { client, shown })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Scheme, host, port and database: what may be shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// How long what is cached outlives its last renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// 24 hour statistics.
    pub ticker: Duration,
    /// Books.
    pub orderbook: Duration,
    /// Open and last closed candle.
    pub candles: Duration,
    /// Ticks; `None` mirrors none.
    pub ticks: Option<Duration>,
}

/// Everything that is told.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// The server.
    pub address: Address,
    /// Keys and channels.
    pub names: Names,
    /// Times to live.
    pub ttl: Ttl,
    /// How far back snapshots are kept; two hours, or less where the store itself keeps less.
    pub window: Duration,
    /// Whether snapshots of pairs are kept, besides those of categories.
    pub pairs: bool,
    /// How often what has gathered is sent.
    pub flush_every: Duration,
    /// Bound of a connection attempt.
    pub connect_within: Duration,
    /// Bound of a pipeline's answer.
    pub answer_within: Duration,
    /// Bound of a read, after which the store is asked.
    pub read_within: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_no_credentials_and_a_broken_one_nothing() {
        let address = Address::parse("redis://me:hunter2@cache.example:7000/3").expect("usable");
        assert_eq!(address.shown(), "redis://cache.example:7000/3");
        assert!(!format!("{address:?}").contains("hunter2"));
        for broken in
            ["", "localhost", "http://me:hunter2@h/", "redis://", "redis+unix:///tmp/s", "redis://h:x"]
        {
            let error = Address::parse(broken).map(|address| address.shown).expect_err(broken);
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
