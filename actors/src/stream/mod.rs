//! The actor of one shard: it keeps its lines open, decodes what they bring and hands it to the books.
//!
//! Reconnecting is its own business and no restart: a lost socket is answered by the line's reconnect machine, and the
//! books are told through their inboxes, in order, that what they have is in doubt.

pub mod gate;
pub mod line;
#[cfg(test)]
mod line_tests;
pub mod liveness;
pub mod reconnect;
pub mod router;
pub mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    ActorContext, ActorFutureExt, ActorStreamExt, AsyncContext, Context, SpawnHandle,
    fut::{wrap_future, wrap_stream},
};
use arc_swap::ArcSwap;
use fathom_market::{
    event::{Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::Endpoints,
};
use fathom_transport::{
    ClientConfig, FrameBatch, Session, SessionEnd, SessionEvent, TransportError, UtcClock, ws,
};
use fathom_venues::{Venue, planner::ShardPlan};
use futures_util::StreamExt;

use self::{
    gate::ConnectGate,
    line::{Line, LineSpec, Notices, Sink},
    liveness::Remedy,
    router::{Router, Routes},
};
pub use self::{
    reconnect::ConnectionState,
    status::{LineStatus, ShardStatus},
};
use crate::{
    book::core::boundary_before,
    fanout::{LiveEvent, LiveEvents},
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
    /// The plan.
    pub plan: Arc<ShardPlan>,
    /// The market's instruments.
    pub table: Arc<InstrumentTable>,
    /// The books' inboxes.
    pub routes: Routes,
    /// Requests of the books.
    pub renewals: Inbox<RenewStream>,
    /// Live events for whoever listens.
    pub live: Arc<LiveEvents>,
    /// Where the status is published.
    pub status: Arc<ArcSwap<ShardStatus>>,
    /// Paces the venue's connections.
    pub gate: Arc<ConnectGate>,
    /// TLS of its sockets.
    pub tls: Arc<ClientConfig>,
    /// Reconnecting and silence.
    pub settings: StreamSettings,
}

/// The actor of one shard.
pub struct StreamActor {
    life: Lifeline,
    spec: ShardSpec,
    lines: Vec<Line>,
    tasks: Vec<Option<SpawnHandle>>,
    router: Router,
    clock: UtcClock,
    symbols: Arc<[String]>,
    last_boundary_ms: i64,
    ticks: u32,
}

service_actor!(StreamActor);

impl StreamActor {
    /// A fresh instance: no line is open yet.
    pub fn new(life: Lifeline, spec: ShardSpec) -> Self {
        let now_us = life.clock().now_us();
        let clock = life.clock().clone();
        let symbols = spec.plan.instruments.iter().filter_map(|planned| spec.table.get(planned.idx));
        Self {
            lines: lines(&spec, now_us),
            tasks: Vec::new(),
            router: Router::new(spec.routes.clone()),
            symbols: symbols.map(|instrument| instrument.native.to_string()).collect(),
            last_boundary_ms: boundary_before(now_us),
            ticks: 0,
            clock: Arc::new(move || clock.now_us()),
            life,
            spec,
        }
    }

    fn now_us(&self) -> i64 {
        self.life.clock().now_us()
    }

    fn connect_later(&mut self, at: usize, delay: Duration, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let wanted_us = now_us + reconnect::as_micros(delay);
        let wait_us = self.spec.gate.reserve(wanted_us) - now_us;
        let wait = Duration::from_micros(wait_us.unsigned_abs());
        self.tasks[at] = Some(ctx.run_later(wait, move |actor, ctx| actor.connect(at, ctx)));
    }

    fn connect(&mut self, at: usize, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let connect = self.lines[at].open(self.spec.settings.liveness, now_us);
        let connection = self.lines[at].connection;
        let opening = ws::connect(connect, self.spec.tls.clone(), self.clock.clone());
        let task = wrap_future::<_, Self>(opening)
            .map(move |opened, actor, ctx| actor.opened(at, connection, opened, ctx));
        self.tasks[at] = Some(ctx.spawn(task));
        self.publish();
    }

    fn opened(
        &mut self,
        at: usize,
        connection: u64,
        opened: Result<Session, TransportError>,
        ctx: &mut Context<Self>,
    ) {
        if self.lines[at].connection != connection {
            return;
        }
        let session = match opened {
            Ok(session) => session,
            Err(error) => return self.ended(at, error.to_string(), ctx),
        };
        self.lines[at].session = Some(session.handle());
        let events = wrap_stream::<_, Self>(session.fuse())
            .map(move |event, actor: &mut Self, ctx| actor.on_session(at, connection, event, ctx))
            .finish();
        self.tasks[at] = Some(ctx.spawn(events));
    }

    fn on_session(&mut self, at: usize, connection: u64, event: SessionEvent, ctx: &mut Context<Self>) {
        if self.lines[at].connection != connection {
            return;
        }
        match event {
            SessionEvent::Frames(batch) => self.on_frames(at, &batch, ctx),
            SessionEvent::Warn(warning) => {
                tracing::info!(shard = %self.spec.plan.id, line = %self.lines[at].id(), ?warning, "connection nears its end");
                self.replace(at, "life_limit", ctx);
            }
            SessionEvent::Ended(end) => self.ended(at, end_words(&end), ctx),
        }
    }

    fn on_frames(&mut self, at: usize, batch: &FrameBatch, ctx: &mut Context<Self>) {
        let _busy = self.life.enter("frames");
        if self.lines[at].carries_depth() {
            self.mark_boundary(batch.recv_us);
        }
        let line = &mut self.lines[at];
        let before = line.events();
        let mut sink = BookSink { router: &mut self.router, live: &self.spec.live, table: &self.spec.table };
        let notices = line.read(batch.frames.iter().map(AsRef::as_ref), batch.recv_us, &mut sink);
        self.router.flush();
        if line.events() > before {
            self.delivered(at, batch.recv_us);
        }
        self.heed(at, notices, ctx);
    }

    fn delivered(&mut self, at: usize, now_us: i64) {
        self.life.fresh();
        let line = &mut self.lines[at];
        if line.reconnect.state() == ConnectionState::Connected {
            return;
        }
        line.reconnect.delivered(now_us);
        if let Some(session) = &line.session {
            session.data_seen();
        }
        tracing::info!(shard = %self.spec.plan.id, line = %line.id(), connection = line.connection, "connected");
        for (instrument, channels) in line.carries() {
            self.router.send(instrument, FeedItem::Open { channels });
        }
        self.publish();
    }

    fn heed(&mut self, at: usize, notices: Notices, ctx: &mut Context<Self>) {
        for message in &notices.refused {
            tracing::warn!(shard = %self.spec.plan.id, line = %self.lines[at].id(), message, "the venue refused a request");
        }
        if notices.closing_soon {
            self.replace(at, "server_shutdown", ctx);
        }
    }

    /// A planned end of a connection: the next one is opened at once.
    fn replace(&mut self, at: usize, cause: &'static str, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        self.close(at, cause, ctx);
        self.lines[at].reconnect.replaced(now_us);
        self.connect_later(at, Duration::ZERO, ctx);
    }

    fn ended(&mut self, at: usize, why: String, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        self.close(at, "connection_lost", ctx);
        let delay = self.lines[at].reconnect.ended(now_us, rand::random());
        let line = &mut self.lines[at];
        tracing::warn!(
            shard = %self.spec.plan.id, line = %line.id(), why, state = line.reconnect.state().as_str(),
            retry_ms = delay.as_millis(), "connection ended"
        );
        line.last_end = Some(why);
        self.connect_later(at, delay, ctx);
        self.publish();
    }

    /// Drops the session and tells the books. Whatever the old connection still says is ignored from here on.
    fn close(&mut self, at: usize, cause: &'static str, ctx: &mut Context<Self>) {
        if let Some(session) = self.lines[at].session.take() {
            session.close();
        }
        self.lines[at].connection += 1;
        if let Some(task) = self.tasks[at].take() {
            ctx.cancel_future(task);
        }
        self.reset(at, cause);
    }

    fn reset(&mut self, at: usize, cause: &'static str) {
        for (instrument, channels) in self.lines[at].carries() {
            self.router.send(instrument, FeedItem::Reset { channels, cause });
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        self.ticks = self.ticks.wrapping_add(1);
        // Frames that were received before the boundary may still wait to be handled.
        self.mark_boundary(now_us - MARK_LAG_US);
        if self.ticks.is_multiple_of(PULSE_EVERY_TICKS) {
            self.tell_own_books(|| FeedItem::Pulse);
            for at in 0..self.lines.len() {
                if self.lines[at].session.is_some()
                    && let Some(remedy) = self.lines[at].liveness.check(now_us)
                {
                    self.apply(at, remedy, ctx);
                }
            }
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

    fn tell_own_books(&mut self, item: impl Fn() -> FeedItem) {
        for planned in &self.spec.plan.instruments {
            self.router.send(planned.idx, item());
        }
    }

    fn on_renewal(&mut self, wish: RenewStream, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(at) = self.lines.iter().position(|line| line.has(wish.instrument, wish.channel)) else {
            return;
        };
        if self.lines[at].session.is_none() {
            return;
        }
        if let Some(remedy) = self.lines[at].liveness.suspect(wish.instrument, wish.channel, now_us) {
            self.apply(at, remedy, ctx);
        }
    }

    fn apply(&mut self, at: usize, remedy: Remedy, ctx: &mut Context<Self>) {
        match remedy {
            Remedy::Resubscribe(streams) => {
                let names: Vec<&str> =
                    streams.iter().map(|&stream| self.lines[at].stream_name(stream)).collect();
                tracing::warn!(shard = %self.spec.plan.id, streams = ?names, "silent streams are subscribed again");
                let frames = self.lines[at].renew(&streams);
                let Some(session) = self.lines[at].session.clone() else { return };
                if frames.into_iter().any(|frame| session.send(frame).is_err()) {
                    self.ended(at, "too many requests wait to be sent".to_owned(), ctx);
                }
            }
            Remedy::Reconnect(stream) => {
                let why = format!("stream {} stays silent", self.lines[at].stream_name(stream));
                self.ended(at, why, ctx);
            }
        }
    }

    fn publish(&self) {
        let now_us = self.now_us();
        let status = self.status(now_us);
        let why: Vec<String> = status
            .lines
            .iter()
            .filter(|line| line.state != ConnectionState::Connected)
            .map(|line| {
                let end = line.last_end.as_deref().map(|end| format!(": {end}")).unwrap_or_default();
                format!("line {} is {}{end}", line.id, line.state.as_str())
            })
            .collect();
        self.life.degraded(why);
        if self.life.is_fenced() {
            return;
        }
        self.spec.status.store(Arc::new(status.clone()));
        Service::publish(self, status);
    }

    fn status(&self, now_us: i64) -> ShardStatus {
        let lines: Vec<LineStatus> = self.lines.iter().map(|line| line.status(now_us)).collect();
        ShardStatus {
            id: self.spec.plan.id.clone(),
            venue: self.spec.venue.id(),
            market: self.spec.market,
            tier: self.spec.plan.tier.as_str(),
            state: status::worst(lines.iter().map(|line| line.state)),
            generation: self.life.generation(),
            symbols: self.symbols.clone(),
            events: self.lines.iter().map(Line::events).sum(),
            last_frame_us: lines.iter().filter_map(|line| line.last_frame_us).max(),
            lost_events: self.router.lost_total(),
            rejects: summed(self.lines.iter().map(Line::rejects)),
            ignored: summed(self.lines.iter().map(Line::ignored)),
            observed_us: now_us,
            lines,
        }
    }

    fn close_all(&mut self, cause: &'static str, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        for at in 0..self.lines.len() {
            self.close(at, cause, ctx);
            self.lines[at].reconnect.stopped(now_us);
        }
    }
}

impl Service for StreamActor {
    type Detail = ShardStatus;

    fn lifeline(&self) -> &Lifeline {
        &self.life
    }

    fn on_start(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        self.tasks = self.lines.iter().map(|_| None).collect();
        for at in 0..self.lines.len() {
            self.reset(at, "shard_started");
            self.connect_later(at, Duration::ZERO, ctx);
        }
        ctx.run_interval(TICK, Self::tick);
        let renewals = self.spec.renewals.stream(&self.life);
        ctx.spawn(
            wrap_stream(renewals).map(|wish, actor: &mut Self, ctx| actor.on_renewal(wish, ctx)).finish(),
        );
        self.publish();
        Ok(())
    }

    fn on_drain(&mut self, ctx: &mut Context<Self>) {
        self.close_all("shard_stopped", ctx);
        self.publish();
        ctx.stop();
    }

    fn on_stop(&mut self, _why: &ExitReason) {
        for line in &mut self.lines {
            if let Some(session) = line.session.take() {
                session.close();
            }
        }
    }
}

/// Passes events on to the books and to whoever listens.
struct BookSink<'a> {
    router: &'a mut Router,
    live: &'a LiveEvents,
    table: &'a InstrumentTable,
}

impl Sink for BookSink<'_> {
    fn event(&mut self, event: Event) {
        if !self.live.is_idle()
            && let Some(instrument) = self.table.get(event.instrument)
        {
            let (instrument, event) = (instrument.clone(), event.clone());
            self.live.publish(|| Arc::new(LiveEvent { instrument, event }));
        }
        self.router.push(event);
    }

    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64) {
        self.router.send(instrument, FeedItem::Gap { expected, got });
    }

    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str) {
        self.router.send(instrument, FeedItem::Unreadable { channel, reason });
    }
}

fn lines(spec: &ShardSpec, now_us: i64) -> Vec<Line> {
    let mut lines = Vec::new();
    for plan in &spec.plan.endpoints {
        for letter in ['a', 'b'].into_iter().take(plan.redundancy.lines()) {
            let base = spec.endpoints.ws.get(plan.class.as_str()).cloned().unwrap_or_default();
            let line = LineSpec { venue: spec.venue, market: spec.market, base, plan: plan.clone(), letter };
            let StreamSettings { reconnect, liveness } = spec.settings.clone();
            lines.push(Line::new(line, spec.table.clone(), reconnect, liveness, now_us));
        }
    }
    lines
}

fn end_words(end: &SessionEnd) -> String {
    match end {
        SessionEnd::Closed { code, reason } => format!("closed by the server, code {code}: {reason}"),
        SessionEnd::Error(error) => error.clone(),
        SessionEnd::Idle => "no frame at all for too long".to_owned(),
        SessionEnd::AckTimeout { ids } => format!("requests {ids:?} were not acknowledged in time"),
        SessionEnd::NoFirstData => "no data came after the subscription".to_owned(),
        SessionEnd::PongTimeout => "a ping was not answered".to_owned(),
        SessionEnd::LifeLimit => "the venue's life limit".to_owned(),
        SessionEnd::Local => "closed by us".to_owned(),
    }
}

fn summed<'a>(maps: impl Iterator<Item = &'a BTreeMap<&'static str, u64>>) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (reason, count) in maps.flatten() {
        *sum.entry(*reason).or_default() += count;
    }
    sum
}
