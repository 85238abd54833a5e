//! `fathom check`: configuration, store, cache, venues. Says of each whether it will do.

use std::time::Duration;

use clap::Args;
use fathom_actors::{
    instruments::{Catalogue, pick},
    kernel::Clock,
    settings::MarketSettings,
    system::utc_clock,
};
use fathom_delivery::Link;
use fathom_market::plan::Priority;
use fathom_transport::{RestBudget, RestClient, rest::host_key};

use super::{CliError, ConfigArgs, block_on};
use crate::{
    config::{Config, StoreKind},
    settings::settings,
    stores,
};

const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Leave the venues out.
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let config = args.config.load()?;
    let settings = settings(&config).map_err(|error| CliError::Usage(format!("{error:#}")))?;
    println!("ok      configuration");
    for note in &config.notes {
        println!("note    {note}");
    }
    fathom_transport::install_provider();
    let failures = block_on(async {
        let mut failures = usize::from(!store(&config).await);
        if let Some(redis) = &settings.redis {
            let linked = Link::connect(redis).await.map(|_| String::new());
            let name = format!("redis {}", redis.address.shown());
            failures += usize::from(!report(&name, linked.map_err(anyhow::Error::from)));
        }
        if !args.offline {
            for market in &settings.markets {
                failures += usize::from(!venue(market).await);
            }
        }
        failures
    });
    match failures {
        0 => Ok(()),
        failures => Err(anyhow::anyhow!("{failures} of the checks failed").into()),
    }
}

async fn store(config: &Config) -> bool {
    report(&format!("store {}", config.store.shown()), ask_store(config).await)
}

/// What the store says of itself. The schema of the embedded one is made; a server's is left alone, that is for `migrate` and
/// the start.
async fn ask_store(config: &Config) -> anyhow::Result<String> {
    let store = stores::open_store(config).await?;
    let asking = async {
        if !config.store.kind.is_server() {
            stores::migrated(&*store, &config.store.shown()).await?;
        }
        let facts = store.facts().await?;
        let facts: Vec<String> = facts.iter().map(|(about, words)| format!("{about} {words}")).collect();
        let has_timescale = facts.iter().any(|fact| fact.starts_with("timescale yes"));
        if config.store.kind == StoreKind::Timescale && !has_timescale {
            anyhow::bail!(
                "store.kind is timescale and the server has no such extension: {}",
                facts.join("; ")
            );
        }
        Ok(facts.join("; "))
    };
    let told = asking.await;
    store.close().await;
    told
}

async fn venue(market: &MarketSettings) -> bool {
    let name = format!("venue {} {}", market.venue.id(), market.market);
    report(&name, ask_venue(market).await)
}

/// Asks for time and instruments, and counts the wanted symbols.
async fn ask_venue(market: &MarketSettings) -> anyhow::Result<String> {
    let clock = Clock::system();
    let budget = RestBudget::new(utc_clock(&clock));
    let base = &market.endpoints.rest;
    budget.configure(&host_key(base)?, market.venue.budget_rules(market.market), market.budget_ceiling);
    let rest = RestClient::new(budget, market.tls.clone(), utc_clock(&clock))?;
    let time = rest.get(base, &market.venue.time_request(market.market), Priority::Live, DEADLINE).await?;
    let ahead_ms = market.venue.parse_time(&time)? - clock.now_us() / 1000;
    let listed =
        rest.get(base, &market.venue.instruments_request(market.market), Priority::Live, DEADLINE).await?;
    let listed = market.venue.parse_instruments(market.market, &listed, clock.now_us())?;
    let (all, rejected) = (listed.rows.len(), listed.rejected.len());
    let catalogue = Catalogue::new(listed.rows);
    let (picked, missing) = pick(&catalogue, market.symbols.iter().map(String::as_str));
    Ok(format!(
        "{all} instruments listed ({rejected} rejected), {} wanted found, {} not; its clock is {ahead_ms} ms ahead",
        picked.len(),
        missing.len()
    ))
}

fn report(name: &str, outcome: anyhow::Result<String>) -> bool {
    match outcome {
        Ok(words) if words.is_empty() => println!("ok      {name}"),
        Ok(words) => println!("ok      {name}: {words}"),
        Err(error) => {
            println!("failed  {name}: {error:#}");
            return false;
        }
    }
    true
}
