//! `fathom plan`: what would be connected, and what that costs. Nothing is asked of anyone: symbols are taken as listed.

use std::collections::BTreeMap;

use anyhow::Context;
use fathom_market::{
    ids::InstrumentId,
    instrument::{Instrument, InstrumentKind, InstrumentStatus, InstrumentTable, unified_symbol},
};
use fathom_venues::{
    Venue,
    planner::{MarketPlan, PlanInput, ShardPlan, channels, plan},
    registry,
};
use rust_decimal::Decimal;

use super::{CliError, ConfigArgs};
use crate::config::{Config, VenueMarket};

/// The share of a venue's weight that resyncs may use.
const RESYNC_SHARE_PERCENT: u32 = 95;

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = args.load()?;
    println!("Symbols are taken as listed; those that a venue lacks are skipped at the start.");
    for market in config.enabled() {
        let plan = market_plan(&config, market)?;
        print_market(&plan);
    }
    Ok(())
}

fn market_plan(config: &Config, market: &VenueMarket) -> Result<MarketPlan, CliError> {
    let venue =
        registry::venue(market.venue.as_str()).with_context(|| format!("unknown venue {}", market.venue))?;
    let instruments = market.symbols.iter().map(|symbol| assumed(venue, market, symbol));
    let table = InstrumentTable::new(instruments).context("symbols")?;
    let offered = venue.timeframes(market.market);
    let timeframes: Vec<_> =
        config.candles.timeframes.iter().copied().filter(|timeframe| offered.contains(timeframe)).collect();
    let input = PlanInput {
        venue,
        market: market.market,
        table: &table,
        tiers: &config.tiers.list,
        timeframes: &timeframes,
        raw_trades: market.raw_trades,
        ticker: market.ticker,
    };
    plan(&input).map_err(|error| CliError::Usage(error.to_string()))
}

/// A listed instrument of that name, as far as a plan needs to know it.
fn assumed(venue: &dyn Venue, market: &VenueMarket, symbol: &str) -> Instrument {
    let (base, quote) = symbol.split_once('/').unwrap_or((symbol, ""));
    let quote = quote.split(':').next().unwrap_or_default();
    let native = format!("{base}{quote}");
    Instrument {
        id: InstrumentId::derive(venue.id(), market.market, &native),
        venue: venue.id(),
        market: market.market,
        unified: unified_symbol(base, quote, None, InstrumentKind::Spot).into(),
        native: native.into(),
        base: base.into(),
        quote: quote.into(),
        settle: None,
        kind: InstrumentKind::Spot,
        status: InstrumentStatus::Trading,
        tick_size: Decimal::ONE,
        lot_size: Decimal::ONE,
        contract_size: Decimal::ONE,
        price_scale: 0,
        qty_scale: 0,
        valid_from_us: 0,
    }
}

fn print_market(plan: &MarketPlan) {
    println!();
    println!(
        "{} {}: {} symbols, {} shards, {} sockets",
        plan.venue,
        plan.market,
        plan.instruments(),
        plan.shards.len(),
        plan.sockets()
    );
    println!("  {:<28} {:>7} {:>7}  streams per socket", "shard", "symbols", "sockets");
    for shard in &plan.shards {
        print_shard(shard);
    }
    let usable = (plan.weight_per_minute * RESYNC_SHARE_PERCENT / 100).max(1);
    println!(
        "  cold start: {} weight of book snapshots and {} of everything else; {} a minute are allowed: about {} s",
        plan.snapshot_weight,
        plan.startup_weight,
        plan.weight_per_minute,
        (plan.snapshot_weight.saturating_sub(usable) * 60).div_ceil(usable),
    );
}

fn print_shard(shard: &ShardPlan) {
    let lines: Vec<String> = shard
        .endpoints
        .iter()
        .map(|endpoint| {
            let counts: BTreeMap<_, _> = channels(&endpoint.streams);
            let counts: Vec<String> =
                counts.iter().map(|(channel, count)| format!("{count} {channel}")).collect();
            let pair = if endpoint.redundancy.lines() == 2 { " x2" } else { "" };
            format!("{}{pair}: {} ({})", endpoint.class.as_str(), endpoint.streams.len(), counts.join(", "))
        })
        .collect();
    println!(
        "  {:<28} {:>7} {:>7}  {}",
        shard.id,
        shard.instruments.len(),
        shard.sockets(),
        lines.join("; ")
    );
}
