//! What the last call came to, for [`crate::store::StoreStatus`].

use std::sync::{Mutex, PoisonError};

use crate::{error::StoreError, store::WriteOutcome};

/// The outcome of the last call and the last error of any.
#[derive(Debug)]
pub(crate) struct Health(Mutex<(bool, Option<String>)>);

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new((true, None)))
    }
}

impl Health {
    /// Whether the last call went through, and the last error.
    pub(crate) fn read(&self) -> (bool, Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a result and hands it on.
    pub(crate) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.set(result.as_ref().err().map(StoreError::message));
        result
    }

    /// Notes a write; a refused row is the row's fault, not the store's.
    pub(crate) fn note_write(&self, outcome: &WriteOutcome) {
        self.set(match outcome {
            WriteOutcome::Committed { .. } | WriteOutcome::Poison { .. } => None,
            WriteOutcome::Transient { error, .. }
            | WriteOutcome::Fatal { error }
            | WriteOutcome::UnknownOutcome { error } => Some(error),
        });
    }

    fn set(&self, error: Option<&str>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = error.is_none();
        if let Some(error) = error {
            state.1 = Some(error.to_owned());
        }
    }
}
