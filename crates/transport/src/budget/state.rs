//! The budget of one limit, as plain data: weight in a window, shares by priority, requests in flight, penalties, and the
//! queue of those who wait.
//!
//! It does no IO and reads no clock: times are UTC microseconds, passed in. What waits is started by
//! [`BudgetState::pump`], strictly by priority and in order of arrival within one.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fathom_market::plan::{BudgetRule, Priority};

use super::window::Window;
use crate::ErrorClass;

/// Requests that may wait for one limit.
pub const MAX_WAITING: usize = 1024;
/// A permit held for longer is taken for lost with its holder's thread.
pub const PERMIT_LEASE: Duration = Duration::from_secs(300);
/// Answers without a refusal that take one step of slowness back.
pub const RECOVERY: u32 = 20;

const MAX_SLOWNESS: u32 = 6;
/// A window that the venue reports ends by its clock, not ours.
const CLOCK_SLACK_US: i64 = 1_000_000;
const LONGEST_DEFAULT_429: Duration = Duration::from_secs(3600);
const LONGEST_DEFAULT_418: Duration = Duration::from_secs(3 * 86_400);

/// Why a request may not go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Too many wait already.
    #[error("budget {host}/{group}: {MAX_WAITING} requests wait already")]
    Overloaded {
        /// Host.
        host: String,
        /// Group.
        group: String,
    },
    /// Its turn did not come within the deadline.
    #[error("budget {host}/{group}: no turn within the deadline")]
    Deadline {
        /// Host.
        host: String,
        /// Group.
        group: String,
    },
    /// The venue told us to wait for longer than the deadline allows.
    #[error("budget {host}/{group}: penalized for another {after:?}")]
    Penalized {
        /// Host.
        host: String,
        /// Group.
        group: String,
        /// What is left of the penalty.
        after: Duration,
    },
    /// One request would exceed the whole capacity.
    #[error("budget {host}/{group}: weight {weight} exceeds the capacity {capacity}")]
    TooHeavy {
        /// Host.
        host: String,
        /// Group.
        group: String,
        /// Weight of the request.
        weight: u32,
        /// Capacity of a window.
        capacity: u32,
    },
    /// No rule was configured for it, so that nothing is sent uncounted.
    #[error("budget {host}/{group} is not configured")]
    Unconfigured {
        /// Host.
        host: String,
        /// Group.
        group: String,
    },
}

impl BudgetError {
    /// What to do next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Overloaded { .. } | Self::Deadline { .. } => ErrorClass::Transient,
            Self::Penalized { after, .. } => ErrorClass::RateLimited { after: *after },
            Self::TooHeavy { .. } => ErrorClass::Rejected,
            Self::Unconfigured { .. } => ErrorClass::Fatal,
        }
    }
}

/// The share of the capacity that a priority may fill, percent. What is left is for those above it; the last part is for
/// what others use behind the same address.
pub const fn share_percent(priority: Priority) -> u64 {
    match priority {
        Priority::Resync => 95,
        Priority::Live => 85,
        Priority::Repair => 70,
        Priority::History => 50,
    }
}

/// How long to stay away when the venue did not say: a minute after a 429, two after a 418, doubled by each refusal
/// before it, up to an hour and three days.
pub fn default_penalty(status: u16, refusals_before: u32) -> Duration {
    let (base, longest) = match status {
        418 => (Duration::from_secs(120), LONGEST_DEFAULT_418),
        _ => (Duration::from_secs(60), LONGEST_DEFAULT_429),
    };
    base.saturating_mul(1 << refusals_before.min(16)).min(longest)
}

/// How a request ended, as far as the budget is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered with anything but a refusal.
    Answered,
    /// Answered 429 or 418.
    Refused,
    /// No answer; the venue may have counted it.
    Failed,
    /// Never sent: its weight is given back.
    Unsent,
}

/// Identifies a request from [`BudgetState::enqueue`] until it has finished.
pub type TicketId = u64;

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: TicketId,
    weight: u32,
    deadline_us: i64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    weight: u32,
    started_us: i64,
    lease_us: i64,
    taken: bool,
    /// Until when it may stay without being taken.
    take_by_us: i64,
}

/// Counters, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers 429.
    pub refused_429: u64,
    /// Answers 418.
    pub banned_418: u64,
    /// Answers that were no refusal.
    pub requests_ok: u64,
    /// Requests without an answer.
    pub requests_failed: u64,
    /// Requests turned away because too many waited.
    pub overloaded: u64,
}

/// One limit of one host.
#[derive(Debug)]
pub struct BudgetState {
    capacity: u32,
    concurrency: usize,
    used_header: Option<&'static str>,
    window: Window,
    /// What the venue last said, plus what was started since, and until when it holds.
    told: Option<(u64, i64)>,
    in_flight_weight: u64,
    running: BTreeMap<TicketId, Running>,
    queues: [VecDeque<Waiting>; 4],
    next_id: TicketId,
    penalized_until_us: i64,
    last_refusal_us: Option<i64>,
    refusals: u32,
    slowness: u32,
    answered: u32,
    next_start_us: i64,
    counters: Counters,
}

impl BudgetState {
    /// A budget with nothing used. `ceiling` lowers the rule's capacity, and never raises it.
    pub fn new(rule: &BudgetRule, ceiling: Option<u32>) -> Self {
        let mut state = Self {
            capacity: 0,
            concurrency: 0,
            used_header: None,
            window: Window::new(1),
            told: None,
            in_flight_weight: 0,
            running: BTreeMap::new(),
            queues: Default::default(),
            next_id: 0,
            penalized_until_us: i64::MIN,
            last_refusal_us: None,
            refusals: 0,
            slowness: 0,
            answered: 0,
            next_start_us: i64::MIN,
            counters: Counters::default(),
        };
        state.configure(rule, ceiling);
        state
    }

    /// Replaces the rule; what is used, in flight and waiting stays.
    pub fn configure(&mut self, rule: &BudgetRule, ceiling: Option<u32>) {
        self.capacity = rule.capacity.min(ceiling.unwrap_or(u32::MAX)).max(1);
        self.concurrency = rule.concurrency.max(1);
        self.used_header = rule.used_header;
        self.window.set_length(micros(rule.window));
    }

    /// Puts a request at the end of its priority's queue; [`BudgetState::pump`] starts it. `None` when too many wait.
    pub fn enqueue(&mut self, weight: u32, priority: Priority, deadline_us: i64) -> Option<TicketId> {
        if self.waiting().iter().sum::<usize>() >= MAX_WAITING {
            self.counters.overloaded += 1;
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.queues[priority as usize].push_back(Waiting { id, weight, deadline_us });
        Some(id)
    }

    /// Starts whoever may start now and returns their ids, in order. Those whose deadline has passed are left out.
    pub fn pump(&mut self, now_us: i64) -> Vec<TicketId> {
        self.sweep(now_us);
        let mut started = Vec::new();
        while let Some((priority, head)) = self.head() {
            if !self.may_start(now_us, head.weight, priority) {
                break;
            }
            self.queues[priority as usize].pop_front();
            self.start(now_us, head);
            started.push(head.id);
        }
        started
    }

    /// When to pump again although nothing has finished; `None` when nothing waits or only a finish can help.
    pub fn next_wake(&self, now_us: i64) -> Option<i64> {
        let (priority, head) = self.head()?;
        if self.running.len() >= self.concurrency {
            return self.running.values().map(Running::expires_us).min();
        }
        let held = self.penalized_until_us.max(self.next_start_us);
        if held > now_us {
            return Some(held);
        }
        if self.fits(head.weight, priority) {
            return Some(now_us);
        }
        let told = self.told.map(|(_, until)| until);
        let lease = self.running.values().map(Running::expires_us).min();
        [self.window.next_expiry(), told, lease].into_iter().flatten().min()
    }

    /// True when `id` was started; from now on it must be finished. Called once by its owner.
    pub fn take(&mut self, id: TicketId) -> bool {
        self.running.get_mut(&id).is_some_and(|running| {
            running.taken = true;
            true
        })
    }

    /// The owner gave up waiting; what had been started for it is given back.
    pub fn cancel(&mut self, id: TicketId) {
        for queue in &mut self.queues {
            queue.retain(|waiting| waiting.id != id);
        }
        if self.running.get(&id).is_some_and(|running| !running.taken) {
            self.release(0, id, Ending::Unsent);
        }
    }

    /// A request has ended. Its weight counts from now for a whole window, since the venue may have counted it as late as
    /// now. Ids that are not in flight are ignored.
    pub fn finish(&mut self, now_us: i64, id: TicketId, ending: Ending) {
        let Some(started_us) = self.release(now_us, id, ending) else { return };
        match ending {
            Ending::Answered => self.answered(started_us),
            Ending::Failed => self.counters.requests_failed += 1,
            Ending::Refused | Ending::Unsent => {}
        }
    }

    /// The venue said that `used` is used in its current window. It is believed where it exceeds our own count: others may
    /// share the address. Windows are taken to be aligned to UTC, with a second of slack.
    pub fn observe(&mut self, now_us: i64, used: u32) {
        let length = self.window.length_us();
        let until = (now_us.div_euclid(length) + 1) * length + CLOCK_SLACK_US;
        self.told = Some((u64::from(used) + self.in_flight_weight, until));
    }

    /// The venue answered 429 or 418 to `id`, which is still in flight. Returns until when to stay away.
    ///
    /// Refusals of requests that were in flight together are one episode: they may lengthen the penalty, not double it.
    pub fn refuse(&mut self, now_us: i64, id: TicketId, status: u16, after: Option<Duration>) -> i64 {
        match status {
            418 => self.counters.banned_418 += 1,
            _ => self.counters.refused_429 += 1,
        }
        let started_us = self.running.get(&id).map(|running| running.started_us);
        let same_episode =
            self.last_refusal_us.zip(started_us).is_some_and(|(last, started)| started <= last);
        if !same_episode {
            self.last_refusal_us = Some(now_us);
            self.refusals += 1;
            self.slowness = (self.slowness + 1).min(MAX_SLOWNESS);
            self.answered = 0;
        }
        let after = after.unwrap_or_else(|| default_penalty(status, self.refusals.saturating_sub(1)));
        let until = now_us.saturating_add(micros(after));
        self.penalize_until(until);
        until
    }

    /// Nothing starts before `until_us`. An earlier end never shortens a penalty.
    pub fn penalize_until(&mut self, until_us: i64) {
        self.penalized_until_us = self.penalized_until_us.max(until_us);
    }

    /// End of the penalty in force.
    pub fn penalized_until(&self, now_us: i64) -> Option<i64> {
        (self.penalized_until_us > now_us).then_some(self.penalized_until_us)
    }

    /// Weight that counts now: our own or what the venue said, whichever is more, with what is in flight.
    pub fn used(&mut self, now_us: i64) -> u64 {
        self.sweep(now_us);
        self.counted()
    }

    /// Requests waiting, by [`Priority::ALL`].
    pub fn waiting(&self) -> [usize; 4] {
        self.queues.each_ref().map(VecDeque::len)
    }

    /// Whoever is next.
    pub fn first(&self) -> Option<TicketId> {
        self.head().map(|(_, waiting)| waiting.id)
    }

    /// Whether `id` still waits.
    pub fn is_waiting(&self, id: TicketId) -> bool {
        self.queues.iter().flatten().any(|waiting| waiting.id == id)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Requests allowed in flight.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Weight of a window, as configured and under its ceiling.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Length of a window.
    pub fn window(&self) -> Duration {
        Duration::from_micros(self.window.length_us().unsigned_abs())
    }

    /// The response header that tells the weight used.
    pub fn used_header(&self) -> Option<&'static str> {
        self.used_header
    }

    /// Steps of slowness after refusals: each takes a quarter of the capacity and doubles the distance of requests.
    pub fn slowness(&self) -> u32 {
        self.slowness
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What a scheduler should leave between two requests that are not urgent: 50 ms in an idle window, up to 2 s in one
    /// nearly used up, doubled by each step of slowness.
    pub fn suggested_delay(&mut self, now_us: i64) -> Duration {
        let percent = self.used(now_us) * 100 / u64::from(self.capacity);
        let base = match percent {
            0..50 => 50,
            50..75 => 200,
            75..90 => 1000,
            _ => 2000,
        };
        Duration::from_millis(base << self.slowness)
    }

    fn head(&self) -> Option<(Priority, Waiting)> {
        Priority::ALL.into_iter().find_map(|p| self.queues[p as usize].front().map(|waiting| (p, *waiting)))
    }

    fn may_start(&self, now_us: i64, weight: u32, priority: Priority) -> bool {
        self.running.len() < self.concurrency
            && now_us >= self.penalized_until_us
            && now_us >= self.next_start_us
            && self.fits(weight, priority)
    }

    /// Within the priority's share; or alone in an empty window, where a request is heavier than its share.
    fn fits(&self, weight: u32, priority: Priority) -> bool {
        let slowed = (0..self.slowness).fold(u64::from(self.capacity), |capacity, _| capacity * 3 / 4);
        let limit = (slowed * share_percent(priority)).div_ceil(100);
        let counted = self.counted();
        weight == 0 || counted + u64::from(weight) <= limit || (counted == 0 && weight <= self.capacity)
    }

    fn counted(&self) -> u64 {
        let own = self.window.sum() + self.in_flight_weight;
        own.max(self.told.map_or(0, |(used, _)| used))
    }

    fn start(&mut self, now_us: i64, waiting: Waiting) {
        let weight = waiting.weight;
        self.in_flight_weight += u64::from(weight);
        if let Some((used, _)) = &mut self.told {
            *used += u64::from(weight);
        }
        if self.slowness > 0 {
            self.next_start_us = now_us + (25_000 << self.slowness);
        }
        let lease_us = now_us.saturating_add(micros(PERMIT_LEASE));
        let take_by_us = waiting.deadline_us.min(lease_us);
        self.running
            .insert(waiting.id, Running { weight, started_us: now_us, lease_us, taken: false, take_by_us });
    }

    /// Takes `id` out of flight and returns when it was started.
    fn release(&mut self, now_us: i64, id: TicketId, ending: Ending) -> Option<i64> {
        let running = self.running.remove(&id)?;
        self.in_flight_weight -= u64::from(running.weight);
        if ending == Ending::Unsent {
            if let Some((used, _)) = &mut self.told {
                *used = used.saturating_sub(u64::from(running.weight));
            }
        } else {
            self.window.add(now_us, running.weight);
        }
        Some(running.started_us)
    }

    fn answered(&mut self, started_us: i64) {
        self.counters.requests_ok += 1;
        if self.last_refusal_us.is_some_and(|last| started_us <= last) {
            return;
        }
        self.refusals = 0;
        self.answered += 1;
        if self.answered >= RECOVERY && self.slowness > 0 {
            self.slowness -= 1;
            self.answered = 0;
        }
    }

    /// Forgets what has left the window, those whose deadline has passed, and permits whose holder is gone.
    fn sweep(&mut self, now_us: i64) {
        self.window.expire(now_us);
        if self.told.is_some_and(|(_, until)| now_us >= until) {
            self.told = None;
        }
        for queue in &mut self.queues {
            if queue.iter().any(|waiting| waiting.deadline_us <= now_us) {
                queue.retain(|waiting| waiting.deadline_us > now_us);
            }
        }
        let lost = |running: &Running| running.expires_us() <= now_us;
        let lost: Vec<_> =
            self.running.iter().filter(|(_, r)| lost(r)).map(|(id, r)| (*id, r.taken)).collect();
        for (id, taken) in lost {
            self.finish(now_us, id, if taken { Ending::Failed } else { Ending::Unsent });
        }
    }
}

impl Running {
    fn expires_us(&self) -> i64 {
        if self.taken { self.lease_us } else { self.take_by_us }
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}
