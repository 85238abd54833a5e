//! The second pass: decoder, chains and books as on a live line, and what they say as output.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::anyhow;
use fathom_market::{
    book::{
        BookKeeper, BookState, Cause, KeeperCounters, KeeperLimits, LineChain, Link, MAX_LEVELS_LIMIT, Step,
        SyncRule,
    },
    event::{Body, BookDelta, Channel, Event},
    ids::Market,
    instrument::{InstrumentIdx, InstrumentTable},
    plan::RestAnswer,
};
use fathom_venues::{DecodeError, Decoded, Decoder, RestError, Venue};
use serde_json::Value;

use super::{
    content::{self, Content},
    feed::{Item, Line},
    print::{self, Label},
    survey::Survey,
    tally::Tally,
};

/// Updates that all books together may hold while they wait for a snapshot.
const MAX_BUFFERED: usize = 400_000;
/// Updates that a book may hold at least and at most: recorded snapshots come up to 25 s late.
const BUFFER_RANGE: (usize, usize) = (1000, 50_000);

/// A book as on a line of its own.
struct Book {
    keeper: BookKeeper,
    chain: LineChain,
    /// An update was seen: without a snapshot it waits for one.
    streamed: bool,
}

/// A recording on its way through the service's own parts.
pub(super) struct Session<'s> {
    survey: &'s Survey,
    venue: &'static dyn Venue,
    rule: &'static dyn SyncRule,
    limits: KeeperLimits,
    table: Arc<InstrumentTable>,
    decoder: Box<dyn Decoder>,
    decoded: Vec<Decoded>,
    labels: Vec<Label>,
    books: BTreeMap<InstrumentIdx, Book>,
    tally: Tally,
    /// Whether events are wanted, or only the books.
    prints: bool,
    /// The recording of the line under way.
    file: usize,
    /// What that line says.
    output: Vec<u8>,
}

impl<'s> Session<'s> {
    /// A session of the surveyed symbols; `prints` tells whether it gives out events.
    ///
    /// # Errors
    /// When there is no table of these symbols.
    pub(super) fn new(
        venue: &'static dyn Venue,
        market: Market,
        survey: &'s Survey,
        prints: bool,
    ) -> anyhow::Result<Self> {
        let table = survey.table()?;
        let class = venue.classes(market).first().ok_or_else(|| anyhow!("{} has no {market}", venue.id()))?;
        let (least, most) = BUFFER_RANGE;
        let limits = KeeperLimits {
            buffer: (MAX_BUFFERED / table.len().max(1)).clamp(least, most),
            max_levels: MAX_LEVELS_LIMIT,
            ..KeeperLimits::default()
        };
        Ok(Self {
            survey,
            venue,
            rule: venue.sync_rule(market),
            limits,
            decoder: venue.decoder(market, *class, Arc::clone(&table)),
            decoded: Vec::new(),
            labels: table.iter().map(|(_, instrument)| Label::of(instrument)).collect(),
            table,
            books: BTreeMap::new(),
            tally: Tally::default(),
            prints,
            file: 0,
            output: Vec::new(),
        })
    }

    /// Takes a line of the recording and gives the events that it said, as lines of JSON.
    pub(super) fn line(&mut self, item: &Item<'_>) -> &[u8] {
        self.output.clear();
        self.file = item.file;
        let recv_us = item.recv_ns.map(|ns| ns / 1000);
        match item.line {
            Line::Frame(text) => self.content(Content::of(text), None, recv_us),
            Line::Answer { url, body } => match content::of_answer(url, body) {
                Some((content, limit)) => self.content(content, limit, recv_us),
                None => {
                    self.tally.frames += 1;
                    self.tally.ignored("other_answer");
                }
            },
            Line::Recorder => {}
            Line::Malformed => self.tally.rejected("malformed"),
        }
        &self.output
    }

    fn content(&mut self, content: Content<'_>, limit: Option<usize>, recv_us: Option<i64>) {
        self.tally.frames += 1;
        match content {
            Content::Frame(frame) => self.frame(&frame, recv_us),
            Content::Snapshot { symbol, body } => self.snapshot(symbol.as_deref(), &body, limit, recv_us),
            Content::Instruments(_) => self.tally.ignored("instruments"),
        }
    }

    fn frame(&mut self, frame: &[u8], recv_us: Option<i64>) {
        let mut decoded = std::mem::take(&mut self.decoded);
        self.decoder.decode(frame, recv_us.unwrap_or(0), &mut decoded);
        for item in decoded.drain(..) {
            self.sort(item, recv_us);
        }
        self.decoded = decoded;
    }

    fn sort(&mut self, item: Decoded, recv_us: Option<i64>) {
        match item {
            Decoded::Event(event) => self.event(event, recv_us),
            Decoded::Ack(_) => self.tally.ignored("ack"),
            Decoded::Refused { .. } => self.tally.ignored("refused"),
            Decoded::ClosingSoon => self.tally.ignored("closing_soon"),
            Decoded::InstrumentsChanged => self.tally.ignored("instruments_changed"),
            Decoded::Ignored(reason) => self.tally.ignored(reason),
            Decoded::Rejected { instrument, channel, error } => {
                self.tally.rejected(error.reason());
                if channel == Some(Channel::Depth) {
                    self.lost_update(instrument, recv_us);
                }
            }
        }
    }

    /// An update that could not be read is a hole in its book, as on a live line.
    fn lost_update(&mut self, instrument: Option<InstrumentIdx>, recv_us: Option<i64>) {
        if let Some(book) = instrument.and_then(|idx| self.books.get_mut(&idx)) {
            book.keeper.reset(Cause::Unreadable, recv_us.unwrap_or(0));
        }
    }

    fn event(&mut self, event: Event, recv_us: Option<i64>) {
        self.print(&event, recv_us);
        if let Event { instrument, event_us, recv_us, body: Body::Delta(delta), .. } = event {
            self.update(instrument, delta, event_us, recv_us);
        }
    }

    fn print(&mut self, event: &Event, recv_us: Option<i64>) {
        self.tally.event(&event.body);
        if let Some(label) = self.labels.get(event.instrument.0 as usize).filter(|_| self.prints) {
            print::event(&mut self.output, label, event, recv_us);
        }
    }

    fn book(&mut self, idx: InstrumentIdx, now_us: i64) -> &mut Book {
        self.books.entry(idx).or_insert_with(|| {
            let mut keeper = BookKeeper::new(self.rule, self.limits, now_us);
            keeper.begin_sync();
            Book { keeper, chain: LineChain::new(), streamed: false }
        })
    }

    fn update(&mut self, idx: InstrumentIdx, delta: BookDelta, event_us: Option<i64>, recv_us: i64) {
        let rule = self.rule;
        let book = self.book(idx, recv_us);
        book.streamed = true;
        let link = book.chain.check(rule, &delta.ids);
        let step = book.keeper.on_delta(delta, event_us, recv_us);
        // A chain that broke before the book's snapshot leaves the book whole; both kinds are gaps of the recording.
        if matches!(link, Link::Gap { .. }) || matches!(step, Step::Gap { .. }) {
            self.tally.gaps += 1;
        }
    }

    fn snapshot(&mut self, symbol: Option<&str>, body: &[u8], limit: Option<usize>, recv_us: Option<i64>) {
        let idx = match symbol {
            Some(symbol) => self.table.find(symbol),
            None => self.awaiting(),
        };
        let Some((idx, instrument)) = idx.and_then(|idx| Some((idx, Arc::clone(self.table.get(idx)?))))
        else {
            return self.tally.rejected(DecodeError::UnknownSymbol(String::new()).reason());
        };
        let answer = RestAnswer { status: 200, retry_after: None, body: body.to_vec() };
        // Without the limit that was asked, nothing is known beyond the levels that came.
        let snapshot = match self.venue.parse_snapshot(&instrument, limit.unwrap_or(0), &answer) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.tally.rejected(reason(&error)),
        };
        let now_us = recv_us.unwrap_or(0);
        let keeper = &mut self.book(idx, now_us).keeper;
        let epoch = keeper.open_attempt().unwrap_or_else(|| keeper.begin_sync());
        let step = keeper.on_snapshot(&snapshot, epoch, now_us);
        self.tally.step(step);
        let event_us = content::snapshot_ms(body).map(|ms| ms.saturating_mul(1000));
        let body = Body::Snapshot(snapshot);
        self.print(&Event { instrument: idx, event_us, sent_us: event_us, recv_us: now_us, body }, recv_us);
    }

    /// The instrument of a book that names none: the only one of its recording, or else the only one that waits for a
    /// snapshot, or has a book at all.
    fn awaiting(&self) -> Option<InstrumentIdx> {
        if let Some(symbol) = self.survey.only_symbol(self.file) {
            return self.table.find(symbol);
        }
        let waits =
            |(_, book): &(&InstrumentIdx, &Book)| book.streamed && book.keeper.state() != BookState::Live;
        only(self.books.iter().filter(waits).map(|(idx, _)| *idx))
            .or_else(|| only(self.books.keys().copied()))
    }

    /// The counts so far.
    pub(super) fn summary(&self) -> Value {
        let mut states = BTreeMap::new();
        let mut all = KeeperCounters::default();
        for book in self.books.values() {
            *states.entry(book.keeper.state().as_str()).or_default() += 1;
            let counters = book.keeper.counters();
            all.applied += counters.applied;
            all.duplicates += counters.duplicates;
            all.synced += counters.synced;
            all.crossed += counters.crossed;
            all.refused += counters.refused;
        }
        self.tally.summary(&states, all)
    }

    /// Gives the final books one by one as lines of JSON, in the order of native symbols.
    pub(super) fn books(&self) -> impl Iterator<Item = Vec<u8>> {
        self.books.iter().filter_map(|(idx, Book { keeper, .. })| {
            let mut text = Vec::new();
            let label = self.labels.get(idx.0 as usize)?;
            print::book(&mut text, label, keeper.state(), keeper.last_id(), keeper.live_book());
            Some(text)
        })
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn reason(error: &RestError) -> &'static str {
    match error {
        RestError::Body(error) => error.reason(),
        _ => "refused_answer",
    }
}
