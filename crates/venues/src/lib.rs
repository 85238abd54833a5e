//! The wire protocols of the exchanges, without IO: bytes in, events out; wishes in, requests and frames out.
//!
//! **Architecture invariant.** No tokio, no clock, no dice, no sockets here. A ping schedule is a `Duration`, a REST
//! call is a [`RequestSpec`](fathom_market::plan::RequestSpec).
//! **Architecture invariant.** Decoding is total: any bytes give events, an ignored frame or a typed error.
//!
//! Adding a venue is a folder here and a line in [`registry`].

pub mod binance;
pub mod error;
pub mod planner;
pub mod registry;
pub mod venue;

pub use error::{DecodeError, RestError};
pub use venue::{Decoded, Decoder, MergeRule, Parsed, TradeIds, Venue, Wanted};
