//! From what is wanted and what the venue lists to the table and the plan; afterwards, to what has to change in them. Pure.

use std::cmp::Reverse;

use fathom_market::{
    instrument::{Instrument, InstrumentIdx, InstrumentStatus, InstrumentTable},
    table::InstrumentRow,
    timeframe::Timeframe,
};
use fathom_venues::planner::{self, MarketPlan, PlanInput, Tier};
use rust_decimal::Decimal;
use rustc_hash::{FxHashMap, FxHashSet};

use super::tiers::{Ranked, Rising};
use crate::{
    instruments::{Catalogue, Missing, pick, row, same_facts},
    limits::MAX_INSTRUMENTS,
    settings::MarketSettings,
    symbols::wishes::Wish,
};

/// 24 hour quote volumes by native symbol.
pub type Volumes = FxHashMap<String, Decimal>;

/// What a plan is made from.
pub struct Inputs<'a> {
    /// Venue, market, tiers.
    pub market: &'a MarketSettings,
    /// What is wanted, the most important first.
    pub wishes: &'a [Wish],
    /// What is listed.
    pub catalogue: &'a Catalogue,
    /// Volumes, where they decide the tiers and have just been read.
    pub volumes: Option<&'a Volumes>,
    /// Now, microseconds UTC.
    pub now_us: i64,
}

/// What is to be collected from now on.
pub struct Planned {
    /// The instruments.
    pub table: InstrumentTable,
    /// The plan.
    pub plan: MarketPlan,
    /// Wanted symbols that cannot be collected.
    pub missing: Vec<Missing>,
    /// Facts that are new, to be stored.
    pub rows: Vec<InstrumentRow>,
    /// What happened, for the log.
    pub news: Vec<String>,
}

impl Inputs<'_> {
    fn timeframes(&self) -> Vec<Timeframe> {
        let offered = self.market.venue.timeframes(self.market.market);
        self.market.timeframes.iter().copied().filter(|one| offered.contains(one)).collect()
    }

    fn plan_input<'t>(&'t self, table: &'t InstrumentTable, timeframes: &'t [Timeframe]) -> PlanInput<'t> {
        PlanInput {
            venue: self.market.venue,
            market: self.market.market,
            table,
            tiers: &self.market.tiers,
            timeframes,
            raw_trades: self.market.raw_trades,
            ticker: self.market.ticker,
        }
    }

    fn picked(&self) -> (Vec<&Instrument>, Vec<Missing>) {
        let (mut picked, missing) = pick(self.catalogue, self.wishes.iter().map(|wish| wish.symbol.as_str()));
        if let Some(volumes) = self.volumes {
            picked.sort_by_key(|instrument| Reverse(volumes.get(&*instrument.native).copied()));
        }
        (picked, missing)
    }

    /// The tiers that operators chose, by native symbol.
    fn chosen(&self) -> Chosen<'_> {
        let chosen =
            self.wishes.iter().filter_map(|wish| Some((self.catalogue.find(&wish.symbol)?, wish.tier?)));
        chosen.map(|(instrument, tier)| (&*instrument.native, tier)).collect()
    }
}

type Chosen<'a> = FxHashMap<&'a str, Tier>;

/// The first plan. Symbols fill the tiers in their order, those whose tier an operator chose after the others.
///
/// # Errors
/// When the tiers cannot be met within the venue's limits; the message says what to change.
pub fn first(inputs: &Inputs<'_>) -> Result<Planned, String> {
    let (picked, missing) = inputs.picked();
    let tiers = inputs.chosen();
    let (chosen, free): (Vec<&Instrument>, Vec<&Instrument>) =
        picked.into_iter().take(MAX_INSTRUMENTS).partition(|one| tiers.contains_key(&*one.native));
    let table = InstrumentTable::new(free.into_iter().cloned()).map_err(|clash| clash.to_string())?;
    let timeframes = inputs.timeframes();
    let plan = planner::plan(&inputs.plan_input(&table, &timeframes)).map_err(|error| error.to_string())?;
    let rows = table.iter().map(|(_, instrument)| row(instrument)).collect();
    let mut planned = Planned { table, plan, missing, rows, news: Vec::new() };
    for instrument in chosen {
        planned.take(inputs, &timeframes, instrument, &tiers);
    }
    planned.news.clear();
    Ok(planned)
}

/// The plan after a change of what is wanted or listed. What stays keeps its place.
pub fn next(table: &InstrumentTable, plan: &MarketPlan, inputs: &Inputs<'_>, rising: &mut Rising) -> Planned {
    let (picked, missing) = inputs.picked();
    let timeframes = inputs.timeframes();
    let mut planned =
        Planned { table: table.clone(), plan: plan.clone(), missing, rows: Vec::new(), news: Vec::new() };
    let wanted: FxHashSet<&str> = picked.iter().map(|instrument| &*instrument.native).collect();
    planned.leave(inputs, &timeframes, &wanted);
    let tiers = inputs.chosen();
    for instrument in picked {
        planned.take(inputs, &timeframes, instrument, &tiers);
    }
    if let Some(volumes) = inputs.volumes {
        planned.rank(inputs, &timeframes, volumes, &tiers, rising);
    }
    planned
}

impl Planned {
    /// Takes out what is not wanted, or not trading any more.
    fn leave(&mut self, inputs: &Inputs<'_>, timeframes: &[Timeframe], wanted: &FxHashSet<&str>) {
        let collected: Vec<InstrumentIdx> =
            self.plan.shards.iter().flat_map(|shard| &shard.instruments).map(|planned| planned.idx).collect();
        for idx in collected {
            let Some(instrument) = self.table.get(idx).cloned() else { continue };
            if wanted.contains(&*instrument.native) {
                continue;
            }
            self.plan = planner::remove(&self.plan, &inputs.plan_input(&self.table, timeframes), idx);
            let listed =
                inputs.catalogue.find(&instrument.native).filter(|one| one.native == instrument.native);
            let why = match listed {
                Some(listed) if listed.status == InstrumentStatus::Trading => "not wanted any more",
                Some(listed) => {
                    // It has its place in the table already and cannot clash.
                    let _ = self.note(listed.clone());
                    "not trading any more"
                }
                None => {
                    let gone = Instrument {
                        status: InstrumentStatus::Other,
                        valid_from_us: inputs.now_us,
                        ..Instrument::clone(&instrument)
                    };
                    let _ = self.note(gone);
                    "not listed any more"
                }
            };
            self.news.push(format!("{} removed: {why}", instrument.native));
        }
    }

    /// Takes an instrument that is wanted and trades, with its present facts.
    fn take(
        &mut self,
        inputs: &Inputs<'_>,
        timeframes: &[Timeframe],
        instrument: &Instrument,
        tiers: &Chosen<'_>,
    ) {
        let tier = tiers.get(&*instrument.native).copied();
        if let Err(error) = self.place(inputs, timeframes, instrument, tier) {
            self.news.push(format!("{} has no room: {error}", instrument.native));
            let known = self.table.find(&instrument.native);
            if known.and_then(|idx| self.plan.home(idx)).is_none() {
                self.missing.push(Missing { symbol: instrument.native.to_string(), reason: "no_room" });
            }
        }
    }

    fn place(
        &mut self,
        inputs: &Inputs<'_>,
        timeframes: &[Timeframe],
        instrument: &Instrument,
        tier: Option<Tier>,
    ) -> Result<(), String> {
        if self.table.find(&instrument.native).is_none() && self.table.len() >= MAX_INSTRUMENTS {
            return Err(format!("more than {MAX_INSTRUMENTS} instruments"));
        }
        let idx = self.note(instrument.clone())?;
        let input = inputs.plan_input(&self.table, timeframes);
        let plan = match (self.plan.home(idx), tier) {
            (Some(_), None) => return Ok(()),
            (Some((shard, _)), Some(tier)) if shard.tier == tier => return Ok(()),
            (Some(_), Some(tier)) => planner::change_tier(&self.plan, &input, idx, tier),
            (None, tier) => planner::add(&self.plan, &input, idx, tier),
        };
        self.plan = plan.map_err(|error| error.to_string())?;
        let home = self.plan.home(idx).map_or("", |(shard, _)| &shard.id);
        self.news.push(format!("{} into {home}", instrument.native));
        Ok(())
    }

    /// Enters an instrument's facts; where they are known already, the row stays the same one.
    fn note(&mut self, instrument: Instrument) -> Result<InstrumentIdx, String> {
        let known = self.table.find(&instrument.native);
        if let Some(idx) = known {
            let same = self.table.get(idx).is_some_and(|before| same_facts(before, &instrument));
            if same {
                return Ok(idx);
            }
            self.news.push(format!("{} has new facts", instrument.native));
        }
        self.rows.push(row(&instrument));
        let entered = self.table.insert(instrument);
        entered.map_err(|clash| {
            self.rows.pop();
            clash.to_string()
        })
    }

    /// Moves symbols between tiers by their volume.
    fn rank(
        &mut self,
        inputs: &Inputs<'_>,
        timeframes: &[Timeframe],
        volumes: &Volumes,
        tiers: &Chosen<'_>,
        rising: &mut Rising,
    ) {
        let ranked: Vec<Ranked> = self
            .plan
            .shards
            .iter()
            .flat_map(|shard| shard.instruments.iter().map(|planned| (shard.tier, planned.idx)))
            .filter_map(|(tier, idx)| {
                let instrument = self.table.get(idx)?;
                let volume = volumes.get(&*instrument.native).copied().unwrap_or_default();
                let fixed = tiers.contains_key(&*instrument.native);
                Some(Ranked { idx, tier, volume, fixed })
            })
            .collect();
        let moves = rising.moves(&ranked, &inputs.market.tiers);
        let input = inputs.plan_input(&self.table, timeframes);
        // All leave before the first arrives, so that each finds the place of another.
        let without =
            moves.iter().fold(self.plan.clone(), |plan, (idx, _)| planner::remove(&plan, &input, *idx));
        let moved = moves
            .iter()
            .try_fold(without, |plan, (idx, tier)| planner::add(&plan, &input, *idx, Some(*tier)));
        match moved {
            Ok(plan) => self.plan = plan,
            Err(error) => self.news.push(format!("tiers stay as they are: {error}")),
        }
        for (idx, tier) in moves {
            let native = self.table.get(idx).map(|instrument| instrument.native.clone()).unwrap_or_default();
            self.news.push(format!("{native} into tier {} by its volume", tier.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fathom_market::{ids::Market, plan::DepthSpeed};
    use fathom_transport::TlsConfig;
    use fathom_venues::planner::{Redundancy, TierSpec};

    use super::*;
    use crate::fixtures::{binance, instrument};

    fn market(high: usize) -> MarketSettings {
        let tier = |tier, symbols| TierSpec {
            tier,
            symbols,
            per_shard: 2,
            depth: DepthSpeed::Slow,
            snapshot_levels: 100,
            redundancy: Redundancy::Single,
        };
        fathom_transport::install_provider();
        MarketSettings {
            venue: binance(),
            market: Market::Spot,
            endpoints: binance().endpoints(Market::Spot),
            tls: TlsConfig::default().client_config().unwrap(),
            symbols: Vec::new(),
            tiers: vec![tier(Tier::High, high), tier(Tier::Low, 100)],
            timeframes: Vec::new(),
            raw_trades: false,
            ticker: false,
            by_volume: true,
            refresh_every: Duration::from_secs(600),
            budget_ceiling: None,
        }
    }

    fn catalogue(bases: &[&str]) -> Catalogue {
        Catalogue::new(bases.iter().map(|base| (*instrument(Market::Spot, base)).clone()).collect())
    }

    fn wishes(bases: &[&str]) -> Vec<Wish> {
        bases.iter().map(|base| Wish { symbol: format!("{base}/USDT"), tier: None }).collect()
    }

    fn volumes(of: &[(&str, i64)]) -> Volumes {
        of.iter().map(|(base, volume)| (format!("{base}USDT"), Decimal::from(*volume))).collect()
    }

    fn homes(planned: &Planned) -> Vec<String> {
        let home = |(idx, instrument): (InstrumentIdx, &std::sync::Arc<Instrument>)| {
            let (shard, _) = planned.plan.home(idx)?;
            Some(format!("{} {}", instrument.base, shard.id.trim_start_matches("binance-spot-")))
        };
        planned.table.iter().filter_map(home).collect()
    }

    #[test]
    fn the_ranking_fills_the_tiers_and_two_readings_change_them() {
        let (market, catalogue) = (market(1), catalogue(&["A", "B", "C"]));
        let wishes = wishes(&["A", "B", "C"]);
        let inputs =
            |volumes| Inputs { market: &market, wishes: &wishes, catalogue: &catalogue, volumes, now_us: 1 };
        let before = volumes(&[("A", 5), ("B", 10), ("C", 1)]);
        let start = first(&inputs(Some(&before))).unwrap();
        assert_eq!(homes(&start), ["B high-0", "A low-0", "C low-0"]);
        assert_eq!((start.rows.len(), start.missing.len()), (3, 0));

        let mut rising = Rising::default();
        let later = volumes(&[("A", 5), ("B", 10), ("C", 100)]);
        let once = next(&start.table, &start.plan, &inputs(Some(&later)), &mut rising);
        assert_eq!((once.plan == start.plan, once.rows.len()), (true, 0));
        let asked_between = next(&once.table, &once.plan, &inputs(None), &mut rising);
        assert!(asked_between.plan == start.plan, "without a reading nothing is ranked");
        let twice = next(&once.table, &once.plan, &inputs(Some(&later)), &mut rising);
        assert_eq!(homes(&twice), ["B low-0", "A low-0", "C high-0"]);
    }

    #[test]
    fn what_is_known_keeps_its_place_and_its_row() {
        let market = market(2);
        let plan_of = |wishes: &[Wish], catalogue: &Catalogue, before: &Planned| {
            let inputs = Inputs { market: &market, wishes, catalogue, volumes: None, now_us: 9 };
            next(&before.table, &before.plan, &inputs, &mut Rising::default())
        };
        let (abc, all) = (catalogue(&["A", "B", "C"]), wishes(&["A", "B", "C"]));
        let inputs = Inputs { market: &market, wishes: &all, catalogue: &abc, volumes: None, now_us: 1 };
        let start = first(&inputs).unwrap();
        assert_eq!(homes(&start), ["A high-0", "B high-0", "C low-0"]);

        let gone = plan_of(&all, &catalogue(&["A", "C"]), &start);
        assert_eq!(homes(&gone), ["A high-0", "C low-0"]);
        assert_eq!(gone.missing, [Missing { symbol: "B/USDT".into(), reason: "not_listed" }]);
        let row = &gone.rows[0];
        assert_eq!((row.native.as_str(), row.status.as_str(), row.valid_from_us), ("BUSDT", "other", 9));

        let back = plan_of(&all, &abc, &gone);
        assert_eq!(homes(&back), homes(&start));
        assert_eq!((back.rows.len(), back.rows[0].status.as_str()), (1, "trading"));

        let fewer = plan_of(&wishes(&["C"]), &abc, &start);
        assert_eq!((homes(&fewer), fewer.rows.len()), (vec!["C low-0".to_owned()], 0), "it trades on");
        let chosen = [Wish { symbol: "CUSDT".into(), tier: Some(Tier::High) }];
        assert_eq!(homes(&plan_of(&chosen, &abc, &fewer)), ["C high-0"]);
    }
}
