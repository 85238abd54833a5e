//! Remembers which operation an `Idempotency-Key` led to, so that a call that is sent twice is done once. Bounded: the
//! oldest keys are forgotten first.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use fathom_actors::kernel::OperationId;

use super::error::ApiError;

/// As many as the kernel remembers operations.
const MEMORY: usize = 256;

/// What was done under which key.
#[derive(Default)]
pub(super) struct Replays(Mutex<VecDeque<Replay>>);

struct Replay {
    key: String,
    call: String,
    operation: OperationId,
}

impl Replays {
    /// Does a call, unless this key has done it already: then its operation is given again.
    ///
    /// # Errors
    /// Those of the call, and 422 when the key belongs to another call.
    pub(super) fn once(
        &self,
        key: Option<&str>,
        call: &str,
        act: impl FnOnce() -> Result<OperationId, ApiError>,
    ) -> Result<OperationId, ApiError> {
        let Some(key) = key else { return act() };
        // Held while acting, which never waits: of two calls at once the second finds the first.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(replay) = known.iter().find(|replay| replay.key == key) {
            return if replay.call == call { Ok(replay.operation.clone()) } else { Err(reused(key)) };
        }
        let operation = act()?;
        if known.len() >= MEMORY {
            known.pop_front();
        }
        known.push_back(Replay { key: key.to_owned(), call: call.to_owned(), operation: operation.clone() });
        Ok(operation)
    }
}

fn reused(key: &str) -> ApiError {
    let message = format!("Idempotency-Key {key} was used for another call");
    ApiError::new(actix_web::http::StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_acts_once_and_is_forgotten_in_the_end() {
        let replays = Replays::default();
        let mut done = 0;
        let mut call = |key: Option<&str>, what: &str| {
            replays.once(key, what, || {
                done += 1;
                Ok(OperationId::from(done.to_string().as_str()))
            })
        };
        assert_eq!(call(Some("k"), "restart a").expect("first").as_str(), "1");
        assert_eq!(call(Some("k"), "restart a").expect("again").as_str(), "1");
        assert!(call(Some("k"), "restart b").is_err());
        assert_eq!(call(None, "restart a").expect("no key").as_str(), "2");
        for n in 0..MEMORY {
            call(Some(&format!("other {n}")), "x").expect("others");
        }
        assert_ne!(call(Some("k"), "restart a").expect("forgotten").as_str(), "1");
    }
}
