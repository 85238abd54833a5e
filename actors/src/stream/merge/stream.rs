//! One stream as several lines carry it.

use std::collections::VecDeque;

use fathom_market::{
    book::{LineChain, Link},
    event::{Body, Event},
};

use super::{
    Counters, LineKey, MergeLimits, Tally,
    position::{Kind, Position, Rules, ordinal},
};
use crate::stream::line::Sink;

/// What a stream may use of the merge while it works.
pub(super) struct Desk<'a, S> {
    pub(super) rules: &'a Rules,
    pub(super) limits: &'a MergeLimits,
    pub(super) lines: &'a mut Vec<(LineKey, Tally)>,
    pub(super) counters: &'a mut Counters,
    pub(super) held: &'a mut usize,
    pub(super) out: &'a mut S,
}

impl<S> Desk<'_, S> {
    fn tally(&mut self, line: LineKey) -> Option<&mut Tally> {
        self.lines.iter_mut().find(|(key, _)| *key == line).map(|(_, tally)| tally)
    }

    fn duplicate(&mut self, line: LineKey) {
        self.counters.duplicates += 1;
        if let Some(tally) = self.tally(line) {
            tally.duplicates += 1;
        }
    }
}

#[derive(Debug)]
struct Held {
    event: Event,
    since_us: i64,
}

/// A line that carries the stream.
#[derive(Debug)]
struct Attached {
    line: LineKey,
    heard_us: Option<i64>,
    /// Another line has spoken since this one did last: when it first did.
    behind_since_us: Option<i64>,
    /// What it says is known to begin at or before what has been passed on.
    joined: bool,
    chain: LineChain,
    held: VecDeque<Held>,
    /// It brings what lies before what was passed on, ever newer: since when, and the newest of it.
    back: Option<(i64, i128)>,
    /// It is gone; what it left behind waits for the others.
    gone: bool,
}

impl Attached {
    fn new(line: LineKey) -> Self {
        Self {
            line,
            heard_us: None,
            behind_since_us: None,
            joined: false,
            chain: LineChain::new(),
            held: VecDeque::new(),
            back: None,
            gone: false,
        }
    }
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    position: Position,
    attached: Vec<Attached>,
    /// Some line is remembered to bring what lies before the position.
    goes_back: bool,
    /// Whose events are passed, where one line at a time is.
    carrier: Option<LineKey>,
    /// Lines that may not carry it any more, although they may still bring some of it.
    muted: Vec<LineKey>,
    /// It was carried, and no line carries it now.
    pub(super) dark: bool,
    /// When that began, and how far it had been passed: of use to connections that were there already.
    past: Option<(i64, Position)>,
    /// Connections that were entered before that have smaller serials.
    pub(super) dark_serial: u64,
}

/// For so long a line may bring nothing but what was passed already, ever newer, before its numbers are believed.
const SET_BACK_US: i64 = 10_000_000;

/// How long the past of a stream that nobody carries is of use: a connection may lag by so much.
const PAST_US: i64 = 5_000_000;

impl Stream {
    pub(super) fn is_carried(&self) -> bool {
        self.attached.iter().any(|one| !one.gone)
    }

    pub(super) fn is_carried_beside(&self, line: LineKey) -> bool {
        self.attached.iter().any(|one| !one.gone && one.line != line)
    }

    pub(super) fn is_muted(&self, line: LineKey) -> bool {
        self.muted.contains(&line)
    }

    pub(super) fn has(&self, line: LineKey) -> bool {
        self.attached.iter().any(|one| one.line == line && !one.gone)
    }

    /// A connection that was entered before the stream went dark may lag behind what had been passed; a new one has no
    /// past, and may number its events as it likes.
    pub(super) fn attach(&mut self, line: LineKey, was_there: bool, now_us: i64) {
        self.dark = false;
        if let Some((since_us, past)) = self.past.take()
            && was_there
            && now_us - since_us < PAST_US
        {
            self.position = past;
        }
        self.attached.push(Attached::new(line));
    }

    /// Takes an event of an attached line.
    #[inline]
    pub(super) fn offer<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        if let [only] = self.attached.as_mut_slice()
            && only.line == line
            && only.held.is_empty()
        {
            only.heard_us = Some(event.recv_us);
            only.behind_since_us = None;
            only.joined = true;
            if self.carrier != Some(line) {
                return self.pass_exclusively(line, event, desk);
            }
            return self.pass_or_drop(line, event, desk);
        }
        self.arbitrate(line, event, desk);
    }

    /// The rule of a single line.
    fn pass_or_drop<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        match self.position.judge(desk.rules, &event) {
            Link::Next => self.pass(line, event, desk),
            Link::Duplicate => self.drop_or_begin_anew(line, event, desk),
            Link::Gap { expected, got } => {
                self.tell_gap(&event, expected, got, desk);
                self.pass(line, event, desk);
            }
        }
    }

    /// What was passed already is dropped, unless the venue has set its numbers or its clock back: then what was passed
    /// says nothing of what comes.
    fn drop_or_begin_anew<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        if !self.position.is_behind(desk.rules, &event) || !self.went_back(line, &event) {
            return desk.duplicate(line);
        }
        self.position = Position::default();
        for one in &mut self.attached {
            *desk.held -= one.held.len();
            one.held.clear();
        }
        desk.counters.gaps += 1;
        desk.out.set_back(event.instrument, event.body.channel());
        self.pass(line, event, desk);
    }

    /// By its time, or because for long nothing was passed while this line went on and on.
    fn went_back(&mut self, line: LineKey, event: &Event) -> bool {
        if self.position.is_set_back(event) {
            return true;
        }
        let Some(one) = self.attached.iter_mut().find(|one| one.line == line && !one.gone) else {
            return false;
        };
        let at = ordinal(event);
        self.goes_back = true;
        match &mut one.back {
            // A repetition begins anew; numbers that were set back grow.
            Some((since_us, newest)) if at > *newest => {
                *newest = at;
                event.recv_us - *since_us >= SET_BACK_US
            }
            Some((_, newest)) if at == *newest => false,
            back => {
                *back = Some((event.recv_us, at));
                false
            }
        }
    }

    fn arbitrate<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        let Some(at) = self.heard(line, &event, desk) else { return };
        let (kind, now_us) = (desk.rules.kind(&event), event.recv_us);
        if kind == Kind::Exclusive {
            return self.pass_exclusively(line, event, desk);
        }
        match self.position.judge(desk.rules, &event) {
            Link::Duplicate => {
                self.attached[at].joined = true;
                self.drop_or_begin_anew(line, event, desk);
            }
            Link::Next if kind != Kind::Ordered || self.attached[at].joined => self.pass(line, event, desk),
            _ => {
                *desk.held += 1;
                self.attached[at].held.push_back(Held { event, since_us: now_us });
            }
        }
        self.settle(now_us, desk);
    }

    /// Notes that a line spoke, and gives its place.
    fn heard<S>(&mut self, line: LineKey, event: &Event, desk: &mut Desk<'_, S>) -> Option<usize> {
        let at = self.attached.iter().position(|one| one.line == line && !one.gone)?;
        for (other, one) in self.attached.iter_mut().enumerate() {
            if other != at {
                one.behind_since_us.get_or_insert(event.recv_us);
            }
        }
        let one = &mut self.attached[at];
        one.heard_us = Some(event.recv_us);
        one.behind_since_us = None;
        if let Body::Delta(delta) = &event.body
            && matches!(one.chain.check(desk.rules.sync, &delta.ids), Link::Gap { .. })
            && let Some(tally) = desk.tally(line)
        {
            tally.gaps += 1;
        }
        Some(at)
    }

    fn pass_exclusively<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        if self.carrier != Some(line) {
            if desk.rules.kind(&event) != Kind::Exclusive {
                self.carrier = Some(line);
                return self.pass_or_drop(line, event, desk);
            }
            if self.carries_well(event.recv_us, desk.limits.hold_us) {
                return desk.duplicate(line);
            }
            if self.carrier.is_some() && matches!(event.body, Body::Delta(_) | Body::Snapshot(_)) {
                desk.out.cut(event.instrument, event.body.channel());
            }
            self.position = Position::default();
            self.carrier = Some(line);
        }
        self.pass_or_drop(line, event, desk);
    }

    /// True while the carrier is there and speaks.
    fn carries_well(&self, now_us: i64, hold_us: i64) -> bool {
        let carrier = self.attached.iter().find(|one| Some(one.line) == self.carrier && !one.gone);
        carrier.and_then(|one| one.heard_us).is_some_and(|heard| now_us - heard <= hold_us)
    }

    fn pass<S: Sink>(&mut self, line: LineKey, event: Event, desk: &mut Desk<'_, S>) {
        self.position.advance(desk.rules, &event);
        if std::mem::take(&mut self.goes_back) {
            self.attached.iter_mut().for_each(|one| one.back = None);
        }
        desk.counters.passed += 1;
        if let Some(tally) = desk.tally(line) {
            tally.passed += 1;
        }
        desk.out.event(event);
    }

    fn tell_gap<S: Sink>(&self, event: &Event, expected: u64, got: u64, desk: &mut Desk<'_, S>) {
        desk.counters.gaps += 1;
        if let Body::Delta(_) = event.body {
            desk.counters.missed += 1;
            return desk.out.gap(event.instrument, expected, got);
        }
        desk.counters.missed += got.saturating_sub(expected);
    }

    /// Passes on what fits, and what waits for something that no line will bring.
    pub(super) fn settle<S: Sink>(&mut self, now_us: i64, desk: &mut Desk<'_, S>) {
        if self.attached.iter().all(|one| one.held.is_empty()) {
            return;
        }
        loop {
            while self.pass_what_fits(desk) {}
            if !self.must_release(now_us, desk) {
                break;
            }
            self.release(desk);
        }
        self.attached.retain(|one| !one.gone || !one.held.is_empty());
    }

    fn pass_what_fits<S: Sink>(&mut self, desk: &mut Desk<'_, S>) -> bool {
        let mut moved = false;
        for at in 0..self.attached.len() {
            while let Some(front) = self.attached[at].held.front() {
                let kind = desk.rules.kind(&front.event);
                let link = self.position.judge(desk.rules, &front.event);
                let fits = match link {
                    Link::Next => kind != Kind::Ordered || self.attached[at].joined,
                    Link::Duplicate => false,
                    Link::Gap { .. } => break,
                };
                if link == Link::Next && !fits {
                    break;
                }
                let Some(held) = self.attached[at].held.pop_front() else { break };
                *desk.held -= 1;
                moved = true;
                self.attached[at].joined = true;
                let line = self.attached[at].line;
                if fits { self.pass(line, held.event, desk) } else { desk.duplicate(line) }
            }
        }
        moved
    }

    /// Something is held that no line will fit in, or that has waited long enough.
    fn must_release<S>(&self, now_us: i64, desk: &Desk<'_, S>) -> bool {
        let mut fronts = self.attached.iter().filter_map(|one| one.held.front()).peekable();
        if fronts.peek().is_none() {
            return false;
        }
        let fills = |one: &Attached| !one.gone && one.heard_us.is_some() && one.held.is_empty();
        *desk.held > desk.limits.held_in_all
            || self.attached.iter().any(|one| one.held.len() > desk.limits.held_a_stream)
            || fronts.any(|front| now_us - front.since_us >= desk.limits.hold_us)
            || !self.attached.iter().any(fills)
    }

    /// Passes the oldest of what is held.
    fn release<S: Sink>(&mut self, desk: &mut Desk<'_, S>) {
        let front = |one: &Attached| one.held.front().map(|held| ordinal(&held.event));
        let oldest = self
            .attached
            .iter()
            .enumerate()
            .filter_map(|(at, one)| Some((front(one)?, at)))
            .min()
            .map(|(_, at)| at);
        let Some(one) = oldest.and_then(|at| self.attached.get_mut(at)) else { return };
        let Some(held) = one.held.pop_front() else { return };
        one.joined = true;
        let line = one.line;
        *desk.held -= 1;
        self.pass_or_drop(line, held.event, desk);
    }

    /// A line no longer carries it. True when no other does: what was held has been passed, and the past is forgotten.
    pub(super) fn detach<S: Sink>(&mut self, line: LineKey, now_us: i64, desk: &mut Desk<'_, S>) -> bool {
        self.muted.retain(|muted| *muted != line);
        let Some(one) = self.attached.iter_mut().find(|one| one.line == line && !one.gone) else {
            return false;
        };
        one.gone = true;
        self.attached.retain(|one| !one.gone || !one.held.is_empty());
        if self.is_carried() {
            self.settle(now_us, desk);
            return false;
        }
        self.settle(now_us, desk);
        let (muted, past) = (std::mem::take(&mut self.muted), std::mem::take(&mut self.position));
        *self = Self { muted, dark: true, past: Some((now_us, past)), ..Self::default() };
        true
    }

    /// The line's subscription of it has been given up.
    pub(super) fn mute<S: Sink>(&mut self, line: LineKey, now_us: i64, desk: &mut Desk<'_, S>) {
        if self.detach(line, now_us, desk) {
            (self.dark, self.past) = (false, None);
        }
        self.muted.push(line);
    }

    /// The line's subscription of it has been asked for again.
    pub(super) fn unmute(&mut self, line: LineKey) {
        self.muted.retain(|muted| *muted != line);
    }

    /// True when the stream loses nothing if this line alone carries it from now on: it has spoken and nothing of it
    /// waits, or it has been subscribed since `acked_us` and no other line has spoken since.
    pub(super) fn is_warm(&self, line: LineKey, acked_us: Option<i64>) -> bool {
        let Some(one) = self.attached.iter().find(|one| one.line == line && !one.gone) else { return false };
        if one.heard_us.is_some() {
            return one.held.is_empty();
        }
        let others =
            self.attached.iter().filter(|other| other.line != line).filter_map(|other| other.heard_us);
        acked_us.is_some_and(|acked| others.max().is_none_or(|heard| heard < acked))
    }

    /// Since when another line has spoken while this one has not.
    pub(super) fn behind_since_us(&self, line: LineKey) -> Option<i64> {
        // Behind whom, when nobody else is there?
        if !self.is_carried_beside(line) {
            return None;
        }
        self.attached.iter().find(|one| one.line == line && !one.gone)?.behind_since_us
    }
}
