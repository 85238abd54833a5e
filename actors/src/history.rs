//! The actor that asks a venue's REST service, one for each venue and market: snapshots for the books, candles that
//! were missed, the catch-up after a stop. All of it goes through the venue's budget; a book's resync before
//! everything else. Its requests run on its own thread, so that connections outlive the books that asked.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{
    ActorFutureExt, ActorStreamExt, AsyncContext, Context,
    fut::{wrap_future, wrap_stream},
};
use fathom_market::{
    ids::Market,
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
    plan::{Priority, RequestSpec, RestAnswer},
    timeframe::Timeframe,
};
use fathom_storage::Store;
use fathom_transport::{RestClient, TransportError};
use fathom_venues::Venue;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    feed::FeedItem,
    kernel::{Fault, Inbox, Lifeline, Service},
    service_actor,
    settings::{HistorySettings, Retry},
    stream::router::Routes,
};

/// Requests under way at once; the budget decides which of them may leave.
const CONCURRENCY: usize = 16;
/// Pages of one series in a catch-up; a longer absence is filled by the history jobs.
const MAX_PAGES: usize = 20;
const TICK: Duration = Duration::from_millis(500);

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
    pub table: Arc<InstrumentTable>,
    /// Collected timeframes.
    pub timeframes: Arc<[Timeframe]>,
    /// The books' inboxes.
    pub routes: Routes,
    /// Jobs.
    pub jobs: Inbox<HistoryJob>,
    /// The REST client; each instance opens its own connections.
    pub rest: RestClient,
    /// Where the catch-up reads how far each series is stored.
    pub store: Arc<dyn Store>,
    /// What is fetched, and how.
    pub settings: HistorySettings,
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

/// The actor.
pub struct HistoryActor {
    life: Lifeline,
    spec: HistorySpec,
    rest: Option<RestClient>,
    waiting: VecDeque<Series>,
    series_under_way: usize,
    status: HistoryStatus,
}

service_actor!(HistoryActor);

impl HistoryActor {
    /// A fresh instance.
    pub const fn new(life: Lifeline, spec: HistorySpec) -> Self {
        let status = HistoryStatus { succeeded: 0, failed: 0, under_way: 0, candles: 0, catch_up_left: 0 };
        Self { life, spec, rest: None, waiting: VecDeque::new(), series_under_way: 0, status }
    }

    fn on_job(&mut self, job: HistoryJob, ctx: &mut Context<Self>) {
        match job {
            HistoryJob::Rest(job) => self.ask(job, ctx),
            HistoryJob::Candle { instrument, timeframe, open_ms } => {
                self.waiting.push_front(Series {
                    instrument,
                    timeframe,
                    from_ms: open_ms,
                    pages: 1,
                    priority: Priority::Live,
                    failures: 0,
                });
            }
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
        self.status.catch_up_left = self.waiting.len() + self.series_under_way;
        Service::publish(self, self.status);
    }

    fn fetch(&mut self, series: Series, ctx: &mut Context<Self>) {
        let (Some(rest), Some(instrument)) =
            (self.rest.clone(), self.spec.table.get(series.instrument).cloned())
        else {
            return;
        };
        self.series_under_way += 1;
        self.status.under_way += 1;
        let (venue, base, now_ms) =
            (self.spec.venue, self.spec.base.clone(), self.life.clock().now_us() / 1000);
        let page = self.spec.settings.page;
        let asking = async move {
            let request = venue.candles_request(&instrument, series.timeframe, Some(series.from_ms), page);
            let answer = rest.get(&base, &request, series.priority, Duration::from_secs(300)).await;
            (answer.map(|answer| venue.parse_candles(series.timeframe, &answer, now_ms)), instrument)
        };
        ctx.spawn(wrap_future::<_, Self>(asking).map(move |(answer, instrument), actor, ctx| {
            actor.series_under_way -= 1;
            match answer {
                Ok(Ok(parsed)) => {
                    actor.count(Some(true));
                    actor.deliver(series, parsed.rows, now_ms);
                }
                Ok(Err(error)) => actor.series_failed(series, &instrument, &error.to_string(), ctx),
                Err(error) => actor.series_failed(series, &instrument, &error.to_string(), ctx),
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
        let retry = format!("{failures}/{max}");
        tracing::warn!(symbol = %instrument.native, timeframe = %series.timeframe, retry, error, "candles could not be fetched");
        if failures <= max {
            let again = Series { failures, ..series };
            ctx.run_later(self.spec.settings.retry.after(failures), move |actor, _| {
                actor.waiting.push_back(again)
            });
        }
    }

    fn deliver(&mut self, series: Series, rows: Vec<fathom_market::event::Candle>, now_ms: i64) {
        let closed: Vec<_> = rows.into_iter().filter(|candle| candle.closed).collect();
        let Some(last) = closed.last() else { return };
        let next = Series {
            from_ms: last.close_ms + 1,
            pages: series.pages.saturating_sub(1),
            failures: 0,
            ..series
        };
        self.status.candles += closed.len() as u64;
        if closed.len() + 1 >= self.spec.settings.page && next.pages > 0 {
            self.waiting.push_back(next);
        }
        let routes = self.spec.routes.load();
        let Some(outlet) = routes.get(series.instrument.0 as usize) else { return };
        if outlet.offer(FeedItem::Candles { candles: closed, asked_us: now_ms * 1000 }).is_err() {
            self.waiting.push_back(series);
        }
    }

    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        let store = self.spec.store.clone();
        let reading = async move { store.history().collector_state().await };
        ctx.spawn(wrap_future::<_, Self>(reading).map(|stored, actor, _| match stored {
            Ok(stored) => actor.plan_catch_up(&stored),
            Err(error) => tracing::warn!(%error, "the store does not tell how far candles are stored"),
        }));
    }

    fn plan_catch_up(&mut self, stored: &[fathom_market::table::CollectorStateRow]) {
        for (idx, instrument) in self.spec.table.iter() {
            for &timeframe in &*self.spec.timeframes {
                let known = stored
                    .iter()
                    .find(|row| row.instrument_id == instrument.id.0 && row.timeframe == timeframe.as_str())
                    .map(|row| row.last_timestamp_ms + 1);
                let Some(from_ms) = known.or(self.spec.settings.from_ms) else { continue };
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
        if self.spec.settings.catch_up {
            self.catch_up(ctx);
        }
        Ok(())
    }
}
