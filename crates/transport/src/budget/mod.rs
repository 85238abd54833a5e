//! Who may call a venue's REST service, and when: one budget of weight per host and limit, shared by everything in the
//! process that talks to that host.
//!
//! A [`RestBudget`] belongs to no actor and survives any of them: its state is changed in complete steps under a lock that
//! is never held across an await, and a permit gives itself back when it is dropped. There is no task behind it; those who
//! wait carry the timers.

mod permit;
pub mod state;
mod window;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fathom_market::plan::{BudgetRule, Priority};
use tokio::sync::Notify;

pub use permit::{Outcome, Permit};

use self::{
    permit::Claim,
    state::{BudgetError, BudgetState, Counters, TicketId},
};
use crate::UtcClock;

/// A budget as the API and the metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStatus {
    /// Host, with its port where the address names one.
    pub host: String,
    /// Name of the limit.
    pub group: &'static str,
    /// Weight of a window, under the configured ceiling.
    pub capacity: u32,
    /// Length of the window.
    pub window: Duration,
    /// Weight used within the last window, in flight included.
    pub used: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests allowed in flight.
    pub concurrency: usize,
    /// Requests waiting, in the order of [`Priority::ALL`].
    pub waiting: [usize; 4],
    /// End of the penalty in force, UTC microseconds.
    pub penalized_until_us: Option<i64>,
    /// Steps of slowness after refusals, 0 when none.
    pub slowness: u32,
    /// What a scheduler should leave between two requests that are not urgent.
    pub suggested_delay: Duration,
    /// Counters since the process started.
    pub counters: Counters,
}

/// The budgets of all hosts. Clones share them.
#[derive(Clone)]
pub struct RestBudget {
    inner: Arc<Inner>,
}

impl RestBudget {
    /// Budgets that count by `clock`; nothing is configured yet.
    pub fn new(clock: UtcClock) -> Self {
        Self { inner: Arc::new(Inner { clock, hosts: Mutex::default() }) }
    }

    /// Sets the rules of a host, as [`crate::rest::host_key`] names it. `ceiling` lowers the capacity of each. Doing it again
    /// replaces the rules of the same groups and keeps what is used, in flight and waiting.
    pub fn configure(&self, host: &str, rules: Vec<BudgetRule>, ceiling: Option<u32>) {
        let now_us = (self.inner.clock)();
        let mut hosts = self.inner.hosts();
        let groups = hosts.entry(host.to_owned()).or_default();
        for rule in rules {
            match groups.get_mut(rule.group) {
                Some(group) => group.state.configure(&rule, ceiling),
                None => {
                    groups.insert(rule.group, Group::new(BudgetState::new(&rule, ceiling)));
                }
            }
            if let Some(group) = groups.get_mut(rule.group) {
                group.pump(now_us);
                group.wake_first();
            }
        }
    }

    /// Waits for the turn of a request. Dropping the future gives the place in the queue back.
    ///
    /// # Errors
    /// [`BudgetError`]: too many wait, the deadline has passed, the host is penalized for longer than the deadline, the
    /// request is heavier than a whole window, or the group is not configured.
    pub async fn acquire(
        &self,
        host: &str,
        group: &str,
        weight: u32,
        priority: Priority,
        deadline: Duration,
    ) -> Result<Permit, BudgetError> {
        Claim::new(&self.inner, host, group, weight, priority, deadline)?.granted().await
    }

    /// All budgets, by host and group.
    pub fn status(&self) -> Vec<BudgetStatus> {
        let now_us = (self.inner.clock)();
        let mut hosts = self.inner.hosts();
        let groups = hosts.iter_mut().flat_map(|(host, groups)| groups.iter_mut().map(move |g| (host, g)));
        groups.map(|(host, (name, group))| group.status(host, name, now_us)).collect()
    }
}

impl std::fmt::Debug for RestBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestBudget").field("budgets", &self.status()).finish()
    }
}

type Hosts = BTreeMap<String, BTreeMap<&'static str, Group>>;

struct Inner {
    clock: UtcClock,
    hosts: Mutex<Hosts>,
}

impl Inner {
    /// A holder that panicked left a complete state: nothing under the lock runs code of others.
    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A budget and those who wait for it.
struct Group {
    state: BudgetState,
    wakers: BTreeMap<TicketId, Arc<Notify>>,
    /// Who carries the timer.
    first: Option<TicketId>,
}

impl Group {
    fn new(state: BudgetState) -> Self {
        Self { state, wakers: BTreeMap::new(), first: None }
    }

    /// Starts whoever may start, wakes them, and wakes the new first one, who has to set its timer.
    fn pump(&mut self, now_us: i64) {
        for id in self.state.pump(now_us) {
            self.wake(id);
        }
        let first = self.state.first();
        if first != self.first {
            self.first = first;
            if let Some(id) = first {
                self.wake(id);
            }
        }
    }

    /// Whoever is first sleeps for what was true when it began to: a new rule may be kinder.
    fn wake_first(&self) {
        if let Some(id) = self.first {
            self.wake(id);
        }
    }

    fn wake(&self, id: TicketId) {
        if let Some(waker) = self.wakers.get(&id) {
            waker.notify_one();
        }
    }

    fn status(&mut self, host: &str, group: &'static str, now_us: i64) -> BudgetStatus {
        let state = &mut self.state;
        BudgetStatus {
            host: host.to_owned(),
            group,
            used: state.used(now_us),
            suggested_delay: state.suggested_delay(now_us),
            capacity: state.capacity(),
            window: state.window(),
            in_flight: state.in_flight(),
            concurrency: state.concurrency(),
            waiting: state.waiting(),
            penalized_until_us: state.penalized_until(now_us),
            slowness: state.slowness(),
            counters: state.counters(),
        }
    }
}
