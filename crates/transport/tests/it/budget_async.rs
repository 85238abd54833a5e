//! The shared budget under a paused clock.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use fathom_market::plan::{BudgetRule, Priority};
use fathom_transport::{BudgetError, MAX_WAITING, Outcome, Permit, RestBudget};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep};

use crate::servers::clock;

const HOST: &str = "api.example.com";
const HOUR: Duration = Duration::from_secs(3600);
const OK: Outcome = Outcome::Answered { status: 200, used: None, retry_after: None };

fn budget(capacity: u32, concurrency: usize) -> RestBudget {
    let window = Duration::from_secs(60);
    let rule = |group| BudgetRule { group, capacity, window, used_header: None, concurrency };
    let budget = RestBudget::new(clock());
    budget.configure(HOST, vec![rule("a"), rule("b")], None);
    budget
}

async fn acquire(budget: &RestBudget, weight: u32, priority: Priority) -> Permit {
    budget.acquire(HOST, "a", weight, priority, HOUR).await.unwrap()
}

fn refused(status: u16, seconds: Option<u64>) -> Outcome {
    Outcome::Answered { status, used: None, retry_after: seconds.map(Duration::from_secs) }
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_goes_first_and_equals_in_order() {
    let budget = budget(1000, 1);
    let held = acquire(&budget, 1, Priority::History).await;
    let order = RefCell::new(Vec::new());
    let asks = [
        (Priority::History, 1),
        (Priority::Live, 2),
        (Priority::Resync, 3),
        (Priority::Repair, 4),
        (Priority::Live, 5),
        (Priority::Resync, 6),
    ];
    let waiting = join_all(asks.map(|(priority, n)| {
        let (budget, order) = (&budget, &order);
        async move {
            let permit = acquire(budget, 1, priority).await;
            order.borrow_mut().push(n);
            permit.finish(OK);
        }
    }));
    let release = async {
        tokio::task::yield_now().await;
        assert_eq!(budget.status()[0].waiting, [2, 2, 1, 1]);
        held.finish(OK);
    };
    tokio::join!(waiting, release);
    assert_eq!(order.into_inner(), [3, 6, 2, 5, 4, 1]);
    assert_eq!(budget.status()[0].counters.requests_ok, 7);
}

#[tokio::test(start_paused = true)]
async fn thousands_get_their_turn_and_no_minute_is_overdrawn() {
    let budget = budget(120, 7);
    let starts = RefCell::new(Vec::new());
    let (in_flight, most) = (Cell::new(0), Cell::new(0));
    let calls: Vec<_> = (0..1000u64)
        .map(|i| {
            let (budget, starts, in_flight, most) = (&budget, &starts, &in_flight, &most);
            async move {
                let priority = Priority::ALL[(i % 4) as usize];
                let weight = 1 + (i % 5) as u32;
                let permit = acquire(budget, weight, priority).await;
                starts.borrow_mut().push((Instant::now(), weight));
                in_flight.set(in_flight.get() + 1);
                most.set(most.get().max(in_flight.get()));
                sleep(Duration::from_millis(i % 97)).await;
                in_flight.set(in_flight.get() - 1);
                permit.finish(OK);
            }
        })
        .collect();
    tokio::time::timeout(24 * HOUR, join_all(calls)).await.expect("someone was never woken");
    let starts = starts.into_inner();
    assert_eq!(starts.len(), 1000);
    assert_eq!(most.get(), 7);
    for (i, (from, _)) in starts.iter().enumerate() {
        let window = starts[i..].iter().take_while(|(at, _)| *at < *from + Duration::from_secs(60));
        assert!(window.map(|(_, w)| w).sum::<u32>() <= 120);
    }
    let status = &budget.status()[0];
    assert_eq!((status.in_flight, status.waiting), (0, [0; 4]));
}

#[tokio::test(start_paused = true)]
async fn a_penalty_is_obeyed_to_the_second_by_every_group_of_the_host() {
    for (status, seconds, expected) in [(429, Some(17), 17), (418, Some(300), 300), (418, None, 120)] {
        let budget = budget(1000, 10);
        acquire(&budget, 1, Priority::Live).await.finish(refused(status, seconds));
        let from = Instant::now();
        for group in ["b", "a"] {
            let waited = budget.acquire(HOST, group, 1, Priority::Resync, HOUR).await.map(|_| from.elapsed());
            let (waited, expected) = (waited.unwrap(), Duration::from_secs(expected));
            assert!(
                waited >= expected && waited < expected + Duration::from_millis(100),
                "{status} {group} {waited:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_that_does_not_say_how_long_holds_for_its_group() {
    let budget = budget(1000, 10);
    acquire(&budget, 1, Priority::Live).await.finish(refused(429, None));
    let from = Instant::now();
    drop(budget.acquire(HOST, "b", 1, Priority::Live, HOUR).await.unwrap());
    assert_eq!(from.elapsed(), Duration::ZERO);
    drop(acquire(&budget, 1, Priority::Live).await);
    assert!(from.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_penalty_that_begins_while_others_wait_holds_for_them() {
    let budget = budget(1000, 1);
    let held = acquire(&budget, 1, Priority::Live).await;
    let from = Instant::now();
    let refuse = async {
        sleep(Duration::from_secs(1)).await;
        held.finish(refused(429, Some(30)));
    };
    let (permit, ()) = tokio::join!(acquire(&budget, 1, Priority::Resync), refuse);
    drop(permit);
    assert!(from.elapsed() >= Duration::from_secs(31), "{:?}", from.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_a_penalty_outlasts_fails_at_once_and_says_how_long() {
    let budget = budget(1000, 10);
    acquire(&budget, 1, Priority::Live).await.finish(refused(418, Some(600)));
    let from = Instant::now();
    let error = budget.acquire(HOST, "a", 1, Priority::Resync, Duration::from_secs(5)).await.unwrap_err();
    assert!(
        matches!(error, BudgetError::Penalized { after, .. } if after == Duration::from_secs(600)),
        "{error}"
    );
    assert_eq!(from.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_or_is_dropped_leaves_no_trace() {
    let budget = budget(1000, 1);
    let held = acquire(&budget, 1, Priority::Live).await;
    let error = budget.acquire(HOST, "a", 1, Priority::Live, Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, BudgetError::Deadline { .. }), "{error}");

    let mut dropped = Box::pin(acquire(&budget, 1, Priority::Resync));
    assert!(dropped.as_mut().now_or_never().is_none());
    let next = acquire(&budget, 1, Priority::History);
    tokio::pin!(next);
    assert!(next.as_mut().now_or_never().is_none());
    // Its turn comes, but it is dropped before it can see it: the turn goes on to the next one.
    held.finish(OK);
    drop(dropped);
    let from = Instant::now();
    drop(next.await);
    assert_eq!(from.elapsed(), Duration::ZERO);
    let status = &budget.status()[0];
    assert_eq!((status.in_flight, status.waiting, status.used), (0, [0; 4], 2));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_a_request_too_heavy_is_refused() {
    let budget = budget(100, 1);
    let _held = acquire(&budget, 1, Priority::Live).await;
    let mut waiting: Vec<_> =
        (0..MAX_WAITING).map(|_| Box::pin(acquire(&budget, 1, Priority::Live))).collect();
    assert!(waiting.iter_mut().all(|w| w.as_mut().now_or_never().is_none()));
    let error = budget.acquire(HOST, "a", 1, Priority::Resync, HOUR).await.unwrap_err();
    assert!(matches!(error, BudgetError::Overloaded { .. }), "{error}");
    drop(waiting);
    assert_eq!(budget.status()[0].waiting, [0; 4]);

    let error = budget.acquire(HOST, "a", 101, Priority::Resync, HOUR).await.unwrap_err();
    assert!(matches!(error, BudgetError::TooHeavy { weight: 101, capacity: 100, .. }), "{error}");
    let error = budget.acquire("elsewhere", "a", 1, Priority::Resync, HOUR).await.unwrap_err();
    assert!(matches!(error, BudgetError::Unconfigured { .. }), "{error}");
}

#[test]
fn a_panic_with_a_permit_in_hand_gives_it_back() {
    let budget = budget_outside_of_a_runtime();
    let theirs = budget.clone();
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let _permit = acquire(&theirs, 5, Priority::Live).await;
            panic!("an actor's bug");
        });
    })
    .join();
    assert!(died.is_err());
    let status = &budget.status()[0];
    assert_eq!((status.in_flight, status.used, status.counters.requests_failed), (0, 5, 1));
}

fn budget_outside_of_a_runtime() -> RestBudget {
    budget(1000, 1)
}

#[tokio::test(start_paused = true)]
async fn new_rules_keep_what_is_used() {
    let budget = budget(100, 1);
    acquire(&budget, 60, Priority::Live).await.finish(OK);
    let window = Duration::from_secs(60);
    let wider = BudgetRule { group: "a", capacity: 1000, window, used_header: None, concurrency: 1 };
    let waiter = acquire(&budget, 60, Priority::Live);
    let from = Instant::now();
    let widen = async {
        sleep(Duration::from_secs(1)).await;
        budget.configure(HOST, vec![wider], Some(500));
    };
    let (permit, ()) = tokio::join!(waiter, widen);
    assert_eq!(from.elapsed().as_secs(), 1);
    let status = &budget.status()[0];
    assert_eq!((status.capacity, status.used), (500, 120));
    drop(permit);
}
