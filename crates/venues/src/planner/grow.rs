//! Changes of a plan in force. What is not named by a change keeps its shard, its line and its place: nothing else has to
//! be subscribed again.

use std::collections::BTreeMap;

use fathom_market::{
    instrument::InstrumentIdx,
    plan::{EndpointClass, StreamSpec},
};

use super::{
    EndpointPlan, MarketPlan, PlanError, PlanInput, ShardPlan, Tier, TierSpec,
    cut::{planned, shard_id, snapshot_weight, sockets_allowed, streams_by_class},
};

/// Puts an instrument of the table into a shard of its tier that has room, or into a new one. Without a tier it goes into
/// the first that has room by its configuration, at last into the last. One that is planned already changes nothing.
///
/// # Errors
/// When no line may take its streams within the venue's limits.
pub fn add(
    plan: &MarketPlan,
    input: &PlanInput<'_>,
    idx: InstrumentIdx,
    tier: Option<Tier>,
) -> Result<MarketPlan, PlanError> {
    if plan.home(idx).is_some() {
        return Ok(plan.clone());
    }
    if input.table.get(idx).is_none() {
        return Err(PlanError::UnknownInstrument(idx.0));
    }
    let spec = tier_for(plan, input, tier)?;
    if spec.per_shard == 0 {
        return Err(PlanError::EmptyShards(spec.tier.as_str()));
    }
    let mut next = plan.clone();
    let mut growth = Growth {
        input,
        spec,
        limit: input.venue.socket_limits(input.market).streams_per_socket,
        allowed: sockets_allowed(input, plan.instruments() + 1),
        plan: &mut next,
    };
    growth.take(idx)?;
    next.snapshot_weight = snapshot_weight(input, &next.shards);
    Ok(next)
}

/// Takes an instrument out. Lines that carry nothing any more, and shards without a line, are gone.
pub fn remove(plan: &MarketPlan, input: &PlanInput<'_>, idx: InstrumentIdx) -> MarketPlan {
    let mut next = plan.clone();
    for shard in &mut next.shards {
        shard.instruments.retain(|planned| planned.idx != idx);
        for endpoint in &mut shard.endpoints {
            endpoint.streams.retain(|stream| stream.instrument != idx);
        }
        shard.endpoints.retain(|endpoint| !endpoint.streams.is_empty());
    }
    next.shards.retain(|shard| !shard.endpoints.is_empty());
    next.snapshot_weight = snapshot_weight(input, &next.shards);
    next
}

/// Moves an instrument into another tier.
///
/// # Errors
/// As [`add`]; the plan in force then stands.
pub fn change_tier(
    plan: &MarketPlan,
    input: &PlanInput<'_>,
    idx: InstrumentIdx,
    tier: Tier,
) -> Result<MarketPlan, PlanError> {
    match plan.home(idx) {
        Some((shard, _)) if shard.tier == tier => Ok(plan.clone()),
        _ => add(&remove(plan, input, idx), input, idx, Some(tier)),
    }
}

fn tier_for<'a>(
    plan: &MarketPlan,
    input: &PlanInput<'a>,
    tier: Option<Tier>,
) -> Result<&'a TierSpec, PlanError> {
    if let Some(tier) = tier {
        let named = input.tiers.iter().find(|spec| spec.tier == tier);
        return named.ok_or(PlanError::NoTier(tier.as_str()));
    }
    let filled = |tier: Tier| -> usize {
        plan.shards.iter().filter(|shard| shard.tier == tier).map(|shard| shard.instruments.len()).sum()
    };
    let free = input.tiers.iter().find(|spec| filled(spec.tier) < spec.symbols);
    free.or(input.tiers.last()).ok_or(PlanError::NoTier("low"))
}

/// A plan while it takes one instrument.
struct Growth<'a, 'p> {
    input: &'a PlanInput<'a>,
    spec: &'a TierSpec,
    limit: usize,
    allowed: usize,
    plan: &'p mut MarketPlan,
}

impl Growth<'_, '_> {
    fn take(&mut self, idx: InstrumentIdx) -> Result<(), PlanError> {
        let mut streams = streams_by_class(self.input, self.spec, &[idx]);
        let (home, is_new) = self.home(&streams);
        for &class in self.input.venue.classes(self.input.market) {
            if let Some(streams) = streams.remove(&class) {
                self.place(home, is_new, class, streams)?;
            }
        }
        self.plan.shards[home].instruments.push(planned(self.spec, idx));
        Ok(())
    }

    /// The first shard of the tier with room for one more, or a new one.
    fn home(&mut self, streams: &BTreeMap<EndpointClass, Vec<StreamSpec>>) -> (usize, bool) {
        let first = self.input.venue.classes(self.input.market).first();
        let more = first.and_then(|class| streams.get(class)).map_or(0, Vec::len);
        let has_room = |shard: &ShardPlan| {
            let depth = shard.endpoints.iter().find(|endpoint| Some(&endpoint.class) == first);
            shard.tier == self.spec.tier
                && shard.instruments.len() < self.spec.per_shard
                && depth.is_none_or(|endpoint| endpoint.streams.len() + more <= self.limit)
        };
        if let Some(at) = self.plan.shards.iter().position(has_room) {
            return (at, false);
        }
        let id = self.free_id();
        self.plan.shards.push(ShardPlan {
            id,
            tier: self.spec.tier,
            instruments: Vec::new(),
            endpoints: Vec::new(),
        });
        (self.plan.shards.len() - 1, true)
    }

    fn free_id(&self) -> String {
        let taken = |id: &String| self.plan.shards.iter().any(|shard| shard.id == *id);
        let ids = (0..=self.plan.shards.len()).map(|number| shard_id(self.input, self.spec.tier, number));
        // One more number than there are shards: one of them is free.
        ids.into_iter().find(|id| !taken(id)).unwrap_or_default()
    }

    /// Puts the streams of one class on the shard's own line, on the one that carries this class for the shard's other
    /// instruments, on a new line, or on any with room, whichever comes first.
    fn place(
        &mut self,
        home: usize,
        is_new: bool,
        class: EndpointClass,
        streams: Vec<StreamSpec>,
    ) -> Result<(), PlanError> {
        let own = self.fits(home, class, streams.len()).then_some(home);
        let host = own.or_else(|| if is_new { None } else { self.host(home, class, streams.len()) });
        if let Some(at) = host {
            self.put(at, class, streams);
            return Ok(());
        }
        if self.plan.sockets() + self.spec.redundancy.lines() <= self.allowed && !self.has(home, class) {
            self.put(home, class, streams);
            return Ok(());
        }
        let is_depth = self.input.venue.classes(self.input.market).first() == Some(&class);
        let any = (0..self.plan.shards.len()).find(|&at| !is_depth && self.fits(at, class, streams.len()));
        let at = any.ok_or_else(|| self.too_many())?;
        self.put(at, class, streams);
        Ok(())
    }

    fn has(&self, at: usize, class: EndpointClass) -> bool {
        self.plan.shards[at].endpoints.iter().any(|endpoint| endpoint.class == class)
    }

    fn fits(&self, at: usize, class: EndpointClass, more: usize) -> bool {
        let line = self.plan.shards[at].endpoints.iter().find(|endpoint| endpoint.class == class);
        line.is_some_and(|line| line.streams.len() + more <= self.limit)
    }

    /// The shard whose line of this class carries streams of the instruments that live in `home`.
    fn host(&self, home: usize, class: EndpointClass, more: usize) -> Option<usize> {
        let neighbours = &self.plan.shards[home].instruments;
        let carries = |shard: &ShardPlan| {
            let lines = shard.endpoints.iter().filter(|endpoint| endpoint.class == class);
            lines
                .flat_map(|line| &line.streams)
                .any(|stream| neighbours.iter().any(|neighbour| neighbour.idx == stream.instrument))
        };
        (0..self.plan.shards.len()).find(|&at| self.fits(at, class, more) && carries(&self.plan.shards[at]))
    }

    fn put(&mut self, at: usize, class: EndpointClass, streams: Vec<StreamSpec>) {
        let order = self.input.venue.classes(self.input.market);
        let endpoints = &mut self.plan.shards[at].endpoints;
        if let Some(line) = endpoints.iter_mut().find(|endpoint| endpoint.class == class) {
            line.streams.extend(streams);
            return;
        }
        endpoints.push(EndpointPlan { class, streams, redundancy: self.spec.redundancy });
        endpoints.sort_by_key(|endpoint| order.iter().position(|class| *class == endpoint.class));
    }

    fn too_many(&self) -> PlanError {
        PlanError::TooManySockets {
            venue: self.input.venue.id(),
            market: self.input.market,
            sockets: self.plan.sockets() + self.spec.redundancy.lines(),
            limit: self.allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fathom_market::{ids::Market, timeframe::Timeframe};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        binance::Binance,
        planner::{
            plan,
            tests::{table, tiers},
        },
    };

    /// Where everything is: instruments by shard, and streams by shard and class.
    fn places(plan: &MarketPlan, without: &[InstrumentIdx]) -> BTreeSet<(u32, String, String)> {
        let mut places = BTreeSet::new();
        for shard in &plan.shards {
            for planned in shard.instruments.iter().filter(|planned| !without.contains(&planned.idx)) {
                places.insert((planned.idx.0, shard.id.clone(), format!("{planned:?}")));
            }
            for endpoint in &shard.endpoints {
                for stream in endpoint.streams.iter().filter(|one| !without.contains(&one.instrument)) {
                    let line = format!("{} {}", endpoint.class.as_str(), stream.name);
                    places.insert((stream.instrument.0, shard.id.clone(), line));
                }
            }
        }
        places
    }

    fn check(plan: &MarketPlan, input: &PlanInput<'_>, expected: &BTreeSet<InstrumentIdx>) {
        let homes: Vec<_> =
            plan.shards.iter().flat_map(|shard| &shard.instruments).map(|planned| planned.idx).collect();
        assert_eq!(homes.len(), expected.len());
        assert_eq!(homes.iter().copied().collect::<BTreeSet<_>>(), *expected, "each has one home");
        let limits = input.venue.socket_limits(input.market);
        let mut names: Vec<&str> = Vec::new();
        for shard in &plan.shards {
            let spec = input.tiers.iter().find(|spec| spec.tier == shard.tier).unwrap();
            assert!(shard.instruments.len() <= spec.per_shard);
            assert!(!shard.endpoints.is_empty(), "a shard has a line");
            for endpoint in &shard.endpoints {
                assert!((1..=limits.streams_per_socket).contains(&endpoint.streams.len()));
                names.extend(endpoint.streams.iter().map(|stream| stream.name.as_str()));
            }
        }
        let ids: BTreeSet<&String> = plan.shards.iter().map(|shard| &shard.id).collect();
        assert_eq!(ids.len(), plan.shards.len(), "ids are unique");
        let mut wanted: Vec<String> = Vec::new();
        for (shard, idx) in expected.iter().map(|idx| (plan.home(*idx).unwrap().0, *idx)) {
            let spec = input.tiers.iter().find(|spec| spec.tier == shard.tier).unwrap();
            let streams = streams_by_class(input, spec, &[idx]).into_values().flatten();
            wanted.extend(streams.map(|stream| stream.name));
        }
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "every stream once, and no other");
    }

    #[derive(Clone, Debug)]
    enum Change {
        Add(u32, Option<Tier>),
        Remove(u32),
        Move(u32, Tier),
    }

    fn change() -> impl Strategy<Value = Change> {
        let tier = prop_oneof![Just(Tier::High), Just(Tier::Medium), Just(Tier::Low)];
        prop_oneof![
            (0_u32..90, proptest::option::of(tier.clone())).prop_map(|(idx, tier)| Change::Add(idx, tier)),
            (0_u32..90).prop_map(Change::Remove),
            (0_u32..90, tier).prop_map(|(idx, tier)| Change::Move(idx, tier)),
        ]
    }

    proptest! {
        #[test]
        fn a_change_touches_nothing_but_its_instrument(
            market in prop_oneof![Just(Market::Spot), Just(Market::Futures)],
            begin in 1_usize..80,
            changes in proptest::collection::vec(change(), 1..60),
        ) {
            let (all, first, tiers) = (table(market, 90), table(market, begin), tiers());
            let timeframes = Timeframe::DEFAULT;
            let input = |table| PlanInput {
                venue: &Binance, market, table, tiers: &tiers, timeframes: &timeframes, raw_trades: false, ticker: true,
            };
            let mut now = plan(&input(&first)).unwrap();
            let mut expected: BTreeSet<_> = first.iter().map(|(idx, _)| idx).collect();
            let input = input(&all);
            for change in changes {
                let (idx, next) = match change {
                    Change::Add(idx, tier) => (InstrumentIdx(idx), add(&now, &input, InstrumentIdx(idx), tier)),
                    Change::Remove(idx) => (InstrumentIdx(idx), Ok(remove(&now, &input, InstrumentIdx(idx)))),
                    Change::Move(idx, tier) => {
                        (InstrumentIdx(idx), change_tier(&now, &input, InstrumentIdx(idx), tier))
                    }
                };
                let Ok(next) = next else {
                    prop_assert!(matches!(next, Err(PlanError::TooManySockets { .. })), "{:?}", next);
                    continue;
                };
                prop_assert_eq!(places(&now, &[idx]), places(&next, &[idx]));
                if matches!(change, Change::Remove(_)) { expected.remove(&idx); } else { expected.insert(idx); }
                check(&next, &input, &expected);
                prop_assert!(next.sockets() <= sockets_allowed(&input, next.instruments()).max(now.sockets()));
                now = next;
            }
        }
    }

    #[test]
    fn a_removed_symbol_leaves_room_that_the_next_one_takes() {
        let (all, first, tiers) = (table(Market::Spot, 61), table(Market::Spot, 60), tiers());
        let timeframes = Timeframe::DEFAULT;
        let input = |table| PlanInput {
            venue: &Binance,
            market: Market::Spot,
            table,
            tiers: &tiers,
            timeframes: &timeframes,
            raw_trades: false,
            ticker: true,
        };
        let full = plan(&input(&first)).unwrap();
        let (gone, new) = (InstrumentIdx(7), InstrumentIdx(60));
        let less = remove(&full, &input(&all), gone);
        assert_eq!((less.home(gone), less.instruments()), (None, 59));
        assert!(less.snapshot_weight < full.snapshot_weight);
        let again = add(&less, &input(&all), new, None).unwrap();
        assert_eq!(again.home(new).unwrap().0.id, full.home(gone).unwrap().0.id, "the high tier had room");
        assert_eq!(again.snapshot_weight, full.snapshot_weight);
        let low = add(&full, &input(&all), new, None).unwrap();
        assert_eq!(low.home(new).unwrap().0.id, "binance-spot-low-0", "a new shard where none has room");
        assert_eq!(low.shards.len(), full.shards.len() + 1);
        assert_eq!(remove(&low, &input(&all), new), full, "and it is gone with its last symbol");
        let unknown = add(&full, &input(&all), InstrumentIdx(99), None);
        assert_eq!(unknown, Err(PlanError::UnknownInstrument(99)));
    }
}
