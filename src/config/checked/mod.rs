//! What the service runs with: every value checked, of its final type, and without `Option` where a default exists.

mod market;
mod redis;
mod server;
mod service;
mod storing;
mod symbols;
mod venues;

use std::{path::PathBuf, time::Duration};

use fathom_market::{
    category::Categories,
    ids::{Market, VenueId},
};
use fathom_storage::Retention;

pub use self::{
    market::{Depth, Poll, Stream, Ticks, TierOrder, Tiers},
    redis::Redis,
    server::StoreServer,
    service::{Http, Log, LogFormat, LogLevel, Supervision},
    storing::{
        Candles, Gaps, OrderbookSnapshots, RawTables, Rollup, Spool, SpoolMode, Store, StoreKind,
        start_of as time_ms,
    },
    venues::{EndpointOverrides, KnownVenue, VenueMarket},
};
use super::{error::ConfigError, raw::Table, read::Reader, secret::Secret};

/// The checked configuration. `config/default.toml` documents each key.
#[derive(Clone, Debug)]
pub struct Config {
    /// The venue that old paths and channels mean when they name none.
    pub primary_venue: VenueId,
    /// Folder of everything that the service writes.
    pub data_dir: PathBuf,
    /// The HTTP server.
    pub http: Http,
    /// Logging.
    pub log: Log,
    /// Deadlines and limits of the actor tree.
    pub supervision: Supervision,
    /// The store and its writer.
    pub store: Store,
    /// The spool before it, where there is one.
    pub spool: Spool,
    /// How long rows are kept; a table without an entry is kept for good.
    pub retention: Vec<Retention>,
    /// What is made of stored rows.
    pub rollup: Rollup,
    /// Which raw events are stored besides what is made of them.
    pub raw: RawTables,
    /// Stored order book tops.
    pub orderbook: OrderbookSnapshots,
    /// Candles, live and from history.
    pub candles: Candles,
    /// What is fetched to fill gaps.
    pub gaps: Gaps,
    /// Depth measurement.
    pub depth: Depth,
    /// Categories in the order of the configuration.
    pub categories: Categories,
    /// Tick rings.
    pub ticks: Ticks,
    /// Tiers of symbols.
    pub tiers: Tiers,
    /// Streams and the books that they feed.
    pub stream: Stream,
    /// Each configured market of each venue, disabled ones included.
    pub venues: Vec<VenueMarket>,
    /// The cache and the channels.
    pub redis: Redis,
    /// How often each venue's list of instruments is read anew.
    pub refresh_every: Duration,
    /// What the start reports once, such as names of old services that this version does not use.
    pub notes: Vec<String>,
}

impl Config {
    /// The markets to collect.
    pub fn enabled(&self) -> impl Iterator<Item = &VenueMarket> {
        self.venues.iter().filter(|market| market.enabled)
    }

    /// The configuration of one market of one venue.
    pub fn venue(&self, venue: VenueId, market: Market) -> Option<&VenueMarket> {
        self.venues.iter().find(|entry| entry.venue == venue && entry.market == market)
    }
}

/// Checks the merged tree. `known_keys` are the paths of the default configuration; `token` was given in the environment.
pub(super) fn check(
    tree: &Table,
    known_keys: &[String],
    known_venues: &[KnownVenue],
    token: Option<Secret>,
) -> Result<Config, ConfigError> {
    let mut root = Reader::new(tree, known_keys);
    let primary_venue = venues::primary(&mut root, known_venues)?;
    let data_dir = root.optional_path("data_dir")?;
    let data_dir = data_dir.ok_or_else(|| root.invalid("data_dir", "expected a path"))?;
    let (refresh_every, venues) = section(&mut root, "venues", |reader| {
        Ok((reader.millis("refresh_every_ms", 1000..=86_400_000)?, venues::read(reader, known_venues)?))
    })?;
    let config = Config {
        refresh_every,
        primary_venue,
        http: section(&mut root, "http", |reader| Http::read(reader, token))?,
        log: section(&mut root, "log", Log::read)?,
        supervision: section(&mut root, "supervision", Supervision::read)?,
        store: section(&mut root, "store", |reader| Store::read(reader, &data_dir))?,
        spool: section(&mut root, "spool", |reader| storing::Spool::read(reader, &data_dir))?,
        retention: section(&mut root, "retention", storing::read_retention)?,
        rollup: section(&mut root, "rollup", Rollup::read)?,
        raw: section(&mut root, "raw", RawTables::read)?,
        orderbook: section(&mut root, "orderbook", OrderbookSnapshots::read)?,
        candles: section(&mut root, "candles", Candles::read)?,
        gaps: section(&mut root, "gaps", Gaps::read)?,
        depth: section(&mut root, "depth", Depth::read)?,
        categories: market::read_categories(&mut root)?,
        ticks: section(&mut root, "ticks", Ticks::read)?,
        tiers: section(&mut root, "tiers", Tiers::read)?,
        stream: section(&mut root, "stream", Stream::read)?,
        redis: section(&mut root, "redis", Redis::read)?,
        venues,
        data_dir,
        notes: Vec::new(),
    };
    root.finish()?;
    Ok(config)
}

fn section<T>(
    parent: &mut Reader<'_>,
    key: &str,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let mut reader = parent.section(key)?;
    let value = read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}
