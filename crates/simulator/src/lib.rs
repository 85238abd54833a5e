//! A simulated Binance, spot and USD-M futures: its REST and WebSocket protocols on local ports, fed by a seeded market or
//! by recorded frames, with faults on command and a ledger of all that was sent.
//!
//! **Architecture invariant.** The encoders here are written from the protocol sheet alone and share nothing with the
//! decoders under test, so that one misreading cannot hide behind another.
//!
//! Threads: a runtime for the market and the WebSocket servers, and one for REST and control. A [`Simulator`] may be
//! started from any context, async or not.

mod commands;
mod config;
mod control;
mod engine;
mod faults;
mod hub;
mod ledger;
mod limits;
mod market;
mod number;
mod rate;
mod recorded;
mod rest;
mod roster;
mod server;
mod tls;
mod universe;
mod wire;
mod ws;

pub use self::config::{
    Limits, MarketConfig, RecordedConfig, ReplayStart, SeededConfig, SimulatorConfig, Source, Symbols,
    TlsConfig,
};
pub use self::control::{MarketStatus, TrueBook};
pub use self::faults::{
    BookPart, CertificateProblem, DropHow, Effect, Fault, FaultError, LevelPart, Servers, Target,
};
pub use self::ledger::Ledger;
pub use self::ledger::entries::{
    ConnectionEntry, ConnectionEvent, Delivery, DepthEntry, FaultEntry, Handed, KlineEntry, LedgerQuery,
    MadeEntry, Sending, StreamConnection, StreamSummary, Totals, TouchedStream, TradeEntry, Violation,
};
pub use self::rate::Pace;
pub use self::recorded::{RecordedManifest, RecordedSymbol, ReplayStatus, ScanError};
pub use self::server::{Simulator, SimulatorError, SimulatorHandle};
pub use self::tls::TlsError;
