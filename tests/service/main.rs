//! The service from outside: the program and the simulated exchanges run as processes of their own, and are only talked
//! to as a user would: over HTTP, by signals, and by reading the database. Nothing of the program is linked in.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests say what went wrong and fail"
)]

mod cli;
mod demo;
mod faults;
mod harness;
mod kill9;
#[cfg(feature = "fault-injection")]
mod panics;
mod recorded;
mod redis;
mod restart;
mod silence;
mod store_away;
mod stores;
mod suite;
mod symbols;
mod tls;
