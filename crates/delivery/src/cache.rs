//! Reads through the cache: a short deadline, at most so many at once, and at any doubt nothing, so that the store is asked.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fathom_market::{
    instrument::Instrument,
    table::{CandleRow, CategorySnapshotRow},
};
use redis::{FromRedisValue, Pipeline, RedisResult};
use rust_decimal::Decimal;
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    composer::Commands,
    config::RedisConfig,
    link::Link,
    message::CachedCandles,
    rows::{category_row, depth_text},
    series::{Entry, Sets},
};

/// Reads under way at once; more of them ask the store.
const READS: usize = 32;
/// The publisher writes something each second: after this time it has gone, and what it would have added is missing.
const SILENT: Duration = Duration::from_secs(5);
/// What lies this near to the end of the window may just be trimmed.
const EDGE_MS: i64 = 60_000;

/// What readers and the publisher share. While there is no connection every read is a miss at once.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: RedisConfig,
    link: Mutex<Option<Link>>,
    sets: Mutex<Sets>,
    /// When the publisher last wrote.
    written: Mutex<Option<Instant>>,
    places: Semaphore,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// What became of reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheFigures {
    /// Answered from the cache.
    pub hits: u64,
    /// Not there, not known to be whole, or no connection.
    pub misses: u64,
    /// Of the misses: refused, or not answered in time.
    pub errors: u64,
}

/// A range of a category's snapshots, as the store takes it.
#[derive(Clone, Copy, Debug)]
pub struct CategoryRange<'a> {
    /// A venue, or `ALL`.
    pub scope: &'a str,
    /// `SPOT` or `FUTURES`.
    pub market: &'a str,
    /// The category.
    pub category: &'a str,
    /// The depth.
    pub depth: Decimal,
    /// The first time, milliseconds; without it the newest rows are meant.
    pub from_ms: Option<i64>,
    /// The last time.
    pub to_ms: Option<i64>,
    /// Rows at most.
    pub limit: u32,
}

impl Cache {
    /// Without a connection.
    pub fn new(config: RedisConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            link: Mutex::default(),
            sets: Mutex::default(),
            written: Mutex::default(),
            places: Semaphore::new(READS),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }))
    }

    /// What it was made with.
    pub fn config(&self) -> &RedisConfig {
        &self.0.config
    }

    /// Reads go over this connection from now on. `marker` is a name that no other connection has.
    pub fn opened(&self, link: Link, marker: String) {
        self.sets().begin(marker);
        *self.link() = Some(link);
    }

    /// The connection is over: reads miss at once.
    pub fn closed(&self) {
        *self.link() = None;
        self.doubt();
    }

    /// Rows may be missing in the sorted sets: what is in them counts no more.
    pub fn doubt(&self) {
        let mut sets = self.sets();
        let marker = sets.marker().to_owned();
        sets.begin(marker);
    }

    /// These commands were carried out.
    pub fn wrote(&self, commands: &Commands) {
        *self.0.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut sets = self.sets();
        commands.rows().iter().for_each(|(key, at_ms)| sets.wrote(key, *at_ms));
    }

    pub(crate) fn place(&self, key: &str, at_ms: i64) -> (Entry, String) {
        let sets = self.sets();
        (sets.place(key, at_ms), sets.marker().to_owned())
    }

    /// What became of reads so far.
    pub fn figures(&self) -> CacheFigures {
        let Inner { hits, misses, errors, .. } = &*self.0;
        CacheFigures { hits: hits.load(Relaxed), misses: misses.load(Relaxed), errors: errors.load(Relaxed) }
    }

    /// A value as it stands in the cache; `None` at any doubt.
    pub async fn get(&self, key: &str) -> Option<String> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(key);
        let (value,): (Option<String>,) = self.read(&pipeline).await?;
        self.counted(value)
    }

    /// The newest candles of a series, at most two; `None` unless they are known without a hole between them.
    pub async fn latest_candles(
        &self,
        of: &Instrument,
        timeframe: &str,
        limit: u32,
    ) -> Option<Vec<CandleRow>> {
        if limit > 2 {
            return None;
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(self.0.config.names.candles(of, timeframe));
        let (value,): (Option<String>,) = self.read(&pipeline).await?;
        self.counted(value.and_then(|json| newest(&json, of.id.0, limit as usize)))
    }

    /// Snapshots of a category as the store would give them; `None` unless the sorted set is known to hold all of them.
    pub async fn category_range(
        &self,
        range: &CategoryRange<'_>,
        now_ms: i64,
    ) -> Option<Vec<CategorySnapshotRow>> {
        let written = *self.0.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_none_or(|at| at.elapsed() > SILENT) {
            return None;
        }
        let config = &self.0.config;
        let key = config.names.category(range.scope, range.market, range.category, &depth_text(range.depth));
        let (since, marker) = {
            let sets = self.sets();
            (sets.since(&key)?, sets.marker().to_owned())
        };
        let window_ms = i64::try_from(config.window.as_millis()).unwrap_or(i64::MAX);
        let since = since.max(now_ms - window_ms + EDGE_MS);
        if range.from_ms.is_some_and(|from| from < since) {
            return None;
        }
        let pipeline = asking(&key, &marker, range, since);
        let (rank, members): (Option<i64>, Vec<String>) = self.read(&pipeline).await?;
        if rank.is_none() {
            // The set was flushed or evicted, and perhaps begun anew since.
            self.doubt();
            return self.counted(None);
        }
        let rows = self.whole(range, members);
        if rows.is_none() {
            self.doubt();
        }
        // Without a first time, fewer than were asked for means that older ones may be in the store.
        let enough = |rows: &Vec<_>| range.from_ms.is_some() || rows.len() == range.limit as usize;
        self.counted(rows.filter(enough))
    }

    /// The members as rows of what was asked for, in order, no time twice.
    fn whole(&self, range: &CategoryRange<'_>, members: Vec<String>) -> Option<Vec<CategorySnapshotRow>> {
        let mut rows =
            members.iter().map(|json| category_row(json)).collect::<Option<Vec<CategorySnapshotRow>>>()?;
        if range.from_ms.is_none() {
            rows.reverse();
        }
        let fits = |row: &CategorySnapshotRow| {
            row.scope == range.scope
                && row.market_type == range.market
                && row.category == range.category
                && row.depth == range.depth
        };
        let ascends = rows.windows(2).all(|pair| pair[0].timestamp_ms < pair[1].timestamp_ms);
        (ascends && rows.iter().all(fits)).then_some(rows)
    }

    /// Asks within the deadline; `None`, counted, when there is no connection, no place or no answer.
    async fn read<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Option<T> {
        let link = self.link().clone();
        let (Some(link), Ok(_place)) = (link, self.0.places.try_acquire()) else { return self.counted(None) };
        let mut connection = link.connection();
        let asking = pipeline.query_async(&mut connection);
        let answer: Option<RedisResult<T>> =
            tokio::time::timeout(self.0.config.read_within, asking).await.ok();
        match answer {
            Some(Ok(value)) => Some(value),
            _ => {
                self.0.errors.fetch_add(1, Relaxed);
                self.counted(None)
            }
        }
    }

    fn counted<T>(&self, found: Option<T>) -> Option<T> {
        let counter = if found.is_some() { &self.0.hits } else { &self.0.misses };
        counter.fetch_add(1, Relaxed);
        found
    }

    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        // Held for single reads and writes, so a panic elsewhere leaves nothing half done.
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asking(key: &str, marker: &str, range: &CategoryRange<'_>, since: i64) -> Pipeline {
    let last = range.to_ms.map_or_else(|| "+inf".to_owned(), |to| to.to_string());
    let mut pipeline = redis::pipe();
    pipeline.cmd("ZRANK").arg(key).arg(marker);
    match range.from_ms {
        Some(from) => pipeline.cmd("ZRANGEBYSCORE").arg(key).arg(from).arg(last),
        None => pipeline.cmd("ZREVRANGEBYSCORE").arg(key).arg(last).arg(since),
    };
    pipeline.arg("LIMIT").arg(0).arg(range.limit);
    pipeline
}

/// The newest candles of a cached series, oldest first.
fn newest(json: &str, instrument_id: i64, limit: usize) -> Option<Vec<CandleRow>> {
    let cached: CachedCandles = serde_json::from_str(json).ok()?;
    let row = |candle: Option<crate::message::CandleText>| candle.map(|text| text.row(instrument_id));
    let rows = match (row(cached.closed), row(cached.open)) {
        (Some(closed), Some(open)) => vec![closed?, open?],
        (Some(only), None) | (None, Some(only)) => vec![only?],
        (None, None) => return None,
    };
    let joined = rows.windows(2).all(|pair| pair[1].open_ms == pair[0].close_ms + 1);
    let newest = rows.len().checked_sub(limit)?;
    (joined || limit == 1).then(|| rows[newest..].to_vec())
}
