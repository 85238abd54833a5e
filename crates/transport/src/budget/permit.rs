//! One request's way through a budget: a claim while it waits, a permit while it is in flight. Both clean up when dropped.

use std::{sync::Arc, time::Duration};

use fathom_market::plan::Priority;
use tokio::sync::Notify;

use super::{
    Group, Inner,
    state::{BudgetError, Ending, TicketId, micros},
};

/// One who waits behind the first looks again after this long, in case the first one's thread hangs.
const FALLBACK_US: i64 = 1_000_000;

/// How the request of a permit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with a status came.
    Answered {
        /// HTTP status; 429 and 418 penalize.
        status: u16,
        /// Weight used, as the venue's header tells.
        used: Option<u32>,
        /// `Retry-After`, where given.
        retry_after: Option<Duration>,
    },
    /// No answer came; the venue may have counted the request all the same.
    Failed,
    /// It was never sent.
    Unsent,
}

/// Where a request is counted, and under which id.
#[derive(Clone)]
struct Ticket {
    inner: Arc<Inner>,
    host: String,
    group: &'static str,
    used_header: Option<&'static str>,
    id: TicketId,
}

impl Ticket {
    fn with_group<R>(&self, f: impl FnOnce(&mut Group, i64) -> R) -> Option<R> {
        let now_us = (self.inner.clock)();
        let mut hosts = self.inner.hosts();
        hosts.get_mut(&self.host)?.get_mut(self.group).map(|group| f(group, now_us))
    }

    fn deadline_error(&self) -> BudgetError {
        let (host, group) = (self.host.clone(), self.group.to_owned());
        let left =
            self.with_group(|group, now_us| group.state.penalized_until(now_us).map(|until| until - now_us));
        match left.flatten() {
            Some(left) => {
                BudgetError::Penalized { host, group, after: Duration::from_micros(left.unsigned_abs()) }
            }
            None => BudgetError::Deadline { host, group },
        }
    }
}

/// A place in the queue.
pub(super) struct Claim {
    ticket: Ticket,
    notify: Arc<Notify>,
    deadline_us: i64,
}

enum Step {
    Granted,
    /// Look again at this time, or when notified.
    Wait {
        now_us: i64,
        until_us: i64,
    },
    Expired,
}

impl Claim {
    pub(super) fn new(
        inner: &Arc<Inner>,
        host: &str,
        group: &str,
        weight: u32,
        priority: Priority,
        deadline: Duration,
    ) -> Result<Self, BudgetError> {
        let now_us = (inner.clock)();
        let deadline_us = now_us.saturating_add(micros(deadline));
        let (host, name) = (host.to_owned(), group.to_owned());
        let mut hosts = inner.hosts();
        let found = hosts.get_mut(&host).and_then(|groups| groups.iter_mut().find(|(key, _)| **key == group));
        let Some((group, entry)) = found else {
            return Err(BudgetError::Unconfigured { host, group: name });
        };
        let capacity = entry.state.capacity();
        let state = &mut entry.state;
        if weight > capacity {
            return Err(BudgetError::TooHeavy { host, group: name, weight, capacity });
        }
        if let Some(until) = state.penalized_until(now_us).filter(|until| *until >= deadline_us) {
            let after = Duration::from_micros((until - now_us).unsigned_abs());
            return Err(BudgetError::Penalized { host, group: name, after });
        }
        let Some(id) = state.enqueue(weight, priority, deadline_us) else {
            return Err(BudgetError::Overloaded { host, group: name });
        };
        let used_header = state.used_header();
        let notify = Arc::new(Notify::new());
        entry.wakers.insert(id, Arc::clone(&notify));
        let ticket = Ticket { inner: Arc::clone(inner), group, host, used_header, id };
        Ok(Self { ticket, notify, deadline_us })
    }

    pub(super) async fn granted(self) -> Result<Permit, BudgetError> {
        loop {
            match self.step() {
                Step::Granted => return Ok(Permit { ticket: self.ticket.clone(), finished: false }),
                Step::Expired => return Err(self.ticket.deadline_error()),
                Step::Wait { now_us, until_us } => {
                    let wait = Duration::from_micros((until_us - now_us).max(1).unsigned_abs());
                    // A wake-up between the step and here is kept by the Notify.
                    let _ = tokio::time::timeout(wait, self.notify.notified()).await;
                }
            }
        }
    }

    fn step(&self) -> Step {
        let id = self.ticket.id;
        let step = self.ticket.with_group(|group, now_us| {
            group.pump(now_us);
            if group.state.take(id) {
                group.wakers.remove(&id);
                return Step::Granted;
            }
            if !group.state.is_waiting(id) {
                return Step::Expired;
            }
            let fallback_us = now_us.saturating_add(FALLBACK_US);
            let wake_us = match group.first == Some(id) {
                true => group.state.next_wake(now_us).unwrap_or(fallback_us),
                false => fallback_us,
            };
            Step::Wait { now_us, until_us: wake_us.min(self.deadline_us) }
        });
        step.unwrap_or(Step::Expired)
    }
}

impl Drop for Claim {
    /// Gives the place back, and what was started for it, unless a permit has taken it over.
    fn drop(&mut self) {
        let id = self.ticket.id;
        self.ticket.with_group(|group, now_us| {
            group.wakers.remove(&id);
            group.state.cancel(id);
            group.pump(now_us);
        });
    }
}

/// Leave to send one request. Dropped without [`Permit::finish`], it counts as failed.
#[must_use]
pub struct Permit {
    ticket: Ticket,
    finished: bool,
}

impl Permit {
    /// The response header in which the venue tells the weight used, lower case.
    pub fn used_header(&self) -> Option<&'static str> {
        self.ticket.used_header
    }

    /// Reports how the request ended and lets the next one go.
    ///
    /// A 418, and a 429 that says how long to wait, hold for all of the host's limits; a 429 without `Retry-After` holds
    /// for its own alone.
    pub fn finish(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.finished = true;
        let Ticket { inner, host, group, id, .. } = &self.ticket;
        let now_us = (inner.clock)();
        let mut hosts = inner.hosts();
        let Some(groups) = hosts.get_mut(host) else { return };
        let Some(entry) = groups.get_mut(group) else { return };
        let host_until_us = entry.settle(now_us, *id, outcome);
        if let Some(until_us) = host_until_us {
            for entry in groups.values_mut() {
                entry.state.penalize_until(until_us);
            }
        }
        drop(hosts);
        if let Outcome::Answered { status: status @ (418 | 429), retry_after, .. } = outcome {
            tracing::warn!(host, group, status, ?retry_after, "rate limited by the venue");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.finished {
            self.settle(Outcome::Failed);
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ticket { host, group, id, .. } = &self.ticket;
        f.debug_struct("Permit").field("host", host).field("group", group).field("id", id).finish()
    }
}

impl Group {
    /// Counts the end of a request; returns until when the whole host is to be left alone.
    fn settle(&mut self, now_us: i64, id: TicketId, outcome: Outcome) -> Option<i64> {
        let mut host_until_us = None;
        let ending = match outcome {
            Outcome::Failed => Ending::Failed,
            Outcome::Unsent => Ending::Unsent,
            Outcome::Answered { status: status @ (418 | 429), retry_after, .. } => {
                let until_us = self.state.refuse(now_us, id, status, retry_after);
                host_until_us = (status == 418 || retry_after.is_some()).then_some(until_us);
                Ending::Refused
            }
            Outcome::Answered { .. } => Ending::Answered,
        };
        self.state.finish(now_us, id, ending);
        if let Outcome::Answered { used: Some(used), .. } = outcome {
            self.state.observe(now_us, used);
        }
        self.pump(now_us);
        host_until_us
    }
}
