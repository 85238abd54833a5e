//! What leaves the service for others: the cache and the channels of Redis. `docs/redis.md` is their contract.
//!
//! ```text
//! Live, rows ──> Composer (pure) ──Commands──> Link ──one pipeline──> Redis ──> Cache ──> readers
//! ```
//!
//! **Architecture invariant.** The only home of redis. Nothing here is needed for collecting: whatever is away, slow or
//! full costs its readers freshness and nobody else anything. Nothing waits without a deadline, and nothing is queued.

pub mod cache;
pub mod composer;
pub mod config;
pub mod link;
pub mod live;
pub mod message;
pub mod names;
pub mod rows;
mod series;
#[cfg(test)]
mod tests;

pub use self::{
    cache::{Cache, CacheFigures},
    composer::{Commands, Composer},
    config::{Address, AddressError, RedisConfig, Ttl},
    link::{Failure, FailureKind, Link},
    live::Live,
    names::Names,
};
