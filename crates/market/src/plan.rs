//! Plain values by which a venue says what to connect to and what to ask, and the transport does it. Neither knows
//! the other.

use std::{collections::BTreeMap, time::Duration};

use crate::{event::Channel, instrument::InstrumentIdx};

/// A class of WebSocket endpoint of a venue and market, such as Binance futures' `public` and `market` routes. Streams
/// of different classes never share a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointClass(pub &'static str);

impl EndpointClass {
    /// The name, as used in configuration (endpoint overrides) and in health.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Base addresses of a venue and market. Configuration may replace each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// REST base, such as `https://api.binance.com`.
    pub rest: String,
    /// WebSocket base of each endpoint class.
    pub ws: BTreeMap<&'static str, String>,
}

/// How fast depth updates are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DepthSpeed {
    /// The venue's fastest documented speed.
    Fast,
    /// A slower one, where the venue offers it.
    Slow,
}

/// One stream to subscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// The venue's name of the stream.
    pub name: String,
    /// Instrument.
    pub instrument: InstrumentIdx,
    /// What it carries.
    pub channel: Channel,
    /// The endpoint class that delivers it.
    pub class: EndpointClass,
    /// The longest silence that is normal; `None` where a quiet market may be silent for hours.
    pub expect_every: Option<Duration>,
}

/// A text frame to send, with the id by which the venue acknowledges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutFrame {
    /// Text to send.
    pub text: String,
    /// Id of the acknowledgement, where there is one.
    pub ack: Option<u64>,
}

/// How a client keeps a connection alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The server pings, the client only answers.
    ServerPings,
    /// The client sends WebSocket ping frames.
    PingFrame {
        /// Interval.
        every: Duration,
    },
    /// The client sends a text message.
    Text {
        /// Interval.
        every: Duration,
        /// Text to send.
        text: String,
    },
}

/// The timing and size rules of one WebSocket session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Bound on DNS, TCP, TLS and the upgrade together.
    pub connect_deadline: Duration,
    /// Bound on each subscription's acknowledgement.
    pub ack_deadline: Duration,
    /// Bound on the first data of the socket after the last acknowledgement.
    pub first_data_deadline: Duration,
    /// The socket is dead when no frame at all, pings included, came for this long.
    pub idle_timeout: Duration,
    /// Who pings.
    pub keep_alive: KeepAlive,
    /// The venue closes a connection at this age; it is replaced a little before.
    pub life_limit: Duration,
    /// Client messages a second that the venue tolerates, pings and pongs included.
    pub messages_per_second: u32,
    /// Largest frame accepted, bytes.
    pub max_frame_bytes: usize,
}

/// Everything needed to open one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectSpec {
    /// Address, `ws://` or `wss://`.
    pub url: String,
    /// Subscription frames, in order.
    pub subscribe: Vec<OutFrame>,
    /// Rules of the session.
    pub rules: SessionRules,
}

/// Limits of a venue's WebSocket service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketLimits {
    /// Streams that one socket may carry.
    pub streams_per_socket: usize,
    /// Sockets of one venue and market that we allow ourselves.
    pub sockets_per_market: usize,
    /// Connection attempts allowed within `connect_window`.
    pub connects: u32,
    /// Window of `connects`.
    pub connect_window: Duration,
}

/// Who asks; a lower one waits for a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A book cannot serve until this is answered.
    Resync,
    /// Live data without a stream.
    Live,
    /// A hole in what is stored.
    Repair,
    /// The past.
    History,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Resync, Self::Live, Self::Repair, Self::History];

    /// `resync`, `live`, `repair` or `history`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Live => "live",
            Self::Repair => "repair",
            Self::History => "history",
        }
    }
}

/// A REST GET to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSpec {
    /// Path below the REST base, such as `/api/v3/depth`.
    pub path: String,
    /// Query parameters, not yet percent-encoded.
    pub query: Vec<(&'static str, String)>,
    /// What the venue charges for it.
    pub weight: u32,
    /// Name of the limit that it draws on.
    pub group: &'static str,
}

/// A limit of a venue's REST service: so much weight in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRule {
    /// Name of the limit; every market that names the same host and group shares it.
    pub group: &'static str,
    /// Weight that the venue allows in a window.
    pub capacity: u32,
    /// Length of the window.
    pub window: Duration,
    /// Response header that tells the weight used in the current window, lower case.
    pub used_header: Option<&'static str>,
    /// Requests in flight at once.
    pub concurrency: usize,
}

/// A REST answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, where given.
    pub retry_after: Option<Duration>,
    /// Body, bounded by the transport.
    pub body: Vec<u8>,
}
