//! The state machine that keeps one book true to its venue: it buffers while a snapshot is on its way, joins both by
//! the venue's [`SyncRule`], follows the chain, and gives the book up at the first doubt. It does no IO: the caller
//! fetches snapshots when told to. Source of the procedure: binance.md sections 6.1 to 6.4, other venues differ in the rule.

mod step;
#[cfg(test)]
mod tests;

use std::mem;

pub use step::{BookState, Cause, IgnoreReason, KeeperCounters, KeeperLimits, Step};

use super::{
    order_book::{BookError, Flow, OrderBook, check_levels},
    sync::{Align, BookPosition, Link, SyncRule},
};
use crate::event::{BookDelta, BookSnapshot};

/// An update that repeats old ids although its venue time is newer by more than this is no replay: the ids were set back.
const REPLAY_TIME_SLACK_US: i64 = 1_000_000;

struct Update {
    delta: BookDelta,
    event_us: Option<i64>,
    recv_us: i64,
}

/// A book and how far it can be trusted.
pub struct BookKeeper {
    rule: &'static dyn SyncRule,
    limits: KeeperLimits,
    book: OrderBook,
    position: Option<BookPosition>,
    state: BookState,
    since_us: i64,
    cause: Cause,
    /// Updates since an attempt became necessary, without a break between them.
    buffer: Vec<Update>,
    epoch: u64,
    attempt_open: bool,
    /// A live book is to be replaced: what it applies is buffered too, over failed attempts as well.
    refreshing: bool,
    failed_attempts: u32,
    last_event_us: Option<i64>,
    last_recv_us: Option<i64>,
    last_flow: Flow,
    counters: KeeperCounters,
}

impl BookKeeper {
    /// A keeper without a book, in state `Syncing`.
    pub fn new(rule: &'static dyn SyncRule, limits: KeeperLimits, now_us: i64) -> Self {
        Self {
            rule,
            limits,
            book: OrderBook::new(limits.max_levels),
            position: None,
            state: BookState::Syncing,
            since_us: now_us,
            cause: Cause::Start,
            buffer: Vec::new(),
            epoch: 0,
            attempt_open: false,
            refreshing: false,
            failed_attempts: 0,
            last_event_us: None,
            last_recv_us: None,
            last_flow: Flow::default(),
            counters: KeeperCounters::default(),
        }
    }

    /// The levels held now, in whatever state: see [`live_book`](Self::live_book) for numbers that can be relied on.
    pub fn book(&self) -> &OrderBook {
        &self.book
    }

    /// The book, while it is live.
    pub fn live_book(&self) -> Option<&OrderBook> {
        (self.state == BookState::Live).then_some(&self.book)
    }

    /// The state.
    pub fn state(&self) -> BookState {
        self.state
    }

    /// Since when it is in its state.
    pub fn since_us(&self) -> i64 {
        self.since_us
    }

    /// Why it is in its state.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The last update id that the book contains; `None` without a book.
    pub fn last_id(&self) -> Option<u64> {
        self.position.map(|position| position.last_id)
    }

    /// Venue time of the newest update that the book contains, where the venue gives one.
    pub fn last_event_us(&self) -> Option<i64> {
        self.last_event_us
    }

    /// When the newest update or snapshot that the book contains was received.
    pub fn last_recv_us(&self) -> Option<i64> {
        self.last_recv_us
    }

    /// What the newest applied update added and took away.
    pub fn last_flow(&self) -> Flow {
        self.last_flow
    }

    /// What happened so far.
    pub fn counters(&self) -> KeeperCounters {
        self.counters
    }

    /// Updates waiting for a snapshot.
    pub fn n_buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Attempts that failed since the last success: what a caller's delay grows with.
    pub fn failed_attempts(&self) -> u32 {
        self.failed_attempts
    }

    /// The epoch whose answer is awaited.
    pub fn open_attempt(&self) -> Option<u64> {
        self.attempt_open.then_some(self.epoch)
    }

    /// True when the book cannot become live without a snapshot and none is on its way. For a polled book it is worth
    /// asking once its stream is back.
    pub fn needs_snapshot(&self) -> bool {
        !self.attempt_open && !matches!(self.state, BookState::Live | BookState::Paused)
    }

    /// True when the market moved so far that a live book's known range no longer holds the best `n` levels of each
    /// side (binance.md 6.4). `n` has to be well below the snapshot's limit, or it is true at once.
    pub fn needs_deeper_snapshot(&self, n: usize) -> bool {
        !self.attempt_open && self.live_book().is_some_and(|book| !book.knows_top(n))
    }

    /// Starts an attempt, to be called when the request leaves, not when it is queued: updates are buffered from now
    /// on at the latest. A live book stays live, and a polled one polled, meanwhile. Answers to earlier epochs are ignored from here on.
    pub fn begin_sync(&mut self) -> u64 {
        self.epoch += 1;
        self.attempt_open = self.state != BookState::Paused;
        self.refreshing = self.state == BookState::Live;
        self.epoch
    }

    /// The attempt's request failed.
    pub fn snapshot_failed(&mut self, epoch: u64) -> Step {
        if !self.close_attempt(epoch) {
            return Step::Ignored(IgnoreReason::OldEpoch);
        }
        self.attempt_failed(Cause::SnapshotFailed)
    }

    /// Takes an update. `event_us` is the venue's own time, `None` where it gives none.
    pub fn on_delta(&mut self, delta: BookDelta, event_us: Option<i64>, recv_us: i64) -> Step {
        let update = Update { delta, event_us, recv_us };
        match (self.state, self.position) {
            (BookState::Paused, _) => Step::Ignored(IgnoreReason::Paused),
            (BookState::Live, Some(position)) => self.follow(position, update),
            _ => self.hold(update),
        }
    }

    /// Takes the snapshot that was asked for in `epoch`, and replays on it what was buffered. A failed attempt leaves
    /// a live book alone.
    pub fn on_snapshot(&mut self, snapshot: &BookSnapshot, epoch: u64, now_us: i64) -> Step {
        if !self.close_attempt(epoch) {
            return Step::Ignored(IgnoreReason::OldEpoch);
        }
        let replay = match self.replay(snapshot) {
            Ok(replay) => replay,
            Err(cause) => return self.unusable_snapshot(cause, now_us),
        };
        // A refresh must not take a live book back.
        if self.state == BookState::Live
            && self.last_id().is_some_and(|last_id| replay.position.last_id < last_id)
        {
            return self.attempt_failed(Cause::SnapshotTooOld);
        }
        self.adopt(replay, now_us)
    }

    /// Replaces a book that is not live by a snapshot that no update chains to, and makes it a polled one; its cause stays
    /// that for which it is not live. What is buffered and asked for the next live book is not touched. A snapshot that
    /// cannot be right changes nothing.
    pub fn on_polled(&mut self, snapshot: &BookSnapshot, now_us: i64) -> Step {
        match self.state {
            BookState::Paused => return Step::Ignored(IgnoreReason::Paused),
            BookState::Live => return Step::Ignored(IgnoreReason::Live),
            _ => {}
        }
        match self.load(snapshot) {
            Ok(book) => self.book = book,
            Err(cause) => {
                self.count_unusable(cause);
                return Step::NeedSnapshot { cause };
            }
        }
        self.position = Some(BookPosition { last_id: snapshot.last_id, from_snapshot: true });
        (self.last_event_us, self.last_recv_us) = (None, Some(now_us));
        self.counters.polled += 1;
        self.enter(BookState::Polled, self.cause, now_us);
        Step::Synced { replayed: 0, dropped: 0 }
    }

    /// The caller saw a break of the chain, as on the only line of a book.
    pub fn on_gap(&mut self, expected: u64, got: u64, now_us: i64) -> Step {
        match self.state {
            BookState::Paused => Step::Ignored(IgnoreReason::Paused),
            _ => self.broken(expected, got, now_us),
        }
    }

    /// Gives up book, buffer and attempt, as after a reconnect. A polled book is not made of updates: it stays.
    pub fn reset(&mut self, cause: Cause, now_us: i64) -> Step {
        if self.state == BookState::Paused {
            return Step::Ignored(IgnoreReason::Paused);
        }
        self.attempt_open = false;
        if self.state == BookState::Polled {
            self.buffer = Vec::new();
        } else {
            self.discard(BookState::Syncing, cause, now_us);
        }
        Step::NeedSnapshot { cause }
    }

    /// Doubts the book: it is kept, no longer live, and needs a snapshot. An attempt under way goes on.
    pub fn mark_stale(&mut self, cause: Cause, now_us: i64) -> Step {
        if self.state == BookState::Paused {
            return Step::Ignored(IgnoreReason::Paused);
        }
        self.enter(BookState::Stale, cause, now_us);
        Step::NeedSnapshot { cause }
    }

    /// Stops: the book is discarded and everything ignored until [`resume`](Self::resume).
    pub fn pause(&mut self, now_us: i64) {
        self.attempt_open = false;
        self.discard(BookState::Paused, Cause::Operator, now_us);
    }

    /// Starts again after [`pause`](Self::pause), without a book.
    pub fn resume(&mut self, now_us: i64) {
        if self.state == BookState::Paused {
            self.enter(BookState::Syncing, Cause::Operator, now_us);
        }
    }

    /// Changes one level behind the book's back, as a fault of memory would; a deep one, which updates seldom touch.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn corrupt_level(&mut self) -> Option<crate::event::Level> {
        self.book.corrupt_level()
    }

    fn follow(&mut self, position: BookPosition, update: Update) -> Step {
        // A snapshot has no event time: updates that it contains may be newer than any that was seen.
        let last_event_us = self.last_event_us.filter(|_| !position.from_snapshot);
        match self.rule.follows(position, &update.delta.ids) {
            Link::Next => self.advance(update),
            Link::Duplicate if self.went_back(position.last_id, last_event_us, &update) => {
                self.discard(BookState::Syncing, Cause::IdsReset, update.recv_us);
                self.buffer.push(update);
                Step::NeedSnapshot { cause: Cause::IdsReset }
            }
            Link::Duplicate => self.duplicate(),
            Link::Gap { expected, got } => {
                let step = self.broken(expected, got, update.recv_us);
                self.hold(update);
                step
            }
        }
    }

    fn advance(&mut self, update: Update) -> Step {
        let Update { delta, event_us, recv_us } = &update;
        match self.book.apply(&delta.bids, &delta.asks) {
            Ok(flow) => self.last_flow = flow,
            Err(error) => return self.refused(error, *recv_us),
        }
        if self.book.is_crossed() {
            self.counters.crossed += 1;
            self.discard(BookState::Crossed, Cause::Crossed, *recv_us);
            self.buffer.push(update);
            return Step::NeedSnapshot { cause: Cause::Crossed };
        }
        self.position = Some(BookPosition { last_id: delta.ids.last, from_snapshot: false });
        self.last_event_us = event_us.or(self.last_event_us);
        self.last_recv_us = Some(*recv_us);
        self.counters.applied += 1;
        if self.refreshing {
            self.keep_for_refresh(update);
        }
        Step::Applied
    }

    /// Buffers what a live book has applied while a new snapshot is on its way; a full buffer ends the refresh only.
    fn keep_for_refresh(&mut self, update: Update) {
        if self.buffer.len() >= self.limits.buffer {
            self.overflow();
            return;
        }
        self.buffer.push(update);
    }

    fn hold(&mut self, update: Update) -> Step {
        if let Err(error) = check_levels(&update.delta.bids).and_then(|()| check_levels(&update.delta.asks)) {
            return self.refused(error, update.recv_us);
        }
        let mut step = Step::Buffered;
        if let Some(last) = self.buffer.last() {
            match self.rule.chain(&last.delta.ids, &update.delta.ids) {
                Link::Next => {}
                Link::Duplicate if self.went_back(last.delta.ids.last, last.event_us, &update) => {
                    self.buffer.clear()
                }
                Link::Duplicate => return self.duplicate(),
                Link::Gap { expected, got } => step = self.broken(expected, got, update.recv_us),
            }
        }
        if self.buffer.len() >= self.limits.buffer.max(1) {
            self.overflow();
            step = Step::NeedSnapshot { cause: Cause::BufferOverflow };
        }
        self.buffer.push(update);
        step
    }

    /// Dropping the oldest update would leave a hole, so the attempt starts over.
    fn overflow(&mut self) {
        self.counters.overflows += 1;
        self.failed_attempts = self.failed_attempts.saturating_add(u32::from(self.attempt_open));
        self.attempt_open = false;
        self.refreshing = false;
        self.buffer = Vec::new();
    }

    fn went_back(&self, last_id: u64, last_event_us: Option<i64>, update: &Update) -> bool {
        let newer = match (last_event_us, update.event_us) {
            (Some(last), Some(event)) => event > last.saturating_add(REPLAY_TIME_SLACK_US),
            _ => false,
        };
        newer || last_id.saturating_sub(update.delta.ids.last) > self.limits.max_backwards
    }

    fn duplicate(&mut self) -> Step {
        self.counters.duplicates += 1;
        Step::Ignored(IgnoreReason::Duplicate)
    }

    /// Gives up a live book or a broken buffer; a snapshot on its way can still join what comes from here on.
    fn broken(&mut self, expected: u64, got: u64, now_us: i64) -> Step {
        self.counters.gaps += 1;
        self.give_up(Cause::Gap { expected, got }, now_us);
        Step::Gap { expected, got }
    }

    fn refused(&mut self, error: BookError, now_us: i64) -> Step {
        self.counters.refused += 1;
        self.give_up(Cause::Refused(error), now_us);
        Step::Refused(error)
    }

    fn give_up(&mut self, cause: Cause, now_us: i64) {
        if self.state == BookState::Live {
            self.discard(BookState::Syncing, cause, now_us);
        } else {
            self.buffer.clear();
        }
    }

    fn discard(&mut self, state: BookState, cause: Cause, now_us: i64) {
        self.book.clear();
        self.position = None;
        self.buffer = Vec::new();
        self.enter(state, cause, now_us);
    }

    fn enter(&mut self, state: BookState, cause: Cause, now_us: i64) {
        if self.state == BookState::Live && state != BookState::Live {
            self.counters.resyncs += u64::from(state != BookState::Polled);
        }
        if self.state != state {
            self.since_us = now_us;
        }
        self.refreshing = false;
        self.state = state;
        self.cause = cause;
    }

    /// True when `epoch` is the attempt under way, which ends with this.
    fn close_attempt(&mut self, epoch: u64) -> bool {
        let awaited = self.open_attempt() == Some(epoch);
        self.attempt_open &= !awaited;
        awaited
    }

    fn attempt_failed(&mut self, cause: Cause) -> Step {
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        Step::NeedSnapshot { cause }
    }

    fn unusable_snapshot(&mut self, cause: Cause, now_us: i64) -> Step {
        self.count_unusable(cause);
        if cause == Cause::Crossed && !matches!(self.state, BookState::Live | BookState::Polled) {
            self.enter(BookState::Crossed, cause, now_us);
        }
        self.attempt_failed(cause)
    }

    const fn count_unusable(&mut self, cause: Cause) {
        match cause {
            Cause::Crossed => self.counters.crossed += 1,
            Cause::Refused(_) => self.counters.refused += 1,
            _ => {}
        }
    }

    fn load(&self, snapshot: &BookSnapshot) -> Result<OrderBook, Cause> {
        let mut book = OrderBook::new(self.limits.max_levels);
        book.load(&snapshot.bids, &snapshot.asks, snapshot.limit).map_err(Cause::Refused)?;
        if book.is_crossed() { Err(Cause::Crossed) } else { Ok(book) }
    }

    /// Builds the book of a snapshot and the buffer. The buffer is kept: on failure the next snapshot needs it.
    fn replay(&self, snapshot: &BookSnapshot) -> Result<Replay, Cause> {
        let position = BookPosition { last_id: snapshot.last_id, from_snapshot: true };
        let mut replay = Replay { book: self.load(snapshot)?, position, replayed: 0, dropped: 0 };
        for update in &self.buffer {
            let BookDelta { ids, bids, asks } = &update.delta;
            match self.link(replay.position, &update.delta) {
                Link::Next => {}
                Link::Duplicate => {
                    replay.dropped += 1;
                    continue;
                }
                Link::Gap { .. } => return Err(Cause::SnapshotTooOld),
            }
            replay.book.apply(bids, asks).map_err(Cause::Refused)?;
            if replay.book.is_crossed() {
                return Err(Cause::Crossed);
            }
            replay.position = BookPosition { last_id: ids.last, from_snapshot: false };
            replay.replayed += 1;
        }
        Ok(replay)
    }

    fn link(&self, position: BookPosition, delta: &BookDelta) -> Link {
        if !position.from_snapshot {
            return self.rule.follows(position, &delta.ids);
        }
        match self.rule.align(position.last_id, &delta.ids) {
            Align::Old => Link::Duplicate,
            Align::Joins => Link::Next,
            Align::Ahead => Link::Gap { expected: position.last_id, got: delta.ids.first },
        }
    }

    fn adopt(&mut self, replay: Replay, now_us: i64) -> Step {
        let Replay { book, position, replayed, dropped } = replay;
        let buffer = mem::take(&mut self.buffer);
        // What was dropped is contained as well, so the newest buffered update dates the book.
        self.last_event_us = buffer.last().and_then(|update| update.event_us);
        self.last_recv_us =
            Some(buffer.last().filter(|_| replayed > 0).map_or(now_us, |update| update.recv_us));
        self.book = book;
        self.position = Some(position);
        self.failed_attempts = 0;
        self.counters.synced += 1;
        self.counters.applied += replayed as u64;
        self.enter(BookState::Live, Cause::Synced, now_us);
        Step::Synced { replayed, dropped }
    }
}

struct Replay {
    book: OrderBook,
    position: BookPosition,
    replayed: usize,
    dropped: usize,
}
