//! The actor that asks a venue's REST service, one for each venue and market: snapshots for the books, candles that
//! were missed, the catch-up after a stop. All of it goes through the venue's budget; a book's resync before
//! everything else. Its requests run on its own thread, so that connections outlive the books that asked.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

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
/// When a series whose cycle was skipped is tried again.
const NEXT_CYCLE: Duration = Duration::from_secs(300);
/// When the store is asked again how far candles are stored.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Which candle series have been caught up with the present. Until a series is, its live candles do not move what is
/// known to be stored without a hole.
#[derive(Clone, Debug)]
pub struct CaughtUp(Arc<[AtomicU32]>);

impl CaughtUp {
    /// For this many instruments; `done` where nothing is caught up with at all.
    pub fn new(instruments: usize, done: bool) -> Self {
        let bits = if done { u32::MAX } else { 0 };
        Self((0..instruments).map(|_| AtomicU32::new(bits)).collect())
    }

    /// The series is stored up to now.
    pub fn mark(&self, instrument: InstrumentIdx, timeframe: Timeframe) {
        if let Some(bits) = self.0.get(instrument.0 as usize) {
            bits.fetch_or(Self::bit(timeframe), Relaxed);
        }
    }

    /// True once the series is stored up to the start of its live candles.
    pub fn has(&self, instrument: InstrumentIdx, timeframe: Timeframe) -> bool {
        self.0.get(instrument.0 as usize).is_none_or(|bits| bits.load(Relaxed) & Self::bit(timeframe) != 0)
    }

    fn bit(timeframe: Timeframe) -> u32 {
        Timeframe::ALL.iter().position(|one| *one == timeframe).map_or(0, |at| 1 << at)
    }
}

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
    /// Where it tells which series are caught up.
    pub caught_up: CaughtUp,
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
        let status = HistoryStatus {
            succeeded: 0,
            failed: 0,
            under_way: 0,
            candles: 0,
            rejected: 0,
            catch_up_left: 0,
        };
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
                    for rejected in &parsed.rejected {
                        tracing::warn!(symbol = %instrument.native, timeframe = %series.timeframe, %rejected, "candle rejected");
                    }
                    actor.status.rejected += parsed.rejected.len() as u64;
                    actor.deliver(series, parsed.rows, parsed.rejected.len(), now_ms);
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
        let retry = format!("{}/{max}", failures.min(max));
        let (after, failures, what) = if failures > max {
            (NEXT_CYCLE, 0, "candles could not be fetched, the cycle is skipped")
        } else {
            (self.spec.settings.retry.after(failures), failures, "candles could not be fetched")
        };
        tracing::warn!(symbol = %instrument.native, timeframe = %series.timeframe, retry, error, "{what}");
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
        let Some(last) = closed.last() else { return self.caught_up(series) };
        let (count, next_ms) = (closed.len(), last.close_ms + 1);
        let routes = self.spec.routes.load();
        let Some(outlet) = routes.get(series.instrument.0 as usize) else { return };
        // What follows is found again with this page.
        if outlet.offer(FeedItem::Candles { candles: closed, asked_us: now_ms * 1000 }).is_err() {
            self.waiting.push_back(series);
            return;
        }
        self.status.candles += count as u64;
        let next = Series { from_ms: next_ms, pages: series.pages.saturating_sub(1), failures: 0, ..series };
        if count + rejected + 1 < self.spec.settings.page {
            self.caught_up(series);
        } else if next.pages > 0 {
            self.waiting.push_back(next);
        }
    }

    /// The series ends with the present. A single candle fetched for a book says nothing of the rest.
    fn caught_up(&self, series: Series) {
        if series.priority != Priority::Live {
            self.spec.caught_up.mark(series.instrument, series.timeframe);
        }
    }

    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        let store = self.spec.store.clone();
        let reading = async move { store.history().collector_state().await };
        ctx.spawn(wrap_future::<_, Self>(reading).map(|stored, actor, ctx| match stored {
            Ok(stored) => actor.plan_catch_up(&stored),
            Err(error) => {
                tracing::warn!(%error, "the store does not tell how far candles are stored");
                ctx.run_later(READ_AGAIN, Self::catch_up);
            }
        }));
    }

    fn plan_catch_up(&mut self, stored: &[fathom_market::table::CollectorStateRow]) {
        for (idx, instrument) in self.spec.table.iter() {
            for &timeframe in &*self.spec.timeframes {
                let known = stored
                    .iter()
                    .find(|row| row.instrument_id == instrument.id.0 && row.timeframe == timeframe.as_str())
                    .map(|row| row.last_timestamp_ms + 1);
                let Some(from_ms) = known.or(self.spec.settings.from_ms) else {
                    self.spec.caught_up.mark(idx, timeframe);
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

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use fathom_market::{event::Candle, table::CollectorStateRow};
    use fathom_transport::{RestBudget, TlsConfig};
    use rust_decimal::Decimal;

    use super::*;
    use crate::{
        fixtures::{BINANCE, MINUTE_MS, MINUTE_US, binance, instrument},
        kernel::{Clock, ManualClock, Outlet, Overflow, inbox::bounded},
        system::utc_clock,
        writer::tests::FakeStore,
    };

    const BTC: InstrumentIdx = InstrumentIdx(0);
    const PAGE: usize = 3;

    /// An actor outside of any kernel, and the inbox of its one book, which has room for one item.
    fn actor(from_ms: Option<i64>) -> (HistoryActor, Inbox<FeedItem>) {
        let clock: Clock = ManualClock::new(MINUTE_US).clock();
        let table = ["BTC", "ETH"].map(|base| (*instrument(Market::Spot, base)).clone());
        let (outlet, book): (Outlet<FeedItem>, _) = bounded("feed", 1, Overflow::Fault, &clock);
        let (_, jobs) = bounded("jobs", 1, Overflow::Fault, &clock);
        let utc = utc_clock(&clock);
        let tls = TlsConfig::default().client_config().unwrap();
        let spec = HistorySpec {
            venue: binance(),
            market: Market::Spot,
            base: "http://127.0.0.1:1".into(),
            table: Arc::new(InstrumentTable::new(table).unwrap()),
            timeframes: [Timeframe::M1, Timeframe::H1].into(),
            routes: Arc::new(ArcSwap::from_pointee(vec![outlet])),
            jobs,
            rest: RestClient::new(RestBudget::new(utc.clone()), tls, utc).unwrap(),
            store: Arc::new(FakeStore::default()),
            settings: HistorySettings {
                catch_up: true,
                from_ms,
                page: PAGE,
                retry: Retry { max: 3, delay: Duration::from_secs(1) },
            },
            caught_up: CaughtUp::new(2, false),
        };
        (HistoryActor::new(Lifeline::detached("history", clock), spec), book)
    }

    fn candles(count: i64, closed: i64) -> Vec<Candle> {
        let one = Decimal::ONE;
        let candle = |at: i64| Candle {
            timeframe: Timeframe::M1,
            open_ms: MINUTE_MS + at * 60_000,
            close_ms: MINUTE_MS + at * 60_000 + 59_999,
            open: one,
            high: one,
            low: one,
            close: one,
            volume: one,
            quote_volume: one,
            trades: 1,
            taker_buy_volume: one,
            taker_buy_quote_volume: one,
            closed: at < closed,
        };
        (0..count).map(candle).collect()
    }

    fn series(pages: usize) -> Series {
        Series {
            instrument: BTC,
            timeframe: Timeframe::M1,
            from_ms: MINUTE_MS,
            pages,
            priority: Priority::Repair,
            failures: 2,
        }
    }

    type Planned = (u32, Timeframe, i64, usize);

    fn waiting(actor: &HistoryActor) -> Vec<Planned> {
        actor.waiting.iter().map(|s| (s.instrument.0, s.timeframe, s.from_ms, s.pages)).collect()
    }

    fn stored(native_of: &str, timeframe: &str, last_timestamp_ms: i64) -> CollectorStateRow {
        let instrument_id = instrument(Market::Spot, native_of).id.0;
        let timeframe = timeframe.into();
        CollectorStateRow {
            instrument_id,
            timeframe,
            last_timestamp_ms,
            last_updated_us: 0,
            is_realtime: true,
        }
    }

    #[test]
    fn the_catch_up_goes_on_where_each_series_ends() {
        let state = [stored("ETH", "1m", 500), stored("ETH", "5m", 1), stored("SOL", "1m", 1)];
        let (mut present, _) = actor(None);
        present.plan_catch_up(&state);
        assert_eq!(
            waiting(&present),
            [(1, Timeframe::M1, 501, MAX_PAGES)],
            "what is new begins with the present"
        );

        let (mut past, _) = actor(Some(7));
        past.plan_catch_up(&state);
        let expected = [
            (0, Timeframe::M1, 7, MAX_PAGES),
            (0, Timeframe::H1, 7, MAX_PAGES),
            (1, Timeframe::M1, 501, MAX_PAGES),
            (1, Timeframe::H1, 7, MAX_PAGES),
        ];
        assert_eq!(waiting(&past), expected);
        let repairs = past.waiting.iter().filter(|series| series.priority == Priority::Repair).count();
        assert_eq!(repairs, 1, "a hole goes before the past");
        assert_eq!(past.spec.table.get(BTC).unwrap().venue, BINANCE);
    }

    #[test]
    fn only_closed_candles_are_delivered_and_a_full_page_leads_to_the_next() {
        let (mut actor, book) = actor(None);
        actor.deliver(series(2), candles(3, 2), 0, 99);
        let Some(FeedItem::Candles { candles: delivered, asked_us }) = book.try_recv() else {
            panic!("no candles")
        };
        assert_eq!((delivered, asked_us), (candles(2, 2), 99_000));
        assert_eq!(waiting(&actor), [(0, Timeframe::M1, MINUTE_MS + 120_000, 1)]);
        assert_eq!((actor.status.candles, actor.waiting[0].failures), (2, 0));

        actor.waiting.clear();
        actor.deliver(series(1), candles(3, 3), 0, 99);
        assert_eq!(waiting(&actor), [], "it was its last page");
        assert!(book.try_recv().is_some());
        actor.deliver(series(5), candles(2, 1), 0, 99);
        assert_eq!(waiting(&actor), [], "a page that is not full is the last");
        assert!(book.try_recv().is_some());
        actor.deliver(series(5), candles(1, 0), 0, 99);
        assert_eq!((book.len(), waiting(&actor)), (0, vec![]), "nothing is closed");
    }

    #[test]
    fn a_series_is_caught_up_when_its_last_page_has_been_delivered() {
        let (mut actor, book) = actor(None);
        actor.plan_catch_up(&[stored("BTC", "1m", 500)]);
        let caught_up = actor.spec.caught_up.clone();
        assert!(caught_up.has(BTC, Timeframe::H1), "nothing of it is stored");
        actor.deliver(series(5), candles(3, 3), 0, 99);
        assert!(!caught_up.has(BTC, Timeframe::M1), "a full page is not the last");
        assert!(book.try_recv().is_some());
        let single = Series { priority: Priority::Live, ..series(1) };
        actor.deliver(single, candles(1, 1), 0, 99);
        assert!(!caught_up.has(BTC, Timeframe::M1), "a single candle says nothing of the rest");
        assert!(book.try_recv().is_some());
        actor.deliver(series(4), candles(1, 1), 0, 99);
        assert!(caught_up.has(BTC, Timeframe::M1));
    }

    #[test]
    fn what_the_book_has_no_room_for_is_fetched_again_and_nothing_beside_it() {
        let (mut actor, book) = actor(None);
        actor.deliver(series(1), candles(3, 3), 0, 99);
        actor.deliver(series(5), candles(3, 3), 0, 99);
        assert_eq!((book.len(), waiting(&actor)), (1, vec![(0, Timeframe::M1, MINUTE_MS, 5)]));
        assert_eq!(actor.status.candles, 3, "those that were delivered");
    }
}
