//! Facts of the market and exact arithmetic on them: instruments, decimals, events, order books, depth,
//! categories, tick rings, bars, and the columnar batches that stores and spools carry.
//!
//! **Architecture invariant.** Nothing here does IO, reads a clock or rolls dice: time is always an argument.
//! **Architecture invariant.** Prices and quantities never pass through a float (`clippy::float_arithmetic` is denied).
//!
//! Times are `i64`: names ending in `_us` are microseconds, in `_ms` milliseconds, since the Unix epoch, UTC.

#![deny(clippy::float_arithmetic)]

pub mod bars;
pub mod batch;
pub mod book;
pub mod category;
pub mod decimal;
pub mod depth;
pub mod event;
pub mod gap;
pub mod ids;
pub mod instrument;
pub mod mark;
pub mod plan;
pub mod rates;
pub mod sample;
pub mod table;
pub mod ticks;
pub mod timeframe;
pub mod validate;
