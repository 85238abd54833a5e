//! The words of a keeper: its states, causes, bounds, and what an input did.

use crate::book::BookError;

/// What a book is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BookState {
    /// True to the venue, as far as its sequence numbers tell. The only state to compute market data from.
    Live,
    /// Waiting for a snapshot.
    Syncing,
    /// In doubt, or given up for now; what it holds may be old.
    Stale,
    /// It became crossed and was discarded.
    Crossed,
    /// Loaded from time to time, without a chain of updates, until its stream is back.
    Polled,
    /// Stopped by an operator.
    Paused,
}

impl BookState {
    /// `live`, `syncing`, `stale`, `crossed`, `polled` or `paused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Syncing => "syncing",
            Self::Stale => "stale",
            Self::Crossed => "crossed",
            Self::Polled => "polled",
            Self::Paused => "paused",
        }
    }
}

/// Why a book is in its state, or why a snapshot is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was received yet.
    Start,
    /// Snapshot and updates were joined.
    Synced,
    /// An update is missing.
    Gap {
        /// The id that would have followed.
        expected: u64,
        /// The id that came.
        got: u64,
    },
    /// The venue set its ids back.
    IdsReset,
    /// Best bid at or above best ask after a complete update.
    Crossed,
    /// Levels that cannot be right, or too many.
    Refused(BookError),
    /// More updates arrived during an attempt than the buffer holds.
    BufferOverflow,
    /// The snapshot is older than the first buffered update.
    SnapshotTooOld,
    /// The snapshot could not be fetched.
    SnapshotFailed,
    /// The connection was lost: a book is never carried over a reconnect.
    Disconnected,
    /// The caller lost updates, as when its inbox overflowed.
    UpdatesLost,
    /// Nothing came for too long.
    Silent,
    /// Another source, such as best bid and ask, contradicts the book.
    Disagrees,
    /// Levels differed from those of an aligned snapshot.
    Diverged,
    /// The venue's checksum does not match.
    Checksum,
    /// An update did not fit the instrument's scales.
    Unreadable,
    /// The market left the range that the snapshot reached.
    RangeLeft,
    /// An operator asked for it.
    Operator,
}

impl Cause {
    /// A stable label, such as `gap`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Synced => "synced",
            Self::Gap { .. } => "gap",
            Self::IdsReset => "ids_reset",
            Self::Crossed => "crossed",
            Self::Refused(_) => "refused",
            Self::BufferOverflow => "buffer_overflow",
            Self::SnapshotTooOld => "snapshot_too_old",
            Self::SnapshotFailed => "snapshot_failed",
            Self::Disconnected => "disconnected",
            Self::UpdatesLost => "updates_lost",
            Self::Silent => "silent",
            Self::Disagrees => "disagrees",
            Self::Diverged => "diverged",
            Self::Checksum => "checksum",
            Self::Unreadable => "unreadable",
            Self::RangeLeft => "range_left",
            Self::Operator => "operator",
        }
    }
}

/// Why an input had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// The book or the buffer contains it: a redundant line replayed it.
    Duplicate,
    /// The answer belongs to an attempt that was given up.
    OldEpoch,
    /// The book is paused.
    Paused,
    /// The book is live: a poll came too late.
    Live,
}

/// What an input did. After every step the caller asks for a snapshot if [`BookKeeper::needs_snapshot`](super::BookKeeper::needs_snapshot) says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Applied to the live book.
    Applied,
    /// Kept until the snapshot comes.
    Buffered,
    /// No effect.
    Ignored(IgnoreReason),
    /// The book is live.
    Synced {
        /// Buffered updates that were applied on the snapshot.
        replayed: usize,
        /// Buffered updates that it contained.
        dropped: usize,
    },
    /// The chain broke; a live book is discarded, and buffering goes on from the update that revealed it.
    Gap {
        /// The id that would have followed.
        expected: u64,
        /// The id that came.
        got: u64,
    },
    /// An update had impossible levels; a live book is discarded.
    Refused(BookError),
    /// Another snapshot is needed; for a book that is still live, only if the caller still wants to refresh it.
    NeedSnapshot {
        /// Why.
        cause: Cause,
    },
}

/// Bounds of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperLimits {
    /// Updates buffered during an attempt; at least one.
    pub buffer: usize,
    /// Levels a side.
    pub max_levels: usize,
    /// How far behind the book an update's id may lie and still count as a replay, for venues without event times.
    pub max_backwards: u64,
}

impl Default for KeeperLimits {
    fn default() -> Self {
        Self { buffer: 1000, max_levels: 50_000, max_backwards: 1_000_000_000 }
    }
}

/// What happened since the keeper was made; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeeperCounters {
    /// Updates applied to the live book, replayed ones included.
    pub applied: u64,
    /// Updates ignored as replays.
    pub duplicates: u64,
    /// Breaks of the chain, during an attempt too.
    pub gaps: u64,
    /// Times that a live book was given up.
    pub resyncs: u64,
    /// Successful attempts.
    pub synced: u64,
    /// Times that it was loaded without a chain of updates.
    pub polled: u64,
    /// Times that a book was crossed after a complete update or snapshot.
    pub crossed: u64,
    /// Updates and snapshots with impossible levels.
    pub refused: u64,
    /// Attempts restarted because the buffer was full.
    pub overflows: u64,
}
