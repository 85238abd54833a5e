//! The actor of one instrument: a thin shell around [`core::BookCore`], which decides; this fetches, sends, publishes.
//!
//! It outlives its shard's restarts, and its inbox outlives its own.

#[cfg(test)]
mod actor_tests;
pub mod core;
pub mod evidence;
pub mod gaps;
#[cfg(test)]
mod ledger_tests;
pub mod outbox;
pub mod polling;
mod probes;
mod repair;
pub mod rows;
pub mod sample;
pub mod series;
#[cfg(test)]
mod tests;
pub mod verify;
#[cfg(test)]
mod verify_tests;
#[cfg(test)]
mod watch_tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    ActorContext, ActorFutureExt, ActorStreamExt, AsyncContext, Context, Handler, Message, MessageResult,
    SpawnHandle,
    fut::{wrap_future, wrap_stream},
};
use fathom_market::{
    event::Level,
    instrument::{Instrument, InstrumentIdx},
    plan::{Priority, RequestSpec, RestAnswer},
    sample::SampleState,
    ticks::Tick,
};
use fathom_transport::TransportError;
use fathom_venues::Venue;
use serde::Serialize;
use tokio::sync::oneshot;

#[cfg(any(test, feature = "fault-injection"))]
pub use self::probes::CorruptLevel;
pub use self::probes::Verification;
use self::{
    core::{Action, BookCore, poison::tag_of_answer},
    gaps::{GapRules, GapTracker, SharedGaps},
    probes::Probes,
};
use crate::{
    board::MinuteBoard,
    directory::{BookCell, Directory},
    feed::{FeedItem, RenewStream},
    history::{CaughtUp, HistoryJob, RestJob},
    kernel::{ExitReason, Fault, Inbox, Lifeline, Outlet, Service},
    latency::Latency,
    service_actor,
    settings::{BookSettings, DepthSettings},
    writer::RowSink,
};

const TICK: Duration = Duration::from_millis(100);
const PUBLISH_EVERY_TICKS: u32 = 5;
const BATCH_ITEMS: usize = 32;
const DRAIN_AGAIN: Duration = Duration::from_millis(50);
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(180);

/// What every instance of a book's actor is made from.
#[derive(Clone)]
pub struct BookSpec {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The instrument.
    pub instrument: Arc<Instrument>,
    /// Its index in the market's table.
    pub idx: InstrumentIdx,
    /// Levels a side of its snapshots.
    pub snapshot_levels: usize,
    /// The feed.
    pub inbox: Inbox<FeedItem>,
    /// Requests to the shards that feed it; the one that carries the stream acts.
    pub renewals: Arc<[Outlet<RenewStream>]>,
    /// Requests to the venue's REST service.
    pub history: Outlet<HistoryJob>,
    /// Which candle series are caught up.
    pub caught_up: CaughtUp,
    /// Rows to the writer.
    pub writer: RowSink,
    /// Samples to the aggregators.
    pub board: Arc<MinuteBoard>,
    /// What readers see.
    pub cell: Arc<BookCell>,
    /// Where it counts how old what it applies is.
    pub applied: Arc<Latency>,
    /// The gap ledger.
    pub ledger: BookLedger,
    /// Book settings.
    pub settings: BookSettings,
    /// Depth settings.
    pub depth: DepthSettings,
}

/// What the instances of a book's actor share of the gap ledger.
#[derive(Clone)]
pub struct BookLedger {
    gaps: SharedGaps,
    directory: Arc<Directory>,
}

impl BookLedger {
    /// The ledger of an instrument; its gaps are shown on the directory's board. One that was collected before goes on
    /// where its last book ended.
    pub fn new(
        venue: &dyn Venue,
        instrument: &Instrument,
        settings: &BookSettings,
        directory: Arc<Directory>,
        now_us: i64,
    ) -> Self {
        let rules = GapRules {
            depth: venue.sync_rule(instrument.market),
            trades: venue.trade_ids(instrument.market),
            keeps_trades: settings.raw_tables.contains(&fathom_market::table::Table::Trades),
            repair: settings.repair,
        };
        let gaps = match directory.tracker(instrument.id) {
            Some(known) => {
                known.lock().rejoin(rules, now_us);
                known
            }
            None => SharedGaps::new(GapTracker::new(instrument.id, rules)),
        };
        directory.put_tracker(instrument.id, gaps.clone());
        Self { gaps, directory }
    }
}

/// What a book publishes for health.
#[derive(Clone, Debug, Serialize)]
pub struct BookDetail {
    /// Book state.
    pub book_state: &'static str,
    /// Why it is in that state.
    pub cause: &'static str,
    /// Since when.
    pub since_us: i64,
    /// Last update id.
    pub seq: Option<u64>,
    /// Age of the newest update in the book.
    pub age_ms: Option<i64>,
    /// Levels of both sides.
    pub levels: usize,
    /// Updates that wait for a snapshot.
    pub buffered: usize,
    /// Ticks held.
    pub ticks: usize,
    /// Updates applied.
    pub applied: u64,
    /// Sequence breaks.
    pub gaps: u64,
    /// Times that a live book was given up.
    pub resyncs: u64,
    /// Times that it was crossed.
    pub crossed: u64,
    /// What could not be used, by reason.
    pub rejects: BTreeMap<&'static str, u64>,
    /// Rows refused because the writer could not take them, by table.
    pub refused_rows: BTreeMap<&'static str, u64>,
    /// Times that it was loaded over REST because its stream was away.
    pub polled: u64,
    /// How it was compared with the venue's own book.
    #[serde(flatten)]
    pub verification: Verification,
}

/// The actor of one instrument.
pub struct BookActor {
    life: Lifeline,
    spec: BookSpec,
    core: BookCore,
    fetch: Option<SpawnHandle>,
    probes: Probes,
    repair: Option<SpawnHandle>,
    ticks: u32,
}

service_actor!(BookActor);

impl BookActor {
    /// A fresh instance without a book.
    pub fn new(life: Lifeline, spec: BookSpec) -> Self {
        let rule = spec.venue.sync_rule(spec.instrument.market);
        let now_us = life.clock().now_us();
        let mut core =
            BookCore::new(spec.instrument.clone(), rule, spec.settings.clone(), spec.depth.clone(), now_us)
                .catching_up(spec.caught_up.clone(), spec.idx)
                .tracking(spec.ledger.gaps.clone())
                .guarded(life.clone())
                .showing(spec.ledger.directory.derived().clone());
        core.outbox().attach(spec.writer.account().clone());
        let core = probes::verifiable(core, &spec);
        Self { life, spec, core, fetch: None, probes: Probes::default(), repair: None, ticks: 0 }
    }

    fn now_us(&self) -> i64 {
        self.life.clock().now_us()
    }

    fn on_items(&mut self, items: Vec<FeedItem>, ctx: &mut Context<Self>) {
        let _busy = self.life.enter("feed");
        let now_us = self.now_us();
        let mut actions = Vec::new();
        for item in items {
            let received_us = item.received_us();
            self.core.on_item(item, now_us, &mut actions);
            if let Some(received_us) = received_us {
                self.spec.applied.record(self.now_us() - received_us);
            }
            // A sample is taken where its boundary stands in the feed, before what follows it.
            self.perform(&mut actions, now_us);
        }
        self.life.fresh();
        self.tell_ledger();
        if self.core.outbox().is_ready() {
            self.send_rows();
        }
        self.tend_snapshot(now_us, ctx);
        self.tend_repair(ctx);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let mut actions = Vec::new();
        self.core.on_tick(now_us, &mut actions);
        self.perform(&mut actions, now_us);
        self.recall(now_us);
        self.tell_ledger();
        self.send_rows();
        self.tend_snapshot(now_us, ctx);
        self.tend_probes(now_us, ctx);
        self.tend_repair(ctx);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(PUBLISH_EVERY_TICKS) {
            self.publish(now_us);
        }
    }

    fn recall(&mut self, now_us: i64) {
        if self.core.awaits_recall()
            && let Some(left) = self.spec.ledger.directory.recall().of(self.spec.instrument.id)
        {
            self.core.recall(&left.marks, &left.open, now_us);
        }
    }

    /// Shows and stores what changed in the gap ledger.
    fn tell_ledger(&mut self) {
        for gap in self.core.ledger() {
            self.spec.ledger.directory.gaps().put(gap);
        }
    }

    fn perform(&mut self, actions: &mut Vec<Action>, now_us: i64) {
        for action in actions.drain(..) {
            match action {
                Action::Sample(boundary_ms) => self.spec.board.put(self.core.sample(boundary_ms, now_us)),
                Action::Renew(channel) => {
                    let wish = RenewStream { instrument: self.spec.idx, channel };
                    for outlet in &*self.spec.renewals {
                        // A shard that cannot take the wish is busy restarting, and renews everything then.
                        let _ = outlet.offer(wish);
                    }
                }
                Action::FetchCandle(timeframe, open_ms) => {
                    let job = HistoryJob::Candle { instrument: self.spec.idx, timeframe, open_ms };
                    if self.spec.history.offer(job).is_err() {
                        tracing::warn!(symbol = %self.spec.instrument.native, %timeframe, "no room to fetch a missed candle");
                    }
                }
            }
        }
    }

    /// Starts, or gives up, a snapshot request as the book needs it.
    fn tend_snapshot(&mut self, now_us: i64, ctx: &mut Context<Self>) {
        if let Some(fetch) = self.fetch {
            if self.core.keeper().open_attempt().is_some() {
                return;
            }
            ctx.cancel_future(fetch);
            self.fetch = None;
        }
        let Some(delay) = self.core.wants_snapshot(now_us) else { return };
        let (request, limit) =
            self.spec.venue.snapshot_request(&self.spec.instrument, self.spec.snapshot_levels);
        let epoch = self.core.keeper_mut().begin_sync();
        let asking = self.ask_venue(delay, request, Priority::Resync, SNAPSHOT_DEADLINE);
        let task = wrap_future::<_, Self>(asking)
            .map(move |answer, actor, ctx| actor.on_snapshot(epoch, limit, answer, ctx));
        self.fetch = Some(ctx.spawn(task));
    }

    /// Asks the venue over the market's REST actor after a delay; `None` when that has no room or drops the request.
    fn ask_venue(
        &self,
        delay: Duration,
        request: RequestSpec,
        priority: Priority,
        deadline: Duration,
    ) -> impl Future<Output = Option<Answer>> + use<> {
        let (reply, answer) = oneshot::channel();
        let job = HistoryJob::Rest(RestJob { request, priority, deadline, reply });
        let history = self.spec.history.clone();
        async move {
            tokio::time::sleep(delay).await;
            history.offer(job).ok()?;
            answer.await.ok()
        }
    }

    fn on_snapshot(&mut self, epoch: u64, limit: usize, answer: Option<Answer>, ctx: &mut Context<Self>) {
        let _busy = self.life.enter("snapshot");
        self.fetch = None;
        let now_us = self.now_us();
        match self.read_snapshot(limit, answer) {
            Ok(snapshot) => {
                if self.core.on_snapshot(&snapshot, epoch, now_us) {
                    self.publish(now_us);
                }
            }
            Err(error) => {
                tracing::warn!(symbol = %self.spec.instrument.native, error, "snapshot failed");
                self.core.keeper_mut().snapshot_failed(epoch);
            }
        }
        self.tend_snapshot(now_us, ctx);
    }

    /// An answer to be worked on within the present operation; one that made two instances panic is set aside.
    fn take_answer(&mut self, answer: Option<Answer>) -> Result<RestAnswer, String> {
        let answer = answer.ok_or("the request was dropped")?.map_err(|error| error.to_string())?;
        let tag = tag_of_answer(&answer.body);
        if self.life.refuses(tag) {
            self.core.answer_set_aside();
            return Err("the answer made the actor panic again and again".to_owned());
        }
        self.life.item(Some(tag));
        #[cfg(test)]
        core::poison::testing::break_on(tag);
        Ok(answer)
    }

    fn read_snapshot(
        &mut self,
        limit: usize,
        answer: Option<Answer>,
    ) -> Result<fathom_market::event::BookSnapshot, String> {
        let answer = self.take_answer(answer)?;
        self.spec
            .venue
            .parse_snapshot(&self.spec.instrument, limit, &answer)
            .map_err(|error| error.to_string())
    }

    fn send_rows(&mut self) {
        let writer = &self.spec.writer;
        self.core.outbox().send(|batch| writer.hand(batch));
        self.core.sent();
    }

    fn publish(&mut self, now_us: i64) {
        if self.life.is_fenced() {
            return;
        }
        let sample = self.core.sample(now_us / 1000, now_us);
        let why = if sample.state == SampleState::Live {
            Vec::new()
        } else {
            vec![format!("book is {}: {}", sample.state.as_str(), self.core.keeper().cause().as_str())]
        };
        self.life.degraded(why);
        self.spec.cell.publish(Arc::new(sample), now_us);
        self.spec.cell.publish_ticks(self.core.ticks().len());
        let detail = self.detail(now_us);
        Service::publish(self, detail);
    }

    fn detail(&mut self, now_us: i64) -> BookDetail {
        let refused =
            self.core.outbox().refused().iter().map(|(table, rows)| (table.schema().name, *rows)).collect();
        let keeper = self.core.keeper();
        let counters = keeper.counters();
        BookDetail {
            book_state: keeper.state().as_str(),
            cause: keeper.cause().as_str(),
            since_us: keeper.since_us(),
            seq: keeper.last_id(),
            age_ms: keeper.last_recv_us().map(|last| (now_us - last) / 1000),
            levels: keeper.book().len(),
            buffered: keeper.n_buffered(),
            ticks: self.core.ticks().len(),
            applied: counters.applied,
            gaps: counters.gaps,
            resyncs: counters.resyncs,
            crossed: counters.crossed,
            rejects: self.core.rejects().clone(),
            refused_rows: refused,
            polled: counters.polled,
            verification: probes::verification(self.core.verifier()),
        }
    }
}

type Answer = Result<RestAnswer, TransportError>;

impl Service for BookActor {
    type Detail = BookDetail;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let feed = self.spec.inbox.batches(&self.life, BATCH_ITEMS);
        ctx.spawn(wrap_stream(feed).map(|items, actor: &mut Self, ctx| actor.on_items(items, ctx)).finish());
        ctx.run_interval(TICK, Self::tick);
        let now_us = self.now_us();
        if self.life.generation() > 1 {
            self.core.resume(now_us);
        }
        self.publish(now_us);
        Ok(())
    }

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let mut actions = Vec::new();
        while let Some(item) = self.spec.inbox.try_recv() {
            self.core.on_item(item, now_us, &mut actions);
        }
        self.perform(&mut actions, now_us);
        self.core.finish(now_us);
        self.tell_ledger();
        self.send_rows();
        // What those rows filled is told once they have left.
        self.tell_ledger();
        self.send_rows();
        if self.core.outbox().is_empty() {
            self.core.ended();
            return ctx.stop();
        }
        // The writer's inbox is full: what is left is offered again until it has gone, or the grace is over.
        ctx.run_interval(DRAIN_AGAIN, |actor, ctx| {
            actor.send_rows();
            if actor.core.outbox().is_empty() {
                actor.core.ended();
                ctx.stop();
            }
        });
    }

    fn on_stop(&mut self, _why: &ExitReason) {
        if !self.core.outbox().is_empty() {
            tracing::error!(symbol = %self.spec.instrument.native, "rows are lost: the writer did not take them in time");
        }
    }
}

/// Asks for the book as it is now.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "BookAnswer")]
pub struct GetBook {
    /// Levels a side at most; `usize::MAX` for all.
    pub levels: usize,
}

/// A book as it is now. Levels are empty unless the state is usable.
#[derive(Clone, Debug)]
pub struct BookAnswer {
    /// Its state.
    pub state: SampleState,
    /// Why it is in that state.
    pub cause: &'static str,
    /// Last update id.
    pub last_id: Option<u64>,
    /// Venue time of the newest update, where given.
    pub event_us: Option<i64>,
    /// When the newest update was received.
    pub recv_us: Option<i64>,
    /// Bids, best first.
    pub bids: Vec<Level>,
    /// Asks, best first.
    pub asks: Vec<Level>,
}

impl Handler<GetBook> for BookActor {
    type Result = MessageResult<GetBook>;

    fn handle(&mut self, ask: GetBook, _: &mut Context<Self>) -> Self::Result {
        let keeper = self.core.keeper();
        let state = sample::sample_state(keeper.state());
        let (bids, asks) =
            if state.is_usable() { keeper.book().top(ask.levels) } else { (Vec::new(), Vec::new()) };
        MessageResult(BookAnswer {
            state,
            cause: keeper.cause().as_str(),
            last_id: keeper.last_id(),
            event_us: keeper.last_event_us(),
            recv_us: keeper.last_recv_us(),
            bids,
            asks,
        })
    }
}

/// Gives the book up and loads it anew; its lines are not touched.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Resync;

impl Handler<Resync> for BookActor {
    type Result = ();

    fn handle(&mut self, _: Resync, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        self.core.resync(now_us);
        self.tend_snapshot(now_us, ctx);
        self.publish(now_us);
    }
}

/// Asks for the ticks of the last seconds.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<Tick>")]
pub struct GetTicks {
    /// Seconds.
    pub last: u32,
}

impl Handler<GetTicks> for BookActor {
    type Result = MessageResult<GetTicks>;

    fn handle(&mut self, ask: GetTicks, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.ticks().last(ask.last, self.now_us()).copied().collect())
    }
}
