//! What one market needs to be collected, kept outside of every actor: whoever builds its tree can die at any moment, and
//! the next one goes on where it stopped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use fathom_market::{
    ids::{Market, VenueId},
    instrument::{InstrumentIdx, InstrumentTable},
};
use fathom_venues::{
    Venue,
    planner::{MarketPlan, ShardPlan},
};

use crate::{
    feed::{FeedItem, RenewStream},
    history::{CaughtUp, HistoryJob},
    instruments::{Catalogue, Missing},
    kernel::{ActorRef, Clock, Inbox, Outlet, Overflow, inbox::bounded},
    limits::MAX_INSTRUMENTS,
    stream::{ShardStatus, StreamActor, gate::ConnectGate, outflow::OutflowCell, router::Routes},
};

const RENEWALS: usize = 1024;
const HISTORY_JOBS: usize = 4096;

/// The state of one venue and market. Its market supervisor alone changes it; its actors and readers load from it.
pub struct MarketRuntime {
    /// Venue.
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// The instruments, those that were collected once included; only ever grows.
    pub table: Arc<ArcSwap<InstrumentTable>>,
    /// The plan that is wanted.
    pub plan: ArcSwap<MarketPlan>,
    /// Wanted symbols that are not collected.
    pub missing: ArcSwap<Vec<Missing>>,
    /// What the venue lists.
    pub catalogue: ArcSwap<Catalogue>,
    /// The books' inboxes, by instrument index.
    pub routes: Routes,
    /// Which candle series are caught up.
    pub caught_up: CaughtUp,
    /// Requests to the market's REST actor.
    pub jobs: (Outlet<HistoryJob>, Inbox<HistoryJob>),
    /// Paces the venue's connections.
    pub gate: Arc<ConnectGate>,
    shards: Mutex<BTreeMap<Box<str>, Arc<ShardSlot>>>,
    clock: Clock,
}

/// What a shard's instances share.
pub struct ShardSlot {
    /// Its plan in force.
    pub plan: Arc<ArcSwap<ShardPlan>>,
    /// What it publishes.
    pub status: Arc<ArcSwap<ShardStatus>>,
    /// What its instances share while one hands over to the next.
    pub outflow: OutflowCell,
    /// Requests of the books.
    pub renewals: (Outlet<RenewStream>, Inbox<RenewStream>),
    /// Its actor, once it was put under supervision.
    pub actor: ArcSwapOption<ActorRef<StreamActor>>,
    /// What its actor has taken over last.
    pub applied: ArcSwapOption<Applied>,
}

/// A plan and the table that it was read with.
pub struct Applied {
    /// The plan.
    pub plan: Arc<ShardPlan>,
    /// The table.
    pub table: Arc<InstrumentTable>,
}

impl MarketRuntime {
    /// A market of which nothing runs yet. Without a catch-up every candle series counts as caught up.
    pub fn new(
        venue: &dyn Venue,
        market: Market,
        table: InstrumentTable,
        plan: MarketPlan,
        catch_up: bool,
        clock: &Clock,
    ) -> Self {
        let limits = venue.socket_limits(market);
        Self {
            venue: venue.id(),
            market,
            table: Arc::new(ArcSwap::from_pointee(table)),
            plan: ArcSwap::from_pointee(plan),
            missing: ArcSwap::default(),
            catalogue: ArcSwap::default(),
            routes: Routes::default(),
            caught_up: CaughtUp::new(MAX_INSTRUMENTS, !catch_up),
            jobs: bounded("jobs", HISTORY_JOBS, Overflow::Fault, clock),
            gate: Arc::new(ConnectGate::new(limits.connects, limits.connect_window)),
            shards: Mutex::default(),
            clock: clock.clone(),
        }
    }

    /// The slot of a shard, made where there is none.
    pub fn shard(
        &self,
        plan: &Arc<ShardPlan>,
        make: impl FnOnce() -> (ShardStatus, OutflowCell),
    ) -> Arc<ShardSlot> {
        let mut shards = self.shards();
        if let Some(slot) = shards.get(plan.id.as_str()) {
            return slot.clone();
        }
        let (status, outflow) = make();
        let slot = Arc::new(ShardSlot {
            plan: Arc::new(ArcSwap::new(plan.clone())),
            status: Arc::new(ArcSwap::from_pointee(status)),
            outflow,
            renewals: bounded("renewals", RENEWALS, Overflow::DropNewest, &self.clock),
            actor: ArcSwapOption::empty(),
            applied: ArcSwapOption::empty(),
        });
        shards.insert(plan.id.as_str().into(), slot.clone());
        slot
    }

    /// The slots that there are, by shard id.
    pub fn slots(&self) -> Vec<(Box<str>, Arc<ShardSlot>)> {
        self.shards().iter().map(|(id, slot)| (id.clone(), slot.clone())).collect()
    }

    /// Forgets a shard that is over.
    pub fn drop_shard(&self, id: &str) {
        self.shards().remove(id);
    }

    /// Requests to the shards that carry streams of this instrument.
    pub fn renewals_of(&self, idx: InstrumentIdx) -> Arc<[Outlet<RenewStream>]> {
        let plan = self.plan.load();
        let shards = self.shards();
        let carriers = plan.shards.iter().filter(|shard| shard.carries(idx));
        carriers
            .filter_map(|shard| shards.get(shard.id.as_str()))
            .map(|slot| slot.renewals.0.clone())
            .collect()
    }

    /// Routes the events of an instrument to this inbox from now on. Indexes that never had one get a closed inbox.
    pub fn set_route(&self, idx: InstrumentIdx, outlet: Outlet<FeedItem>) {
        let mut routes = Vec::clone(&self.routes.load_full());
        let at = idx.0 as usize;
        while routes.len() <= at {
            routes.push(closed_route(&self.clock));
        }
        routes[at] = outlet;
        self.routes.store(Arc::new(routes));
    }

    /// Events of an instrument reach nobody from now on.
    pub fn close_route(&self, idx: InstrumentIdx) {
        self.set_route(idx, closed_route(&self.clock));
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Arc<ShardSlot>>> {
        // Held for single reads and writes, so a panic elsewhere leaves nothing half done.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed_route(clock: &Clock) -> Outlet<FeedItem> {
    let (outlet, inbox) = bounded("feed", 1, Overflow::Fault, clock);
    inbox.close();
    outlet
}
