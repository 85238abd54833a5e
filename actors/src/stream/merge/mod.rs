//! Merges what several lines say of the same streams into one sequence without repetition or, where ids tell, holes.
//! Pure: time comes with the events or as an argument.
//!
//! It belongs to the shard and not to an instance of its actor: two lines of a pair feed it, a connection and the one
//! that replaces it, and, while one instance hands over to the next, the lines of both.
//!
//! | ids | rule |
//! |---|---|
//! | chained (depth, consecutive trade ids) | first come first passed; what is ahead of a hole waits until another line fills it, or none can, or its time is over: then it passes with the gap told |
//! | ordered (increasing ids, event times) | first come first passed, once a line is known to begin at or before what has been passed |
//! | names without order | first come first passed, by a memory of recent names |
//! | none, or ids of a connection ([`fathom_venues::MergeRule::PerConnection`]) | one line at a time; the next one when it goes or is silent |
//!
//! For ids of a connection the change of the line costs one reset of the book. A shadow book that syncs on the new line
//! and is then swapped in would cost nothing: that is the better answer once a venue needs it, and [`Sink::cut`] is its
//! place.

mod position;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use fathom_market::{
    event::{Channel, Event},
    ids::Market,
    instrument::InstrumentIdx,
};
use fathom_venues::Venue;

use self::{
    position::Rules,
    stream::{Desk, Stream},
};
use super::line::Sink;

/// Names one connection of a line: never used twice, whatever instance of the actor opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineKey {
    /// The instance of the actor that opened it.
    pub generation: u64,
    serial: u64,
}

/// What may wait in a merge.
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// How long an event waits for what is missing before it, microseconds.
    pub hold_us: i64,
    /// Events of one line and stream that may wait.
    pub held_a_stream: usize,
    /// Events that may wait in all.
    pub held_in_all: usize,
}

impl Default for MergeLimits {
    fn default() -> Self {
        Self { hold_us: 2_000_000, held_a_stream: 1024, held_in_all: 65_536 }
    }
}

/// What one connection has contributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were passed on.
    pub passed: u64,
    /// Events that had been passed already.
    pub duplicates: u64,
    /// Breaks of its own depth sequences, whether another line filled them or not; only counted beside another line.
    pub gaps: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.duplicates += other.duplicates;
        self.gaps += other.gaps;
    }
}

/// What became of everything offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events passed on.
    pub passed: u64,
    /// Events dropped because they had been passed.
    pub duplicates: u64,
    /// Holes that were told.
    pub gaps: u64,
    /// Trades missing in them, plus one for each break of a depth sequence, whose ids do not tell how many.
    pub missed: u64,
    /// Time during which at least one stream that had been carried was carried by no line, microseconds.
    pub dark_us: i64,
}

impl Counters {
    /// What has been added since an earlier state.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            passed: self.passed - before.passed,
            duplicates: self.duplicates - before.duplicates,
            gaps: self.gaps - before.gaps,
            missed: self.missed - before.missed,
            dark_us: self.dark_us - before.dark_us,
        }
    }
}

/// Streams that no line carries any more.
pub type Uncarried = BTreeMap<InstrumentIdx, Vec<Channel>>;

#[derive(Debug, Default)]
struct Streams {
    quote: Stream,
    trade: Stream,
    depth: Stream,
    rest: Vec<(Channel, Stream)>,
}

impl Streams {
    #[inline]
    fn get_mut(&mut self, channel: Channel) -> &mut Stream {
        match channel {
            Channel::Quote => &mut self.quote,
            Channel::Trade => &mut self.trade,
            Channel::Depth => &mut self.depth,
            other => {
                let at = self.rest.iter().position(|(channel, _)| *channel == other);
                let at = at.unwrap_or_else(|| {
                    self.rest.push((other, Stream::default()));
                    self.rest.len() - 1
                });
                &mut self.rest[at].1
            }
        }
    }

    fn get(&self, channel: Channel) -> Option<&Stream> {
        match channel {
            Channel::Quote => Some(&self.quote),
            Channel::Trade => Some(&self.trade),
            Channel::Depth => Some(&self.depth),
            other => self.rest.iter().find(|(channel, _)| *channel == other).map(|(_, stream)| stream),
        }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = (Channel, &mut Stream)> {
        let fixed = [
            (Channel::Quote, &mut self.quote),
            (Channel::Trade, &mut self.trade),
            (Channel::Depth, &mut self.depth),
        ];
        fixed.into_iter().chain(self.rest.iter_mut().map(|(channel, stream)| (*channel, stream)))
    }
}

/// The merge of one shard.
pub struct Merge {
    rules: Rules,
    limits: MergeLimits,
    streams: Vec<Streams>,
    lines: Vec<(LineKey, Tally)>,
    counters: Counters,
    held: usize,
    next_serial: u64,
    dark: usize,
    dark_since_us: i64,
}

impl Merge {
    /// A merge by a venue's rules.
    pub fn new(venue: &dyn Venue, market: Market) -> Self {
        let rules = Rules {
            sync: venue.sync_rule(market),
            merge: venue.merge_rule(market),
            trades: venue.trade_ids(market),
        };
        Self::with(rules, MergeLimits::default())
    }

    const fn with(rules: Rules, limits: MergeLimits) -> Self {
        Self {
            rules,
            limits,
            streams: Vec::new(),
            lines: Vec::new(),
            counters: Counters { passed: 0, duplicates: 0, gaps: 0, missed: 0, dark_us: 0 },
            held: 0,
            next_serial: 0,
            dark: 0,
            dark_since_us: 0,
        }
    }

    /// Enters a new connection of an instance. It carries a stream from its first event or [`Merge::attach`] on.
    pub fn enter(&mut self, generation: u64) -> LineKey {
        let key = LineKey { generation, serial: self.next_serial };
        self.next_serial += 1;
        self.lines.push((key, Tally::default()));
        key
    }

    /// The connection will never be opened.
    pub fn forget(&mut self, line: LineKey) {
        self.lines.retain(|(key, _)| *key != line);
    }

    /// Takes an event; one of a connection that has left is ignored.
    #[inline]
    pub fn offer(&mut self, line: LineKey, event: Event, out: &mut impl Sink) {
        let (instrument, channel) = (event.instrument, event.body.channel());
        if !self.carries(line, instrument, channel)
            && !self.attach(line, instrument, channel, event.recv_us, out)
        {
            return;
        }
        let (stream, mut desk) = self.desk(instrument, channel, out);
        stream.offer(line, event, &mut desk);
    }

    /// The connection carries this stream, whether it has spoken or not. False when it may not.
    pub fn attach(
        &mut self,
        line: LineKey,
        instrument: InstrumentIdx,
        channel: Channel,
        now_us: i64,
        out: &mut impl Sink,
    ) -> bool {
        if !self.lines.iter().any(|(key, _)| *key == line) {
            return false;
        }
        let stream = self.stream(instrument, channel);
        if stream.is_muted(line) {
            return false;
        }
        if stream.has(line) {
            return true;
        }
        let (was_dark, was_carried) = (stream.dark, stream.is_carried());
        let was_there = stream.dark_serial > line.serial;
        stream.attach(line, was_there, now_us);
        if was_dark {
            self.lighter(1, now_us);
        }
        if !was_carried {
            out.opened(instrument, channel);
        }
        true
    }

    /// The connection is over: gives the streams that no other carries.
    pub fn leave(&mut self, line: LineKey, now_us: i64, out: &mut impl Sink) -> Uncarried {
        let mut uncarried = Uncarried::new();
        let Self { rules, limits, streams, lines, counters, held, next_serial, .. } = self;
        let mut desk = Desk { rules, limits, lines, counters, held, out };
        for (instrument, streams) in (0_u32..).map(InstrumentIdx).zip(streams) {
            for (channel, stream) in streams.all_mut() {
                if stream.detach(line, now_us, &mut desk) {
                    stream.dark_serial = *next_serial;
                    uncarried.entry(instrument).or_default().push(channel);
                }
            }
        }
        self.lines.retain(|(key, _)| *key != line);
        self.darker(uncarried.values().map(Vec::len).sum(), now_us);
        uncarried
    }

    /// As [`Merge::leave`] for every connection that another instance opened: it has ended without saying so.
    pub fn leave_strangers(&mut self, generation: u64, now_us: i64, out: &mut impl Sink) -> Uncarried {
        let strangers: Vec<LineKey> =
            self.lines.iter().map(|(key, _)| *key).filter(|key| key.generation != generation).collect();
        let mut uncarried = Uncarried::new();
        for line in strangers {
            for (instrument, channels) in self.leave(line, now_us, out) {
                uncarried.entry(instrument).or_default().extend(channels);
            }
        }
        uncarried
    }

    /// The connection has given up this stream, which is no loss.
    pub fn mute(
        &mut self,
        line: LineKey,
        instrument: InstrumentIdx,
        channel: Channel,
        now_us: i64,
        out: &mut impl Sink,
    ) {
        let (stream, mut desk) = self.desk(instrument, channel, out);
        let was_dark = stream.dark;
        stream.mute(line, now_us, &mut desk);
        if was_dark {
            stream.dark = false;
            self.lighter(1, now_us);
        }
    }

    /// The connection may carry this stream again.
    pub fn unmute(&mut self, line: LineKey, instrument: InstrumentIdx, channel: Channel) {
        self.stream(instrument, channel).unmute(line);
    }

    /// Passes on what has waited long enough.
    pub fn expire(&mut self, now_us: i64, out: &mut impl Sink) {
        if self.held == 0 {
            return;
        }
        let Self { rules, limits, streams, lines, counters, held, .. } = self;
        let mut desk = Desk { rules, limits, lines, counters, held, out };
        for stream in streams.iter_mut().flat_map(Streams::all_mut).map(|(_, stream)| stream) {
            stream.settle(now_us, &mut desk);
        }
    }

    /// True while a connection carries this stream.
    pub fn is_carried(&self, instrument: InstrumentIdx, channel: Channel) -> bool {
        self.find(instrument, channel).is_some_and(Stream::is_carried)
    }

    /// True while another connection carries this stream.
    pub fn is_carried_beside(&self, line: LineKey, instrument: InstrumentIdx, channel: Channel) -> bool {
        self.find(instrument, channel).is_some_and(|stream| stream.is_carried_beside(line))
    }

    /// True when this connection alone could carry the stream from now on without a loss. `acked_us` is when all its
    /// subscriptions had been acknowledged.
    pub fn is_warm(
        &self,
        line: LineKey,
        instrument: InstrumentIdx,
        channel: Channel,
        acked_us: Option<i64>,
    ) -> bool {
        self.find(instrument, channel).is_some_and(|stream| stream.is_warm(line, acked_us))
    }

    /// Since when another connection has spoken of this stream while this one has not.
    pub fn behind_since_us(&self, line: LineKey, instrument: InstrumentIdx, channel: Channel) -> Option<i64> {
        self.find(instrument, channel)?.behind_since_us(line)
    }

    /// What a connection has contributed so far.
    pub fn tally(&self, line: LineKey) -> Tally {
        self.lines.iter().find(|(key, _)| *key == line).map(|(_, tally)| *tally).unwrap_or_default()
    }

    /// What became of everything offered.
    pub fn counters(&self, now_us: i64) -> Counters {
        let dark_us = if self.dark > 0 { now_us - self.dark_since_us } else { 0 };
        Counters { dark_us: self.counters.dark_us + dark_us, ..self.counters }
    }

    /// Events that wait.
    pub const fn held(&self) -> usize {
        self.held
    }

    fn carries(&self, line: LineKey, instrument: InstrumentIdx, channel: Channel) -> bool {
        self.find(instrument, channel).is_some_and(|stream| stream.has(line))
    }

    fn find(&self, instrument: InstrumentIdx, channel: Channel) -> Option<&Stream> {
        self.streams.get(instrument.0 as usize)?.get(channel)
    }

    fn stream(&mut self, instrument: InstrumentIdx, channel: Channel) -> &mut Stream {
        grown(&mut self.streams, instrument).get_mut(channel)
    }

    #[inline]
    fn desk<'a, S>(
        &'a mut self,
        instrument: InstrumentIdx,
        channel: Channel,
        out: &'a mut S,
    ) -> (&'a mut Stream, Desk<'a, S>) {
        let Self { rules, limits, streams, lines, counters, held, .. } = self;
        let stream = grown(streams, instrument).get_mut(channel);
        (stream, Desk { rules, limits, lines, counters, held, out })
    }

    const fn darker(&mut self, streams: usize, now_us: i64) {
        if self.dark == 0 {
            self.dark_since_us = now_us;
        }
        self.dark += streams;
    }

    const fn lighter(&mut self, streams: usize, now_us: i64) {
        self.dark = self.dark.saturating_sub(streams);
        if self.dark == 0 {
            self.counters.dark_us += now_us - self.dark_since_us;
        }
    }
}

#[inline]
fn grown(streams: &mut Vec<Streams>, instrument: InstrumentIdx) -> &mut Streams {
    let at = instrument.0 as usize;
    if at >= streams.len() {
        streams.resize_with(at + 1, Streams::default);
    }
    &mut streams[at]
}

/// How long a line may be behind another on a stream before it is taken for dead there.
pub const BEHIND_FOR: Duration = Duration::from_secs(5);
