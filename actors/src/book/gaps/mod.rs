//! What one instrument's streams may have missed: the last record of each, the hole that is open in it, and what became
//! of it. Pure: records and losses come in, gaps of the ledger come out.
//!
//! It is shared by the instances of a book's actor and outlives them, so a hole keeps its exact edges over a panic.

mod hole;
mod recall;
mod repair;
#[cfg(test)]
mod tests;

use std::{
    cmp::max,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fathom_market::{
    book::{Link, SyncRule},
    event::{Channel, SeqIds, TradeId, TradeKind},
    gap::{Gap, GapCause, GapStatus},
    ids::InstrumentId,
    timeframe::Timeframe,
};
use fathom_venues::TradeIds;

use self::{
    hole::{Hole, settle, touch},
    repair::Repair,
};
pub use self::{
    hole::{Mark, RecordId},
    repair::{Page, TradePage},
};
use crate::kernel::clock::micros;

const NO_HISTORY: &str = "the venue keeps no history of them";
const NO_UPDATES: &str = "the book was loaded anew; the updates in between cannot be had";
const NOT_NUMBERED: &str = "the venue does not number its trades one by one";
const SET_BACK: &str = "the venue set its ids back";
const TOO_LATE: &str = "it could not be fetched in time";
/// Changes that wait to be told while the outbox takes none.
const MAX_UNTOLD: usize = 4096;

/// Bounds of what is fetched to fill holes.
#[derive(Clone, Copy, Debug)]
pub struct RepairRules {
    /// Trades of one hole at most; 0 fetches none.
    pub max_trades: u64,
    /// How long a hole is worked on.
    pub deadline: Duration,
    /// Failures in a row of one page that are taken for an answer.
    pub max_empty: u32,
}

impl Default for RepairRules {
    fn default() -> Self {
        Self { max_trades: 1_000_000, deadline: Duration::from_secs(3600), max_empty: 3 }
    }
}

/// What a tracker has to know of its instrument.
#[derive(Clone, Copy)]
pub struct GapRules {
    /// How depth updates chain.
    pub depth: &'static dyn SyncRule,
    /// What trade ids tell.
    pub trades: TradeIds,
    /// Whether single trades are stored: else there is nothing to repair.
    pub keeps_trades: bool,
    /// Bounds.
    pub repair: RepairRules,
}

/// One stream.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// Its last record.
    last: Option<Mark>,
    /// The last record whose rows have left the book.
    safe: Option<Mark>,
    /// The first record of this process, until it is known where the last process ended.
    first: Option<Mark>,
    hole: Option<Hole>,
}

/// The ledger of one instrument.
pub struct GapTracker {
    instrument: InstrumentId,
    rules: GapRules,
    lanes: BTreeMap<Channel, Lane>,
    trade_kind: Option<TradeKind>,
    repairs: VecDeque<Repair>,
    /// What was filled with rows that have not left the book yet.
    filled: Vec<Filled>,
    changed: BTreeMap<String, Gap>,
    /// Told to the outbox, whose rows have not left the book yet.
    told: BTreeMap<String, Gap>,
    recalled: bool,
    finished: bool,
}

/// A hole that was filled, and what it became.
struct Filled {
    of: Work,
    gap: Gap,
}

enum Work {
    Trades(Repair),
    Candles(Channel, Hole),
}

/// A tracker that the instances of a book share.
#[derive(Clone)]
pub struct SharedGaps(Arc<Mutex<GapTracker>>);

impl SharedGaps {
    /// Shares a tracker.
    pub fn new(tracker: GapTracker) -> Self {
        Self(Arc::new(Mutex::new(tracker)))
    }

    /// The tracker; never held while waiting.
    pub fn lock(&self) -> MutexGuard<'_, GapTracker> {
        // Each call leaves it whole, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GapTracker {
    /// Nothing was received. Until [`recall`](Self::recall) the first records are remembered.
    pub fn new(instrument: InstrumentId, rules: GapRules) -> Self {
        Self {
            instrument,
            rules,
            lanes: BTreeMap::new(),
            trade_kind: None,
            repairs: VecDeque::new(),
            filled: Vec::new(),
            changed: BTreeMap::new(),
            told: BTreeMap::new(),
            recalled: false,
            finished: false,
        }
    }

    /// A record came. True when it showed a hole that nobody had told of.
    pub fn record(&mut self, channel: Channel, us: i64, id: RecordId) -> bool {
        let mark = Mark { us, id };
        let recalled = self.recalled;
        let lane = self.lanes.entry(channel).or_default();
        if !recalled && lane.first.is_none() {
            lane.first = Some(mark.clone());
        }
        match channel {
            Channel::Trade => self.on_trade(mark),
            Channel::Depth => self.on_depth(mark),
            Channel::Candle(_) => {
                self.on_candle(channel, mark);
                false
            }
            Channel::Quote | Channel::Ticker | Channel::Funding => {
                lane.last = Some(mark.clone());
                if lane.hole.is_some() {
                    self.close_lost(channel, mark, NO_HISTORY);
                }
                false
            }
        }
    }

    /// The kind of the trades that follow.
    pub const fn trades_are(&mut self, kind: TradeKind) {
        self.trade_kind = Some(kind);
    }

    /// Records of a channel may have been lost since the last one. A stream that was never heard has nothing to lose.
    /// True when this opened a hole.
    pub fn lost(&mut self, channel: Channel, cause: GapCause, now_us: i64) -> bool {
        let Some(lane) = self.lanes.get_mut(&channel) else { return false };
        let Some(last) = lane.last.clone() else { return false };
        if let Some(hole) = &mut lane.hole {
            hole.extend(channel, &last, self.rules.depth);
            if hole.shown {
                touch(&mut hole.gap, now_us);
                let gap = hole.gap.clone();
                self.change(gap);
            }
            return false;
        }
        let mut hole = Hole::new(self.instrument, channel, cause, last, now_us);
        // A hole that has the name of one under repair, because both follow records of one moment, takes over what that
        // one has yet to fetch.
        if let Some(at) = self.repairs.iter().position(|repair| repair.is(&hole.gap.id))
            && let Some(repair) = self.repairs.remove(at)
        {
            repair.pass_on(&mut hole);
        }
        let shown = hole.shown.then(|| hole.gap.clone());
        lane.hole = Some(hole);
        if let Some(gap) = shown {
            self.change(gap);
        }
        true
    }

    /// Records of every channel may have been lost.
    pub fn lost_all(&mut self, cause: GapCause, now_us: i64) {
        let channels: Vec<Channel> = self.lanes.keys().copied().collect();
        for channel in channels {
            self.lost(channel, cause, now_us);
        }
    }

    fn on_depth(&mut self, mark: Mark) -> bool {
        let (rule, instrument) = (self.rules.depth, self.instrument);
        let RecordId::Depth(ids) = &mark.id else { return false };
        let Some(lane) = self.lanes.get_mut(&Channel::Depth) else { return false };
        let last = lane.last.as_ref();
        let had = last.and_then(|last| if let RecordId::Depth(ids) = &last.id { Some(*ids) } else { None });
        // A second line repeats what the first has said.
        if had.is_some_and(|had| ids.last <= had.last) {
            return false;
        }
        let broken = had.is_some_and(|had| matches!(rule.chain(&had, ids), Link::Gap { .. }));
        let awaited = lane.hole.as_ref().is_some_and(|hole| hole.after.is_none());
        let last = lane.last.replace(mark.clone());
        if !broken && !awaited {
            return false;
        }
        let Some(last) = last else { return false };
        let us = mark.us;
        let new = lane.hole.is_none();
        let hole = lane.hole.get_or_insert_with(|| {
            Hole::new(instrument, Channel::Depth, GapCause::Sequence, last.clone(), us)
        });
        hole.extend(Channel::Depth, &last, rule);
        hole.reach(Channel::Depth, mark, rule);
        touch(&mut hole.gap, us);
        let gap = hole.gap.clone();
        self.change(gap);
        new
    }

    /// As [`lost`](Self::lost), where it is not known already.
    pub fn doubt(&mut self, channel: Channel, cause: GapCause, now_us: i64) {
        if self.lanes.get(&channel).is_some_and(|lane| lane.hole.is_none()) {
            self.lost(channel, cause, now_us);
        }
    }

    /// The venue set the ids of a channel back: what follows is new, however small its ids are.
    pub fn ids_set_back(&mut self, channel: Channel) {
        match channel {
            Channel::Depth => self.depth_ids_reset(),
            Channel::Trade => {
                if let Some(last) = self.lanes.get_mut(&channel).and_then(|lane| lane.last.as_mut()) {
                    // Further back than any repetition, whatever follows.
                    last.id = RecordId::Trade(TradeId::Number(u64::MAX));
                }
            }
            _ => {}
        }
    }

    /// The venue set its update ids back: what follows is new, however small its ids are.
    pub fn depth_ids_reset(&mut self) {
        let Some(lane) = self.lanes.get_mut(&Channel::Depth) else { return };
        if let Some(last) = &mut lane.last {
            last.id = RecordId::Depth(SeqIds { first: 0, last: 0, prev: None });
        }
        if let Some(hole) = &mut lane.hole {
            // Ids before and after cannot be compared.
            hole.before = None;
        }
    }

    /// The book is live and holds everything up to this id.
    pub fn book_live(&mut self, last_id: Option<u64>, now_us: i64) {
        let rule = self.rules.depth;
        let Some(lane) = self.lanes.get_mut(&Channel::Depth) else { return };
        let Some(mut hole) = lane.hole.take() else { return };
        if hole.after.is_none() {
            let id = last_id
                .map_or(RecordId::None, |id| RecordId::Depth(SeqIds { first: id, last: id, prev: None }));
            let unchanged =
                matches!((&hole.edge.id, last_id), (RecordId::Depth(ids), Some(id)) if ids.last >= id);
            hole.reach(Channel::Depth, Mark { us: now_us, id }, rule);
            // A snapshot tells how far the book is, not how many updates led there.
            hole.gap.missing = if unchanged { hole.before } else { None };
        }
        let (status, reason) = match hole.gap.missing {
            Some(0) => (GapStatus::NoneMissed, None),
            _ => (GapStatus::Resynced, Some(NO_UPDATES.to_owned())),
        };
        settle(&mut hole.gap, status, reason, now_us);
        self.change(hole.gap);
    }

    fn on_candle(&mut self, channel: Channel, mark: Mark) {
        let (rule, instrument) = (self.rules.depth, self.instrument);
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        let RecordId::Candle { open_ms, closed } = mark.id else { return };
        let Some(last) = lane.last.clone() else {
            lane.last = Some(mark);
            return;
        };
        let RecordId::Candle { open_ms: last_ms, closed: was_closed } = last.id else { return };
        if open_ms < last_ms {
            return;
        }
        let closed = closed || (open_ms == last_ms && was_closed);
        lane.last = Some(Mark { us: mark.us, id: RecordId::Candle { open_ms, closed } });
        let missed = hole::between(channel, &last, &mark, rule).unwrap_or(0);
        if missed == 0 && lane.hole.as_ref().is_none_or(|hole| !hole.shown) {
            lane.hole = None;
            return;
        }
        let us = mark.us;
        let hole = lane
            .hole
            .get_or_insert_with(|| Hole::new(instrument, channel, GapCause::Sequence, last.clone(), us));
        if missed > 0 {
            hole.extend(channel, &last, rule);
        } else if hole.after.is_some() {
            return;
        }
        hole.shown = true;
        hole.reach(channel, mark, rule);
        touch(&mut hole.gap, us);
        let gap = hole.gap.clone();
        self.change(gap);
    }

    /// A candle series is stored without a hole up to the candle that starts here.
    pub fn candles_stored(&mut self, timeframe: Timeframe, stored_ms: i64, now_us: i64) {
        let channel = Channel::Candle(timeframe);
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        let Some(hole) = lane.hole.as_ref().filter(|hole| hole.shown) else { return };
        let Some(Mark { id: RecordId::Candle { open_ms: after_ms, .. }, .. }) = hole.after else { return };
        let RecordId::Candle { open_ms: edge_ms, .. } = hole.edge.id else { return };
        let wanted_ms = timeframe.fixed_ms().map_or(edge_ms, |length| after_ms - length);
        if stored_ms < wanted_ms {
            return;
        }
        if let Some(hole) = lane.hole.take() {
            let mut gap = hole.gap.clone();
            settle(&mut gap, GapStatus::Repaired, None, now_us);
            self.filled.push(Filled { of: Work::Candles(channel, hole), gap });
        }
    }

    /// True while a candle series has a hole that is known.
    pub fn awaits_candles(&self, timeframe: Timeframe) -> bool {
        let lane = self.lanes.get(&Channel::Candle(timeframe));
        lane.and_then(|lane| lane.hole.as_ref()).is_some_and(|hole| hole.shown)
    }

    /// Start of the last candle that had closed before the hole of a series that is known.
    pub fn candles_before(&self, timeframe: Timeframe) -> Option<i64> {
        let lane = self.lanes.get(&Channel::Candle(timeframe));
        let hole = lane.and_then(|lane| lane.hole.as_ref()).filter(|hole| hole.shown)?;
        let RecordId::Candle { open_ms, closed } = hole.edge.id else { return None };
        Some(if closed { open_ms } else { open_ms - timeframe.fixed_ms().unwrap_or(1) })
    }

    /// Closes the hole of a channel at this record: what lies before it cannot be had.
    fn close_lost(&mut self, channel: Channel, mark: Mark, reason: &str) {
        let rule = self.rules.depth;
        let Some(mut hole) = self.lanes.get_mut(&channel).and_then(|lane| lane.hole.take()) else { return };
        let now_us = mark.us;
        hole.reach(channel, mark, rule);
        settle(&mut hole.gap, GapStatus::Lost, Some(reason.to_owned()), now_us);
        self.change(hole.gap);
    }

    /// Gives up what has been worked on for too long.
    pub fn tick(&mut self, now_us: i64) {
        let limit_us = micros(self.rules.repair.deadline);
        let mut late = Vec::new();
        for (channel, lane) in &mut self.lanes {
            let waits = |hole: &Hole| {
                matches!(channel, Channel::Candle(_))
                    && hole.after.is_some()
                    && now_us - hole.since_us > limit_us
            };
            if lane.hole.as_ref().is_some_and(waits)
                && let Some(mut hole) = lane.hole.take()
            {
                settle(&mut hole.gap, GapStatus::Lost, Some(TOO_LATE.to_owned()), now_us);
                late.push(hole.gap);
            }
        }
        for gap in late {
            self.change(gap);
        }
        self.expire_repairs(now_us);
    }

    /// Everything recorded so far has left the book: a panic from here on loses none of it.
    pub fn commit(&mut self) {
        for lane in self.lanes.values_mut() {
            if lane.safe != lane.last {
                lane.safe.clone_from(&lane.last);
            }
        }
        self.told.clear();
        for Filled { gap, .. } in std::mem::take(&mut self.filled) {
            self.change(gap);
        }
    }

    /// The instance ends in order; nothing of it is lost.
    pub fn finish(&mut self) {
        self.commit();
        self.finished = true;
    }

    /// A later instance begins. Unless the one before ended in order, the rows that had not left it, and the items in its
    /// hands, are lost. Its book is, in any case.
    pub fn resume(&mut self, now_us: i64) {
        if self.begin_again(now_us) {
            self.lost(Channel::Depth, GapCause::Restart, now_us);
        } else {
            self.lost_all(GapCause::Restart, now_us);
        }
    }

    /// A book of the instrument begins where another one ended before, because the symbol was taken out and in again, or
    /// moved: nothing was heard in between.
    pub fn rejoin(&mut self, rules: GapRules, now_us: i64) {
        self.rules = rules;
        self.begin_again(now_us);
        self.lost_all(GapCause::Paused, now_us);
    }

    /// The instrument is not collected any more: nobody will fill what is open.
    pub fn give_up_all(&mut self, reason: &str, now_us: i64) {
        self.reopen_filled();
        while self.next_page().is_some() {
            self.give_up(reason, now_us);
        }
        let holes: Vec<Hole> = self.lanes.values_mut().filter_map(|lane| lane.hole.take()).collect();
        for mut hole in holes.into_iter().filter(|hole| hole.shown) {
            hole.gap.to_us.get_or_insert(max(now_us, hole.gap.from_us));
            settle(&mut hole.gap, GapStatus::Lost, Some(reason.to_owned()), now_us);
            self.change(hole.gap);
        }
    }

    /// Goes back to what is safe. True when the one before ended in order, and so lost nothing.
    fn begin_again(&mut self, now_us: i64) -> bool {
        let told = std::mem::take(&mut self.told);
        for (id, gap) in told {
            self.changed.entry(id).or_insert(gap);
        }
        self.reopen_filled();
        self.restart_repairs(now_us);
        if std::mem::take(&mut self.finished) {
            return true;
        }
        for lane in self.lanes.values_mut() {
            let Some(safe) = lane.safe.clone() else { continue };
            if let Some(hole) = &mut lane.hole {
                hole.go_back(&safe);
            }
            lane.last = Some(safe);
        }
        false
    }

    /// The rows that filled them are lost.
    fn reopen_filled(&mut self) {
        for Filled { of, .. } in std::mem::take(&mut self.filled).into_iter().rev() {
            match of {
                Work::Trades(repair) => self.repairs.push_front(repair),
                Work::Candles(channel, hole) => {
                    if let Some(lane) = self.lanes.get_mut(&channel) {
                        lane.hole.get_or_insert(hole);
                    }
                }
            }
        }
    }

    /// What changed since the last call, to be stored and shown.
    pub fn take(&mut self) -> Vec<Gap> {
        let changed = std::mem::take(&mut self.changed);
        for (id, gap) in &changed {
            if self.told.len() < MAX_UNTOLD {
                self.told.insert(id.clone(), gap.clone());
            }
        }
        changed.into_values().collect()
    }

    /// A change that could not be told; it is given again.
    pub fn untold(&mut self, gap: Gap) {
        self.told.remove(&gap.id);
        self.changed.entry(gap.id.clone()).or_insert(gap);
    }

    /// True when there is something to tell.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn change(&mut self, gap: Gap) {
        // Open gaps are few; only while nothing is taken for hours can settled ones pile up.
        if self.changed.len() >= MAX_UNTOLD && !self.changed.contains_key(&gap.id) {
            self.changed.pop_first();
        }
        self.changed.insert(gap.id.clone(), gap);
    }
}
