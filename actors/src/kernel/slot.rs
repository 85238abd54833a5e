//! The place of one child in the tree: it stays while instances come and go.
//!
//! All facts about a child live here, under one lock that is never held while waiting; the supervisor reads them and
//! acts, so it can die and be replaced without losing anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use actix::{AsyncContext, Context};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::actor_ref::{ActorRef, Line};
use super::arbiters::ArbiterId;
use super::clock::{Clock, Micros, between};
use super::exit::{ActorId, ExitReason, ExitReport, Phase};
use super::isolate::{Obituary, build, isolate};
use super::lifeline::{Board, Command, Lifeline, locked};
use super::operations::OperationId;
use super::policy::Policy;
use super::registry::WakeQueue;
use super::service::Service;
use super::spec::{ChildFacts, ChildSpec, Factory};

/// Ends of instances that are remembered for each child.
const HISTORY: usize = 20;

/// The state of a child in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The first instance is being started.
    Starting,
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
}

/// What is wished for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Up,
    Paused,
    Stopped,
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
    Dying { step: KillStep, since: Micros },
    /// Nothing lives until then.
    Waiting { until: Micros, breaker: bool },
    /// Nothing lives and nothing is wished.
    Over,
}

/// How far the ending has gone.
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
    pub(crate) by: String,
    pub(crate) operation: Option<OperationId>,
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

/// The facts that change.
pub(crate) struct Cell {
    pub(crate) wanted: Wanted,
    pub(crate) stage: Stage,
    pub(crate) since: Micros,
    pub(crate) generation: u64,
    pub(crate) policy: Policy,
    pub(crate) life: Option<Lifeline>,
    pub(crate) commands: Option<async_channel::Sender<Command>>,
    pub(crate) abort: Option<AbortHandle>,
    pub(crate) arbiter: Option<ArbiterId>,
    pub(crate) request: Option<Request>,
    pub(crate) kill_now: bool,
    pub(crate) ended: Option<(ExitReason, Phase)>,
    pub(crate) operation: Option<OperationId>,
    pub(crate) next_cause: (String, String),
    pub(crate) history: VecDeque<GenerationRecord>,
    pub(crate) last_exit: Option<ExitReport>,
    pub(crate) exits: Exits,
}

impl Cell {
    pub(crate) fn enter(&mut self, stage: Stage, now: Micros) {
        self.stage = stage;
        self.since = now;
    }

    pub(crate) fn state(&self) -> State {
        let ready = self.life.as_ref().is_some_and(Lifeline::is_ready);
        let starting = if self.generation <= 1 { State::Starting } else { State::Restarting };
        match self.stage {
            Stage::Up if ready => State::Running,
            Stage::Due | Stage::Spawning { .. } | Stage::Up => starting,
            Stage::Dying { .. } if self.wanted == Wanted::Up => State::Restarting,
            Stage::Dying { .. } => State::Draining,
            Stage::Waiting { breaker: true, .. } => State::Failed,
            Stage::Waiting { .. } => State::Backoff,
            Stage::Over if self.wanted == Wanted::Paused => State::Paused,
            Stage::Over => State::Stopped,
        }
    }

    pub(crate) fn busy_with_operation(&self) -> bool {
        self.request.is_some() || self.operation.is_some()
    }

    /// Keeps the report of an end, and the counters.
    pub(crate) fn bury(&mut self, report: ExitReport) {
        match report.reason {
            ExitReason::Panicked(_) => self.exits.panics += 1,
            ExitReason::Failed(_) => self.exits.errors += 1,
            ExitReason::Stalled { .. } => self.exits.stalls += 1,
            ExitReason::Killed | ExitReason::ArbiterLost => self.exits.kills += 1,
            ExitReason::Finished | ExitReason::Asked => self.exits.normal += 1,
        }
        if let Some(record) = self.history.back_mut().filter(|r| r.generation == report.generation) {
            record.ended_us = Some(report.at_us);
            record.exit = Some(report.clone());
        }
        self.last_exit = Some(report);
        (self.life, self.commands, self.abort) = (None, None, None);
    }

    pub(crate) fn record_start(&mut self, now: Micros) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let (cause, by) = self.next_cause.clone();
        let generation = self.generation;
        self.history.push_back(GenerationRecord {
            generation,
            started_us: now,
            ended_us: None,
            cause,
            by,
            exit: None,
        });
    }
}

/// The part of a slot that does not depend on the type of the actor.
pub(crate) struct SlotCore {
    pub(crate) facts: ChildFacts,
    pub(crate) ordinal: u64,
    pub(crate) board: Arc<Board>,
    pub(crate) cell: Mutex<Cell>,
    pub(crate) changed: Notify,
    pub(crate) queued: AtomicBool,
    generation: AtomicU64,
    clock: Clock,
    wakes: Arc<WakeQueue>,
}

impl SlotCore {
    pub(crate) fn id(&self) -> &ActorId {
        &self.facts.id
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    pub(crate) fn state_and_due(&self) -> (State, Option<Micros>) {
        let cell = locked(&self.cell);
        let due = match cell.stage {
            Stage::Waiting { until, .. } => Some(until),
            _ => None,
        };
        (cell.state(), due)
    }

    pub(crate) fn next_generation(&self, cell: &mut Cell) {
        cell.generation += 1;
        self.generation.store(cell.generation, SeqCst);
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
        self.wakes.push(self);
    }

    pub(crate) fn report(&self, cell: &Cell, reason: ExitReason, phase: Phase) -> ExitReport {
        let now = self.clock.now_us();
        let started = cell.life.as_ref().map_or(now, Lifeline::started_us);
        let (id, generation) = (self.facts.id.clone(), cell.generation);
        ExitReport { id, generation, reason, phase, at_us: now, lived: between(started, now) }
    }

    /// The instance of `generation` is over; the first report counts.
    pub(crate) fn post_end(&self, generation: u64, reason: ExitReason, phase: Phase) {
        let mut cell = locked(&self.cell);
        if cell.generation != generation || cell.life.is_none() {
            drop(cell);
            tracing::info!(actor = %self.facts.id, generation, "an instance that was given up has ended");
            return;
        }
        cell.ended.get_or_insert((reason, phase));
        drop(cell);
        self.wake();
    }

    fn claims(&self, generation: u64) -> bool {
        let cell = locked(&self.cell);
        cell.generation == generation && cell.life.is_some() && matches!(cell.stage, Stage::Spawning { .. })
    }

    /// The instance runs: plugs it in, unless it was given up meanwhile.
    fn is_up(&self, generation: u64, abort: AbortHandle, plug_in: impl FnOnce()) {
        let mut cell = locked(&self.cell);
        if cell.generation != generation || cell.life.is_none() {
            drop(cell);
            return abort.abort();
        }
        plug_in();
        cell.abort = Some(abort);
        cell.enter(Stage::Up, self.clock.now_us());
        drop(cell);
        self.wake();
    }
}

/// A slot without the type of its actor.
pub(crate) trait AnySlot: Send + Sync {
    fn core(&self) -> &Arc<SlotCore>;
    /// Starts an instance on a thread, without waiting for it.
    fn launch(self: Arc<Self>, arbiter: &ArbiterHandle, life: Lifeline);
    /// Takes the address of that instance out of the references.
    fn unplug(&self, generation: u64);
}

/// The place of one child.
pub(crate) struct Slot<A: Service> {
    core: Arc<SlotCore>,
    line: Arc<ArcSwapOption<Line<A>>>,
    factory: Factory<A>,
}

impl<A: Service> Slot<A> {
    pub(crate) fn new(
        spec: ChildSpec<A>,
        ordinal: u64,
        generation: u64,
        clock: Clock,
        wakes: Arc<WakeQueue>,
    ) -> Self {
        let ChildSpec { facts, factory } = spec;
        let policy = Policy::new(facts.restart, facts.limits, facts.backoff.clone(), facts.breaker);
        let cell = Cell {
            wanted: Wanted::Up,
            stage: Stage::Due,
            since: clock.now_us(),
            generation,
            policy,
            life: None,
            commands: None,
            abort: None,
            arbiter: None,
            request: None,
            kill_now: false,
            ended: None,
            operation: None,
            next_cause: ("start".into(), "kernel".into()),
            history: VecDeque::new(),
            last_exit: None,
            exits: Exits::default(),
        };
        let core = SlotCore {
            facts,
            ordinal,
            board: Arc::default(),
            cell: Mutex::new(cell),
            changed: Notify::new(),
            queued: AtomicBool::new(false),
            generation: AtomicU64::new(generation),
            clock,
            wakes,
        };
        Self { core: Arc::new(core), line: Arc::new(ArcSwapOption::empty()), factory }
    }

    pub(crate) fn actor_ref(&self) -> ActorRef<A> {
        ActorRef { line: Arc::clone(&self.line), core: Arc::clone(&self.core) }
    }

    /// Runs on the thread of the instance.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place where instances are spawned; the handle is kept"
    )]
    fn begin(self: Arc<Self>, life: Lifeline, obituary: Obituary) {
        let generation = life.generation();
        if !self.core.claims(generation) {
            return;
        }
        let Some(actor) = build(&life, || (self.factory)(life.clone())) else { return };
        let context = Context::new();
        let permits = Arc::new(Semaphore::new(self.core.facts.asks));
        let line = Arc::new(Line { generation, addr: context.address(), permits });
        let handle = actix_rt::spawn(isolate(context.into_future(actor), obituary));
        self.core.is_up(generation, handle.abort_handle(), || self.line.store(Some(line)));
    }
}

impl<A: Service> AnySlot for Slot<A> {
    fn core(&self) -> &Arc<SlotCore> {
        &self.core
    }

    fn launch(self: Arc<Self>, arbiter: &ArbiterHandle, life: Lifeline) {
        let slot = Arc::clone(&self) as Arc<dyn AnySlot>;
        let obituary = Obituary::new(slot, life.clone());
        arbiter.spawn_fn(move || self.begin(life, obituary));
    }

    fn unplug(&self, generation: u64) {
        let current = self.line.load();
        if current.as_ref().is_some_and(|line| line.generation == generation) {
            self.line.compare_and_swap(&*current, None);
        }
    }
}
