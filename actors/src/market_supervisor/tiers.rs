//! Tiers by 24 hour volume, with hysteresis: a symbol rises only when it is well beyond the weakest of the tier above, at two
//! readings one after the other; that one then takes its place. Pure.

use std::collections::BTreeSet;

use fathom_market::instrument::InstrumentIdx;
use fathom_venues::planner::{Tier, TierSpec};
use rust_decimal::Decimal;

/// A collected symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its index.
    pub idx: InstrumentIdx,
    /// Its tier now.
    pub tier: Tier,
    /// Its 24 hour quote volume.
    pub volume: Decimal,
    /// True when an operator chose its tier: it stays.
    pub fixed: bool,
}

/// Who was to rise at the last reading.
#[derive(Clone, Debug, Default)]
pub struct Rising(BTreeSet<(InstrumentIdx, Tier)>);

impl Rising {
    /// The moves that this reading confirms.
    pub fn moves(&mut self, now: &[Ranked], tiers: &[TierSpec]) -> Vec<(InstrumentIdx, Tier)> {
        let (mut wanted, mut scratch) = (BTreeSet::new(), now.to_vec());
        improve(&mut scratch, tiers, |rise| {
            wanted.insert(rise);
            true
        });
        let mut moved = now.to_vec();
        improve(&mut moved, tiers, |rise| wanted.contains(&rise) && self.0.contains(&rise));
        self.0 = wanted;
        let changed = now.iter().zip(&moved).filter(|(before, after)| before.tier != after.tier);
        changed.map(|(_, after)| (after.idx, after.tier)).collect()
    }
}

/// Lets symbols rise that may, the best first, tier by tier.
fn improve(all: &mut [Ranked], tiers: &[TierSpec], mut may: impl FnMut((InstrumentIdx, Tier)) -> bool) {
    for (position, spec) in tiers.iter().enumerate() {
        let lower: Vec<Tier> = tiers.iter().skip(position + 1).map(|spec| spec.tier).collect();
        let mut refused = BTreeSet::new();
        // Each turn moves or refuses one symbol.
        for _ in 0..all.len() {
            let below = |one: &Ranked| lower.contains(&one.tier) && !one.fixed && !refused.contains(&one.idx);
            let Some(best) = position_by(all, below, Decimal::gt) else { break };
            let count = all.iter().filter(|one| one.tier == spec.tier).count();
            let weakest = position_by(all, |one| one.tier == spec.tier && !one.fixed, Decimal::lt);
            let swap = if count < spec.symbols { None } else { weakest };
            let may_enter = match swap {
                Some(weakest) => is_well_beyond(all[best].volume, all[weakest].volume),
                None => count < spec.symbols,
            };
            if !may_enter {
                break;
            }
            if !may((all[best].idx, spec.tier)) {
                refused.insert(all[best].idx);
                continue;
            }
            if let Some(weakest) = swap {
                all[weakest].tier = all[best].tier;
            }
            all[best].tier = spec.tier;
        }
    }
}

/// More than a fifth beyond.
fn is_well_beyond(one: Decimal, other: Decimal) -> bool {
    one.saturating_mul(Decimal::from(5)) > other.saturating_mul(Decimal::from(6))
}

fn position_by(
    all: &[Ranked],
    candidate: impl Fn(&Ranked) -> bool,
    is_better: impl Fn(&Decimal, &Decimal) -> bool,
) -> Option<usize> {
    let mut found: Option<usize> = None;
    for (at, one) in all.iter().enumerate().filter(|(_, one)| candidate(one)) {
        if found.is_none_or(|before| is_better(&one.volume, &all[before].volume)) {
            found = Some(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use fathom_market::plan::DepthSpeed;
    use fathom_venues::planner::Redundancy;

    use super::*;

    fn tiers(high: usize, medium: usize) -> Vec<TierSpec> {
        let spec = |tier, symbols| TierSpec {
            tier,
            symbols,
            per_shard: 5,
            depth: DepthSpeed::Slow,
            snapshot_levels: 100,
            redundancy: Redundancy::Single,
        };
        vec![spec(Tier::High, high), spec(Tier::Medium, medium), spec(Tier::Low, 100)]
    }

    fn ranked(all: &[(Tier, i64)]) -> Vec<Ranked> {
        let one = |(idx, &(tier, volume)): (u32, &(Tier, i64))| Ranked {
            idx: InstrumentIdx(idx),
            tier,
            volume: volume.into(),
            fixed: false,
        };
        (0..).zip(all).map(one).collect()
    }

    use Tier::{High, Low, Medium};

    #[test]
    fn a_symbol_rises_when_it_is_well_beyond_twice_and_the_weakest_takes_its_place() {
        let (mut rising, tiers) = (Rising::default(), tiers(2, 1));
        let near = ranked(&[(High, 300), (High, 100), (Medium, 119), (Low, 10)]);
        for _ in 0..3 {
            assert_eq!(rising.moves(&near, &tiers), [], "within a fifth");
        }
        let far = ranked(&[(High, 300), (High, 100), (Medium, 121), (Low, 10)]);
        assert_eq!(rising.moves(&far, &tiers), [], "the first reading");
        assert_eq!(rising.moves(&near, &tiers), [], "it went back");
        assert_eq!(rising.moves(&far, &tiers), [], "the first again");
        let both = [(InstrumentIdx(1), Medium), (InstrumentIdx(2), High)];
        assert_eq!(rising.moves(&far, &tiers), both);
    }

    #[test]
    fn sizes_stay_and_free_places_are_filled() {
        let (mut rising, tiers) = (Rising::default(), tiers(2, 2));
        let now = ranked(&[(High, 1), (Medium, 2), (Medium, 3), (Low, 900), (Low, 800), (Low, 700)]);
        assert_eq!(rising.moves(&now, &tiers), []);
        let mut after = now.clone();
        for (idx, tier) in rising.moves(&now, &tiers) {
            after[idx.0 as usize].tier = tier;
        }
        let of = |tier| after.iter().filter(|one| one.tier == tier).map(|one| one.idx.0).collect::<Vec<_>>();
        assert_eq!((of(High), of(Medium)), (vec![3, 4], vec![2, 5]));
    }

    #[test]
    fn a_chosen_tier_stays() {
        let (mut rising, tiers) = (Rising::default(), tiers(1, 1));
        let mut now = ranked(&[(High, 1), (Low, 900)]);
        now[0].fixed = true;
        rising.moves(&now, &tiers);
        assert_eq!(rising.moves(&now, &tiers), [(InstrumentIdx(1), Medium)], "the high tier is taken");
        now[1].fixed = true;
        rising.moves(&now, &tiers);
        assert_eq!(rising.moves(&now, &tiers), []);
    }
}
