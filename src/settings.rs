//! From the checked configuration to what the actors are told.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use fathom_actors::{
    book::{gaps::RepairRules, polling::PollRules},
    kernel::{Backoff, BreakerSpec, Clock, KernelConfig, Threshold},
    settings::{
        BookSettings, DepthSettings, HistorySettings, MarketSettings, Retry, Settings, StreamSettings,
        WriterSettings,
    },
    stream::{liveness::LivenessRules, reconnect::ReconnectRules},
    writer::{account::Limits, pending::FlushRules},
};
use fathom_delivery::{Names, RedisConfig};
use fathom_market::{plan::Endpoints, table::Table, validate::Bounds};
use fathom_transport::TlsConfig;
use fathom_venues::registry;

use crate::config::{Config, Poll, TierOrder, VenueMarket};

/// A connection that has held for this long counts as good: the next retry is immediate again.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Updates of one book that may wait for its snapshot: minutes of the fastest stream, while a cold start queues.
const SNAPSHOT_BUFFER: usize = 4000;
/// Levels a side that a book may hold.
const MAX_LEVELS: usize = 100_000;
/// Rows of a typical batch that reaches the writer.
const ROWS_A_BATCH: usize = 64;
/// Operators' changes of symbols, inside of the data folder.
const SYMBOLS_FILE: &str = "symbols.json";
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// What the actors are told.
///
/// # Errors
/// When a part of the configuration cannot be met, such as a CA file.
pub fn settings(config: &Config) -> anyhow::Result<Settings> {
    Ok(Settings {
        markets: config
            .enabled()
            .map(|market| market_settings(config, market))
            .collect::<anyhow::Result<_>>()?,
        symbols_file: Some(config.data_dir.join(SYMBOLS_FILE)),
        depth: depth_settings(config),
        book: book_settings(config),
        stream: stream_settings(config)?,
        writer: writer_settings(config),
        history: history_settings(config),
        redis: redis_settings(config),
    })
}

/// The kernel's settings.
pub fn kernel(config: &Config, clock: Clock) -> KernelConfig {
    let supervision = &config.supervision;
    KernelConfig {
        clock,
        pool: std::thread::available_parallelism().map_or(2, usize::from),
        manual_burst: supervision.manual_restarts_per_minute,
        manual_every: Duration::from_secs(60) / supervision.manual_restarts_per_minute.max(1),
        ..KernelConfig::default()
    }
}

fn market_settings(config: &Config, market: &VenueMarket) -> anyhow::Result<MarketSettings> {
    let venue =
        registry::venue(market.venue.as_str()).with_context(|| format!("unknown venue {}", market.venue))?;
    let Endpoints { rest, mut ws } = venue.endpoints(market.market);
    for (&class, address) in &market.endpoints.ws {
        ws.insert(class, address.clone());
    }
    let tls = TlsConfig { extra_ca: market.extra_ca.clone() }
        .client_config()
        .with_context(|| format!("TLS of {} {}", market.venue, market.market))?;
    Ok(MarketSettings {
        venue,
        market: market.market,
        endpoints: Endpoints { rest: market.endpoints.rest.clone().unwrap_or(rest), ws },
        tls,
        symbols: market.symbols.clone(),
        tiers: config.tiers.list.to_vec(),
        timeframes: config.candles.timeframes.clone(),
        raw_trades: market.raw_trades,
        ticker: market.ticker,
        by_volume: config.tiers.order == TierOrder::Volume,
        refresh_every: config.refresh_every,
        budget_ceiling: market.budget_ceiling,
    })
}

fn history_settings(config: &Config) -> HistorySettings {
    let candles = &config.candles;
    HistorySettings {
        catch_up: candles.backfill,
        from_ms: candles.start_ms,
        page: candles.request_rows,
        retry: Retry { max: candles.max_retries, delay: candles.retry_delay },
    }
}

/// What of minutes the cache keeps, where the store keeps no less.
const CACHED: Duration = Duration::from_secs(7200);

fn redis_settings(config: &Config) -> Option<RedisConfig> {
    let redis = &config.redis;
    let minutes = config.retention.iter().find(|kept| kept.table == Table::CategorySnapshots);
    Some(RedisConfig {
        address: redis.address.clone()?,
        names: Names {
            prefix: redis.prefix.clone(),
            channel_prefix: redis.channel_prefix.clone(),
            primary: config.primary_venue,
        },
        ttl: redis.ttl,
        window: minutes.map_or(CACHED, |kept| kept.keep.min(CACHED)),
        pairs: redis.pairs,
        flush_every: redis.flush_every,
        connect_within: redis.connect_within,
        answer_within: redis.answer_within,
        read_within: redis.read_within,
    })
}

fn depth_settings(config: &Config) -> DepthSettings {
    DepthSettings {
        bands: Arc::new(config.depth.bands.clone()),
        levels: config.depth.levels.as_slice().into(),
        reference: config.depth.reference,
        categories: Arc::new(config.categories.clone()),
        stablecoins: config.depth.stablecoins.clone(),
        grace: config.depth.grace,
    }
}

fn book_settings(config: &Config) -> BookSettings {
    let raw = [
        (config.raw.book_ticker, Table::BookTicker),
        (config.raw.trades, Table::Trades),
        (config.raw.depth_events, Table::DepthEvents),
    ];
    BookSettings {
        inbox: config.stream.book_inbox,
        max_levels: MAX_LEVELS,
        buffer: SNAPSHOT_BUFFER,
        tick_cap: config.ticks.cap,
        raw_tables: raw.into_iter().filter(|(kept, _)| *kept).map(|(_, table)| table).collect(),
        stored_levels: if config.orderbook.enabled { config.orderbook.levels } else { 0 },
        stored_every: config.orderbook.interval,
        candle_every: config.candles.publish_every,
        bounds: Bounds::default(),
        snapshot_retry: Retry { max: config.orderbook.max_retries, delay: config.orderbook.retry_delay },
        stale_after: config.stream.stale_after,
        verify_every: config.orderbook.verify_every,
        poll: config.stream.poll.map(|Poll { after, every, levels }| PollRules { after, every, levels }),
        repair: RepairRules {
            max_trades: config.gaps.max_trades,
            deadline: config.gaps.deadline,
            ..RepairRules::default()
        },
    }
}

fn stream_settings(config: &Config) -> anyhow::Result<StreamSettings> {
    let stream = &config.stream;
    let longest = stream.breaker_open.saturating_mul(10);
    Ok(StreamSettings {
        reconnect: ReconnectRules {
            backoff: Backoff::try_new(stream.backoff_min, stream.backoff_max, 2, HELD_FOR)
                .context("stream.backoff")?,
            threshold: Threshold { failures: stream.breaker_failures, window: Duration::from_secs(60) },
            breaker: BreakerSpec::try_new(stream.breaker_open, longest).context("stream.breaker_open_ms")?,
        },
        liveness: LivenessRules {
            floor: stream.silence_floor,
            ceiling: stream.silence_ceiling,
            ..LivenessRules::default()
        },
        rotate_after: stream.rotate_after,
    })
}

fn writer_settings(config: &Config) -> WriterSettings {
    WriterSettings {
        inbox: (config.store.inbox_rows / ROWS_A_BATCH).max(64),
        flush: FlushRules { rows: config.store.batch_rows, age: config.store.batch_age },
        limits: Limits {
            rows: config.store.inbox_rows as u64,
            bytes: config.store.inbox_bytes,
            policy: config.store.policy,
        },
        write_deadline: config.store.write_deadline,
        hung_after: config.store.hung_after,
        retention: config.retention.clone(),
        retention_every: RETENTION_EVERY,
        rollup_every: config.rollup.every,
    }
}
