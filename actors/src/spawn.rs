//! Brings the actors of one market to what its plan wants: history, books, shards.
//!
//! It looks at what is there and does what is missing, so it may be broken off anywhere and begun again, and a change of
//! the plan is the same work as the start. Order: what leaves is stopped and unsubscribed, then new books are put under
//! supervision, then their streams are subscribed. A book that stays is never touched, nor are its streams.

use std::{sync::Arc, time::Duration};

use fathom_market::{
    batch::Batch,
    gap::Gap,
    ids::{Market, VenueId},
    instrument::{Instrument, InstrumentIdx, InstrumentTable},
};
use fathom_venues::planner::{EndpointPlan, MarketPlan, PlannedInstrument, ShardPlan};
use thiserror::Error;

use crate::{
    book::{BookActor, BookLedger, BookSpec},
    directory::{BookCell, BookEntry},
    history::{HistoryActor, HistoryJob, HistorySpec},
    kernel::{
        ActorId, AskError, ChildSpec, Clock, ControlError, Escalation, Kind, Overflow, Placement, SpawnError,
        State, Strategy, inbox::bounded,
    },
    limits,
    market_supervisor::MarketSpec,
    runtime::{Applied, MarketRuntime, ShardSlot},
    stream::{ConnectionState, Reshape, ShardSpec, ShardStatus, StreamActor, outflow::OutflowCell},
};

/// How long an actor has to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// How long a shard has to take over a plan.
const RESHAPE_WITHIN: Duration = Duration::from_secs(5);
const NOT_COLLECTED: &str = "the symbol is not collected any more";
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the actors of a market are made from.
#[derive(Clone)]
pub struct MarketParts {
    /// The market's specification.
    pub spec: MarketSpec,
    /// The clock.
    pub clock: Clock,
    /// Its state.
    pub runtime: Arc<MarketRuntime>,
}

/// Why a plan is not in force yet; trying again goes on from there.
#[derive(Debug, Error)]
pub enum Unsettled {
    /// The kernel takes no more.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// An actor cannot be stopped.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An actor did not stop in its time.
    #[error("{0} does not stop")]
    StillThere(ActorId),
    /// A shard hands over to its next instance; it takes a plan afterwards.
    #[error("shard {0} hands over to its next instance")]
    HandingOver(String),
    /// A shard has not taken its plan over.
    #[error("shard {0} has not taken its plan over: {1}")]
    Shard(String, AskError),
}

/// Brings everything to the plan of the runtime.
///
/// # Errors
/// See [`Unsettled`].
pub async fn converge(parts: &MarketParts) -> Result<(), Unsettled> {
    let work = Work::new(parts);
    work.expect_members();
    let is_first = !work.has_history();
    for (_, slot) in &work.shards {
        work.parts.spec.directory.put_shard(&slot.plan.load().id, slot.status.clone());
    }
    work.stop_books().await?;
    work.stop_shards().await?;
    work.shrink_shards().await?;
    for (shard, _) in &work.shards {
        for planned in &shard.instruments {
            work.ensure_book(shard, *planned, is_first).await?;
        }
        tokio::task::yield_now().await;
    }
    // After the books, so that it finds an inbox for each of them.
    work.ensure_history()?;
    for (shard, slot) in &work.shards {
        work.ensure_shard(shard, slot).await?;
        // One shard after the other, so that a cold start does not open every socket at once.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// One pass: the plan and table as they were when it began.
struct Work<'a> {
    parts: &'a MarketParts,
    runtime: &'a MarketRuntime,
    plan: Arc<MarketPlan>,
    table: Arc<InstrumentTable>,
    shards: Vec<(Arc<ShardPlan>, Arc<ShardSlot>)>,
}

impl<'a> Work<'a> {
    fn new(parts: &'a MarketParts) -> Self {
        let runtime = &*parts.runtime;
        let plan = runtime.plan.load_full();
        let shards = plan.shards.iter().cloned().map(|shard| {
            let shard = Arc::new(shard);
            let slot = runtime.shard(&shard, || {
                let (venue, market) = (parts.spec.market.venue, runtime.market);
                let status = not_started_status(venue.id(), market, &shard, parts.clock.now_us());
                (status, OutflowCell::new(venue, market, runtime.routes.clone()))
            });
            (shard, slot)
        });
        Self { shards: shards.collect(), parts, runtime, plan, table: runtime.table.load_full() }
    }

    /// The board counts on those that are planned and on nobody else.
    fn expect_members(&self) {
        let spec = &self.parts.spec;
        let planned = self.plan.shards.iter().flat_map(|shard| &shard.instruments);
        let members = planned.filter_map(|planned| self.table.get(planned.idx).cloned()).collect();
        if let Some(board) = spec.boards.get(self.runtime.venue, self.runtime.market) {
            board.expect(members, self.parts.clock.now_us() / 1000);
        }
    }

    fn history_id(&self) -> ActorId {
        format!("history/{}/{}", self.runtime.venue, self.runtime.market).into()
    }

    fn has_history(&self) -> bool {
        self.parts.spec.control.actor(&self.history_id()).is_some()
    }

    fn ensure_history(&self) -> Result<(), SpawnError> {
        if self.has_history() {
            return Ok(());
        }
        let (market, settings) = (&self.parts.spec.market, &self.parts.spec.settings);
        let offered = market.venue.timeframes(market.market);
        let timeframes = market.timeframes.iter().copied().filter(|one| offered.contains(one));
        let jobs = &self.runtime.jobs.1;
        let spec = HistorySpec {
            venue: market.venue,
            market: market.market,
            base: market.endpoints.rest.clone(),
            table: self.runtime.table.clone(),
            timeframes: timeframes.collect(),
            routes: self.runtime.routes.clone(),
            jobs: jobs.clone(),
            rest: self.parts.spec.rest.clone(),
            store: self.parts.spec.store.clone(),
            settings: settings.history,
            caught_up: self.runtime.caught_up.clone(),
            recall: self.parts.spec.directory.recall().clone(),
        };
        let child = ChildSpec::builder(self.history_id(), Kind("history"), move |life| {
            HistoryActor::new(life, spec.clone())
        })
        .parent(self.parent().as_str())
        .inbox(jobs);
        self.parts.spec.supervisor.spawn_detached(limits::service(child).build())?;
        Ok(())
    }

    /// Ends the books of symbols that left, changed their shard, or are counted in other units now.
    async fn stop_books(&self) -> Result<(), Unsettled> {
        let directory = &self.parts.spec.directory;
        for entry in directory.books(self.runtime.venue, self.runtime.market) {
            let book = &entry.cell.instrument;
            let idx = self.table.find(&book.native);
            if idx.is_some_and(|idx| self.is_kept(&entry, idx)) {
                continue;
            }
            if let Some(idx) = idx {
                self.runtime.close_route(idx);
            }
            self.stop(entry.actor.id()).await?;
            directory.remove_book(book);
            if idx.and_then(|idx| self.plan.home(idx)).is_none() {
                self.close_ledger(book);
            }
            tracing::info!(venue = %book.venue, market = %book.market, symbol = %book.native, "book ended");
        }
        Ok(())
    }

    /// What is open of a symbol that is not collected any more stays so for good, and is told once.
    fn close_ledger(&self, book: &Instrument) {
        let (directory, writer) = (&self.parts.spec.directory, &self.parts.spec.writer);
        let Some(tracker) = directory.tracker(book.id) else { return };
        let mut tracker = tracker.lock();
        tracker.give_up_all(NOT_COLLECTED, self.now_us());
        let gaps = tracker.take();
        if gaps.is_empty() {
            return;
        }
        let stored = writer.offer(Batch::of(gaps.iter().map(Gap::row))).is_ok();
        for gap in gaps {
            directory.gaps().put(gap.clone());
            if !stored {
                // Told when it is collected again; until then the store shows it as it was.
                tracker.untold(gap);
            }
        }
    }

    fn now_us(&self) -> i64 {
        self.parts.clock.now_us()
    }

    fn is_kept(&self, entry: &BookEntry, idx: InstrumentIdx) -> bool {
        let home = self.plan.home(idx).is_some_and(|(shard, _)| *shard.id == *entry.shard);
        home && self.table.get(idx).is_some_and(|now| same_units(now, &entry.cell.instrument))
    }

    /// Ends the shards that are not planned any more.
    async fn stop_shards(&self) -> Result<(), Unsettled> {
        for (id, _) in self.runtime.slots() {
            if self.shards.iter().any(|(shard, _)| *shard.id == *id) {
                continue;
            }
            self.stop(&actor_of_shard(&id).into()).await?;
            self.parts.spec.directory.remove_shard(&id);
            self.runtime.drop_shard(&id);
            tracing::info!(shard = %id, "shard ended");
        }
        Ok(())
    }

    /// Has shards unsubscribe what left them, and decode in the units that hold now. What is new to them waits until its
    /// book is there.
    async fn shrink_shards(&self) -> Result<(), Unsettled> {
        for (shard, slot) in &self.shards {
            let Some(applied) = slot.applied.load_full() else { continue };
            if !loses(&applied.plan, shard) && self.same_scales(&applied) {
                continue;
            }
            self.reshape(slot, Arc::new(common(&applied.plan, shard))).await?;
        }
        Ok(())
    }

    fn same_scales(&self, applied: &Applied) -> bool {
        let streams = applied.plan.endpoints.iter().flat_map(|endpoint| &endpoint.streams);
        streams.map(|stream| stream.instrument).all(|idx| {
            match (applied.table.get(idx), self.table.get(idx)) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now) || same_units(before, now),
                _ => true,
            }
        })
    }

    async fn ensure_book(
        &self,
        shard: &ShardPlan,
        planned: PlannedInstrument,
        is_first: bool,
    ) -> Result<(), Unsettled> {
        let Some(instrument) = self.table.get(planned.idx).cloned() else { return Ok(()) };
        let directory = &self.parts.spec.directory;
        if directory.has_book(&instrument) {
            return Ok(());
        }
        let id = format!("book/{}/{}/{}", instrument.venue, instrument.market, instrument.native);
        // One whose maker died before it was entered; nobody knows its inbox.
        self.stop(&id.as_str().into()).await?;
        self.fault_point();
        self.spawn_book(id, shard, planned, instrument)?;
        if !is_first && self.parts.spec.settings.history.catch_up {
            self.runtime.caught_up.forget(planned.idx);
            let job = HistoryJob::CatchUp { instrument: planned.idx };
            if self.runtime.jobs.0.offer(job).is_err() {
                tracing::warn!(idx = planned.idx.0, "no room to catch up the candles of a new symbol");
            }
        }
        Ok(())
    }

    fn spawn_book(
        &self,
        id: String,
        shard: &ShardPlan,
        planned: PlannedInstrument,
        instrument: Arc<Instrument>,
    ) -> Result<(), Unsettled> {
        let spec = &self.parts.spec;
        let Some(board) = spec.boards.get(instrument.venue, instrument.market).cloned() else {
            return Ok(());
        };
        let (outlet, inbox) = bounded("feed", spec.settings.book.inbox, Overflow::Fault, &self.parts.clock);
        let cell = Arc::new(BookCell::new(instrument.clone()));
        let mut settings = spec.settings.book.clone();
        settings.stale_after += limits::depth_pace(planned.depth);
        let ledger =
            BookLedger::new(spec.market.venue, &instrument, &settings, spec.directory.clone(), self.now_us());
        let book = BookSpec {
            venue: spec.market.venue,
            instrument,
            ledger,
            idx: planned.idx,
            snapshot_levels: planned.snapshot_levels,
            inbox: inbox.clone(),
            renewals: self.runtime.renewals_of(planned.idx),
            history: self.runtime.jobs.0.clone(),
            caught_up: self.runtime.caught_up.clone(),
            writer: spec.writer.clone(),
            board,
            cell: cell.clone(),
            applied: self.parts.spec.directory.applied().clone(),
            settings,
            depth: spec.settings.depth.clone(),
        };
        let child =
            ChildSpec::builder(id.as_str(), Kind("book"), move |life| BookActor::new(life, book.clone()))
                .parent(actor_of_shard(&shard.id).as_str())
                .placement(Placement::Beside(shard.id.as_str().into()))
                .required(false)
                .group(group_of_shard(&shard.id), Strategy::OneForOne)
                .escalate(Escalation::Parent)
                .inbox(&inbox);
        let actor = spec.supervisor.spawn_detached(limits::book(child).build())?;
        self.runtime.set_route(planned.idx, outlet);
        spec.directory.put_book(BookEntry { cell, actor, shard: shard.id.as_str().into() });
        Ok(())
    }

    async fn ensure_shard(&self, shard: &Arc<ShardPlan>, slot: &Arc<ShardSlot>) -> Result<(), Unsettled> {
        if slot.actor.load().is_none() {
            slot.plan.store(shard.clone());
            self.stop(&actor_of_shard(&shard.id).into()).await?;
            self.fault_point();
            return Ok(self.spawn_shard(shard, slot)?);
        }
        let applied = slot.applied.load_full();
        if applied.is_some_and(|applied| *applied.plan == **shard) {
            return Ok(());
        }
        self.reshape(slot, shard.clone()).await
    }

    fn spawn_shard(&self, shard: &Arc<ShardPlan>, slot: &ShardSlot) -> Result<(), SpawnError> {
        let market = &self.parts.spec.market;
        let spec = ShardSpec {
            venue: market.venue,
            market: market.market,
            endpoints: market.endpoints.clone(),
            plan: slot.plan.clone(),
            table: self.runtime.table.clone(),
            routes: self.runtime.routes.clone(),
            outflow: slot.outflow.clone(),
            directory: self.parts.spec.directory.clone(),
            renewals: slot.renewals.1.clone(),
            live: self.parts.spec.live.clone(),
            status: slot.status.clone(),
            gate: self.runtime.gate.clone(),
            tls: market.tls.clone(),
            settings: self.parts.spec.settings.stream.clone(),
            listings: self.parts.spec.desk.listings.clone(),
        };
        let id = actor_of_shard(&shard.id);
        let child =
            ChildSpec::builder(id.as_str(), Kind("stream"), move |life| StreamActor::new(life, spec.clone()))
                .parent(self.parent().as_str())
                .placement(Placement::Beside(shard.id.as_str().into()))
                .group(group_of_shard(&shard.id), Strategy::OneForOne)
                .inbox(&slot.renewals.1);
        let actor = self.parts.spec.supervisor.spawn_detached(limits::stream(child).build())?;
        slot.actor.store(Some(Arc::new(actor)));
        slot.applied.store(Some(Arc::new(Applied { plan: shard.clone(), table: self.table.clone() })));
        Ok(())
    }

    /// Puts a plan into force and waits until the shard has taken it over. One that is down reads it when it comes up.
    async fn reshape(&self, slot: &ShardSlot, plan: Arc<ShardPlan>) -> Result<(), Unsettled> {
        slot.plan.store(plan.clone());
        let Some(actor) = slot.actor.load_full() else { return Ok(()) };
        let end = tokio::time::Instant::now() + RESHAPE_WITHIN;
        loop {
            match actor.ask(Reshape, RESHAPE_WITHIN).await {
                Ok(true) | Err(AskError::Stopped | AskError::Unavailable { .. }) => break,
                Ok(false) if tokio::time::Instant::now() > end => {
                    return Err(Unsettled::HandingOver(plan.id.clone()));
                }
                Ok(false) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) if tokio::time::Instant::now() > end => {
                    return Err(Unsettled::Shard(plan.id.clone(), error));
                }
                Err(error) => tokio::time::sleep(error.retry_after().unwrap_or(LOOK_AGAIN)).await,
            }
        }
        slot.applied.store(Some(Arc::new(Applied { plan, table: self.table.clone() })));
        Ok(())
    }

    /// Stops an actor for good and waits for its end.
    async fn stop(&self, id: &ActorId) -> Result<(), Unsettled> {
        let control = &self.parts.spec.control;
        let end = tokio::time::Instant::now() + STOP_WITHIN;
        let mut asked = false;
        while control.actor(id).is_some_and(|actor| actor.state != State::Stopped) {
            if !asked {
                match control.stop(id, &self.parent(), "not planned any more") {
                    Ok(_) => asked = true,
                    Err(ControlError::OperationRunning { .. }) => {}
                    Err(ControlError::NotFound(_)) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            if tokio::time::Instant::now() > end {
                return Err(Unsettled::StillThere(id.clone()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    fn parent(&self) -> String {
        market_id(self.runtime.venue.as_str(), self.runtime.market.as_str())
    }

    /// Where tests make the one who builds the tree die.
    #[allow(clippy::unused_self, reason = "does nothing outside of tests")]
    fn fault_point(&self) {
        #[cfg(test)]
        self.parts.spec.fault.pass();
    }
}

/// True when numbers of both mean the same.
fn same_units(one: &Instrument, other: &Instrument) -> bool {
    let units = |of: &Instrument| (of.price_scale, of.qty_scale, of.contract_size);
    units(one) == units(other)
}

/// True when the shard carries something now that it is not to carry.
fn loses(now: &ShardPlan, wanted: &ShardPlan) -> bool {
    common(now, wanted) != *now
}

/// What both plans of a shard hold, in the form of the first.
fn common(now: &ShardPlan, wanted: &ShardPlan) -> ShardPlan {
    let endpoints = now.endpoints.iter().filter_map(|line| {
        let kept = wanted.endpoints.iter().find(|wanted| wanted.class == line.class)?;
        let streams: Vec<_> = line.streams.iter().filter(|one| kept.streams.contains(one)).cloned().collect();
        (!streams.is_empty()).then(|| EndpointPlan { streams, ..line.clone() })
    });
    let instruments = now.instruments.iter().filter(|one| wanted.instruments.contains(one));
    ShardPlan {
        id: now.id.clone(),
        tier: now.tier,
        instruments: instruments.copied().collect(),
        endpoints: endpoints.collect(),
    }
}

/// The id of a market's supervisor.
pub fn market_id(venue: &str, market: &str) -> String {
    format!("venue/{venue}/{market}")
}

/// The id of the actor of a shard.
pub fn actor_of_shard(shard: &str) -> String {
    format!("shard/{shard}")
}

/// A shard and its books. Each of them is restarted alone; the group is for operators, who may restart it as a whole.
fn group_of_shard(shard: &str) -> String {
    format!("shard/{shard}")
}

/// The status of a shard whose actor has not been started.
pub fn not_started_status(venue: VenueId, market: Market, shard: &ShardPlan, now_us: i64) -> ShardStatus {
    ShardStatus {
        id: shard.id.clone(),
        venue,
        market,
        tier: shard.tier.as_str(),
        state: ConnectionState::Disconnected,
        generation: 0,
        symbols: Arc::new([]),
        lines: Vec::new(),
        events: 0,
        last_frame_us: None,
        streams: 0,
        streams_live: 0,
        streams_suspect: 0,
        duplicates: 0,
        gaps: 0,
        missed: 0,
        held_events: 0,
        lost_events: 0,
        rejects: Default::default(),
        ignored: Default::default(),
        observed_us: now_us,
    }
}
