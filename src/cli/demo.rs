//! `fathom demo`: simulated exchanges in this process, everything else real.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use fathom_market::ids::Market;
use fathom_simulator::{SeededConfig, Simulator, SimulatorConfig, SimulatorHandle, Symbols};

use super::{CliError, ConfigArgs, block_on};
use crate::{app, config::Config, telemetry};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Port of the HTTP service; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Folder of the database.
    #[arg(long, default_value = "data/demo")]
    data_dir: PathBuf,
    /// Base assets on each market.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    symbols: u16,
    /// Market steps a second on each market.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Seed of the simulated market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &DemoArgs) -> Result<(), CliError> {
    let simulator = start_simulator(args)?;
    let config = configuration(args, &simulator)?;
    telemetry::init(&config.log)?;
    tracing::info!("simulated exchanges at {}", simulator.control_url());
    let outcome = block_on(app::run(&config, app::signals()));
    simulator.shutdown();
    Ok(outcome?)
}

fn start_simulator(args: &DemoArgs) -> anyhow::Result<SimulatorHandle> {
    let seeded = SeededConfig {
        seed: args.seed,
        symbols: Symbols::Count { bases: args.symbols.into(), traps: true },
        events_per_second: args.rate,
        ..SeededConfig::default()
    };
    Simulator::start(SimulatorConfig::seeded(&seeded)).context("start the simulated exchanges")
}

/// The user's configuration with its venues turned to the simulator.
fn configuration(args: &DemoArgs, simulator: &SimulatorHandle) -> Result<Config, CliError> {
    let mut settings = args.config.clone();
    let mut set = |key: &str, value: String| settings.set.push((key.to_owned(), value));
    set("http.port", args.port.to_string());
    set("data_dir", args.data_dir.display().to_string());
    for (key, value) in endpoints(simulator) {
        set(&key, value);
    }
    Ok(settings.load()?)
}

/// Configuration keys that turn Binance to a simulator.
pub(super) fn endpoints(simulator: &SimulatorHandle) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for (market, classes) in [(Market::Spot, ["stream"].as_slice()), (Market::Futures, &["public", "market"])]
    {
        let Some(rest) = simulator.rest_url(market) else { continue };
        keys.push((format!("venues.binance.{market}.endpoints.rest"), rest));
        for class in classes {
            if let Some(address) = simulator.ws_url(market, class) {
                keys.push((format!("venues.binance.{market}.endpoints.ws.{class}"), address));
            }
        }
    }
    keys
}
