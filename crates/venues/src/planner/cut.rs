//! The plan of a start: instruments are cut into shards in their order, and where that takes too many sockets, classes
//! without depth are packed together.

use std::collections::BTreeMap;

use fathom_market::{
    instrument::InstrumentIdx,
    plan::{EndpointClass, StreamSpec},
};

use super::{EndpointPlan, MarketPlan, PlanError, PlanInput, PlannedInstrument, ShardPlan, Tier, TierSpec};
use crate::venue::Wanted;

/// Symbols for which a venue's socket allowance is meant; more symbols get proportionally more sockets.
const ALLOWANCE_SYMBOLS: usize = 200;

/// Plans the shards of one venue and market.
///
/// # Errors
/// When the tiers cannot be met within the venue's limits; the message says what to change.
pub fn plan(input: &PlanInput<'_>) -> Result<MarketPlan, PlanError> {
    let mut shards = cut_into_shards(input)?;
    let limits = input.venue.socket_limits(input.market);
    let allowed = sockets_allowed(input, input.table.len());
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

/// Sockets that we allow ourselves for this many instruments.
pub(super) fn sockets_allowed(input: &PlanInput<'_>, instruments: usize) -> usize {
    let limit = input.venue.socket_limits(input.market).sockets_per_market;
    limit.max((limit * instruments).div_ceil(ALLOWANCE_SYMBOLS))
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
    let mut by_class = streams_by_class(input, spec, chunk);
    let endpoints = input
        .venue
        .classes(input.market)
        .iter()
        .filter_map(|&class| {
            let streams = by_class.remove(&class)?;
            Some(EndpointPlan { class, streams, redundancy: spec.redundancy })
        })
        .collect();
    let instruments = chunk.iter().map(|&idx| planned(spec, idx)).collect();
    ShardPlan { id: shard_id(input, spec.tier, number), tier: spec.tier, instruments, endpoints }
}

pub(super) fn shard_id(input: &PlanInput<'_>, tier: Tier, number: usize) -> String {
    format!("{}-{}-{}-{number}", input.venue.id(), input.market, tier.as_str())
}

pub(super) const fn planned(spec: &TierSpec, idx: InstrumentIdx) -> PlannedInstrument {
    PlannedInstrument { idx, snapshot_levels: spec.snapshot_levels, depth: spec.depth }
}

/// The streams of these instruments in a tier.
pub(super) fn streams_by_class(
    input: &PlanInput<'_>,
    spec: &TierSpec,
    chunk: &[InstrumentIdx],
) -> BTreeMap<EndpointClass, Vec<StreamSpec>> {
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
    by_class
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

pub(super) fn snapshot_weight(input: &PlanInput<'_>, shards: &[ShardPlan]) -> u32 {
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
