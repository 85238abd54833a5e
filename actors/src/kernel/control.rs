//! What operators can do: the one facade behind the HTTP interface, the command line and the tests.
//!
//! Every call answers at once from facts; none waits for an actor. Each change is an operation with a name, is logged
//! with who asked and why, and waits its turn: one operation at a time for each actor.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cell::{Call, Cell, GenerationRecord, Request, RestartMode, Stage, Wanted};
use super::clock::{Micros, between, micros};
use super::exit::ActorId;
use super::health::{ActorHealth, HealthReport, actor_health, report};
use super::inbox::InboxHealth;
use super::lifeline::locked;
use super::operations::{NewOperation, Operation, OperationId, Operations};
use super::quarantine::{Hold, HoldKind};
use super::registry::Registry;
use super::spec::Cascade;

/// How long the next instance has to take over where nothing is said.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(30);
/// The longest that may be asked for.
const MAX_HANDOVER_DEADLINE: Duration = Duration::from_secs(600);

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such actor (404).
    #[error("no actor {0}")]
    NotFound(ActorId),
    /// An operation on it is under way (409).
    #[error("operation {} is running", .operation.as_ref().map_or("of the kernel", OperationId::as_str))]
    OperationRunning {
        /// Which.
        operation: Option<OperationId>,
    },
    /// It is at another generation than the caller believes (412).
    #[error("generation is {current}")]
    GenerationMismatch {
        /// The generation it is at.
        current: u64,
    },
    /// Too many manual restarts (429).
    #[error("too many manual restarts")]
    TooMany {
        /// When one more is granted.
        retry_after: Duration,
    },
    /// It is kept down on purpose (423); a restart may be forced.
    #[error("quarantined: {why}")]
    Quarantined {
        /// Why it is kept down.
        why: String,
    },
    /// Not possible in its state (503).
    #[error("not possible now: {0}")]
    Unavailable(&'static str),
}

/// A restart that somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct RestartRequest {
    /// How the present instance is ended.
    pub mode: RestartMode,
    /// Why, for the log.
    pub reason: String,
    /// Only if it is at this generation.
    pub if_generation: Option<u64>,
    /// Who asks, for the log.
    pub requested_by: String,
    /// How long the next instance of a handover has to take over: 30 s where nothing is said, at most 10 min.
    pub deadline: Option<Duration>,
    /// Who of its group is restarted with it; without a group nobody is.
    pub cascade: Cascade,
    /// Whether a quarantine is lifted for it.
    pub force: bool,
}

/// See the head of the module; cheap to clone.
#[derive(Clone)]
pub struct Control {
    env: Arc<Registry>,
    restarts: Arc<Mutex<Allowance>>,
}

impl Control {
    pub(crate) fn new(env: Arc<Registry>) -> Self {
        let full = Allowance { left: env.config.manual_burst, since: env.clock.now_us() };
        Self { env, restarts: Arc::new(Mutex::new(full)) }
    }

    /// Restarts an actor in this process: same slot, same inboxes, next generation. Resets its backoff and does not
    /// count against its restart limit. A stopped or paused actor is started.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn restart(&self, id: &ActorId, request: RestartRequest) -> Result<OperationId, ControlError> {
        let RestartRequest { mode, reason, if_generation, requested_by, deadline, cascade, force } = request;
        let deadline = deadline.unwrap_or(HANDOVER_DEADLINE).min(MAX_HANDOVER_DEADLINE);
        let grant = |cell: &Cell| {
            if !force {
                not_quarantined(cell)?;
            }
            locked(&self.restarts).take(&self.env)
        };
        self.change(id, "actor.restart", &requested_by, &reason, if_generation, grant, |cell, operation| {
            if cell.hold.is_some() {
                cell.lift();
                cell.call(Call::Lift);
            }
            cell.wanted = Wanted::Up;
            let by = requested_by.clone();
            cell.request = Some(Request { mode, deadline, by, cascade, operation: Some(operation) });
        })
    }

    /// Ends the present instance and keeps the actor down until it is resumed; its inboxes fill and overflow.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn pause(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        self.change(id, "actor.pause", by, reason, None, not_quarantined, |cell, operation| {
            cell.wanted = Wanted::Paused;
            cell.paused_by = Some((by.to_owned(), reason.to_owned()));
            cell.operation = Some(operation);
        })
    }

    /// Starts a paused or stopped actor.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn resume(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        self.change(id, "actor.resume", by, reason, None, not_quarantined, |cell, operation| {
            if cell.wanted == Wanted::Up {
                return self.env.operations.finish(&operation, Ok(()));
            }
            cell.wanted = Wanted::Up;
            cell.next_cause = ("resume".into(), by.to_owned());
            cell.operation = Some(operation);
        })
    }

    /// Stops an actor for good; its name may be used again.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn stop(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        self.change(
            id,
            "actor.stop",
            by,
            reason,
            None,
            |_| Ok(()),
            |cell, operation| {
                cell.wanted = Wanted::Stopped;
                if cell.hold.take().is_some() {
                    // Nobody will probe it any more: those who were kept down because of it would wait for ever.
                    cell.call(Call::Lift);
                }
                cell.operation = Some(operation);
            },
        )
    }

    /// Ends the present instance and keeps the actor down until the quarantine is lifted or a restart is forced.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn quarantine(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        let since = self.env.clock.now_us();
        self.change(
            id,
            "actor.quarantine",
            by,
            reason,
            None,
            |_| Ok(()),
            |cell, operation| {
                let why = if reason.is_empty() { "an operator wishes it" } else { reason };
                cell.quarantine(Hold { why: why.into(), by: by.into(), since, kind: HoldKind::Operator });
                cell.operation = Some(operation);
            },
        )
    }

    /// Lifts a quarantine, and those that were kept down because of this actor; it is started at once. Of an actor that is
    /// not quarantined there is nothing to do.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn lift(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        self.change(
            id,
            "actor.lift",
            by,
            reason,
            None,
            |_| Ok(()),
            |cell, operation| {
                if cell.hold.is_none() {
                    return self.env.operations.finish(&operation, Ok(()));
                }
                cell.lift();
                cell.call(Call::Lift);
                cell.next_cause = ("quarantine lifted".into(), by.to_owned());
                cell.operation = Some(operation);
            },
        )
    }

    /// Closes the breaker of an actor and lets it start at once.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn reset_breaker(&self, id: &ActorId, by: &str, reason: &str) -> Result<OperationId, ControlError> {
        self.change(id, "breaker.reset", by, reason, None, not_quarantined, |cell, operation| {
            cell.policy.reset();
            if let Stage::Waiting { .. } = cell.stage {
                cell.next_cause = ("breaker reset".into(), by.to_owned());
                cell.stage = Stage::Due;
            }
            self.env.operations.finish(&operation, Ok(()));
        })
    }

    /// One operation, while it is remembered.
    #[must_use]
    pub fn operation(&self, id: &OperationId) -> Option<Operation> {
        self.env.operations.get(id)
    }

    /// The operations that are remembered, the newest first.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.env.operations.list()
    }

    /// The memory of operations, for operations of another kind.
    #[must_use]
    pub fn operation_log(&self) -> &Operations {
        &self.env.operations
    }

    /// The state of everything.
    #[must_use]
    pub fn health(&self) -> HealthReport {
        report(&self.env)
    }

    /// The state of one actor.
    #[must_use]
    pub fn actor(&self, id: &ActorId) -> Option<ActorHealth> {
        Some(actor_health(&self.env, self.env.slot(id)?.core()))
    }

    /// The last instances of an actor, the oldest first.
    #[must_use]
    pub fn history(&self, id: &ActorId) -> Option<Vec<GenerationRecord>> {
        Some(locked(&self.env.slot(id)?.core().cell).history.iter().cloned().collect())
    }

    /// The inboxes of an actor.
    #[must_use]
    pub fn inboxes(&self, id: &ActorId) -> Option<Vec<InboxHealth>> {
        Some(self.env.slot(id)?.core().facts.inboxes.iter().map(|inbox| inbox.health()).collect())
    }

    /// What an actor published last, as its own type, and when (microseconds UTC). It may be of an instance that is
    /// over.
    #[must_use]
    pub fn detail<D: Any + Send + Sync>(&self, id: &ActorId) -> Option<(Micros, Arc<D>)> {
        let detail = self.env.slot(id)?.core().board.detail.load_full()?;
        let typed = Arc::clone(&detail.1).any().downcast().ok()?;
        Some((detail.0, typed))
    }

    /// Whether the supervisor has swept lately; the whole of liveness.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let last = self.env.last_sweep.load(std::sync::atomic::Ordering::Relaxed);
        between(last, self.env.clock.now_us()) < Duration::from_secs(10)
    }

    /// Makes an actor fail, from inside of it.
    ///
    /// # Errors
    /// When there is no such actor, or it does not run or listen.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn inject(&self, id: &ActorId, fault: super::service::Inject) -> Result<(), ControlError> {
        let slot = self.env.slot(id).ok_or_else(|| ControlError::NotFound(id.clone()))?;
        let cell = locked(&slot.core().cell);
        let live = cell.live.as_ref().ok_or(ControlError::Unavailable("the actor does not run"))?;
        let sent = live.commands.try_send(super::lifeline::Command::Inject(fault));
        sent.map_err(|_| ControlError::Unavailable("the actor does not listen"))
    }

    #[allow(clippy::too_many_arguments, reason = "one list for all commands, in the order of the checks")]
    fn change(
        &self,
        id: &ActorId,
        kind: &'static str,
        by: &str,
        reason: &str,
        if_generation: Option<u64>,
        grant: impl FnOnce(&Cell) -> Result<(), ControlError>,
        apply: impl FnOnce(&mut Cell, OperationId),
    ) -> Result<OperationId, ControlError> {
        let slot = self.env.slot(id).ok_or_else(|| ControlError::NotFound(id.clone()))?;
        if self.env.is_shutting_down() {
            return Err(ControlError::Unavailable("the kernel is shutting down"));
        }
        let core = slot.core();
        let mut cell = locked(&core.cell);
        if let Some(expected) = if_generation
            && expected != cell.generation
        {
            return Err(ControlError::GenerationMismatch { current: cell.generation });
        }
        if cell.busy_with_operation() {
            let waiting = cell.request.as_ref().and_then(|request| request.operation.clone());
            return Err(ControlError::OperationRunning { operation: cell.operation.clone().or(waiting) });
        }
        grant(&cell)?;
        let operation = self.env.operations.begin(NewOperation {
            kind,
            target: id.to_string(),
            requested_by: by.to_owned(),
            reason: reason.to_owned(),
            from_generation: Some(cell.generation),
        });
        let operation = operation.ok_or(ControlError::TooMany { retry_after: Duration::from_secs(1) })?;
        apply(&mut cell, operation.clone());
        drop(cell);
        core.wake();
        Ok(operation)
    }
}

fn not_quarantined(cell: &Cell) -> Result<(), ControlError> {
    let refused = |hold: &Hold| Err(ControlError::Quarantined { why: hold.why.clone() });
    cell.hold.as_ref().map_or(Ok(()), refused)
}

/// So many at once, one more every so often.
struct Allowance {
    left: u32,
    since: Micros,
}

impl Allowance {
    fn take(&mut self, env: &Registry) -> Result<(), ControlError> {
        let (now, every) = (env.clock.now_us(), micros(env.config.manual_every).max(1));
        let earned = ((now - self.since) / every).max(0);
        self.since += earned * every;
        self.left =
            self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(env.config.manual_burst);
        if self.left == 0 {
            return Err(ControlError::TooMany { retry_after: between(now, self.since + every) });
        }
        self.left -= 1;
        Ok(())
    }
}
