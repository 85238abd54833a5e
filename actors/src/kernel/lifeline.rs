//! The thread between an instance and the kernel: progress, faults, the kill signal, the published state.
//!
//! Everything here is written by the actor and read by others without asking it; nothing here waits.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use actix::{Actor, ActorContext, Context};
use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, Micros, between, micros};
use super::exit::{ActorId, ExitReason, Fault, ItemTag, Phase};

/// Operations announced at once; more are not tracked.
const MAX_BUSY: usize = 64;
/// Items remembered for having panicked.
const MAX_TAGS: usize = 64;
/// Panics on one item after which it is refused.
const POISON_AFTER: u32 = 2;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an instance is told by the kernel, and obeys inside its own context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Drain,
    #[cfg(any(test, feature = "fault-injection"))]
    Inject(super::service::Inject),
}

/// A published state: read as JSON by health, or as its own type by whoever knows it.
pub(crate) trait AnyDetail: Send + Sync {
    fn json(&self) -> serde_json::Value;
    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<D: Serialize + Send + Sync + 'static> AnyDetail for D {
    fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|error| serde_json::Value::String(error.to_string()))
    }

    fn any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// What outlives the instances of one child: the last published state, counters, items that panicked.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) detail: ArcSwapOption<(Micros, Arc<dyn AnyDetail>)>,
    pub(crate) degraded: Mutex<Vec<String>>,
    pub(crate) handled: AtomicU64,
    pub(crate) refused: AtomicU64,
    poisoned: AtomicUsize,
    tags: Mutex<Vec<(ItemTag, u32)>>,
}

impl Board {
    /// Counts a panic on an item; true when the item is refused from now on.
    pub(crate) fn panicked_on(&self, tag: ItemTag) -> bool {
        let mut tags = locked(&self.tags);
        let count = match tags.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                if tags.len() == MAX_TAGS {
                    tags.remove(0);
                }
                tags.push((tag, 1));
                1
            }
        };
        self.poisoned.store(tags.iter().filter(|(_, count)| *count >= POISON_AFTER).count(), SeqCst);
        count >= POISON_AFTER
    }

    pub(crate) fn poison(&self) -> Vec<ItemTag> {
        locked(&self.tags).iter().filter(|(_, count)| *count >= POISON_AFTER).map(|(tag, _)| *tag).collect()
    }

    fn refuses(&self, tag: ItemTag) -> bool {
        self.poisoned.load(SeqCst) > 0 && self.poison().contains(&tag)
    }
}

#[derive(Default)]
struct Activity {
    ready: bool,
    stopping: bool,
    next_key: u64,
    busy: Vec<Op>,
    zones: Vec<(u64, Micros)>,
    zones_since: Micros,
    zones_ended: Micros,
}

struct Op {
    key: u64,
    op: &'static str,
    tag: Option<ItemTag>,
    since: Micros,
}

/// Where the instance stands between the one before and the one after it.
#[derive(Default)]
struct Succession {
    predecessor: AtomicBool,
    takeover: Mutex<Option<serde_json::Value>>,
    succeeded: AtomicBool,
    /// Who looks again when the successor is gone.
    waiting: Mutex<Vec<Waker>>,
}

struct Life {
    id: ActorId,
    generation: u64,
    clock: Clock,
    started: Micros,
    board: Arc<Board>,
    kill: CancellationToken,
    fenced: AtomicBool,
    held: AtomicBool,
    beat: AtomicI64,
    fresh: AtomicI64,
    ready_at: AtomicI64,
    succession: Succession,
    activity: Mutex<Activity>,
    reason: Mutex<Option<ExitReason>>,
    commands: Mutex<Option<async_channel::Receiver<Command>>>,
}

/// The handle that the factory gets; cheap to clone.
#[derive(Clone)]
pub struct Lifeline(Arc<Life>);

impl std::fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lifeline({} generation {})", self.0.id, self.0.generation)
    }
}

impl Lifeline {
    pub(crate) fn new(
        id: ActorId,
        generation: u64,
        clock: Clock,
        board: Arc<Board>,
        commands: Option<async_channel::Receiver<Command>>,
    ) -> Self {
        let now = clock.now_us();
        Self(Arc::new(Life {
            id,
            generation,
            clock,
            started: now,
            board,
            kill: CancellationToken::new(),
            fenced: AtomicBool::new(false),
            held: AtomicBool::new(false),
            beat: AtomicI64::new(now),
            fresh: AtomicI64::new(now),
            ready_at: AtomicI64::new(0),
            succession: Succession::default(),
            activity: Mutex::default(),
            reason: Mutex::default(),
            commands: Mutex::new(commands),
        }))
    }

    /// A lifeline that nobody watches, for testing an actor without a kernel.
    #[must_use]
    pub fn detached(id: impl Into<ActorId>, clock: Clock) -> Self {
        Self::new(id.into(), 1, clock, Arc::default(), None)
    }

    /// Whose lifeline this is.
    #[must_use]
    pub fn id(&self) -> &ActorId {
        &self.0.id
    }

    /// Which instance, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// The kernel's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Says that the event loop turns. The kernel calls it four times a second from inside the context; an actor
    /// calls it only from long synchronous work.
    pub fn beat(&self) {
        self.0.beat.store(self.0.clock.now_us(), Relaxed);
    }

    /// Says that something useful arrived: the freshness budget starts again.
    pub fn fresh(&self) {
        self.0.fresh.store(self.0.clock.now_us(), Relaxed);
    }

    /// Announces an operation until the guard is dropped. Longer than `stall_after` inside one counts as a stall.
    pub fn enter(&self, op: &'static str) -> Busy {
        self.begin(op, None)
    }

    /// As [`Lifeline::enter`], naming the item: an item that made two instances panic is refused from then on.
    pub fn enter_item(&self, op: &'static str, tag: ItemTag) -> Busy {
        self.begin(op, Some(tag))
    }

    /// As [`Lifeline::enter_item`] for an operation over many items: from here on the innermost operation is at this one,
    /// or between two.
    pub fn item(&self, tag: Option<ItemTag>) {
        if let Some(op) = locked(&self.0.activity).busy.last_mut() {
            op.tag = tag;
        }
    }

    /// Whether this item made two instances panic and must be dropped; counts the refusals.
    #[must_use]
    pub fn refuses(&self, tag: ItemTag) -> bool {
        let refused = self.0.board.refuses(tag);
        if refused {
            self.0.board.refused.fetch_add(1, Relaxed);
        }
        refused
    }

    /// Suspends the stall rule, at most for `at_most`, for work that has its own deadline (a long flush, a
    /// connect awaited under `ctx.wait`). Past `at_most` the instance counts as stalled.
    pub fn protect(&self, at_most: Duration) -> Zone {
        let now = self.0.clock.now_us();
        let mut activity = locked(&self.0.activity);
        let key = activity.key();
        if activity.zones.is_empty() {
            activity.zones_since = now;
        }
        if activity.zones.len() < MAX_BUSY {
            activity.zones.push((key, now.saturating_add(micros(at_most))));
        }
        Zone { life: self.clone(), key }
    }

    /// Ends the instance with a fault; the kernel decides what follows. The first reason given wins.
    pub fn fail<A: Actor<Context = Context<A>>>(&self, ctx: &mut Context<A>, fault: Fault) {
        self.condemn(ExitReason::Failed(fault));
        ctx.terminate();
    }

    /// As [`Lifeline::fail`] for a task that has no context at hand.
    pub fn fail_from_task(&self, fault: Fault) {
        self.condemn(ExitReason::Failed(fault));
        self.0.kill.cancel();
    }

    /// Cancelled when the instance must end now. Tasks that an actor starts select on it (or on a child of it).
    #[must_use]
    pub fn kill_token(&self) -> &CancellationToken {
        &self.0.kill
    }

    /// Whether this instance has been given up: what it still does must have no effect.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.fenced.load(SeqCst)
    }

    /// Whether the instance is asked to stop because an operator pauses the actor.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.held.load(SeqCst)
    }

    /// Whether an instance before this one still works, and stops once this one calls [`Lifeline::took_over`].
    #[must_use]
    pub fn has_predecessor(&self) -> bool {
        self.0.succession.predecessor.load(SeqCst)
    }

    /// Whether the next instance works beside this one. It gets the asks and the items from then on, and what it
    /// publishes counts; false again should it be thrown away before it took over.
    #[must_use]
    pub fn is_succeeded(&self) -> bool {
        self.0.succession.succeeded.load(SeqCst)
    }

    /// Says that this instance does the work of its predecessor, which is asked to stop; `effect` is what it cost, for
    /// the operation. The first call counts; without a predecessor it says nothing.
    pub fn took_over(&self, effect: serde_json::Value) {
        if self.has_predecessor() {
            locked(&self.0.succession.takeover).get_or_insert(effect);
        }
    }

    /// Publishes the state for health and for typed readers; ignored once the instance is fenced, and while it is
    /// succeeded. It stays readable after the end.
    pub fn publish<D: Serialize + Send + Sync + 'static>(&self, detail: D) {
        if !self.is_fenced() && !self.is_succeeded() {
            let detail: Arc<dyn AnyDetail> = Arc::new(detail);
            self.0.board.detail.store(Some(Arc::new((self.0.clock.now_us(), detail))));
        }
    }

    /// Says in which respects the actor works below its promise; empty when it keeps it. At most 8 are kept.
    pub fn degraded(&self, mut why: Vec<String>) {
        if !self.is_fenced() && !self.is_succeeded() {
            why.truncate(8);
            *locked(&self.0.board.degraded) = why;
        }
    }

    pub(crate) fn take_commands(&self) -> Option<async_channel::Receiver<Command>> {
        locked(&self.0.commands).take()
    }

    pub(crate) fn ready(&self) {
        self.0.ready_at.store(self.0.clock.now_us(), Relaxed);
        locked(&self.0.activity).ready = true;
    }

    pub(crate) fn is_ready(&self) -> bool {
        locked(&self.0.activity).ready
    }

    pub(crate) fn ready_us(&self) -> Micros {
        self.0.ready_at.load(Relaxed)
    }

    /// Another instance still works, and this one is to take over from it.
    pub(crate) fn follow(&self) {
        self.0.succession.predecessor.store(true, SeqCst);
    }

    /// The one before is gone.
    pub(crate) fn stand_alone(&self) {
        self.0.succession.predecessor.store(false, SeqCst);
    }

    pub(crate) fn takeover(&self) -> Option<serde_json::Value> {
        locked(&self.0.succession.takeover).clone()
    }

    pub(crate) fn succeed(&self) {
        self.0.succession.succeeded.store(true, SeqCst);
    }

    /// The successor is gone: whoever waited for items looks again.
    pub(crate) fn go_on(&self) {
        let mut waiting = locked(&self.0.succession.waiting);
        self.0.succession.succeeded.store(false, SeqCst);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether the instance may not take items now. While it is only succeeded, the task is woken when that is over.
    pub(crate) fn is_barred(&self, cx: &TaskContext<'_>) -> bool {
        if self.is_fenced() || !self.is_succeeded() {
            return self.is_fenced();
        }
        self.remember(cx);
        self.is_succeeded()
    }

    /// The task waits for items: it is woken when a successor, which may have taken its place, is thrown away.
    pub(crate) fn remember(&self, cx: &TaskContext<'_>) {
        let mut waiting = locked(&self.0.succession.waiting);
        if waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            return;
        }
        if waiting.len() == MAX_BUSY {
            waiting.remove(0);
        }
        waiting.push(cx.waker().clone());
    }

    pub(crate) fn hold(&self) {
        self.0.held.store(true, SeqCst);
    }

    pub(crate) fn stopping(&self) {
        locked(&self.0.activity).stopping = true;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        locked(&self.0.activity).stopping
    }

    /// Keeps the first reason.
    pub(crate) fn condemn(&self, reason: ExitReason) {
        locked(&self.0.reason).get_or_insert(reason);
    }

    pub(crate) fn reason(&self) -> Option<ExitReason> {
        locked(&self.0.reason).clone()
    }

    /// Cuts the instance off: no more items, no more published state, and the kill signal.
    pub(crate) fn fence(&self) {
        self.0.fenced.store(true, SeqCst);
        self.0.kill.cancel();
    }

    pub(crate) fn started_us(&self) -> Micros {
        self.0.started
    }

    pub(crate) fn beat_age(&self, now: Micros) -> Duration {
        between(self.0.beat.load(Relaxed), now)
    }

    pub(crate) fn fresh_age(&self, now: Micros) -> Duration {
        between(self.0.fresh.load(Relaxed), now)
    }

    pub(crate) fn phase(&self) -> Phase {
        let activity = locked(&self.0.activity);
        match activity.busy.last() {
            Some(op) => Phase::Handling { op: op.op, tag: op.tag },
            None if !activity.ready => Phase::Starting,
            None if activity.stopping => Phase::Stopping,
            None => Phase::Idle,
        }
    }

    /// The oldest operation under way and for how long.
    pub(crate) fn busy(&self, now: Micros) -> Option<(&'static str, Duration)> {
        let activity = locked(&self.0.activity);
        let oldest = activity.busy.iter().min_by_key(|op| op.since)?;
        Some((oldest.op, between(oldest.since, now)))
    }

    /// For how long the instance has been silent, when that is longer than allowed.
    pub(crate) fn stalled(&self, now: Micros, stall_after: Duration) -> Option<Duration> {
        let activity = locked(&self.0.activity);
        if !activity.zones.is_empty() {
            let last = activity.zones.iter().map(|(_, until)| *until).max().unwrap_or(now);
            return (now > last).then(|| between(activity.zones_since, now));
        }
        let silent = between(self.0.beat.load(Relaxed).max(activity.zones_ended), now);
        let busy = activity.busy.iter().map(|op| between(op.since, now)).max().unwrap_or_default();
        let longest = silent.max(busy);
        (longest > stall_after).then_some(longest)
    }

    fn begin(&self, op: &'static str, tag: Option<ItemTag>) -> Busy {
        let since = self.0.clock.now_us();
        let mut activity = locked(&self.0.activity);
        let key = activity.key();
        if activity.busy.len() < MAX_BUSY {
            activity.busy.push(Op { key, op, tag, since });
        }
        Busy { life: self.clone(), key }
    }
}

impl Activity {
    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }
}

/// An operation under way; see [`Lifeline::enter`].
#[must_use = "the operation ends when the guard is dropped"]
pub struct Busy {
    life: Lifeline,
    key: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // the report of the end shows what it was doing
        }
        self.life.0.board.handled.fetch_add(1, Relaxed);
        locked(&self.life.0.activity).busy.retain(|op| op.key != self.key);
    }
}

/// A protected zone; see [`Lifeline::protect`].
#[must_use = "the protection ends when the guard is dropped"]
pub struct Zone {
    life: Lifeline,
    key: u64,
}

impl Drop for Zone {
    fn drop(&mut self) {
        let now = self.life.0.clock.now_us();
        let mut activity = locked(&self.life.0.activity);
        activity.zones.retain(|(key, _)| *key != self.key);
        if activity.zones.is_empty() {
            let protected = now - activity.zones_since;
            activity.zones_ended = now;
            activity.busy.iter_mut().for_each(|op| op.since = (op.since + protected).min(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::ManualClock;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn stalled(life: &Lifeline) -> Option<u64> {
        life.stalled(life.clock().now_us(), LIMIT).map(|silent| silent.as_secs())
    }

    #[test]
    fn silence_and_long_operations_are_stalls_and_protected_zones_are_not() {
        let time = ManualClock::new(1);
        let life = Lifeline::detached("x", time.clock());
        time.advance(Duration::from_secs(6));
        assert_eq!(stalled(&life), Some(6));
        life.beat();
        assert_eq!(stalled(&life), None);

        let busy = life.enter("work");
        let zone = life.protect(Duration::from_secs(20));
        time.advance(Duration::from_secs(20));
        assert_eq!(stalled(&life), None);
        drop(zone);
        assert_eq!(stalled(&life), None, "time inside the zone does not count");
        time.advance(Duration::from_secs(6));
        life.beat();
        assert_eq!(stalled(&life), Some(6), "a hung operation is seen although the loop turns");
        drop(busy);
        assert_eq!(stalled(&life), None);

        let _zone = life.protect(Duration::from_secs(20));
        time.advance(Duration::from_secs(21));
        assert_eq!(stalled(&life), Some(21), "a zone has an end");
    }

    #[test]
    fn nested_operations_show_the_innermost_and_count() {
        let life = Lifeline::detached("x", Clock::system());
        life.ready();
        let outer = life.enter("outer");
        {
            let _inner = life.enter_item("inner", ItemTag(7));
            assert_eq!(life.phase(), Phase::Handling { op: "inner", tag: Some(ItemTag(7)) });
            life.item(Some(ItemTag(8)));
            assert_eq!(life.phase(), Phase::Handling { op: "inner", tag: Some(ItemTag(8)) });
            life.item(None);
            assert_eq!(life.phase(), Phase::Handling { op: "inner", tag: None });
        }
        assert_eq!(life.phase(), Phase::Handling { op: "outer", tag: None });
        drop(outer);
        assert_eq!(life.phase(), Phase::Idle);
        assert_eq!(life.0.board.handled.load(Relaxed), 2);
    }

    #[test]
    fn the_first_reason_wins_and_a_fenced_instance_publishes_nothing() {
        let life = Lifeline::detached("x", Clock::system());
        life.fail_from_task(Fault::new("a", "first"));
        life.condemn(ExitReason::Killed);
        assert_eq!(life.reason(), Some(ExitReason::Failed(Fault::new("a", "first"))));
        assert!(life.kill_token().is_cancelled());
        life.publish(1u32);
        life.fence();
        life.publish(2u32);
        assert_eq!(life.0.board.detail.load_full().map(|d| d.1.json()), Some(serde_json::json!(1)));
    }

    #[test]
    fn the_memory_for_poison_is_bounded() {
        let board = Board::default();
        assert!(!board.panicked_on(ItemTag(1)));
        assert!(board.panicked_on(ItemTag(1)));
        assert!(board.refuses(ItemTag(1)) && !board.refuses(ItemTag(2)));
        for tag in 2..200 {
            board.panicked_on(ItemTag(tag));
        }
        assert!(locked(&board.tags).len() <= MAX_TAGS);
        assert!(!board.refuses(ItemTag(1)));
    }
}
