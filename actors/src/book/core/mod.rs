//! One instrument's state: its book, ticks and bars, and the rows to be stored of them. Pure: the actor around it
//! fetches, sends and publishes what this tells it to.

mod show;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fathom_market::{
    bars::{DepthChange, SecondBars, TopOfBook},
    book::{BookKeeper, BookState, Cause, KeeperLimits, Step, SyncRule},
    event::{Body, BookDelta, BookSnapshot, Candle, Channel, Event, Level, Quote, Trade},
    gap::GapCause,
    instrument::{Instrument, InstrumentIdx, InstrumentKind},
    sample::DepthSample,
    table::Table,
    ticks::{Tick, TickRing},
    timeframe::Timeframe,
    validate::{Validator, Verdict},
};

use fathom_venues::TradeIds;

mod candles;
mod ledger;
pub mod poison;

use super::{
    evidence::Evidence,
    gaps::{GapRules, GapTracker, SharedGaps},
    outbox::Outbox,
    polling::Polling,
    rows, sample,
    series::Series,
    verify::Verifier,
};
use crate::{
    feed::FeedItem,
    history::CaughtUp,
    kernel::{Lifeline, clock::micros},
    settings::{BookSettings, DepthSettings},
};

/// A line that has not said that it lives for this long is taken for dead.
const PULSE_TIMEOUT_US: i64 = 4_000_000;
/// A depth stream that is subscribed and says nothing for this long belongs to a quiet market: its snapshot is
/// fetched without waiting for an update.
const QUIET_DEPTH_US: i64 = 3_000_000;
/// How long after its end a second's bar waits for what is still in the inbox.
const BAR_LAG_US: i64 = 500_000;
/// A live book that the market has moved out of its snapshot's range is not loaded anew more often than this.
const REFRESH_EVERY_US: i64 = 30_000_000;
/// Levels of each side that have to lie inside the known range.
const KNOWN_TOP: usize = 50;

/// What the actor has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the shard to subscribe a silent channel again.
    Renew(Channel),
    /// Put a sample on the board.
    Sample(i64),
    /// A candle ended without its last word: fetch it.
    FetchCandle(Timeframe, i64),
}

/// Counts of what a book could not use, by reason.
pub type Rejects = BTreeMap<&'static str, u64>;

/// One instrument's state.
pub struct BookCore {
    instrument: Arc<Instrument>,
    settings: BookSettings,
    depth: DepthSettings,
    keeper: BookKeeper,
    ticks: TickRing,
    bars: SecondBars,
    validator: Validator,
    evidence: Evidence,
    polling: Polling,
    verifier: Verifier,
    outbox: Outbox,
    rejects: Rejects,
    open_candles: BTreeMap<Timeframe, Pending>,
    series: Series,
    last_quote: Option<Quote>,
    last_boundary_ms: i64,
    last_pulse_us: i64,
    depth_open_us: Option<i64>,
    /// Its shard is paused by an operator: nothing is asked of the venue in its place.
    is_held: bool,
    /// True while the depth stream was found dead and has not spoken since: a snapshot would be live only in name.
    depth_is_dead: bool,
    renewed_us: i64,
    synced_us: i64,
    /// The interval of the last stored book, counted from the epoch.
    last_stored: i64,
    last_candles_us: i64,
    last_funding: Option<rows::FundingMark>,
    ordinal: rows::Ordinal,
    caught_up: Option<(CaughtUp, InstrumentIdx)>,
    gaps: SharedGaps,
    /// Told which item is in hand.
    life: Option<Lifeline>,
    show: show::Show,
}

/// Where a candle came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Live,
    Fetched,
}

struct Pending {
    candle: Candle,
    updated_us: i64,
    stored: bool,
}

impl BookCore {
    /// A book that has seen nothing. `pace` is the interval of its depth stream.
    pub fn new(
        instrument: Arc<Instrument>,
        rule: &'static dyn SyncRule,
        settings: BookSettings,
        depth: DepthSettings,
        now_us: i64,
    ) -> Self {
        let limits = KeeperLimits {
            buffer: settings.buffer,
            max_levels: settings.max_levels,
            ..KeeperLimits::default()
        };
        let (every, seed) = (settings.verify_every, instrument.id.0);
        let gaps = GapRules {
            depth: rule,
            trades: TradeIds::Increasing,
            keeps_trades: settings.raw_tables.contains(&Table::Trades),
            repair: settings.repair,
        };
        Self {
            gaps: SharedGaps::new(GapTracker::new(instrument.id, gaps)),
            keeper: BookKeeper::new(rule, limits, now_us),
            polling: Polling::new(settings.poll),
            verifier: Verifier::new(rule, settings.max_levels, every, seed, now_us),
            ticks: TickRing::new(settings.tick_cap),
            bars: SecondBars::new(&instrument),
            validator: Validator::new(settings.bounds),
            evidence: Evidence::new(settings.stale_after),
            outbox: Outbox::default(),
            rejects: Rejects::new(),
            open_candles: BTreeMap::new(),
            series: Series::default(),
            last_quote: None,
            last_boundary_ms: boundary_before(now_us),
            last_pulse_us: now_us,
            depth_open_us: None,
            is_held: false,
            depth_is_dead: false,
            renewed_us: 0,
            synced_us: 0,
            last_stored: 0,
            last_candles_us: 0,
            last_funding: None,
            ordinal: rows::Ordinal::default(),
            caught_up: None,
            life: None,
            show: show::Show::default(),
            instrument,
            settings,
            depth,
        }
    }

    /// Live candles tell how far their series is stored only once it is caught up.
    #[must_use]
    pub fn catching_up(mut self, caught_up: CaughtUp, idx: InstrumentIdx) -> Self {
        self.caught_up = Some((caught_up, idx));
        self
    }

    /// What may be missing is tracked here, beyond the life of this instance.
    #[must_use]
    pub fn tracking(mut self, gaps: SharedGaps) -> Self {
        self.gaps = gaps;
        self
    }

    /// A later instance goes on; whether its depth flows it hears with the next pulse.
    pub fn resume(&mut self, now_us: i64) {
        self.series.resume();
        self.gaps.lock().resume(now_us);
    }

    /// Takes an item of the feed.
    pub fn on_item(&mut self, item: FeedItem, now_us: i64, actions: &mut Vec<Action>) {
        let was = self.keeper.state();
        self.take_item(item, now_us, actions);
        self.watch_book(was, now_us);
    }

    fn take_item(&mut self, item: FeedItem, now_us: i64, actions: &mut Vec<Action>) {
        match item {
            FeedItem::Events(events) => {
                self.last_pulse_us = now_us;
                self.verifier.heard(now_us);
                for event in events {
                    if self.take_up(|| poison::tag_of_event(&event)) {
                        self.on_event(event, actions);
                    } else {
                        self.set_aside(event.body.channel(), event.recv_us);
                    }
                }
                self.put_down();
            }
            FeedItem::Reset { channels, cause } => self.on_reset(&channels, cause, now_us),
            FeedItem::Open { channels } => {
                // Said again with every pulse, for one that has missed it.
                if channels.contains(&Channel::Depth) && self.depth_open_us.is_none() {
                    self.depth_open_us = Some(now_us);
                    self.is_held = false;
                    self.polling.opened();
                }
            }
            FeedItem::Candles { candles, asked_us } => {
                for candle in &candles {
                    if self.take_up(|| poison::tag_of_candle(candle)) {
                        self.on_fetched_candle(candle, asked_us);
                    } else {
                        self.reject(poison::POISONED, 1);
                    }
                }
                self.put_down();
            }
            FeedItem::CaughtUp { timeframe, stored_ms } => {
                if let Some(open_ms) = stored_ms {
                    self.series.caught_up(timeframe, open_ms);
                }
                if let Some((caught_up, idx)) = &self.caught_up {
                    caught_up.mark(*idx, timeframe);
                }
            }
            FeedItem::Gap { expected, got } => {
                self.reject("gap", 1);
                self.gap(Channel::Depth, GapCause::Sequence, now_us);
                self.keeper.on_gap(expected, got, now_us);
            }
            FeedItem::SetBack { channel } => self.on_set_back(channel, now_us),
            FeedItem::Silent { channels } => {
                // The ids of the others tell by themselves whether something was missed.
                for channel in channels.into_iter().filter(|one| ledger::is_without_history(*one)) {
                    self.gap(channel, GapCause::Silence, now_us);
                }
            }
            FeedItem::Unreadable { channel, reason } => {
                self.reject(reason, 1);
                self.bars.interrupt();
                self.gap(channel, GapCause::Unreadable, now_us);
                if channel == Channel::Depth {
                    self.keeper.reset(Cause::Unreadable, now_us);
                }
            }
            FeedItem::Overflow { events } => {
                self.reject("inbox_overflow", events as u64);
                self.gaps.lock().lost_all(GapCause::Overflow, now_us);
                self.bars.interrupt();
                self.keeper.reset(Cause::UpdatesLost, now_us);
            }
            FeedItem::Boundary { at_ms } => self.on_boundary(at_ms, actions),
            FeedItem::Pulse => self.last_pulse_us = now_us,
        }
    }

    fn on_reset(&mut self, channels: &[Channel], cause: &'static str, now_us: i64) {
        tracing::debug!(symbol = %self.instrument.native, cause, "line reset");
        self.bars.interrupt();
        for channel in channels {
            self.gap(*channel, ledger::cause_of_reset(cause), now_us);
        }
        if channels.contains(&Channel::Depth) {
            self.is_held = ledger::cause_of_reset(cause) == GapCause::Paused;
            self.depth_open_us = None;
            self.depth_is_dead = false;
            self.keeper.reset(Cause::Disconnected, now_us);
            self.evidence.reset();
        }
    }

    fn on_event(&mut self, event: Event, actions: &mut Vec<Action>) {
        let (event_us, recv_us) = (event.event_us, event.recv_us);
        if let Verdict::Reject(flag) = self.validator.check(&self.instrument, &event) {
            self.reject(flag.as_str(), 1);
            // What a stream said of itself cannot be believed; the venue's own history may be.
            self.bars.interrupt();
            self.gap(event.body.channel(), GapCause::Unreadable, recv_us);
            if event.body.channel() == Channel::Depth {
                self.keeper.reset(Cause::Unreadable, recv_us);
            }
            return;
        }
        self.note(&event.body, recv_us);
        match event.body {
            Body::Quote(quote) => self.on_quote(quote, event_us, recv_us),
            Body::Trade(trade) => self.on_trade(&trade, event_us.unwrap_or(recv_us), recv_us),
            Body::Delta(delta) => self.on_delta(delta, event_us, recv_us),
            Body::Snapshot(_) => self.reject("unsolicited_snapshot", 1),
            // By our clock, as fetched ones: a venue whose clock jumped ahead would hold off its later word.
            Body::Candle(candle) => self.on_candle(*candle, recv_us, actions),
            Body::Ticker(ticker) => {
                let row = rows::ticker(&self.instrument, &ticker, event_us.unwrap_or(recv_us));
                self.show_ticker(&row);
                self.outbox.push(row);
            }
            Body::Funding(funding) => self.on_funding(&funding, event_us.unwrap_or(recv_us)),
        }
    }

    fn on_quote(&mut self, quote: Quote, event_us: Option<i64>, recv_us: i64) {
        let tick = Tick::new(event_us, recv_us, &quote);
        self.show_tick(&tick);
        self.ticks.push(tick);
        self.bars.on_quote(quote.bid, quote.ask, recv_us);
        self.evidence.on_quote(quote.update_id, recv_us);
        self.last_quote = Some(quote);
        if self.keeps(Table::BookTicker) {
            let ordinal = self.ordinal.next(quote.update_id, event_us.unwrap_or(recv_us));
            self.outbox.push(rows::book_ticker(&self.instrument, &quote, event_us, recv_us, ordinal));
        }
    }

    fn on_trade(&mut self, trade: &Trade, event_us: i64, recv_us: i64) {
        self.bars.on_trade(trade.price, trade.qty, trade.side, recv_us);
        self.weigh_trade(trade, event_us, recv_us);
        if self.keeps(Table::Trades) {
            self.outbox.push(rows::trade(&self.instrument, trade, event_us, recv_us));
        }
    }

    fn on_delta(&mut self, delta: BookDelta, event_us: Option<i64>, recv_us: i64) {
        if self.keeps(Table::DepthEvents) {
            self.outbox.push(rows::depth_event(
                &self.instrument,
                &delta,
                event_us.unwrap_or(recv_us),
                recv_us,
            ));
        }
        let before = top(&self.keeper);
        let (n_bids, n_asks, last_id) = (delta.bids.len(), delta.asks.len(), delta.ids.last);
        self.evidence.on_depth(last_id, recv_us);
        self.depth_is_dead = false;
        let copy = self.verifier.is_recording().then(|| delta.clone());
        match self.keeper.on_delta(delta, event_us, recv_us) {
            Step::Applied => {
                self.recorded(copy, recv_us);
                self.count_depth(before, (n_bids, n_asks), last_id, recv_us);
            }
            Step::Gap { .. } => self.reject("gap", 1),
            Step::Refused(_) => self.reject("refused_levels", 1),
            Step::NeedSnapshot { cause } => self.reject(cause.as_str(), 1),
            Step::Ignored(_) | Step::Buffered | Step::Synced { .. } => {}
        }
    }

    fn count_depth(&mut self, before: TopOfBook, changes: (usize, usize), last_id: u64, recv_us: i64) {
        let flow = self.keeper.last_flow();
        let change = DepthChange {
            bid_changes: u32::try_from(changes.0).unwrap_or(u32::MAX),
            ask_changes: u32::try_from(changes.1).unwrap_or(u32::MAX),
            bid_added: flow.bid_added,
            bid_removed: flow.bid_removed,
            ask_added: flow.ask_added,
            ask_removed: flow.ask_removed,
            before,
            after: top(&self.keeper),
            last_id,
        };
        self.bars.on_depth(&change, recv_us);
    }

    fn on_funding(&mut self, funding: &fathom_market::event::Funding, event_us: i64) {
        if !rows::FundingMark::is_worth_storing(&mut self.last_funding, funding, event_us) {
            return;
        }
        if funding.rate.is_none() && self.instrument.kind == InstrumentKind::Perpetual {
            tracing::warn!(venue = %self.instrument.venue, symbol = %self.instrument.native, "no funding rate");
        }
        match rows::funding(&self.instrument, funding, event_us) {
            Ok(row) => self.outbox.push(row),
            Err(_) => self.reject("funding_out_of_range", 1),
        }
    }

    fn on_boundary(&mut self, at_ms: i64, actions: &mut Vec<Action>) {
        if at_ms > self.last_boundary_ms {
            self.last_boundary_ms = at_ms;
            actions.push(Action::Sample(at_ms));
        }
    }

    /// Does what is due by time: silence, bars, open candles, stored books, and a boundary that the feed missed.
    pub fn on_tick(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        let missed = boundary_before(now_us - micros(self.depth.grace) / 2);
        self.on_boundary(missed, actions);
        let was = self.keeper.state();
        self.check_feed(now_us, actions);
        self.watch_book(was, now_us);
        self.gaps.lock().tick(now_us);
        self.ticks.expire(now_us);
        let bars = self.bars.roll(now_us - BAR_LAG_US);
        rows::push_bars(&mut self.outbox, bars);
        if now_us - self.last_candles_us >= micros(self.settings.candle_every) {
            self.last_candles_us = now_us;
            self.flush_candles();
        }
        self.store_book(now_us);
        self.show_book(now_us);
    }

    fn check_feed(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        if self.keeper.state() == BookState::Live {
            self.check_live(now_us, actions);
        } else if self.depth_is_dead {
            self.check_dead(now_us, actions);
        }
        self.check_polled(now_us);
        self.check_verification(now_us, actions);
    }

    fn check_live(&mut self, now_us: i64, actions: &mut Vec<Action>) {
        if self.is_silent(now_us) {
            self.keeper.mark_stale(Cause::Silent, now_us);
            self.bars.interrupt();
            return;
        }
        let (depth, quote) = self.evidence.suspects(self.keeper.last_id(), self.quote_disagrees(), now_us);
        if depth {
            self.convict_depth(now_us, actions);
        }
        if quote {
            self.gap(Channel::Quote, GapCause::Silence, now_us);
            actions.push(Action::Renew(Channel::Quote));
        }
    }

    /// True while the line does not even say that it lives: a snapshot would be live only until the next look.
    const fn is_silent(&self, now_us: i64) -> bool {
        now_us - self.last_pulse_us > PULSE_TIMEOUT_US
    }

    /// True when best bid and ask of the quote stream differ from the book's.
    fn quote_disagrees(&self) -> bool {
        let Some(quote) = &self.last_quote else { return false };
        let book = self.keeper.book();
        let same =
            |level: Option<Level>, quoted: Level| level.is_none_or(|level| level.price == quoted.price);
        !same(book.best_bid(), quote.bid) || !same(book.best_ask(), quote.ask)
    }

    /// Stores what is unfinished, before the end: bars and candles that are still open.
    pub fn finish(&mut self, now_us: i64) {
        let bars = self.bars.flush(now_us);
        rows::push_bars(&mut self.outbox, bars);
        self.flush_candles();
    }

    /// Takes the answer to a snapshot request. True when the book is live.
    pub fn on_snapshot(&mut self, snapshot: &BookSnapshot, epoch: u64, now_us: i64) -> bool {
        if self.depth_is_dead || self.is_silent(now_us) {
            self.keeper.snapshot_failed(epoch);
            return false;
        }
        let was = self.keeper.state();
        let step = self.keeper.on_snapshot(snapshot, epoch, now_us);
        self.watch_book(was, now_us);
        if let Step::NeedSnapshot { cause } = step {
            self.reject(cause.as_str(), 1);
        }
        if matches!(step, Step::Synced { .. }) {
            self.evidence.synced(now_us);
            self.synced_us = now_us;
        }
        matches!(step, Step::Synced { .. })
    }

    /// How long to wait before the next snapshot request; `None` while none is needed, or none would help: a snapshot
    /// older than the first update cannot be joined.
    pub fn wants_snapshot(&self, now_us: i64) -> Option<Duration> {
        let quiet = |since: i64| now_us - since.max(self.keeper.since_us()) > QUIET_DEPTH_US;
        let worth_it = self.keeper.n_buffered() > 0
            || self.keeper.state() == BookState::Live
            || (!self.depth_is_dead && self.depth_open_us.is_some_and(quiet));
        if !worth_it || self.is_silent(now_us) {
            return None;
        }
        let rested = now_us - self.synced_us > REFRESH_EVERY_US;
        let needed = self.keeper.needs_snapshot() || (rested && self.keeper.needs_deeper_snapshot(KNOWN_TOP));
        needed.then(|| self.settings.snapshot_retry.after(self.keeper.failed_attempts()))
    }

    /// The sample of this moment, marked with a boundary.
    pub fn sample(&self, boundary_ms: i64, now_us: i64) -> DepthSample {
        sample::take(&self.instrument, &self.keeper, &self.depth, boundary_ms, now_us)
    }

    /// The book's keeper.
    pub const fn keeper(&self) -> &BookKeeper {
        &self.keeper
    }

    /// The book's keeper, to begin and end snapshot attempts, pause and resume.
    pub const fn keeper_mut(&mut self) -> &mut BookKeeper {
        &mut self.keeper
    }

    /// The tick ring.
    pub const fn ticks(&self) -> &TickRing {
        &self.ticks
    }

    /// The outbox.
    pub const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// What could not be used, by reason.
    pub const fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    fn keeps(&self, table: Table) -> bool {
        self.settings.raw_tables.contains(&table)
    }

    fn reject(&mut self, reason: &'static str, count: u64) {
        *self.rejects.entry(reason).or_default() += count;
    }
}

fn top(keeper: &BookKeeper) -> TopOfBook {
    TopOfBook { bid: keeper.book().best_bid(), ask: keeper.book().best_ask() }
}

/// The minute boundary at or before a time.
pub const fn boundary_before(now_us: i64) -> i64 {
    now_us.div_euclid(60_000_000) * 60_000
}
