//! The simulator from outside: what a client of the venue sees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests may"
)]

mod audit;
mod client;
mod connections;
mod faults;
mod limits;
mod market;
mod recorded;
mod rest;
mod streams;
mod tls;
