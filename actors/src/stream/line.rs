//! One line: its plan, its reconnect machine, its decoder and what it has seen. No IO here; the shard's actor moves the
//! bytes, and the shard's merge checks the sequences.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::SpawnHandle;
use fathom_market::{
    event::{Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::{ConnectSpec, OutFrame, StreamSpec},
};
use fathom_transport::SessionHandle;
use fathom_venues::{Decoded, Decoder, Venue, planner::EndpointPlan};

use super::{
    liveness::{Liveness, LivenessRules},
    merge::{LineKey, Tally},
    reconnect::{Reconnect, ReconnectRules},
    status::{LineStatus, Role},
};

/// What a line is made of.
#[derive(Clone)]
pub struct LineSpec {
    /// The venue.
    pub venue: &'static dyn Venue,
    /// The market.
    pub market: Market,
    /// Base address of its endpoint class.
    pub base: String,
    /// Its streams.
    pub plan: EndpointPlan,
    /// Which of its class's lines it is: `a`, or `b` of a pair.
    pub letter: char,
}

/// What the frames of one read said, besides events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// The server announced that it will close.
    pub closing_soon: bool,
    /// The venue's list of instruments changed.
    pub instruments_changed: bool,
    /// Requests that the venue refused, in its words.
    pub refused: Vec<String>,
    /// Streams whose subscription is now acknowledged.
    pub subscribed: Vec<(InstrumentIdx, Channel)>,
}

/// Where a line puts what it decodes, and a merge what it passes on.
pub trait Sink {
    /// An event; behind a merge, one whose sequence is in order.
    fn event(&mut self, event: Event);
    /// The depth sequence broke before the event that follows.
    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64);
    /// A record could not be read.
    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str);
    /// A stream that no line carried is carried.
    fn opened(&mut self, instrument: InstrumentIdx, channel: Channel);
    /// The venue has set the numbers or the clock of the stream back: what follows does not join what came before.
    fn set_back(&mut self, instrument: InstrumentIdx, channel: Channel);
    /// The stream goes on from another connection, whose ids do not join those of the one before.
    fn cut(&mut self, instrument: InstrumentIdx, channel: Channel);
}

/// What a line has seen over all its connections.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Frames received.
    pub frames: u64,
    /// Events decoded.
    pub events: u64,
    /// When the last frame came.
    pub last_frame_us: Option<i64>,
    /// Streams subscribed again because they were silent.
    pub renewed: u64,
    /// Records rejected, by reason.
    pub rejects: BTreeMap<&'static str, u64>,
    /// Frames and records of no use, by reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// What its former connections contributed.
    pub tally: Tally,
}

/// Requests under way, and the streams that they subscribe once all are acknowledged.
struct Asked {
    ids: Vec<u64>,
    streams: Vec<(InstrumentIdx, Channel)>,
}

/// What a changed plan asks of an open line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reshaped {
    /// Requests to send, in order.
    pub frames: Vec<OutFrame>,
    /// Streams that are new.
    pub added: Vec<(InstrumentIdx, Channel)>,
    /// Streams that are gone.
    pub removed: Vec<(InstrumentIdx, Channel)>,
}

/// One line.
pub struct Line {
    spec: LineSpec,
    /// Names its present connection, or the one to come, in the merge.
    pub key: LineKey,
    /// What it is about: waiting to connect, connecting, or reading.
    pub task: Option<SpawnHandle>,
    /// When it connects again.
    pub reconnect: Reconnect,
    /// Which of its streams are alive.
    pub liveness: Liveness,
    /// The open session.
    pub session: Option<SessionHandle>,
    /// Number of the present connection.
    pub connection: u64,
    /// Why the last connection ended.
    pub last_end: Option<String>,
    /// What it has seen.
    pub seen: Seen,
    decoder: Box<dyn Decoder>,
    decoded: Vec<Decoded>,
    next_request: u64,
    asked: Vec<Asked>,
    acked_us: Option<i64>,
    /// A connection is being opened; what it has to be told besides its subscription.
    opening: Option<Vec<OutFrame>>,
    life_limit: Duration,
}

impl Line {
    /// A line that has not connected yet.
    pub fn new(
        spec: LineSpec,
        key: LineKey,
        table: Arc<InstrumentTable>,
        rules: ReconnectRules,
        liveness: LivenessRules,
        now_us: i64,
    ) -> Self {
        Self {
            key,
            task: None,
            reconnect: Reconnect::new(rules, now_us),
            liveness: Liveness::new(liveness, &spec.plan.streams, now_us),
            session: None,
            connection: 0,
            last_end: None,
            seen: Seen::default(),
            decoder: spec.venue.decoder(spec.market, spec.plan.class, table),
            decoded: Vec::new(),
            next_request: 1,
            asked: Vec::new(),
            acked_us: None,
            opening: None,
            life_limit: Duration::MAX,
            spec,
        }
    }

    /// A line for the same streams, to be opened beside this one and to take its place.
    pub fn beside(
        &self,
        key: LineKey,
        table: Arc<InstrumentTable>,
        rules: ReconnectRules,
        liveness: LivenessRules,
        now_us: i64,
    ) -> Self {
        let mut next = Self::new(self.spec.clone(), key, table, rules, liveness, now_us);
        next.connection = self.connection;
        next.liveness = Liveness::new(liveness, &self.spec.plan.streams, now_us).remembering(&self.liveness);
        next
    }

    /// Takes over the counters of the line whose place it takes; `tally` is what that one's connection contributed.
    pub fn succeed(&mut self, before: &Self, tally: Tally) {
        self.reconnect.count(before.reconnect.reconnects());
        self.connection = self.connection.max(before.connection);
        self.last_end = self.last_end.take().or_else(|| before.last_end.clone());
        let seen = &mut self.seen;
        seen.frames += before.seen.frames;
        seen.events += before.seen.events;
        seen.renewed += before.seen.renewed;
        seen.last_frame_us = seen.last_frame_us.max(before.seen.last_frame_us);
        seen.tally += before.seen.tally;
        seen.tally += tally;
        for (sums, counts) in
            [(&mut seen.rejects, &before.seen.rejects), (&mut seen.ignored, &before.seen.ignored)]
        {
            counts.iter().for_each(|(reason, count)| *sums.entry(*reason).or_default() += *count);
        }
    }

    /// Begins a connection: what is to be opened.
    pub fn open(&mut self, rules: LivenessRules, now_us: i64) -> ConnectSpec {
        self.connection += 1;
        self.reconnect.connecting(now_us);
        let liveness = Liveness::new(rules, &self.spec.plan.streams, now_us);
        self.liveness = liveness.remembering(&self.liveness);
        let LineSpec { venue, market, base, plan, .. } = &self.spec;
        let connect = venue.connect(*market, plan.class, base, &plan.streams, self.next_request);
        self.next_request += connect.subscribe.len() as u64;
        self.life_limit = connect.rules.life_limit;
        self.acked_us = None;
        self.opening = Some(Vec::new());
        self.asked = vec![Asked { ids: ids(&connect.subscribe), streams: keys(&plan.streams) }];
        connect
    }

    /// The connection is open: what it has to be told besides its subscription.
    pub fn opened(&mut self, session: SessionHandle) -> Vec<OutFrame> {
        self.session = Some(session);
        self.opening.take().unwrap_or_default()
    }

    /// The connection is over, and the next one has another key.
    pub fn closed(&mut self, key: LineKey) {
        if let Some(session) = self.session.take() {
            session.close();
        }
        self.key = key;
        self.opening = None;
        self.asked.clear();
        self.acked_us = None;
    }

    /// Frames that subscribe these streams again.
    pub fn renew(&mut self, streams: &[usize]) -> Vec<OutFrame> {
        let chosen: Vec<StreamSpec> =
            streams.iter().filter_map(|&at| self.spec.plan.streams.get(at).cloned()).collect();
        let frames = self.spec.venue.resubscribe(self.spec.market, &chosen, self.next_request);
        self.next_request += frames.len() as u64;
        self.seen.renewed += chosen.len() as u64;
        frames
    }

    /// Follows a changed plan. The requests are for the open connection; one that is being opened is told later, and a
    /// later one subscribes the new plan anyway.
    pub fn reshape(&mut self, plan: &EndpointPlan, now_us: i64) -> Reshaped {
        let names = |streams: &[StreamSpec]| -> HashSet<String> {
            streams.iter().map(|stream| stream.name.clone()).collect()
        };
        let (before, after) = (names(&self.spec.plan.streams), names(&plan.streams));
        let gone = self.spec.plan.streams.iter().filter(|stream| !after.contains(&stream.name));
        let gone: Vec<StreamSpec> = gone.cloned().collect();
        let new: Vec<StreamSpec> =
            plan.streams.iter().filter(|stream| !before.contains(&stream.name)).cloned().collect();
        self.spec.plan = plan.clone();
        self.liveness.reshape(&plan.streams, now_us);
        if gone.is_empty() && new.is_empty() {
            return Reshaped::default();
        }
        let mut frames = Vec::new();
        if self.session.is_some() || self.opening.is_some() {
            let LineSpec { venue, market, .. } = self.spec;
            frames = venue.unsubscribe(market, &gone, self.next_request);
            let more = venue.subscribe(market, &new, self.next_request + frames.len() as u64);
            self.asked.push(Asked { ids: ids(&more), streams: keys(&new) });
            frames.extend(more);
            self.next_request += frames.len() as u64;
        }
        if let Some(later) = &mut self.opening {
            later.append(&mut frames);
        }
        Reshaped { frames, added: keys(&new), removed: keys(&gone) }
    }

    /// The market's instruments have grown.
    pub fn list(&mut self, table: Arc<InstrumentTable>) {
        self.decoder.set_table(table);
    }

    /// Decodes what one read gave.
    pub fn read<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a [u8]>,
        recv_us: i64,
        sink: &mut impl Sink,
    ) -> Notices {
        let mut decoded = std::mem::take(&mut self.decoded);
        for frame in frames {
            self.seen.frames += 1;
            self.decoder.decode(frame, recv_us, &mut decoded);
        }
        self.seen.last_frame_us = Some(recv_us);
        let mut notices = Notices::default();
        for item in decoded.drain(..) {
            self.sort(item, recv_us, &mut notices, sink);
        }
        self.decoded = decoded;
        notices
    }

    fn sort(&mut self, item: Decoded, now_us: i64, notices: &mut Notices, sink: &mut impl Sink) {
        match item {
            Decoded::Event(event) => {
                self.seen.events += 1;
                self.liveness.touch(event.instrument, event.body.channel(), event.recv_us);
                sink.event(event);
            }
            Decoded::Ack(id) => {
                if let Some(session) = &self.session {
                    session.acked(id);
                }
                self.answered(Some(id), now_us, notices);
            }
            Decoded::Refused { message, .. } => notices.refused.push(message),
            Decoded::ClosingSoon => notices.closing_soon = true,
            Decoded::InstrumentsChanged => notices.instruments_changed = true,
            Decoded::Ignored(reason) => *self.seen.ignored.entry(reason).or_default() += 1,
            Decoded::Rejected { instrument, channel, error } => {
                *self.seen.rejects.entry(error.reason()).or_default() += 1;
                tracing::debug!(line = %self.id(), %error, "record rejected");
                if let (Some(instrument), Some(channel)) = (instrument, channel) {
                    sink.unreadable(instrument, channel, error.reason());
                }
            }
        }
    }

    /// Notes an acknowledgement, or, without an id, that the session is open: requests that no venue acknowledges count
    /// as accepted then.
    pub fn answered(&mut self, id: Option<u64>, now_us: i64, notices: &mut Notices) {
        for asked in &mut self.asked {
            asked.ids.retain(|asked| Some(*asked) != id);
        }
        let settled: Vec<Asked> = self.asked.extract_if(.., |asked| asked.ids.is_empty()).collect();
        notices.subscribed.extend(settled.into_iter().flat_map(|asked| asked.streams));
        if self.asked.is_empty() {
            self.acked_us.get_or_insert(now_us);
        }
    }

    /// The channels that the line carries, by instrument.
    pub fn carries(&self) -> BTreeMap<InstrumentIdx, Vec<Channel>> {
        let mut channels: BTreeMap<InstrumentIdx, Vec<Channel>> = BTreeMap::new();
        for stream in &self.spec.plan.streams {
            channels.entry(stream.instrument).or_default().push(stream.channel);
        }
        channels
    }

    /// True when the line carries depth: its reads say where a minute boundary stands among the updates.
    pub fn carries_depth(&self) -> bool {
        self.spec.venue.classes(self.spec.market).first() == Some(&self.spec.plan.class)
    }

    /// True when the line carries this stream.
    pub fn has(&self, instrument: InstrumentIdx, channel: Channel) -> bool {
        self.streams().iter().any(|stream| stream.instrument == instrument && stream.channel == channel)
    }

    /// Its streams.
    pub fn streams(&self) -> &[StreamSpec] {
        &self.spec.plan.streams
    }

    /// The name of a stream by its position.
    pub fn stream_name(&self, at: usize) -> &str {
        self.spec.plan.streams.get(at).map_or("?", |stream| &stream.name)
    }

    /// What it is made of.
    pub const fn spec(&self) -> &LineSpec {
        &self.spec
    }

    /// Stable id within the shard.
    pub fn id(&self) -> String {
        format!("{}/{}", self.spec.plan.class.as_str(), self.spec.letter)
    }

    /// When all subscriptions of the present connection had been acknowledged.
    pub const fn acked_us(&self) -> Option<i64> {
        self.acked_us
    }

    /// The age at which the venue closes its connections.
    pub const fn life_limit(&self) -> Duration {
        self.life_limit
    }

    /// What the line publishes; `tally` is what its present connection has contributed.
    pub fn status(&self, role: Role, tally: Tally, rotates_us: Option<i64>, now_us: i64) -> LineStatus {
        let (streams_live, streams) = self.liveness.counts();
        let mut contributed = self.seen.tally;
        contributed += tally;
        LineStatus {
            id: self.id(),
            class: self.spec.plan.class.as_str(),
            role,
            state: self.reconnect.state(),
            since_us: self.reconnect.since_us(),
            breaker: self.reconnect.breaker(now_us),
            connection: self.connection,
            connected_us: self.reconnect.opened_us(),
            rotates_us,
            reconnects: self.reconnect.reconnects(),
            last_end: self.last_end.clone(),
            frames: self.seen.frames,
            last_frame_us: self.seen.last_frame_us,
            streams,
            streams_live,
            streams_suspect: self.liveness.suspects(),
            renewed: self.seen.renewed,
            passed: contributed.passed,
            duplicates: contributed.duplicates,
            breaks: contributed.gaps,
            win_rate: win_rate(contributed),
        }
    }
}

/// The share of a line's events that came before those of the lines beside it; `None` while nothing was doubled.
#[allow(clippy::cast_precision_loss, reason = "a rate to be looked at")]
fn win_rate(tally: Tally) -> Option<f64> {
    let all = tally.passed + tally.duplicates;
    (tally.duplicates > 0).then(|| (tally.passed as f64 / all as f64 * 1000.0).round() / 1000.0)
}

fn ids(frames: &[OutFrame]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame.ack).collect()
}

fn keys(streams: &[StreamSpec]) -> Vec<(InstrumentIdx, Channel)> {
    streams.iter().map(|stream| (stream.instrument, stream.channel)).collect()
}
