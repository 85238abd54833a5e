//! A reference to an actor that stays valid over its restarts.
//!
//! For control messages only, few and small: an actix mailbox is not bounded by its capacity, so the permits here
//! are what bounds it. Data goes through an inbox.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, MailboxError, Message};
use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use super::cell::State;
use super::clock::between;
use super::exit::ActorId;
use super::slot::SlotCore;

/// Why an ask got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor is between two instances; the ask may or may not have been handled by the one that ended.
    #[error("actor is restarting")]
    Restarting {
        /// When to try again.
        retry_after: Duration,
    },
    /// The actor is paused, or its breaker is open.
    #[error("actor is unavailable")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many asks are under way.
    #[error("too many asks under way")]
    Overloaded,
    /// No answer in time; the ask may still be handled.
    #[error("no answer within the deadline")]
    Deadline,
    /// The actor is gone for good.
    #[error("actor is stopped")]
    Stopped,
}

impl AskError {
    /// When trying again makes sense, if ever.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Restarting { retry_after } | Self::Unavailable { retry_after } => Some(*retry_after),
            Self::Overloaded | Self::Deadline => Some(Duration::from_secs(1)),
            Self::Stopped => None,
        }
    }
}

/// The address of the live instance.
pub(crate) struct Line<A: Actor> {
    pub(crate) generation: u64,
    pub(crate) addr: Addr<A>,
    pub(crate) permits: Arc<Semaphore>,
}

/// See the head of the module; cheap to clone.
pub struct ActorRef<A: Actor> {
    pub(crate) line: Arc<ArcSwapOption<Line<A>>>,
    pub(crate) core: Arc<SlotCore>,
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { line: Arc::clone(&self.line), core: Arc::clone(&self.core) }
    }
}

impl<A: Actor<Context = Context<A>>> ActorRef<A> {
    /// The deadline to use where nothing else is known.
    pub const DEADLINE: Duration = Duration::from_millis(250);

    /// Asks the live instance and waits for its answer, at most until the deadline.
    ///
    /// # Errors
    /// See [`AskError`]. An ask that missed its deadline keeps its permit until the actor has handled it or ended,
    /// so a hung actor cannot collect messages without bound.
    pub async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let line = self.line.load_full().ok_or_else(|| self.absent())?;
        let permit = Arc::clone(&line.permits).try_acquire_owned().map_err(|_| AskError::Overloaded)?;
        let mut request = Box::pin(line.addr.send(message));
        drop(line);
        match tokio::time::timeout(deadline, &mut request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(MailboxError::Closed)) => Err(self.absent()),
            Ok(Err(MailboxError::Timeout)) => Err(AskError::Deadline),
            Err(_) => {
                keep_until_done(async move {
                    let _ = request.await;
                    drop(permit);
                });
                Err(AskError::Deadline)
            }
        }
    }

    /// The generation of the current instance, or of the last one; counted from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.core.generation()
    }

    /// Whose reference this is.
    #[must_use]
    pub fn id(&self) -> &ActorId {
        self.core.id()
    }

    fn absent(&self) -> AskError {
        let (state, due) = self.core.state_and_due();
        let wait = due.map_or(Duration::from_millis(100), |due| between(self.core.clock().now_us(), due));
        let retry_after = wait.max(Duration::from_millis(50));
        match state {
            State::Stopped => AskError::Stopped,
            State::Paused | State::Failed | State::Quarantined => AskError::Unavailable { retry_after },
            _ => AskError::Restarting { retry_after },
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "ends with the instance that holds the message; bounded by the permits"
)]
fn keep_until_done(rest: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(rest));
}
