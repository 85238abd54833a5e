//! Holes between trades that the venue numbers one by one: what is missing is fetched by id, page by page.

use std::ops::Range;

use fathom_market::{
    event::{Channel, TradeKind},
    gap::{Gap, GapCause, GapStatus},
};
use fathom_venues::TradeIds;

use super::{
    Filled, GapTracker, NOT_NUMBERED, SET_BACK, TOO_LATE, Work,
    hole::{Hole, Mark, settle, touch},
};
use crate::kernel::clock::micros;

/// Holes of one instrument that wait for their repair; further ones are merged with the last.
const MAX_REPAIRS: usize = 64;
/// An id that lies further back than this is no replay: the venue set its ids back.
const MAX_REPLAY: u64 = 100_000;

/// A hole under repair.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    gap: Gap,
    /// All of its ids.
    ids: Range<u64>,
    /// The next one to fetch.
    next: u64,
    /// Ids that the venue does not have.
    absent: u64,
    since_us: i64,
    /// Failures in a row, and how many of them were answers without a trade that is wanted.
    failures: u32,
    empty: u32,
}

impl Repair {
    pub(super) fn is(&self, gap: &str) -> bool {
        self.gap.id == gap
    }

    /// Leaves its work to a hole that goes by the same name.
    pub(super) fn pass_on(self, hole: &mut Hole) {
        // What begins behind the edge is found by the hole itself.
        if hole.edge.number().is_some_and(|edge| self.ids.start > edge) {
            return;
        }
        hole.before = self.gap.missing;
        hole.gap.missing = self.gap.missing;
        hole.gap.from_id = self.gap.from_id;
        hole.gap.opened_us = self.gap.opened_us;
        hole.fetch_from = Some(self.ids.start);
        touch(&mut hole.gap, self.gap.updated_us);
    }
}

/// The next page to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradePage {
    /// Its first id.
    pub from_id: u64,
    /// Failures in a row.
    pub failures: u32,
}

/// What a page held.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// The id that was asked from.
    pub from_id: u64,
    /// The ids of its trades, ascending.
    pub ids: &'a [u64],
    /// What kind of trades they are.
    pub kind: Option<TradeKind>,
}

impl GapTracker {
    pub(super) fn on_trade(&mut self, mark: Mark) -> bool {
        let Some(lane) = self.lanes.get_mut(&Channel::Trade) else { return false };
        let Some(last) = lane.last.clone() else {
            lane.last = Some(mark);
            return false;
        };
        let numbers = last.number().zip(mark.number());
        // A second line, or one that begins anew, repeats what was had.
        if let Some((from, to)) = numbers
            && to <= from
            && from - to <= MAX_REPLAY
        {
            return false;
        }
        lane.last = Some(mark.clone());
        let (from, to) = match numbers {
            Some((from, to)) if self.rules.trades == TradeIds::Consecutive && to > from => (from, to),
            Some((from, to)) if to <= from => return self.close_trades(mark, SET_BACK),
            _ => return self.close_trades(mark, NOT_NUMBERED),
        };
        let (instrument, us, known) = (self.instrument, mark.us, lane.hole.is_some());
        let hole = lane.hole.take().or_else(|| {
            (to > from + 1).then(|| Hole::new(instrument, Channel::Trade, GapCause::Sequence, last, us))
        });
        let Some(hole) = hole else { return false };
        self.settle_trades(hole, mark);
        !known
    }

    fn close_trades(&mut self, mark: Mark, reason: &str) -> bool {
        self.close_lost(Channel::Trade, mark, reason);
        false
    }

    /// The first trade after a hole tells by its id what is missing.
    pub(super) fn settle_trades(&mut self, mut hole: Hole, after: Mark) {
        let (ids, now_us) = (hole.edge.number().zip(after.number()), after.us);
        hole.reach(Channel::Trade, after, self.rules.depth);
        let fetch_from = hole.fetch_from;
        let mut gap = hole.gap;
        let Some((from, to)) = ids else {
            settle(&mut gap, GapStatus::Lost, Some(NOT_NUMBERED.to_owned()), now_us);
            return self.change(gap);
        };
        if to <= from.saturating_add(1) && fetch_from.is_none() {
            gap.missing = Some(0);
            settle(&mut gap, GapStatus::NoneMissed, None, now_us);
            return self.change(gap);
        }
        self.queue(gap, fetch_from.unwrap_or(from + 1)..to, now_us);
    }

    pub(super) fn queue(&mut self, mut gap: Gap, ids: Range<u64>, now_us: i64) {
        if let Some(reason) = self.cannot_fetch(ids.end - ids.start) {
            settle(&mut gap, GapStatus::Lost, Some(reason), now_us);
            return self.change(gap);
        }
        touch(&mut gap, now_us);
        let full = self.repairs.len() >= MAX_REPAIRS;
        let same = self.repairs.iter().position(|repair| repair.is(&gap.id));
        let at = same.or_else(|| full.then(|| self.repairs.len() - 1));
        if let Some(last) = at.and_then(|at| self.repairs.get_mut(at)) {
            last.gap.to_us = gap.to_us;
            last.gap.to_id = gap.to_id;
            last.gap.missing = last.gap.missing.zip(gap.missing).map(|(a, b)| a.saturating_add(b));
            last.ids.end = last.ids.end.max(ids.end);
            touch(&mut last.gap, now_us);
            let merged = last.gap.clone();
            return self.change(merged);
        }
        let next = ids.start;
        self.repairs.push_back(Repair {
            gap: gap.clone(),
            ids,
            next,
            absent: 0,
            since_us: now_us,
            failures: 0,
            empty: 0,
        });
        self.change(gap);
    }

    fn cannot_fetch(&self, missing: u64) -> Option<String> {
        let most = self.rules.repair.max_trades;
        if !self.rules.keeps_trades {
            return Some("single trades are not stored".to_owned());
        }
        (missing > most).then(|| format!("{missing} trades are more than are fetched, {most}"))
    }

    /// The page that is to be asked for next.
    pub fn next_page(&self) -> Option<TradePage> {
        self.repairs.front().map(|repair| TradePage { from_id: repair.next, failures: repair.failures })
    }

    /// The ids that are wanted of a page that was asked from here; `None` when nobody waits for it any more, or it holds
    /// trades of another kind than the stream, whose ids are other ones.
    pub fn wanted(&mut self, page: &Page<'_>, now_us: i64) -> Option<Range<u64>> {
        let repair = self.repairs.front().filter(|repair| repair.next == page.from_id)?;
        let wanted = repair.next..repair.ids.end;
        if let (Some(kind), Some(streamed)) = (page.kind, self.trade_kind)
            && kind != streamed
        {
            self.give_up("the venue's history has only trades of another kind, with other ids", now_us);
            return None;
        }
        Some(wanted)
    }

    /// The trades of a page have been taken over.
    pub fn page_read(&mut self, page: &Page<'_>, now_us: i64) {
        let max_empty = self.rules.repair.max_empty;
        let Some(repair) = self.repairs.front_mut().filter(|repair| repair.next == page.from_id) else {
            return;
        };
        for &id in page.ids.iter().filter(|id| **id >= page.from_id) {
            let reached = id.min(repair.ids.end);
            repair.absent += reached.saturating_sub(repair.next);
            repair.next = repair.next.max(id.saturating_add(1).min(repair.ids.end));
        }
        if repair.next == page.from_id {
            // What was streamed may reach the venue's history a little later.
            repair.failures += 1;
            repair.empty += 1;
            if repair.empty > max_empty {
                repair.absent += repair.ids.end - repair.next;
                repair.next = repair.ids.end;
            }
        } else {
            repair.failures = 0;
            repair.empty = 0;
        }
        if repair.next >= repair.ids.end {
            self.end_repair(now_us);
        }
    }

    /// A page could not be had.
    pub fn page_failed(&mut self, from_id: u64) {
        if let Some(repair) = self.repairs.front_mut().filter(|repair| repair.next == from_id) {
            repair.failures = repair.failures.saturating_add(1);
        }
    }

    /// What is under repair cannot be had.
    pub fn give_up(&mut self, reason: &str, now_us: i64) {
        if let Some(Repair { mut gap, .. }) = self.repairs.pop_front() {
            settle(&mut gap, GapStatus::Lost, Some(reason.to_owned()), now_us);
            self.change(gap);
        }
    }

    /// It ends when its rows have left the book.
    fn end_repair(&mut self, now_us: i64) {
        let Some(repair) = self.repairs.pop_front() else { return };
        let (mut gap, absent) = (repair.gap.clone(), repair.absent);
        if absent == 0 {
            settle(&mut gap, GapStatus::Repaired, None, now_us);
        } else {
            let all = gap.missing.unwrap_or(absent);
            let reason = format!("{absent} of {all} ids are not in the venue's history, or cannot be read");
            gap.missing = Some(absent);
            settle(&mut gap, GapStatus::Lost, Some(reason), now_us);
        }
        self.filled.push(Filled { of: Work::Trades(repair), gap });
    }

    pub(super) fn expire_repairs(&mut self, now_us: i64) {
        let limit_us = micros(self.rules.repair.deadline);
        while self.repairs.front().is_some_and(|repair| now_us - repair.since_us > limit_us) {
            self.give_up(TOO_LATE, now_us);
        }
    }

    /// Pages that the last instance had taken over may be lost with it: everything is fetched again.
    pub(super) fn restart_repairs(&mut self, now_us: i64) {
        for repair in &mut self.repairs {
            repair.next = repair.ids.start;
            (repair.absent, repair.failures, repair.empty, repair.since_us) = (0, 0, 0, now_us);
        }
    }
}
