//! Bounded queues between actors. They belong to the wiring and not to an instance, so they survive its restart.
//!
//! Every queue has a capacity and a named answer to "full", and counts what it does. At most once: the item that an
//! instance was handling when it died is lost, everything behind it is kept in order.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_channel::{Receiver, Sender, TrySendError};
use futures_util::{Stream, StreamExt};
use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::sync::Notify;

use super::clock::{Clock, Micros, between, micros};
use super::lifeline::{Lifeline, locked};

/// What happens to an item that finds the queue full.
pub enum Overflow<T> {
    /// [`Outlet::send`] waits, at most so long, then gives the item back; [`Outlet::offer`] gives it back at once.
    Block {
        /// The longest wait.
        at_most: Duration,
    },
    /// The oldest item makes room.
    DropOldest,
    /// The new item is dropped.
    DropNewest,
    /// One item a key: a newer one takes the place of the older in the queue; of too many keys the oldest goes.
    Conflate(fn(&T) -> u64),
    /// The item is given back at once: the sender must treat it as a fault.
    Fault,
}

impl<T> Overflow<T> {
    fn word(&self) -> &'static str {
        match self {
            Self::Block { .. } => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Conflate(_) => "conflate",
            Self::Fault => "fault",
        }
    }
}

/// What became of an item that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the queue.
    Queued,
    /// It took the place of an older one of its key.
    Conflated,
    /// It is in the queue and the oldest one is gone.
    DroppedOldest,
    /// It is gone.
    DroppedNewest,
}

/// An item that was not accepted, given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// The queue is full.
    #[error("inbox is full")]
    Full(T),
    /// The queue was closed.
    #[error("inbox is closed")]
    Closed(T),
}

/// The state of a queue, as shown in health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InboxHealth {
    /// Its name.
    pub name: &'static str,
    /// Items waiting.
    pub len: usize,
    /// The most that can wait.
    pub capacity: usize,
    /// The most that ever waited.
    pub high_water: usize,
    /// The overflow policy as a word.
    pub full_policy: &'static str,
    /// Items accepted, in all.
    pub sent_total: u64,
    /// Items dropped, in all.
    pub dropped_total: u64,
    /// Items replaced by a newer one of their key, in all.
    pub conflated_total: u64,
    /// Items given back because it was full, in all.
    pub refused_total: u64,
    /// Time that senders waited, microseconds in all.
    pub blocked_us: u64,
    /// An upper bound of how long the oldest item has waited, microseconds.
    pub oldest_age_us: u64,
}

/// Reads a queue's state without touching the queue.
pub trait InboxGauge: Send + Sync {
    /// The state now.
    fn health(&self) -> InboxHealth;
}

struct Ticket<T> {
    at: Micros,
    body: Body<T>,
}

enum Body<T> {
    Item(T),
    Key(u64),
}

struct Core<T> {
    name: &'static str,
    clock: Clock,
    overflow: Overflow<T>,
    tx: Sender<Ticket<T>>,
    rx: Receiver<Ticket<T>>,
    /// The one end that instances read from, one at a time: the last to look is the one that is woken.
    reader: Mutex<Pin<Box<Receiver<Ticket<T>>>>>,
    latest: Mutex<FxHashMap<u64, T>>,
    space: Notify,
    high_water: AtomicUsize,
    sent: AtomicU64,
    dropped: AtomicU64,
    conflated: AtomicU64,
    refused: AtomicU64,
    blocked_us: AtomicU64,
    head_at: AtomicI64,
}

/// A queue of at least one place.
pub fn bounded<T: Send + 'static>(
    name: &'static str,
    capacity: usize,
    overflow: Overflow<T>,
    clock: &Clock,
) -> (Outlet<T>, Inbox<T>) {
    let (tx, rx) = async_channel::bounded(capacity.max(1));
    let core = Arc::new(Core {
        name,
        clock: clock.clone(),
        overflow,
        tx,
        reader: Mutex::new(Box::pin(rx.clone())),
        rx,
        latest: Mutex::default(),
        space: Notify::new(),
        high_water: AtomicUsize::new(0),
        sent: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        conflated: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        blocked_us: AtomicU64::new(0),
        head_at: AtomicI64::new(0),
    });
    (Outlet(Arc::clone(&core)), Inbox(core))
}

/// The sending end; cheap to clone.
pub struct Outlet<T>(Arc<Core<T>>);

/// The receiving end, kept by the factory of the actor; cheap to clone, but meant for one reader at a time.
pub struct Inbox<T>(Arc<Core<T>>);

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Outlet<T> {
    /// Sends by the overflow policy; waits only under [`Overflow::Block`].
    ///
    /// # Errors
    /// Gives the item back when the queue stays full (`Block`, `Fault`) or was closed.
    pub async fn send(&self, item: T) -> Result<Sent, SendError<T>> {
        let Overflow::Block { at_most } = self.0.overflow else { return self.offer(item) };
        let item = match self.0.push(item) {
            Err(SendError::Full(item)) => item,
            done => return done,
        };
        let since = self.0.clock.now_us();
        let outcome = self.wait_for_space(item, at_most).await;
        self.0.blocked_us.fetch_add(us(between(since, self.0.clock.now_us())), Relaxed);
        if matches!(outcome, Err(SendError::Full(_))) {
            self.0.refused.fetch_add(1, Relaxed);
        }
        outcome
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// As [`Outlet::send`].
    pub fn offer(&self, item: T) -> Result<Sent, SendError<T>> {
        let outcome = match self.0.overflow {
            Overflow::Conflate(key) => return self.0.conflate(key(&item), item),
            Overflow::DropOldest => return self.0.force(Body::Item(item)),
            Overflow::Block { .. } | Overflow::Fault | Overflow::DropNewest => self.0.push(item),
        };
        match (outcome, &self.0.overflow) {
            (Err(SendError::Full(_)), Overflow::DropNewest) => {
                self.0.dropped.fetch_add(1, Relaxed);
                Ok(Sent::DroppedNewest)
            }
            (Err(SendError::Full(item)), _) => {
                self.0.refused.fetch_add(1, Relaxed);
                Err(SendError::Full(item))
            }
            (done, _) => done,
        }
    }

    /// The state of the queue.
    #[must_use]
    pub fn health(&self) -> InboxHealth {
        self.0.health()
    }

    /// Items waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.tx.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.tx.is_empty()
    }

    /// Whether the reader has closed the queue: nothing more is accepted.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.tx.is_closed()
    }

    async fn wait_for_space(&self, mut item: T, at_most: Duration) -> Result<Sent, SendError<T>> {
        let deadline = tokio::time::Instant::now() + at_most;
        loop {
            let mut space = std::pin::pin!(self.0.space.notified());
            space.as_mut().enable();
            item = match self.0.push(item) {
                Err(SendError::Full(item)) => item,
                done => return done,
            };
            if tokio::time::timeout_at(deadline, space).await.is_err() {
                return self.0.push(item);
            }
        }
    }
}

impl<T: Send + 'static> Inbox<T> {
    /// The items for one instance, to be given to `ctx.add_stream`. It ends only when the queue is closed, and
    /// hands out nothing once the instance is fenced or succeeded, so that a blocked predecessor cannot take from its
    /// successor. One instance reads at a time.
    #[must_use]
    pub fn stream(&self, life: &Lifeline) -> InboxStream<T> {
        InboxStream { core: Arc::clone(&self.0), life: life.clone() }
    }

    /// As [`Inbox::stream`], in batches of whatever waits, up to `max`.
    pub fn batches(&self, life: &Lifeline, max: usize) -> impl Stream<Item = Vec<T>> + Unpin + use<T> {
        self.stream(life).ready_chunks(max.max(1))
    }

    /// The next item; `None` when the queue is closed and empty. For readers that are not actors.
    pub async fn recv(&self) -> Option<T> {
        loop {
            let ticket = self.0.rx.recv().await.ok()?;
            if let Some(item) = self.0.take(ticket) {
                return Some(item);
            }
        }
    }

    /// The next item, if one waits.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        loop {
            let ticket = self.0.rx.try_recv().ok()?;
            if let Some(item) = self.0.take(ticket) {
                return Some(item);
            }
        }
    }

    /// Closes the queue: what waits can still be read, nothing more is accepted.
    pub fn close(&self) {
        self.0.rx.close();
        self.0.space.notify_waiters();
    }

    /// Items waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rx.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.rx.is_empty()
    }

    /// A reader of its state.
    #[must_use]
    pub fn gauge(&self) -> Arc<dyn InboxGauge> {
        Arc::clone(&self.0) as Arc<dyn InboxGauge>
    }
}

impl<T: Send> Core<T> {
    fn push(&self, item: T) -> Result<Sent, SendError<T>> {
        let ticket = self.ticket(Body::Item(item));
        match self.tx.try_send(ticket) {
            Ok(()) => Ok(self.note(Sent::Queued)),
            Err(TrySendError::Full(Ticket { body: Body::Item(item), .. })) => Err(SendError::Full(item)),
            Err(TrySendError::Closed(Ticket { body: Body::Item(item), .. })) => Err(SendError::Closed(item)),
            Err(_) => Ok(Sent::DroppedNewest),
        }
    }

    fn force(&self, body: Body<T>) -> Result<Sent, SendError<T>> {
        match self.tx.force_send(self.ticket(body)) {
            Ok(None) => Ok(self.note(Sent::Queued)),
            Ok(Some(_)) => {
                self.dropped.fetch_add(1, Relaxed);
                Ok(self.note(Sent::DroppedOldest))
            }
            Err(async_channel::SendError(Ticket { body: Body::Item(item), .. })) => {
                Err(SendError::Closed(item))
            }
            Err(_) => Ok(Sent::DroppedNewest),
        }
    }

    /// The lock is held over both the map and the queue, so a reader that has taken a key finds its value.
    fn conflate(&self, key: u64, item: T) -> Result<Sent, SendError<T>> {
        let mut latest = locked(&self.latest);
        if self.tx.is_closed() {
            return Err(SendError::Closed(item));
        }
        if let Some(older) = latest.get_mut(&key) {
            *older = item;
            self.sent.fetch_add(1, Relaxed);
            self.conflated.fetch_add(1, Relaxed);
            return Ok(Sent::Conflated);
        }
        let evicted = self.tx.force_send(self.ticket(Body::Key(key)));
        latest.insert(key, item);
        match evicted {
            Ok(Some(Ticket { body: Body::Key(oldest), .. })) => {
                latest.remove(&oldest);
                self.dropped.fetch_add(1, Relaxed);
                Ok(self.note(Sent::DroppedOldest))
            }
            _ => Ok(self.note(Sent::Queued)),
        }
    }

    /// Asked under the lock whether it may read: an instance that no longer may must not put its waker in the place of
    /// its successor's.
    fn poll(&self, life: &Lifeline, cx: &mut Context<'_>) -> Poll<Option<Ticket<T>>> {
        let mut reader = locked(&self.reader);
        if life.is_barred(cx) {
            return Poll::Pending;
        }
        let polled = reader.as_mut().poll_next(cx);
        if polled.is_pending() {
            life.remember(cx);
        }
        polled
    }

    fn take(&self, ticket: Ticket<T>) -> Option<T> {
        self.head_at.store(ticket.at, Relaxed);
        self.space.notify_one();
        match ticket.body {
            Body::Item(item) => Some(item),
            Body::Key(key) => locked(&self.latest).remove(&key),
        }
    }

    fn ticket(&self, body: Body<T>) -> Ticket<T> {
        let at = self.clock.now_us();
        if self.tx.is_empty() {
            self.head_at.store(at, Relaxed);
        }
        Ticket { at, body }
    }

    fn note(&self, sent: Sent) -> Sent {
        self.sent.fetch_add(1, Relaxed);
        self.high_water.fetch_max(self.tx.len(), Relaxed);
        sent
    }
}

impl<T: Send> InboxGauge for Core<T> {
    fn health(&self) -> InboxHealth {
        let len = self.tx.len();
        let age = between(self.head_at.load(Relaxed), self.clock.now_us());
        InboxHealth {
            name: self.name,
            len,
            capacity: self.tx.capacity().unwrap_or(usize::MAX),
            high_water: self.high_water.load(Relaxed),
            full_policy: self.overflow.word(),
            sent_total: self.sent.load(Relaxed),
            dropped_total: self.dropped.load(Relaxed),
            conflated_total: self.conflated.load(Relaxed),
            refused_total: self.refused.load(Relaxed),
            blocked_us: self.blocked_us.load(Relaxed),
            oldest_age_us: if len == 0 { 0 } else { us(age) },
        }
    }
}

fn us(duration: Duration) -> u64 {
    micros(duration).unsigned_abs()
}

/// See [`Inbox::stream`].
pub struct InboxStream<T> {
    core: Arc<Core<T>>,
    life: Lifeline,
}

impl<T: Send> Stream for InboxStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        loop {
            match this.core.poll(&this.life, cx) {
                Poll::Ready(Some(ticket)) => match this.core.take(ticket) {
                    Some(item) => return Poll::Ready(Some(item)),
                    None => continue,
                },
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(overflow: Overflow<u32>) -> (Outlet<u32>, Inbox<u32>) {
        bounded("q", 2, overflow, &Clock::system())
    }

    /// A future polled by hand, with a look at whether it was woken since.
    struct Polled<F> {
        future: Pin<Box<F>>,
        flag: Arc<Flag>,
    }

    #[derive(Default)]
    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    fn by_hand<F: Future>(future: F) -> Polled<F> {
        Polled { future: Box::pin(future), flag: Arc::default() }
    }

    impl<F: Future> Polled<F> {
        fn poll(&mut self) -> Poll<F::Output> {
            self.flag.0.store(false, Relaxed);
            let waker = Arc::clone(&self.flag).into();
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn is_woken(&self) -> bool {
            self.flag.0.load(Relaxed)
        }
    }

    fn all(inbox: &Inbox<u32>) -> Vec<u32> {
        std::iter::from_fn(|| inbox.try_recv()).collect()
    }

    #[test]
    fn each_policy_answers_full_in_its_own_way_and_counts() {
        let (out, inbox) = queue(Overflow::DropOldest);
        assert_eq!(
            [1, 2, 3].map(|n| out.offer(n).unwrap()),
            [Sent::Queued, Sent::Queued, Sent::DroppedOldest]
        );
        assert_eq!((out.health().dropped_total, out.health().high_water, all(&inbox)), (1, 2, vec![2, 3]));

        let (out, inbox) = queue(Overflow::DropNewest);
        assert_eq!(
            [1, 2, 3].map(|n| out.offer(n).unwrap()),
            [Sent::Queued, Sent::Queued, Sent::DroppedNewest]
        );
        assert_eq!((out.health().dropped_total, all(&inbox)), (1, vec![1, 2]));

        let (out, inbox) = queue(Overflow::Fault);
        assert_eq!(
            [1, 2, 3].map(|n| out.offer(n)),
            [Ok(Sent::Queued), Ok(Sent::Queued), Err(SendError::Full(3))]
        );
        assert_eq!((out.health().refused_total, all(&inbox)), (1, vec![1, 2]));
    }

    #[test]
    fn conflation_keeps_the_newest_of_a_key_at_the_place_of_the_oldest() {
        let (out, inbox) = queue(Overflow::Conflate(|n| u64::from(n / 10)));
        assert_eq!(out.offer(10), Ok(Sent::Queued));
        assert_eq!(out.offer(20), Ok(Sent::Queued));
        assert_eq!(out.offer(11), Ok(Sent::Conflated));
        assert_eq!(all(&inbox), [11, 20]);
        for n in [10, 20, 30, 31] {
            out.offer(n).unwrap();
        }
        assert_eq!(all(&inbox), [20, 31], "of too many keys the oldest goes");
        assert_eq!((out.health().conflated_total, out.health().dropped_total), (2, 1));
        assert!(locked(&out.0.latest).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn block_waits_for_room_and_gives_the_item_back_after_its_time() {
        let (out, inbox) = queue(Overflow::Block { at_most: Duration::from_secs(1) });
        out.send(1).await.unwrap();
        out.send(2).await.unwrap();
        assert_eq!(out.send(3).await, Err(SendError::Full(3)));
        let (sent, first) = tokio::join!(out.send(3), async {
            tokio::task::yield_now().await;
            inbox.recv().await
        });
        assert_eq!((sent, first), (Ok(Sent::Queued), Some(1)));
        assert_eq!(all(&inbox), [2, 3]);
        inbox.close();
        assert_eq!(out.send(4).await, Err(SendError::Closed(4)));
        assert_eq!((inbox.recv().await, out.health().refused_total), (None, 1));
    }

    #[tokio::test]
    async fn a_fenced_reader_takes_nothing_from_its_successor() {
        let (out, inbox) = queue(Overflow::Fault);
        let (old, new) = (Lifeline::detached("x", Clock::system()), Lifeline::detached("x", Clock::system()));
        let (mut first, mut second) = (inbox.stream(&old), inbox.stream(&new));
        out.offer(1).unwrap();
        assert_eq!(first.next().await, Some(1));
        old.fence();
        out.offer(2).unwrap();
        assert!(futures_util::poll!(first.next()).is_pending());
        assert_eq!(second.next().await, Some(2));
    }

    #[tokio::test]
    async fn a_succeeded_reader_pauses_and_goes_on_when_its_successor_is_gone() {
        let (out, inbox) = queue(Overflow::Fault);
        let (old, new) = (Lifeline::detached("x", Clock::system()), Lifeline::detached("x", Clock::system()));
        let (mut first, mut second) = (inbox.stream(&old), inbox.stream(&new));
        let mut waiting = by_hand(first.next());
        assert!(waiting.poll().is_pending());
        old.succeed();
        assert!(futures_util::poll!(second.next()).is_pending());
        out.offer(1).unwrap();
        assert!(waiting.poll().is_pending(), "the successor has it");
        assert_eq!(second.next().await, Some(1));
        new.fence();
        out.offer(2).unwrap();
        old.go_on();
        assert!(waiting.is_woken(), "nobody else would look");
        assert_eq!(waiting.poll(), Poll::Ready(Some(2)));
    }

    #[tokio::test]
    async fn the_successor_is_woken_though_its_predecessor_waited_first() {
        let (out, inbox) = queue(Overflow::Fault);
        let (old, new) = (Lifeline::detached("x", Clock::system()), Lifeline::detached("x", Clock::system()));
        let (mut first, mut second) = (inbox.stream(&old), inbox.stream(&new));
        let mut stuck = by_hand(first.next());
        assert!(stuck.poll().is_pending());
        old.fence();
        let mut next = by_hand(second.next());
        assert!(next.poll().is_pending());
        out.offer(1).unwrap();
        assert!(next.is_woken());
        assert_eq!(next.poll(), Poll::Ready(Some(1)));
    }

    #[test]
    fn the_age_of_the_oldest_starts_when_the_queue_was_empty() {
        let time = super::super::clock::ManualClock::new(1);
        let (out, inbox) = bounded("q", 4, Overflow::<u32>::Fault, &time.clock());
        out.offer(1).unwrap();
        assert_eq!(inbox.try_recv(), Some(1));
        time.advance(Duration::from_secs(60));
        out.offer(2).unwrap();
        time.advance(Duration::from_secs(1));
        assert_eq!(out.health().oldest_age_us, 1_000_000);
    }
}
