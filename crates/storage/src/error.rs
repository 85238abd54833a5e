//! Why a store could not do what it was asked. Knows no store's error codes: each store sorts its own.

use std::time::Duration;

use thiserror::Error;

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call may go through later.
    Transient {
        /// How long to wait at least.
        retry_after: Duration,
    },
    /// The store needs an operator.
    Fatal,
}

/// A failed call to a store.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct StoreError {
    class: ErrorClass,
    message: String,
}

impl StoreError {
    /// An error that may pass by itself.
    pub fn transient(retry_after: Duration, message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Transient { retry_after }, message: message.into() }
    }

    /// An error that stays until somebody does something.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Fatal, message: message.into() }
    }

    /// Whether trying again can help.
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// True when trying again can help.
    pub const fn is_transient(&self) -> bool {
        matches!(self.class, ErrorClass::Transient { .. })
    }

    /// The store's words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with what was being done in front of it.
    #[must_use]
    pub fn while_doing(self, what: &str) -> Self {
        Self { class: self.class, message: format!("{what}: {}", self.message) }
    }
}
