//! What the actors are told to do, as checked values. The binary makes these from its configuration.

use std::{path::PathBuf, sync::Arc, time::Duration};

use fathom_delivery::RedisConfig;
use fathom_market::{
    category::Categories,
    depth::{DepthBands, DepthReference},
    ids::Market,
    plan::Endpoints,
    table::Table,
    timeframe::Timeframe,
    validate::Bounds,
};
use fathom_storage::Retention;
use fathom_transport::ClientConfig;
use fathom_venues::{Venue, planner::TierSpec};
use rust_decimal::Decimal;

use crate::{
    book::{gaps::RepairRules, polling::PollRules},
    stream::{liveness::LivenessRules, reconnect::ReconnectRules},
    writer::{account::Limits, pending::FlushRules},
};

/// Everything the tree needs to know.
#[derive(Clone)]
pub struct Settings {
    /// What is collected.
    pub markets: Vec<MarketSettings>,
    /// Where operators' changes of symbols are kept; without a file they are forgotten at the end.
    pub symbols_file: Option<PathBuf>,
    /// Depth and categories.
    pub depth: DepthSettings,
    /// Books and what is stored of them.
    pub book: BookSettings,
    /// Lines.
    pub stream: StreamSettings,
    /// The writer and the store's upkeep.
    pub writer: WriterSettings,
    /// Candles that were missed.
    pub history: HistorySettings,
    /// The cache and the channels; `None` where no server is configured.
    pub redis: Option<RedisConfig>,
}

/// How a failed request is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts after the first, before the cycle is given up.
    pub max: u32,
    /// Delay before the first of them; doubles.
    pub delay: Duration,
}

impl Retry {
    /// The delay after this many failures in a row.
    pub fn after(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            failures if failures > self.max => LONGEST_RETRY,
            failures => self.delay.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_RETRY),
        }
    }
}

/// The longest wait between two attempts, and the wait after a cycle was given up.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Candles that were missed.
#[derive(Clone, Copy, Debug)]
pub struct HistorySettings {
    /// Whether they are fetched at the start.
    pub catch_up: bool,
    /// Where history begins for a series that is not stored at all, milliseconds since the epoch; `None` begins with the
    /// present.
    pub from_ms: Option<i64>,
    /// Candles of one request.
    pub page: usize,
    /// A failed request.
    pub retry: Retry,
}

/// One venue and market.
#[derive(Clone)]
pub struct MarketSettings {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The market.
    pub market: Market,
    /// Addresses.
    pub endpoints: Endpoints,
    /// TLS of its sockets and requests.
    pub tls: Arc<ClientConfig>,
    /// Wanted symbols, native or unified, the most important first. Those that the venue lacks are skipped.
    pub symbols: Vec<String>,
    /// Tiers in the order in which they take symbols.
    pub tiers: Vec<TierSpec>,
    /// Candle timeframes; those that the venue lacks are skipped.
    pub timeframes: Vec<Timeframe>,
    /// Single trades instead of aggregates.
    pub raw_trades: bool,
    /// 24 hour statistics.
    pub ticker: bool,
    /// The symbols fill the tiers by their 24 hour quote volume, instead of in the order in which they are listed.
    pub by_volume: bool,
    /// How often the venue's list of instruments is read anew.
    pub refresh_every: Duration,
    /// REST weight a window that we allow ourselves, where less than the venue does.
    pub budget_ceiling: Option<u32>,
}

/// Depth and categories.
#[derive(Clone)]
pub struct DepthSettings {
    /// The bands.
    pub bands: Arc<DepthBands>,
    /// The same as percentages, in the order of the bands.
    pub levels: Arc<[Decimal]>,
    /// Where depth is measured from.
    pub reference: DepthReference,
    /// The categories.
    pub categories: Arc<Categories>,
    /// Quote assets that count as a dollar.
    pub stablecoins: Vec<String>,
    /// How long after a boundary a sample is waited for.
    pub grace: Duration,
}

/// Books and what is stored of them.
#[derive(Clone)]
pub struct BookSettings {
    /// Items of a book's inbox.
    pub inbox: usize,
    /// Levels a side that a book may hold.
    pub max_levels: usize,
    /// Deltas that wait for a snapshot.
    pub buffer: usize,
    /// How many ticks of the last minute are kept.
    pub tick_cap: usize,
    /// Raw tables that are kept.
    pub raw_tables: Vec<Table>,
    /// Levels a side of a stored book; 0 stores none.
    pub stored_levels: usize,
    /// Interval of stored books.
    pub stored_every: Duration,
    /// How often an open candle is stored at most.
    pub candle_every: Duration,
    /// What counts as absurd.
    pub bounds: Bounds,
    /// A failed snapshot.
    pub snapshot_retry: Retry,
    /// A book whose quotes have moved past it for this long beyond its stream's pace is stale.
    pub stale_after: Duration,
    /// How often a live book is compared with the venue's own; `None` never.
    pub verify_every: Option<Duration>,
    /// Fetching books over REST while their stream is away; `None` never.
    pub poll: Option<PollRules>,
    /// Bounds of what is fetched to fill gaps.
    pub repair: RepairRules,
}

/// Lines.
#[derive(Clone)]
pub struct StreamSettings {
    /// Reconnecting.
    pub reconnect: ReconnectRules,
    /// Silence.
    pub liveness: LivenessRules,
    /// A connection is replaced at this age at the latest; `None` leaves it to the venue's limit.
    pub rotate_after: Option<Duration>,
}

/// The writer and the store's upkeep.
#[derive(Clone)]
pub struct WriterSettings {
    /// Batches of the writer's inbox.
    pub inbox: usize,
    /// When rows are written.
    pub flush: FlushRules,
    /// How much may wait on the way to the store, and what goes first.
    pub limits: Limits,
    /// A write that takes longer is given up and tried again.
    pub write_deadline: Duration,
    /// A write that takes longer makes the store count as unreachable.
    pub hung_after: Duration,
    /// What is removed when.
    pub retention: Vec<Retention>,
    /// How often rows are removed.
    pub retention_every: Duration,
    /// How often what is made of other rows is brought up to date.
    pub rollup_every: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_double_and_a_given_up_cycle_waits() {
        let retry = Retry { max: 3, delay: Duration::from_secs(1) };
        let delays: Vec<u64> = (0..6).map(|failures| retry.after(failures).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 60, 60]);
        let slow = Retry { max: 100, delay: Duration::from_secs(40) };
        assert_eq!(slow.after(90), Duration::from_secs(60));
    }
}
