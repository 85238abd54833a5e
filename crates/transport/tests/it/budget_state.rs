//! The pure budget: tables, and a property over random histories.

use std::{collections::BTreeMap, time::Duration};

use fathom_market::plan::{BudgetRule, Priority};
use fathom_transport::budget::state::{
    BudgetState, Ending, MAX_WAITING, PERMIT_LEASE, RECOVERY, TicketId, default_penalty, share_percent,
};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;
const FAR: i64 = i64::MAX;

fn rule(capacity: u32, seconds: u64, concurrency: usize) -> BudgetRule {
    BudgetRule {
        group: "weight",
        capacity,
        window: Duration::from_secs(seconds),
        used_header: None,
        concurrency,
    }
}

fn start(state: &mut BudgetState, now: i64, weight: u32, priority: Priority) -> Option<TicketId> {
    let id = state.enqueue(weight, priority, FAR).unwrap();
    if state.pump(now).contains(&id) {
        assert!(state.take(id));
        return Some(id);
    }
    state.cancel(id);
    None
}

/// Starts and finishes requests of weight 1 until no more go; returns how many went.
fn fill(state: &mut BudgetState, now: i64, priority: Priority) -> usize {
    let mut n = 0;
    while let Some(id) = start(state, now, 1, priority) {
        state.finish(now, id, Ending::Answered);
        n += 1;
    }
    n
}

#[test]
fn each_priority_fills_its_share() {
    for (priority, most) in
        [(Priority::History, 50), (Priority::Repair, 70), (Priority::Live, 85), (Priority::Resync, 95)]
    {
        let mut state = BudgetState::new(&rule(100, 60, 10), None);
        assert_eq!(fill(&mut state, 0, priority), most, "{}", priority.as_str());
    }
    let mut state = BudgetState::new(&rule(100, 60, 10), None);
    assert_eq!(fill(&mut state, 0, Priority::History), 50);
    assert_eq!(fill(&mut state, 0, Priority::Live), 35);
    assert_eq!(fill(&mut state, 0, Priority::Resync), 10);
}

#[test]
fn a_ceiling_lowers_and_never_raises() {
    assert_eq!(BudgetState::new(&rule(100, 60, 1), Some(40)).capacity(), 40);
    assert_eq!(BudgetState::new(&rule(100, 60, 1), Some(400)).capacity(), 100);
}

#[test]
fn weight_leaves_the_window_a_window_after_the_request_ended() {
    let mut state = BudgetState::new(&rule(10, 60, 10), None);
    let id = start(&mut state, 0, 10, Priority::History).expect("alone, it may exceed its share");
    assert_eq!(
        start(&mut state, 70 * SECOND, 1, Priority::Resync),
        None,
        "it may be counted as long as it is in flight"
    );
    state.finish(70 * SECOND, id, Ending::Answered);
    assert_eq!(start(&mut state, 130 * SECOND - 1, 1, Priority::Resync), None);
    assert!(start(&mut state, 131 * SECOND, 1, Priority::Resync).is_some());
}

#[test]
fn what_was_never_sent_is_given_back() {
    let mut state = BudgetState::new(&rule(10, 60, 10), None);
    let id = start(&mut state, 0, 10, Priority::Live).unwrap();
    state.finish(1, id, Ending::Unsent);
    assert_eq!(state.used(1), 0);
}

#[test]
fn the_venues_word_counts_where_it_is_more_until_its_window_ends() {
    let mut state = BudgetState::new(&rule(100, 60, 10), None);
    state.observe(30 * SECOND, 90);
    assert_eq!(state.used(30 * SECOND), 90);
    assert_eq!(start(&mut state, 30 * SECOND, 1, Priority::Live), None);
    let id = start(&mut state, 30 * SECOND, 5, Priority::Resync).unwrap();
    assert_eq!(state.used(30 * SECOND), 95, "what was started since counts on top");
    state.finish(31 * SECOND, id, Ending::Answered);
    state.observe(31 * SECOND, 3);
    assert_eq!(state.used(31 * SECOND), 5, "our own count is the least");
    state.observe(32 * SECOND, 90);
    assert_eq!(state.used(61 * SECOND - 1), 90);
    assert_eq!(state.used(61 * SECOND), 5);
}

#[test]
fn penalties_double_by_default_and_obey_the_venue() {
    let seconds = |status, n| default_penalty(status, n).as_secs();
    assert_eq!([0, 1, 2, 30].map(|n| seconds(429, n)), [60, 120, 240, 3600]);
    assert_eq!([0, 1, 30].map(|n| seconds(418, n)), [120, 240, 259_200]);

    let mut state = BudgetState::new(&rule(1000, 60, 10), None);
    let refuse = |state: &mut BudgetState, now, status, after: Option<u64>| {
        let id = start(state, now, 1, Priority::Live).expect("free to go");
        let until = state.refuse(now, id, status, after.map(Duration::from_secs));
        state.finish(now, id, Ending::Refused);
        until
    };
    assert_eq!(refuse(&mut state, 0, 429, None), 60 * SECOND);
    assert_eq!(start(&mut state, 60 * SECOND - 1, 1, Priority::Resync), None);
    assert_eq!(refuse(&mut state, 60 * SECOND, 429, None), 180 * SECOND);
    assert_eq!(
        refuse(&mut state, 180 * SECOND, 429, Some(3)),
        183 * SECOND,
        "exactly what the venue asked for"
    );
    assert_eq!(refuse(&mut state, 183 * SECOND, 418, Some(7)), 190 * SECOND);
    assert_eq!(state.counters().refused_429, 3);
    assert_eq!(state.counters().banned_418, 1);
    assert_eq!(state.slowness(), 4);
}

#[test]
fn refusals_of_one_flight_are_one_episode_and_the_longest_penalty_holds() {
    let mut state = BudgetState::new(&rule(1000, 60, 10), None);
    let ids: Vec<_> = (0..3).map(|_| start(&mut state, 0, 1, Priority::Live).unwrap()).collect();
    for (id, after) in ids.into_iter().zip([Some(30), None, Some(1)]) {
        state.refuse(SECOND, id, 429, after.map(Duration::from_secs));
        state.finish(SECOND, id, Ending::Refused);
    }
    assert_eq!(state.slowness(), 1);
    assert_eq!(state.penalized_until(SECOND), Some(61 * SECOND));
}

#[test]
fn refusals_slow_down_and_answers_recover() {
    let mut state = BudgetState::new(&rule(1000, 60, 10), None);
    let idle = state.suggested_delay(0);
    let id = start(&mut state, 0, 1, Priority::Live).unwrap();
    state.refuse(0, id, 429, Some(Duration::from_secs(1)));
    state.finish(0, id, Ending::Refused);
    assert_eq!(state.suggested_delay(0), idle * 2);

    let mut now = SECOND;
    let id = start(&mut state, now, 1, Priority::Live).unwrap();
    assert_eq!(start(&mut state, now, 1, Priority::Live), None, "a distance is kept");
    state.finish(now, id, Ending::Answered);
    for _ in 1..RECOVERY {
        assert_eq!(state.slowness(), 1);
        now += SECOND;
        let id = start(&mut state, now, 1, Priority::Live).unwrap();
        state.finish(now, id, Ending::Answered);
    }
    assert_eq!(state.slowness(), 0);
    assert_eq!(state.suggested_delay(now), idle);
}

#[test]
fn the_suggested_delay_grows_with_usage() {
    let mut state = BudgetState::new(&rule(300, 60, 10), None);
    let mut at = |used| {
        state.observe(0, used);
        state.suggested_delay(0).as_millis()
    };
    assert_eq!([at(50), at(160), at(230), at(280)], [50, 200, 1000, 2000]);
}

#[test]
fn the_queue_is_bounded_and_forgets_whoever_is_late() {
    let mut state = BudgetState::new(&rule(1, 60, 1), None);
    for i in 0..MAX_WAITING {
        assert!(state.enqueue(1, Priority::History, 1 + i as i64).is_some());
    }
    assert_eq!(state.enqueue(1, Priority::Resync, FAR), None);
    assert_eq!(state.counters().overloaded, 1);
    assert_eq!(state.pump(500).len(), 1);
    assert_eq!(state.waiting(), [0, 0, 0, MAX_WAITING - 501]);
}

#[test]
fn permits_whose_holder_is_gone_are_taken_back() {
    let mut state = BudgetState::new(&rule(10, 60, 1), None);
    let taken = start(&mut state, 0, 1, Priority::Live).unwrap();
    let lease = i64::try_from(PERMIT_LEASE.as_micros()).unwrap();
    let next = state.enqueue(1, Priority::Live, 2 * lease).unwrap();
    assert_eq!(state.next_wake(0), Some(lease));
    assert_eq!(state.pump(lease), [next]);
    state.finish(lease, taken, Ending::Answered);
    assert_eq!(state.counters().requests_failed, 1, "it was counted once, as lost");
    // Started and never taken: its owner hangs. It is given back at its deadline.
    let last = state.enqueue(1, Priority::Live, FAR).unwrap();
    assert_eq!(state.pump(2 * lease), [last]);
}

#[derive(Clone, Debug)]
enum Op {
    Enqueue { weight: u32, priority: usize },
    Cancel { nth: usize },
    Finish { nth: usize, unsent: bool },
    Refuse { nth: usize, after: Option<u64> },
    Advance { millis: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u32..30, 0usize..4).prop_map(|(weight, priority)| Op::Enqueue { weight, priority }),
        1 => (0usize..8).prop_map(|nth| Op::Cancel { nth }),
        3 => (0usize..8, prop::bool::weighted(0.1)).prop_map(|(nth, unsent)| Op::Finish { nth, unsent }),
        1 => (0usize..8, prop::option::of(1u64..90)).prop_map(|(nth, after)| Op::Refuse { nth, after }),
        3 => (1u64..20_000).prop_map(|millis| Op::Advance { millis }),
    ]
}

/// What was asked for and what became of it, kept naively.
#[derive(Default)]
struct Model {
    now: i64,
    penalty: i64,
    waiting: Vec<(TicketId, u32, Priority)>,
    running: BTreeMap<TicketId, (u32, i64)>,
    ended: Vec<(i64, u32)>,
}

const CAPACITY: u32 = 40;
const WINDOW: i64 = 10 * SECOND;
const CONCURRENCY: usize = 5;

impl Model {
    /// The most that the venue may have counted in the window that ends now.
    fn counted(&self) -> u64 {
        let ended = self.ended.iter().filter(|(at, _)| *at > self.now - WINDOW);
        ended.map(|(_, w)| u64::from(*w)).chain(self.running.values().map(|(w, _)| u64::from(*w))).sum()
    }

    fn pump(&mut self, state: &mut BudgetState) -> Result<(), TestCaseError> {
        // Permits held beyond their lease are taken for lost now.
        let lease = PERMIT_LEASE.as_micros() as i64;
        let lost = self.running.iter().filter(|(_, (_, started))| started + lease <= self.now);
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            let (weight, _) = self.running.remove(&id).expect("just found");
            self.ended.push((self.now, weight));
        }
        for id in state.pump(self.now) {
            prop_assert!(self.now >= self.penalty, "started within a penalty");
            // The first of the highest priority that waits: strict order, first come first served within one.
            let first = self.waiting.iter().min_by_key(|(id, _, p)| (*p, *id)).copied();
            let (first, weight, priority) = first.expect("nobody waits");
            prop_assert_eq!(id, first);
            self.waiting.retain(|(waiting, ..)| *waiting != id);
            let before = self.counted();
            let counted = before + u64::from(weight);
            prop_assert!(counted <= u64::from(CAPACITY) || weight == 0, "{counted} in a window");
            let share = (u64::from(CAPACITY) * share_percent(priority)).div_ceil(100);
            prop_assert!(
                counted <= share || before == 0 || weight == 0,
                "{counted} by {}",
                priority.as_str()
            );
            self.running.insert(id, (weight, self.now));
            prop_assert!(state.take(id));
            prop_assert!(self.running.len() <= CONCURRENCY);
        }
        prop_assert_eq!(state.waiting().iter().sum::<usize>(), self.waiting.len());
        prop_assert_eq!(state.in_flight(), self.running.len());
        Ok(())
    }

    fn nth_running(&self, nth: usize) -> Option<TicketId> {
        self.running.keys().nth(nth).copied()
    }

    fn finish(&mut self, state: &mut BudgetState, id: TicketId, ending: Ending) {
        state.finish(self.now, id, ending);
        let (weight, _) = self.running.remove(&id).unwrap_or_default();
        if ending != Ending::Unsent {
            self.ended.push((self.now, weight));
        }
    }

    fn apply(&mut self, state: &mut BudgetState, op: &Op) {
        match *op {
            Op::Enqueue { weight, priority } => {
                let priority = Priority::ALL[priority];
                let id = state.enqueue(weight, priority, FAR).expect("few wait");
                self.waiting.push((id, weight, priority));
            }
            Op::Cancel { nth } if nth < self.waiting.len() => state.cancel(self.waiting.remove(nth).0),
            Op::Finish { nth, unsent } => {
                let ending = if unsent { Ending::Unsent } else { Ending::Answered };
                if let Some(id) = self.nth_running(nth) {
                    self.finish(state, id, ending);
                }
            }
            Op::Refuse { nth, after } => {
                if let Some(id) = self.nth_running(nth) {
                    let until = state.refuse(self.now, id, 429, after.map(Duration::from_secs));
                    let asked = after.map_or(60, |after| after as i64) * SECOND;
                    assert!(until >= self.now + asked);
                    self.penalty = self.penalty.max(until);
                    self.finish(state, id, Ending::Refused);
                }
            }
            Op::Advance { millis } => self.now += millis as i64 * 1000,
            Op::Cancel { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_window_is_overdrawn_order_and_penalties_hold_and_nobody_waits_for_ever(
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut state = BudgetState::new(&rule(CAPACITY, 10, CONCURRENCY), None);
        let mut model = Model { now: 1_700_000_000 * SECOND, ..Model::default() };
        for op in &ops {
            model.apply(&mut state, op);
            model.pump(&mut state)?;
        }
        // From here on only what the state itself asks for: every request must get its turn.
        let mut steps = 0;
        while !model.waiting.is_empty() {
            steps += 1;
            prop_assert!(steps < 20_000, "{} still wait", model.waiting.len());
            if let Some(id) = model.nth_running(0) {
                model.finish(&mut state, id, Ending::Answered);
            } else {
                let wake = state.next_wake(model.now).expect("someone waits and nothing is in flight");
                prop_assert!(wake > model.now, "a wake-up in the past is a busy loop");
                model.now = wake;
            }
            model.pump(&mut state)?;
        }
    }
}
