//! The facts of one child that change: what is wished for it, where it stands, its instances, its history.
//!
//! Plain data under the lock of its slot. At most two instances are known at a time: the current one, and one beside
//! it, which either is to take over or is being ended.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::task::AbortHandle;

use super::arbiters::ArbiterId;
use super::clock::Micros;
use super::exit::{ExitReason, ExitReport, Phase};
use super::lifeline::{Command, Lifeline};
use super::operations::OperationId;
use super::policy::Policy;
use super::quarantine::Hold;
use super::spec::Cascade;

/// Ends of instances that are remembered for each child.
const HISTORY: usize = 20;

/// The state of a child in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The first instance is being started.
    Starting,
    /// An instance is up and not ready yet, or the next one works beside it and has not taken over.
    Warming,
    /// Working.
    Running,
    /// Working below its promise; `why` says in which respect.
    Degraded,
    /// Waiting before the next instance.
    Backoff,
    /// A later instance is being started, or the one before is being ended.
    Restarting,
    /// Asked to stop, finishing its work.
    Draining,
    /// Held by an operator.
    Paused,
    /// Over.
    Stopped,
    /// Too many restarts: the breaker is open, a probe will follow.
    Failed,
    /// Kept down, by an operator or because it does nothing but crash; a culprit is probed now and then.
    Quarantined,
}

/// What is wished for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Up,
    Paused,
    Stopped,
    Quarantined,
}

/// How an instance is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartMode {
    /// Asked first, by force after the grace.
    #[default]
    Graceful,
    /// By force.
    Kill,
    /// The next instance works beside the present one and says when it has taken over; then that one is asked to stop.
    /// Of a solitary actor, and of one that is not up, it is a graceful restart.
    Handover,
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing lives, the next instance is due.
    Due,
    /// Handed to a thread, not yet seen alive.
    Spawning { since: Micros },
    /// An instance lives.
    Up,
    /// An instance is being ended.
    Dying(Ending),
    /// Nothing lives until then.
    Waiting { until: Micros, breaker: bool },
    /// Nothing lives and nothing is wished.
    Over,
}

/// How far the ending of an instance has gone, and since when it is at that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) step: KillStep,
    pub(crate) since: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillStep {
    Asked,
    Signalled,
    Aborted,
}

/// A restart, stop or pause that somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) mode: RestartMode,
    pub(crate) deadline: Duration,
    pub(crate) by: String,
    pub(crate) cascade: Cascade,
    pub(crate) operation: Option<OperationId>,
}

/// What a child needs of others; answered once its lock is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is restarted by policy, and its group with it.
    Group,
    /// An operator restarts others of its group with it.
    Cascade(Cascade),
    /// It was restarted too often: its parent is to do something.
    Escalate,
    /// Those who were kept down because of it may go on.
    Lift,
}

/// One instance in the history of a child.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationRecord {
    /// Which instance.
    pub generation: u64,
    /// When it was started, microseconds UTC.
    pub started_us: Micros,
    /// When it ended.
    pub ended_us: Option<Micros>,
    /// Why it was started.
    pub cause: String,
    /// By whom: `kernel`, or who asked.
    pub by: String,
    /// How it ended.
    pub exit: Option<ExitReport>,
}

/// Counters of one child; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exits {
    /// Ends by panic.
    pub panics: u64,
    /// Ends by a stated fault.
    pub errors: u64,
    /// Ends by stall.
    pub stalls: u64,
    /// Ends by force or with their thread.
    pub kills: u64,
    /// Ends by themselves or because they were asked.
    pub normal: u64,
    /// Restarts by operators.
    pub manual: u64,
    /// Restarts in all.
    pub restarts: u64,
}

impl Exits {
    fn count(&mut self, reason: &ExitReason) {
        match reason {
            ExitReason::Panicked(_) => self.panics += 1,
            ExitReason::Failed(_) => self.errors += 1,
            ExitReason::Stalled { .. } => self.stalls += 1,
            ExitReason::Killed | ExitReason::ArbiterLost => self.kills += 1,
            ExitReason::Finished | ExitReason::Asked => self.normal += 1,
        }
    }
}

/// One instance as its slot knows it.
pub(crate) struct Instance {
    pub(crate) life: Lifeline,
    pub(crate) commands: async_channel::Sender<Command>,
    /// There once the instance is plugged in.
    pub(crate) abort: Option<AbortHandle>,
    pub(crate) arbiter: ArbiterId,
    pub(crate) ended: Option<Ended>,
}

impl Instance {
    pub(crate) fn generation(&self) -> u64 {
        self.life.generation()
    }

    /// Takes how it ended: reported, or seen by the second witness, a task that is finished although nobody said so.
    pub(crate) fn take_end(&mut self, now: Micros) -> Option<Ended> {
        let finished = self.abort.as_ref().is_some_and(AbortHandle::is_finished);
        let unseen = || Ended { reason: ExitReason::ArbiterLost, phase: self.life.phase(), at: now };
        self.ended.take().or_else(|| finished.then(unseen))
    }
}

/// How an instance ended, and when.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) reason: ExitReason,
    pub(crate) phase: Phase,
    pub(crate) at: Micros,
}

/// An instance beside the current one.
pub(crate) struct Beside {
    pub(crate) instance: Instance,
    pub(crate) role: Role,
    /// The operation that is over when this instance has ended.
    pub(crate) drains: Option<OperationId>,
}

/// What the instance beside the current one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The next one, which has until then to take over; `warm` once it is ready.
    Next { since: Micros, until: Micros, warm: bool },
    /// One that was replaced or thrown away and is being ended.
    Leaving(Ending),
}

/// The facts that change.
pub(crate) struct Cell {
    pub(crate) wanted: Wanted,
    pub(crate) stage: Stage,
    pub(crate) since: Micros,
    /// Of the current instance, or of the last one that was current.
    pub(crate) generation: u64,
    /// The highest ever given; never given again.
    pub(crate) newest: u64,
    pub(crate) policy: Policy,
    pub(crate) live: Option<Instance>,
    pub(crate) beside: Option<Beside>,
    pub(crate) request: Option<Request>,
    pub(crate) kill_now: bool,
    /// Why it is kept down; there while a probe of it runs, too.
    pub(crate) hold: Option<Hold>,
    /// It starts only when a round says so.
    pub(crate) gate: bool,
    /// It is to be restarted without a charge: the cause, and by whom.
    pub(crate) renew: Option<(String, String)>,
    /// Its end is the first half of a restart.
    pub(crate) renewing: bool,
    /// What others are asked for, in this order.
    pub(crate) calls: Vec<Call>,
    /// Its parent was told since it was last healthy.
    pub(crate) escalated: bool,
    /// Who paused it, and why.
    pub(crate) paused_by: Option<(String, String)>,
    pub(crate) operation: Option<OperationId>,
    pub(crate) next_cause: (String, String),
    pub(crate) history: VecDeque<GenerationRecord>,
    pub(crate) last_exit: Option<ExitReport>,
    /// Since when nothing has worked.
    pub(crate) down_since: Option<Micros>,
    pub(crate) exits: Exits,
}

impl Cell {
    pub(crate) fn new(policy: Policy, generation: u64, now: Micros) -> Self {
        Self {
            wanted: Wanted::Up,
            stage: Stage::Due,
            since: now,
            generation,
            newest: generation,
            policy,
            live: None,
            beside: None,
            request: None,
            kill_now: false,
            hold: None,
            gate: false,
            renew: None,
            renewing: false,
            calls: Vec::new(),
            escalated: false,
            paused_by: None,
            operation: None,
            next_cause: ("start".into(), "kernel".into()),
            history: VecDeque::new(),
            last_exit: None,
            down_since: None,
            exits: Exits::default(),
        }
    }

    pub(crate) fn enter(&mut self, stage: Stage, now: Micros) {
        self.stage = stage;
        self.since = now;
    }

    pub(crate) fn life(&self) -> Option<&Lifeline> {
        self.live.as_ref().map(|instance| &instance.life)
    }

    /// The instance of that generation, if it still counts.
    pub(crate) fn instance(&mut self, generation: u64) -> Option<&mut Instance> {
        let beside = self.beside.as_mut().map(|beside| &mut beside.instance);
        self.live.iter_mut().chain(beside).find(|instance| instance.generation() == generation)
    }

    /// Until when the next instance has to take over, while one is there.
    pub(crate) fn handover_until(&self) -> Option<Micros> {
        match self.beside.as_ref()?.role {
            Role::Next { until, .. } => Some(until),
            Role::Leaving(_) => None,
        }
    }

    /// Whether nothing lives and nothing is wished.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.beside.is_none()
    }

    pub(crate) fn state(&self) -> State {
        let ready = self.life().is_some_and(Lifeline::is_ready);
        let starting = if self.newest <= 1 { State::Starting } else { State::Restarting };
        match self.stage {
            _ if self.hold.is_some() && !matches!(self.stage, Stage::Dying(_)) => State::Quarantined,
            Stage::Up | Stage::Dying(_) if self.handover_until().is_some() => State::Warming,
            Stage::Up if ready => State::Running,
            Stage::Up => State::Warming,
            Stage::Due | Stage::Spawning { .. } => starting,
            Stage::Dying(_) if self.wanted == Wanted::Up => State::Restarting,
            Stage::Dying(_) => State::Draining,
            Stage::Waiting { breaker: true, .. } => State::Failed,
            Stage::Waiting { .. } => State::Backoff,
            Stage::Over if self.wanted == Wanted::Paused => State::Paused,
            Stage::Over => State::Stopped,
        }
    }

    pub(crate) fn busy_with_operation(&self) -> bool {
        self.request.is_some() || self.operation.is_some()
    }

    /// Asks something of others; what is asked already is not asked twice.
    pub(crate) fn call(&mut self, call: Call) {
        if !self.calls.contains(&call) {
            self.calls.push(call);
        }
    }

    /// Keeps the report of an end, and the counters.
    pub(crate) fn bury(&mut self, report: ExitReport) {
        self.exits.count(&report.reason);
        let record = self.history.iter_mut().rev().find(|record| record.generation == report.generation);
        if let Some(record) = record {
            record.ended_us = Some(report.at_us);
            record.exit = Some(report.clone());
        }
        self.last_exit = Some(report);
    }

    /// The number of the next instance, noted in the history.
    pub(crate) fn next_generation(&mut self, now: Micros, cause: (String, String)) -> u64 {
        self.newest += 1;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let (cause, by) = cause;
        let (generation, started_us) = (self.newest, now);
        self.history.push_back(GenerationRecord {
            generation,
            started_us,
            ended_us: None,
            cause,
            by,
            exit: None,
        });
        generation
    }
}
