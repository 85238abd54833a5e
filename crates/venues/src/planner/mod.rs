//! Turns instruments and tiers into shards: which sockets, which streams on each, and what a cold start costs. Pure;
//! `fathom plan` prints it before anything connects. [`plan`] makes a plan, [`add`] and [`remove`] change one without
//! touching what stays.

mod cut;
mod grow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fathom_market::{
    ids::{Market, VenueId},
    instrument::{InstrumentIdx, InstrumentTable},
    plan::{DepthSpeed, EndpointClass, StreamSpec},
    timeframe::Timeframe,
};
use thiserror::Error;

pub use self::{
    cut::plan,
    grow::{add, change_tier, remove},
};
use crate::venue::Venue;

/// How closely a symbol is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The busiest symbols, few a shard.
    High,
    /// The middle.
    Medium,
    /// Everything else, many a shard.
    Low,
}

impl Tier {
    /// All, the closest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    /// `high`, `medium` or `low`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// The tier of this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str().eq_ignore_ascii_case(name))
    }
}

/// How many sockets carry the same streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundancy {
    /// One line.
    Single,
    /// Two lines, merged by the venue's rule.
    Pair,
}

impl Redundancy {
    /// Number of sockets.
    pub const fn lines(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pair => 2,
        }
    }
}

/// The rules of one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSpec {
    /// Which tier.
    pub tier: Tier,
    /// Symbols that it takes at most; the last tier takes the rest whatever it says.
    pub symbols: usize,
    /// Symbols a shard.
    pub per_shard: usize,
    /// Depth speed.
    pub depth: DepthSpeed,
    /// Levels a side of its book snapshots.
    pub snapshot_levels: usize,
    /// Lines an endpoint class.
    pub redundancy: Redundancy,
}

/// What is planned.
pub struct PlanInput<'a> {
    /// Venue.
    pub venue: &'a dyn Venue,
    /// Market.
    pub market: Market,
    /// The instruments, the most important first.
    pub table: &'a InstrumentTable,
    /// Tiers, in the order in which they take instruments.
    pub tiers: &'a [TierSpec],
    /// Candle timeframes.
    pub timeframes: &'a [Timeframe],
    /// Single trades instead of aggregates.
    pub raw_trades: bool,
    /// 24 hour statistics.
    pub ticker: bool,
}

/// An instrument of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedInstrument {
    /// Its index in the table.
    pub idx: InstrumentIdx,
    /// Levels a side of its snapshots.
    pub snapshot_levels: usize,
    /// Depth speed.
    pub depth: DepthSpeed,
}

/// One endpoint class of a shard, with the streams of its line or lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// The class.
    pub class: EndpointClass,
    /// The streams; they may belong to instruments of other shards where small classes are packed together.
    pub streams: Vec<StreamSpec>,
    /// One line, or two.
    pub redundancy: Redundancy,
}

/// One shard: a stream actor with its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Stable id, such as `binance-spot-high-0`.
    pub id: String,
    /// Tier.
    pub tier: Tier,
    /// Its instruments.
    pub instruments: Vec<PlannedInstrument>,
    /// Its endpoint classes.
    pub endpoints: Vec<EndpointPlan>,
}

impl ShardPlan {
    /// Sockets that the shard opens.
    pub fn sockets(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.redundancy.lines()).sum()
    }

    /// True when a line of it carries streams of this instrument, its own or another shard's.
    pub fn carries(&self, idx: InstrumentIdx) -> bool {
        self.endpoints.iter().flat_map(|endpoint| &endpoint.streams).any(|stream| stream.instrument == idx)
    }

    /// Streams on all its lines.
    pub fn streams(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.streams.len() * endpoint.redundancy.lines()).sum()
    }
}

/// The plan of one venue and market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketPlan {
    /// Venue.
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// Shards.
    pub shards: Vec<ShardPlan>,
    /// REST weight of one snapshot of each book.
    pub snapshot_weight: u32,
    /// REST weight of everything else that a start asks for.
    pub startup_weight: u32,
    /// Weight a minute that the venue allows.
    pub weight_per_minute: u32,
}

impl MarketPlan {
    /// Sockets of all shards.
    pub fn sockets(&self) -> usize {
        self.shards.iter().map(ShardPlan::sockets).sum()
    }

    /// Instruments of all shards.
    pub fn instruments(&self) -> usize {
        self.shards.iter().map(|shard| shard.instruments.len()).sum()
    }

    /// The shard that an instrument belongs to, with its place in the plan.
    pub fn home(&self, idx: InstrumentIdx) -> Option<(&ShardPlan, &PlannedInstrument)> {
        self.shards.iter().find_map(|shard| {
            let planned = shard.instruments.iter().find(|planned| planned.idx == idx)?;
            Some((shard, planned))
        })
    }
}

/// Why there is no plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// A tier without room.
    #[error("tier {0} has zero symbols a shard")]
    EmptyShards(&'static str),
    /// There is no tier to put an instrument into.
    #[error("tier {0} is not configured")]
    NoTier(&'static str),
    /// An instrument that the table does not know.
    #[error("there is no instrument with index {0}")]
    UnknownInstrument(u32),
    /// A class of a shard does not fit a socket.
    #[error(
        "shard {shard} needs {streams} {class} streams on one socket, the venue allows {limit}: lower per_shard"
    )]
    TooManyStreams {
        /// The shard.
        shard: String,
        /// The class.
        class: &'static str,
        /// Streams needed.
        streams: usize,
        /// Streams allowed.
        limit: usize,
    },
    /// Even packed, there are too many sockets.
    #[error("{venue} {market} needs {sockets} sockets, {limit} are allowed: raise per_shard, or lower lines")]
    TooManySockets {
        /// Venue.
        venue: VenueId,
        /// Market.
        market: Market,
        /// Sockets needed.
        sockets: usize,
        /// Sockets allowed.
        limit: usize,
    },
}
/// Counts streams by channel, for people.
pub fn channels(streams: &[StreamSpec]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for stream in streams {
        *counts.entry(stream.channel.as_str()).or_default() += 1;
    }
    counts
}
