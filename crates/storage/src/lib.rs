//! The stores: batches in, once each; history out.
//!
//! **Architecture invariant.** The only home of sqlx. What is written and how rows conflict is declared in
//! `fathom_market::table`; a store only carries it out.

pub mod error;
pub mod read;
pub mod sqlite;
pub mod store;

pub use error::StoreError;
pub use read::{CandleQuery, CategoryQuery, History, SnapshotQuery};
pub use sqlite::{Durability, SqliteConfig, SqliteStore};
pub use store::{PoisonRow, Retention, Store, StoreStatus, WriteOutcome};
