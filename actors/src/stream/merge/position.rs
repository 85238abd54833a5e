//! How far a stream has been passed on, and how an event stands to that.

use std::collections::VecDeque;

use fathom_market::{
    book::{Link, SyncRule},
    event::{Body, Event, SeqIds, TradeId},
};
use fathom_venues::{MergeRule, TradeIds};

/// Opaque ids that are remembered of a stream.
const RECENT: usize = 2048;
/// Holes of a trade stream that are remembered, so that what comes late is not taken for a repetition.
const HOLES: usize = 64;

/// Two of a venue's machines may stamp the same by so much.
const CLOCKS_DIFFER_US: i64 = 1_000_000;

/// What a venue's numbers are good for.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) sync: &'static dyn SyncRule,
    pub(super) merge: MergeRule,
    pub(super) trades: TradeIds,
}

/// How the events of a stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each event tells whether something is missing before it.
    Chained,
    /// Events have an order, and nothing tells whether one is missing.
    Ordered,
    /// Events have names without an order.
    Named,
    /// Nothing tells two events apart, or their numbers belong to one connection: one line at a time is passed on.
    Exclusive,
}

impl Rules {
    pub(super) fn kind(&self, event: &Event) -> Kind {
        match (&event.body, self.merge) {
            (Body::Delta(_), MergeRule::GlobalId) => Kind::Chained,
            (Body::Delta(_) | Body::Snapshot(_), _) => Kind::Exclusive,
            (Body::Quote(quote), MergeRule::GlobalId) if quote.update_id.is_some() => Kind::Ordered,
            (Body::Quote(_), _) => Kind::Exclusive,
            (Body::Trade(trade), _) => match (&trade.id, self.trades) {
                (TradeId::Number(_), TradeIds::Consecutive) => Kind::Chained,
                (TradeId::Number(_), TradeIds::Increasing) => Kind::Ordered,
                _ => Kind::Named,
            },
            (Body::Candle(_) | Body::Ticker(_) | Body::Funding(_), _) if event.event_us.is_some() => {
                Kind::Ordered
            }
            (Body::Candle(_) | Body::Ticker(_) | Body::Funding(_), _) => Kind::Exclusive,
        }
    }
}

/// The place of an event in the order of its stream.
pub(super) fn ordinal(event: &Event) -> i128 {
    match &event.body {
        Body::Delta(delta) => delta.ids.last.into(),
        Body::Snapshot(snapshot) => snapshot.last_id.into(),
        Body::Quote(quote) => quote.update_id.unwrap_or_default().into(),
        Body::Trade(trade) => number(&trade.id).unwrap_or_default().into(),
        Body::Candle(_) | Body::Ticker(_) | Body::Funding(_) => event.time_us().into(),
    }
}

const fn number(id: &TradeId) -> Option<u64> {
    match id {
        TradeId::Number(id) => Some(*id),
        TradeId::Text(_) => None,
    }
}

/// Up to where a stream has been passed on.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// The latest venue time of what was passed on.
    newest_us: Option<i64>,
    depth: Option<SeqIds>,
    last: Option<i128>,
    /// What was passed at the very time of the last event, where events are ordered by time.
    same: Vec<Body>,
    holes: VecDeque<(u64, u64)>,
    names: VecDeque<TradeId>,
}

impl Position {
    /// How an event stands to what has been passed on.
    #[inline]
    pub(super) fn judge(&self, rules: &Rules, event: &Event) -> Link {
        match &event.body {
            Body::Delta(delta) => self.depth.map_or(Link::Next, |last| rules.sync.chain(&last, &delta.ids)),
            Body::Trade(trade) => self.judge_trade(rules, &trade.id),
            Body::Quote(quote) if quote.update_id.is_none() => Link::Next,
            Body::Quote(_) => match self.last {
                Some(last) if ordinal(event) <= last => Link::Duplicate,
                _ => Link::Next,
            },
            Body::Snapshot(_) => Link::Next,
            Body::Candle(_) | Body::Ticker(_) | Body::Funding(_) => self.judge_time(event),
        }
    }

    /// True when the event's number is smaller than that of what was passed on before it.
    pub(super) fn is_behind(&self, rules: &Rules, event: &Event) -> bool {
        let is_less = || self.last.is_some_and(|last| ordinal(event) < last);
        match (&event.body, rules.kind(event)) {
            (_, Kind::Exclusive | Kind::Named) => false,
            (Body::Delta(delta), _) => self.depth.is_some_and(|had| delta.ids.last < had.last),
            _ => is_less(),
        }
    }

    /// True when the event is newer by its time although it is older by its number: the venue has set its numbers back.
    pub(super) fn is_set_back(&self, event: &Event) -> bool {
        let is_numbered = matches!(event.body, Body::Delta(_) | Body::Trade(_) | Body::Quote(_));
        let times = event.event_us.zip(self.newest_us);
        is_numbered && times.is_some_and(|(at, newest)| at - newest > CLOCKS_DIFFER_US)
    }

    fn judge_trade(&self, rules: &Rules, id: &TradeId) -> Link {
        let id = match (id, rules.trades) {
            (TradeId::Number(id), TradeIds::Consecutive | TradeIds::Increasing) => *id,
            _ if self.names.contains(id) => return Link::Duplicate,
            _ => return Link::Next,
        };
        let Some(last) = self.last else { return Link::Next };
        let expected = u64::try_from(last).unwrap_or_default().saturating_add(1);
        if id < expected {
            return if self.holes.iter().any(|hole| (hole.0..hole.1).contains(&id)) {
                Link::Next
            } else {
                Link::Duplicate
            };
        }
        if id == expected || rules.trades == TradeIds::Increasing {
            return Link::Next;
        }
        Link::Gap { expected, got: id }
    }

    fn judge_time(&self, event: &Event) -> Link {
        let Some(last) = self.last else { return Link::Next };
        let at = ordinal(event);
        if at < last || (at == last && self.same.contains(&event.body)) {
            return Link::Duplicate;
        }
        Link::Next
    }

    /// The event is passed on.
    #[inline]
    pub(super) fn advance(&mut self, rules: &Rules, event: &Event) {
        self.newest_us = self.newest_us.max(event.event_us);
        match &event.body {
            Body::Delta(delta) => self.depth = Some(delta.ids),
            Body::Trade(trade) => self.advance_trade(rules, &trade.id),
            Body::Quote(quote) => self.last = quote.update_id.map(Into::into).or(self.last),
            Body::Snapshot(_) => {}
            Body::Candle(_) | Body::Ticker(_) | Body::Funding(_) => {
                let at = Some(ordinal(event));
                if self.last != at {
                    self.same.clear();
                }
                self.last = at;
                self.same.push(event.body.clone());
            }
        }
    }

    fn advance_trade(&mut self, rules: &Rules, id: &TradeId) {
        let (Some(id), TradeIds::Consecutive | TradeIds::Increasing) = (number(id), rules.trades) else {
            if self.names.len() == RECENT {
                self.names.pop_front();
            }
            return self.names.push_back(id.clone());
        };
        let last = self.last.unwrap_or(i128::from(id) - 1);
        if i128::from(id) <= last {
            return self.fill(id);
        }
        let expected = u64::try_from(last + 1).unwrap_or_default();
        if rules.trades == TradeIds::Consecutive && id > expected {
            self.remember_hole(expected, id);
        }
        self.last = Some(id.into());
    }

    fn remember_hole(&mut self, from: u64, to: u64) {
        if self.holes.len() == HOLES {
            self.holes.pop_front();
        }
        self.holes.push_back((from, to));
    }

    /// A late one has come: the hole shrinks, or falls in two.
    fn fill(&mut self, id: u64) {
        let Some(at) = self.holes.iter().position(|hole| (hole.0..hole.1).contains(&id)) else { return };
        let Some((from, to)) = self.holes.remove(at) else { return };
        for (from, to) in [(from, id), (id + 1, to)] {
            if from < to {
                self.remember_hole(from, to);
            }
        }
    }
}
