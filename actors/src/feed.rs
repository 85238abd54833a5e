//! What flows from a line to the books, in order, through each book's inbox.

use fathom_market::{
    event::{Candle, Channel, Event},
    timeframe::Timeframe,
};

/// One item of a book's inbox.
#[derive(Clone, Debug)]
pub enum FeedItem {
    /// Events of the instrument, in the order of the socket. Deltas among them have passed their line's chain check.
    Events(Vec<Event>),
    /// A line that carries the instrument was lost, or has not yet delivered: what it carries is in doubt.
    Reset {
        /// The channels of this instrument that the line carries.
        channels: Vec<Channel>,
        /// Why.
        cause: &'static str,
    },
    /// A line that carries the instrument has begun to deliver.
    Open {
        /// The channels of this instrument that the line carries.
        channels: Vec<Channel>,
    },
    /// Candles that were fetched, not streamed.
    Candles {
        /// The candles, oldest first.
        candles: Vec<Candle>,
        /// When they were asked for.
        asked_us: i64,
    },
    /// The catch-up of a candle series is over: nothing of it is missing up to the live candles that follow.
    CaughtUp {
        /// The series.
        timeframe: Timeframe,
        /// Start of the last candle that was stored before, where one was and nothing came after it.
        stored_ms: Option<i64>,
    },
    /// The sequence of the depth stream broke on the line; the update that showed it follows.
    Gap {
        /// The id that would have followed.
        expected: u64,
        /// The id that came.
        got: u64,
    },
    /// The venue set the ids or the clock of a channel back; what follows is new, however small its ids are.
    SetBack {
        /// The channel.
        channel: Channel,
    },
    /// Channels were found silent on an open line, and are subscribed again.
    Silent {
        /// The channels of this instrument.
        channels: Vec<Channel>,
    },
    /// A record of a channel could not be read; for depth, the book has a hole.
    Unreadable {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: &'static str,
    },
    /// The inbox was full: so many events are missing here.
    Overflow {
        /// Events dropped.
        events: usize,
    },
    /// Everything that was read from the sockets before this minute boundary has been sent before this item.
    Boundary {
        /// The boundary.
        at_ms: i64,
    },
    /// The line's actor is alive.
    Pulse,
}

impl FeedItem {
    /// When the first of its events was read from the socket, microseconds.
    pub fn received_us(&self) -> Option<i64> {
        let Self::Events(events) = self else { return None };
        events.first().map(|event| event.recv_us)
    }
}

/// What a book asks of the shard that feeds it. Travels against the data, and never blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewStream {
    /// The book's instrument.
    pub instrument: fathom_market::instrument::InstrumentIdx,
    /// The channel that is silent although others are not.
    pub channel: Channel,
}
