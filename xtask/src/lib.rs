//! What the tests of the whole stand on, and the fault suite that runs the program and the simulated exchanges from a
//! seeded schedule. Depends on no package of the workspace: the service is only talked to as a user would.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness says what went wrong and fails, as a test does"
)]

pub mod harness;
pub mod suite;
