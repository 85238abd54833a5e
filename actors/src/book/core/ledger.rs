//! What the book tells the gap ledger: its records, its losses, and the trades that are fetched to fill them.

use fathom_market::{
    book::{BookState, Cause},
    event::{Body, Channel, Event, TradeId},
    gap::{Gap, GapCause},
    mark::StreamMark,
    table::Table,
    timeframe::Timeframe,
    validate::check_trade,
};

use super::BookCore;
use crate::book::{
    gaps::{Page, RecordId, TradePage},
    rows,
};

impl BookCore {
    /// Records of a channel may be missing since the last one.
    pub fn gap(&mut self, channel: Channel, cause: GapCause, now_us: i64) {
        self.gaps.lock().lost(channel, cause, now_us);
    }

    /// The venue set the ids of a channel back: how much was missed cannot be told.
    pub(super) fn on_set_back(&mut self, channel: Channel, now_us: i64) {
        self.reject("set_back", 1);
        self.bars.interrupt();
        let mut gaps = self.gaps.lock();
        gaps.lost(channel, GapCause::Sequence, now_us);
        gaps.ids_set_back(channel);
        drop(gaps);
        if channel == Channel::Depth {
            self.keeper.reset(Cause::IdsReset, now_us);
        }
    }

    /// A record came.
    pub(super) fn note(&mut self, body: &Body, recv_us: i64) {
        let id = match body {
            Body::Quote(quote) => quote.update_id.map_or(RecordId::None, RecordId::Update),
            Body::Trade(trade) => RecordId::Trade(trade.id.clone()),
            Body::Delta(delta) => RecordId::Depth(delta.ids),
            Body::Candle(candle) => RecordId::Candle { open_ms: candle.open_ms, closed: candle.closed },
            Body::Ticker(_) | Body::Funding(_) => RecordId::None,
            Body::Snapshot(_) => return,
        };
        let mut gaps = self.gaps.lock();
        if let Body::Trade(trade) = body {
            gaps.trades_are(trade.kind);
        }
        let broken = gaps.record(body.channel(), recv_us, id);
        drop(gaps);
        if broken && body.channel() == Channel::Trade {
            self.reject("trade_gap", 1);
            self.bars.interrupt();
        }
    }

    /// What the book's state says of its updates.
    pub(super) fn watch_book(&mut self, was: BookState, now_us: i64) {
        let is = self.keeper.state();
        let mut gaps = self.gaps.lock();
        if is == BookState::Live {
            return gaps.book_live(self.keeper.last_id(), now_us);
        }
        if was != BookState::Live {
            return;
        }
        let cause = self.keeper.cause();
        gaps.doubt(Channel::Depth, cause_of_book(cause), now_us);
        if cause == Cause::IdsReset {
            gaps.depth_ids_reset();
        }
    }

    pub(super) fn settle_candles(&self, timeframe: Timeframe, now_us: i64) {
        let mut gaps = self.gaps.lock();
        if gaps.awaits_candles(timeframe)
            && let Some(stored_ms) = self.series.stored_ms(timeframe)
        {
            gaps.candles_stored(timeframe, stored_ms, now_us);
        }
    }

    /// Takes what the last process left.
    pub fn recall(&mut self, marks: &[StreamMark], open: &[Gap], now_us: i64) {
        self.gaps.lock().recall(marks, open, now_us);
        self.watch_book(self.keeper.state(), now_us);
    }

    /// True until it is known where the last process ended.
    pub fn awaits_recall(&self) -> bool {
        self.gaps.lock().awaits_recall()
    }

    /// What changed in the ledger since the last call; its rows are in the outbox.
    pub fn ledger(&mut self) -> Vec<Gap> {
        let mut gaps = self.gaps.lock();
        if !gaps.has_changed() {
            return Vec::new();
        }
        let changed = gaps.take();
        for gap in &changed {
            let before = refused(&self.outbox, Table::DataGaps);
            self.outbox.push(gap.row());
            if refused(&self.outbox, Table::DataGaps) > before {
                gaps.untold(gap.clone());
            }
        }
        changed
    }

    /// The outbox was sent: when nothing is left in it, a panic from here on loses no row.
    pub fn sent(&self) {
        if self.outbox.is_empty() {
            self.gaps.lock().commit();
        }
    }

    /// The instance ends in order, with nothing left to send.
    pub fn ended(&self) {
        self.gaps.lock().finish();
    }

    /// The page of missed trades that is to be asked for.
    pub fn wants_trades(&self) -> Option<TradePage> {
        self.gaps.lock().next_page()
    }

    /// Takes a page of trades that was asked from this id. What the outbox has no room for is fetched again.
    pub fn on_trades(&mut self, from_id: u64, events: &[Event], now_us: i64) {
        let mut trades: Vec<_> = events.iter().filter_map(numbered).collect();
        trades.sort_unstable_by_key(|(id, ..)| *id);
        // What cannot be stored counts as missing.
        let sound = trades.iter().filter(|(_, trade, _)| check_trade(trade).is_ok());
        let ids: Vec<u64> = sound.map(|(id, ..)| *id).collect();
        let page = Page { from_id, ids: &ids, kind: trades.first().map(|(_, trade, _)| trade.kind) };
        let Some(wanted) = self.gaps.lock().wanted(&page, now_us) else { return };
        let before = refused(&self.outbox, Table::Trades);
        for (id, trade, event) in trades {
            if !wanted.contains(&id) {
                continue;
            }
            match check_trade(trade) {
                Ok(()) => {
                    self.outbox.push(rows::trade(&self.instrument, trade, event.time_us(), event.recv_us))
                }
                Err(flag) => self.reject(flag.as_str(), 1),
            }
        }
        let mut gaps = self.gaps.lock();
        if refused(&self.outbox, Table::Trades) > before {
            gaps.page_failed(from_id);
        } else {
            gaps.page_read(&page, now_us);
        }
    }

    /// A page of trades could not be had.
    pub fn trades_failed(&self, from_id: u64) {
        self.gaps.lock().page_failed(from_id);
    }

    /// What is under repair cannot be had.
    pub fn give_up_trades(&self, reason: &str, now_us: i64) {
        self.gaps.lock().give_up(reason, now_us);
    }
}

fn numbered(event: &Event) -> Option<(u64, &fathom_market::event::Trade, &Event)> {
    let Body::Trade(trade) = &event.body else { return None };
    let TradeId::Number(id) = trade.id else { return None };
    Some((id, trade, event))
}

fn refused(outbox: &crate::book::outbox::Outbox, table: Table) -> u64 {
    outbox.refused().get(&table).copied().unwrap_or(0)
}

/// Channels whose past cannot be had, and whose ids do not tell of a hole.
pub(super) const fn is_without_history(channel: Channel) -> bool {
    matches!(channel, Channel::Quote | Channel::Ticker | Channel::Funding)
}

/// Why a line was reset, in the words of the ledger.
pub(super) fn cause_of_reset(word: &str) -> GapCause {
    if word.contains("silen") {
        GapCause::Silence
    } else if word.contains("pause") {
        GapCause::Paused
    } else if word.contains("sequence") || word.contains("gap") {
        GapCause::Sequence
    } else {
        GapCause::Disconnect
    }
}

const fn cause_of_book(cause: Cause) -> GapCause {
    match cause {
        Cause::Gap { .. } | Cause::IdsReset => GapCause::Sequence,
        Cause::Crossed | Cause::Checksum | Cause::Diverged => GapCause::Diverged,
        Cause::Refused(_) | Cause::Unreadable => GapCause::Unreadable,
        Cause::BufferOverflow | Cause::UpdatesLost => GapCause::Overflow,
        Cause::Silent | Cause::Disagrees => GapCause::Silence,
        Cause::Operator => GapCause::Operator,
        Cause::Start
        | Cause::Synced
        | Cause::SnapshotTooOld
        | Cause::SnapshotFailed
        | Cause::RangeLeft
        | Cause::Disconnected => GapCause::Disconnect,
    }
}
