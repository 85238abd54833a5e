//! What a stream has made, and to whom each message went: ids and times only, in bounded memory, so that a client of the
//! control server can audit every stream to the message. Rows of a market share one budget; the rows of a stream that
//! pushes make room for its new ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::ledger::entries::Delivery;

/// Older rows go with the next message of their stream.
pub(crate) const REMEMBERED_MS: i64 = 15 * 60_000;

/// What a market's streams share.
#[derive(Debug)]
pub(crate) struct Memory {
    cap: usize,
    rows: AtomicUsize,
    /// Frames handed to connections so far.
    sent: AtomicU64,
}

impl Memory {
    pub(crate) fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap: cap.max(1), rows: AtomicUsize::new(0), sent: AtomicU64::new(0) })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn count(&self, frames: usize) {
        self.sent.fetch_add(frames as u64, Ordering::AcqRel);
    }

    /// Rows kept now.
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Acquire)
    }
}

/// One message of a stream.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its last id: of a trade, an update, a quote, a candle's open time, or an event time.
    pub id: u64,
    /// How far its first id lies below.
    span: u32,
    /// Connection and frame number; connection 0 is none.
    to: [(u32, u32); 2],
    more: Option<Box<[(u32, u32)]>>,
    /// Milliseconds since the stream's first row.
    at: u32,
}

impl Made {
    pub(crate) fn first(&self) -> u64 {
        self.id - u64::from(self.span)
    }

    /// To whom it was handed.
    pub(crate) fn deliveries(&self) -> impl Iterator<Item = Delivery> {
        let more = self.more.iter().flat_map(|more| more.iter());
        let all = self.to.iter().filter(|(connection, _)| *connection > 0).chain(more);
        all.map(|(connection, number)| Delivery {
            connection: (*connection).into(),
            number: (*number).into(),
        })
    }
}

/// The messages of one stream, oldest first. Ids never go back.
#[derive(Debug)]
pub(crate) struct MadeRing {
    memory: Arc<Memory>,
    rows: VecDeque<Made>,
    start_ms: i64,
    /// Messages ever made.
    pub total: u64,
}

impl MadeRing {
    pub(crate) const fn new(memory: Arc<Memory>) -> Self {
        Self { memory, rows: VecDeque::new(), start_ms: 0, total: 0 }
    }

    pub(crate) fn push(&mut self, first: u64, id: u64, now_ms: i64, to: &[Delivery]) {
        self.memory.count(to.len());
        self.total += 1;
        if self.rows.is_empty() {
            self.start_ms = now_ms;
        }
        self.forget(now_ms);
        let small = |of: &Delivery| {
            (u32::try_from(of.connection).unwrap_or(u32::MAX), u32::try_from(of.number).unwrap_or(u32::MAX))
        };
        let nth = |at: usize| to.get(at).map_or((0, 0), small);
        self.rows.push_back(Made {
            id,
            span: u32::try_from(id.saturating_sub(first)).unwrap_or(u32::MAX),
            to: [nth(0), nth(1)],
            more: (to.len() > 2).then(|| to[2..].iter().map(small).collect()),
            at: u32::try_from(now_ms - self.start_ms).unwrap_or(u32::MAX),
        });
        self.memory.rows.fetch_add(1, Ordering::AcqRel);
    }

    fn forget(&mut self, now_ms: i64) {
        for _ in 0..2 {
            let Some(oldest) = self.rows.front() else { return };
            let full = self.memory.rows() >= self.memory.cap;
            if !full && self.ms(oldest) >= now_ms - REMEMBERED_MS {
                return;
            }
            self.rows.pop_front();
            self.memory.rows.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn ms(&self, row: &Made) -> i64 {
        self.start_ms + i64::from(row.at)
    }

    /// Rows of a range of times, both ends in it.
    pub(crate) fn between_ms(&self, from: i64, to: i64) -> impl Iterator<Item = &Made> {
        let start = self.rows.partition_point(|row| self.ms(row) < from);
        self.rows.range(start..).take_while(move |row| self.ms(row) <= to)
    }

    /// Rows of a range of ids, both ends in it.
    pub(crate) fn between_ids(&self, from: u64, to: u64) -> impl Iterator<Item = &Made> {
        let start = self.rows.partition_point(|row| row.id < from);
        self.rows.range(start..).take_while(move |row| row.first() <= to)
    }

    pub(crate) fn oldest(&self) -> Option<&Made> {
        self.rows.front()
    }
}

impl Drop for MadeRing {
    fn drop(&mut self) {
        self.memory.rows.fetch_sub(self.rows.len(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_id_and_by_time() {
        let mut ring = MadeRing::new(Memory::new(100));
        let to = |connection| Delivery { connection, number: 7 };
        ring.push(10, 12, 1_000, &[]);
        ring.push(13, 13, 1_100, &[to(1), to(2), to(3)]);
        ring.push(14, 19, 1_200, &[to(1)]);
        let ids = |rows: Vec<&Made>| rows.iter().map(|row| (row.first(), row.id)).collect::<Vec<_>>();
        assert_eq!(ids(ring.between_ids(12, 14).collect()), [(10, 12), (13, 13), (14, 19)]);
        assert_eq!(ids(ring.between_ids(13, 13).collect()), [(13, 13)]);
        assert_eq!(ids(ring.between_ms(1_100, 1_100).collect()), [(13, 13)]);
        let second = ring.between_ids(13, 13).next().unwrap();
        assert_eq!(second.deliveries().map(|of| of.connection).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn all_streams_of_a_market_share_one_bound() {
        let memory = Memory::new(10);
        let (mut busy, mut quiet) = (MadeRing::new(Arc::clone(&memory)), MadeRing::new(Arc::clone(&memory)));
        (0..5).for_each(|id| quiet.push(id, id, 0, &[]));
        (0..100).for_each(|id| busy.push(id, id, 0, &[]));
        assert!(memory.rows() <= 10, "{}", memory.rows());
        assert_eq!((quiet.between_ids(0, 9).count(), busy.total), (5, 100));
        busy.push(100, 100, REMEMBERED_MS * 2, &[]);
        drop(quiet);
        assert!(memory.rows() <= 5);
    }
}
