//! All facts of the kernel in one place that no actor owns: slots, threads, operations, the plan of a shutdown.
//!
//! Everybody reads it, the supervisor acts on it; nothing here waits for an actor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;

use super::arbiters::Arbiters;
use super::clock::{Clock, Micros};
use super::exit::ActorId;
use super::lifeline::locked;
use super::operations::Operations;
use super::rounds::Round;
use super::shutdown::Plan;
use super::slot::{AnySlot, SlotCore};

/// The settings of a kernel.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The source of time.
    pub clock: Clock,
    /// Threads in the pool.
    pub pool: usize,
    /// Threads at most, stuck and dedicated ones included.
    pub max_arbiters: usize,
    /// Children at most.
    pub max_actors: usize,
    /// How often the supervisor looks at every child.
    pub sweep_every: Duration,
    /// How long a thread may take to answer before it counts as stuck.
    pub spawn_patience: Duration,
    /// How long an aborted instance may take to end before its thread is given up.
    pub abort_patience: Duration,
    /// How long a stopped child stays visible.
    pub grave_for: Duration,
    /// Restarts of the supervisor inside a minute before the guardian gives up.
    pub max_supervisor_restarts: u32,
    /// Manual restarts that may follow each other at once.
    pub manual_burst: u32,
    /// The time after which one more manual restart is granted.
    pub manual_every: Duration,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            pool: 2,
            max_arbiters: 64,
            max_actors: 20_000,
            sweep_every: Duration::from_millis(25),
            spawn_patience: Duration::from_millis(300),
            abort_patience: Duration::from_millis(300),
            grave_for: Duration::from_secs(900),
            max_supervisor_restarts: 5,
            manual_burst: 20,
            manual_every: Duration::from_secs(1),
        }
    }
}

/// Slots to look at now. A slot is in it at most once, so it is bounded by their number.
#[derive(Default)]
pub(crate) struct WakeQueue {
    waiting: Mutex<VecDeque<ActorId>>,
    notify: Notify,
}

impl WakeQueue {
    pub(crate) fn push(&self, core: &SlotCore) {
        if !core.queued.swap(true, SeqCst) {
            locked(&self.waiting).push_back(core.id().clone());
            self.notify.notify_one();
        }
    }

    pub(crate) fn nudge(&self) {
        self.notify.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    fn drain(&self) -> VecDeque<ActorId> {
        std::mem::take(&mut *locked(&self.waiting))
    }
}

/// See the head of the module.
pub(crate) struct Registry {
    pub(crate) config: KernelConfig,
    pub(crate) clock: Clock,
    pub(crate) slots: DashMap<ActorId, Arc<dyn AnySlot>>,
    pub(crate) ordinals: AtomicU64,
    pub(crate) arbiters: Mutex<Arbiters>,
    pub(crate) operations: Operations,
    pub(crate) wakes: Arc<WakeQueue>,
    pub(crate) rounds: Mutex<Vec<Round>>,
    pub(crate) shutdown: Mutex<Option<Plan>>,
    pub(crate) shutdown_done: Notify,
    pub(crate) started_us: Micros,
    pub(crate) last_sweep: AtomicI64,
    pub(crate) reports: AtomicU64,
    pub(crate) supervisor_starts: AtomicU64,
    #[cfg(test)]
    pub(crate) crash: std::sync::atomic::AtomicU32,
}

impl Registry {
    pub(crate) fn new(config: KernelConfig) -> Arc<Self> {
        let clock = config.clock.clone();
        let now = clock.now_us();
        let arbiters = Arbiters::new(clock.clone(), config.pool, config.max_arbiters, config.spawn_patience);
        Arc::new(Self {
            operations: Operations::new(clock.clone()),
            slots: DashMap::new(),
            ordinals: AtomicU64::new(0),
            arbiters: Mutex::new(arbiters),
            wakes: Arc::default(),
            rounds: Mutex::default(),
            shutdown: Mutex::new(None),
            shutdown_done: Notify::new(),
            started_us: now,
            last_sweep: AtomicI64::new(now),
            reports: AtomicU64::new(0),
            supervisor_starts: AtomicU64::new(0),
            #[cfg(test)]
            crash: std::sync::atomic::AtomicU32::new(0),
            clock,
            config,
        })
    }

    pub(crate) fn slot(&self, id: &ActorId) -> Option<Arc<dyn AnySlot>> {
        self.slots.get(id).map(|slot| Arc::clone(&slot))
    }

    /// All slots in the order in which they were started.
    pub(crate) fn ordered(&self) -> Vec<Arc<dyn AnySlot>> {
        let mut all: Vec<_> = self.slots.iter().map(|slot| Arc::clone(&slot)).collect();
        all.sort_by_key(|slot| slot.core().ordinal);
        all
    }

    pub(crate) fn next_ordinal(&self) -> u64 {
        self.ordinals.fetch_add(1, Relaxed)
    }

    pub(crate) fn woken_slots(&self) -> Vec<Arc<dyn AnySlot>> {
        let ids = self.wakes.drain();
        let slots: Vec<_> = ids.iter().filter_map(|id| self.slot(id)).collect();
        slots.iter().for_each(|slot| slot.core().queued.store(false, SeqCst));
        slots
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        locked(&self.shutdown).is_some()
    }
}
