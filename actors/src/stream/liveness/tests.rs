//! Streams over simulated hours and days: quiet, busy and bursty ones, with dice of our own.

use fathom_market::plan::EndpointClass;

use super::*;

const MS: i64 = 1000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const BTC: InstrumentIdx = InstrumentIdx(0);

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

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An exponentially distributed interval with this mean.
    fn interval(&mut self, mean_us: i64) -> i64 {
        let even = ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (-even.ln() * mean_us as f64) as i64 + 1
    }
}

/// A stream that speaks at random: bursts of some length, at a mean distance.
struct Speaker {
    at: usize,
    mean_us: i64,
    burst: u32,
    left: u32,
    next_us: i64,
}

/// A line of one trade stream each, simulated from event to event.
struct Sky {
    liveness: Liveness,
    dice: Dice,
    speakers: Vec<Speaker>,
    now: i64,
    /// When it was asked for, and what.
    remedies: Vec<(i64, Remedy)>,
    intervals: Vec<Vec<i64>>,
    last: Vec<i64>,
}

impl Sky {
    /// One stream a pair of mean distance and burst length.
    fn new(seed: u64, paces: &[(i64, u32)]) -> Self {
        let specs: Vec<_> = (0..paces.len()).map(|at| stream(at as u32, Channel::Trade, None)).collect();
        let mut dice = Dice(seed);
        let speaker = |(at, &(mean_us, burst)): (usize, &(i64, u32))| Speaker {
            at,
            mean_us,
            burst,
            left: burst,
            next_us: dice.interval(mean_us),
        };
        let speakers = paces.iter().enumerate().map(speaker).collect();
        Self {
            liveness: Liveness::new(LivenessRules::default(), &specs, 0),
            dice,
            speakers,
            now: 0,
            remedies: Vec::new(),
            intervals: vec![Vec::new(); paces.len()],
            last: vec![0; paces.len()],
        }
    }

    /// Lets time pass; the line checks once a second.
    fn pass(&mut self, us: i64) {
        let end = self.now + us;
        while self.now < end {
            self.now += SECOND;
            let due = |speaker: &Speaker| speaker.next_us;
            while let Some(at) = (0..self.speakers.len())
                .min_by_key(|at| due(&self.speakers[*at]))
                .filter(|at| due(&self.speakers[*at]) < self.now)
            {
                self.speak(at);
            }
            if let Some(remedy) = self.liveness.check(self.now) {
                self.remedies.push((self.now, remedy));
            }
        }
    }

    fn speak(&mut self, at: usize) {
        let speaker = &mut self.speakers[at];
        let (stream, now) = (speaker.at, speaker.next_us);
        speaker.left -= 1;
        if speaker.left == 0 {
            speaker.left = speaker.burst;
            speaker.next_us += self.dice.interval(speaker.mean_us);
        } else {
            speaker.next_us += 20 * MS;
        }
        self.liveness.touch(InstrumentIdx(stream as u32), Channel::Trade, now);
        self.intervals[stream].push(now - self.last[stream]);
        self.last[stream] = now;
    }

    fn silence(&mut self, stream: usize) {
        self.speakers.retain(|speaker| speaker.at != stream);
    }

    fn p999(&self, stream: usize) -> i64 {
        let mut intervals = self.intervals[stream].clone();
        intervals.sort_unstable_by(|a, b| b.cmp(a));
        intervals[intervals.len() / 1000]
    }

    fn reconnects(&self) -> usize {
        self.remedies.iter().filter(|(_, remedy)| matches!(remedy, Remedy::Reconnect(_))).count()
    }

    fn resubscribed(&self) -> Vec<usize> {
        let streams = self.remedies.iter().filter_map(|(_, remedy)| match remedy {
            Remedy::Resubscribe(streams) => Some(streams.clone()),
            Remedy::Reconnect(_) => None,
        });
        streams.flatten().collect()
    }
}

#[test]
fn days_of_quiet_busy_and_bursty_streams_reconnect_never_and_renew_seldom() {
    let paces = [
        (100 * MS, 1),
        (SECOND, 1),
        (10 * SECOND, 1),
        (120 * SECOND, 1),
        (3600 * SECOND, 1),
        (60 * SECOND, 40),
        (600 * SECOND, 300),
    ];
    for seed in 0..3 {
        let mut sky = Sky::new(seed, &paces);
        sky.pass(48 * HOUR);
        assert_eq!(sky.reconnects(), 0, "seed {seed}");
        let renewed = sky.resubscribed();
        let count = |stream: usize| renewed.iter().filter(|at| **at == stream).count();
        for stream in 0..3 {
            assert!(count(stream) <= 6, "seed {seed}: stream {stream} {} times in two days", count(stream));
        }
        // The slower ones are now and then quiet for longer than the ceiling allows a stream whose pace is known.
        assert!(count(3) <= 25, "seed {seed}: {} times in two days", count(3));
        assert!(renewed.len() < 48 * 8, "seed {seed}: {} in two days", renewed.len());
    }
}

#[test]
fn one_of_two_hundred_silenced_is_found_in_time_and_renewed_alone() {
    for (seed, silenced, mean_us) in [(1, 17, 200 * MS), (2, 120, 2 * SECOND), (3, 199, 10 * SECOND)] {
        let mut paces = vec![(200 * MS, 1); 200];
        paces[silenced] = (mean_us, 1);
        let mut sky = Sky::new(seed, &paces);
        sky.pass(1800 * SECOND);
        assert_eq!(sky.remedies, [], "seed {seed}");
        let last = sky.last[silenced];
        sky.silence(silenced);
        let bound = (2 * sky.p999(silenced)).max(5 * SECOND) + SECOND;
        while sky.remedies.is_empty() {
            sky.pass(SECOND);
            assert!(sky.now - last <= bound, "seed {seed}: not found in {bound} us");
        }
        assert_eq!(sky.remedies[0].1, Remedy::Resubscribe(vec![silenced]));
        assert_eq!((sky.liveness.suspects(), sky.liveness.counts()), (1, (200, 200)));
        sky.pass(HOUR);
        assert_eq!(sky.reconnects(), 0, "silence alone costs no connection");
        assert!(sky.resubscribed().iter().filter(|at| **at == silenced).count() <= 12);
        assert_eq!(sky.liveness.state(silenced).unwrap().0, StreamState::Quiet);
    }
}

#[test]
fn a_market_silent_for_six_hours_costs_nothing_and_a_pause_of_the_line_convicts_nobody() {
    let mut sky = Sky::new(9, &[(200 * MS, 1), (SECOND, 1), (5 * SECOND, 20)]);
    sky.pass(HOUR);
    assert_eq!(sky.remedies, []);
    for speaker in &mut sky.speakers {
        speaker.next_us += 6 * HOUR;
    }
    sky.pass(7 * HOUR);
    assert_eq!(sky.remedies, []);
    assert_eq!(sky.liveness.suspects(), 0);
}

#[test]
fn a_line_whose_quiet_streams_fall_silent_for_six_hours_keeps_its_connection() {
    let mut sky = Sky::new(5, &[(SECOND, 1), (300 * MS, 1), (2 * SECOND, 5)]);
    sky.pass(HOUR);
    for stream in [0, 2] {
        sky.silence(stream);
    }
    sky.pass(6 * HOUR);
    assert_eq!(sky.reconnects(), 0);
    assert!(sky.resubscribed().len() <= 40, "{}", sky.resubscribed().len());
}

#[test]
fn nothing_learned_nothing_judged() {
    let mut liveness = watched();
    for second in 0..6 * 3600 {
        liveness.touch(BTC, Channel::Funding, second * SECOND);
        assert_eq!(liveness.check(second * SECOND), None, "second {second}");
    }
    assert_eq!((liveness.counts(), liveness.p999_us(1)), ((1, 3), None));
}

#[test]
fn a_broken_promise_renews_and_then_opens_the_line_anew() {
    let mut liveness = watched();
    liveness.touch(BTC, Channel::Funding, SECOND);
    assert_eq!(liveness.check(16 * SECOND), None);
    assert_eq!(liveness.check(17 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    assert_eq!(liveness.state(0), Some((StreamState::Renewed, Some(SECOND))));
    assert_eq!((liveness.check(22 * SECOND), liveness.suspects()), (None, 1));
    assert_eq!(liveness.check(23 * SECOND), Some(Remedy::Reconnect(0)));
}

#[test]
fn a_renewed_stream_that_speaks_is_healed() {
    let mut liveness = watched();
    assert_eq!(liveness.check(16 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    liveness.touch(BTC, Channel::Funding, 17 * SECOND);
    assert_eq!(liveness.state(0), Some((StreamState::Live, Some(17 * SECOND))));
    assert_eq!(liveness.check(33 * SECOND), Some(Remedy::Resubscribe(vec![0])));
}

#[test]
fn a_stream_that_no_connection_wakes_costs_one_in_ten_minutes() {
    let streams = [stream(0, Channel::Funding, Some(3))];
    let mut liveness = Liveness::new(LivenessRules::default(), &streams, 0);
    let (mut reconnects, mut renewals) = (Vec::new(), 0);
    let mut now = 0;
    while now < 1000 * SECOND {
        now += SECOND;
        match liveness.check(now) {
            Some(Remedy::Reconnect(_)) => {
                reconnects.push(now / SECOND);
                liveness = Liveness::new(LivenessRules::default(), &streams, now).remembering(&liveness);
            }
            Some(Remedy::Resubscribe(_)) => renewals += 1,
            None => {}
        }
    }
    assert_eq!(reconnects.len(), 2, "{reconnects:?}");
    assert!(reconnects[1] - reconnects[0] >= 600);
    assert!(renewals <= 20, "{renewals}");
    liveness.touch(BTC, Channel::Funding, now);
    assert_eq!(liveness.check(now + 16 * SECOND), Some(Remedy::Resubscribe(vec![0])), "it is watched again");
}

#[test]
fn evidence_climbs_the_ladder_one_rung_at_a_time() {
    let mut liveness = watched();
    let mut suspect = |second: i64| liveness.suspect(BTC, Channel::Depth, second * SECOND);
    assert_eq!(suspect(100), Some(Remedy::Resubscribe(vec![2])));
    assert_eq!(suspect(105), None, "the renewal is fresh");
    assert_eq!(suspect(106), Some(Remedy::Reconnect(2)));
    let mut again: Vec<_> = (107..700).filter_map(&mut suspect).collect();
    again.dedup();
    assert_eq!(again, [Remedy::Resubscribe(vec![2])], "no second connection within ten minutes");
    assert_eq!(suspect(706), Some(Remedy::Reconnect(2)));
    assert_eq!(liveness.suspect(InstrumentIdx(9), Channel::Depth, 0), None, "not one of this line");
}

#[test]
fn a_line_is_opened_anew_for_all_dead_streams_at_once() {
    let mut liveness = watched();
    for channel in [Channel::Trade, Channel::Depth] {
        assert!(liveness.suspect(BTC, channel, 0).is_some());
    }
    assert_eq!(liveness.suspect(BTC, Channel::Trade, 6 * SECOND), Some(Remedy::Reconnect(1)));
    assert_eq!(liveness.suspect(BTC, Channel::Depth, 7 * SECOND), None, "the new connection may help both");
    let specs = [stream(0, Channel::Depth, None)];
    let mut next = Liveness::new(LivenessRules::default(), &specs, 8 * SECOND).remembering(&liveness);
    assert_eq!(next.suspect(BTC, Channel::Depth, 20 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    assert_eq!(next.suspect(BTC, Channel::Depth, 30 * SECOND), None);
    assert_eq!(next.suspect(BTC, Channel::Depth, 67 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    assert_eq!(next.suspect(BTC, Channel::Depth, 605 * SECOND), Some(Remedy::Resubscribe(vec![0])));
    assert_eq!(next.suspect(BTC, Channel::Depth, 611 * SECOND), Some(Remedy::Reconnect(0)));
}

#[test]
fn what_was_learned_outlives_the_connection_and_a_new_plan() {
    let mut sky = Sky::new(4, &[(200 * MS, 1), (SECOND, 1)]);
    sky.pass(HOUR);
    let paces: Vec<_> = (0..2).map(|at| sky.liveness.p999_us(at)).collect();
    assert!(paces.iter().all(Option::is_some));
    // The second stream comes first, and another one is new.
    let plan =
        [stream(1, Channel::Trade, None), stream(7, Channel::Trade, None), stream(0, Channel::Trade, None)];
    sky.liveness.reshape(&plan, sky.now);
    let reshaped: Vec<_> = (0..3).map(|at| sky.liveness.p999_us(at)).collect();
    assert_eq!(reshaped, [paces[1], None, paces[0]]);
    assert_eq!(sky.liveness.counts(), (2, 3));
    let (state, last) = sky.liveness.state(2).unwrap();
    assert_eq!((state, last), (StreamState::Live, Some(sky.last[0])));

    let mut next = Liveness::new(LivenessRules::default(), &plan, sky.now).remembering(&sky.liveness);
    assert_eq!((next.p999_us(0), next.counts()), (paces[1], (0, 3)));
    // A known stream that does not speak on the new connection is found; one that never spoke is not.
    let mut found = None;
    for tenth in 1..400 {
        let now = sky.now + tenth * SECOND / 10;
        next.touch(BTC, Channel::Trade, now);
        found = found.or_else(|| next.check(now));
    }
    assert_eq!(found, Some(Remedy::Resubscribe(vec![0])));
}

#[test]
fn a_silence_that_a_renewal_does_not_end_belongs_to_the_pace() {
    let specs = [stream(0, Channel::Trade, None), stream(1, Channel::Trade, None)];
    let mut liveness = Liveness::new(LivenessRules::default(), &specs, 0);
    let (mut now, mut renewals) = (0, Vec::new());
    // One stream always speaks; the other is busy for a minute and quiet for five, again and again.
    while now < 12 * HOUR {
        now += SECOND;
        liveness.touch(InstrumentIdx(1), Channel::Trade, now);
        if now % (360 * SECOND) < 60 * SECOND {
            liveness.touch(BTC, Channel::Trade, now);
        }
        if liveness.check(now).is_some() {
            renewals.push(now / SECOND);
        }
    }
    let late = renewals.iter().filter(|second| **second > 3 * 3600).count();
    assert!(late <= 9, "{late} of {} after three hours: {renewals:?}", renewals.len());
}

#[test]
fn the_other_line_of_a_pair_is_a_witness() {
    let specs = [stream(0, Channel::Trade, None), stream(1, Channel::Trade, None)];
    let line = || Liveness::new(LivenessRules::default(), &specs, 0);
    let (mut a, mut b) = (line(), line());
    for second in 1..=20 {
        b.touch(BTC, Channel::Trade, second * SECOND);
        a.touch(InstrumentIdx(1), Channel::Trade, second * SECOND);
        if second <= 14 {
            a.touch(BTC, Channel::Trade, second * SECOND);
        }
        let behind = if second <= 19 { vec![] } else { vec![(BTC, Channel::Trade)] };
        assert_eq!(a.behind(&b), behind, "second {second}");
    }
    assert_eq!(b.behind(&a), [(InstrumentIdx(1), Channel::Trade)]);
}
