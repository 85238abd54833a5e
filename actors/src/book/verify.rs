//! Compares a live book with the venue's own, now and then: a REST snapshot is aligned with the book by the updates that
//! the book has applied since it was asked for, and the levels that differ are counted. Pure: the actor asks.
//!
//! The same look, at the fewest levels, tells a symbol on which every stream fell silent from one that is quiet.

use std::time::Duration;

use fathom_market::{
    book::{Align, BookPosition, Link, OrderBook, SyncRule},
    event::{BookDelta, BookSnapshot, Level},
};

use crate::{kernel::clock::micros, stream::liveness::pace::Pace};

/// Updates kept while an answer is awaited; beyond it the look is given up.
const RING: usize = 2048;
/// How long the book may take to reach a snapshot that is ahead of it.
const CATCH_UP_US: i64 = 10_000_000;
/// The same for a book whose updates come late, but come.
const CATCH_UP_LATE_US: i64 = 60_000_000;
/// A symbol without any event for this long, or for twice its longest usual pause, is glanced at.
const SILENT_US: i64 = 60_000_000;
/// A look that failed is repeated after a tenth of the interval, within these bounds.
const AGAIN_US: (i64, i64) = (1_000_000, 60_000_000);

/// How much of the venue's book is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As much as the book was made of.
    Whole,
    /// As little as possible: has anything happened at all?
    Glance,
}

/// What a comparison has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No level differs.
    Same,
    /// So many levels differ, although both stand at the same update.
    Differs(u32),
    /// The venue has moved on, so many levels, and the book's stream has not said so.
    Behind(u32),
}

/// Counts since the actor was started; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyCounts {
    /// Comparisons made.
    pub verifications: u64,
    /// Comparisons that found a level that differs.
    pub divergences: u64,
    /// Levels that differed in the newest comparison.
    pub divergent_levels: u32,
    /// Comparisons that found the stream behind the venue.
    pub behind: u64,
    /// Snapshots that could not be aligned with the book.
    pub unaligned: u64,
    /// Snapshots that could not be had, or were empty.
    pub failed: u64,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// The request is on its way; what the book applies is kept.
    Asked {
        look: Look,
        ring: Vec<BookDelta>,
    },
    /// The snapshot is ahead of the book.
    Waiting {
        look: Look,
        ring: Vec<BookDelta>,
        snapshot: BookSnapshot,
        since_us: i64,
        kept: usize,
    },
}

/// When a book is verified, and what came of it.
pub struct Verifier {
    rule: &'static dyn SyncRule,
    max_levels: usize,
    every_us: Option<i64>,
    skipped: Option<&'static str>,
    next_us: i64,
    phase: Phase,
    counts: VerifyCounts,
    verified_us: Option<i64>,
    pace: Pace,
    /// When anything of the symbol came last, or was glanced at.
    heard_us: i64,
    glances: u32,
}

impl Verifier {
    /// Verifies every `every`, at a point of the interval that `seed` chooses, so that books do not all ask at once.
    pub fn new(
        rule: &'static dyn SyncRule,
        max_levels: usize,
        every: Option<Duration>,
        seed: i64,
        now_us: i64,
    ) -> Self {
        let every_us = every.map(micros).filter(|every| *every > 0);
        Self {
            rule,
            max_levels,
            every_us,
            skipped: every_us.is_none().then_some("off"),
            next_us: now_us + every_us.map_or(0, |every| spread(seed, every)),
            phase: Phase::Idle,
            counts: VerifyCounts::default(),
            verified_us: None,
            pace: Pace::default(),
            heard_us: now_us,
            glances: 0,
        }
    }

    /// Never verifies, for this reason.
    pub const fn skip(&mut self, reason: &'static str) {
        self.every_us = None;
        self.skipped = Some(reason);
    }

    /// Something of the symbol came, on whatever stream.
    pub fn heard(&mut self, now_us: i64) {
        if now_us > self.heard_us && self.glances == 0 {
            self.pace.add(now_us - self.heard_us);
        }
        self.heard_us = now_us;
        self.glances = 0;
    }

    /// What is to be asked for now, of a book that is live.
    pub fn due(&self, now_us: i64) -> Option<Look> {
        let every_us = self.every_us?;
        if !matches!(self.phase, Phase::Idle) {
            return None;
        }
        if now_us >= self.next_us {
            return Some(Look::Whole);
        }
        let usual_us = self.pace.p999_us().unwrap_or(0);
        let patience_us =
            (2 * usual_us).max(SILENT_US).saturating_mul(1 << self.glances.min(16)).min(every_us);
        (now_us - self.heard_us > patience_us).then_some(Look::Glance)
    }

    /// The request leaves: from now on every update that the book applies is to be given to [`record`](Self::record).
    pub fn begin(&mut self, look: Look, now_us: i64) {
        match look {
            Look::Whole => self.plan_next(now_us),
            Look::Glance => {
                self.glances += 1;
                self.heard_us = now_us;
            }
        }
        self.phase = Phase::Asked { look, ring: Vec::new() };
    }

    /// Keeps to its own points of time, so that the interval is never longer.
    fn plan_next(&mut self, now_us: i64) {
        let Some(every_us) = self.every_us else { return };
        let missed = (now_us - self.next_us).max(0) / every_us;
        self.next_us += (missed + 1) * every_us;
    }

    /// True while updates have to be recorded.
    #[inline]
    pub const fn is_recording(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// The book has applied this update.
    pub fn record(&mut self, delta: BookDelta, now_us: i64) {
        let (Phase::Asked { ring, .. } | Phase::Waiting { ring, .. }) = &mut self.phase else { return };
        if ring.len() < RING {
            ring.push(delta);
            return;
        }
        self.unaligned(now_us);
    }

    /// The snapshot could not be had.
    pub fn failed(&mut self, now_us: i64) {
        self.counts.failed += 1;
        self.again(now_us);
    }

    /// The book is no longer live: what is under way means nothing any more.
    pub fn cancel(&mut self, now_us: i64) {
        if self.is_recording() {
            self.again(now_us);
        }
    }

    fn unaligned(&mut self, now_us: i64) {
        self.counts.unaligned += 1;
        self.again(now_us);
    }

    /// Tries a whole look again before its next regular time; a glance comes again by itself.
    fn again(&mut self, now_us: i64) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let (Phase::Asked { look, .. } | Phase::Waiting { look, .. }) = phase else { return };
        if let (Look::Whole, Some(every_us)) = (look, self.every_us) {
            self.next_us = self.next_us.min(now_us + (every_us / 10).clamp(AGAIN_US.0, AGAIN_US.1));
        }
    }

    /// Takes the answer, and compares it with a book that stands at `last_id`, if it can.
    pub fn answered(
        &mut self,
        snapshot: BookSnapshot,
        book: &OrderBook,
        last_id: u64,
        now_us: i64,
    ) -> Option<Finding> {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        let Phase::Asked { look, ring } = phase else {
            self.phase = phase;
            return None;
        };
        let usable = !snapshot.bids.is_empty() || !snapshot.asks.is_empty();
        let kept = ring.len();
        self.phase = Phase::Waiting { look, ring, snapshot, since_us: now_us, kept };
        if !usable {
            self.failed(now_us);
            return None;
        }
        self.compare(book, last_id, now_us)
    }

    /// Compares with a snapshot that is ahead of the book, as soon as the book has reached it, or should have.
    pub fn compare(&mut self, book: &OrderBook, last_id: u64, now_us: i64) -> Option<Finding> {
        let Phase::Waiting { ring, snapshot, since_us, kept, .. } = &self.phase else { return None };
        let is_ahead = snapshot.last_id > last_id;
        let moves = ring.len() > *kept;
        let waited_us = now_us - since_us;
        if is_ahead && waited_us <= if moves { CATCH_UP_LATE_US } else { CATCH_UP_US } {
            return None;
        }
        if is_ahead && moves {
            self.unaligned(now_us);
            return None;
        }
        let mut shadow = OrderBook::new(self.max_levels);
        if shadow.load(&snapshot.bids, &snapshot.asks, snapshot.limit).is_err() {
            self.failed(now_us);
            return None;
        }
        if !is_ahead && !replay(self.rule, &mut shadow, snapshot.last_id, ring, last_id) {
            self.unaligned(now_us);
            return None;
        }
        let levels = differing(book, &shadow);
        self.phase = Phase::Idle;
        Some(self.found(levels, is_ahead, now_us))
    }

    const fn found(&mut self, levels: u32, is_ahead: bool, now_us: i64) -> Finding {
        self.counts.verifications += 1;
        self.counts.divergent_levels = levels;
        match (levels, is_ahead) {
            (0, _) => {
                self.verified_us = Some(now_us);
                Finding::Same
            }
            (levels, true) => {
                self.counts.behind += 1;
                Finding::Behind(levels)
            }
            (levels, false) => {
                self.counts.divergences += 1;
                Finding::Differs(levels)
            }
        }
    }

    /// What was counted.
    pub const fn counts(&self) -> VerifyCounts {
        self.counts
    }

    /// When the book was last found to be the venue's.
    pub const fn verified_us(&self) -> Option<i64> {
        self.verified_us
    }

    /// Why it is never verified.
    pub const fn skipped(&self) -> Option<&'static str> {
        self.skipped
    }
}

/// A point of the interval, the same for the same instrument (Fibonacci hashing, Knuth, TAOCP volume 3, section 6.4).
fn spread(seed: i64, every_us: i64) -> i64 {
    let hash = seed.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let part = (u128::from(hash) * u128::from(every_us.unsigned_abs())) >> 64;
    i64::try_from(part).unwrap_or(0)
}

/// Brings a snapshot to where the book stands. False when updates between both are not known.
fn replay(
    rule: &dyn SyncRule,
    shadow: &mut OrderBook,
    snapshot_id: u64,
    ring: &[BookDelta],
    last_id: u64,
) -> bool {
    let mut position = BookPosition { last_id: snapshot_id, from_snapshot: true };
    for delta in ring {
        let link = if position.from_snapshot {
            match rule.align(snapshot_id, &delta.ids) {
                Align::Old => Link::Duplicate,
                Align::Joins => Link::Next,
                Align::Ahead => return false,
            }
        } else {
            rule.follows(position, &delta.ids)
        };
        match link {
            Link::Duplicate => continue,
            Link::Gap { .. } => return false,
            Link::Next => {}
        }
        if shadow.apply(&delta.bids, &delta.asks).is_err() {
            return false;
        }
        position = BookPosition { last_id: delta.ids.last, from_snapshot: false };
    }
    position.last_id == last_id
}

/// Levels that differ between two books at the same update, inside the range that both know.
fn differing(a: &OrderBook, b: &OrderBook) -> u32 {
    let lowest = a.known_bid().max(b.known_bid());
    let highest = match (a.known_ask(), b.known_ask()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    };
    let bid = |level: &Level| lowest.is_none_or(|lowest| level.price >= lowest);
    let ask = |level: &Level| highest.is_none_or(|highest| level.price <= highest);
    let bids = unequal(a.bids().take_while(bid), b.bids().take_while(bid), |a, b| a > b);
    let asks = unequal(a.asks().take_while(ask), b.asks().take_while(ask), |a, b| a < b);
    bids + asks
}

/// Walks two sides in their common order, and counts the prices at which they are not equal.
fn unequal(
    a: impl Iterator<Item = Level>,
    b: impl Iterator<Item = Level>,
    before: impl Fn(i64, i64) -> bool,
) -> u32 {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    let mut count = 0;
    loop {
        let differs = match (a.peek(), b.peek()) {
            (None, None) => return count,
            (Some(x), Some(y)) if x.price == y.price => a.next() != b.next(),
            (Some(x), Some(y)) if before(y.price, x.price) => b.next().is_some(),
            (None, Some(_)) => b.next().is_some(),
            _ => a.next().is_some(),
        };
        count += u32::from(differs);
    }
}
