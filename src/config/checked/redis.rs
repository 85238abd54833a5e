//! The cache and the channels.

use std::time::Duration;

use fathom_delivery::{Address, Ttl};

use crate::config::{
    error::{ConfigError, Origin},
    raw::Leaf,
    read::Reader,
};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The cache and the channels; without an address there are none.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The server. Its credentials are not shown.
    pub address: Option<Address>,
    /// What keys begin with.
    pub prefix: String,
    /// What channels begin with.
    pub channel_prefix: String,
    /// Times to live.
    pub ttl: Ttl,
    /// Whether snapshots of pairs are kept besides those of categories.
    pub pairs: bool,
    /// How often what has gathered is sent.
    pub flush_every: Duration,
    /// Bound of a connection attempt.
    pub connect_within: Duration,
    /// Bound of a pipeline's answer.
    pub answer_within: Duration,
    /// Bound of a read.
    pub read_within: Duration,
}

impl Redis {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let address = address(reader)?;
        let ticks: u64 = reader.int("ticks_ttl_ms", 0..=HOUR_MS)?;
        Ok(Self {
            address,
            prefix: reader.required("prefix", "visible ASCII without blanks", name)?,
            channel_prefix: reader.required(
                "channel_prefix",
                "visible ASCII without blanks, or nothing",
                |leaf| {
                    if leaf.text()?.is_empty() { Some(String::new()) } else { name(leaf) }
                },
            )?,
            ttl: Ttl {
                ticker: reader.millis("ticker_ttl_ms", 100..=DAY_MS)?,
                orderbook: reader.millis("orderbook_ttl_ms", 100..=DAY_MS)?,
                candles: reader.millis("candles_ttl_ms", 100..=DAY_MS)?,
                ticks: (ticks > 0).then(|| Duration::from_millis(ticks)),
            },
            pairs: reader.flag("pair_snapshots")?,
            flush_every: reader.millis("flush_ms", 10..=10_000)?,
            connect_within: reader.millis("connect_timeout_ms", 10..=60_000)?,
            answer_within: reader.millis("answer_timeout_ms", 10..=60_000)?,
            read_within: reader.millis("read_timeout_ms", 1..=10_000)?,
        })
    }
}

fn name(leaf: &Leaf) -> Option<String> {
    let text = leaf.text()?;
    let usable = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| text.to_owned())
}

/// From `url`, or `host` and `port`; where both are given, from the one that was given later.
fn address(reader: &mut Reader<'_>) -> Result<Option<Address>, ConfigError> {
    let text = |leaf: &Leaf| leaf.text().map(str::to_owned);
    let url: String = reader.required("url", "an address", text)?;
    let host: String = reader.required("host", "a name or an address", text)?;
    let port: u16 = reader.int("port", 1..=65_535)?;
    let by_host = !host.is_empty() && (url.is_empty() || rank(reader, "host") > rank(reader, "url"));
    let (key, url) = match (by_host, url.is_empty()) {
        (true, _) if host.contains(':') => ("host", format!("redis://[{host}]:{port}/")),
        (true, _) => ("host", format!("redis://{host}:{port}/")),
        (false, true) => return Ok(None),
        (false, false) => ("url", url),
    };
    Address::parse(&url).map(Some).map_err(|error| ConfigError::Invalid {
        key: reader.path_of(key),
        // It may hold a password.
        value: "[hidden]".to_owned(),
        origin: reader.origin(key),
        reason: error.to_string(),
    })
}

/// Later wins: file, old names, `FATHOM__...`, command line.
fn rank(reader: &Reader<'_>, key: &str) -> u8 {
    match reader.origin(key) {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Environment(name) if !name.starts_with("FATHOM__") => 2,
        Origin::Environment(_) => 3,
        Origin::CommandLine => 4,
    }
}
