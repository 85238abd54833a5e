//! Plans of a start.

use fathom_market::instrument::Instrument;
use rust_decimal::Decimal;

use super::*;
use crate::binance::Binance;

pub(super) fn table(market: Market, count: usize) -> InstrumentTable {
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

pub(super) fn tiers() -> Vec<TierSpec> {
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
