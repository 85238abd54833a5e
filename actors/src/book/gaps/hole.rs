//! One hole of one stream while it is open: the records at its edges, and what their ids tell of what lies between.

use std::cmp::max;

use fathom_market::{
    book::{Link, SyncRule},
    event::{Channel, SeqIds, TradeId},
    gap::{Gap, GapCause, GapStatus, channel_word},
    ids::InstrumentId,
};

/// What identifies a record within its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordId {
    /// The stream has no ids.
    None,
    /// An id that grows and says no more.
    Update(u64),
    /// A trade's.
    Trade(TradeId),
    /// A depth update's.
    Depth(SeqIds),
    /// A candle's start, and whether this record was its last word.
    Candle {
        /// Start, milliseconds.
        open_ms: i64,
        /// Its last word.
        closed: bool,
    },
}

impl RecordId {
    /// Reads what was stored of a record.
    pub(super) fn read(channel: Channel, word: Option<&str>, us: i64) -> Self {
        let number = word.and_then(|word| word.parse::<u64>().ok());
        match (channel, word, number) {
            (Channel::Trade, _, Some(id)) => Self::Trade(TradeId::Number(id)),
            (Channel::Trade, Some(word), None) => Self::Trade(TradeId::Text(word.into())),
            (Channel::Depth, _, Some(id)) => Self::Depth(SeqIds { first: id, last: id, prev: None }),
            (Channel::Candle(_), _, id) => Self::Candle {
                open_ms: id.and_then(|id| i64::try_from(id).ok()).unwrap_or(us / 1000),
                closed: false,
            },
            (_, _, Some(id)) => Self::Update(id),
            _ => Self::None,
        }
    }

    fn word(&self, depth: impl Fn(&SeqIds) -> u64) -> Option<String> {
        match self {
            Self::None => None,
            Self::Update(id) => Some(id.to_string()),
            Self::Trade(id) => Some(id.to_string()),
            Self::Depth(ids) => Some(depth(ids).to_string()),
            Self::Candle { open_ms, .. } => Some(open_ms.to_string()),
        }
    }
}

/// A record of a stream: when it came, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was received, microseconds.
    pub us: i64,
    /// Its id.
    pub id: RecordId,
}

impl Mark {
    /// Its id as the last before a hole.
    pub(super) fn as_last(&self) -> Option<String> {
        self.id.word(|ids| ids.last)
    }

    /// Its id as the first after a hole.
    pub(super) fn as_first(&self) -> Option<String> {
        self.id.word(|ids| ids.first)
    }

    pub(super) const fn number(&self) -> Option<u64> {
        match &self.id {
            RecordId::Trade(TradeId::Number(id)) => Some(*id),
            _ => None,
        }
    }
}

/// Records missing between two of a stream, where their ids tell. For depth it is update ids, of which a record may hold
/// several.
pub(super) fn between(channel: Channel, edge: &Mark, after: &Mark, rule: &dyn SyncRule) -> Option<u64> {
    match (&edge.id, &after.id) {
        (RecordId::Depth(edge), RecordId::Depth(after)) => match rule.chain(edge, after) {
            Link::Next | Link::Duplicate => Some(0),
            // A venue that names the event before does not number its updates one by one.
            Link::Gap { expected, got } => after.prev.is_none().then(|| got.saturating_sub(expected)),
        },
        (RecordId::Trade(TradeId::Number(edge)), RecordId::Trade(TradeId::Number(after))) => {
            Some(after.saturating_sub(edge.saturating_add(1)))
        }
        (RecordId::Candle { open_ms, closed }, RecordId::Candle { open_ms: after_ms, .. }) => {
            Some(candles_between(channel, *open_ms, *closed, *after_ms))
        }
        _ => None,
    }
}

/// Candles whose last word did not come: the one at the edge unless it was closed, and those between.
fn candles_between(channel: Channel, edge_ms: i64, closed: bool, after_ms: i64) -> u64 {
    if after_ms <= edge_ms {
        return 0;
    }
    let length = match channel {
        Channel::Candle(timeframe) => timeframe.fixed_ms(),
        _ => None,
    };
    let steps = length.map_or(1, |length| (after_ms - edge_ms).div_euclid(length)).max(1);
    steps.unsigned_abs() - u64::from(closed)
}

/// A hole that is not settled.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    pub(super) gap: Gap,
    /// The last record before the newest loss.
    pub(super) edge: Mark,
    /// The first record after it.
    pub(super) after: Option<Mark>,
    /// What the losses before the newest one have in sum, where ids tell.
    pub(super) before: Option<u64>,
    /// A candle's hole is a mere doubt until a closed candle was missed.
    pub(super) shown: bool,
    /// Since when this process works on it.
    pub(super) since_us: i64,
    /// The first id to be fetched, where it lies before the edge.
    pub(super) fetch_from: Option<u64>,
}

impl Hole {
    pub(super) fn new(
        instrument: InstrumentId,
        channel: Channel,
        cause: GapCause,
        edge: Mark,
        now_us: i64,
    ) -> Self {
        let word = channel_word(channel);
        let gap = Gap {
            id: Gap::name(instrument, &word, edge.us, cause),
            instrument,
            channel: word,
            cause,
            status: GapStatus::Open,
            from_us: edge.us,
            to_us: None,
            from_id: edge.as_last(),
            to_id: None,
            missing: None,
            reason: None,
            opened_us: now_us,
            closed_us: None,
            updated_us: now_us,
        };
        let shown = !matches!(channel, Channel::Candle(_));
        Self { gap, edge, after: None, before: Some(0), shown, since_us: now_us, fetch_from: None }
    }

    /// Records were lost again before the hole was settled: what came in between lies inside it.
    pub(super) fn extend(&mut self, channel: Channel, last: &Mark, rule: &dyn SyncRule) {
        let Some(after) = self.after.take() else { return };
        self.before = sum(self.before, between(channel, &self.edge, &after, rule));
        self.edge = last.clone();
        self.reopen();
    }

    /// What was received after this record has been lost again.
    pub(super) fn go_back(&mut self, safe: &Mark) {
        let alone = self.after.is_none() && self.edge != *safe;
        if alone || self.edge.us > safe.us {
            self.edge = safe.clone();
            self.gap.from_us = self.gap.from_us.min(safe.us);
            self.gap.from_id = safe.as_last();
        }
        if self.after.as_ref().is_some_and(|after| after.us > safe.us) {
            self.after = None;
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        self.gap.to_us = None;
        self.gap.to_id = None;
        self.gap.missing = None;
    }

    /// The stream speaks again.
    pub(super) fn reach(&mut self, channel: Channel, after: Mark, rule: &dyn SyncRule) {
        self.gap.to_us = Some(after.us);
        self.gap.to_id = after.as_first();
        self.gap.missing = sum(self.before, between(channel, &self.edge, &after, rule));
        self.after = Some(after);
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_add(b?))
}

/// A later version of a gap wins in the store: its time of change has to grow.
pub(super) fn touch(gap: &mut Gap, now_us: i64) {
    gap.updated_us = max(now_us, gap.updated_us.saturating_add(1));
}

/// Gives a gap its final status.
pub(super) fn settle(gap: &mut Gap, status: GapStatus, reason: Option<String>, now_us: i64) {
    gap.status = status;
    gap.reason = reason;
    gap.closed_us = Some(max(now_us, gap.opened_us));
    touch(gap, now_us);
}
