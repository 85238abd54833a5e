//! The actor of one shard: it keeps its lines open, decodes what they bring and hands it to the books.
//!
//! Reconnecting is its own business and no restart: a lost socket is answered by the line's reconnect machine, and the
//! books are told through their inboxes, in order, that what they have is in doubt. A connection that comes to its end is
//! replaced before it is closed, and so is the actor itself when it hands over to its next instance: the shard's merge
//! ([`merge`]) takes both for as long as both speak.

mod connections;
pub mod gate;
mod handover;
#[cfg(test)]
mod handover_tests;
pub mod line;
#[cfg(test)]
mod line_tests;
pub mod liveness;
pub mod merge;
pub mod outflow;
pub mod reconnect;
mod reshape;
mod rotation;
pub mod router;
pub mod status;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    time::Duration,
};

use actix::{ActorContext, ActorStreamExt, AsyncContext, Context, Message, fut::wrap_stream};
use arc_swap::ArcSwap;
use fathom_market::{
    event::Channel,
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::Endpoints,
};
use fathom_transport::{ClientConfig, UtcClock};
use fathom_venues::{
    Venue,
    planner::{EndpointPlan, ShardPlan},
};

use self::{
    gate::ConnectGate,
    handover::Warming,
    line::{Line, LineSpec},
    merge::LineKey,
    outflow::{Audience, Outflow, OutflowCell},
    rotation::Slot,
    router::Routes,
    status::Role,
};
pub use self::{
    reconnect::ConnectionState,
    status::{LineStatus, ShardStatus},
};
use crate::{
    book::core::boundary_before,
    directory::Directory,
    fanout::LiveEvents,
    feed::{FeedItem, RenewStream},
    kernel::{ExitReason, Fault, Inbox, Lifeline, Service},
    service_actor,
    settings::StreamSettings,
};

const TICK: Duration = Duration::from_millis(100);
/// How long after a minute boundary a quiet shard says that it has passed.
const MARK_LAG_US: i64 = 300_000;
const PUBLISH_EVERY_TICKS: u32 = 5;
const PULSE_EVERY_TICKS: u32 = 10;

/// What every instance of a shard's actor is made from.
#[derive(Clone)]
pub struct ShardSpec {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The market.
    pub market: Market,
    /// Addresses.
    pub endpoints: Endpoints,
    /// The plan in force; [`Reshape`] tells a running instance that it has changed.
    pub plan: Arc<ArcSwap<ShardPlan>>,
    /// The market's instruments; only ever grows.
    pub table: Arc<ArcSwap<InstrumentTable>>,
    /// The books' inboxes.
    pub routes: Routes,
    /// What the instances share while one hands over to the next.
    pub outflow: OutflowCell,
    /// Requests of the books.
    pub renewals: Inbox<RenewStream>,
    /// Live events for whoever listens.
    pub live: Arc<LiveEvents>,
    /// Where the status is published.
    pub status: Arc<ArcSwap<ShardStatus>>,
    /// The gaps that a handover opened are found here.
    pub directory: Arc<Directory>,
    /// Paces the venue's connections.
    pub gate: Arc<ConnectGate>,
    /// TLS of its sockets.
    pub tls: Arc<ClientConfig>,
    /// Reconnecting and silence.
    pub settings: StreamSettings,
    /// Set when the venue says that its list of instruments changed.
    pub listings: Arc<AtomicBool>,
}

/// The actor of one shard.
pub struct StreamActor {
    life: Lifeline,
    spec: ShardSpec,
    plan: Arc<ShardPlan>,
    table: Arc<InstrumentTable>,
    slots: Vec<Slot>,
    outflow: Arc<Mutex<Outflow>>,
    clock: UtcClock,
    symbols: Arc<[String]>,
    last_boundary_ms: i64,
    ticks: u32,
    /// It works beside its predecessor and has not taken over.
    warming: Option<Warming>,
    /// Its successor works beside it.
    succeeded: bool,
}

service_actor!(StreamActor);

impl StreamActor {
    /// A fresh instance: no line is open yet.
    pub fn new(life: Lifeline, spec: ShardSpec) -> Self {
        let now_us = life.clock().now_us();
        let clock = life.clock().clone();
        let (plan, table) = (spec.plan.load_full(), spec.table.load_full());
        let outflow = if life.has_predecessor() {
            spec.outflow.shared()
        } else {
            spec.outflow.fresh(spec.venue, spec.market, spec.routes.clone())
        };
        let warming = life.has_predecessor().then(|| {
            let counters = outflow::locked(&outflow).merge.counters(now_us);
            Warming::new(now_us, counters)
        });
        let mut actor = Self {
            slots: Vec::new(),
            outflow,
            symbols: symbols(&plan, &table),
            last_boundary_ms: boundary_before(now_us),
            ticks: 0,
            clock: Arc::new(move || clock.now_us()),
            warming,
            succeeded: false,
            life,
            spec,
            plan,
            table,
        };
        actor.slots = actor.wanted_lines().into_iter().map(|spec| Slot::new(actor.line(spec))).collect();
        actor
    }

    fn now_us(&self) -> i64 {
        self.life.clock().now_us()
    }

    fn outflow(&self) -> MutexGuard<'_, Outflow> {
        outflow::locked(&self.outflow)
    }

    fn audience(&self) -> Audience<'_> {
        Audience { live: &self.spec.live, table: &self.table }
    }

    /// The lines that the plan asks for.
    fn wanted_lines(&self) -> Vec<LineSpec> {
        let lines = |plan: &EndpointPlan| {
            let letters = ['a', 'b'].into_iter().take(plan.redundancy.lines());
            letters.map(|letter| self.line_spec(plan, letter)).collect::<Vec<_>>()
        };
        self.plan.endpoints.iter().flat_map(lines).collect()
    }

    fn line_spec(&self, plan: &EndpointPlan, letter: char) -> LineSpec {
        let base = self.spec.endpoints.ws.get(plan.class.as_str()).cloned().unwrap_or_default();
        LineSpec { venue: self.spec.venue, market: self.spec.market, base, plan: plan.clone(), letter }
    }

    fn line(&self, spec: LineSpec) -> Line {
        let key = self.new_key();
        let StreamSettings { reconnect, liveness, .. } = self.spec.settings.clone();
        Line::new(spec, key, self.table.clone(), reconnect, liveness, self.now_us())
    }

    fn new_key(&self) -> LineKey {
        self.outflow().merge.enter(self.life.generation())
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        self.ticks = self.ticks.wrapping_add(1);
        self.outflow().expire(now_us, self.audience());
        // Frames that were received before the boundary may still wait to be handled.
        self.mark_boundary(now_us - MARK_LAG_US);
        self.tend_handover(now_us, ctx);
        self.tend_rotations(now_us, ctx);
        if self.ticks.is_multiple_of(PULSE_EVERY_TICKS) {
            self.pulse();
            self.look_for_silence(now_us, ctx);
        }
        if self.ticks.is_multiple_of(PUBLISH_EVERY_TICKS) {
            self.publish();
        }
    }

    /// Tells the own books once that a minute boundary has passed, before anything that was read after it.
    fn mark_boundary(&mut self, now_us: i64) {
        let at_ms = boundary_before(now_us);
        if at_ms > self.last_boundary_ms {
            self.last_boundary_ms = at_ms;
            self.tell_own_books(|| FeedItem::Boundary { at_ms });
        }
    }

    /// Says that the shard lives, and to whom depth flows: a book that has begun anew knows nothing of its line.
    fn pulse(&self) {
        let mut outflow = self.outflow();
        for planned in &self.plan.instruments {
            outflow.router.send(planned.idx, FeedItem::Pulse);
            if outflow.merge.is_carried(planned.idx, Channel::Depth) {
                outflow.router.send(planned.idx, FeedItem::Open { channels: vec![Channel::Depth] });
            }
        }
    }

    fn tell_own_books(&self, item: impl Fn() -> FeedItem) {
        let mut outflow = self.outflow();
        for planned in &self.plan.instruments {
            outflow.router.send(planned.idx, item());
        }
    }

    /// An instance that has not taken over, or has been taken over, leaves the word to the other.
    fn publish(&self) {
        let now_us = self.now_us();
        if self.life.is_fenced() || self.warming.is_some() {
            return;
        }
        let status = self.status(now_us);
        let why: Vec<String> = status
            .lines
            .iter()
            .filter(|line| line.role == Role::Current && line.state != ConnectionState::Connected)
            .map(|line| {
                let end = line.last_end.as_deref().map(|end| format!(": {end}")).unwrap_or_default();
                format!("line {} is {}{end}", line.id, line.state.as_str())
            })
            .collect();
        self.life.degraded(why);
        self.spec.status.store(Arc::new(status.clone()));
        Service::publish(self, status);
    }

    fn status(&self, now_us: i64) -> ShardStatus {
        let outflow = self.outflow();
        let mut lines: Vec<LineStatus> = Vec::new();
        for slot in &self.slots {
            let rotates_us = slot.rotates_us(&self.plan.id, self.spec.settings.rotate_after);
            let tally = outflow.merge.tally(slot.current.key);
            lines.push(slot.current.status(Role::Current, tally, rotates_us, now_us));
            if let Some(next) = &slot.next {
                lines.push(next.status(Role::Next, outflow.merge.tally(next.key), None, now_us));
            }
        }
        let counters = outflow.merge.counters(now_us);
        let best = |of: fn(&LineStatus) -> usize| -> usize {
            let classes = self.plan.endpoints.iter().map(|endpoint| endpoint.class.as_str());
            classes
                .map(|class| lines.iter().filter(|line| line.class == class).map(of).max().unwrap_or(0))
                .sum()
        };
        let current = lines.iter().filter(|line| line.role == Role::Current);
        ShardStatus {
            id: self.plan.id.clone(),
            venue: self.spec.venue.id(),
            market: self.spec.market,
            tier: self.plan.tier.as_str(),
            state: status::worst(current.map(|line| line.state)),
            generation: self.life.generation(),
            symbols: self.symbols.clone(),
            events: self.lines().map(|line| line.seen.events).sum(),
            last_frame_us: lines.iter().filter_map(|line| line.last_frame_us).max(),
            streams: self.plan.endpoints.iter().map(|endpoint| endpoint.streams.len()).sum(),
            streams_live: best(|line| line.streams_live),
            streams_suspect: best(|line| line.streams_suspect),
            duplicates: counters.duplicates,
            gaps: counters.gaps,
            missed: counters.missed,
            held_events: outflow.merge.held(),
            lost_events: outflow.router.lost_total(),
            rejects: summed(self.lines().map(|line| &line.seen.rejects)),
            ignored: summed(self.lines().map(|line| &line.seen.ignored)),
            observed_us: now_us,
            lines,
        }
    }

    /// Every line, those that are to take over included.
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.slots.iter().flat_map(|slot| std::iter::once(&slot.current).chain(&slot.next))
    }
}

impl Service for StreamActor {
    type Detail = ShardStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if self.warming.is_none() {
            self.reset_all("shard_started");
        }
        let keys: Vec<LineKey> = self.lines().map(|line| line.key).collect();
        for key in keys {
            self.connect_later(key, Duration::ZERO, ctx);
        }
        ctx.run_interval(TICK, Self::tick);
        let renewals = self.spec.renewals.stream(&self.life);
        ctx.spawn(
            wrap_stream(renewals).map(|wish, actor: &mut Self, ctx| actor.on_renewal(wish, ctx)).finish(),
        );
        self.publish();
        Ok(())
    }

    /// It takes over once its lines carry everything: see the module `handover`.
    fn on_handover(&mut self, _: &mut Context<Self>) {}

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        let cause = if self.life.is_held() { "shard_paused" } else { "shard_stopped" };
        self.close_all(cause, ctx);
        if !self.life.is_succeeded() {
            self.publish();
        }
        ctx.stop();
    }

    fn on_stop(&mut self, _why: &ExitReason) {
        let lines =
            self.slots.iter_mut().flat_map(|slot| std::iter::once(&mut slot.current).chain(&mut slot.next));
        for line in lines {
            if let Some(session) = line.session.take() {
                session.close();
            }
        }
    }
}

/// Tells a shard that its plan has changed: streams that are new are subscribed, those that are gone unsubscribed, and the
/// others are not touched. False while the shard hands over: it is to be told again afterwards.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct Reshape;

fn symbols(plan: &ShardPlan, table: &InstrumentTable) -> Arc<[String]> {
    let symbols = plan.instruments.iter().filter_map(|planned| table.get(planned.idx));
    symbols.map(|instrument| instrument.native.to_string()).collect()
}

/// The channels of some streams, by instrument.
fn by_instrument(streams: impl Iterator<Item = (InstrumentIdx, Channel)>) -> merge::Uncarried {
    let mut channels = merge::Uncarried::new();
    for (instrument, channel) in streams {
        let known: &mut Vec<Channel> = channels.entry(instrument).or_default();
        if !known.contains(&channel) {
            known.push(channel);
        }
    }
    channels
}

fn summed<'a>(maps: impl Iterator<Item = &'a BTreeMap<&'static str, u64>>) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (reason, count) in maps.flatten() {
        *sum.entry(*reason).or_default() += count;
    }
    sum
}
