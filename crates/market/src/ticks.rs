//! The last minute of best bid and ask of one instrument, in memory, bounded by time and by a cap.
//!
//! The ring is ordered by receive time, which never runs backwards here; a tick's venue time may.

use std::collections::VecDeque;

use crate::event::{Level, Quote};

/// How long a tick is kept.
pub const TICK_WINDOW_US: i64 = 60_000_000;
const FIRST_CAPACITY: usize = 16;

/// One best bid and ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Venue time where the venue gives one, else the receive time.
    pub time_us: i64,
    /// Receive time.
    pub recv_us: i64,
    /// Best bid, mantissas.
    pub bid: Level,
    /// Best ask, mantissas.
    pub ask: Level,
    /// The venue's book update id; 0 where it gives none.
    pub update_id: u64,
    /// True when `time_us` is the venue's.
    pub venue_time: bool,
}

impl Tick {
    /// A tick of a quote received at `recv_us`.
    pub fn new(event_us: Option<i64>, recv_us: i64, quote: &Quote) -> Self {
        Self {
            time_us: event_us.unwrap_or(recv_us),
            recv_us,
            bid: quote.bid,
            ask: quote.ask,
            update_id: quote.update_id.unwrap_or(0),
            venue_time: event_us.is_some(),
        }
    }
}

/// The ticks of the last [`TICK_WINDOW_US`] of one instrument, at most `cap` of them.
#[derive(Clone, Debug)]
pub struct TickRing {
    ticks: VecDeque<Tick>,
    cap: usize,
    expired: u64,
    overflowed: u64,
}

impl TickRing {
    /// An empty ring for at most `cap` ticks, and at least one. Memory is taken as ticks come.
    pub fn new(cap: usize) -> Self {
        Self { ticks: VecDeque::new(), cap: cap.max(1), expired: 0, overflowed: 0 }
    }

    /// Adds a tick; drops those that its receive time makes too old and, at the cap, the oldest.
    /// A receive time before that of the newest tick is raised to it.
    pub fn push(&mut self, mut tick: Tick) {
        if let Some(newest) = self.ticks.back() {
            tick.recv_us = tick.recv_us.max(newest.recv_us);
        }
        self.expire(tick.recv_us);
        if self.ticks.len() == self.cap {
            self.ticks.pop_front();
            self.overflowed += 1;
        }
        if self.ticks.len() == self.ticks.capacity() {
            // Doubling by hand: left to itself the buffer would grow beyond the cap.
            let wanted = (self.ticks.len() * 2).clamp(FIRST_CAPACITY.min(self.cap), self.cap);
            self.ticks.reserve_exact(wanted - self.ticks.len());
        }
        self.ticks.push_back(tick);
    }

    /// Drops the ticks received [`TICK_WINDOW_US`] or longer before `now_us`, and gives back memory that a burst left.
    pub fn expire(&mut self, now_us: i64) {
        let limit_us = now_us.saturating_sub(TICK_WINDOW_US);
        // Looked at from the front: a search of the whole ring for every tick would cost more than all else about it.
        let before = self.ticks.len();
        while self.ticks.front().is_some_and(|tick| tick.recv_us <= limit_us) {
            self.ticks.pop_front();
        }
        if self.ticks.len() == before {
            return;
        }
        self.expired += (before - self.ticks.len()) as u64;
        if self.ticks.capacity() > FIRST_CAPACITY && self.ticks.len() < self.ticks.capacity() / 4 {
            self.ticks.shrink_to((self.ticks.len() * 2).max(FIRST_CAPACITY).min(self.cap));
        }
    }

    /// The ticks received in the last `seconds` (at most 60) before `now_us`, ascending by receive time.
    pub fn last(&self, seconds: u32, now_us: i64) -> impl ExactSizeIterator<Item = &Tick> {
        let window_us = (i64::from(seconds) * 1_000_000).min(TICK_WINDOW_US);
        let first = self.older_than(now_us.saturating_sub(window_us));
        self.ticks.range(first..)
    }

    /// The newest tick.
    pub fn newest(&self) -> Option<&Tick> {
        self.ticks.back()
    }

    /// Number of ticks held.
    pub fn len(&self) -> usize {
        self.ticks.len()
    }

    /// True when no tick is held.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// Ticks dropped so far because they were too old.
    pub const fn expired(&self) -> u64 {
        self.expired
    }

    /// Ticks dropped so far because the cap was reached.
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Bytes that the ring holds now.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.ticks.capacity() * size_of::<Tick>()
    }

    fn older_than(&self, limit_us: i64) -> usize {
        self.ticks.partition_point(|tick| tick.recv_us <= limit_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tick(recv_us: i64, update_id: u64) -> Tick {
        let quote = Quote {
            update_id: Some(update_id),
            bid: Level { price: 100, qty: 1 },
            ask: Level { price: 101, qty: 2 },
        };
        Tick::new(None, recv_us, &quote)
    }

    #[test]
    fn ticks_are_compact_and_know_whose_time_they_bear() {
        assert!(size_of::<Tick>() <= 64);
        let quote = Quote { update_id: None, bid: Level::default(), ask: Level::default() };
        let ours = Tick::new(None, 7, &quote);
        assert_eq!((ours.time_us, ours.venue_time, ours.update_id), (7, false, 0));
        let theirs = Tick::new(Some(5), 7, &quote);
        assert_eq!((theirs.time_us, theirs.venue_time, theirs.recv_us), (5, true, 7));
    }

    #[test]
    fn venue_time_out_of_order_keeps_the_receive_order() {
        let mut ring = TickRing::new(10);
        ring.push(Tick { time_us: 900, venue_time: true, ..tick(1000, 1) });
        ring.push(Tick { time_us: 800, venue_time: true, ..tick(1010, 2) });
        ring.push(tick(1005, 3));
        let seen: Vec<_> = ring.last(60, 1010).map(|tick| (tick.update_id, tick.recv_us)).collect();
        assert_eq!(seen, [(1, 1000), (2, 1010), (3, 1010)]);
    }

    #[test]
    fn time_and_cap_are_counted_apart_and_memory_follows() {
        let mut ring = TickRing::new(1000);
        for n in 0..1500 {
            ring.push(tick(n, 1));
        }
        assert_eq!((ring.len(), ring.expired(), ring.overflowed()), (1000, 0, 500));
        assert!(ring.memory_bytes() <= size_of::<TickRing>() + 1000 * size_of::<Tick>());
        ring.expire(1_498 + TICK_WINDOW_US);
        assert_eq!((ring.len(), ring.expired(), ring.overflowed()), (1, 999, 500));
        assert!(ring.memory_bytes() < 3000, "a burst's memory is given back");
    }

    #[test]
    fn an_interval_is_open_at_its_start() {
        let mut ring = TickRing::new(10);
        ring.push(tick(1_000_000, 1));
        ring.push(tick(1_000_001, 2));
        assert_eq!(ring.last(1, 2_000_000).map(|tick| tick.update_id).collect::<Vec<_>>(), [2]);
        assert_eq!(ring.last(0, 2_000_000).len(), 0);
        assert_eq!(ring.last(u32::MAX, 2_000_000).len(), 2);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(
            steps in proptest::collection::vec(-1_000_000_i64..9_000_000, 1..120),
            cap in 1_usize..40,
            seconds in 0_u32..70,
        ) {
            let (mut ring, mut all, mut now) = (TickRing::new(cap), Vec::<i64>::new(), 0_i64);
            let mut time = 0;
            for (id, step) in (0_u64..).zip(&steps) {
                time += step;
                ring.push(tick(time, id));
                all.push(if id == 0 { time } else { time.max(all[all.len() - 1]) });
                now = all[all.len() - 1];
                prop_assert!(ring.len() <= cap);
            }
            let kept = |limit: i64| {
                let newest = &all[all.len().saturating_sub(cap)..];
                newest.iter().copied().filter(|at| *at > limit).collect::<Vec<_>>()
            };
            let window = (i64::from(seconds) * 1_000_000).min(TICK_WINDOW_US);
            prop_assert_eq!(ring.last(seconds, now).map(|tick| tick.recv_us).collect::<Vec<_>>(), kept(now - window));
            prop_assert_eq!(ring.len(), kept(now - TICK_WINDOW_US).len());
            prop_assert_eq!(ring.expired() + ring.overflowed() + ring.len() as u64, all.len() as u64);
        }
    }
}
