//! Keeps one venue and market as it is wanted: reads what the venue lists, plans, and has the plan brought about. It reads
//! anew now and then, at once when the venue says that something changed, and plans anew when operators say so.
//!
//! Everything that it knows stands in the market's runtime, so that its successor goes on where it died.

pub mod replan;
#[cfg(test)]
pub(crate) mod tests;
pub mod tiers;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_market::{
    batch::Batch, ids::VenueId, instrument::Instrument, plan::Priority, table::InstrumentRow,
};
use fathom_storage::{Refusal, Sink};
use fathom_transport::RestClient;
use fathom_venues::planner::MarketPlan;
use serde::Serialize;

use self::{
    replan::{Inputs, Planned, Volumes},
    tiers::Rising,
};
use crate::{
    board::Boards,
    directory::{BookEntry, Directory, MarketEntry},
    fanout::LiveEvents,
    instruments::Catalogue,
    kernel::{Backoff, Control, ExitReason, Fault, Lifeline, Service, Supervisor, clock::micros},
    runtime::MarketRuntime,
    service_actor,
    settings::{MarketSettings, Settings},
    spawn::{MarketParts, Unsettled, converge},
    symbols::{Desk, Symbols},
    writer::RowSink,
};

const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(250);
/// However often the venue says that its list changed, it is not read more often.
const NUDGED_EVERY_US: i64 = 2_000_000;
/// When a plan that could not be brought about is tried again.
const SETTLE_AGAIN_US: i64 = 1_000_000;
/// Readings differ by up to this part of their interval, so that markets do not read together.
const JITTER: f64 = 0.1;

/// What every instance is made from.
#[derive(Clone)]
pub struct MarketSpec {
    /// Venue, market, symbols, tiers.
    pub market: MarketSettings,
    /// Everything else.
    pub settings: Arc<Settings>,
    /// For the children.
    pub supervisor: Supervisor,
    /// For ending them.
    pub control: Control,
    /// What is wanted of this market.
    pub desk: Arc<Desk>,
    /// What operators asked for.
    pub symbols: Symbols,
    /// What is found is entered here.
    pub directory: Arc<Directory>,
    /// Minute boards.
    pub boards: Arc<Boards>,
    /// Rows to the writer.
    pub writer: RowSink,
    /// Live events.
    pub live: Arc<LiveEvents>,
    /// The store, for the catch-up.
    pub store: Arc<dyn Sink>,
    /// The REST client.
    pub rest: RestClient,
    /// Where building is broken off.
    #[cfg(test)]
    pub(crate) fault: tests::FaultPoint,
}

/// What the actor publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MarketDetail {
    /// `reading_instruments`, `building` or `running`.
    pub step: &'static str,
    /// Attempts to read the instruments.
    pub attempts: u32,
    /// Instruments collected.
    pub instruments: usize,
    /// Wanted symbols that the venue lacks.
    pub missing: usize,
    /// Shards.
    pub shards: usize,
    /// Sockets.
    pub sockets: usize,
    /// The last error.
    pub last_error: Option<String>,
}

/// The actor.
pub struct MarketSupervisor {
    life: Lifeline,
    spec: MarketSpec,
    detail: MarketDetail,
    backoff: Backoff,
    rising: Rising,
    /// A reading or a build is under way.
    busy: bool,
    /// The plan has still to be brought about.
    unsettled: bool,
    /// What is wanted in the version that the plan holds.
    version: u64,
    read_us: i64,
    next_read_us: i64,
    next_build_us: i64,
    /// The last reading lacked most of what is collected.
    doubted: bool,
    /// Rows that the writer has not taken yet; they are counted once, as waiting.
    untaken: VecDeque<Batch>,
}

service_actor!(MarketSupervisor);

impl MarketSupervisor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: MarketSpec) -> Self {
        Self {
            life,
            spec,
            detail: MarketDetail::default(),
            backoff: Backoff::default(),
            rising: Rising::default(),
            busy: false,
            unsettled: false,
            version: 0,
            read_us: 0,
            next_read_us: 0,
            next_build_us: 0,
            doubted: false,
            untaken: VecDeque::new(),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.spec.symbols.settle();
        self.hand_over();
        if self.busy {
            return;
        }
        let now_us = self.life.clock().now_us();
        let listings = &self.spec.desk.listings;
        let is_nudged = listings.load(Relaxed) && now_us >= self.read_us + NUDGED_EVERY_US;
        let Some(runtime) = self.runtime() else {
            if now_us >= self.next_read_us {
                self.read(ctx);
            }
            return;
        };
        if self.spec.desk.is_due() && self.version < self.spec.desk.wanted().0 {
            return self.replan(&runtime, None, ctx);
        }
        if self.unsettled {
            if now_us >= self.next_build_us {
                self.build(runtime, ctx);
            }
            return;
        }
        if is_nudged || now_us >= self.next_read_us {
            listings.store(false, Relaxed);
            self.read(ctx);
        }
    }

    fn runtime(&self) -> Option<Arc<MarketRuntime>> {
        self.spec.directory.runtime(self.venue(), self.spec.market.market)
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        if self.runtime().is_none() {
            self.step("reading_instruments");
        }
        let now_us = self.life.clock().now_us();
        self.read_us = now_us;
        let (market, rest) = (self.spec.market.clone(), self.spec.rest.clone());
        let reading = async move {
            let rest = rest.with_own_pool().map_err(|error| error.to_string())?;
            read_listed(&market, &rest, now_us).await
        };
        ctx.spawn(wrap_future::<_, Self>(reading).map(|read, actor, ctx| {
            actor.busy = false;
            match read {
                Ok(listed) => actor.listed(listed, ctx),
                Err(error) => actor.unread(error),
            }
        }));
    }

    fn unread(&mut self, error: String) {
        let delay = self.backoff.delay(self.detail.attempts, rand::random());
        self.detail.attempts = self.detail.attempts.saturating_add(1);
        self.next_read_us = self.life.clock().now_us() + micros(delay);
        tracing::warn!(venue = %self.venue(), market = %self.spec.market.market, error, retry_ms = delay.as_millis(), "instruments could not be read");
        if self.runtime().is_none() {
            self.life.degraded(vec![format!("instruments: {error}")]);
        }
        self.detail.last_error = Some(error);
        self.publish_detail();
    }

    fn listed(&mut self, listed: Listed, ctx: &mut Context<Self>) {
        self.detail.attempts = 0;
        self.detail.last_error = None;
        let jitter = 1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0);
        self.next_read_us = self.read_us + micros(self.spec.market.refresh_every.mul_f64(jitter));
        let catalogue = Arc::new(Catalogue::new(listed.instruments));
        match self.runtime() {
            Some(runtime) => {
                if let Some(error) = self.doubt(&runtime, &catalogue) {
                    return self.unread(error);
                }
                runtime.catalogue.store(catalogue);
                self.replan(&runtime, listed.volumes.as_ref(), ctx);
            }
            None => self.first_plan(&catalogue, listed.volumes.as_ref(), ctx),
        }
    }

    /// A reading in which most of what is collected is gone is believed when the next one says the same.
    fn doubt(&mut self, runtime: &MarketRuntime, catalogue: &Catalogue) -> Option<String> {
        let collected = self.spec.directory.books(runtime.venue, runtime.market);
        let is_gone = |entry: &&BookEntry| catalogue.trading(&entry.cell.instrument.native).is_err();
        let gone = collected.iter().filter(is_gone).count();
        let was_doubted = std::mem::replace(&mut self.doubted, gone > 3 && gone * 2 > collected.len());
        (self.doubted && !was_doubted)
            .then(|| format!("{gone} of {} symbols are gone at once", collected.len()))
    }

    fn first_plan(&mut self, catalogue: &Arc<Catalogue>, volumes: Option<&Volumes>, ctx: &mut Context<Self>) {
        let (version, wishes) = self.spec.desk.wanted();
        let planned = replan::first(&self.inputs(&wishes, catalogue, volumes));
        let Planned { table, plan, missing, rows, .. } = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.life.fail(ctx, Fault::new("plan", error));
                return;
            }
        };
        for missing in &missing {
            tracing::debug!(venue = %self.venue(), market = %self.spec.market.market, symbol = missing.symbol, missing.reason, "skipped");
        }
        tracing::info!(
            venue = %self.venue(), market = %self.spec.market.market, instruments = table.len(), missing = missing.len(),
            shards = plan.shards.len(), sockets = plan.sockets(), snapshot_weight = plan.snapshot_weight, "planned"
        );
        self.store(rows);
        let (market, catch_up) = (&self.spec.market, self.spec.settings.history.catch_up);
        let clock = self.life.clock();
        let runtime = MarketRuntime::new(market.venue, market.market, table, plan, catch_up, clock);
        runtime.missing.store(Arc::new(missing));
        runtime.catalogue.store(catalogue.clone());
        let runtime = Arc::new(runtime);
        self.spec.directory.put_runtime(runtime.clone());
        self.version = version;
        self.build(runtime, ctx);
    }

    /// Plans anew with what is wanted and listed now.
    fn replan(&mut self, runtime: &Arc<MarketRuntime>, volumes: Option<&Volumes>, ctx: &mut Context<Self>) {
        let (version, wishes) = self.spec.desk.wanted();
        let (table, plan) = (runtime.table.load_full(), runtime.plan.load_full());
        let catalogue = runtime.catalogue.load_full();
        let mut rising = std::mem::take(&mut self.rising);
        let inputs = self.inputs(&wishes, &catalogue, volumes);
        let Planned { table: new_table, plan: new_plan, missing, rows, news } =
            replan::next(&table, &plan, &inputs, &mut rising);
        self.rising = rising;
        if !rows.is_empty() {
            self.store(rows);
            runtime.table.store(Arc::new(new_table));
        }
        for news in &news {
            tracing::info!(venue = %self.venue(), market = %self.spec.market.market, news, "symbols changed");
        }
        runtime.missing.store(Arc::new(missing));
        self.version = version;
        if new_plan != *plan || !Arc::ptr_eq(&table, &runtime.table.load()) || self.spec.desk.is_due() {
            runtime.plan.store(Arc::new(new_plan));
            self.build(runtime.clone(), ctx);
        } else {
            self.enter(runtime);
        }
    }

    /// Has facts stored; collecting does not wait for it.
    fn store(&mut self, rows: Vec<InstrumentRow>) {
        if rows.is_empty() {
            return;
        }
        let batch = Batch::of(rows);
        self.spec.writer.account().made(batch.table(), batch.len() as u64, batch.bytes());
        self.untaken.push_back(batch);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(batch) = self.untaken.pop_front() {
            if let Err(batch) = self.spec.writer.hand(batch) {
                return self.untaken.push_front(batch);
            }
        }
    }

    fn inputs<'a>(
        &'a self,
        wishes: &'a [crate::symbols::wishes::Wish],
        catalogue: &'a Catalogue,
        volumes: Option<&'a Volumes>,
    ) -> Inputs<'a> {
        let now_us = self.life.clock().now_us();
        Inputs { market: &self.spec.market, wishes, catalogue, volumes, now_us }
    }

    /// Brings the plan about.
    fn build(&mut self, runtime: Arc<MarketRuntime>, ctx: &mut Context<Self>) {
        (self.busy, self.unsettled) = (true, true);
        self.step("building");
        self.enter(&runtime);
        let parts = MarketParts { spec: self.spec.clone(), clock: self.life.clock().clone(), runtime };
        let building = async move { converge(&parts).await };
        ctx.spawn(wrap_future::<_, Self>(building).map(|built, actor, _| actor.built(built)));
    }

    fn built(&mut self, built: Result<(), Unsettled>) {
        self.busy = false;
        match built {
            Ok(()) => {
                self.unsettled = false;
                self.spec.desk.settle(self.version);
                self.life.degraded(Vec::new());
                self.step("running");
            }
            Err(error) => {
                tracing::warn!(venue = %self.venue(), market = %self.spec.market.market, %error, "the plan is not in force yet");
                self.life.degraded(vec![error.to_string()]);
                self.detail.last_error = Some(error.to_string());
                self.next_build_us = self.life.clock().now_us() + SETTLE_AGAIN_US;
                self.publish_detail();
            }
        }
    }

    /// Tells readers what is planned.
    fn enter(&mut self, runtime: &MarketRuntime) {
        let (table, plan) = (runtime.table.load_full(), runtime.plan.load_full());
        let missing: Vec<String> = runtime.missing.load().iter().map(|one| one.symbol.clone()).collect();
        self.detail.instruments = plan.instruments();
        self.detail.missing = missing.len();
        self.detail.shards = plan.shards.len();
        self.detail.sockets = plan.sockets();
        let (venue, market) = (runtime.venue, runtime.market);
        let plan = MarketPlan::clone(&plan);
        self.spec.directory.put_market(MarketEntry { venue, market, table, plan, missing });
        self.publish_detail();
    }

    fn step(&mut self, step: &'static str) {
        self.detail.step = step;
        self.publish_detail();
    }

    fn publish_detail(&self) {
        Service::publish(self, self.detail.clone());
    }

    fn venue(&self) -> VenueId {
        self.spec.market.venue.id()
    }
}

/// What a venue lists; volumes only where they decide the tiers.
struct Listed {
    instruments: Vec<Instrument>,
    volumes: Option<Volumes>,
}

async fn read_listed(market: &MarketSettings, rest: &RestClient, now_us: i64) -> Result<Listed, String> {
    let ask = async |request| {
        let answer = rest.get(&market.endpoints.rest, &request, Priority::Live, REQUEST_DEADLINE).await;
        answer.map_err(|error| error.to_string())
    };
    let answer = ask(market.venue.instruments_request(market.market)).await?;
    let parsed =
        market.venue.parse_instruments(market.market, &answer, now_us).map_err(|error| error.to_string())?;
    for rejected in parsed.rejected.iter().take(10) {
        tracing::warn!(%rejected, "instrument rejected");
    }
    let mut listed = Listed { instruments: parsed.rows, volumes: None };
    if market.by_volume {
        let answer = ask(market.venue.tickers_request(market.market)).await?;
        let tickers =
            market.venue.parse_tickers(market.market, &answer).map_err(|error| error.to_string())?;
        let volumes =
            tickers.rows.into_iter().filter_map(|(native, ticker)| Some((native, ticker.quote_volume?)));
        listed.volumes = Some(volumes.collect());
    }
    Ok(listed)
}

impl Service for MarketSupervisor {
    type Detail = MarketDetail;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if self.runtime().is_some() {
            // What was planned is there, perhaps not all of it built.
            self.unsettled = true;
            self.read_us = self.life.clock().now_us();
            self.next_read_us = self.read_us + micros(self.spec.market.refresh_every);
        }
        ctx.run_interval(TICK, Self::tick);
        self.tick(ctx);
        Ok(())
    }

    fn on_stop(&mut self, _why: &ExitReason) {
        self.hand_over();
        for batch in self.untaken.drain(..) {
            self.spec.writer.account().refuse_outside(&batch, Refusal::SenderLost);
        }
    }
}
