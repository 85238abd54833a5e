//! The errors of this crate, each with a class that says what to do next.

use std::time::Duration;

use crate::budget::state::BudgetError;

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Try again, with a growing delay.
    Transient,
    /// Try again, but not before `after` has passed.
    RateLimited {
        /// Time to wait, never shorter than what the venue asked for.
        after: Duration,
    },
    /// The same request would be refused again.
    Rejected,
    /// Only a change of configuration can help.
    Fatal,
}

/// Why a connection or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// An address that is no URL, or not of a scheme that is spoken here.
    #[error("address {url:?} is not usable: {reason}")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS configuration or the HTTP client could not be made.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// DNS, TCP, TLS or the upgrade failed.
    #[error("connect to {url}: {reason}")]
    Connect {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// No open socket within the deadline.
    #[error("connect to {url}: not open within {after:?}")]
    ConnectDeadline {
        /// The address.
        url: String,
        /// The deadline.
        after: Duration,
    },
    /// The server answered the WebSocket upgrade with an HTTP status.
    #[error("connect to {url}: upgrade answered with status {status}")]
    Upgrade {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
        /// `Retry-After`, where given.
        retry_after: Option<Duration>,
    },
    /// The request was not sent, or its answer was not read to the end.
    #[error("get {url}: {reason}")]
    Request {
        /// The address without its query.
        url: String,
        /// What happened.
        reason: String,
    },
    /// No complete answer within the deadline.
    #[error("get {url}: no answer within {after:?}")]
    RequestDeadline {
        /// The address without its query.
        url: String,
        /// The time that the request itself was given.
        after: Duration,
    },
    /// The body is larger than the bound.
    #[error("get {url}: body exceeds {limit} bytes")]
    BodyTooLarge {
        /// The address without its query.
        url: String,
        /// The bound, bytes after decompression.
        limit: usize,
    },
    /// The budget did not let the request go.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

impl TransportError {
    /// What to do next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Address { .. } | Self::Tls(_) => ErrorClass::Fatal,
            Self::Connect { .. }
            | Self::ConnectDeadline { .. }
            | Self::Request { .. }
            | Self::RequestDeadline { .. } => ErrorClass::Transient,
            Self::BodyTooLarge { .. } => ErrorClass::Rejected,
            Self::Upgrade { status, retry_after, .. } => upgrade_class(*status, *retry_after),
            Self::Budget(error) => error.class(),
        }
    }
}

/// 429 and 418 are rate limits; 408 and every server error may pass; any other answer is a refusal.
fn upgrade_class(status: u16, retry_after: Option<Duration>) -> ErrorClass {
    match status {
        418 | 429 => ErrorClass::RateLimited {
            after: retry_after.unwrap_or_else(|| crate::budget::state::default_penalty(status, 0)),
        },
        408 | 500.. => ErrorClass::Transient,
        _ => ErrorClass::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_refusal_is_classed_by_its_status() {
        let class = |status, retry_after| {
            TransportError::Upgrade { url: "ws://x".into(), status, retry_after }.class()
        };
        let after = |seconds| ErrorClass::RateLimited { after: Duration::from_secs(seconds) };
        assert_eq!(class(429, Some(Duration::from_secs(7))), after(7));
        assert_eq!(class(429, None), after(60));
        assert_eq!(class(418, None), after(120));
        assert_eq!(class(503, None), ErrorClass::Transient);
        assert_eq!(class(403, None), ErrorClass::Rejected);
    }
}
