//! Which streams of a line are alive, by evidence. Pure: time is an argument.
//!
//! A quiet market is not a dead stream: only a channel that the venue promises to send at a pace is judged by its
//! silence alone. For the others the evidence comes from elsewhere (a book sees its quotes move while its depth
//! stands still) and arrives here as a suspicion.

use std::time::Duration;

use fathom_market::{event::Channel, instrument::InstrumentIdx, plan::StreamSpec};
use rustc_hash::FxHashMap;

/// A stream that even a new connection did not wake is left alone for this long.
const GIVEN_UP_FOR_US: i64 = 600_000_000;

/// How silence is judged.
#[derive(Clone, Copy, Debug)]
pub struct LivenessRules {
    /// A paced stream may be silent for this many of its intervals.
    pub tolerance: u32,
    /// It may be silent for this long in any case, and a renewed stream has this long to speak.
    pub floor: Duration,
}

impl Default for LivenessRules {
    fn default() -> Self {
        Self { tolerance: 5, floor: Duration::from_secs(10) }
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
    /// It was found silent and was subscribed again.
    Renewed,
}

impl StreamState {
    /// `waiting`, `live` or `renewed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Renewed => "renewed",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    expect_us: Option<i64>,
    subscribed_us: i64,
    last_us: Option<i64>,
    renewed_us: Option<i64>,
    /// When even a new connection was tried for it.
    given_up_us: Option<i64>,
}

/// The streams of one line.
#[derive(Debug)]
pub struct Liveness {
    rules: LivenessRules,
    streams: Vec<Watched>,
    by_key: FxHashMap<(InstrumentIdx, Channel), usize>,
}

impl Liveness {
    /// Starts to watch the streams of a line that has just been opened.
    pub fn new(rules: LivenessRules, streams: &[StreamSpec], now_us: i64) -> Self {
        let watched = streams.iter().map(|stream| Watched {
            expect_us: stream.expect_every.map(|every| micros(every) * i64::from(rules.tolerance)),
            subscribed_us: now_us,
            last_us: None,
            renewed_us: None,
            given_up_us: None,
        });
        let by_key = streams.iter().enumerate().map(|(at, stream)| ((stream.instrument, stream.channel), at));
        Self { rules, streams: watched.collect(), by_key: by_key.collect() }
    }

    /// Takes over for which streams even a new connection was tried: one that belongs to a symbol of the past would
    /// otherwise have the line opened anew for ever.
    #[must_use]
    pub fn remembering(mut self, before: &Self) -> Self {
        for (stream, before) in self.streams.iter_mut().zip(&before.streams) {
            stream.given_up_us = before.given_up_us;
        }
        self
    }

    /// The stream spoke.
    #[inline]
    pub fn touch(&mut self, instrument: InstrumentIdx, channel: Channel, now_us: i64) {
        if let Some(&at) = self.by_key.get(&(instrument, channel)) {
            self.streams[at].last_us = Some(now_us);
            self.streams[at].given_up_us = None;
        }
    }

    /// Looks for silent paced streams.
    pub fn check(&mut self, now_us: i64) -> Option<Remedy> {
        let floor = micros(self.rules.floor);
        let mut renew = Vec::new();
        for at in 0..self.streams.len() {
            let stream = self.streams[at];
            let Some(expect_us) = stream.expect_us else { continue };
            let heard =
                stream.last_us.unwrap_or(stream.subscribed_us).max(stream.renewed_us.unwrap_or(i64::MIN));
            if now_us - heard <= expect_us.max(floor) || is_given_up(&stream, now_us) {
                continue;
            }
            if unanswered(&stream) {
                self.streams[at].given_up_us = Some(now_us);
                return Some(Remedy::Reconnect(at));
            }
            self.streams[at].renewed_us = Some(now_us);
            renew.push(at);
        }
        (!renew.is_empty()).then_some(Remedy::Resubscribe(renew))
    }

    /// Someone has evidence that the stream is dead. While a renewal is fresh nothing more is done.
    pub fn suspect(&mut self, instrument: InstrumentIdx, channel: Channel, now_us: i64) -> Option<Remedy> {
        let at = *self.by_key.get(&(instrument, channel))?;
        let stream = &mut self.streams[at];
        match stream.renewed_us {
            Some(renewed) if now_us - renewed <= micros(self.rules.floor) => None,
            Some(_) if is_given_up(stream, now_us) => None,
            Some(_) if unanswered(stream) => {
                stream.given_up_us = Some(now_us);
                Some(Remedy::Reconnect(at))
            }
            _ => {
                stream.renewed_us = Some(now_us);
                Some(Remedy::Resubscribe(vec![at]))
            }
        }
    }

    /// The state of a stream by its position, and when it spoke last.
    pub fn state(&self, at: usize) -> Option<(StreamState, Option<i64>)> {
        let stream = self.streams.get(at)?;
        let state = if unanswered(stream) {
            StreamState::Renewed
        } else if stream.last_us.is_some() {
            StreamState::Live
        } else {
            StreamState::Waiting
        };
        Some((state, stream.last_us))
    }

    /// Streams that have spoken, and all of them.
    pub fn counts(&self) -> (usize, usize) {
        (self.streams.iter().filter(|stream| stream.last_us.is_some()).count(), self.streams.len())
    }
}

fn unanswered(stream: &Watched) -> bool {
    stream.renewed_us.is_some_and(|renewed| stream.last_us.is_none_or(|last| last < renewed))
}

/// A new connection did not help it not long ago.
fn is_given_up(stream: &Watched, now_us: i64) -> bool {
    stream.given_up_us.is_some_and(|at| now_us - at < GIVEN_UP_FOR_US)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use fathom_market::plan::EndpointClass;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn stream(instrument: u32, channel: Channel, expect: Option<u64>) -> StreamSpec {
        StreamSpec {
            name: format!("{instrument}@{}", channel.as_str()),
            instrument: InstrumentIdx(instrument),
            channel,
            class: EndpointClass("stream"),
            expect_every: expect.map(Duration::from_secs),
        }
    }

    fn watched() -> Liveness {
        let streams = [
            stream(0, Channel::Funding, Some(3)),
            stream(0, Channel::Trade, None),
            stream(0, Channel::Depth, None),
        ];
        Liveness::new(LivenessRules::default(), &streams, 0)
    }

    #[test]
    fn a_quiet_market_is_left_alone_for_hours() {
        let mut liveness = watched();
        for second in 0..6 * 3600 {
            liveness.touch(InstrumentIdx(0), Channel::Funding, second * SECOND);
            assert_eq!(liveness.check(second * SECOND), None, "second {second}");
        }
    }

    #[test]
    fn a_paced_stream_is_renewed_once_and_then_the_line() {
        let mut liveness = watched();
        liveness.touch(InstrumentIdx(0), Channel::Funding, SECOND);
        assert_eq!(liveness.check(16 * SECOND), None);
        assert_eq!(liveness.check(17 * SECOND), Some(Remedy::Resubscribe(vec![0])));
        assert_eq!(liveness.state(0), Some((StreamState::Renewed, Some(SECOND))));
        assert_eq!(liveness.check(30 * SECOND), None);
        assert_eq!(liveness.check(33 * SECOND), Some(Remedy::Reconnect(0)));
    }

    #[test]
    fn a_renewed_stream_that_speaks_is_healed() {
        let mut liveness = watched();
        assert_eq!(liveness.check(16 * SECOND), Some(Remedy::Resubscribe(vec![0])));
        liveness.touch(InstrumentIdx(0), Channel::Funding, 17 * SECOND);
        assert_eq!(liveness.state(0), Some((StreamState::Live, Some(17 * SECOND))));
        assert_eq!(liveness.check(33 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    }

    #[test]
    fn a_stream_that_no_connection_wakes_is_left_alone_for_a_while() {
        let streams = [stream(0, Channel::Funding, Some(3))];
        let mut liveness = Liveness::new(LivenessRules::default(), &streams, 0);
        let (mut reconnects, mut now) = (Vec::new(), 0);
        while now < 900 * SECOND {
            now += SECOND;
            if let Some(Remedy::Reconnect(_)) = liveness.check(now) {
                reconnects.push(now / SECOND);
                liveness = Liveness::new(LivenessRules::default(), &streams, now).remembering(&liveness);
            }
        }
        assert_eq!(reconnects.len(), 2, "{reconnects:?}");
        assert!(reconnects[1] - reconnects[0] >= 600);
        liveness.touch(InstrumentIdx(0), Channel::Funding, now);
        assert_eq!(
            liveness.check(now + 16 * SECOND),
            Some(Remedy::Resubscribe(vec![0])),
            "it is watched again"
        );
    }

    #[test]
    fn suspicion_renews_and_then_reconnects() {
        let mut liveness = watched();
        let mut suspect = |second: i64| liveness.suspect(InstrumentIdx(0), Channel::Depth, second * SECOND);
        assert_eq!(suspect(100), Some(Remedy::Resubscribe(vec![2])));
        assert_eq!(suspect(105), None);
        assert_eq!(suspect(111), Some(Remedy::Reconnect(2)));
        assert_eq!(liveness.suspect(InstrumentIdx(9), Channel::Depth, 0), None);
    }
}
