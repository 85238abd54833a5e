//! The WebSocket server of a market: handshake, commands, pings, life limit, and writing out what was queued. What is
//! sent is decided elsewhere (`hub`, `engine`, `recorded`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fathom_market::ids::Market;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::commands::{self, Command};
use crate::faults::Effect;
use crate::faults::active::Active;
use crate::hub::{Conn, End};
use crate::limits::MessageRate;
use crate::market::MarketState;
use crate::number::now_ms;
use crate::wire::streams::Route;

const HANDSHAKE: Duration = Duration::from_secs(10);
const BATCH: usize = 512;

/// Accepts connections until the runtime ends.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<MarketState>,
    ids: Arc<AtomicU64>,
    tls: Option<TlsAcceptor>,
) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let id = ids.fetch_add(1, Ordering::AcqRel) + 1;
                    tasks.spawn(arrived(stream, peer, id, Arc::clone(&state), tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

/// What a handshake asked for.
struct Asked {
    route: Route,
    raw: bool,
    streams: Vec<String>,
}

async fn arrived(
    stream: TcpStream,
    peer: SocketAddr,
    id: u64,
    state: Arc<MarketState>,
    tls: Option<TlsAcceptor>,
) {
    // Small frames must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else { return connection(stream, peer, id, state).await };
    // A client that does not trust the certificate ends the handshake.
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        connection(stream, peer, id, state).await;
    }
}

async fn connection(stream: impl Stream, peer: SocketAddr, id: u64, state: Arc<MarketState>) {
    let mut asked = None;
    #[allow(clippy::result_large_err, reason = "the library's own callback type")]
    let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        asked = Some(admit(&state, request, peer)?);
        Ok(response)
    };
    let accepted =
        tokio::time::timeout(HANDSHAKE, tokio_tungstenite::accept_hdr_async(stream, callback)).await;
    let (Ok(Ok(socket)), Some(asked)) = (accepted, asked) else { return };
    let queue = (state.config.queue_frames, state.config.queue_bytes);
    let (conn, receiver) = Conn::new(id, state.market, asked.route, peer.ip(), queue);
    state.ledger.opened(id, state.market, asked.route.name(), now_ms(), Arc::clone(&conn.written));
    state.connected(&conn);
    let session = Session {
        socket,
        receiver,
        conn,
        state: Arc::clone(&state),
        raw: asked.raw,
        rate: MessageRate::default(),
        opened_ms: now_ms(),
        pace: Instant::now(),
    };
    let (clean, reason) = session.run(&asked.streams).await;
    if reason == "slow client" {
        state.ledger.violation(state.market, now_ms(), "slow_client", format!("connection {id}"));
    }
    state.disconnected(id);
    state.ledger.closed(id, now_ms(), clean, reason);
}

#[allow(clippy::result_large_err, reason = "the library's own callback type")]
fn admit(state: &MarketState, request: &Request, peer: SocketAddr) -> Result<Asked, ErrorResponse> {
    let now = now_ms();
    let (verdict, broken) = state.addresses.connect(peer.ip(), now);
    if let Some((rule, detail)) = broken {
        state.ledger.violation(state.market, now, rule, detail);
    }
    if let Err((status, retry_s)) = verdict {
        return Err(refusal(status, Some(retry_s)));
    }
    if state.faults.refuses(now) {
        return Err(refusal(503, None));
    }
    let path = request.uri().path();
    let (route, raw) = state.route(path).ok_or_else(|| refusal(404, None))?;
    let listed = if raw {
        path.split_once("/ws/").map(|(_, names)| names)
    } else {
        let query = request.uri().query().unwrap_or_default();
        query.split('&').find_map(|pair| pair.strip_prefix("streams="))
    };
    let names = listed.unwrap_or_default().split('/').filter(|name| !name.is_empty());
    let streams: Vec<String> = names.map(commands::percent_decoded).collect();
    if streams.len() > state.config.limits.streams_per_connection {
        state.ledger.violation(
            state.market,
            now,
            "ws_streams",
            format!("{} streams in a URL", streams.len()),
        );
        return Err(refusal(400, None));
    }
    Ok(Asked { route, raw, streams })
}

fn refusal(status: u16, retry_s: Option<i64>) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    if let Some(value) = retry_s.and_then(|seconds| seconds.to_string().parse().ok()) {
        response.headers_mut().insert("retry-after", value);
    }
    response
}

/// A plain or a TLS connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Session<S> {
    socket: WebSocketStream<S>,
    receiver: mpsc::Receiver<Utf8Bytes>,
    conn: Arc<Conn>,
    state: Arc<MarketState>,
    raw: bool,
    rate: MessageRate,
    opened_ms: i64,
    /// A throttled connection sends nothing before.
    pace: Instant,
}

/// What the faults of a connection make of it.
#[derive(Default)]
struct Condition {
    half_open: bool,
    deaf: bool,
    bytes_per_s: Option<u64>,
    /// When the first of them ends by the clock.
    until: Option<Instant>,
}

impl Condition {
    fn of(conn: &Conn, now_ms: i64) -> Self {
        let mut condition = Self::default();
        for active in conn.faults(now_ms) {
            match active.fault.effect {
                Effect::HalfOpen => condition.half_open = true,
                Effect::StopReading => condition.deaf = true,
                Effect::SlowNetwork { bytes_per_s } => condition.bytes_per_s = Some(bytes_per_s),
                _ => {}
            }
            if let Some(until_ms) = active.until_ms() {
                let end = after(until_ms - now_ms);
                condition.until = Some(condition.until.map_or(end, |until| until.min(end)));
            }
        }
        condition
    }

    /// Whether a frame may leave now.
    fn may_send(&self, pace: Instant) -> bool {
        match self.bytes_per_s {
            None => true,
            Some(0) => false,
            Some(_) => Instant::now() >= pace,
        }
    }
}

/// When a connection ends by its age, and whether a notice comes before.
struct Life {
    end: Instant,
    notice: Option<Instant>,
    limited_by: Option<Arc<Active>>,
}

impl Life {
    fn of(state: &MarketState, opened_ms: i64, now_ms: i64) -> Self {
        let most = i64::try_from(state.config.limits.max_life.as_millis()).unwrap_or(i64::MAX / 4);
        let usual = Self { end: after(opened_ms + most - now_ms), notice: None, limited_by: None };
        let Some(limit) = state.faults.life(now_ms) else { return usual };
        let end_ms = opened_ms.max(limit.active.injected_ms) + limit.life_ms;
        if end_ms >= opened_ms + most || limit.active.until_ms().is_some_and(|until| until < end_ms) {
            return usual;
        }
        let spot = state.market == Market::Spot;
        let notice = limit.notice_ms.filter(|_| spot).map(|before| after(end_ms - before - now_ms));
        Self { end: after(end_ms - now_ms), notice, limited_by: Some(limit.active) }
    }
}

fn after(ms: i64) -> Instant {
    Instant::now() + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Sleeps until then; without a time it never ends.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why a session is over: cleanly or not, and the reason.
type Over = (bool, String);

fn broken(error: &Error) -> Over {
    (matches!(error, Error::ConnectionClosed), error.to_string())
}

impl<S: Stream> Session<S> {
    async fn run(mut self, first: &[String]) -> Over {
        self.subscribe(first);
        let limits = self.state.config.limits.clone();
        let mut pings = tokio::time::interval_at(Instant::now() + limits.ping_every, limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life_changed = self.state.life_changed.subscribe();
        let mut life = Life::of(&self.state, self.opened_ms, now_ms());
        let mut unanswered: Option<(Instant, Bytes)> = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let condition = Condition::of(&self.conn, now_ms());
            if condition.half_open {
                match self.half_open(condition.until).await {
                    Some(over) => return over,
                    None => continue,
                }
            }
            if condition.deaf {
                unanswered = None;
            }
            let sends = condition.may_send(self.pace);
            let waits = condition.bytes_per_s.is_some_and(|rate| rate > 0) && !sends;
            let most = if condition.bytes_per_s.is_some() { 1 } else { BATCH };
            let pong_due = unanswered.as_ref().map(|(sent, _)| *sent + limits.pong_within);
            let over = tokio::select! {
                () = self.conn.ended.notified() => Some(self.end().await),
                () = self.conn.afflicted.notified() => None,
                () = until(condition.until) => None,
                () = until(Some(self.pace)), if waits => None,
                count = self.receiver.recv_many(&mut batch, most), if batch.is_empty() && sends => {
                    if count == 0 {
                        Some((false, "queue closed".to_owned()))
                    } else {
                        self.slow_down(condition.bytes_per_s, &batch);
                        self.write(&mut batch).await
                    }
                }
                message = self.socket.next(), if !condition.deaf => match message {
                    None => Some((true, "closed".to_owned())),
                    Some(Err(error)) => Some(broken(&error)),
                    Some(Ok(message)) => {
                        if let (Message::Pong(payload), Some((_, wanted))) = (&message, &unanswered)
                            && payload == wanted
                        {
                            unanswered = None;
                        }
                        self.received(message).await
                    }
                },
                _ = pings.tick() => {
                    let payload = Bytes::from(now_ms().to_string());
                    unanswered.get_or_insert_with(|| (Instant::now(), payload.clone())).1 = payload.clone();
                    self.send(Message::Ping(payload)).await
                }
                () = until(pong_due), if !condition.deaf => {
                    let detail = format!("connection {}: no pong", self.conn.id);
                    self.state.ledger.violation(self.conn.market, now_ms(), "ws_pong", detail);
                    Some(self.close(1008, "no pong").await)
                }
                _ = life_changed.changed() => {
                    life = Life::of(&self.state, self.opened_ms, now_ms());
                    None
                }
                () = until(life.notice) => {
                    life.notice = None;
                    self.send(Message::Text(self.notice().into())).await
                }
                () = until(Some(life.end)) => {
                    if let Some(active) = &life.limited_by {
                        active.acted(now_ms(), Some(self.conn.id));
                    }
                    Some(self.close(1001, "end of life").await)
                }
            };
            if let Some(over) = over {
                return over;
            }
        }
    }

    /// Spot's notice before it closes a connection (binance sheet, section 2).
    fn notice(&self) -> String {
        let data = format!(r#"{{"e":"serverShutdown","E":{}}}"#, self.state.event_ms(now_ms()));
        if self.raw { data } else { format!(r#"{{"stream":"!serverShutdown","data":{data}}}"#) }
    }

    /// A throttled connection pays for each frame with time.
    fn slow_down(&mut self, bytes_per_s: Option<u64>, batch: &[Utf8Bytes]) {
        let Some(rate) = bytes_per_s.filter(|rate| *rate > 0) else { return };
        let bytes: usize = batch.iter().map(|frame| frame.len()).sum();
        let cost = Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        self.pace = self.pace.max(Instant::now()) + cost;
    }

    /// Nothing is read, answered or sent until then; what would have been sent is lost.
    async fn half_open(&mut self, end: Option<Instant>) -> Option<Over> {
        let mut dropped = Vec::new();
        loop {
            dropped.clear();
            tokio::select! {
                () = self.conn.ended.notified() => return Some((false, "half open, cut".to_owned())),
                () = until(end) => return None,
                () = self.conn.afflicted.notified() => return None,
                _ = self.receiver.recv_many(&mut dropped, BATCH) => {
                    self.conn.lost(dropped.len() as u64, dropped.iter().map(|frame| frame.len()).sum());
                }
            }
        }
    }

    async fn write(&mut self, batch: &mut Vec<Utf8Bytes>) -> Option<Over> {
        let (frames, bytes) = (batch.len() as u64, batch.iter().map(|frame| frame.len()).sum());
        let socket = &mut self.socket;
        let writing = async {
            for frame in batch.drain(..) {
                socket.feed(Message::Text(frame)).await?;
            }
            socket.flush().await
        };
        let done = tokio::select! {
            done = writing => done,
            () = self.conn.ended.notified() => return Some(self.end().await),
        };
        match done {
            Ok(()) => {
                self.conn.wrote(frames, bytes);
                None
            }
            Err(error) => Some(broken(&error)),
        }
    }

    async fn send(&mut self, message: Message) -> Option<Over> {
        let sent = tokio::select! {
            sent = self.socket.send(message) => sent,
            () = self.conn.ended.notified() => return Some(self.end().await),
        };
        sent.err().map(|error| broken(&error))
    }

    async fn end(&mut self) -> Over {
        match self.conn.end() {
            Some(End::Close(code, reason)) => self.close(code, &reason).await,
            Some(End::Cut(reason)) => (false, reason),
            None => (false, "ended".to_owned()),
        }
    }

    /// Sends a close frame and waits a moment for its answer.
    async fn close(&mut self, code: u16, reason: &str) -> Over {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let closing = async {
            let _ = self.socket.close(Some(frame)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), closing).await;
        (true, format!("{code} {reason}"))
    }

    async fn received(&mut self, message: Message) -> Option<Over> {
        let now = now_ms();
        let per_second = self.state.config.limits.messages_per_second;
        if !matches!(message, Message::Close(_)) && !self.rate.allow(now, per_second) {
            let detail = format!("connection {}: more than {per_second} messages in a second", self.conn.id);
            self.state.ledger.violation(self.conn.market, now, "ws_messages", detail);
            if let Some((rule, detail)) = self.state.addresses.flooded(self.conn.peer, now) {
                self.state.ledger.violation(self.conn.market, now, rule, detail);
            }
            return Some(self.close(1008, "Too many requests").await);
        }
        match message {
            Message::Text(text) => match self.answer(&text) {
                Some(reply) => self.send(Message::Text(reply.into())).await,
                None => None,
            },
            // The library queues the answer to a ping or a close; it has to be flushed.
            Message::Ping(_) | Message::Close(_) => {
                self.socket.flush().await.err().map(|error| broken(&error))
            }
            _ => None,
        }
    }

    fn answer(&mut self, text: &str) -> Option<String> {
        match commands::parse(text) {
            Err(error) => Some(error),
            Ok(Command::Subscribe { names, id }) => self.try_subscribe(&names, &id),
            Ok(Command::Unsubscribe { names, id }) => {
                names.iter().for_each(|name| self.state.unsubscribe(self.conn.id, name));
                self.state.ledger.event(self.conn.id, now_ms(), "unsubscribe", names.join(","));
                Some(commands::done(&id))
            }
            Ok(Command::List { id }) => Some(commands::list(&self.state.streams_of(self.conn.id), &id)),
        }
    }

    fn try_subscribe(&mut self, names: &[String], id: &serde_json::Value) -> Option<String> {
        let limits = &self.state.config.limits;
        let mut held = self.state.streams_of(self.conn.id);
        held.extend_from_slice(names);
        held.sort_unstable();
        held.dedup();
        let rule = if names.len() > limits.names_per_frame {
            Some(("ws_frame_size", format!("{} names in one frame", names.len()), None))
        } else if held.len() > limits.streams_per_connection {
            Some(("ws_streams", format!("{} streams", held.len()), Some(commands::too_many(id))))
        } else {
            None
        };
        if let Some((rule, seen, reply)) = rule {
            let detail = format!("connection {}: {seen}", self.conn.id);
            self.state.ledger.violation(self.conn.market, now_ms(), rule, detail);
            return reply;
        }
        self.subscribe(names);
        Some(commands::done(id))
    }

    fn subscribe(&self, names: &[String]) {
        let (served, silent): (Vec<&str>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| self.state.subscribe(&self.conn, name, self.raw));
        for (kind, names) in [("subscribe", served), ("silent", silent)] {
            if !names.is_empty() {
                self.state.ledger.event(self.conn.id, now_ms(), kind, names.join(","));
            }
        }
    }
}
