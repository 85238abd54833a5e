//! The WebSocket server of a market: handshake, commands, pings, life limit, and writing out what was queued. What is
//! sent is decided elsewhere (`hub`, `engine`, `recorded`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::commands::{self, Command};
use crate::hub::{Conn, End};
use crate::limits::MessageRate;
use crate::market::MarketState;
use crate::number::now_ms;
use crate::wire::streams::Route;

const HANDSHAKE: Duration = Duration::from_secs(10);
const BATCH: usize = 512;

/// Accepts connections until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, state: Arc<MarketState>, ids: Arc<AtomicU64>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let id = ids.fetch_add(1, Ordering::AcqRel) + 1;
                    tasks.spawn(connection(stream, peer, id, Arc::clone(&state)));
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

async fn connection(stream: TcpStream, peer: SocketAddr, id: u64, state: Arc<MarketState>) {
    // Small frames must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
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
    state.ledger.opened(id, state.market, asked.route.name(), now_ms(), Arc::clone(&conn.flushed));
    state.connected(&conn);
    let session = Session {
        socket,
        receiver,
        conn,
        state: Arc::clone(&state),
        raw: asked.raw,
        rate: MessageRate::default(),
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

struct Session {
    socket: WebSocketStream<TcpStream>,
    receiver: mpsc::Receiver<Utf8Bytes>,
    conn: Arc<Conn>,
    state: Arc<MarketState>,
    raw: bool,
    rate: MessageRate,
}

/// Why a session is over: cleanly or not, and the reason.
type Over = (bool, String);

fn broken(error: &Error) -> Over {
    (matches!(error, Error::ConnectionClosed), error.to_string())
}

impl Session {
    async fn run(mut self, first: &[String]) -> Over {
        self.subscribe(first);
        let limits = self.state.config.limits.clone();
        let mut pings = tokio::time::interval_at(Instant::now() + limits.ping_every, limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end_of_life = Instant::now() + limits.max_life;
        let mut unanswered: Option<(Instant, Bytes)> = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if self.conn.half_open.load(Ordering::Acquire) {
                return self.half_open().await;
            }
            let pong_due = unanswered.as_ref().map(|(sent, _)| *sent + limits.pong_within);
            let over = tokio::select! {
                () = self.conn.ended.notified() => Some(self.end().await),
                count = self.receiver.recv_many(&mut batch, BATCH), if batch.is_empty() => {
                    if count == 0 { Some((false, "queue closed".to_owned())) } else { self.write(&mut batch).await }
                }
                message = self.socket.next() => match message {
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
                () = tokio::time::sleep_until(pong_due.unwrap_or(end_of_life)), if pong_due.is_some() => {
                    let detail = format!("connection {}: no pong", self.conn.id);
                    self.state.ledger.violation(self.conn.market, now_ms(), "ws_pong", detail);
                    Some(self.close(1008, "no pong").await)
                }
                () = tokio::time::sleep_until(end_of_life) => Some(self.close(1001, "24 hours").await),
            };
            if let Some(over) = over {
                return over;
            }
        }
    }

    /// Nothing is read, answered or sent any more.
    async fn half_open(mut self) -> Over {
        let mut dropped = Vec::new();
        loop {
            dropped.clear();
            tokio::select! {
                () = self.conn.ended.notified() => return (false, "half open, cut".to_owned()),
                _ = self.receiver.recv_many(&mut dropped, BATCH) => {
                    self.conn.wrote(0, dropped.iter().map(|frame| frame.len()).sum());
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
