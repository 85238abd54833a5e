//! Tells a dead stream from a quiet market by what its siblings say. Pure.
//!
//! Quotes and depth of one instrument share one sequence of update ids (Binance): while quotes carry ids that the book
//! has not reached for longer than the depth stream's pace allows, the depth stream is dead. While depth changes the
//! best levels and the quotes do not follow, the quote stream is. A trade beyond the book's best prices that no depth update
//! follows, and a REST book that changes while no update tells of it, convict the depth stream too.

use std::time::Duration;

use crate::kernel::clock::micros;

/// What was last heard of quotes and depth.
#[derive(Debug)]
pub struct Evidence {
    tolerance_us: i64,
    /// Since when quotes have been ahead of the book, and the newest id they had.
    ahead: Option<Ahead>,
    /// Since when a trade has stood beyond the best prices.
    through_since_us: Option<i64>,
    /// The REST book has changed since the stream spoke.
    rest_moved: bool,
    disagrees_since_us: Option<i64>,
    last_depth_us: Option<i64>,
    last_quote_us: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Ahead {
    id: u64,
    since_us: i64,
}

impl Evidence {
    /// Nothing has been heard. `tolerance` covers the pace of the depth stream.
    pub fn new(tolerance: Duration) -> Self {
        Self {
            tolerance_us: micros(tolerance),
            ahead: None,
            through_since_us: None,
            rest_moved: false,
            disagrees_since_us: None,
            last_depth_us: None,
            last_quote_us: None,
        }
    }

    /// A quote came. The first id beyond the book is remembered until the book reaches it.
    pub fn on_quote(&mut self, update_id: Option<u64>, now_us: i64) {
        self.last_quote_us = Some(now_us);
        if let (Some(id), None) = (update_id, self.ahead) {
            self.ahead = Some(Ahead { id, since_us: now_us });
        }
    }

    /// A trade came at a price beyond the best one of the book, later than anything that the book contains.
    pub fn on_trade_through(&mut self, now_us: i64) {
        self.through_since_us.get_or_insert(now_us);
    }

    /// The venue's book, asked for over REST, is not what it was the last time.
    pub const fn on_rest_moved(&mut self) {
        self.rest_moved = true;
    }

    /// A depth update came, which ends at this id.
    pub fn on_depth(&mut self, last_id: u64, now_us: i64) {
        self.last_depth_us = Some(now_us);
        self.through_since_us = None;
        self.rest_moved = false;
        if self.ahead.is_some_and(|ahead| ahead.id <= last_id) {
            self.ahead = None;
        }
    }

    /// The book has been loaded anew.
    pub fn synced(&mut self, now_us: i64) {
        self.ahead = self.ahead.map(|ahead| Ahead { since_us: now_us, ..ahead });
        self.through_since_us = None;
        self.disagrees_since_us = None;
    }

    /// The connection is new: nothing of the past counts.
    pub fn reset(&mut self) {
        *self = Self::new(Duration::from_micros(self.tolerance_us.unsigned_abs()));
    }

    /// Whether the depth stream, and whether the quote stream, is to be doubted. `book_id` is what the stream has brought
    /// the book to; `disagrees` tells that the best prices of both differ now.
    pub fn suspects(&mut self, book_id: Option<u64>, disagrees: bool, now_us: i64) -> (bool, bool) {
        if let (Some(ahead), Some(id)) = (self.ahead, book_id)
            && ahead.id <= id
        {
            self.ahead = None;
        }
        let since_us = [self.ahead.map(|ahead| ahead.since_us), self.through_since_us];
        let depth = since_us.into_iter().flatten().any(|since| now_us - since > self.tolerance_us);
        if depth || self.rest_moved {
            (self.ahead, self.through_since_us, self.rest_moved) = (None, None, false);
            return (true, false);
        }
        (false, self.quote_is_dead(disagrees, now_us))
    }

    fn quote_is_dead(&mut self, disagrees: bool, now_us: i64) -> bool {
        if !disagrees {
            self.disagrees_since_us = None;
            return false;
        }
        let since_us = *self.disagrees_since_us.get_or_insert(now_us);
        let silent = self.last_quote_us.is_none_or(|last| last < since_us);
        let depth_moves = self.last_depth_us.is_some_and(|last| last >= since_us);
        let dead = silent && depth_moves && now_us - since_us > self.tolerance_us.max(5_000_000);
        if dead || !silent {
            self.disagrees_since_us = Some(now_us);
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn evidence() -> Evidence {
        Evidence::new(Duration::from_secs(3))
    }

    #[test]
    fn depth_that_keeps_up_is_not_doubted() {
        let mut evidence = evidence();
        for second in 0..600 {
            evidence.on_quote(Some(10 * second as u64 + 5), second * S);
            evidence.on_depth(10 * second as u64 + 9, second * S + 500_000);
            assert_eq!(
                evidence.suspects(Some(10 * second as u64 + 9), false, second * S + 600_000),
                (false, false)
            );
        }
    }

    #[test]
    fn quotes_that_run_ahead_of_the_book_convict_the_depth_stream() {
        let mut evidence = evidence();
        evidence.on_depth(100, 0);
        let mut found = None;
        for second in 1..10 {
            evidence.on_quote(Some(100 + second as u64), second * S);
            if evidence.suspects(Some(100), true, second * S).0 {
                found.get_or_insert(second);
            }
        }
        assert_eq!(found, Some(5));
    }

    #[test]
    fn a_trade_beyond_the_best_price_convicts_a_book_that_does_not_follow() {
        let mut evidence = evidence();
        evidence.on_depth(100, 0);
        evidence.on_trade_through(S);
        assert_eq!(evidence.suspects(Some(100), false, 3 * S), (false, false));
        evidence.on_depth(101, 4 * S);
        assert_eq!(evidence.suspects(Some(101), false, 9 * S), (false, false), "the book has followed");
        evidence.on_trade_through(10 * S);
        evidence.on_trade_through(12 * S);
        assert_eq!(evidence.suspects(Some(101), false, 13 * S), (false, false));
        assert_eq!(evidence.suspects(Some(101), false, 13 * S + 1), (true, false));
        assert_eq!(
            evidence.suspects(Some(101), false, 60 * S),
            (false, false),
            "each conviction takes new evidence"
        );
        evidence.on_trade_through(61 * S);
        evidence.synced(62 * S);
        assert_eq!(evidence.suspects(Some(200), false, 99 * S), (false, false), "the new book contains it");
    }

    #[test]
    fn a_rest_book_that_moves_without_the_stream_convicts_it() {
        let mut evidence = evidence();
        evidence.on_rest_moved();
        assert_eq!(evidence.suspects(None, false, S), (true, false));
        assert_eq!(evidence.suspects(None, false, 2 * S), (false, false));
        evidence.on_rest_moved();
        evidence.on_depth(5, 3 * S);
        assert_eq!(evidence.suspects(None, false, 4 * S), (false, false));
    }

    #[test]
    fn a_quiet_market_is_not_doubted_for_hours() {
        let mut evidence = evidence();
        evidence.on_quote(Some(100), 0);
        evidence.on_depth(100, 1);
        for second in 0..6 * 3600 {
            assert_eq!(evidence.suspects(Some(100), false, second * S), (false, false));
        }
    }

    #[test]
    fn depth_that_moves_without_the_quotes_convicts_the_quote_stream() {
        let mut evidence = evidence();
        evidence.on_quote(Some(100), 0);
        let mut found = None;
        for second in 1..20 {
            evidence.on_depth(100 + second as u64, second * S);
            if evidence.suspects(Some(100 + second as u64), true, second * S).1 {
                found.get_or_insert(second);
            }
        }
        assert_eq!(found, Some(7));
    }
}
