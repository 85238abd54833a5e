//! The root supervisor: looks at slots when they changed, and at all of them on each sweep.
//!
//! No IO, no waiting, no state of its own. Commands (spawn, restart, stop, pause, reset) are facts written into the
//! slots rather than messages to this actor, so none is lost when it dies, and its successor goes on from them.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, StreamHandler};
use futures_util::stream;

use super::actor_ref::ActorRef;
use super::cell::{State, Wanted};
use super::clock::{between, micros};
use super::exit::ActorId;
use super::lifeline::locked;
use super::reconcile::drive;
use super::registry::Registry;
use super::rounds;
use super::service::Service;
use super::shutdown::{Plan, ShutdownReport};
use super::slot::{AnySlot, Slot};
use super::spec::ChildSpec;

/// How long `spawn` waits for the first instance.
const SPAWN_WAIT: Duration = Duration::from_secs(2);

/// The actor behind [`Supervisor`].
pub(crate) struct RootSupervisor(pub(crate) Arc<Registry>);

struct Woken;

impl Actor for RootSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.supervisor_starts.fetch_add(1, SeqCst);
        let wakes = stream::unfold(Arc::clone(&self.0.wakes), |wakes| async {
            wakes.woken().await;
            Some((Woken, wakes))
        });
        ctx.add_stream(Box::pin(wakes));
        ctx.run_interval(self.0.config.sweep_every, |actor, _| actor.sweep());
    }
}

impl StreamHandler<Woken> for RootSupervisor {
    fn handle(&mut self, _: Woken, _: &mut Self::Context) {
        for slot in self.0.woken_slots() {
            drive(&slot, &self.0);
        }
        rounds::step(&self.0);
        self.step_shutdown();
    }
}

impl RootSupervisor {
    fn sweep(&mut self) {
        let env = &self.0;
        env.clock.realign();
        let now = env.clock.now_us();
        #[cfg(test)]
        crash_if_told(env);
        env.last_sweep.store(now, Relaxed);
        locked(&env.arbiters).sweep();
        let all: Vec<_> = env.slots.iter().map(|slot| Arc::clone(&slot)).collect();
        all.iter().for_each(|slot| drive(slot, env));
        rounds::step(env);
        let grave = micros(env.config.grave_for);
        env.slots.retain(|_, slot| !is_forgotten(slot, now - grave));
        self.step_shutdown();
    }

    fn step_shutdown(&self) {
        let mut plan = locked(&self.0.shutdown);
        let Some(plan) = plan.as_mut().filter(|plan| !plan.done) else { return };
        plan.step(&self.0);
        if plan.done {
            self.0.shutdown_done.notify_waiters();
        }
    }
}

#[cfg(test)]
fn crash_if_told(env: &Registry) {
    let left = env.crash.load(SeqCst);
    if left > 0 {
        env.crash.store(left - 1, SeqCst);
        panic!("the supervisor is told to die");
    }
}

fn is_forgotten(slot: &Arc<dyn AnySlot>, before: i64) -> bool {
    let cell = locked(&slot.core().cell);
    cell.is_over() && cell.wanted == Wanted::Stopped && cell.since < before
}

/// Why a child was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// A child of that name is there.
    #[error("actor {0} exists")]
    Exists(ActorId),
    /// The limit of children is reached.
    #[error("more than {0} actors")]
    TooMany(usize),
    /// The kernel is being shut down.
    #[error("the kernel is shutting down")]
    ShuttingDown,
}

/// The handle for whoever builds the tree; cheap to clone.
#[derive(Clone)]
pub struct Supervisor(pub(crate) Arc<Registry>);

impl Supervisor {
    /// Puts a child under supervision and waits until its first instance is ready, at most 2 s; a child that takes
    /// longer or fails goes on being supervised. A stopped child's name can be used again; generations go on.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub async fn spawn<A: Service>(&self, spec: ChildSpec<A>) -> Result<ActorRef<A>, SpawnError> {
        let actor = self.spawn_detached(spec)?;
        let settled = async {
            loop {
                let mut changed = std::pin::pin!(actor.core.changed.notified());
                changed.as_mut().enable();
                if !matches!(
                    actor.core.state_and_due().0,
                    State::Starting | State::Warming | State::Restarting
                ) {
                    return;
                }
                // The readiness of an instance is seen, not told: look again soon.
                let _ = tokio::time::timeout(Duration::from_millis(5), changed).await;
            }
        };
        let _ = tokio::time::timeout(SPAWN_WAIT, settled).await;
        Ok(actor)
    }

    /// As [`Supervisor::spawn`], without waiting.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub fn spawn_detached<A: Service>(&self, spec: ChildSpec<A>) -> Result<ActorRef<A>, SpawnError> {
        use dashmap::Entry;
        let env = &self.0;
        if env.is_shutting_down() {
            return Err(SpawnError::ShuttingDown);
        }
        if env.slots.len() >= env.config.max_actors {
            return Err(SpawnError::TooMany(env.config.max_actors));
        }
        let id = spec.facts.id.clone();
        let make = |generation| {
            let wakes = Arc::clone(&env.wakes);
            Arc::new(Slot::new(spec, env.next_ordinal(), generation, env.clock.clone(), wakes))
        };
        let slot = match env.slots.entry(id.clone()) {
            Entry::Vacant(place) => {
                let slot = make(0);
                place.insert(Arc::clone(&slot) as Arc<dyn AnySlot>);
                slot
            }
            Entry::Occupied(mut place) => {
                if !is_forgotten(place.get(), i64::MAX) {
                    return Err(SpawnError::Exists(id));
                }
                let newest = locked(&place.get().core().cell).newest;
                let slot = make(newest);
                place.insert(Arc::clone(&slot) as Arc<dyn AnySlot>);
                slot
            }
        };
        slot.core().wake();
        Ok(slot.actor_ref())
    }

    /// Stops all children in the reverse order of their start, then ends the threads. A second call waits for the
    /// first. Returns at the latest a little more than a second after the grace.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let env = &self.0;
        locked(&env.shutdown).get_or_insert_with(|| Plan::new(env, grace));
        env.wakes.nudge();
        let since = env.clock.now_us();
        let limit = grace + Duration::from_secs(3);
        loop {
            let mut done = std::pin::pin!(env.shutdown_done.notified());
            done.as_mut().enable();
            let report = locked(&env.shutdown).as_ref().filter(|plan| plan.done).map(Plan::report);
            if let Some(report) = report {
                locked(&env.arbiters).stop_all();
                return report;
            }
            if between(since, env.clock.now_us()) > limit {
                return locked(&env.shutdown).as_ref().map(Plan::report).unwrap_or_default();
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), done).await;
        }
    }
}
