//! Builds the tree, from the bottom up, and takes it down again in the opposite order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fathom_delivery::Cache;
use fathom_market::{
    category::CategoryRule,
    ids::{Market, VenueId},
};
use fathom_storage::{Sink, StoreError};
use fathom_transport::{BudgetStatus, RestBudget, RestClient, TransportError, UtcClock};
use thiserror::Error;

use crate::{
    aggregator::{AggregatorActor, AggregatorSpec, Fold},
    board::{Boards, MinuteBoard},
    directory::Directory,
    fanout::{Fanout, LiveEvents},
    kernel::{
        ActorRef, ChildSpec, Clock, Control, Escalation, Kernel, KernelConfig, Kind, NoSystem, Outlet,
        Overflow, Placement, ShutdownReport, SpawnError, Supervisor, inbox::bounded,
    },
    limits,
    market_supervisor::{MarketSpec, MarketSupervisor},
    operator::{Errand, OperatorActor, OperatorSpec},
    redis,
    settings::Settings,
    spawn::market_id,
    symbols::Symbols,
    writer::{
        RetentionActor, RollupActor, RowSink, WriterActor, WriterSpec,
        account::Account,
        drain::{DrainActor, DrainSpec},
        pending::Pending,
    },
};

/// How long the start waits to know how far the last process came.
const RECALL_WITHIN: Duration = Duration::from_secs(2);
/// Errands that may wait.
const ERRANDS: usize = 64;

/// Why the tree could not be built.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no actix system.
    #[error(transparent)]
    NoSystem(#[from] NoSystem),
    /// The kernel takes no more actors.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// TLS or the REST client could not be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The accounts of the last process could not be read.
    #[error("accounts of the store: {0}")]
    Store(#[from] StoreError),
}

/// The running tree.
pub struct MarketSystem {
    kernel: Kernel,
    clock: Clock,
    directory: Arc<Directory>,
    boards: Arc<Boards>,
    live: Arc<LiveEvents>,
    budget: RestBudget,
    store: Arc<dyn Sink>,
    settings: Arc<Settings>,
    errands: Outlet<Errand>,
    cache: Option<Cache>,
    aggregators: BTreeMap<(Market, Box<str>), ActorRef<AggregatorActor>>,
    symbols: Symbols,
}

impl MarketSystem {
    /// Builds the tree: writer and upkeep, aggregators, then one supervisor for each market, which builds the rest as
    /// soon as it knows the venue's instruments.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        settings: Settings,
        kernel_config: KernelConfig,
        store: Arc<dyn Sink>,
    ) -> Result<Self, StartError> {
        let clock = kernel_config.clock.clone();
        let kernel = Kernel::start(kernel_config)?;
        let settings = Arc::new(settings);
        let utc = utc_clock(&clock);
        let budget = budgets(&settings, &utc);
        let boards = Arc::new(boards(&settings));
        let directory = Arc::new(Directory::default());
        let live = Arc::new(Fanout::new(clock.clone()));
        recall(&directory, &store, &clock).await;
        let supervisor = kernel.supervisor();
        let control = kernel.control();
        let symbols = Symbols::new(
            &settings.markets,
            settings.symbols_file.clone(),
            directory.clone(),
            control.operation_log().clone(),
            clock.clone(),
        );
        let writer = spawn_writer(&supervisor, &settings, &store, &directory, &clock).await?;
        let errands = spawn_operator(&kernel, &directory, &clock)?;
        let cache = settings.redis.clone().map(|config| redis::spawn(&supervisor, config, &directory));
        let cache = cache.transpose()?;
        let aggregators = spawn_aggregators(&supervisor, &settings, &boards, &directory, &writer)?;
        for market in &settings.markets {
            let Some(desk) = symbols.desk(market.venue.id(), market.market).cloned() else { continue };
            let spec = MarketSpec {
                desk,
                symbols: symbols.clone(),
                control: control.clone(),
                #[cfg(test)]
                fault: Default::default(),
                market: market.clone(),
                settings: settings.clone(),
                supervisor: supervisor.clone(),
                directory: directory.clone(),
                boards: boards.clone(),
                writer: writer.clone(),
                live: live.clone(),
                store: store.clone(),
                rest: RestClient::new(budget.clone(), market.tls.clone(), utc.clone())?,
            };
            let id = market_id(market.venue.id().as_str(), market.market.as_str());
            let child = ChildSpec::builder(id.as_str(), Kind("venue"), move |life| {
                MarketSupervisor::new(life, spec.clone())
            })
            // It reads megabytes of listings now and then, which no shard has to wait for.
            .placement(Placement::Dedicated)
            .escalate(Escalation::Below);
            supervisor.spawn_detached(limits::service(child).build())?;
        }
        Ok(Self {
            kernel,
            clock,
            directory,
            boards,
            live,
            budget,
            store,
            settings,
            errands,
            cache,
            aggregators,
            symbols,
        })
    }

    /// Commands and health.
    pub fn control(&self) -> Control {
        self.kernel.control()
    }

    /// What is collected.
    pub const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Which symbols are collected, and how that is changed.
    pub const fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// Takes what operators ask for and what takes several steps.
    pub const fn errands(&self) -> &Outlet<Errand> {
        &self.errands
    }

    /// What may be read faster than from the store; `None` where no server is configured.
    pub const fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// Minute boards.
    pub const fn boards(&self) -> &Arc<Boards> {
        &self.boards
    }

    /// Live events.
    pub const fn live(&self) -> &Arc<LiveEvents> {
        &self.live
    }

    /// The store.
    pub const fn store(&self) -> &Arc<dyn Sink> {
        &self.store
    }

    /// The settings.
    pub const fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The clock.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The REST budgets.
    pub fn budgets(&self) -> Vec<BudgetStatus> {
        self.budget.status()
    }

    /// The aggregator of a market's category, by its exact name.
    pub fn aggregator(&self, market: Market, category: &str) -> Option<&ActorRef<AggregatorActor>> {
        self.aggregators.get(&(market, category.into()))
    }

    /// Returns once the supervisor could not be kept alive: the process has to end.
    pub async fn lost(&self) {
        self.kernel.lost().await;
    }

    /// Stops everything in the reverse order of its start: shards, books, aggregators, the writer last, after it has
    /// written what waits. Then closes the store.
    pub async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        let report = self.kernel.supervisor().shutdown(grace).await;
        self.store.close().await;
        report
    }
}

/// Reads how far the last process came, before this one writes anything. A store that does not answer is asked again
/// while collecting goes on.
async fn recall(directory: &Directory, store: &Arc<dyn Sink>, clock: &Clock) {
    let reading = directory.recall().read(store.as_ref(), clock.now_us());
    match tokio::time::timeout(RECALL_WITHIN, reading).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store does not tell how far the last process came"),
        Err(_) => tracing::warn!("the store does not tell in time how far the last process came"),
    }
}

/// The process's clock as the transport wants it.
pub fn utc_clock(clock: &Clock) -> UtcClock {
    let clock = clock.clone();
    Arc::new(move || clock.now_us())
}

fn budgets(settings: &Settings, utc: &UtcClock) -> RestBudget {
    let budget = RestBudget::new(utc.clone());
    for market in &settings.markets {
        match fathom_transport::rest::host_key(&market.endpoints.rest) {
            Ok(host) => {
                budget.configure(&host, market.venue.budget_rules(market.market), market.budget_ceiling)
            }
            Err(error) => tracing::error!(%error, "REST address of {} {}", market.venue.id(), market.market),
        }
    }
    budget
}

fn boards(settings: &Settings) -> Boards {
    let boards =
        settings.markets.iter().map(|market| Arc::new(MinuteBoard::new(market.venue.id(), market.market)));
    Boards::new(boards.collect(), settings.depth.stablecoins.clone())
}

async fn spawn_writer(
    supervisor: &Supervisor,
    settings: &Arc<Settings>,
    store: &Arc<dyn Sink>,
    directory: &Arc<Directory>,
    clock: &Clock,
) -> Result<RowSink, StartError> {
    let opening = store.accounts().open().await?;
    let account = Arc::new(Account::new(settings.writer.limits));
    account.open(&opening);
    let (outlet, inbox) = bounded("rows", settings.writer.inbox, Overflow::Fault, clock);
    let spec = WriterSpec {
        inbox: inbox.clone(),
        waiting: Arc::new(Mutex::new(Pending::new(settings.writer.flush, opening.epoch))),
        account: account.clone(),
        store: store.clone(),
        directory: directory.clone(),
        settings: settings.writer.clone(),
    };
    if store.drain().is_some() {
        let spec = DrainSpec { store: store.clone(), account: account.clone() };
        let child =
            ChildSpec::builder("drain", Kind("drain"), move |life| DrainActor::new(life, spec.clone()));
        supervisor.spawn_detached(limits::service(child.placement(Placement::Dedicated)).build())?;
    }
    let child =
        ChildSpec::builder("writer", Kind("writer"), move |life| WriterActor::new(life, spec.clone()))
            .placement(Placement::Dedicated)
            .stop_grace(Duration::from_secs(20))
            .inbox(&inbox);
    supervisor.spawn(limits::writer(child).build()).await?;
    let (of_actor, upkeep) = (store.clone(), settings.writer.clone());
    let child = ChildSpec::builder("retention", Kind("retention"), move |life| {
        RetentionActor::new(life, of_actor.clone(), upkeep.clone())
    })
    .required(false);
    supervisor.spawn_detached(limits::service(child).build())?;
    let (of_actor, upkeep) = (store.clone(), settings.writer.clone());
    let child = ChildSpec::builder("rollup", Kind("rollup"), move |life| {
        RollupActor::new(life, of_actor.clone(), upkeep.clone())
    })
    .required(false);
    supervisor.spawn_detached(limits::service(child).build())?;
    Ok(RowSink::new(outlet, account))
}

fn spawn_operator(
    kernel: &Kernel,
    directory: &Arc<Directory>,
    clock: &Clock,
) -> Result<Outlet<Errand>, SpawnError> {
    let (outlet, inbox) = bounded("errands", ERRANDS, Overflow::Fault, clock);
    let spec = OperatorSpec::new(inbox.clone(), kernel.control(), directory.clone());
    let child =
        ChildSpec::builder("operator", Kind("operator"), move |life| OperatorActor::new(life, spec.clone()))
            .inbox(&inbox)
            .required(false);
    kernel.supervisor().spawn_detached(limits::service(child).build())?;
    Ok(outlet)
}

type Aggregators = BTreeMap<(Market, Box<str>), ActorRef<AggregatorActor>>;

fn spawn_aggregators(
    supervisor: &Supervisor,
    settings: &Arc<Settings>,
    boards: &Arc<Boards>,
    directory: &Arc<Directory>,
    writer: &RowSink,
) -> Result<Aggregators, SpawnError> {
    let mut aggregators = BTreeMap::new();
    for market in markets(settings) {
        let categories = settings.depth.categories.iter().cloned().map(Fold::Category);
        for fold in categories.chain([Fold::Pairs]) {
            let name: Box<str> = match &fold {
                Fold::Category(CategoryRule { name, .. }) => name.clone(),
                Fold::Pairs => "COIN".into(),
            };
            let spec = AggregatorSpec {
                fold,
                market,
                boards: boards.clone(),
                directory: directory.clone(),
                writer: writer.clone(),
                depth: settings.depth.clone(),
            };
            let id = format!("aggregator/{market}/{name}");
            let child = ChildSpec::builder(id.as_str(), Kind("aggregator"), move |life| {
                AggregatorActor::new(life, spec.clone())
            });
            aggregators.insert((market, name), supervisor.spawn_detached(limits::aggregator(child).build())?);
        }
    }
    Ok(aggregators)
}

fn markets(settings: &Settings) -> Vec<Market> {
    Market::ALL
        .into_iter()
        .filter(|market| settings.markets.iter().any(|one| one.market == *market))
        .collect()
}

/// The venues collected, without repeats.
pub fn venues(settings: &Settings) -> Vec<VenueId> {
    let mut venues: Vec<VenueId> = settings.markets.iter().map(|market| market.venue.id()).collect();
    venues.sort_unstable();
    venues.dedup();
    venues
}
