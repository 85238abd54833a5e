//! The place of one child in the tree: it stays while instances come and go.
//!
//! All facts about a child live here, under one lock that is never held while waiting; the supervisor reads them and
//! acts, so it can die and be replaced without losing anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use actix::{AsyncContext, Context};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::actor_ref::{ActorRef, Line};
use super::cell::{Cell, Ended, Role, Stage, State};
use super::clock::{Clock, Micros};
use super::exit::{ActorId, ExitReason, Phase};
use super::isolate::{Obituary, build, isolate};
use super::lifeline::{Board, Lifeline, locked};
use super::policy::Policy;
use super::registry::WakeQueue;
use super::service::Service;
use super::spec::{ChildFacts, ChildSpec, Factory};

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

    pub(crate) fn set_generation(&self, cell: &mut Cell, generation: u64) {
        cell.generation = generation;
        self.generation.store(generation, SeqCst);
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
        self.wakes.push(self);
    }

    /// The instance of `generation` is over; the first report counts.
    pub(crate) fn post_end(&self, generation: u64, reason: ExitReason, phase: Phase) {
        let at = self.clock.now_us();
        let mut cell = locked(&self.cell);
        let Some(instance) = cell.instance(generation) else {
            drop(cell);
            tracing::info!(actor = %self.facts.id, generation, "an instance that was given up has ended");
            return;
        };
        instance.ended.get_or_insert(Ended { reason, phase, at });
        drop(cell);
        self.wake();
    }

    fn claims(&self, generation: u64) -> bool {
        locked(&self.cell).instance(generation).is_some_and(|instance| !instance.life.is_fenced())
    }

    /// The instance runs: plugs it in, unless it was given up meanwhile. One that has a predecessor gets its asks and
    /// its items from here on.
    fn is_up(&self, generation: u64, abort: AbortHandle, plug_in: impl FnOnce()) {
        let mut cell = locked(&self.cell);
        let Some(instance) = cell.instance(generation).filter(|instance| !instance.life.is_fenced()) else {
            drop(cell);
            return abort.abort();
        };
        instance.abort = Some(abort);
        let is_next = cell.beside.as_ref().is_some_and(|beside| {
            beside.instance.generation() == generation && matches!(beside.role, Role::Next { .. })
        });
        match (&cell.live, is_next) {
            (Some(present), true) => present.life.succeed(),
            _ => cell.enter(Stage::Up, self.clock.now_us()),
        }
        plug_in();
        drop(cell);
        self.wake();
    }
}

/// A slot without the type of its actor.
pub(crate) trait AnySlot: Send + Sync {
    fn core(&self) -> &Arc<SlotCore>;
    /// Starts an instance on a thread, without waiting for it.
    fn launch(self: Arc<Self>, arbiter: &ArbiterHandle, life: Lifeline);
    /// Takes the address of that instance out of the references; where one before it is still plugged in, its address
    /// comes back.
    fn unplug(&self, generation: u64);
}

/// The place of one child.
pub(crate) struct Slot<A: Service> {
    core: Arc<SlotCore>,
    line: Arc<ArcSwapOption<Line<A>>>,
    /// The instances that are plugged in, the newest last; two while one takes over.
    plugged: Mutex<Vec<Arc<Line<A>>>>,
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
        let core = SlotCore {
            facts,
            ordinal,
            board: Arc::default(),
            cell: Mutex::new(Cell::new(policy, generation, clock.now_us())),
            changed: Notify::new(),
            queued: AtomicBool::new(false),
            generation: AtomicU64::new(generation),
            clock,
            wakes,
        };
        let line = Arc::new(ArcSwapOption::empty());
        Self { core: Arc::new(core), line, plugged: Mutex::default(), factory }
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
        self.core.is_up(generation, handle.abort_handle(), || self.plug_in(line));
    }

    fn plug_in(&self, line: Arc<Line<A>>) {
        let mut plugged = locked(&self.plugged);
        plugged.push(Arc::clone(&line));
        plugged.sort_by_key(|line| line.generation);
        self.line.store(plugged.last().cloned());
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
        let mut plugged = locked(&self.plugged);
        plugged.retain(|line| line.generation != generation);
        self.line.store(plugged.last().cloned());
    }
}
