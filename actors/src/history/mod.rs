//! The actor that asks a venue's REST service, one for each venue and market: snapshots for the books, candles that
//! were missed, the catch-up after a stop. All of it goes through the venue's budget; a book's resync before
//! everything else. Its requests run on its own thread, so that connections outlive the books that asked.

mod caught_up;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use actix::{
    ActorFutureExt, ActorStreamExt, AsyncContext, Context,
    fut::{wrap_future, wrap_stream},
};
use arc_swap::ArcSwap;
use fathom_market::{
    ids::Market,
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
    plan::{Priority, RequestSpec, RestAnswer},
    timeframe::Timeframe,
};
use fathom_storage::Sink;
use fathom_transport::{RestClient, TransportError};
use fathom_venues::Venue;
use serde::Serialize;
use tokio::sync::oneshot;

pub use self::caught_up::CaughtUp;
use crate::{
    book::core::poison::tag_of_answer,
    feed::FeedItem,
    gaps::Recall,
    kernel::{Fault, Inbox, Lifeline, Outlet, Service},
    service_actor,
    settings::{HistorySettings, Retry},
    stream::router::Routes,
};

/// Requests under way at once; the budget decides which of them may leave.
const CONCURRENCY: usize = 16;
/// Pages of one series in a catch-up; a longer absence is filled by the history jobs.
const MAX_PAGES: usize = 20;
const TICK: Duration = Duration::from_millis(500);
/// When a series whose cycle was skipped is tried again.
const NEXT_CYCLE: Duration = Duration::from_secs(300);
/// When the store is asked again how far candles are stored.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// A request of a book.
pub struct RestJob {
    /// What to ask.
    pub request: RequestSpec,
    /// How urgent it is.
    pub priority: Priority,
    /// Bound on waiting and asking together.
    pub deadline: Duration,
    /// Who waits. A job whose asker has gone is dropped.
    pub reply: oneshot::Sender<Result<RestAnswer, TransportError>>,
}

/// What the actor can be asked to do.
pub enum HistoryJob {
    /// Ask and answer.
    Rest(RestJob),
    /// Fetch a candle, and those after it, whose last word never came.
    Candle {
        /// Instrument.
        instrument: InstrumentIdx,
        /// Timeframe.
        timeframe: Timeframe,
        /// Its start.
        open_ms: i64,
    },
    /// Catch up with the candles of an instrument that is collected from now on.
    CatchUp {
        /// Instrument.
        instrument: InstrumentIdx,
    },
}

/// What every instance is made from.
#[derive(Clone)]
pub struct HistorySpec {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The market.
    pub market: Market,
    /// REST base.
    pub base: String,
    /// The market's instruments.
    pub table: Arc<ArcSwap<InstrumentTable>>,
    /// Collected timeframes.
    pub timeframes: Arc<[Timeframe]>,
    /// The books' inboxes.
    pub routes: Routes,
    /// Jobs.
    pub jobs: Inbox<HistoryJob>,
    /// The REST client; each instance opens its own connections.
    pub rest: RestClient,
    /// Where the catch-up reads how far each series is stored.
    pub store: Arc<dyn Sink>,
    /// What is fetched, and how.
    pub settings: HistorySettings,
    /// Where it tells which series are caught up.
    pub caught_up: CaughtUp,
    /// What the last process left, in case the start could not read it.
    pub recall: Recall,
}

/// What the actor publishes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct HistoryStatus {
    /// Requests answered with a usable success.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests under way.
    pub under_way: usize,
    /// Candles fetched.
    pub candles: u64,
    /// Candles that could not be read.
    pub rejected: u64,
    /// Series that the catch-up has yet to look at.
    pub catch_up_left: usize,
}

/// One candle series to fetch, from a time on.
#[derive(Clone, Copy, Debug)]
struct Series {
    instrument: InstrumentIdx,
    timeframe: Timeframe,
    from_ms: i64,
    pages: usize,
    priority: Priority,
    failures: u32,
}

/// The end of a series' catch-up, and the start of the last candle that was stored where none came after it.
type End = (InstrumentIdx, Timeframe, Option<i64>);

/// The actor.
pub struct HistoryActor {
    life: Lifeline,
    spec: HistorySpec,
    rest: Option<RestClient>,
    waiting: VecDeque<Series>,
    /// Series of which a book waits for a candle.
    asked: BTreeSet<(InstrumentIdx, Timeframe)>,
    /// Ends of catch-ups that books have yet to be told of.
    ends: VecDeque<End>,
    series_under_way: usize,
    status: HistoryStatus,
}

service_actor!(HistoryActor);

impl HistoryActor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: HistorySpec) -> Self {
        let status = HistoryStatus {
            succeeded: 0,
            failed: 0,
            under_way: 0,
            candles: 0,
            rejected: 0,
            catch_up_left: 0,
        };
        let (waiting, asked, ends) = (VecDeque::new(), BTreeSet::new(), VecDeque::new());
        Self { life, spec, rest: None, waiting, asked, ends, series_under_way: 0, status }
    }

    fn on_job(&mut self, job: HistoryJob, ctx: &mut Context<Self>) {
        match job {
            HistoryJob::Rest(job) => self.ask(job, ctx),
            HistoryJob::Candle { instrument, timeframe, open_ms } => {
                // The book asks again and again until it has it.
                if !self.asked.insert((instrument, timeframe)) {
                    return;
                }
                self.waiting.push_front(Series {
                    instrument,
                    timeframe,
                    from_ms: open_ms,
                    pages: 1,
                    priority: Priority::Live,
                    failures: 0,
                });
            }
            HistoryJob::CatchUp { instrument } => self.catch_up(Some(instrument), ctx),
        }
    }

    fn ask(&mut self, job: RestJob, ctx: &mut Context<Self>) {
        let Some(rest) = self.rest.clone() else { return };
        let base = self.spec.base.clone();
        self.status.under_way += 1;
        let RestJob { request, priority, deadline, mut reply } = job;
        let asking = async move {
            let answer = tokio::select! {
                answer = rest.get(&base, &request, priority, deadline) => answer,
                () = reply.closed() => return None,
            };
            let ok = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            // The asker may have gone in this moment; then nobody needs the answer.
            let _ = reply.send(answer);
            Some(ok)
        };
        ctx.spawn(wrap_future::<_, Self>(asking).map(|ok, actor, _| actor.count(ok)));
    }

    fn count(&mut self, ok: Option<bool>) {
        self.status.under_way -= 1;
        match ok {
            Some(true) => self.status.succeeded += 1,
            Some(false) => self.status.failed += 1,
            None => {}
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        while self.series_under_way < CONCURRENCY / 2 {
            let Some(series) = self.waiting.pop_front() else { break };
            self.fetch(series, ctx);
        }
        self.tell_ends();
        self.status.catch_up_left = self.waiting.len() + self.series_under_way;
        Service::publish(self, self.status);
    }

    fn fetch(&mut self, series: Series, ctx: &mut Context<Self>) {
        let (Some(rest), Some(instrument)) =
            (self.rest.clone(), self.spec.table.load().get(series.instrument).cloned())
        else {
            return self.over(series);
        };
        // Its symbol is not collected any more.
        if self.spec.routes.load().get(series.instrument.0 as usize).is_none_or(Outlet::is_closed) {
            return self.over(series);
        }
        self.series_under_way += 1;
        self.status.under_way += 1;
        let (venue, base, now_ms) =
            (self.spec.venue, self.spec.base.clone(), self.life.clock().now_us() / 1000);
        let page = self.spec.settings.page;
        let life = self.life.clone();
        let asking = async move {
            let request = venue.candles_request(&instrument, series.timeframe, Some(series.from_ms), page);
            let answer = rest.get(&base, &request, series.priority, Duration::from_secs(300)).await;
            let answer = answer.map_err(|error| error.to_string());
            let parse = |answer: &RestAnswer| venue.parse_candles(series.timeframe, answer, now_ms);
            (answer.and_then(|answer| read_page(&life, &answer, parse)), instrument)
        };
        ctx.spawn(wrap_future::<_, Self>(asking).map(move |(answer, instrument), actor, ctx| {
            actor.series_under_way -= 1;
            match answer {
                Ok(parsed) => {
                    actor.count(Some(true));
                    for rejected in &parsed.rejected {
                        tracing::warn!(symbol = %instrument.native, timeframe = %series.timeframe, %rejected, "candle rejected");
                    }
                    actor.status.rejected += parsed.rejected.len() as u64;
                    actor.deliver(series, parsed.rows, parsed.rejected.len(), now_ms);
                }
                Err(error) => actor.series_failed(series, &instrument, &error, ctx),
            }
        }));
    }

    fn series_failed(
        &mut self,
        series: Series,
        instrument: &Instrument,
        error: &str,
        ctx: &mut Context<Self>,
    ) {
        self.count(Some(false));
        let Retry { max, .. } = self.spec.settings.retry;
        let failures = series.failures + 1;
        let retry = format!("{}/{max}", failures.min(max));
        let (after, failures, what) = if failures > max {
            (NEXT_CYCLE, 0, "candles could not be fetched, the cycle is skipped")
        } else {
            (self.spec.settings.retry.after(failures), failures, "candles could not be fetched")
        };
        tracing::warn!(symbol = %instrument.native, timeframe = %series.timeframe, retry, error, "{what}");
        if failures == 0 && series.priority == Priority::Live {
            return self.over(series);
        }
        let again = Series { failures, ..series };
        ctx.run_later(after, move |actor, _| actor.waiting.push_back(again));
    }

    fn deliver(
        &mut self,
        series: Series,
        rows: Vec<fathom_market::event::Candle>,
        rejected: usize,
        now_ms: i64,
    ) {
        let closed: Vec<_> = rows.into_iter().filter(|candle| candle.closed).collect();
        let Some(last) = closed.last() else {
            self.over(series);
            let nothing_came = series.pages == MAX_PAGES && series.priority == Priority::Repair;
            return self.caught_up(series, nothing_came.then_some(series.from_ms - 1));
        };
        let (count, next_ms) = (closed.len(), last.close_ms + 1);
        let routes = self.spec.routes.load_full();
        let Some(outlet) = routes.get(series.instrument.0 as usize) else { return self.over(series) };
        // What follows is found again with this page.
        if outlet.offer(FeedItem::Candles { candles: closed, asked_us: now_ms * 1000 }).is_err() {
            self.waiting.push_back(series);
            return;
        }
        self.over(series);
        self.status.candles += count as u64;
        let next = Series { from_ms: next_ms, pages: series.pages.saturating_sub(1), failures: 0, ..series };
        if count + rejected + 1 < self.spec.settings.page {
            self.caught_up(series, None);
        } else if next.pages > 0 {
            self.waiting.push_back(next);
        }
    }

    /// What a book asked for is answered, or will not be: it may ask again.
    fn over(&mut self, series: Series) {
        if series.priority == Priority::Live {
            self.asked.remove(&(series.instrument, series.timeframe));
        }
    }

    /// The series ends with the present. A single candle fetched for a book says nothing of the rest.
    fn caught_up(&mut self, series: Series, stored_ms: Option<i64>) {
        if series.priority != Priority::Live {
            self.ends.push_back((series.instrument, series.timeframe, stored_ms));
            self.tell_ends();
        }
    }

    /// The book learns the end behind the candles that came before it. One whose inbox is full is told later.
    fn tell_ends(&mut self) {
        let routes = self.spec.routes.load();
        self.ends.retain(|&(instrument, timeframe, stored_ms)| {
            let Some(outlet) = routes.get(instrument.0 as usize).filter(|outlet| !outlet.is_closed()) else {
                self.spec.caught_up.mark(instrument, timeframe);
                return false;
            };
            outlet.offer(FeedItem::CaughtUp { timeframe, stored_ms }).is_err()
        });
    }

    /// Reads what the last process left, where the store was away at the start.
    fn recall(&mut self, ctx: &mut Context<Self>) {
        let (store, recall, now_us) =
            (self.spec.store.clone(), self.spec.recall.clone(), self.life.clock().now_us());
        let reading = async move { recall.read(store.as_ref(), now_us).await };
        ctx.spawn(wrap_future::<_, Self>(reading).map(|read, _, ctx| {
            if read.is_err() {
                ctx.run_later(READ_AGAIN, Self::recall);
            }
        }));
    }

    /// Plans the catch-up of one instrument, or of all.
    fn catch_up(&mut self, only: Option<InstrumentIdx>, ctx: &mut Context<Self>) {
        let store = self.spec.store.clone();
        let reading = async move { store.history().collector_state().await };
        ctx.spawn(wrap_future::<_, Self>(reading).map(move |stored, actor, ctx| match stored {
            Ok(stored) => actor.plan_catch_up(&stored, only),
            Err(error) => {
                tracing::warn!(%error, "the store does not tell how far candles are stored");
                ctx.run_later(READ_AGAIN, move |actor, ctx| actor.catch_up(only, ctx));
            }
        }));
    }

    fn plan_catch_up(
        &mut self,
        stored: &[fathom_market::table::CollectorStateRow],
        only: Option<InstrumentIdx>,
    ) {
        let table = self.spec.table.load_full();
        for (idx, instrument) in table.iter().filter(|(idx, _)| only.is_none_or(|only| only == *idx)) {
            for &timeframe in &*self.spec.timeframes {
                if only.is_some()
                    && self.waiting.iter().any(|one| (one.instrument, one.timeframe) == (idx, timeframe))
                {
                    continue;
                }
                let known = stored
                    .iter()
                    .find(|row| row.instrument_id == instrument.id.0 && row.timeframe == timeframe.as_str())
                    .map(|row| row.last_timestamp_ms + 1);
                let Some(from_ms) = known.or(self.spec.settings.from_ms) else {
                    self.ends.push_back((idx, timeframe, None));
                    continue;
                };
                let priority = if known.is_some() { Priority::Repair } else { Priority::History };
                self.waiting.push_back(Series {
                    instrument: idx,
                    timeframe,
                    from_ms,
                    pages: MAX_PAGES,
                    priority,
                    failures: 0,
                });
            }
        }
    }
}

/// Reads an answer; one that made two instances panic is set aside.
fn read_page<T, E: std::fmt::Display>(
    life: &Lifeline,
    answer: &RestAnswer,
    parse: impl FnOnce(&RestAnswer) -> Result<T, E>,
) -> Result<T, String> {
    let tag = tag_of_answer(&answer.body);
    if life.refuses(tag) {
        return Err("the answer made the actor panic again and again".to_owned());
    }
    let _busy = life.enter_item("candles", tag);
    parse(answer).map_err(|error| error.to_string())
}

impl Service for HistoryActor {
    type Detail = HistoryStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let rest =
            self.spec.rest.with_own_pool().map_err(|error| Fault::new("rest_client", error.to_string()))?;
        self.rest = Some(rest);
        let jobs = self.spec.jobs.stream(&self.life);
        ctx.spawn(wrap_stream(jobs).map(|job, actor: &mut Self, ctx| actor.on_job(job, ctx)).finish());
        ctx.run_interval(TICK, Self::tick);
        if !self.spec.recall.is_read() {
            self.recall(ctx);
        }
        if self.spec.settings.catch_up {
            self.catch_up(None, ctx);
        }
        Ok(())
    }
}
