//! Which streams of a line are alive, by evidence. Pure: time is an argument.
//!
//! A quiet market is not a dead stream. Each stream's pace is learned; one that is silent for twice what it exceeds once in
//! a thousand times, while its line delivers others, is subscribed again, which harms nobody. A new connection takes hard
//! evidence that comes after that: a promised pace is broken, or whoever compares streams says so
//! ([`Liveness::suspect`]). A stream that stays quiet after its renewal is left alone for twice as long, and so on.

mod index;
pub mod pace;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fathom_market::{event::Channel, instrument::InstrumentIdx, plan::StreamSpec};

use self::{index::Index, pace::Pace};
use crate::kernel::clock::micros;

/// A stream that even a new connection did not wake gets no other one for this long.
const GIVEN_UP_FOR_US: i64 = 600_000_000;
/// One line is not opened anew for its streams more often than this, whichever they are.
const RECONNECT_EVERY_US: i64 = 60_000_000;
/// Streams that were renewed in vain are renewed together, at most this often: a venue counts requests.
const REPEAT_EVERY_US: i64 = 10_000_000;
/// How much longer than the ceiling a stream that stays quiet is left alone between two renewals.
const REST_CEILINGS: i64 = 6;
/// A stream that gave no false alarm for so long is trusted a step less to be merely quiet.
const FORGIVEN_AFTER_US: i64 = 3_600_000_000;
const MAX_DOUBLINGS: u8 = 16;

/// How silence is judged.
#[derive(Clone, Copy, Debug)]
pub struct LivenessRules {
    /// A promised pace is broken after this many of its intervals.
    pub tolerance: u32,
    /// Any stream may be silent for this long, and a renewed one has this long to speak.
    pub floor: Duration,
    /// None whose pace is known may be silent for longer than this without being subscribed again.
    pub ceiling: Duration,
}

impl Default for LivenessRules {
    fn default() -> Self {
        Self { tolerance: 5, floor: Duration::from_secs(5), ceiling: Duration::from_secs(600) }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Subscribe these streams (positions in the line's plan) again.
    Resubscribe(Vec<usize>),
    /// Subscribing again did not help this stream: the line is to be opened anew.
    Reconnect(usize),
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Subscribed, nothing has come yet.
    Waiting,
    /// It speaks.
    Live,
    /// It is taken for dead and was subscribed again.
    Renewed,
    /// It was subscribed again and stayed silent, and nothing else speaks against it.
    Quiet,
}

impl StreamState {
    /// `waiting`, `live`, `renewed` or `quiet`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Renewed => "renewed",
            Self::Quiet => "quiet",
        }
    }
}

/// Subscribed again and not heard since.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    at_us: i64,
    at_line_us: i64,
    /// How often in a row.
    times: u8,
    /// More than silence speaks against the stream.
    convicted: bool,
}

#[derive(Clone, Debug)]
struct Watched {
    key: (InstrumentIdx, Channel),
    /// The silence that breaks the venue's promise.
    promise_us: Option<i64>,
    /// The interval that it promises.
    expect_us: i64,
    subscribed_us: i64,
    last_us: Option<i64>,
    /// When it last spoke, on the line's own clock.
    last_line_us: i64,
    renewal: Option<Renewal>,
    /// How often its threshold is doubled.
    doublings: u8,
    doubled_us: i64,
    /// When even a new connection was tried for it.
    given_up_us: Option<i64>,
    pace: Pace,
}

/// The streams of one line.
#[derive(Debug)]
pub struct Liveness {
    rules: LivenessRules,
    streams: Vec<Watched>,
    index: Index,
    /// When the line delivered last.
    heard_us: Option<i64>,
    /// A clock that runs while the line delivers and stands while all of it is silent.
    line_us: i64,
    repeated_us: Option<i64>,
    reconnected_us: Option<i64>,
}

impl Liveness {
    /// Starts to watch the streams of a line that has just been opened.
    pub fn new(rules: LivenessRules, streams: &[StreamSpec], now_us: i64) -> Self {
        let watched = streams.iter().map(|stream| Watched::new(&rules, stream, now_us, 0));
        Self {
            rules,
            streams: watched.collect(),
            index: Index::new(streams),
            heard_us: None,
            line_us: 0,
            repeated_us: None,
            reconnected_us: None,
        }
    }

    /// Takes over what was learned on the connection before: the pace of each stream, which ones are merely quiet, and for
    /// which even a new connection was tried: one that belongs to a symbol of the past would otherwise have the line
    /// opened anew for ever.
    #[must_use]
    pub fn remembering(mut self, before: &Self) -> Self {
        self.reconnected_us = before.reconnected_us;
        for stream in &mut self.streams {
            let Some(before) = before.find(stream.key) else { continue };
            stream.pace = before.pace.clone();
            stream.doublings = before.doublings;
            stream.doubled_us = before.doubled_us;
            stream.given_up_us = before.given_up_us;
        }
        self
    }

    /// The line's plan has changed. Streams that stay keep everything, whatever their new position.
    pub fn reshape(&mut self, streams: &[StreamSpec], now_us: i64) {
        let watched = streams.iter().map(|stream| {
            self.find((stream.instrument, stream.channel))
                .cloned()
                .unwrap_or_else(|| Watched::new(&self.rules, stream, now_us, self.line_us))
        });
        self.streams = watched.collect();
        self.index = Index::new(streams);
    }

    /// The stream spoke. Called for every event.
    #[inline]
    pub fn touch(&mut self, instrument: InstrumentIdx, channel: Channel, now_us: i64) {
        if self.heard_us != Some(now_us) {
            self.advance(now_us);
        }
        if let Some(at) = self.index.get(instrument, channel) {
            self.streams[at].heard(now_us, self.line_us, &self.rules);
        }
    }

    /// A pause of the whole line convicts none of its streams: its clock takes a small part of the pause only.
    fn advance(&mut self, now_us: i64) {
        let most = micros(self.rules.floor) / 2;
        self.line_us += self.heard_us.map_or(0, |heard| (now_us - heard).clamp(0, most));
        self.heard_us = Some(now_us);
    }

    /// Looks for streams that are silent for too long.
    pub fn check(&mut self, now_us: i64) -> Option<Remedy> {
        let floor_us = micros(self.rules.floor);
        let repeats = self.repeated_us.is_none_or(|last| now_us - last >= REPEAT_EVERY_US);
        let (mut renew, mut repeated) = (Vec::new(), false);
        for at in 0..self.streams.len() {
            let stream = &mut self.streams[at];
            stream.forgive(now_us);
            let convicted = stream.promise_is_broken(now_us);
            if convicted {
                match stream.convict(now_us, floor_us.max(stream.expect_us)) {
                    Verdict::Wait => continue,
                    Verdict::Reconnect if self.may_reconnect(now_us) => {
                        return Some(self.reconnect(at, now_us));
                    }
                    // The line was opened anew a moment ago, and so was the subscription.
                    Verdict::Reconnect => continue,
                    Verdict::Renew => {}
                }
            } else if !stream.is_overdue(self.line_us, &self.rules) {
                continue;
            } else if stream.renewal.is_some() {
                if !repeats {
                    continue;
                }
                repeated = true;
            }
            self.streams[at].renew(now_us, self.line_us, convicted);
            renew.push(at);
        }
        if repeated {
            self.repeated_us = Some(now_us);
        }
        (!renew.is_empty()).then_some(Remedy::Resubscribe(renew))
    }

    /// Someone has hard evidence that the stream is dead: a book whose quotes run ahead of its depth, a REST answer that is
    /// ahead of the stream, the other line of a pair. While a renewal is fresh nothing more is done; evidence after
    /// that costs the connection, at most once in ten minutes for the same stream.
    pub fn suspect(&mut self, instrument: InstrumentIdx, channel: Channel, now_us: i64) -> Option<Remedy> {
        let at = self.index.get(instrument, channel)?;
        match self.streams[at].convict(now_us, micros(self.rules.floor)) {
            Verdict::Wait => None,
            Verdict::Reconnect if self.may_reconnect(now_us) => Some(self.reconnect(at, now_us)),
            Verdict::Reconnect => None,
            Verdict::Renew => {
                self.streams[at].renew(now_us, self.line_us, true);
                Some(Remedy::Resubscribe(vec![at]))
            }
        }
    }

    /// Streams that the other line of a pair has heard, although this one has been silent for what they allow. Each of
    /// them is to be given to [`suspect`](Self::suspect).
    pub fn behind(&self, other: &Self) -> Vec<(InstrumentIdx, Channel)> {
        let is_behind = |mine: &&Watched| {
            let Some(theirs) = other.find(mine.key) else { return false };
            let pace_us = theirs.pace.p999_us().or(mine.pace.p999_us()).unwrap_or(0);
            let allowed_us = (2 * pace_us).max(micros(self.rules.floor));
            theirs.last_us.is_some_and(|last| last - mine.last_us.unwrap_or(mine.subscribed_us) > allowed_us)
        };
        self.streams.iter().filter(is_behind).map(|stream| stream.key).collect()
    }

    fn may_reconnect(&self, now_us: i64) -> bool {
        self.reconnected_us.is_none_or(|last| now_us - last >= RECONNECT_EVERY_US)
    }

    /// The new connection is tried for every stream that is convicted now.
    fn reconnect(&mut self, at: usize, now_us: i64) -> Remedy {
        self.reconnected_us = Some(now_us);
        let convicted = |stream: &&mut Watched| stream.renewal.is_some_and(|renewal| renewal.convicted);
        for stream in self.streams.iter_mut().filter(convicted) {
            stream.given_up_us = Some(now_us);
        }
        Remedy::Reconnect(at)
    }

    /// The state of a stream by its position, and when it spoke last.
    pub fn state(&self, at: usize) -> Option<(StreamState, Option<i64>)> {
        let stream = self.streams.get(at)?;
        Some((stream.state(), stream.last_us))
    }

    /// The silence that a stream exceeds once in a thousand times, microseconds; `None` until it is learned.
    pub fn p999_us(&self, at: usize) -> Option<i64> {
        self.streams.get(at)?.pace.p999_us()
    }

    /// Streams that have spoken, and all of them.
    pub fn counts(&self) -> (usize, usize) {
        (self.streams.iter().filter(|stream| stream.last_us.is_some()).count(), self.streams.len())
    }

    /// Streams that are taken for dead.
    pub fn suspects(&self) -> usize {
        self.streams.iter().filter(|stream| stream.state() == StreamState::Renewed).count()
    }

    fn find(&self, (instrument, channel): (InstrumentIdx, Channel)) -> Option<&Watched> {
        self.streams.get(self.index.get(instrument, channel)?)
    }
}

enum Verdict {
    Wait,
    Renew,
    Reconnect,
}

impl Watched {
    fn new(rules: &LivenessRules, stream: &StreamSpec, now_us: i64, line_us: i64) -> Self {
        let expect_us = stream.expect_every.map(micros);
        let limit = |expect: i64| (expect * i64::from(rules.tolerance)).max(micros(rules.floor));
        Self {
            key: (stream.instrument, stream.channel),
            promise_us: expect_us.map(limit),
            expect_us: expect_us.unwrap_or(0),
            subscribed_us: now_us,
            last_us: None,
            last_line_us: line_us,
            renewal: None,
            doublings: 0,
            doubled_us: now_us,
            given_up_us: None,
            pace: Pace::default(),
        }
    }

    #[inline]
    fn heard(&mut self, now_us: i64, line_us: i64, rules: &LivenessRules) {
        if self.last_us == Some(now_us) {
            return;
        }
        let learns = self.renewal.is_none() || self.answered(now_us, rules);
        if learns && self.last_us.is_some() {
            self.pace.add(line_us - self.last_line_us);
        }
        self.last_us = Some(now_us);
        self.last_line_us = line_us;
    }

    /// A renewed stream spoke. True when it was merely quiet, so that the silence belongs to its pace: it spoke too late
    /// for the renewal to be the reason, and nothing else spoke against it.
    #[cold]
    fn answered(&mut self, now_us: i64, rules: &LivenessRules) -> bool {
        self.given_up_us = None;
        let Some(renewal) = self.renewal.take() else { return true };
        let at_once = renewal.times == 1 && now_us - renewal.at_us <= micros(rules.floor);
        let was_quiet = !at_once && !renewal.convicted;
        if !was_quiet {
            self.doublings = self.doublings.saturating_sub(renewal.times);
        }
        was_quiet
    }

    /// Silent for longer than its learned pace allows, by the line's clock.
    fn is_overdue(&self, line_us: i64, rules: &LivenessRules) -> bool {
        let silent_us = line_us - self.renewal.map_or(self.last_line_us, |renewal| renewal.at_line_us);
        let floor_us = micros(rules.floor);
        if silent_us <= floor_us {
            return false;
        }
        let Some(p999_us) = self.pace.p999_us() else { return false };
        let mut ceiling_us = micros(rules.ceiling);
        if self.renewal.is_some() {
            ceiling_us = ceiling_us.saturating_mul(REST_CEILINGS);
        }
        let allowed = (2 * p999_us).max(floor_us).saturating_mul(1 << self.doublings);
        silent_us > allowed.min(ceiling_us)
    }

    fn promise_is_broken(&self, now_us: i64) -> bool {
        self.promise_us.is_some_and(|limit| now_us - self.last_us.unwrap_or(self.subscribed_us) > limit)
    }

    /// What hard evidence leads to: a renewal, patience with one that is fresh, or a new connection.
    fn convict(&mut self, now_us: i64, patience_us: i64) -> Verdict {
        let Some(renewal) = &mut self.renewal else { return Verdict::Renew };
        let known = std::mem::replace(&mut renewal.convicted, true);
        if now_us - renewal.at_us <= patience_us {
            return Verdict::Wait;
        }
        // What was renewed for its silence alone, perhaps long ago, is renewed once more.
        if !known {
            return Verdict::Renew;
        }
        if self.given_up_us.is_none_or(|at| now_us - at >= GIVEN_UP_FOR_US) {
            return Verdict::Reconnect;
        }
        // No connection wakes it: it is asked for again now and then.
        let rest_us = patience_us.saturating_mul(1 << self.doublings).min(GIVEN_UP_FOR_US);
        if now_us - renewal.at_us > rest_us { Verdict::Renew } else { Verdict::Wait }
    }

    fn renew(&mut self, now_us: i64, line_us: i64, convicted: bool) {
        let before = self.renewal;
        self.renewal = Some(Renewal {
            at_us: now_us,
            at_line_us: line_us,
            times: before.map_or(1, |before| before.times.saturating_add(1)),
            convicted: convicted || before.is_some_and(|before| before.convicted),
        });
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        self.doubled_us = now_us;
    }

    const fn forgive(&mut self, now_us: i64) {
        if self.doublings > 0 && self.renewal.is_none() && now_us - self.doubled_us >= FORGIVEN_AFTER_US {
            self.doublings -= 1;
            self.doubled_us = now_us;
        }
    }

    const fn state(&self) -> StreamState {
        match (self.renewal, self.last_us) {
            (Some(renewal), _) if renewal.convicted || renewal.times == 1 => StreamState::Renewed,
            (Some(_), _) => StreamState::Quiet,
            (None, Some(_)) => StreamState::Live,
            (None, None) => StreamState::Waiting,
        }
    }
}
