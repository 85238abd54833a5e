//! The command line: one file a subcommand.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration, 70 when the supervisor was lost.

// A command line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command does")]

mod check;
mod ctl;
mod demo;
mod migrate;
mod plan;
mod run;
mod simulate;
mod store;
mod tap;
mod top;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    app::Lost,
    config::{self, Config, ConfigError, KnownVenue},
    replay::{self, ReplayArgs, ReplayError},
};

/// A collector of crypto market data: true order books, depth by category, candles; stored without loss, served live.
#[derive(Debug, Parser)]
#[command(name = "fathom", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Run(ConfigArgs),
    /// Run the service against simulated exchanges inside this process; all else is real.
    Demo(demo::DemoArgs),
    /// Print shards, sockets, streams and the REST weight of a cold start, before anything connects.
    Plan(ConfigArgs),
    /// Check the configuration, the store and the venues.
    Check(check::CheckArgs),
    /// Bring the store's schema up to date.
    Migrate(migrate::MigrateArgs),
    /// Move what is stored.
    Store(store::StoreArgs),
    /// Ask or command a running service.
    Ctl(ctl::CtlArgs),
    /// Watch a running service in the terminal.
    Top(top::TopArgs),
    /// Print live events of a running service.
    Tap(tap::TapArgs),
    /// Send recorded frames through the real decode and book path, and print what they say.
    Replay(ReplayArgs),
    /// Run simulated exchanges only, for tests.
    Simulate(simulate::SimulateArgs),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
struct ConfigArgs {
    /// Configuration file; without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides one key, such as `http.port=9000`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        config::load(self.config.as_deref(), config::process_environment(), &self.set, &KnownVenue::all())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text}: expected KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Why a command failed, and so its exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked for cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl CliError {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => ConfigError::EXIT_CODE,
            Self::Failed(error) if error.is::<Lost>() => 70,
            Self::Failed(_) => 1,
        }
    }
}

impl From<ReplayError> for CliError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Usage(message) => Self::Usage(message),
            ReplayError::Failed(error) => Self::Failed(error),
        }
    }
}

/// Says on standard error what went wrong.
pub fn complain(error: &CliError) {
    eprintln!("fathom: {error}");
}

/// Runs a command to its end.
///
/// # Errors
/// [`CliError`], whose code is the process's exit code.
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Ctl(args) => ctl::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Tap(args) => tap::run(&args),
        Command::Replay(args) => Ok(replay::run(&args)?),
        Command::Simulate(args) => simulate::run(&args),
    }
}

/// Runs a future in an actix system on this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}
