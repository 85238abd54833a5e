//! Opening lines, reading them, and what follows when they end.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use actix::{
    ActorFutureExt, ActorStreamExt, AsyncContext, Context,
    fut::{wrap_future, wrap_stream},
};
use fathom_market::{event::Channel, instrument::InstrumentIdx};
use fathom_transport::{FrameBatch, Session, SessionEnd, SessionEvent, TransportError, ws};
use futures_util::StreamExt;

use super::{
    ConnectionState, StreamActor, by_instrument,
    line::{Line, Notices},
    liveness::Remedy,
    merge::{BEHIND_FOR, LineKey},
    outflow::{self, Audience},
    rotation::Slot,
};
use crate::{
    feed::{FeedItem, RenewStream},
    kernel::clock::micros,
};

pub(super) fn find(slots: &mut [Slot], key: LineKey) -> Option<&mut Line> {
    slots.iter_mut().find_map(|slot| slot.line_mut(key))
}

impl StreamActor {
    pub(super) fn connect_later(&mut self, key: LineKey, delay: Duration, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(line) = find(&mut self.slots, key) else { return };
        let wait_us = self.spec.gate.reserve(now_us + micros(delay)) - now_us;
        let wait = Duration::from_micros(wait_us.unsigned_abs());
        line.task = Some(ctx.run_later(wait, move |actor, ctx| actor.connect(key, ctx)));
    }

    fn connect(&mut self, key: LineKey, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(line) = find(&mut self.slots, key) else { return };
        let connect = line.open(self.spec.settings.liveness, now_us);
        let opening = ws::connect(connect, self.spec.tls.clone(), self.clock.clone());
        let task =
            wrap_future::<_, Self>(opening).map(move |opened, actor, ctx| actor.opened(key, opened, ctx));
        line.task = Some(ctx.spawn(task));
        self.publish();
    }

    fn opened(&mut self, key: LineKey, opened: Result<Session, TransportError>, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(line) = find(&mut self.slots, key) else { return };
        let session = match opened {
            Ok(session) => session,
            Err(error) => return self.ended(key, error.to_string(), ctx),
        };
        let more = line.opened(session.handle());
        let events = wrap_stream::<_, Self>(session.fuse())
            .map(move |event, actor: &mut Self, ctx| actor.on_session(key, event, ctx))
            .finish();
        line.task = Some(ctx.spawn(events));
        let mut notices = Notices::default();
        line.answered(None, now_us, &mut notices);
        self.heed(key, notices, ctx);
        self.request(key, more, ctx);
    }

    fn on_session(&mut self, key: LineKey, event: SessionEvent, ctx: &mut Context<Self>) {
        if find(&mut self.slots, key).is_none() {
            return;
        }
        match event {
            SessionEvent::Frames(batch) => self.on_frames(key, &batch, ctx),
            SessionEvent::Warn(warning) => {
                tracing::info!(shard = %self.plan.id, ?warning, "connection nears its end");
                self.is_due(key, "life_limit");
            }
            SessionEvent::Ended(end) => self.ended(key, end_words(&end), ctx),
        }
    }

    fn on_frames(&mut self, key: LineKey, batch: &FrameBatch, ctx: &mut Context<Self>) {
        let _busy = self.life.enter("frames");
        let Some(line) = find(&mut self.slots, key) else { return };
        if line.carries_depth() {
            self.mark_boundary(batch.recv_us);
        }
        let Some(line) = find(&mut self.slots, key) else { return };
        let before = line.seen.events;
        let audience = Audience { live: &self.spec.live, table: &self.table };
        let mut outflow = outflow::locked(&self.outflow);
        let mut inlet = outflow.inlet(key, audience);
        let notices = line.read(batch.frames.iter().map(AsRef::as_ref), batch.recv_us, &mut inlet);
        outflow.router.flush();
        drop(outflow);
        if line.seen.events > before {
            self.delivered(key, batch.recv_us);
        }
        self.heed(key, notices, ctx);
    }

    fn delivered(&mut self, key: LineKey, now_us: i64) {
        self.life.fresh();
        let Some(line) = find(&mut self.slots, key) else { return };
        if line.reconnect.state() == ConnectionState::Connected {
            return;
        }
        line.reconnect.delivered(now_us);
        if let Some(session) = &line.session {
            session.data_seen();
        }
        tracing::info!(shard = %self.plan.id, line = %line.id(), connection = line.connection, "connected");
        self.publish();
    }

    fn heed(&mut self, key: LineKey, notices: Notices, ctx: &mut Context<Self>) {
        if !notices.subscribed.is_empty() {
            let now_us = self.now_us();
            self.outflow().subscribed(key, &notices.subscribed, now_us, self.audience());
        }
        for message in &notices.refused {
            let line = find(&mut self.slots, key).map(|line| line.id()).unwrap_or_default();
            tracing::warn!(shard = %self.plan.id, line, message, "the venue refused a request");
        }
        if notices.instruments_changed {
            self.spec.listings.store(true, Relaxed);
        }
        if notices.closing_soon {
            self.rotate(key, "server_shutdown", ctx);
        }
    }

    /// A connection is over, or could not be opened.
    pub(super) fn ended(&mut self, key: LineKey, why: String, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let Some(key) = self.close(key, "connection_lost", ctx) else { return };
        let Some(line) = find(&mut self.slots, key) else { return };
        let delay = line.reconnect.ended(now_us, rand::random());
        tracing::warn!(
            shard = %self.plan.id, line = %line.id(), why, state = line.reconnect.state().as_str(),
            retry_ms = delay.as_millis(), "connection ended"
        );
        line.last_end = Some(why);
        if !self.next_steps_in(key) {
            self.connect_later(key, delay, ctx);
        }
        self.publish();
    }

    /// Drops the session and tells the books what no other line carries. Whatever the old connection still says is ignored
    /// from here on: the line has a new key, which is given.
    pub(super) fn close(
        &mut self,
        key: LineKey,
        cause: &'static str,
        ctx: &mut Context<Self>,
    ) -> Option<LineKey> {
        let (now_us, new_key) = (self.now_us(), self.new_key());
        let Some(line) = find(&mut self.slots, key) else {
            self.outflow().merge.forget(new_key);
            return None;
        };
        if let Some(task) = line.task.take() {
            ctx.cancel_future(task);
        }
        line.closed(new_key);
        let mut outflow = outflow::locked(&self.outflow);
        line.seen.tally += outflow.merge.tally(key);
        outflow.leave(key, cause, now_us, Audience { live: &self.spec.live, table: &self.table });
        Some(new_key)
    }

    /// Tells the books that whatever this shard carries is in doubt.
    pub(super) fn reset_all(&self, cause: &'static str) {
        let streams = self.plan.endpoints.iter().flat_map(|endpoint| &endpoint.streams);
        let streams = by_instrument(streams.map(|stream| (stream.instrument, stream.channel)));
        self.outflow().reset(streams, cause);
    }

    pub(super) fn close_all(&mut self, cause: &'static str, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let keys: Vec<LineKey> = self.lines().map(|line| line.key).collect();
        for key in keys {
            let Some(key) = self.close(key, cause, ctx) else { continue };
            if let Some(line) = find(&mut self.slots, key) {
                line.reconnect.stopped(now_us);
            }
            self.outflow().merge.forget(key);
        }
    }

    /// Streams that break their promise of a pace, and those on which a line says nothing while another does.
    pub(super) fn look_for_silence(&mut self, now_us: i64, ctx: &mut Context<Self>) {
        let open = self.slots.iter().map(|slot| &slot.current).filter(|line| line.session.is_some());
        let keys: Vec<LineKey> = open.map(|line| line.key).collect();
        for key in keys {
            let behind = self.behind(key, now_us);
            let Some(line) = find(&mut self.slots, key) else { continue };
            let mut remedies: Vec<Remedy> = line.liveness.check(now_us).into_iter().collect();
            remedies.extend(
                behind
                    .into_iter()
                    .filter_map(|(instrument, channel)| line.liveness.suspect(instrument, channel, now_us)),
            );
            // Streams that are found in one look are subscribed with one request.
            let mut renewed = Vec::new();
            remedies.retain(|remedy| match remedy {
                Remedy::Resubscribe(streams) => {
                    renewed.extend_from_slice(streams);
                    false
                }
                Remedy::Reconnect(_) => true,
            });
            renewed.sort_unstable();
            renewed.dedup();
            if !renewed.is_empty() {
                remedies.insert(0, Remedy::Resubscribe(renewed));
            }
            for remedy in remedies {
                self.apply(key, remedy, ctx);
            }
        }
    }

    /// The streams on which this connection has been silent for too long after another spoke.
    fn behind(
        &self,
        key: LineKey,
        now_us: i64,
    ) -> Vec<(fathom_market::instrument::InstrumentIdx, fathom_market::event::Channel)> {
        let outflow = self.outflow();
        let Some(line) = self.lines().find(|line| line.key == key) else { return Vec::new() };
        let streams = line.streams().iter().map(|stream| (stream.instrument, stream.channel));
        streams
            .filter(|(instrument, channel)| {
                let since_us = outflow.merge.behind_since_us(key, *instrument, *channel);
                since_us.is_some_and(|since_us| now_us - since_us > micros(BEHIND_FOR))
            })
            .collect()
    }

    /// A book has evidence that a stream is dead. Of two lines the one that is behind is meant, or both.
    pub(super) fn on_renewal(&mut self, wish: RenewStream, ctx: &mut Context<Self>) {
        let now_us = self.now_us();
        let RenewStream { instrument, channel } = wish;
        let open = |line: &&Line| line.session.is_some() && line.has(instrument, channel);
        let mut keys: Vec<LineKey> =
            self.slots.iter().map(|slot| &slot.current).filter(open).map(|line| line.key).collect();
        let behind: Vec<LineKey> = {
            let outflow = self.outflow();
            let is_behind =
                |key: &LineKey| outflow.merge.behind_since_us(*key, instrument, channel).is_some();
            keys.iter().copied().filter(is_behind).collect()
        };
        if !behind.is_empty() {
            keys = behind;
        }
        for key in keys {
            let Some(line) = find(&mut self.slots, key) else { continue };
            if let Some(remedy) = line.liveness.suspect(instrument, channel, now_us) {
                self.apply(key, remedy, ctx);
            }
        }
    }

    fn apply(&mut self, key: LineKey, remedy: Remedy, ctx: &mut Context<Self>) {
        let Some(line) = find(&mut self.slots, key) else { return };
        match remedy {
            Remedy::Resubscribe(streams) => {
                let names: Vec<&str> = streams.iter().map(|&stream| line.stream_name(stream)).collect();
                tracing::warn!(shard = %self.plan.id, streams = ?names, "silent streams are subscribed again");
                let silent: Vec<_> = streams
                    .iter()
                    .filter_map(|&at| line.streams().get(at))
                    .map(|one| (one.instrument, one.channel))
                    .collect();
                let frames = line.renew(&streams);
                self.tell_silence(key, silent);
                self.request(key, frames, ctx);
            }
            Remedy::Reconnect(stream) => {
                let name = line.stream_name(stream).to_owned();
                tracing::warn!(shard = %self.plan.id, stream = name, "stream stays silent: its line is replaced");
                self.rotate(key, "silent_stream", ctx);
            }
        }
    }

    /// What no other line carries may have been missed.
    fn tell_silence(&self, key: LineKey, silent: Vec<(InstrumentIdx, Channel)>) {
        let mut outflow = outflow::locked(&self.outflow);
        let alone =
            silent.into_iter().filter(|(idx, channel)| !outflow.merge.is_carried_beside(key, *idx, *channel));
        for (idx, channels) in by_instrument(alone.collect::<Vec<_>>().into_iter()) {
            outflow.router.send(idx, FeedItem::Silent { channels });
        }
    }

    /// Sends requests on an open line.
    pub(super) fn request(
        &mut self,
        key: LineKey,
        frames: Vec<fathom_market::plan::OutFrame>,
        ctx: &mut Context<Self>,
    ) {
        let Some(session) = find(&mut self.slots, key).and_then(|line| line.session.clone()) else { return };
        if frames.into_iter().any(|frame| session.send(frame).is_err()) {
            self.ended(key, "too many requests wait to be sent".to_owned(), ctx);
        }
    }
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
