//! The stores: batches in, once each; history out.
//!
//! **Architecture invariant.** The only home of sqlx. What is written and how rows conflict is declared in
//! `fathom_market::table`; a store only carries it out.

pub mod account;
pub mod error;
pub mod mysql;
pub mod policy;
pub mod postgres;
pub mod read;
pub mod rollup;
pub mod spool;
pub mod sqlite;
pub mod store;
pub mod trade_bars;

pub use account::{
    Accepted, Accounts, Offered, Opening, QuarantineLimits, QuarantineQuery, QuarantinedRow, Refusal, Resent,
    SpoolStatus,
};
pub use error::StoreError;
pub use mysql::{MysqlConfig, MysqlStore};
pub use policy::{Class, Policy};
pub use postgres::{PostgresConfig, PostgresStore, Timescale};
pub use read::{
    CandleQuery, CategoryQuery, CategoryRollup, GapQuery, History, RollupQuery, RollupWidth, SnapshotQuery,
};
pub use spool::{Drain, Spool, SpoolConfig, Spooled, Step};
pub use sqlite::{Durability, SqliteConfig, SqliteStore};
pub use store::{PoisonRow, Retention, Sink, Store, StoreStatus, WriteOutcome};
