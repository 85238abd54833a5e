//! Turns instruments and tiers into shards: which sockets, which streams on each, and what a cold start costs. Pure;
//! `fathom plan` prints it before anything connects.

use std::collections::BTreeMap;

use fathom_market::{
    ids::{Market, VenueId},
    instrument::{InstrumentIdx, InstrumentTable},
    plan::{DepthSpeed, EndpointClass, StreamSpec},
    timeframe::Timeframe,
};
use thiserror::Error;

use crate::venue::{Venue, Wanted};

/// Symbols for which a venue's socket allowance is meant; more symbols get proportionally more sockets.
const ALLOWANCE_SYMBOLS: usize = 200;

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
}

/// Why there is no plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// A tier without room.
    #[error("tier {0} has zero symbols a shard")]
    EmptyShards(&'static str),
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

/// Plans the shards of one venue and market.
///
/// # Errors
/// When the tiers cannot be met within the venue's limits; the message says what to change.
pub fn plan(input: &PlanInput<'_>) -> Result<MarketPlan, PlanError> {
    let mut shards = cut_into_shards(input)?;
    let limits = input.venue.socket_limits(input.market);
    let allowed = limits
        .sockets_per_market
        .max((limits.sockets_per_market * input.table.len()).div_ceil(ALLOWANCE_SYMBOLS));
    if sockets(&shards) > allowed {
        pack_secondary_classes(&mut shards, allowed, limits.streams_per_socket);
    }
    if sockets(&shards) > allowed {
        return Err(PlanError::TooManySockets {
            venue: input.venue.id(),
            market: input.market,
            sockets: sockets(&shards),
            limit: allowed,
        });
    }
    for shard in &shards {
        for endpoint in &shard.endpoints {
            if endpoint.streams.len() > limits.streams_per_socket {
                return Err(PlanError::TooManyStreams {
                    shard: shard.id.clone(),
                    class: endpoint.class.as_str(),
                    streams: endpoint.streams.len(),
                    limit: limits.streams_per_socket,
                });
            }
        }
    }
    Ok(MarketPlan {
        venue: input.venue.id(),
        market: input.market,
        snapshot_weight: snapshot_weight(input, &shards),
        startup_weight: startup_weight(input),
        weight_per_minute: weight_per_minute(input),
        shards,
    })
}

fn sockets(shards: &[ShardPlan]) -> usize {
    shards.iter().map(ShardPlan::sockets).sum()
}

fn cut_into_shards(input: &PlanInput<'_>) -> Result<Vec<ShardPlan>, PlanError> {
    let mut rest: Vec<InstrumentIdx> = input.table.iter().map(|(idx, _)| idx).collect();
    let mut shards = Vec::new();
    let last = input.tiers.len().saturating_sub(1);
    for (position, spec) in input.tiers.iter().enumerate() {
        if spec.per_shard == 0 {
            return Err(PlanError::EmptyShards(spec.tier.as_str()));
        }
        let take = if position == last { rest.len() } else { spec.symbols.min(rest.len()) };
        let taken: Vec<InstrumentIdx> = rest.drain(..take).collect();
        for (number, chunk) in taken.chunks(spec.per_shard).enumerate() {
            shards.push(shard(input, spec, number, chunk));
        }
    }
    Ok(shards)
}

fn shard(input: &PlanInput<'_>, spec: &TierSpec, number: usize, chunk: &[InstrumentIdx]) -> ShardPlan {
    let wanted = Wanted {
        timeframes: input.timeframes.to_vec(),
        depth: spec.depth,
        raw_trades: input.raw_trades,
        ticker: input.ticker,
    };
    let mut by_class: BTreeMap<EndpointClass, Vec<StreamSpec>> = BTreeMap::new();
    for &idx in chunk {
        let Some(instrument) = input.table.get(idx) else { continue };
        for stream in input.venue.streams(instrument, idx, &wanted) {
            by_class.entry(stream.class).or_default().push(stream);
        }
    }
    let endpoints = input
        .venue
        .classes(input.market)
        .iter()
        .filter_map(|&class| {
            let streams = by_class.remove(&class)?;
            Some(EndpointPlan { class, streams, redundancy: spec.redundancy })
        })
        .collect();
    ShardPlan {
        id: format!("{}-{}-{}-{number}", input.venue.id(), input.market, spec.tier.as_str()),
        tier: spec.tier,
        instruments: chunk
            .iter()
            .map(|&idx| PlannedInstrument { idx, snapshot_levels: spec.snapshot_levels, depth: spec.depth })
            .collect(),
        endpoints,
    }
}

/// Moves the classes that do not carry depth onto fewer sockets: a shard hosts the line of itself and of its
/// followers, as evenly filled as the order of shards allows.
fn pack_secondary_classes(shards: &mut [ShardPlan], allowed: usize, streams_per_socket: usize) {
    let primary: usize =
        shards.iter().filter_map(|shard| shard.endpoints.first()).map(|e| e.redundancy.lines()).sum();
    let classes: Vec<EndpointClass> = shards
        .iter()
        .flat_map(|shard| shard.endpoints.iter().skip(1).map(|endpoint| endpoint.class))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let room = allowed.saturating_sub(primary) / classes.len().max(1);
    for class in classes {
        let lines = shards
            .iter()
            .flat_map(|s| &s.endpoints)
            .find(|e| e.class == class)
            .map_or(1, |e| e.redundancy.lines());
        pack_class(shards, class, (room / lines).max(1), streams_per_socket);
    }
}

fn pack_class(shards: &mut [ShardPlan], class: EndpointClass, sockets: usize, streams_per_socket: usize) {
    let total: usize =
        shards.iter().flat_map(|s| &s.endpoints).filter(|e| e.class == class).map(|e| e.streams.len()).sum();
    let target = total.div_ceil(sockets).min(streams_per_socket);
    let mut host: Option<(usize, usize)> = None;
    let mut hosts_left = sockets;
    for at in 0..shards.len() {
        let Some(position) = shards[at].endpoints.iter().position(|endpoint| endpoint.class == class) else {
            continue;
        };
        let count = shards[at].endpoints[position].streams.len();
        match host {
            Some((host_shard, filled)) if fits(filled, count, target, streams_per_socket, hosts_left) => {
                let moved = shards[at].endpoints.remove(position).streams;
                if let Some(line) =
                    shards[host_shard].endpoints.iter_mut().find(|endpoint| endpoint.class == class)
                {
                    line.streams.extend(moved);
                }
                host = Some((host_shard, filled + count));
            }
            _ => {
                host = Some((at, count));
                hosts_left = hosts_left.saturating_sub(1);
            }
        }
    }
}

/// A line takes another shard's streams while it stays near the even share, or when no further line may be opened.
fn fits(filled: usize, count: usize, target: usize, limit: usize, hosts_left: usize) -> bool {
    let after = filled + count;
    after <= limit && (after <= target || hosts_left == 0)
}

fn snapshot_weight(input: &PlanInput<'_>, shards: &[ShardPlan]) -> u32 {
    shards
        .iter()
        .flat_map(|shard| &shard.instruments)
        .filter_map(|planned| {
            let instrument = input.table.get(planned.idx)?;
            Some(input.venue.snapshot_request(instrument, planned.snapshot_levels).0.weight)
        })
        .sum()
}

fn startup_weight(input: &PlanInput<'_>) -> u32 {
    input.venue.instruments_request(input.market).weight + input.venue.time_request(input.market).weight
}

fn weight_per_minute(input: &PlanInput<'_>) -> u32 {
    input.venue.budget_rules(input.market).first().map_or(0, |rule| {
        let windows = 60_000 / rule.window.as_millis().clamp(1, 60_000);
        rule.capacity.saturating_mul(u32::try_from(windows).unwrap_or(1))
    })
}

/// Counts streams by channel, for people.
pub fn channels(streams: &[StreamSpec]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for stream in streams {
        *counts.entry(stream.channel.as_str()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use fathom_market::instrument::Instrument;
    use rust_decimal::Decimal;

    use super::*;
    use crate::binance::Binance;

    fn table(market: Market, count: usize) -> InstrumentTable {
        let instruments = (0..count).map(|number| {
            let (base, venue) = (format!("A{number}"), Binance.id());
            let native = format!("{base}USDT");
            Instrument {
                id: fathom_market::ids::InstrumentId::derive(venue, market, &native),
                venue,
                market,
                unified: format!("{base}/USDT").into(),
                native: native.into(),
                base: base.into(),
                quote: "USDT".into(),
                settle: None,
                kind: fathom_market::instrument::InstrumentKind::Spot,
                status: fathom_market::instrument::InstrumentStatus::Trading,
                tick_size: Decimal::ONE,
                lot_size: Decimal::ONE,
                contract_size: Decimal::ONE,
                price_scale: 2,
                qty_scale: 2,
                valid_from_us: 0,
            }
        });
        InstrumentTable::new(instruments).unwrap()
    }

    fn tiers() -> Vec<TierSpec> {
        let tier = |tier, symbols, per_shard, depth, snapshot_levels| TierSpec {
            tier,
            symbols,
            per_shard,
            depth,
            snapshot_levels,
            redundancy: Redundancy::Single,
        };
        vec![
            tier(Tier::High, 20, 5, DepthSpeed::Fast, 5000),
            tier(Tier::Medium, 40, 20, DepthSpeed::Slow, 1000),
            tier(Tier::Low, 140, 50, DepthSpeed::Slow, 500),
        ]
    }

    fn planned(market: Market, count: usize, tiers: &[TierSpec]) -> Result<MarketPlan, PlanError> {
        let table = table(market, count);
        plan(&PlanInput {
            venue: &Binance,
            market,
            table: &table,
            tiers,
            timeframes: &Timeframe::DEFAULT,
            raw_trades: false,
            ticker: true,
        })
    }

    #[test]
    fn two_hundred_spot_symbols_are_nine_shards() {
        let plan = planned(Market::Spot, 200, &tiers()).unwrap();
        assert_eq!((plan.shards.len(), plan.sockets(), plan.instruments()), (9, 9, 200));
        assert_eq!(plan.snapshot_weight, 10_500);
        assert_eq!(plan.shards[8].instruments.len(), 40);
    }

    #[test]
    fn two_hundred_futures_symbols_stay_within_thirteen_sockets() {
        let plan = planned(Market::Futures, 200, &tiers()).unwrap();
        assert_eq!((plan.shards.len(), plan.sockets()), (9, 13));
        let limit = Binance.socket_limits(Market::Futures).streams_per_socket;
        let endpoints: Vec<_> = plan.shards.iter().flat_map(|shard| &shard.endpoints).collect();
        assert!(endpoints.iter().all(|endpoint| endpoint.streams.len() <= limit));
        // Packing moves streams and loses none.
        let names: std::collections::BTreeSet<_> =
            endpoints.iter().flat_map(|e| &e.streams).map(|s| &s.name).collect();
        let single = planned(Market::Futures, 20, &tiers()).unwrap();
        let per_symbol = single.shards.iter().map(ShardPlan::streams).sum::<usize>() / 20;
        assert_eq!(names.len(), per_symbol * 200);
    }

    #[test]
    fn five_hundred_symbols_get_proportionally_more_sockets() {
        let plan = planned(Market::Futures, 500, &tiers()).unwrap();
        assert!(plan.sockets() <= 33, "{}", plan.sockets());
        assert_eq!(plan.instruments(), 500);
    }

    #[test]
    fn what_does_not_fit_says_what_to_change() {
        let mut crowded = tiers();
        crowded[2].per_shard = 140;
        let error = planned(Market::Spot, 200, &crowded).unwrap_err();
        assert!(error.to_string().contains("lower per_shard"), "{error}");
        crowded[2].per_shard = 0;
        assert_eq!(planned(Market::Spot, 200, &crowded), Err(PlanError::EmptyShards("low")));
    }
}
