//! The actor that keeps the cache and speaks on the channels of Redis.
//!
//! What is made waits in bounded queues, of which the newest of each key is kept, and goes out in pipelines: one under way
//! at a time, with a deadline. While the server is away, hung or refuses, what comes is thrown away and counted, and
//! attempts are made for ever, behind a breaker. Nobody waits for this actor.

pub mod status;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{ActorContext, ActorFutureExt, AsyncContext, Context, fut::wrap_future};
use fathom_delivery::{Cache, Commands, Composer, Failure, Link, Live, RedisConfig, live::LiveTick};
use fathom_market::{batch::Batch, instrument::Instrument, table::Table};

pub use self::status::RedisStatus;
use crate::{
    derived::Accepted,
    directory::Directory,
    kernel::{
        Backoff, Breaker, BreakerSpec, BreakerState, ChildSpec, Fault, Inbox, Kind, Lifeline, Overflow,
        Placement, Service, SpawnError, Supervisor, Threshold, clock::micros,
    },
    limits, service_actor,
};

/// The actor's id.
pub const ID: &str = "delivery/redis";

/// Keys that may wait: instruments, by their book, statistics, and the open and the closed candle of each timeframe.
const LIVE_KEYS: usize = 16_384;
const ACCEPTED_BATCHES: usize = 256;
const TICKS: usize = 16_384;
/// What one pipeline takes at most of each.
const LIVE_AT_ONCE: usize = 2000;
const BATCHES_AT_ONCE: usize = 16;
const TICKS_AT_ONCE: usize = 4000;
/// How often the server is written to when there is nothing to say.
const ALIVE_EVERY_US: i64 = 1_000_000;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
const BREAKER_MIN: Duration = Duration::from_secs(5);
const FAILURES: Threshold = Threshold { failures: 3, window: Duration::from_secs(60) };
/// What the kernel grants beyond the deadlines of the connection before it takes the instance for stuck.
const GRACE: Duration = Duration::from_secs(10);

/// What every instance is made from.
#[derive(Clone)]
pub struct RedisSpec {
    /// What it is told.
    pub config: RedisConfig,
    /// What readers share with it.
    pub cache: Cache,
    /// Books, candles and statistics.
    pub live: Inbox<Arc<Live>>,
    /// Rows that were accepted.
    pub accepted: Inbox<Accepted>,
    /// Ticks, where their rings are mirrored.
    pub ticks: Option<Inbox<Arc<LiveTick>>>,
    /// Which instruments there are.
    pub directory: Arc<Directory>,
}

impl RedisSpec {
    /// Listens from now on; `None` when too many do.
    pub fn new(config: RedisConfig, directory: &Arc<Directory>) -> Option<Self> {
        let derived = directory.derived();
        let mirrored = config.ttl.ticks.is_some();
        let ticks = mirrored.then(|| derived.ticks.subscribe("ticks", TICKS, Overflow::DropOldest));
        Some(Self {
            live: derived.live.subscribe("live", LIVE_KEYS, Overflow::Conflate(|live| live.key()))?,
            accepted: derived.accepted.subscribe("accepted", ACCEPTED_BATCHES, Overflow::DropOldest)?,
            ticks: match ticks {
                Some(inbox) => Some(inbox?),
                None => None,
            },
            cache: Cache::new(config.clone()),
            directory: directory.clone(),
            config,
        })
    }
}

/// Puts the actor under supervision and gives what readers ask.
///
/// # Errors
/// When the kernel takes no more actors.
pub fn spawn(
    supervisor: &Supervisor,
    config: RedisConfig,
    directory: &Arc<Directory>,
) -> Result<Cache, SpawnError> {
    let cache = Cache::new(config.clone());
    let Some(spec) = RedisSpec::new(config, directory) else { return Ok(cache) };
    let cache = spec.cache.clone();
    supervisor.spawn_detached(child(spec))?;
    Ok(cache)
}

fn child(spec: RedisSpec) -> ChildSpec<RedisActor> {
    let (live, accepted, ticks) = (spec.live.clone(), spec.accepted.clone(), spec.ticks.clone());
    let child = ChildSpec::builder(ID, Kind("delivery"), move |life| RedisActor::new(life, spec.clone()))
        .placement(Placement::Dedicated)
        .required(false)
        .inbox(&live)
        .inbox(&accepted);
    let child = match &ticks {
        Some(ticks) => child.inbox(ticks),
        None => child,
    };
    limits::service(child).build()
}

/// The actor.
pub struct RedisActor {
    life: Lifeline,
    spec: RedisSpec,
    composer: Composer,
    link: Option<Link>,
    breaker: Breaker,
    backoff: Backoff,
    status: RedisStatus,
    /// An attempt or a pipeline is under way.
    busy: bool,
    draining: bool,
    retry_us: i64,
    alive_us: i64,
    /// Batches that had been dropped when it was last looked.
    dropped: u64,
}

service_actor!(RedisActor);

impl RedisActor {
    /// A fresh instance without a connection.
    pub fn new(life: Lifeline, spec: RedisSpec) -> Self {
        let open = BreakerSpec::try_new(BREAKER_MIN, RETRY_MAX).unwrap_or_default();
        let backoff = Backoff::try_new(RETRY_MIN, RETRY_MAX, 2, RETRY_MAX).unwrap_or_default();
        Self {
            composer: Composer::new(spec.config.clone()),
            status: RedisStatus::new(spec.config.address.shown()),
            breaker: Breaker::new(FAILURES, open),
            dropped: spec.accepted.gauge().health().dropped_total,
            link: None,
            backoff,
            busy: false,
            draining: false,
            retry_us: 0,
            alive_us: 0,
            life,
            spec,
        }
    }

    fn now_us(&self) -> i64 {
        self.life.clock().now_us()
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if !self.busy {
            match self.link.clone() {
                Some(link) => self.flush(link, ctx),
                None => self.attempt(ctx),
            }
        }
        self.publish();
    }

    /// Without a connection: what has come is of no use later, and now and then another is tried.
    fn attempt(&mut self, ctx: &mut Context<Self>) {
        self.discard();
        let now_us = self.now_us();
        if now_us < self.retry_us {
            return;
        }
        self.status.state = "connecting";
        let (config, mut alive) = (self.spec.config.clone(), Commands::default());
        self.composer.alive(now_us / 1000, &mut alive);
        // A server that takes no writes is not connected, whatever it says to a greeting.
        let connecting = async move {
            let link = Link::connect(&config).await?;
            link.send(&alive).await?;
            Ok(link)
        };
        let within = self.spec.config.connect_within + self.spec.config.answer_within;
        self.run("connect", within, connecting, ctx, Self::connected);
    }

    fn connected(&mut self, outcome: Result<Link, Failure>) {
        let now_us = self.now_us();
        match outcome {
            Ok(link) => {
                // Dropped before this: of no meaning for what is written from here on.
                self.discard();
                self.has_dropped();
                self.spec.cache.opened(link.clone(), format!("since:{now_us}"));
                self.link = Some(link);
                self.alive_us = now_us;
                tracing::info!(server = self.spec.config.address.shown(), "connected to Redis");
                self.succeeded(now_us);
            }
            Err(failure) => self.failed(&failure),
        }
    }

    fn flush(&mut self, link: Link, ctx: &mut Context<Self>) {
        let commands = self.compose();
        if commands.is_empty() {
            return;
        }
        let (started_us, within) = (self.now_us(), self.spec.config.answer_within);
        let sending = async move { link.send(&commands).await.map(|()| commands) };
        self.run("send", within, sending, ctx, move |actor, outcome| match outcome {
            Ok(commands) => actor.sent(&commands, started_us),
            Err(failure) => actor.failed(&failure),
        });
    }

    fn compose(&mut self) -> Commands {
        let now_us = self.now_us();
        let (now_ms, mut out) = (now_us / 1000, Commands::default());
        if self.has_dropped() {
            self.spec.cache.doubt();
        }
        for _ in 0..BATCHES_AT_ONCE {
            match self.spec.accepted.try_recv() {
                Some(Accepted::Rows(batch)) => self.add_rows(&batch, now_ms, &mut out),
                Some(Accepted::SetAside(Table::CategorySnapshots | Table::SymbolSnapshots)) => {
                    self.spec.cache.doubt();
                }
                Some(Accepted::SetAside(_)) => {}
                None => break,
            }
        }
        let live = std::iter::from_fn(|| self.spec.live.try_recv()).take(LIVE_AT_ONCE);
        live.for_each(|live| self.composer.live(&live, &mut out));
        if let Some(inbox) = &self.spec.ticks {
            let ticks = std::iter::from_fn(|| inbox.try_recv()).take(TICKS_AT_ONCE);
            let ticks: Vec<LiveTick> = ticks.map(|tick| LiveTick::clone(&tick)).collect();
            self.composer.ticks(&ticks, now_ms, &mut out);
        }
        if now_us - self.alive_us >= ALIVE_EVERY_US {
            self.alive_us = now_us;
            self.composer.alive(now_ms, &mut out);
        }
        out
    }

    /// Whether batches of rows were dropped since it was last asked.
    fn has_dropped(&mut self) -> bool {
        let dropped = self.spec.accepted.gauge().health().dropped_total;
        std::mem::replace(&mut self.dropped, dropped) != dropped
    }

    fn add_rows(&self, batch: &Batch, now_ms: i64, out: &mut Commands) {
        let pairs = batch.table() == Table::SymbolSnapshots && self.spec.config.pairs;
        let instruments = if pairs { instruments(&self.spec.directory) } else { HashMap::new() };
        let find = |id: i64| instruments.get(&id).cloned();
        self.composer.rows(batch, find, &self.spec.cache, now_ms, out);
    }

    /// Takes what waits and throws it away; which candle was the last is remembered.
    fn discard(&mut self) {
        let mut discarded = 0;
        while let Some(live) = self.spec.live.try_recv() {
            self.composer.note(&live);
            discarded += 1;
        }
        while self.spec.accepted.try_recv().is_some() {
            discarded += 1;
        }
        if let Some(ticks) = &self.spec.ticks {
            while ticks.try_recv().is_some() {
                discarded += 1;
            }
        }
        self.status.discarded += discarded;
    }

    fn sent(&mut self, commands: &Commands, started_us: i64) {
        let now_us = self.now_us();
        // One that was dropped may have stood between two of these commands.
        if self.has_dropped() {
            self.spec.cache.doubt();
        } else {
            self.spec.cache.wrote(commands);
        }
        self.status.sent(commands.len(), commands.messages(), now_us - started_us);
        self.succeeded(now_us);
    }

    fn succeeded(&mut self, now_us: i64) {
        self.breaker.on_success(now_us);
        self.status.settled();
    }

    fn failed(&mut self, failure: &Failure) {
        let now_us = self.now_us();
        self.link = None;
        self.spec.cache.closed();
        self.breaker.on_failure(now_us);
        let wait = micros(self.backoff.delay(self.status.failures_in_a_row, rand::random()));
        self.retry_us = match self.breaker.state(now_us) {
            BreakerState::Open { until_us } => until_us.max(now_us + wait),
            _ => now_us + wait,
        };
        let retry_in_ms = (self.retry_us - now_us) / 1000;
        tracing::warn!(%failure, retry_in_ms, "Redis is not to be had; collecting goes on");
        self.status.failed(failure);
    }

    /// Runs work that has a deadline, one at a time.
    fn run<T: 'static>(
        &mut self,
        name: &'static str,
        within: Duration,
        work: impl Future<Output = T> + 'static,
        ctx: &mut Context<Self>,
        done: impl FnOnce(&mut Self, T) + 'static,
    ) {
        self.busy = true;
        let zone = (self.life.protect(within + GRACE), self.life.enter(name));
        let working = async move {
            let outcome = work.await;
            drop(zone);
            outcome
        };
        ctx.spawn(wrap_future::<_, Self>(working).map(move |outcome, actor, ctx| {
            actor.busy = false;
            done(actor, outcome);
            actor.go_on(ctx);
        }));
    }

    /// After a pipeline: at once to the next, where more waits than one takes.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.publish();
        if self.draining {
            return ctx.stop();
        }
        let more = self.spec.live.len() >= LIVE_AT_ONCE || !self.spec.accepted.is_empty();
        if let Some(link) = self.link.clone().filter(|_| more) {
            self.flush(link, ctx);
        }
    }

    fn publish(&mut self) {
        let now_us = self.now_us();
        self.status.breaker = self.breaker.state(now_us);
        let wait_us = (self.retry_us - now_us).max(0);
        self.status.retry_in_ms = (self.link.is_none() && !self.busy).then_some(wait_us / 1000);
        self.status.cache = self.spec.cache.figures();
        self.life.degraded(self.status.why());
        Service::publish(self, self.status.clone());
    }
}

/// The instruments that there are, by id.
fn instruments(directory: &Directory) -> HashMap<i64, Arc<Instrument>> {
    let markets = directory.markets();
    let all = markets.iter().flat_map(|market| market.table.iter());
    all.map(|(_, instrument)| (instrument.id.0, instrument.clone())).collect()
}

impl Service for RedisActor {
    type Detail = RedisStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        // What an instance before this one had in hand may be missing.
        self.spec.cache.closed();
        ctx.run_interval(self.spec.config.flush_every, Self::tick);
        self.tick(ctx);
        Ok(())
    }

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        self.draining = true;
        if !self.busy {
            ctx.stop();
        }
    }
}
