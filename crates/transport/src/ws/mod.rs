//! WebSocket sessions: connect, subscribe at the venue's pace, keep alive, deliver what is ready as one batch.
//!
//! A [`Session`] is a stream that its owner polls in the owner's own thread; nothing is spawned, so a session cannot
//! outlive its owner, and dropping it closes the socket. It reads no payload: the owner decodes, and tells the session
//! what it found through the [`SessionHandle`].

mod handle;
mod session;

use std::{sync::Arc, time::Duration};

use fathom_market::plan::ConnectSpec;
use rustls::ClientConfig;
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config,
    tungstenite::{Error as WsError, http::header::RETRY_AFTER, protocol::WebSocketConfig},
};

pub use handle::{Full, OUTBOX, SessionHandle};
pub use session::Session;
pub use tokio_tungstenite::tungstenite::Bytes;

use crate::{TransportError, UtcClock, rest::parse_retry_after};

/// What was ready on the socket at one wake-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBatch {
    /// When the first frame of the batch was read, UTC microseconds.
    pub recv_us: i64,
    /// Payloads of text and binary frames, in order; never empty.
    pub frames: Vec<Bytes>,
}

/// Something to prepare for, while the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionWarning {
    /// The venue will close the connection soon because of its age: open the replacement.
    LifeLimitNear,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The server closed it.
    Closed {
        /// Close code; 1005 when the close frame had none (RFC 6455, 7.4.1).
        code: u16,
        /// The server's words.
        reason: String,
    },
    /// The socket failed, the protocol was broken, or a frame exceeded its bound.
    Error(String),
    /// No frame at all, pings included, for the idle timeout.
    Idle,
    /// Subscriptions were not acknowledged in time.
    AckTimeout {
        /// Their ids.
        ids: Vec<u64>,
    },
    /// Everything was acknowledged, and no data came.
    NoFirstData,
    /// Our pings were not answered.
    PongTimeout,
    /// It reached the venue's age limit.
    LifeLimit,
    /// Its owner closed it.
    Local,
}

/// What a session tells its owner. `Ended` is the last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Frames, in order, without loss.
    Frames(FrameBatch),
    /// The session goes on, but not for long.
    Warn(SessionWarning),
    /// The socket is gone.
    Ended(SessionEnd),
}

/// Bounds of a session that are ours and not the venue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How long before the life limit to warn.
    pub life_margin: Duration,
    /// Most frames of one batch.
    pub batch_frames: usize,
    /// A batch is closed by the frame that reaches this many bytes.
    pub batch_bytes: usize,
    /// How long a closing handshake may take after [`SessionHandle::close`].
    pub close_deadline: Duration,
}

impl SessionOptions {
    /// The defaults for a session of that age limit: a warning ten minutes before it, or a tenth of a shorter life.
    pub fn for_life_limit(life_limit: Duration) -> Self {
        Self {
            life_margin: Duration::from_secs(600).min(life_limit / 10),
            batch_frames: 256,
            batch_bytes: 1 << 20,
            close_deadline: Duration::from_secs(1),
        }
    }
}

/// Opens a line with the default [`SessionOptions`].
///
/// # Errors
/// As [`connect_with`].
pub async fn connect(
    spec: ConnectSpec,
    tls: Arc<ClientConfig>,
    clock: UtcClock,
) -> Result<Session, TransportError> {
    let options = SessionOptions::for_life_limit(spec.rules.life_limit);
    connect_with(spec, options, tls, clock).await
}

/// Opens a line. The subscription frames are written once the session is polled.
///
/// # Errors
/// [`TransportError::ConnectDeadline`] when DNS, TCP, TLS and the upgrade together exceed the rules' connect deadline,
/// [`TransportError::Upgrade`] when the server answers the upgrade with another status, else
/// [`TransportError::Connect`] or [`TransportError::Address`].
pub async fn connect_with(
    spec: ConnectSpec,
    options: SessionOptions,
    tls: Arc<ClientConfig>,
    clock: UtcClock,
) -> Result<Session, TransportError> {
    let config = socket_config(spec.rules.max_frame_bytes);
    let connector = Connector::Rustls(tls);
    let opening = connect_async_tls_with_config(spec.url.as_str(), Some(config), true, Some(connector));
    let after = spec.rules.connect_deadline;
    match tokio::time::timeout(after, opening).await {
        Err(_) => Err(TransportError::ConnectDeadline { url: spec.url, after }),
        Ok(Err(error)) => Err(connect_error(spec.url, error, clock())),
        Ok(Ok((socket, _))) => Ok(Session::new(socket, spec, options, clock)),
    }
}

/// A fragmented message is bounded like a frame; what we write is small, so its buffer is too.
fn socket_config(max_frame_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(1 << 20)
        .max_frame_size(Some(max_frame_bytes))
        .max_message_size(Some(max_frame_bytes))
}

fn connect_error(url: String, error: WsError, now_us: i64) -> TransportError {
    match error {
        WsError::Http(response) => {
            let header = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            let retry_after = header.and_then(|v| parse_retry_after(v, now_us));
            TransportError::Upgrade { url, status: response.status().as_u16(), retry_after }
        }
        WsError::Url(_) | WsError::HttpFormat(_) => {
            TransportError::Address { url, reason: error.to_string() }
        }
        error => TransportError::Connect { url, reason: error.to_string() },
    }
}
