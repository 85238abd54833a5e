//! What a shard publishes of itself. Read without asking the actor.

use std::{collections::BTreeMap, sync::Arc};

use fathom_market::ids::{Market, VenueId};
use serde::{Serialize, Serializer};

use super::reconnect::ConnectionState;
use crate::kernel::BreakerState;

/// What a line is to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It holds the place.
    Current,
    /// It is opened beside the one that holds it, to take over.
    Next,
}

/// One line of a shard: a socket, or the wish for one.
#[derive(Clone, Debug, Serialize)]
pub struct LineStatus {
    /// Stable id within the shard, such as `public/a`.
    pub id: String,
    /// Endpoint class.
    pub class: &'static str,
    /// Whether it holds its place, or is opened to take it over.
    pub role: Role,
    /// Connection state.
    pub state: ConnectionState,
    /// Since when, microseconds.
    pub since_us: i64,
    /// Circuit breaker.
    pub breaker: BreakerState,
    /// Number of the connection, which grows with every one.
    pub connection: u64,
    /// When the present connection delivered first.
    pub connected_us: Option<i64>,
    /// When it is to be replaced by a new connection, before the venue's age limit.
    pub rotates_us: Option<i64>,
    /// Connections lost or failed.
    pub reconnects: u64,
    /// Why the last one ended.
    pub last_end: Option<String>,
    /// Frames received.
    pub frames: u64,
    /// When the last frame came.
    pub last_frame_us: Option<i64>,
    /// Streams subscribed.
    pub streams: usize,
    /// Streams that have delivered on this connection.
    pub streams_live: usize,
    /// Streams that were subscribed again and have not answered.
    pub streams_suspect: usize,
    /// Streams that were subscribed again because they were silent.
    pub renewed: u64,
    /// Events that it was the first to bring.
    pub passed: u64,
    /// Events that another line had brought before it.
    pub duplicates: u64,
    /// Breaks of its own depth sequences beside another line, filled or not.
    pub breaks: u64,
    /// Share of its events that it was the first to bring, 0 to 1; `None` while it was the only one.
    pub win_rate: Option<f64>,
}

/// A shard.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// Stable id, such as `binance-spot-high-0`.
    pub id: String,
    /// Venue.
    #[serde(serialize_with = "venue")]
    pub venue: VenueId,
    /// Market.
    pub market: Market,
    /// Tier.
    pub tier: &'static str,
    /// The worst state of its lines.
    pub state: ConnectionState,
    /// Instance of its actor, counted from 1.
    pub generation: u64,
    /// Native symbols whose books it feeds.
    pub symbols: Arc<[String]>,
    /// Lines.
    pub lines: Vec<LineStatus>,
    /// Events decoded.
    pub events: u64,
    /// When the last frame came on any line.
    pub last_frame_us: Option<i64>,
    /// Streams wanted.
    pub streams: usize,
    /// Those that a line carries and that have spoken.
    pub streams_live: usize,
    /// Those that were subscribed again and have not answered.
    pub streams_suspect: usize,
    /// Events that another line had brought before.
    pub duplicates: u64,
    /// Holes in what all lines together brought.
    pub gaps: u64,
    /// Trades missing in them, plus one for each break of a depth sequence.
    pub missed: u64,
    /// Events that wait for what is missing before them.
    pub held_events: usize,
    /// Events lost to full inboxes.
    pub lost_events: u64,
    /// Records rejected, by reason.
    pub rejects: BTreeMap<&'static str, u64>,
    /// Frames and records of no use, by reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// When this was published.
    pub observed_us: i64,
}

fn venue<S: Serializer>(venue: &VenueId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(venue.as_str())
}

/// The worst of several states.
pub fn worst(states: impl Iterator<Item = ConnectionState>) -> ConnectionState {
    let badness = |state: &ConnectionState| match state {
        ConnectionState::Connected => 0,
        ConnectionState::Connecting => 1,
        ConnectionState::Disconnected => 2,
        ConnectionState::Reconnecting => 3,
        ConnectionState::Failed => 4,
    };
    states.max_by_key(badness).unwrap_or(ConnectionState::Disconnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_as_good_as_its_worst_line() {
        use ConnectionState::{Connected, Connecting, Disconnected, Failed};
        assert_eq!(worst([Connected, Failed, Connecting].into_iter()), Failed);
        assert_eq!(worst([Connected, Connecting].into_iter()), Connecting);
        assert_eq!(worst([].into_iter()), Disconnected);
    }
}
