//! The transport against small local servers, and the budget under a paused clock. One binary, so that it links once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and its servers live in tasks of their own"
)]

mod budget_async;
mod budget_state;
mod rest;
mod servers;
mod ws;
