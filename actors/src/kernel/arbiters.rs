//! The threads that actors run on: a small pool, named places, and a fresh thread where one is stuck.
//!
//! A blocked thread cannot be killed. It is marked stuck and passed over until it answers again; what ran on it is
//! started elsewhere. The number of threads is bounded, stuck ones included.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use actix::Arbiter;
use actix_rt::ArbiterHandle;
use serde::Serialize;

use super::clock::{Clock, Micros, between, micros};
use super::spec::Placement;

/// Names a thread of the kernel; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ArbiterId(pub u32);

/// The state of a thread, as shown in health.
#[derive(Clone, Debug, Serialize)]
pub struct ArbiterHealth {
    /// Its name.
    pub id: ArbiterId,
    /// How long its event loop took, or takes, to answer; microseconds.
    pub lag_us: u64,
    /// Instances placed on it.
    pub actors: usize,
    /// Whether it is passed over because it does not answer.
    pub stuck: bool,
    /// Whether it serves one actor only.
    pub dedicated: bool,
}

struct Entry {
    id: ArbiterId,
    handle: ArbiterHandle,
    actors: usize,
    stuck: bool,
    dedicated: bool,
    asked: Micros,
    answered: Arc<AtomicI64>,
    lag: Duration,
}

pub(crate) struct Arbiters {
    clock: Clock,
    pool: usize,
    max: usize,
    patience: Duration,
    next: u32,
    entries: Vec<Entry>,
    places: HashMap<Arc<str>, ArbiterId>,
    pub(crate) quarantined_total: u64,
}

impl Arbiters {
    pub(crate) fn new(clock: Clock, pool: usize, max: usize, patience: Duration) -> Self {
        let (entries, places) = (Vec::new(), HashMap::new());
        let pool = pool.max(1);
        Self { clock, pool, max: max.max(pool), patience, next: 1, entries, places, quarantined_total: 0 }
    }

    /// The thread for a new instance; `None` when every thread is stuck and no more may be made.
    pub(crate) fn place(&mut self, placement: &Placement) -> Option<(ArbiterId, ArbiterHandle)> {
        let id = match placement {
            Placement::Dedicated => self.make(true).or_else(|| self.least_loaded()),
            Placement::Pool => self.pooled(),
            Placement::Beside(key) => match self.places.get(key).copied().filter(|id| self.usable(*id)) {
                Some(id) => Some(id),
                None => {
                    let id = self.pooled()?;
                    self.places.insert(Arc::clone(key), id);
                    Some(id)
                }
            },
        }?;
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        entry.actors += 1;
        Some((id, entry.handle.clone()))
    }

    /// An instance has left its thread. A dedicated thread ends with it.
    pub(crate) fn release(&mut self, id: ArbiterId) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { return };
        entry.actors = entry.actors.saturating_sub(1);
        if entry.dedicated && entry.actors == 0 {
            entry.handle.stop();
        }
    }

    /// Nothing more is placed there until it answers.
    pub(crate) fn mark_stuck(&mut self, id: ArbiterId) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id && !entry.stuck) else {
            return;
        };
        entry.stuck = true;
        self.quarantined_total += 1;
        tracing::error!(arbiter = id.0, "thread does not answer, passed over from now on");
    }

    /// Measures the lag of each thread; forgets the dead.
    pub(crate) fn sweep(&mut self) {
        let (now, clock) = (self.clock.now_us(), &self.clock);
        self.entries.retain(|entry| entry.handle.alive());
        self.places.retain(|_, id| self.entries.iter().any(|entry| entry.id == *id));
        for entry in &mut self.entries {
            let answered = entry.answered.load(Relaxed);
            if answered < entry.asked {
                entry.lag = between(entry.asked, now);
                continue;
            }
            entry.lag = between(entry.asked, answered);
            if entry.stuck {
                entry.stuck = false;
                tracing::warn!(arbiter = entry.id.0, "thread answers again");
            }
            let (cell, clock) = (Arc::clone(&entry.answered), clock.clone());
            entry.asked = now;
            entry.handle.spawn_fn(move || cell.store(clock.now_us(), Relaxed));
        }
    }

    /// Whether the thread has not answered for longer than it may.
    pub(crate) fn is_late(&self, id: ArbiterId) -> bool {
        let late = |entry: &Entry| {
            let waiting = between(entry.asked, self.clock.now_us());
            !entry.handle.alive() || (entry.answered.load(Relaxed) < entry.asked && waiting > self.patience)
        };
        self.entries.iter().find(|entry| entry.id == id).is_none_or(late)
    }

    pub(crate) fn health(&self) -> Vec<ArbiterHealth> {
        let view = |entry: &Entry| ArbiterHealth {
            id: entry.id,
            lag_us: micros(entry.lag).unsigned_abs(),
            actors: entry.actors,
            stuck: entry.stuck,
            dedicated: entry.dedicated,
        };
        self.entries.iter().map(view).collect()
    }

    pub(crate) fn stop_all(&mut self) {
        self.entries.drain(..).for_each(|entry| {
            entry.handle.stop();
        });
    }

    #[cfg(test)]
    pub(crate) fn handle(&self, id: ArbiterId) -> Option<ArbiterHandle> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.handle.clone())
    }

    fn usable(&self, id: ArbiterId) -> bool {
        self.entries.iter().any(|entry| entry.id == id && !entry.stuck && entry.handle.alive())
    }

    fn pooled(&mut self) -> Option<ArbiterId> {
        let healthy = self.entries.iter().filter(|e| !e.dedicated && !e.stuck && e.handle.alive()).count();
        if healthy < self.pool {
            self.make(false).or_else(|| self.least_loaded())
        } else {
            self.least_loaded()
        }
    }

    fn least_loaded(&self) -> Option<ArbiterId> {
        let free = self.entries.iter().filter(|e| !e.dedicated && !e.stuck && e.handle.alive());
        free.min_by_key(|entry| entry.actors).map(|entry| entry.id)
    }

    fn make(&mut self, dedicated: bool) -> Option<ArbiterId> {
        if self.entries.len() >= self.max {
            return None;
        }
        let arbiter = match Arbiter::try_new() {
            Ok(arbiter) => arbiter,
            Err(error) => {
                tracing::error!(%error, "cannot start a thread");
                return None;
            }
        };
        let id = ArbiterId(self.next);
        self.next = self.next.wrapping_add(1);
        let now = self.clock.now_us();
        self.entries.push(Entry {
            id,
            handle: arbiter.handle(),
            actors: 0,
            stuck: false,
            dedicated,
            asked: now,
            answered: Arc::new(AtomicI64::new(now)),
            lag: Duration::ZERO,
        });
        Some(id)
    }
}
