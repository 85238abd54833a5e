//! Supervision on actix, and not a word about what the actors are for.
//!
//! ```text
//! guardian (plain task)
//! └─ root supervisor (actix, own thread, no IO, waits for nobody)
//!      └─ slot ── instance on a thread of the pool ── ended ──> policy ──> next instance | breaker | over
//! data     Outlet<T> ── bounded queue, outlives instances ── Inbox<T>::stream ── StreamHandler<T>
//! control  ActorRef<A>::ask(message, deadline) ── permits ── Addr of the live instance
//! health   Lifeline (atomics, published detail) ──> Control::health(), which never asks an actor
//! ```
//!
//! # Guarantees
//!
//! - **Isolation.** A panic ends one instance. It is caught inside its task, a second one in `stopped()` as well, and
//!   the instance is thrown away: nothing of it is used again but inboxes, counters and what it last published.
//! - **Restart.** `generation` grows by one; slot, inboxes, references and process stay. Full-jitter backoff, a limit
//!   inside a window, then a breaker that probes for ever. Operators' restarts reset the backoff and are not counted.
//! - **Data.** At most once: the item in hand at a crash is lost, everything behind it stays in order. An item that
//!   named itself (`Lifeline::enter_item`) and made two instances panic is refused (`Lifeline::refuses`).
//! - **Bounds.** Queues, asks under way, history, operations, threads and actors all have a limit and a named answer
//!   to "full". An ask that missed its deadline keeps its permit until it is handled or its instance is over.
//! - **Stalls.** No beat, or one operation, longer than `stall_after` ends the instance: kill signal, abort, and if it
//!   blocks its thread, a start elsewhere. A fenced instance takes nothing from its inbox and publishes nothing.
//!   `Lifeline::protect` suspends the rule for work that has a deadline of its own.
//! - **Health.** Reads facts and waits for nobody.
//!
//! # Rules of message flow
//!
//! 1. Data goes through an inbox, never through an `Addr`; overflow is chosen where the queue is made.
//! 2. Control goes by `ActorRef::ask` with a deadline, small and rare. `do_send`, `Actor::start`, actix's
//!    `Supervisor` and bare spawns are banned.
//! 3. Data flows down and control flows up; two actors never block on each other.
//! 4. A handler does not block its thread; what takes long is awaited, announced by `Lifeline::enter`, and has a
//!    deadline.
//! 5. Losing a connection is the actor's own business ([`Breaker`], [`Backoff`]); a restart is for bugs, stalls and
//!    operators.
//! 6. Tasks that an actor starts end with its kill token.

mod actor_ref;
mod arbiters;
mod backoff;
mod breaker;
mod cell;
pub mod clock;
mod control;
mod ending;
mod exit;
mod guardian;
mod handover;
mod health;
pub mod inbox;
mod isolate;
mod lifeline;
mod operations;
mod policy;
mod quarantine;
mod reconcile;
mod registry;
mod rounds;
pub mod service;
mod shutdown;
mod slot;
mod spec;
mod supervisor;
#[cfg(any(test, feature = "fault-injection"))]
pub mod testkit;
#[cfg(test)]
mod tests;
mod why;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use actor_ref::{ActorRef, AskError};
pub use arbiters::{ArbiterHealth, ArbiterId};
pub use backoff::{Backoff, SpecError};
pub use breaker::{Breaker, BreakerSpec, BreakerState, Threshold};
pub use cell::{Exits, GenerationRecord, RestartMode, State};
pub use clock::{Clock, ManualClock, Micros};
pub use control::{Control, ControlError, RestartRequest};
pub use exit::{ActorId, ExitReason, ExitReport, Fault, ItemTag, Phase};
pub use health::{
    ActorHealth, HealthReport, ProgressHealth, SupervisionHealth, SupervisorHealth, Verdict,
    word as state_word,
};
pub use inbox::{Inbox, InboxGauge, InboxHealth, InboxStream, Outlet, Overflow, SendError, Sent};
pub use lifeline::{Busy, Lifeline, Zone};
pub use operations::{NewOperation, Operation, OperationId, OperationState, Operations, Step};
pub use policy::{Decision, Policy};
pub use registry::KernelConfig;
#[cfg(any(test, feature = "fault-injection"))]
pub use service::Inject;
pub use service::Service;
pub use shutdown::{Culprit, ShutdownReport};
pub use spec::{
    Cascade, ChildBuilder, ChildFacts, ChildSpec, Escalation, Factory, Kind, LivenessSpec, Placement,
    RestartLimits, RestartPolicy, Strategy,
};
pub use supervisor::{SpawnError, Supervisor};

/// A running kernel.
pub struct Kernel {
    supervisor: Supervisor,
    control: Control,
    lost: watch::Receiver<bool>,
}

/// There is no actix system to run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no actix system runs on this thread")]
pub struct NoSystem;

impl Kernel {
    /// Starts guardian and supervisor.
    ///
    /// # Errors
    /// Outside of `actix_rt::System`.
    pub fn start(config: KernelConfig) -> Result<Self, NoSystem> {
        actix::System::try_current().ok_or(NoSystem)?;
        let registry = registry::Registry::new(config);
        let (tx, lost) = watch::channel(false);
        guardian::start(Arc::clone(&registry), tx);
        Ok(Self { supervisor: Supervisor(Arc::clone(&registry)), control: Control::new(registry), lost })
    }

    /// For building the tree.
    #[must_use]
    pub fn supervisor(&self) -> Supervisor {
        self.supervisor.clone()
    }

    /// For operating it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits until the supervisor cannot be kept alive, or the shutdown is done. In the first case the process must
    /// end with exit code 70.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// See [`Supervisor::shutdown`].
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        self.supervisor.shutdown(grace).await
    }
}
