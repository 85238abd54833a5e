//! `fathom simulate`: simulated exchanges in a process of their own. Prints one JSON object with its addresses, then
//! serves until it is told to stop.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Context;
use clap::Args;
use fathom_market::ids::Market;
use fathom_simulator::{
    MarketConfig, RecordedConfig, SeededConfig, Simulator, SimulatorConfig, SimulatorHandle, Source, Symbols,
    TlsConfig,
};

use super::{CliError, block_on, demo::endpoints};
use crate::app;

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Base assets on each market.
    #[arg(long, default_value_t = 50, conflicts_with = "names")]
    symbols: usize,
    /// Exactly these native symbols.
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,
    /// Leave out the names that trap naive code.
    #[arg(long)]
    plain: bool,
    /// Market steps a second on each market.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Seed of the market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Levels on each side of the busiest book.
    #[arg(long, default_value_t = 6000)]
    levels: usize,
    /// Aggregate trades of each symbol that REST gives.
    #[arg(long, value_name = "TRADES", default_value_t = 20_000)]
    history: usize,
    /// Recorded spot session to serve instead, in order.
    #[arg(long, value_name = "FILE")]
    spot: Vec<PathBuf>,
    /// Recorded futures session to serve instead, in order.
    #[arg(long, value_name = "FILE")]
    futures: Vec<PathBuf>,
    /// Pace of a recorded session: 1 is real time, 0 as fast as it is read.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Data frames a second that all connections of a market together shall get; the steps follow.
    #[arg(long, value_name = "PER_SECOND")]
    messages: Option<f64>,
    /// Rows of each kind that the ledger keeps.
    #[arg(long, default_value_t = 200_000)]
    ledger: usize,
    /// Messages of each market whose ids and receivers are remembered, 40 bytes each.
    #[arg(long, default_value_t = 2_000_000)]
    remember: usize,
    /// Speak TLS, with an authority made at the start.
    #[arg(long)]
    tls: bool,
    /// Folder into which the authority is written, as `ca.pem`.
    #[arg(long, value_name = "DIR", default_value = "data/simulator", requires = "tls")]
    tls_dir: PathBuf,
    /// Port of the control server; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    control_port: u16,
}

pub(super) fn run(args: &SimulateArgs) -> Result<(), CliError> {
    let simulator = Simulator::start(config(args)).context("start the simulated exchanges")?;
    println!("{}", addresses(&simulator));
    block_on(app::signals());
    simulator.shutdown();
    Ok(())
}

fn config(args: &SimulateArgs) -> SimulatorConfig {
    let base = SimulatorConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        control_port: args.control_port,
        ledger_cap: args.ledger,
        remembered: args.remember,
        tls: args.tls.then(|| TlsConfig { folder: args.tls_dir.clone() }),
        ..SimulatorConfig::default()
    };
    if args.spot.is_empty() && args.futures.is_empty() {
        let seeded = SimulatorConfig::seeded(&seeded(args));
        return SimulatorConfig { spot: seeded.spot, futures: seeded.futures, ..base };
    }
    let recorded = |market, files: &[PathBuf]| {
        let config = RecordedConfig { speed: args.speed, ..RecordedConfig::new(market, files.to_vec()) };
        (!files.is_empty()).then(|| MarketConfig::new(market, Source::Recorded(config)))
    };
    SimulatorConfig {
        spot: recorded(Market::Spot, &args.spot),
        futures: recorded(Market::Futures, &args.futures),
        ..base
    }
}

fn seeded(args: &SimulateArgs) -> SeededConfig {
    SeededConfig {
        seed: args.seed,
        symbols: if args.names.is_empty() {
            Symbols::Count { bases: args.symbols, traps: !args.plain }
        } else {
            Symbols::Named(args.names.clone())
        },
        events_per_second: args.rate,
        messages_per_second: args.messages,
        max_levels: args.levels,
        trade_history: args.history,
        ..SeededConfig::default()
    }
}

/// `{"control": "http://...", "set": ["venues.binance.spot.endpoints.rest=http://...", ...]}`: each of `set` is an
/// argument of `fathom run --set`.
fn addresses(simulator: &SimulatorHandle) -> String {
    let mut set: Vec<String> =
        endpoints(simulator).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if let Some(authority) = simulator.ca_file() {
        // Whoever takes the argument may have another working directory.
        let path = std::path::absolute(authority).unwrap_or_else(|_| authority.to_owned());
        let served = Market::ALL.into_iter().filter(|market| simulator.rest_url(*market).is_some());
        set.extend(served.map(|market| format!("venues.binance.{market}.extra_ca={}", path.display())));
    }
    serde_json::json!({ "control": simulator.control_url(), "set": set }).to_string()
}
