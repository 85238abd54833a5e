//! The stores: batches in, once each; history out.
//!
//! **Architecture invariant.** The only home of sqlx. What is written and how rows conflict is declared in
//! `fathom_market::table`; a store only carries it out.

pub mod account;
pub mod check;
pub mod error;
pub mod export;
#[cfg(test)]
mod export_tests;
pub mod mysql;
pub mod policy;
pub mod postgres;
pub mod prepared;
pub mod read;
pub mod rollup;
#[cfg(test)]
mod sample_rows;
pub mod spool;
pub mod sqlite;
pub mod store;
pub mod trade_bars;
#[cfg(test)]
mod upkeep_tests;

pub use account::{
    Accepted, Accounts, Offered, Opening, QuarantineLimits, QuarantineQuery, QuarantinedRow, Refusal, Resent,
    SpoolStatus,
};
pub use check::Check;
pub use error::StoreError;
pub use export::{Key, Page, Span};
pub use mysql::{MysqlConfig, MysqlStore};
pub use policy::{Class, Policy};
pub use postgres::{PostgresConfig, PostgresStore, Timescale};
pub use prepared::Prepared;
pub use read::{
    CandleQuery, CategoryQuery, CategoryRollup, GapQuery, History, RollupQuery, RollupWidth, SnapshotQuery,
};
pub use spool::{Drain, Settled, Spool, SpoolConfig, Spooled, Step, write_in_parts};
pub use sqlite::{Durability, SqliteConfig, SqliteStore};
pub use store::{Fact, PoisonRow, Retention, Sink, Store, StoreStatus, WriteOutcome};
