//! What can be wrong with what a venue sent.

use std::time::Duration;

use fathom_market::decimal::DecimalError;
use thiserror::Error;

/// Why a frame, or one record of a body, was rejected. Every variant has a short `reason` for counters.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, or not the shape of any known message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A field that must be there is not.
    #[error("missing field {0}")]
    Missing(&'static str),
    /// A number that cannot be used.
    #[error("field {field} is not usable: {source}")]
    Number {
        /// The venue's field.
        field: &'static str,
        /// Why.
        source: DecimalError,
    },
    /// The symbol is not in the instrument table.
    #[error("unknown symbol {0}")]
    UnknownSymbol(String),
    /// A value outside what the protocol allows.
    #[error("field {field} has an unexpected value {value}")]
    Unexpected {
        /// The venue's field.
        field: &'static str,
        /// What was there, cut to a sensible length.
        value: String,
    },
    /// A level does not fit the instrument's scale: its book can no longer be trusted.
    #[error("a level of {symbol} does not fit its scale: {source}")]
    LevelMisfit {
        /// The venue's symbol.
        symbol: String,
        /// Why.
        source: DecimalError,
    },
}

impl DecodeError {
    /// A short stable word for counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Missing(_) => "missing_field",
            Self::Number { .. } => "bad_number",
            Self::UnknownSymbol(_) => "unknown_symbol",
            Self::Unexpected { .. } => "unexpected_value",
            Self::LevelMisfit { .. } => "level_misfit",
        }
    }
}

/// What a REST answer that is no success means.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestError {
    /// The limit is broken: nothing may be asked until then.
    #[error("rate limited{}", .retry_after.map_or(String::new(), |after| format!(", retry after {} s", after.as_secs())))]
    RateLimited {
        /// The venue's own figure.
        retry_after: Option<Duration>,
    },
    /// The address is banned: nothing may be asked until then, and an operator should know.
    #[error("banned{}", .retry_after.map_or(String::new(), |after| format!(", for {} s", after.as_secs())))]
    Banned {
        /// The venue's own figure.
        retry_after: Option<Duration>,
    },
    /// The request itself is wrong; asking again does not help.
    #[error("rejected with status {status}, code {code:?}: {message}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The venue's code.
        code: Option<i64>,
        /// The venue's words, cut to a sensible length.
        message: String,
    },
    /// The venue's own trouble; ask again later.
    #[error("server error, status {status}: {message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// The venue's words, cut to a sensible length.
        message: String,
    },
    /// A success whose body is not usable.
    #[error("unusable body: {0}")]
    Body(DecodeError),
}

impl From<DecodeError> for RestError {
    fn from(error: DecodeError) -> Self {
        Self::Body(error)
    }
}
