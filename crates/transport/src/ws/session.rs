//! The session itself: a stream driven by being polled.
//!
//! One poll writes what may be written, reads everything that is ready into one batch, and only when the socket has
//! nothing more looks at the deadlines: an owner that was busy for a while finds its frames before a verdict on them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use fathom_market::plan::{ConnectSpec, KeepAlive};
use futures_util::{Sink, Stream};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error as WsError, Message, Utf8Bytes,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Bytes, FrameBatch, SessionEnd, SessionEvent, SessionHandle, SessionOptions, SessionWarning,
    handle::{Core, Shared},
};
use crate::{
    UtcClock,
    session_clock::{Expiry, SessionClock},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open line. Poll it as a stream; the last item is [`SessionEvent::Ended`].
pub struct Session {
    /// `None` once ended.
    socket: Option<Socket>,
    shared: Arc<Shared>,
    options: SessionOptions,
    keep_alive_text: Option<Utf8Bytes>,
    clock: UtcClock,
    timer: Pin<Box<Sleep>>,
    /// Bound on the closing handshake, once the owner has asked for it.
    closing_until: Option<Instant>,
    /// Found behind frames that had to be delivered first.
    end: Option<SessionEnd>,
    /// The socket cannot be written any more; what it still holds for reading comes first.
    write_failed: Option<SessionEnd>,
    /// Something was written or queued since the last complete flush.
    unflushed: bool,
    /// The socket takes nothing more for now.
    blocked: bool,
    /// Batches delivered since the socket last had nothing more to read.
    undrained: u32,
}

/// A socket that always has more to read still has its deadlines looked at after so many batches. That is more than the
/// kernel holds back for an owner that was busy.
const BATCHES_WITHOUT_DEADLINES: u32 = 1024;

impl Session {
    pub(super) fn new(socket: Socket, spec: ConnectSpec, options: SessionOptions, clock: UtcClock) -> Self {
        let opened = Instant::now();
        let subscribing = spec.subscribe.len();
        let core = Core {
            clock: SessionClock::new(&spec.rules, subscribing, options.life_margin),
            outbox: spec.subscribe.into(),
            subscribing,
        };
        let keep_alive_text = match spec.rules.keep_alive {
            KeepAlive::Text { text, .. } => Some(text.into()),
            KeepAlive::ServerPings | KeepAlive::PingFrame { .. } => None,
        };
        Self {
            socket: Some(socket),
            shared: Arc::new(Shared::new(opened, core)),
            options,
            keep_alive_text,
            clock,
            timer: Box::pin(tokio::time::sleep_until(opened)),
            closing_until: None,
            end: None,
            write_failed: None,
            unflushed: false,
            blocked: false,
            undrained: 0,
        }
    }

    /// A handle to it.
    pub fn handle(&self) -> SessionHandle {
        SessionHandle { shared: Arc::clone(&self.shared) }
    }

    /// Time since the socket was opened.
    pub fn age(&self) -> Duration {
        self.shared.opened.elapsed()
    }

    fn finish(&mut self, end: SessionEnd) -> Poll<Option<SessionEvent>> {
        self.socket = None;
        Poll::Ready(Some(SessionEvent::Ended(end)))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        loop {
            if self.shared.core().clock.take_life_warning(self.age()) {
                return Poll::Ready(Some(SessionEvent::Warn(SessionWarning::LifeLimitNear)));
            }
            self.write(cx);
            let batch = self.read(cx);
            self.flush(cx);
            if let Some(batch) = batch {
                self.undrained += 1;
                if self.undrained.is_multiple_of(BATCHES_WITHOUT_DEADLINES) {
                    self.end = self.end.take().or_else(|| self.expired());
                }
                return Poll::Ready(Some(SessionEvent::Frames(batch)));
            }
            if let Some(end) = self.end.take().or_else(|| self.write_failed.take()) {
                return self.finish(end);
            }
            // Out of its cooperative share, the socket says "nothing" while it may have something: no verdict then.
            if !tokio::task::coop::has_budget_remaining() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.undrained = 0;
            if let Some(end) = self.expired() {
                return self.finish(end);
            }
            if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Hands the messages whose slot has come to the socket, as far as it takes them.
    fn write(&mut self, cx: &mut Context<'_>) {
        let now = self.age();
        let Some(socket) = self.socket.as_mut().filter(|_| self.write_failed.is_none()) else { return };
        let mut core = self.shared.core();
        self.blocked = false;
        while core.clock.may_send(now) {
            let keep_alive = core.clock.keep_alive_due(now);
            if !keep_alive && core.outbox.is_empty() {
                return;
            }
            match Pin::new(&mut *socket).poll_ready(cx) {
                Poll::Pending => self.blocked = true,
                Poll::Ready(Err(error)) => self.write_failed = Some(socket_end(error)),
                Poll::Ready(Ok(())) => {
                    let message = match keep_alive {
                        true => Some(core.keep_alive(now, self.keep_alive_text.as_ref())),
                        false => core.next_frame(now),
                    };
                    let Some(message) = message else { return };
                    self.unflushed = true;
                    match Pin::new(&mut *socket).start_send(message) {
                        Ok(()) => continue,
                        Err(error) => self.write_failed = Some(socket_end(error)),
                    }
                }
            }
            return;
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(socket) = self.socket.as_mut().filter(|_| self.unflushed) else { return };
        match Pin::new(socket).poll_flush(cx) {
            Poll::Pending => {}
            Poll::Ready(result) => {
                self.unflushed = false;
                if let Err(error) = result {
                    self.write_failed.get_or_insert(socket_end(error));
                }
            }
        }
    }

    /// Reads what is ready, up to the bounds of a batch. What ended the socket is kept for after the batch.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<FrameBatch> {
        let socket = self.socket.as_mut()?;
        let mut batch: Option<FrameBatch> = None;
        let (mut bytes, mut pings, mut pongs, mut any) = (0, 0, 0, false);
        while bytes < self.options.batch_bytes
            && batch.as_ref().is_none_or(|b| b.frames.len() < self.options.batch_frames)
        {
            let payload = match Pin::new(&mut *socket).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(Message::Text(text)))) => Bytes::from(text),
                Poll::Ready(Some(Ok(Message::Binary(payload)))) => payload,
                Poll::Ready(Some(Ok(Message::Ping(_)))) => {
                    (pings, any) = (pings + 1, true);
                    continue;
                }
                Poll::Ready(Some(Ok(Message::Pong(_)))) => {
                    (pongs, any) = (pongs + 1, true);
                    continue;
                }
                Poll::Ready(Some(Ok(Message::Frame(_)))) => continue,
                Poll::Ready(Some(Ok(Message::Close(close)))) => {
                    self.end = Some(closed(close));
                    break;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.end = Some(socket_end(error));
                    break;
                }
                Poll::Ready(None) => {
                    self.end = Some(closed(None));
                    break;
                }
            };
            bytes += payload.len();
            any = true;
            let batch =
                batch.get_or_insert_with(|| FrameBatch { recv_us: (self.clock)(), frames: Vec::new() });
            batch.frames.push(payload);
        }
        // The library has queued the pong, or the answer to a close; it goes out now and not with the next read.
        self.unflushed |= pings > 0 || self.end.is_some();
        if any {
            self.note(pings, pongs);
        }
        batch
    }

    fn note(&self, pings: u32, pongs: u32) {
        let now = self.age();
        let mut core = self.shared.core();
        core.clock.received(now);
        for _ in 0..pings {
            core.clock.answered_ping(now);
        }
        if pongs > 0 {
            core.clock.pong();
        }
    }

    fn expired(&self) -> Option<SessionEnd> {
        let end = match self.shared.core().clock.expired(self.age())? {
            Expiry::Ack { ids } => SessionEnd::AckTimeout { ids },
            Expiry::FirstData => SessionEnd::NoFirstData,
            Expiry::Idle => SessionEnd::Idle,
            Expiry::Pong => SessionEnd::PongTimeout,
            Expiry::Life => SessionEnd::LifeLimit,
        };
        Some(end)
    }

    /// Arms the timer for the next deadline. A deadline that moved away leaves it as it is: it then fires early, and
    /// that costs less than a new timer for every batch.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = self.shared.core();
        let writable = !self.blocked && self.write_failed.is_none();
        let at = self.shared.opened + core.clock.next_deadline(!core.outbox.is_empty(), writable);
        drop(core);
        if at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx)
    }

    /// Writes the close frame once, then reads and drops until the server has answered or the deadline has passed.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        let Some(socket) = self.socket.as_mut() else { return Poll::Ready(None) };
        let until = match self.closing_until {
            Some(until) => until,
            None => {
                let until = Instant::now() + self.options.close_deadline;
                self.closing_until = Some(until);
                self.timer.as_mut().reset(until);
                let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
                if Pin::new(&mut *socket).start_send(Message::Close(Some(frame))).is_err() {
                    return self.finish(SessionEnd::Local);
                }
                until
            }
        };
        let failed = matches!(Pin::new(&mut *socket).poll_flush(cx), Poll::Ready(Err(_)));
        if failed || discard(socket, cx) || Instant::now() >= until || self.timer.as_mut().poll(cx).is_ready()
        {
            return self.finish(SessionEnd::Local);
        }
        Poll::Pending
    }
}

impl Stream for Session {
    type Item = SessionEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        let this = self.get_mut();
        if this.socket.is_none() {
            return Poll::Ready(None);
        }
        this.shared.waker.register(cx.waker());
        if let Some(end) = this.end.take() {
            return this.finish(end);
        }
        if this.shared.closing.load(Relaxed) {
            return this.poll_closing(cx);
        }
        this.poll_open(cx)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("open", &self.socket.is_some()).field("age", &self.age()).finish()
    }
}

/// Reads and drops what is ready, with a bound; true when the socket has ended.
fn discard(socket: &mut Socket, cx: &mut Context<'_>) -> bool {
    for _ in 0..256 {
        match Pin::new(&mut *socket).poll_next(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(Message::Close(_)) | Err(_)) | None) => return true,
            Poll::Ready(Some(Ok(_))) => {}
        }
    }
    cx.waker().wake_by_ref();
    false
}

fn closed(close: Option<CloseFrame>) -> SessionEnd {
    match close {
        Some(frame) => SessionEnd::Closed { code: frame.code.into(), reason: frame.reason.to_string() },
        None => SessionEnd::Closed { code: CloseCode::Status.into(), reason: String::new() },
    }
}

fn socket_end(error: WsError) -> SessionEnd {
    SessionEnd::Error(error.to_string())
}
