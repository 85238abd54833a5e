//! Sockets, TLS, REST and request budgets: everything that touches a venue's network.
//!
//! Entry points: [`ws::connect`] opens a line from a `ConnectSpec` and gives a stream of batches of frames;
//! [`rest::RestClient`] answers a `RequestSpec` and draws on a [`budget::RestBudget`]; [`tls::TlsConfig`] makes the one
//! TLS configuration of both.
//!
//! Invariants: no venue is known by name, no payload is parsed, nothing is retried (that is the caller's decision, by
//! [`ErrorClass`]), no task is spawned (a session lives by being polled), every queue and buffer has a bound, and the
//! wall clock is only ever the one passed in.

use std::sync::Arc;

pub mod budget;
mod error;
pub mod rest;
pub mod session_clock;
pub mod tls;
pub mod ws;

pub use budget::{
    BudgetStatus, Outcome, Permit, RestBudget,
    state::{BudgetError, MAX_WAITING},
};
pub use error::{ErrorClass, TransportError};
pub use rest::{RestClient, RestConfig};
pub use rustls::ClientConfig;
pub use tls::{TlsConfig, install_provider};
pub use ws::{
    FrameBatch, Full, Session, SessionEnd, SessionEvent, SessionHandle, SessionOptions, SessionWarning,
};

/// Microseconds since the Unix epoch, UTC, from the process's one monotonic source.
pub type UtcClock = Arc<dyn Fn() -> i64 + Send + Sync>;
