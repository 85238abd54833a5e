//! One line: its plan, its reconnect machine, its decoder and sequence chains, and what it has seen. No IO here; the
//! shard's actor moves the bytes.

use std::{collections::BTreeMap, sync::Arc};

use fathom_market::{
    book::{LineChain, Link, SyncRule},
    event::{Body, Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::{ConnectSpec, OutFrame, StreamSpec},
};
use fathom_transport::SessionHandle;
use fathom_venues::{Decoded, Decoder, Venue, planner::EndpointPlan};

use super::{
    liveness::{Liveness, LivenessRules},
    reconnect::{Reconnect, ReconnectRules},
    status::LineStatus,
};

/// What a line is made of.
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
}

/// Where a line puts what it decodes.
pub trait Sink {
    /// An event whose sequence is in order.
    fn event(&mut self, event: Event);
    /// The depth sequence broke before the event that follows.
    fn gap(&mut self, instrument: InstrumentIdx, expected: u64, got: u64);
    /// A record could not be read.
    fn unreadable(&mut self, instrument: InstrumentIdx, channel: Channel, reason: &'static str);
}

/// One line.
pub struct Line {
    spec: LineSpec,
    rule: &'static dyn SyncRule,
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
    decoder: Box<dyn Decoder>,
    chains: Vec<LineChain>,
    decoded: Vec<Decoded>,
    next_request: u64,
    frames: u64,
    events: u64,
    last_frame_us: Option<i64>,
    renewed: u64,
    rejects: BTreeMap<&'static str, u64>,
    ignored: BTreeMap<&'static str, u64>,
}

impl Line {
    /// A line that has not connected yet.
    pub fn new(
        spec: LineSpec,
        table: Arc<InstrumentTable>,
        rules: ReconnectRules,
        liveness: LivenessRules,
        now_us: i64,
    ) -> Self {
        Self {
            rule: spec.venue.sync_rule(spec.market),
            reconnect: Reconnect::new(rules, now_us),
            liveness: Liveness::new(liveness, &spec.plan.streams, now_us),
            session: None,
            connection: 0,
            last_end: None,
            decoder: spec.venue.decoder(spec.market, spec.plan.class, table),
            chains: Vec::new(),
            decoded: Vec::new(),
            next_request: 1,
            frames: 0,
            events: 0,
            last_frame_us: None,
            renewed: 0,
            rejects: BTreeMap::new(),
            ignored: BTreeMap::new(),
            spec,
        }
    }

    /// Begins a connection: what is to be opened.
    pub fn open(&mut self, rules: LivenessRules, now_us: i64) -> ConnectSpec {
        self.connection += 1;
        self.reconnect.connecting(now_us);
        let liveness = Liveness::new(rules, &self.spec.plan.streams, now_us);
        self.liveness = liveness.remembering(&self.liveness);
        self.chains.clear();
        let LineSpec { venue, market, base, plan, .. } = &self.spec;
        let connect = venue.connect(*market, plan.class, base, &plan.streams, self.next_request);
        self.next_request += connect.subscribe.len() as u64;
        connect
    }

    /// Frames that subscribe these streams again.
    pub fn renew(&mut self, streams: &[usize]) -> Vec<OutFrame> {
        let chosen: Vec<StreamSpec> =
            streams.iter().filter_map(|&at| self.spec.plan.streams.get(at).cloned()).collect();
        let frames = self.spec.venue.resubscribe(self.spec.market, &chosen, self.next_request);
        self.next_request += frames.len() as u64;
        self.renewed += chosen.len() as u64;
        frames
    }

    /// Decodes what one read gave. Updates that the line has already sent are dropped, gaps are told.
    pub fn read<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a [u8]>,
        recv_us: i64,
        sink: &mut impl Sink,
    ) -> Notices {
        let mut decoded = std::mem::take(&mut self.decoded);
        for frame in frames {
            self.frames += 1;
            self.decoder.decode(frame, recv_us, &mut decoded);
        }
        self.last_frame_us = Some(recv_us);
        let mut notices = Notices::default();
        for item in decoded.drain(..) {
            self.sort(item, &mut notices, sink);
        }
        self.decoded = decoded;
        notices
    }

    fn sort(&mut self, item: Decoded, notices: &mut Notices, sink: &mut impl Sink) {
        match item {
            Decoded::Event(event) => self.pass(event, sink),
            Decoded::Ack(id) => {
                if let Some(session) = &self.session {
                    session.acked(id);
                }
            }
            Decoded::Refused { message, .. } => notices.refused.push(message),
            Decoded::ClosingSoon => notices.closing_soon = true,
            Decoded::InstrumentsChanged => notices.instruments_changed = true,
            Decoded::Ignored(reason) => *self.ignored.entry(reason).or_default() += 1,
            Decoded::Rejected { instrument, channel, error } => {
                *self.rejects.entry(error.reason()).or_default() += 1;
                tracing::debug!(line = %self.id(), %error, "record rejected");
                if let (Some(instrument), Some(channel)) = (instrument, channel) {
                    sink.unreadable(instrument, channel, error.reason());
                }
            }
        }
    }

    fn pass(&mut self, event: Event, sink: &mut impl Sink) {
        self.events += 1;
        self.liveness.touch(event.instrument, event.body.channel(), event.recv_us);
        if let Body::Delta(delta) = &event.body {
            let at = event.instrument.0 as usize;
            if at >= self.chains.len() {
                self.chains.resize(at + 1, LineChain::new());
            }
            match self.chains[at].check(self.rule, &delta.ids) {
                Link::Next => {}
                Link::Duplicate => {
                    *self.ignored.entry("duplicate_delta").or_default() += 1;
                    return;
                }
                Link::Gap { expected, got } => sink.gap(event.instrument, expected, got),
            }
        }
        sink.event(event);
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
        self.spec
            .plan
            .streams
            .iter()
            .any(|stream| stream.instrument == instrument && stream.channel == channel)
    }

    /// The name of a stream by its position.
    pub fn stream_name(&self, at: usize) -> &str {
        self.spec.plan.streams.get(at).map_or("?", |stream| &stream.name)
    }

    /// Stable id within the shard.
    pub fn id(&self) -> String {
        format!("{}/{}", self.spec.plan.class.as_str(), self.spec.letter)
    }

    /// Events passed on or dropped as duplicates.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Records rejected, by reason.
    pub const fn rejects(&self) -> &BTreeMap<&'static str, u64> {
        &self.rejects
    }

    /// Frames and records of no use, by reason.
    pub const fn ignored(&self) -> &BTreeMap<&'static str, u64> {
        &self.ignored
    }

    /// What the line publishes.
    pub fn status(&self, now_us: i64) -> LineStatus {
        let (streams_live, streams) = self.liveness.counts();
        LineStatus {
            id: self.id(),
            class: self.spec.plan.class.as_str(),
            state: self.reconnect.state(),
            since_us: self.reconnect.since_us(),
            breaker: self.reconnect.breaker(now_us),
            connection: self.connection,
            connected_us: self.reconnect.opened_us(),
            reconnects: self.reconnect.reconnects(),
            last_end: self.last_end.clone(),
            frames: self.frames,
            last_frame_us: self.last_frame_us,
            streams,
            streams_live,
            renewed: self.renewed,
        }
    }
}
