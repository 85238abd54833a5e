//! Turns one venue and market into actors: reads its instruments, plans its shards, and puts history, books and shards
//! under supervision. The only actor that knows the whole tree of its market.
//!
//! When it is restarted it finds its children at work and leaves them there.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use actix::{ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_market::{
    batch::Batch,
    ids::VenueId,
    instrument::{Instrument, InstrumentTable},
    plan::Priority,
    table::InstrumentRow,
};
use fathom_storage::Store;
use fathom_transport::RestClient;
use fathom_venues::planner::{MarketPlan, PlanInput, plan};
use rust_decimal::Decimal;
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    board::Boards,
    directory::{Directory, MarketEntry},
    fanout::LiveEvents,
    instruments::{pick, row},
    kernel::{Backoff, Fault, Lifeline, Outlet, Service, Supervisor},
    service_actor,
    settings::{MarketSettings, Settings},
    spawn::{MarketParts, spawn_market},
};

const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// What every instance is made from.
#[derive(Clone)]
pub struct MarketSpec {
    /// Venue, market, symbols, tiers.
    pub market: MarketSettings,
    /// Everything else.
    pub settings: Arc<Settings>,
    /// For the children.
    pub supervisor: Supervisor,
    /// What is found is entered here.
    pub directory: Arc<Directory>,
    /// Minute boards.
    pub boards: Arc<Boards>,
    /// Rows to the writer.
    pub writer: Outlet<Batch>,
    /// Live events.
    pub live: Arc<LiveEvents>,
    /// The store, for the catch-up.
    pub store: Arc<dyn Store>,
    /// The REST client.
    pub rest: RestClient,
}

/// What the actor publishes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MarketDetail {
    /// `reading_instruments`, `planning` or `running`.
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
}

service_actor!(MarketSupervisor);

impl MarketSupervisor {
    /// A fresh instance.
    pub fn new(life: Lifeline, spec: MarketSpec) -> Self {
        Self { life, spec, detail: MarketDetail::default(), backoff: Backoff::default() }
    }

    fn read_instruments(&mut self, ctx: &mut Context<Self>) {
        self.step("reading_instruments");
        let market = self.spec.market.clone();
        let (rest, now_us) = (self.spec.rest.clone(), self.life.clock().now_us());
        let reading = async move {
            let rest = rest.with_own_pool().map_err(|error| error.to_string())?;
            read_listed(&market, &rest, now_us).await
        };
        ctx.spawn(wrap_future::<_, Self>(reading).map(|read, actor, ctx| match read {
            Ok(Listed { instruments, volumes }) => actor.plan(instruments, &volumes, ctx),
            Err(error) => actor.try_again(error, ctx),
        }));
    }

    fn try_again(&mut self, error: String, ctx: &mut Context<Self>) {
        let delay = self.backoff.delay(self.detail.attempts, rand::random());
        self.detail.attempts = self.detail.attempts.saturating_add(1);
        tracing::warn!(venue = %self.venue(), market = %self.spec.market.market, error, retry_ms = delay.as_millis(), "instruments could not be read");
        self.life.degraded(vec![format!("instruments: {error}")]);
        self.detail.last_error = Some(error);
        self.publish_detail();
        ctx.run_later(delay, Self::read_instruments);
    }

    fn plan(&mut self, listed: Vec<Instrument>, volumes: &Volumes, ctx: &mut Context<Self>) {
        self.step("planning");
        let market = &self.spec.market;
        let (mut wanted, missing) = pick(listed, &market.symbols);
        if market.by_volume {
            wanted.sort_by_key(|instrument| Reverse(volumes.get(&*instrument.native).copied()));
        }
        for symbol in &missing {
            tracing::debug!(venue = %market.venue.id(), market = %market.market, symbol, "not listed, skipped");
        }
        match self.make_plan(wanted) {
            Ok((table, plan)) => self.build(table, plan, missing, ctx),
            Err(error) => {
                self.life.fail(ctx, Fault::new("plan", error));
            }
        }
    }

    fn make_plan(&self, wanted: Vec<Instrument>) -> Result<(Arc<InstrumentTable>, MarketPlan), String> {
        let market = &self.spec.market;
        let table = InstrumentTable::new(wanted).map_err(|clash| clash.to_string())?;
        let offered = market.venue.timeframes(market.market);
        let timeframes: Vec<_> = market.timeframes.iter().copied().filter(|t| offered.contains(t)).collect();
        let input = PlanInput {
            venue: market.venue,
            market: market.market,
            table: &table,
            tiers: &market.tiers,
            timeframes: &timeframes,
            raw_trades: market.raw_trades,
            ticker: market.ticker,
        };
        let plan = plan(&input).map_err(|error| error.to_string())?;
        Ok((Arc::new(table), plan))
    }

    fn build(
        &mut self,
        table: Arc<InstrumentTable>,
        plan: MarketPlan,
        missing: Vec<String>,
        ctx: &mut Context<Self>,
    ) {
        let now_us = self.life.clock().now_us();
        self.detail.instruments = table.len();
        self.detail.missing = missing.len();
        self.detail.shards = plan.shards.len();
        self.detail.sockets = plan.sockets();
        tracing::info!(
            venue = %self.venue(), market = %self.spec.market.market, instruments = table.len(), missing = missing.len(),
            shards = plan.shards.len(), sockets = plan.sockets(), snapshot_weight = plan.snapshot_weight, "planned"
        );
        let rows: Vec<InstrumentRow> = table.iter().map(|(_, instrument)| row(instrument)).collect();
        if self.spec.writer.offer(Batch::of(rows)).is_err() {
            return self.try_again("the writer takes no rows".to_owned(), ctx);
        }
        let members = table.iter().map(|(_, instrument)| instrument.clone()).collect();
        if let Some(board) = self.spec.boards.get(self.venue(), self.spec.market.market) {
            board.expect(members, now_us / 1000);
        }
        let parts =
            MarketParts { spec: self.spec.clone(), clock: self.life.clock().clone(), table: table.clone() };
        let shards = plan.shards.clone();
        let entry =
            MarketEntry { venue: self.venue(), market: self.spec.market.market, table, plan, missing };
        ctx.spawn(wrap_future::<_, Self>(spawn_market(parts, shards)).map(|built, actor, ctx| match built {
            Ok(()) => {
                actor.spec.directory.put_market(entry);
                actor.running();
            }
            Err(error) => actor.life.fail(ctx, Fault::new("spawn", error.to_string())),
        }));
    }

    fn running(&mut self) {
        self.detail.attempts = 0;
        self.detail.last_error = None;
        self.life.degraded(Vec::new());
        self.step("running");
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

/// 24 hour quote volumes by native symbol.
type Volumes = FxHashMap<String, Decimal>;

/// What a venue lists; volumes only where they decide the tiers.
struct Listed {
    instruments: Vec<Instrument>,
    volumes: Volumes,
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
    let mut listed = Listed { instruments: parsed.rows, volumes: Volumes::default() };
    if market.by_volume {
        let answer = ask(market.venue.tickers_request(market.market)).await?;
        let tickers =
            market.venue.parse_tickers(market.market, &answer).map_err(|error| error.to_string())?;
        let volumes =
            tickers.rows.into_iter().filter_map(|(native, ticker)| Some((native, ticker.quote_volume?)));
        listed.volumes = volumes.collect();
    }
    Ok(listed)
}

impl Service for MarketSupervisor {
    type Detail = MarketDetail;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        match self.spec.directory.market(self.venue(), self.spec.market.market) {
            Some(entry) => {
                self.detail.instruments = entry.table.len();
                self.detail.shards = entry.plan.shards.len();
                self.detail.sockets = entry.plan.sockets();
                self.running();
            }
            None => self.read_instruments(ctx),
        }
        Ok(())
    }
}
